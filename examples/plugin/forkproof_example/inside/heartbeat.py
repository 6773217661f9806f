"""What runs inside the server, in the target's interpreter: standard library, and the syntax of Python 3.6."""

import os
import time


class Heartbeat:
    """Made where the loop is created; `turn` is called again and again where it runs."""

    def __init__(self, loop):
        self.path = loop.name + ".heartbeat"

    def begin(self):
        self.own = f"{self.path}.{os.getpid()}"

    def turn(self):
        with open(self.own, "w") as file:
            file.write(str(time.time()))
        os.rename(self.own, self.path)

    def use(self):
        """What each request does: look how old the heartbeat is, where one was written."""
        if os.path.exists(self.path):
            os.stat(self.path)
