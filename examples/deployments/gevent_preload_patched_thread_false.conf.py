from gevent import monkey

monkey.patch_all(thread=False)

worker_class = "gevent"
workers = 2
preload_app = True
graceful_timeout = 5
