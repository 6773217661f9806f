import os

import background


def app(environ, start_response):
    if os.environ["START"] == "first_request":
        background.start()
    start_response("200 OK", [])
    return [b"ok\n"]
