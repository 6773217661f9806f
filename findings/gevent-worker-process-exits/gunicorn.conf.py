import os
import pathlib

bind = "127.0.0.1:0"
control_socket_disable = True


def post_worker_init(worker):
    port = worker.sockets[0].getsockname()[1]
    pathlib.Path("address").write_text(f"http://127.0.0.1:{port}/\n")
    pathlib.Path("workers").write_text(f"{worker.pid}\n")


def worker_exit(server, worker):
    if os.getpid() != int(pathlib.Path("workers").read_text()):
        with pathlib.Path("hooks").open("a") as file:
            print(f"worker_exit of worker {worker.pid} was called in process {os.getpid()}", file=file)
