from forkproof_payload import deployment; deployment.begin(); deployment.patch("config_first_line")  # noqa: E702
"""gunicorn's configuration file for a scenario; its first line is the first that can patch."""

deployment.make_early("config")

if deployment.patches("config_after_imports"):
    import logging  # noqa: F401
    import queue  # noqa: F401
    import socket  # noqa: F401
    import ssl  # noqa: F401
    import threading  # noqa: F401

    deployment.patch("config_after_imports")

from forkproof_payload import parking

deployment.become_arbiter()
deployment.watch_forks()

_classes = {"geventwebsocket": "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"}

bind = "127.0.0.1:0"
errorlog = "-"
if deployment.own_error_log():
    logger_class = "forkproof_payload.error_log.Logger"
max_requests = deployment.SERVER["max_requests"]
graceful_timeout = deployment.SERVER["graceful_timeout"]
preload_app = deployment.SERVER["preload"]
reload = deployment.SERVER["reload"]
control_socket_disable = not deployment.SERVER["control_socket"]  # from gunicorn 25.1.0 on; passed over before
threads = deployment.SERVER["threads"]
timeout = deployment.SERVER["timeout"]
worker_class = _classes.get(deployment.SERVER["worker_class"], deployment.SERVER["worker_class"])
workers = deployment.SERVER["workers"]


def on_starting(server):
    parking.arbiter[0] = server
    deployment.hook("on_starting")


def when_ready(server):
    from forkproof_payload import probe

    probe.event("listening", address=server.LISTENERS[0].sock.getsockname())
    deployment.hook("when_ready")


def on_reload(server):
    deployment.give_slots_back(server)
    deployment.hook("on_reload")


def pre_fork(server, worker):
    worker.forkproof_slot = deployment.free_slot(server)
    deployment.hook("pre_fork", slot=worker.forkproof_slot)
    deployment.before_fork(worker)


def post_fork(server, worker):
    deployment.become_worker(worker.forkproof_slot)
    deployment.watch_worker_patch(worker)
    deployment.hook("post_fork", slot=worker.forkproof_slot)


def post_worker_init(worker):
    deployment.hook("post_worker_init", slot=worker.forkproof_slot)


def worker_exit(server, worker):
    deployment.hook("worker_exit", slot=worker.forkproof_slot)


def worker_abort(worker):
    deployment.hook("worker_abort", slot=worker.forkproof_slot)


def child_exit(server, worker):
    deployment.vacate(server, worker)
    deployment.hook("child_exit", slot=worker.forkproof_slot, child=worker.pid)


def on_exit(server):
    deployment.hook("on_exit")


deployment.register_fork_hook()
deployment.hook("config_import")
