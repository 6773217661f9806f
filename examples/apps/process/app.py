"""A report is written five times a second by a process in the background."""

import multiprocessing
import os
import time

from flask import Flask

app = Flask(__name__)
REPORT = os.environ.get("REPORT", "report.log")


def report():
    while True:
        with open(REPORT, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.2)


multiprocessing.Process(target=report, daemon=True).start()


@app.route("/")
def index():
    return f"{os.getpid()}\n"
