"""Background loops, as users write them: what runs a body, the body, and how it gives way."""

import sys
import time

from forkproof_payload import guards, probe

WORK = 20000


class Loop(object):
    """One loop of the scenario, from its creation on."""

    def __init__(self, spec, site, broker, channel):
        self.spec = spec
        self.broker = broker
        self.channel = channel
        self.ticker = probe.Ticker(spec["name"], spec["kind"], site, _defined_at(BODIES[spec["body"]]))
        self.handle = None
        # Imported and looked up by the creator, as a module's first lines would: an import that a fork catches in
        # another thread is a fault of its own.
        self.give_way = pause(spec["yields"])
        self.guard = None
        if spec["body"] in ("listen", "get_message") or spec["guard"] != "none":
            import redis  # noqa: F401
        if spec["guard"] != "none":
            call = "time.sleep" if spec["yields"]["call"] == "none" else spec["yields"]["call"]
            self.guard = guards.Guard(spec["guard"], broker, channel, CALLS[call](guards.TRY_EVERY))

    def start(self):
        """Create the thread, greenlet or process, and start it."""
        self.handle = KINDS[self.spec["kind"]](self)

    def run(self):
        """The body, until it ends or raises."""
        try:
            give_way = self.give_way
            if self.guard is not None:
                self.guard.wait()
                give_way = self.guard.renewing(give_way)
            BODIES[self.spec["body"]](self, give_way)
        except BaseException as error:
            self.ticker.event("loop.end", error=repr(error))
            raise
        self.ticker.event("loop.end", error=None)

    def alive(self):
        """What the loop's owner would be told in this process; None where it cannot be asked."""
        try:
            return ALIVE[self.spec["kind"]](self.handle)
        except Exception:
            return None

    def hear(self, message):
        """Record what Redis delivered."""
        if message["type"] == "subscribe":
            self.ticker.event("loop.subscribed")
        elif message["type"] == "message":
            self.ticker.event("handled", message=message["data"].decode("ascii"))


def _defined_at(function):
    code = function.__code__
    return "{}:{}".format("/".join(code.co_filename.split("/")[-2:]), code.co_firstlineno)


def _thread(loop):
    import threading

    thread = threading.Thread(target=loop.run, name=loop.spec["name"], daemon=loop.spec["daemon"])
    thread.start()
    return thread


def _greenlet(loop):
    import gevent

    return gevent.spawn(loop.run)


def _process(loop):
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=loop.run, name=loop.spec["name"])
    process.daemon = loop.spec["daemon"]
    process.start()
    return process


KINDS = {"thread": _thread, "greenlet": _greenlet, "process": _process}
ALIVE = {
    "thread": lambda handle: handle.is_alive(),
    "greenlet": lambda handle: not handle.dead,
    "process": lambda handle: handle.is_alive(),
}


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


def _sleep(loop, give_way):
    while True:
        loop.ticker.tick()
        give_way()


def _cpu(loop, give_way):
    while True:
        loop.ticker.tick()
        sum(range(WORK))
        give_way()


def _subscribe(loop):
    import redis

    pubsub = redis.Redis(**loop.broker).pubsub()
    pubsub.subscribe(loop.channel)
    return pubsub


def _listen(loop, give_way):
    for message in _subscribe(loop).listen():
        loop.ticker.tick()
        loop.hear(message)
        give_way()


def _get_message(loop, give_way):
    pubsub = _subscribe(loop)
    while True:
        message = pubsub.get_message(timeout=0.05)
        loop.ticker.tick()
        if message is not None:
            loop.hear(message)
        give_way()


BODIES = {"sleep": _sleep, "cpu": _cpu, "listen": _listen, "get_message": _get_message}
