"""What an app imports or makes before it may be patched, and uses ever after: in its requests, and in its loops.

Each thing is made where the scenario says, as a module's first lines would, and is looked at when it is used: what of
it is native although gevent has patched since, and whether a greenlet uses it.
"""

import os
import time

from forkproof_payload import originals, probe

LOOKS = 5
"""How often each use by each user is looked at in a process: what a client holds changes with its first uses."""

kept = {}
"""By name, what was made in this process or in a process that it was forked from; made again, it is another one."""

_looked = {}


class Nothing(object):
    """`import redis`: nothing is used but the module, by whatever else uses it."""

    thing = None
    in_turns = False

    def __init__(self, broker):
        import redis  # noqa: F401

    def request(self):
        """What a request does with it."""

    def turn(self):
        """What a loop does with it in each turn."""


class Lock(Nothing):
    """A module's `threading.Lock()`; a request holds it while it waits for something else."""

    in_turns = True

    def __init__(self, broker):
        import threading

        self.thing = threading.Lock()

    def request(self):
        with self.thing:
            time.sleep(0.001)

    def turn(self):
        with self.thing:
            pass


class LateLock(Lock):
    """`from threading import Lock`, from which the lock itself is made when it is first needed."""

    def __init__(self, broker):
        from threading import Lock

        self._make = Lock
        self._made = None

    @property
    def thing(self):
        if self._made is None:
            self._made = self._make()
        return self._made


class Queue(Nothing):
    """A module's `queue.Queue()` with one thing in it, which whoever needs it takes out and puts back."""

    in_turns = True

    def __init__(self, broker):
        import queue

        self.thing = self.new(queue)
        self.thing.put("token")

    def new(self, queue):
        return queue.Queue()

    def request(self):
        token = self.thing.get()
        time.sleep(0.001)
        self.thing.put(token)

    def turn(self):
        self.thing.put(self.thing.get())


class SimpleQueue(Queue):
    """The same with a `queue.SimpleQueue()`."""

    def new(self, queue):
        return queue.SimpleQueue()


class Client(Nothing):
    """A module's redis-py client, which is connected at once."""

    def __init__(self, broker):
        import redis

        self.thing = redis.Redis(**broker)
        self.thing.ping()

    def request(self):
        self.thing.ping()


class HookLock(Lock):
    """A module's lock, held around each fork, so that no child finds it held by a thread that it lacks."""

    def __init__(self, broker):
        Lock.__init__(self, broker)
        lock = self.thing
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)

    def request(self):
        self.turn()


class HookLog(Nothing):
    """A line in gunicorn's error log before each fork, and one after it on either side."""

    def __init__(self, broker):
        import logging

        log = logging.getLogger("gunicorn.error").info
        os.register_at_fork(
            before=lambda: log("about to fork"),
            after_in_parent=lambda: log("forked"),
            after_in_child=lambda: log("forked, as the child"),
        )


KINDS = {
    "import_redis": Nothing,
    "lock": Lock,
    "from_threading_import_lock": LateLock,
    "queue": Queue,
    "simple_queue": SimpleQueue,
    "redis_client": Client,
    "fork_hooks_lock": HookLock,
    "fork_hooks_log": HookLog,
}


def make(what, where, broker):
    """Import or make something, here and now."""
    name = "{}.{}".format(where, what)
    kept[name] = KINDS[what](broker)
    probe.event("early.made", name=name)


def request():
    """Use everything as a request does."""
    for name, one in kept.items():
        if one.thing is not None:
            look(name, one.thing, "request")
        one.request()


def using(give_way, loop):
    """A yield of a loop, which uses everything first."""

    def use_and_give_way():
        for name, one in list(kept.items()):
            if one.in_turns:
                look(name, one.thing, loop)
                one.turn()
        give_way()

    return use_and_give_way


def look(name, thing, user):
    """Record what of a thing is native, and who uses it, a few times and where it differs."""
    seen = _looked.setdefault((probe.here().pid, name, user), [])
    if len(seen) < LOOKS:
        found = {"greenlet": originals.in_greenlet(), "native": originals.native_parts(thing)}
        if found not in seen:
            probe.event("early.used", name=name, user=user, **found)
        seen.append(found)
