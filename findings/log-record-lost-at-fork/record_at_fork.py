"""Forks while a thread is in a log record, and prints whether it comes out of it in parent and child."""

from gevent import monkey

monkey.patch_all()

import logging
import os
import threading
import time


class SlowHandler(logging.Handler):
    def emit(self, record):
        time.sleep(0.3)


def work():
    logging.getLogger().error("a record")
    print("out of it in the", "parent" if os.getpid() == PARENT else "child", flush=True)


PARENT = os.getpid()
handler = SlowHandler()
logging.getLogger().addHandler(handler)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
if os.fork() == 0:
    time.sleep(1)
    os._exit(0)
time.sleep(1)
os.wait()
