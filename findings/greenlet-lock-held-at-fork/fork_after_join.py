"""Forks right after a thread that used greenlet was joined: exit 1 where a child never ends, 0 where all do."""

import os
import sys
import threading
import time

import greenlet

TRIED = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
hung = 0
for _ in range(TRIED):
    thread = threading.Thread(target=greenlet.getcurrent)
    thread.start()
    thread.join()
    pid = os.fork()
    if pid == 0:
        greenlet.getcurrent()
        sys.exit(0)
    for _ in range(1000):
        if os.waitpid(pid, os.WNOHANG)[0]:
            break
        time.sleep(0.01)
    else:
        hung += 1
        os.kill(pid, 9)
        os.waitpid(pid, 0)
print(
    "greenlet", greenlet.__version__, "Python", sys.version.split()[0], "-", hung, "of", TRIED, "children never ended"
)
sys.exit(1 if hung else 0)
