"""A report is written five times a second by a scheduler in the background."""

import os

from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask

app = Flask(__name__)
REPORT = os.environ.get("REPORT", "report.log")


def report():
    with open(REPORT, "a") as file:
        file.write(f"{os.getpid()}\n")


scheduler = BackgroundScheduler()
scheduler.add_job(report, "interval", seconds=0.2)
scheduler.start()


@app.route("/")
def index():
    return f"{os.getpid()}\n"
