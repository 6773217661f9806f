from gevent import monkey

monkey.patch_all(thread=False)

import pathlib

bind = "127.0.0.1:0"
worker_class = "gthread"
control_socket_disable = True
graceful_timeout = 2


def post_worker_init(worker):
    pathlib.Path("address").write_text("http://{}:{}".format(*worker.sockets[0].getsockname()))
