"""Requests put their log records into a queue; a thread of `logging` writes them to the file."""

import atexit
import logging
import logging.handlers
import os
import queue

from flask import Flask

app = Flask(__name__)
records = queue.Queue(-1)
file = logging.FileHandler(os.environ.get("REPORT", "report.log"))
file.setFormatter(logging.Formatter("%(process)d %(message)s"))
listener = logging.handlers.QueueListener(records, file)
listener.start()
atexit.register(listener.stop)

logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)
logger.propagate = False
logger.addHandler(logging.handlers.QueueHandler(records))


@app.route("/")
def index():
    return f"{os.getpid()}\n"


@app.route("/orders/<order>")
def orders(order):
    logger.info("%s", order)
    return f"{os.getpid()}\n"
