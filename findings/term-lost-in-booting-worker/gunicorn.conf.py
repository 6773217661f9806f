import pathlib

bind = "127.0.0.1:0"
graceful_timeout = 10
control_socket_disable = True


def post_fork(server, worker):
    pathlib.Path("booting").write_text(f"{worker.pid}\n")
