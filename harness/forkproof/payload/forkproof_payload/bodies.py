"""What a loop does in one turn, and how it gives way at its end.

A body is made with its loop, by the creator; what it imports or shares is there from then on, as from a module's first
lines: an import that a fork catches in another thread is a fault of its own.
"""

import sys
import time

WORK = 20000


class Sleep(object):
    """Nothing but the yield."""

    def __init__(self, loop):
        self.loop = loop

    def begin(self):
        """What comes before the first turn, where the loop runs."""

    def turn(self):
        self.loop.ticker.tick()


class Cpu(Sleep):
    """Computes for some 0.3 ms."""

    def turn(self):
        self.loop.ticker.tick()
        sum(range(WORK))


class Listen(Sleep):
    """Waits for the next message of its channel."""

    def __init__(self, loop):
        import redis  # noqa: F401

        Sleep.__init__(self, loop)

    def begin(self):
        import redis

        pubsub = redis.Redis(**self.loop.broker).pubsub()
        pubsub.subscribe(self.loop.channel)
        self.listen_to(pubsub)

    def listen_to(self, pubsub):
        self.messages = pubsub.listen()

    def turn(self):
        message = next(self.messages)
        self.loop.ticker.tick()
        self.loop.hear(message)


class GetMessage(Listen):
    """Asks for a message of its channel, and waits a little."""

    def listen_to(self, pubsub):
        self.pubsub = pubsub

    def turn(self):
        message = self.pubsub.get_message(timeout=0.05)
        self.loop.ticker.tick()
        if message is not None:
            self.loop.hear(message)


BODIES = {"sleep": Sleep, "cpu": Cpu, "listen": Listen, "get_message": GetMessage}


def pause(yields):
    """The call that ends a turn, counting the turns that have none."""
    call = CALLS[yields["call"]](yields["seconds"])
    every = yields["every"]
    if every == 1:
        return call
    turns = [0]

    def sometimes():
        turns[0] += 1
        if turns[0] % every == 0:
            call()

    return sometimes


def _gevent_sleep(seconds):
    import gevent

    return lambda: gevent.sleep(seconds)


def _native_sleep(seconds):
    monkey = sys.modules.get("gevent.monkey")
    sleep = monkey.get_original("time", "sleep") if monkey else time.sleep
    return lambda: sleep(seconds)


CALLS = {
    "gevent.sleep": _gevent_sleep,
    "time.sleep": lambda seconds: lambda: time.sleep(seconds),
    "native_sleep": _native_sleep,
    "none": lambda seconds: lambda: None,
}
