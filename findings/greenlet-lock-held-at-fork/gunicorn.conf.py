from gevent import monkey

monkey.patch_all(thread=False)

bind = "127.0.0.1:0"
preload_app = True
workers = 2
