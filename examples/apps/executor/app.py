"""Orders are dealt with by a thread of a pool, one at a time; the pool first loads what it needs."""

import os
from concurrent.futures import ThreadPoolExecutor

from flask import Flask

app = Flask(__name__)
REPORT = os.environ.get("REPORT", "report.log")
executor = ThreadPoolExecutor(max_workers=1)
prices = {}


def load():
    prices["tea"] = 3


def deal_with(order):
    with open(REPORT, "a") as file:
        file.write(f"{os.getpid()} {order}\n")


executor.submit(load)


@app.route("/")
def index():
    return f"{os.getpid()}\n"


@app.route("/orders/<order>")
def orders(order):
    executor.submit(deal_with, order)
    return f"{os.getpid()}\n"
