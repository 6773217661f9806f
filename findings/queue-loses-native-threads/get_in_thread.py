"""get_in_thread.py [TIMEOUT]: what a native thread gets that waits for an item, put 0.2 s later."""

import sys

from gevent import monkey

monkey.patch_all(thread=False)

import queue
import threading

import gevent

items = queue.Queue()
got = []


def get():
    try:
        got.append(items.get(timeout=float(sys.argv[1]) if sys.argv[1:] else None))
    except (queue.Empty, gevent.exceptions.LoopExit) as error:
        got.append(type(error).__name__)


thread = threading.Thread(target=get)
thread.start()
gevent.sleep(0.2)
items.put(1)
gevent.sleep(0.1)
thread.join()
print(got)
