"""What a loop does in one turn, and how it gives way at its end.

A body is made with its loop, by the creator; what it imports or shares is there from then on, as from a module's first
lines: an import that a fork catches in another thread is a fault of its own. What is shared, every request uses too, in
each process that has it: it takes the lock, puts to the queue, writes to the log.
"""

import json
import os
import sys
import time

from forkproof_payload import early, probe

WORK = 20000
HOLD = 0.01
"""Seconds that a turn holds its lock."""

WAIT = 0.05
"""Seconds that a turn waits for something to come."""


class Sleep(object):
    """Nothing but the yield."""

    def __init__(self, loop):
        self.loop = loop

    def begin(self):
        """What comes before the first turn, where the loop runs."""

    def turn(self):
        self.loop.ticker.tick()

    def use(self):
        """What a request does with what the loop shares."""


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
        message = self.pubsub.get_message(timeout=WAIT)
        self.loop.ticker.tick()
        if message is not None:
            self.loop.hear(message)


class Blpop(Listen):
    """Takes the next message off a list of its own, and waits a little for it: Redis 6 knows fractions of a second."""

    def begin(self):
        import redis

        self.client = redis.Redis(**self.loop.broker)
        self.loop.subscribed = True

    def turn(self):
        found = self.client.blpop(self.loop.channel, timeout=WAIT)
        self.loop.ticker.tick()
        if found is not None:
            self.loop.handled(found[1])


class QueueGet(Sleep):
    """Takes from a `queue.Queue` what requests of the same process have put there, and waits a little for it."""

    def __init__(self, loop):
        import queue

        Sleep.__init__(self, loop)
        self.queue = queue.Queue()
        self.empty = queue.Empty

    def turn(self):
        self.look(self.loop.spec["name"])
        try:
            self.queue.get(timeout=WAIT)
        except self.empty:
            pass
        self.loop.ticker.tick()

    def use(self):
        self.look("request")
        self.queue.put(None)

    def look(self, user):
        early.look(self.loop.spec["name"] + "'s queue", self.queue, user)


class Lock(Sleep):
    """Holds a `threading.Lock` for all of its turn, and sleeps meanwhile."""

    def __init__(self, loop):
        import threading

        Sleep.__init__(self, loop)
        self.lock = threading.Lock()

    def turn(self):
        self.look(self.loop.spec["name"])
        with self.lock:
            self.loop.ticker.tick()
            time.sleep(HOLD)

    def use(self):
        self.look("request")
        with self.lock:
            pass

    def look(self, user):
        early.look(self.loop.spec["name"] + "'s lock", self.lock, user)


class Logger(Sleep):
    """Writes a record to the application's log."""

    def __init__(self, loop):
        import logging

        Sleep.__init__(self, loop)
        self.log = logging.getLogger("forkproof_payload." + loop.spec["name"])
        if not self.log.handlers:
            # What it says is nobody's business, and would hide what the server says.
            self.log.addHandler(logging.StreamHandler(open(os.devnull, "w")))
            self.log.setLevel(logging.INFO)
            self.log.propagate = False

    def turn(self):
        self.loop.ticker.tick()
        self.look(self.loop.spec["name"])
        self.log.info("a turn")

    def use(self):
        self.look("request")
        self.log.info("a request")

    def look(self, user):
        early.look(self.loop.spec["name"] + "'s log", self.log.handlers, user)


BODIES = {
    "sleep": Sleep,
    "cpu": Cpu,
    "listen": Listen,
    "get_message": GetMessage,
    "blpop": Blpop,
    "queue_get": QueueGet,
    "lock": Lock,
    "logger": Logger,
}


class Given(object):
    """What a body of another package is given of its loop.

    `name`; `redis`, with which `redis.Redis(**redis)` reaches the run's; `channel`, which is the loop's own there.
    """

    def __init__(self, loop, plugin):
        self.name = loop.spec["name"]
        self.redis = dict(loop.broker)
        self.channel = loop.channel
        self._loop = loop
        self._plugin = plugin

    def subscribed(self):
        """Redis has confirmed the subscription to the channel."""
        self._loop.hear({"type": "subscribe"})

    def handled(self, message):
        """This message, bytes or text, was handled."""
        message = message.encode("ascii", "replace") if isinstance(message, str) else message
        if not isinstance(message, bytes):
            raise defect(self._plugin, "handled() was given {!r}, which is no message".format(message))
        self._loop.handled(message)


class Other(Sleep):
    """A body of another package: what is wrong with it is told in its name, and comes to unknown.

    Its class is called with a `Given` where the loop is created. A turn counts when it has returned; what `begin` and
    `turn` raise ends the loop, as it does one of ours. None of them may return anything: whoever writes `async def`, or
    yields, has had nothing done.
    """

    def __init__(self, loop, of, plugin):
        Sleep.__init__(self, loop)
        self.plugin = plugin
        try:
            self.own = of(Given(loop, plugin))
        except Exception as error:
            raise defect(plugin, "{} raised {!r}".format(of.__name__, error)) from error

    def begin(self):
        self.call("begin")

    def turn(self):
        self.call("turn")
        self.loop.ticker.tick()

    def use(self):
        self.call("use")

    def call(self, name):
        method = getattr(self.own, name, None)
        found = None if method is None else method()
        if found is not None:
            raise defect(self.plugin, "{} returned {!r}".format(name, found))


class Defect(Exception):
    """A body of another package is not what it has to be."""


def defect(plugin, what):
    """Record what is wrong with a body of another package; an exception that says it."""
    what = what[:300]
    probe.event("plugin.defect", plugin=plugin, error=what)
    return Defect("{}: {}".format(plugin, what))


_others = {}


def find(name):
    """What makes the body of that name, and the function that is a turn of it."""
    if name in BODIES:
        return BODIES[name], BODIES[name].turn
    if name not in _others:
        with open(os.path.join(os.environ["FORKPROOF_RUN"], "launch.json"), "rb") as launch:
            told = json.loads(launch.read().decode("utf-8"))["bodies"][name]
        _others[name] = told["plugin"], _class(told, name)
    plugin, of = _others[name]
    return lambda loop: Other(loop, of, plugin), of.turn


def _class(told, name):
    """The class in the file of another package, which is run as a module of its own.

    Not by importlib.util, which imports threading.
    """
    module = type(sys)("forkproof_body_" + name)
    module.__file__ = told["file"]
    sys.modules[module.__name__] = module
    try:
        with open(told["file"], "rb") as source:
            exec(compile(source.read(), told["file"], "exec"), module.__dict__)
        return getattr(module, told["of"])
    except Exception as error:
        raise defect(told["plugin"], "it cannot be loaded: {!r}".format(error)) from error


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
