from gevent import monkey

monkey.patch_all(thread=False)

import pathlib

bind = "127.0.0.1:0"
control_socket = str(pathlib.Path("control.sock").resolve())


def post_worker_init(worker):
    with pathlib.Path("workers").open("a") as file:
        print(worker.pid, file=file, flush=True)
