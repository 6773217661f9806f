"""A background task tells all browsers how the shop does; what other processes tell them comes over Redis."""

import os

from flask import Flask
from flask_socketio import SocketIO

app = Flask(__name__)
# Flask-SocketIO takes gevent where it is installed; a gthread worker needs "threading".
socketio = SocketIO(
    app,
    message_queue=os.environ.get("REDIS_URL", "redis://localhost:6379/0"),
    async_mode=os.environ.get("SOCKETIO_ASYNC_MODE"),
)


def report():
    while True:
        socketio.emit("report", {"process": os.getpid()})
        socketio.sleep(0.2)


socketio.start_background_task(report)


@socketio.on("connect")
def connect():
    socketio.emit("welcome", {"process": os.getpid()})


@app.route("/")
def index():
    return f"{os.getpid()}\n"
