import pathlib

bind = "127.0.0.1:0"
preload_app = True
control_socket_disable = True
graceful_timeout = 5


def post_worker_init(worker):
    pathlib.Path("address").write_text("http://{}:{}".format(*worker.sockets[0].getsockname()))
