from gevent import monkey

monkey.patch_all()

import os
import threading
import time

MASTER = os.getpid()


def tick():
    while True:
        time.sleep(0.1)
        if os.getpid() == MASTER:
            with open("ticks", "a") as file:
                file.write(".")


threading.Thread(target=tick, daemon=True).start()


def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok\n"]
