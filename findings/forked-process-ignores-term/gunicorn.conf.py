import os
import pathlib

import background

bind = "127.0.0.1:0"
graceful_timeout = 5
control_socket_disable = True


def on_starting(server):
    if os.environ["START"] == "on_starting":
        background.start()


def when_ready(server):
    if os.environ["START"] == "when_ready":
        background.start()


def post_worker_init(worker):
    port = worker.sockets[0].getsockname()[1]
    pathlib.Path("address").write_text(f"http://127.0.0.1:{port}/\n")
