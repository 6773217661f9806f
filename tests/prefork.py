"""A prefork server that is no gunicorn, as a plug-in may bring one: `prefork.py CONFIG MODULE:APP`.

It reads gunicorn's configuration file and calls its hooks; TERM ends it, WINCH is written to its log.
"""

import importlib
import os
import runpy
import signal
import socket
import sys
import wsgiref.simple_server
from types import SimpleNamespace

SIGNALS = (signal.SIGTERM, signal.SIGWINCH, signal.SIGCHLD)


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *words):
        pass


class Master:
    def __init__(self, config, app):
        self.hooks = runpy.run_path(config)
        self.app = app
        self.num_workers = self.hooks["workers"]
        self.WORKERS = {}
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: None)  # else one that is ignored is not waited for
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def run(self):
        sock = socket.create_server(("127.0.0.1", 0))
        self.LISTENERS = [SimpleNamespace(sock=sock)]
        loaded = self.load() if self.hooks["preload_app"] else None
        self.hooks["on_starting"](self)
        self.hooks["when_ready"](self)
        while True:
            while len(self.WORKERS) < self.num_workers:
                self.spawn(sock, loaded)
            number = signal.sigwait(SIGNALS)
            print("Handling signal: " + signal.Signals(number).name[3:].lower(), file=sys.stderr, flush=True)
            if number == signal.SIGTERM:
                break
            self.reap(os.WNOHANG)
        for pid in self.WORKERS:
            os.kill(pid, signal.SIGTERM)
        self.reap(0)
        self.hooks["on_exit"](self)

    def load(self):
        module, _, name = self.app.partition(":")
        return getattr(importlib.import_module(module), name)

    def spawn(self, sock, loaded):
        worker = SimpleNamespace(pid=0)
        self.hooks["pre_fork"](self, worker)
        worker.pid = os.fork()
        if worker.pid:
            self.WORKERS[worker.pid] = worker
            return
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        worker.pid = os.getpid()
        self.hooks["post_fork"](self, worker)
        server = wsgiref.simple_server.WSGIServer(("127.0.0.1", 0), Quiet, bind_and_activate=False)
        server.socket.close()
        server.socket, server.server_name, server.server_port = sock, "localhost", 0
        server.setup_environ()
        server.set_app(loaded or self.load())
        self.hooks["post_worker_init"](worker)
        server.serve_forever()

    def reap(self, flags):
        while self.WORKERS:
            pid, _ = os.waitpid(-1, flags)
            if not pid:
                return
            if pid in self.WORKERS:
                self.hooks["child_exit"](self, self.WORKERS.pop(pid))


if __name__ == "__main__":
    Master(*sys.argv[1:3]).run()
