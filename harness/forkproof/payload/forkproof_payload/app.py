from forkproof_payload import deployment; deployment.patch("app_first_line")  # noqa: E702
"""A Flask application with background work; its first line is the first that can patch."""

import logging  # noqa: F401
import ssl  # noqa: F401

if deployment.uses_redis() or deployment.patches("app_after_imports"):
    import redis  # noqa: F401

from flask import Flask, jsonify

if deployment.uses_socketio():
    from flask_socketio import SocketIO

deployment.make_early("app")
deployment.patch("app_after_imports")
deployment.patch_in_thread()

app = Flask("forkproof_payload")
if deployment.uses_socketio():
    deployment.app_has_socketio(SocketIO(app, **deployment.message_queue()))


@app.route("/")
def answer():
    return jsonify(deployment.request())


@app.route("/block/<int:number>/<int:slot>/<float:seconds>")
def block(number, slot, seconds):
    return jsonify(deployment.block(number, slot, seconds))


deployment.hook("app_import")
