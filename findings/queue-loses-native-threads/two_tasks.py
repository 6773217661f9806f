"""two_tasks.py [FLAG=0|1 ...]: gives an executor of the standard library two tasks, one after the other."""

import sys

from gevent import monkey

flags = {"thread": False, **{name: value == "1" for name, value in (arg.split("=") for arg in sys.argv[1:])}}
monkey.patch_all(**flags)

import concurrent.futures

pool = concurrent.futures.ThreadPoolExecutor(max_workers=1)
for task in (1, 2):
    try:
        print("task", task, "gave", pool.submit(int).result(timeout=2))
    except concurrent.futures.TimeoutError:
        print("BUG: no result of task", task, "after 2 s")
        sys.exit(1)
