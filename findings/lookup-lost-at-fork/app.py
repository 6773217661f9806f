from gevent import monkey

monkey.patch_all()

import os
import pathlib
import socket
import threading

import gevent.hub

if os.environ.get("SLOW"):
    # A DNS server that takes 0.5 s: gevent's resolver calls this in its thread pool.
    import gevent.resolver.thread

    find, sleep = gevent.resolver.thread._socket.getaddrinfo, monkey.get_original("time", "sleep")

    def find_slowly(*args):
        sleep(0.5)
        return find(*args)

    gevent.resolver.thread._socket.getaddrinfo = find_slowly


def look_up():
    while True:
        socket.getaddrinfo("localhost", 80)
        with pathlib.Path("lookups").open("a") as file:
            print(os.getpid(), file=file, flush=True)
        gevent.sleep(0.1)


threading.Thread(target=look_up, daemon=True).start()


def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok\n"]
