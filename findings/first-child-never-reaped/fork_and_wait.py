"""fork_and_wait.py fork|process [handler]: waits for a child that ends at once, with or without the cure."""

import sys

from gevent import monkey

monkey.patch_all()

import multiprocessing
import os

import gevent

if sys.argv[2:]:
    gevent.get_hub().loop.install_sigchld()
if sys.argv[1] == "fork":
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    print(os.waitpid(pid, 0))
else:
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    print(process.exitcode)
