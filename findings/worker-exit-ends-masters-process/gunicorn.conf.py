import multiprocessing
import pathlib
import time

bind = "127.0.0.1:0"
workers = 2
control_socket_disable = True


def listen():
    while True:
        time.sleep(0.1)


def on_starting(server):
    """One listener for the service, in a child of the master: no worker has anything to do with it."""
    process = multiprocessing.get_context("fork").Process(target=listen, daemon=True)
    process.start()
    pathlib.Path("listener").write_text(f"{process.pid}\n")


def post_worker_init(worker):
    with pathlib.Path("workers").open("a") as file:
        print(worker.pid, file=file, flush=True)
