worker_class = "gevent"
workers = 2
graceful_timeout = 5
