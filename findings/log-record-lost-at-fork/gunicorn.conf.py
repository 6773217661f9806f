import pathlib

bind = "127.0.0.1:0"
preload_app = True
control_socket_disable = True


def post_worker_init(worker):
    pathlib.Path("workers").write_text(f"{worker.pid}\n")
