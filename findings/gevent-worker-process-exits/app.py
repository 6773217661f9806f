import multiprocessing
import pathlib
import time

started = []


def listen():
    while True:
        time.sleep(0.05)


def app(environ, start_response):
    if not started:
        process = multiprocessing.get_context("fork").Process(target=listen, daemon=True)
        process.start()
        started.append(process)
        pathlib.Path("listener").write_text(f"{process.pid}\n")
    start_response("200 OK", [])
    return [b"ok\n"]
