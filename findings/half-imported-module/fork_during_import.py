"""The same without gunicorn: prints what two children get that import what a thread of their parent was importing when
they were forked, one in its main thread, one in a new thread. For Python 2.7 and 3."""

import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def load():
    import slow

    print(slow.ANSWER.decode().strip() if hasattr(slow, "ANSWER") else "half a module, without its ANSWER")


def load_in_thread():
    thread = threading.Thread(target=load)
    thread.start()
    thread.join()


threading.Thread(target=__import__, args=("slow",)).start()
time.sleep(0.3)
for way in (load, load_in_thread):
    child = os.fork()
    if child == 0:
        signal.alarm(3)
        way()
        sys.stdout.flush()
        os._exit(0)
for _ in range(2):
    if os.wait()[1]:
        print("nothing in 3 s")
