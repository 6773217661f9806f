from gevent import monkey

monkey.patch_all(dns=False)

bind = "127.0.0.1:0"
control_socket_disable = True
preload_app = True


def post_worker_init(worker):
    with open("workers", "a") as file:
        file.write(f"{worker.pid}\n")
