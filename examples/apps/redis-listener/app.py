"""Orders come in over Redis: a thread hears them, and notes which process dealt with each."""

import os
import threading

import redis
from flask import Flask

app = Flask(__name__)
store = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))


def listen():
    pubsub = store.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("orders")
    for message in pubsub.listen():
        store.rpush("handled", f"{os.getpid()} {message['data'].decode()}")


threading.Thread(target=listen).start()


@app.route("/")
def index():
    return f"{os.getpid()}\n"
