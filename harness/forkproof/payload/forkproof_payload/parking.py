"""Fork phase: what the scenario parks stands at its point when the arbiter forks a worker, and until the fork is done.

`pre_fork` waits until everything that is to be parked stands there, or its bound has passed. A parked unit goes on once
it sees that the fork is done in its own process: gunicorn then gives the worker object its pid, in the parent and in
the child, where a copied greenlet sees it too. A native thread waits natively, a greenlet of the main thread gives way,
so that the arbiter can go on.

In a worker each request then uses what the unit stood in the middle of, as an application would: it takes the lock,
puts to the queue, imports the module, writes a log record, asks the connection, looks up the name.

Points, and how the unit gets there:

 lock               `with` a threading.Lock
 queue_mutex        `put` to a queue.Queue, which calls `_put` with its mutex held
 import             an import whose loader is in the middle of the module, with the module's lock held
 log_handler_lock   a handler's `emit`, which logging calls with the handler's lock held
 log_record         a log record on its way through a log file's io.BufferedWriter, with that one's lock held
 mid_reply          a connection of the application's own; of the reply it has read the header
 getaddrinfo        a look-up of a host name, inside `_socket.getaddrinfo`
 recv               where a loop that hears Redis stands by itself; it is only waited for
"""

import os
import sys
import time

from forkproof_payload import probe, streams

CONTROL = "gunicorn_control"
HOLD = 5.0
"""Seconds after which a unit goes on though no fork came."""

HOST = "forkproof-parked"
"""The name that is looked up; it is answered as the loopback address."""

# By name, once: a later patch must not reach them.
_monotonic = time.monotonic
_getpid = os.getpid

parks = []
"""What the scenario parks, in its order."""

units = {}
"""The newest loop of each name that is parked."""

arbiter = [None]
"""gunicorn's arbiter, once it has one."""

_broker = {}


class _Fork(object):
    """One fork of a worker: under way once it has the worker's object, done once that has got its pid."""

    def __init__(self, number):
        self.number = number
        self.standing = set()
        self._worker = None
        self._before = None

    def begin(self, worker):
        self._before = worker.pid
        self._worker = worker

    def done(self):
        return self._worker is not None and self._worker.pid != self._before


_coming = [_Fork(0)]


def coming():
    """The number of the fork that is being waited for, or of the one that made this process."""
    return _coming[0].number


class _Park(object):
    """One unit and its point."""

    def __init__(self, index, spec):
        self.index = index
        self.who = spec["who"]
        self.at = spec["at"]
        self.wanted = None
        self.stood = False
        self._errand = None
        self._visitor = None
        self.fork = None

    def event(self, _kind, **fields):
        probe.event(_kind, park=self.index, who=self.who, at=self.at, **fields)

    def errand(self):
        """What the unit does at its point, made by the first that needs it, as a module that both import would."""
        if self._errand is None:
            self._errand = ERRANDS[self.at](self)
        return self._errand

    def give_name(self, thing):
        """Have something as a module has it, so that it can be named where it is found."""
        globals()["{}_{}".format(self.at, self.who)] = thing
        return thing

    def visit(self):
        """Go to the point, if a fork is near."""
        fork, self.wanted = self.wanted, None
        if fork is not None:
            self._visitor, self.fork = (_getpid(), _ident()), fork
            try:
                self.errand().go()
            finally:
                self._visitor = None

    def visited(self):
        """Whether it is the unit that runs, on its way through its point."""
        return self._visitor == (_getpid(), _ident())

    def hold(self):
        """Called at the point, by whoever comes there: the unit stays until the fork is done."""
        if self.visited():
            self.stay(self.fork)

    def stay_once(self):
        """Hold gunicorn's control thread at its first record; it writes that one before `pre_fork` comes."""
        if not self.stood and self._is_control():
            self.stay(_coming[0])

    def _is_control(self):
        import threading

        thread = getattr(getattr(arbiter[0], "_control_server", None), "_thread", None)
        return thread is not None and thread is threading.current_thread()

    def stay(self, fork):
        self.stood = True
        native = probe.native_thread_id() != _getpid()
        self.event("park.reached", fork=fork.number, native=native)
        fork.standing.add(self.index)
        end = _monotonic() + HOLD
        while not fork.done() and _monotonic() < end:
            _pause(native)
        if fork.done():
            self.event("park.released", fork=fork.number)
        else:
            self.fail(fork, "no fork came within {} s, so it went on".format(HOLD))

    def fail(self, fork, reason, absent=False):
        """`absent`: the unit is not there when this fork comes, so that the fork cannot hit it."""
        self.event("park.failed", fork=fork.number, reason=reason, absent=absent)

    def absent(self):
        """Why the unit is not in the arbiter when it forks now; None where it is."""
        if self.who == CONTROL:
            server = getattr(arbiter[0], "_control_server", None)
            thread = getattr(server, "_thread", None)
            if thread is None or not thread.is_alive():
                return "gunicorn has no control thread when it forks"
            if hasattr(server, "_stop_for_fork"):
                return "gunicorn stops its control thread before it forks"
            return None
        loop = units.get(self.who)
        if loop is None:
            return "the loop is not in the arbiter"
        return "the loop has ended" if loop.alive() is False else None

    def ask_to_come(self, fork):
        """Make the unit's next turn lead by its point; a reason where it will not come."""
        if self.who == CONTROL:
            return "it writes no further record" if self.stood and self.index not in fork.standing else None
        if self.at != "recv":
            self.wanted = fork
        return None

    def stands(self, fork):
        if self.at == "recv" and self.index not in fork.standing and _receives(units[self.who]):
            self.event("park.reached", fork=fork.number, native=units[self.who].task != _getpid())
            fork.standing.add(self.index)
        return self.index in fork.standing


def set_up(specs, broker):
    """Take the scenario's parks; nothing is made before it is needed."""
    _broker.update(broker)
    parks.extend(_Park(index, spec) for index, spec in enumerate(specs))


def by_way(loop, give_way):
    """A loop's yield, by way of the point where it is to be parked."""
    park = _park_of(loop.spec["name"])
    if park is None:
        return give_way
    units[park.who] = loop
    if park.at == "recv":
        return give_way
    park.errand()

    def go():
        if park.wanted is not None and units[park.who] is loop:
            park.visit()
        give_way()

    return go


def before_fork(worker, bound):
    """Called by `pre_fork`: wait until everything stands at its point; what does not is recorded with the reason."""
    if not parks:
        return
    fork = _coming[0]
    if fork.done():
        fork = _coming[0] = _Fork(fork.number + 1)
    waited_for = []
    for park in parks:
        reason = park.absent()
        if reason is not None:
            park.fail(fork, reason, absent=True)
            continue
        reason = park.ask_to_come(fork)
        if reason is not None:
            park.fail(fork, reason)
        else:
            waited_for.append(park)
    end = _monotonic() + bound
    while not all(park.stands(fork) for park in waited_for) and _monotonic() < end:
        # As the arbiter itself would wait: a main that waits natively gives no greenlet its turn.
        time.sleep(0.001)
    for park in waited_for:
        if not park.stands(fork):
            park.wanted = None
            park.fail(fork, "it did not come there within {} s".format(bound))
    fork.begin(worker)


def use():
    """In a worker: do for each park what the unit was in the middle of."""
    for park in parks:
        if park.who == CONTROL or park.at == "recv":
            continue
        if park.index in _used:
            park.errand().go()
            continue
        _used.add(park.index)
        park.event("park.use")
        try:
            park.errand().go()
        except Exception as error:
            park.event("park.used", error=repr(error))
            raise
        park.event("park.used", error=None)


_used = set()


def _park_of(who):
    return next((park for park in parks if park.who == who), None)


def control_park(at):
    """The park of gunicorn's control thread at a point, if the scenario has it."""
    park = _park_of(CONTROL)
    return park if park is not None and park.at == at else None


def _ident():
    import _thread

    return _thread.get_ident()  # a greenlet's own, where threads are greenlets


def _pause(native):
    if native:
        # Another thread may be in the middle of importing it: then nothing is patched.
        get_original = getattr(sys.modules.get("gevent.monkey"), "get_original", None)
        sleep = get_original("time", "sleep") if get_original else time.sleep
    else:
        sleep = sys.modules["gevent"].sleep if "gevent" in sys.modules else time.sleep
    sleep(0.001)


HOLDING = {
    (function.__code__.co_filename, function.__code__.co_name)
    for function in (_pause, _Park.stay, _Park.hold, _Park.stay_once)
}
"""(file, function) of the code that a parked thread is in, whatever it is in the middle of."""


# Where a loop that hears Redis stands by itself

_RECEIVING = {
    # machine: numbers of read, poll, select, recvfrom, recvmsg, epoll_wait, pselect6, ppoll, epoll_pwait
    "x86_64": ("0", "7", "23", "45", "47", "232", "270", "271", "281"),
    "aarch64": ("63", "212", "207", "22", "72", "73"),
}


def _receives(loop):
    """Whether a loop has subscribed and waits on its connection."""
    if not loop.subscribed or loop.task is None:
        return False
    if loop.task == _getpid():
        return _waits_in_gevent(loop.greenlet)
    try:
        with open("/proc/self/task/{}/syscall".format(loop.task)) as file:
            return file.read().split()[0] in _RECEIVING.get(os.uname().machine, ())
    except (OSError, IndexError):
        return False


def _waits_in_gevent(greenlet):
    frame = getattr(greenlet, "gr_frame", None)
    while frame is not None:
        if "gevent" in frame.f_code.co_filename and frame.f_code.co_name in ("recv", "recv_into", "select", "poll"):
            return True
        frame = frame.f_back
    return False


# Points


class _Lock(object):
    def __init__(self, park):
        import threading

        self._park = park
        self._lock = park.give_name(threading.Lock())

    def go(self):
        with self._lock:
            self._park.hold()


class _Queue(object):
    def __init__(self, park):
        import queue

        class Queue(queue.Queue):
            def _put(self, item):
                queue.Queue._put(self, item)
                park.hold()

        self._queue = park.give_name(Queue())

    def go(self):
        self._queue.put(None)
        self._queue.get()


class _Import(object):
    """A module of its own for each fork: what was imported once is imported."""

    def __init__(self, park):
        self._park = park
        sys.meta_path.insert(0, self)

    def go(self):
        module = __import__("forkproof_parked_{}".format(coming()))
        if not hasattr(module, "last"):
            raise ImportError("{} is half imported".format(module.__name__))

    def find_spec(self, name, path=None, target=None):
        if not name.startswith("forkproof_parked_"):
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.first = True
        self._park.hold()
        module.last = True


class _Log(object):
    """A logger of the application's own."""

    def __init__(self, park):
        import logging

        class Handler(logging.StreamHandler):
            def emit(self, record):
                if park.at == "log_handler_lock":
                    park.hold()
                logging.StreamHandler.emit(self, record)

            def handleError(self, record):
                # A child's thread may have the ident of the one that was left behind, and so that one's locks: then
                # the file refuses a "reentrant call", and logging would pass over it.
                raise

        self._logger = logging.getLogger("forkproof.parked.{}".format(park.who))
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        between = park.hold if park.at == "log_record" else None
        self._logger.addHandler(Handler(streams.log_file(between=between)))

    def go(self):
        self._logger.info("a record of the application's log")


class _Connection(object):
    """A connection to Redis, as a small client library has it: it remembers what it has to read of a reply."""

    def __init__(self, park):
        self._park = park
        self._socket = None
        self._asked = 0
        self._missing = 0

    def go(self):
        import socket

        if self._socket is None:
            self._socket = socket.create_connection((_broker["host"], _broker["port"]))
        self._asked += 1
        # Two lines: fakeredis sends what has no line break as a simple string, which has no header of its own.
        message = "{}\n{}".format(probe.key(), self._asked).encode("ascii")
        self._socket.sendall(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(message), message))
        if not self._missing:
            header = self._line()
            if header != b"$%d\r\n" % len(message):
                raise ValueError("the reply to {!r} begins with {!r}".format(message, header))
            self._missing = len(message) + 2
        self._park.hold()
        reply = b""
        while self._missing:
            part = self._read(self._missing)
            self._missing -= len(part)
            reply += part
        if reply != message + b"\r\n":
            raise ValueError("the reply to {!r} is {!r}".format(message, reply))

    def _line(self):
        line = b""
        while not line.endswith(b"\r\n"):
            line += self._read(1)
        return line

    def _read(self, size):
        part = self._socket.recv(size)
        if not part:
            raise EOFError("Redis has closed the connection")
        return part


class _LookUp(object):
    def __init__(self, park):
        import _socket

        original = _socket.getaddrinfo

        def getaddrinfo(host, *args, **kwargs):
            if host != HOST:
                return original(host, *args, **kwargs)
            fork, self._fork = self._fork, None
            if fork is not None:
                park.stay(fork)
            return original("127.0.0.1", *args, **kwargs)

        # Looked up late by both socket and gevent's resolver; the latter calls it in its thread pool.
        _socket.getaddrinfo = getaddrinfo
        self._park = park
        self._fork = None
        # What a first look-up imports is a point of its own.
        "localhost".encode("idna")

    def go(self):
        import socket

        self._fork = self._park.fork if self._park.visited() else None
        socket.getaddrinfo(HOST, 80)


ERRANDS = {
    "lock": _Lock,
    "queue_mutex": _Queue,
    "import": _Import,
    "log_record": _Log,
    "log_handler_lock": _Log,
    "mid_reply": _Connection,
    "getaddrinfo": _LookUp,
}
