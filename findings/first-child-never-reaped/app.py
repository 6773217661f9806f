from gevent import monkey

monkey.patch_all()

import os

# The child ends first: by chance most of the time, and for certain with this hook.
os.register_at_fork(after_in_parent=lambda: monkey.get_original("time", "sleep")(0.1))

pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)


def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok\n"]
