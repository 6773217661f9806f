worker_class = "gthread"
workers = 2
threads = 8
graceful_timeout = 5
raw_env = ["SOCKETIO_ASYNC_MODE=threading"]
