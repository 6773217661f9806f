from gevent import monkey

monkey.patch_all()

import logging
import os
import pathlib
import threading
import time


class SlowHandler(logging.Handler):
    """Stands for one that sends records over the network: gevent switches while it waits."""

    def emit(self, record):
        time.sleep(0.5)


log = logging.getLogger("app")
log.setLevel(logging.INFO)
log.addHandler(SlowHandler())


def work():
    while True:
        log.info("a turn")
        with pathlib.Path("turns").open("a") as file:
            print(os.getpid(), file=file, flush=True)
        time.sleep(0.05)


threading.Thread(target=work, daemon=True).start()


def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok\n"]
