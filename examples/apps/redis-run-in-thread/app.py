"""Orders come in over Redis: redis-py's own thread hears them and calls `handle`."""

import os

import redis
from flask import Flask

app = Flask(__name__)
store = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))


def handle(message):
    store.rpush("handled", f"{os.getpid()} {message['data'].decode()}")


pubsub = store.pubsub(ignore_subscribe_messages=True)
pubsub.subscribe(orders=handle)
thread = pubsub.run_in_thread(sleep_time=0.1, daemon=True)


@app.route("/")
def index():
    return f"{os.getpid()}\n"
