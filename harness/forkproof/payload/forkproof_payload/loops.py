"""Background loops, as users write them: what runs a body, and what its owner can ask of it."""

import os
import sys

from forkproof_payload import guards, parking, probe
from forkproof_payload.bodies import CALLS, find, pause


class Loop(object):
    """One loop of the scenario, from its creation on."""

    def __init__(self, spec, site, broker, channel, birth=None):
        self.spec = spec
        self.broker = broker
        self.channel = channel
        body, turn = find(spec["body"])
        self.ticker = probe.Ticker(spec["name"], spec["kind"], site, _defined_at(turn), birth)
        # A timer waits by itself.
        give_way = (lambda: None) if spec["kind"] == "timer" else pause(spec["yields"])
        self.give_way = parking.by_way(self, give_way)
        self.subscribed = False
        self.begun_in = None
        self.task = None
        self.greenlet = None
        self.body = body(self)
        self.guard = None
        if spec["guard"] != "none":
            import redis  # noqa: F401

            call = "time.sleep" if spec["yields"]["call"] == "none" else spec["yields"]["call"]
            self.guard = guards.Guard(spec["guard"], broker, channel, CALLS[call](guards.TRY_EVERY))
        self.socketio = None
        self._alive = None

    def start(self):
        """Create what runs the body, and start it."""
        self._alive = KINDS[self.spec["kind"]](self)

    def run(self):
        """Turn after turn, until one raises."""
        try:
            self.begin()
            while True:
                self.body.turn()
                self.give_way()
        except BaseException as error:
            self.ended(error)
            raise

    def runs_here(self):
        """Note which thread and greenlet the loop is."""
        self.task = probe.native_thread_id()
        self.begun_in = os.getpid()
        # Another thread may be in the middle of importing it: then this one runs no greenlet.
        getcurrent = getattr(sys.modules.get("greenlet"), "getcurrent", None)
        if getcurrent is not None:
            self.greenlet = getcurrent()

    def begin(self):
        """What comes before the first turn, where the loop runs."""
        self.runs_here()
        if self.guard is not None:
            self.guard.wait()
            self.give_way = self.guard.renewing(self.give_way)
        self.body.begin()

    def ended(self, error):
        """Record that the loop ends here by an exception."""
        self.ticker.event("loop.end", error=repr(error))

    def alive(self):
        """What the loop's owner would be told in this process; None where it cannot be asked."""
        try:
            return self._alive()
        except Exception:
            return None

    def copied(self):
        """Whether a fork has copied the greenlet that runs this loop, and it lives here: its main thread's alone is."""
        return (
            self.greenlet is not None
            and self.task == self.begun_in != os.getpid()
            and not self.greenlet.dead
        )

    def hear(self, message):
        """Record what Redis delivered."""
        if message["type"] == "subscribe":
            self.subscribed = True
            self.ticker.event("loop.subscribed")
        elif message["type"] == "message":
            self.handled(message["data"])

    def handled(self, message):
        """Record a message of Redis'."""
        self.ticker.event("handled", message=message.decode("ascii"))


def _defined_at(function):
    code = function.__code__
    return "{}:{}".format("/".join(code.co_filename.split("/")[-2:]), code.co_firstlineno)


# Each kind starts the loop, and returns the question that its owner would ask whether it still runs.


def _thread(loop):
    import threading

    thread = threading.Thread(target=loop.run, name=loop.spec["name"], daemon=loop.spec["daemon"])
    thread.start()
    return thread.is_alive


class _Timers(object):
    """A `threading.Timer` whose function sets the next one, after as many turns as the scenario has between yields."""

    def __init__(self, loop):
        import threading

        self._new = threading.Timer
        self._loop = loop
        self._begun = False
        # While one timer's function sets the next, the next is not alive yet.
        self._latest = ()
        self._arm()

    def _arm(self):
        timer = self._new(self._loop.spec["yields"]["seconds"], self._fire)
        timer.daemon = self._loop.spec["daemon"]
        self._latest = self._latest[-1:] + (timer,)
        timer.start()

    def _fire(self):
        loop = self._loop
        try:
            if not self._begun:
                loop.begin()
                self._begun = True
            for _ in range(loop.spec["yields"]["every"]):
                loop.body.turn()
                loop.give_way()
            self._arm()
        except BaseException as error:
            loop.ended(error)
            raise

    def is_alive(self):
        while True:
            latest = self._latest
            if any(timer.is_alive() for timer in latest):
                return True
            if latest is self._latest:  # else they came to their end while they were asked
                return False


def _timer(loop):
    return _Timers(loop).is_alive


def _run_in_thread(loop):
    """redis-py's own thread, which calls a handler: what it does between two messages is its own affair."""
    import redis

    def handler(message):
        loop.ticker.tick()
        loop.hear(message)

    pubsub = redis.Redis(**loop.broker).pubsub()
    pubsub.subscribe(**{loop.channel: handler})
    handle, get = pubsub.handle_message, pubsub.get_message

    # The thread keeps to itself that Redis has confirmed, and how it ends.

    def handle_message(response, *args, **kwargs):
        if response and response[0] in (b"subscribe", "subscribe"):
            loop.runs_here()
            loop.hear({"type": "subscribe"})
        return handle(response, *args, **kwargs)

    def get_message(*args, **kwargs):
        try:
            return get(*args, **kwargs)
        except BaseException as error:
            loop.ended(error)
            raise

    pubsub.handle_message, pubsub.get_message = handle_message, get_message
    thread = pubsub.run_in_thread(sleep_time=loop.spec["yields"]["seconds"], daemon=loop.spec["daemon"])
    return thread.is_alive


def _executor(loop):
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(max_workers=1)
    job = pool.submit(loop.run)
    # An executor that nobody holds is shut down.
    return lambda pool=pool: not job.done()


def _greenlet(loop):
    import gevent

    greenlet = gevent.spawn(loop.run)
    return lambda: not greenlet.dead


def _socketio_task(loop):
    """A background task of Flask-SocketIO's, which emits to everybody in each turn, by way of the message queue."""
    socketio, give_way = loop.socketio, loop.give_way

    def emit_and_give_way():
        socketio.emit("turn", loop.spec["name"])
        give_way()

    loop.give_way = emit_and_give_way
    task = socketio.start_background_task(loop.run)
    # What it is depends on the async mode that the library has chosen: a greenlet, or a thread.
    return task.is_alive if hasattr(task, "is_alive") else lambda: not task.dead


def _gevent_threadpool(loop):
    import gevent

    job = gevent.get_hub().threadpool.spawn(loop.run)
    return lambda: not job.ready()


def _native_thread(loop):
    from gevent import monkey

    monkey.get_original("_thread", "start_new_thread")(loop.run, ())
    # A thread that was started so has no handle.
    return lambda: None


def _process(method):
    def start(loop):
        import multiprocessing

        if method == "fork":
            work = {"target": loop.run}
        else:
            work = {"target": _run_afresh, "args": (loop.spec, loop.broker, loop.channel, loop.ticker.birth)}
        process = multiprocessing.get_context(method).Process(name=loop.spec["name"], **work)
        process.daemon = loop.spec["daemon"]
        process.start()
        return process.is_alive

    return start


def _run_afresh(spec, broker, channel, birth):
    """What a process does that begins with nothing of its creator's but these arguments and the environment.

    By the environment the probe finds the run's folder. It does not see what comes before: the interpreter's start, the
    import of the creator's main module, multiprocessing's own helper processes.
    """
    Loop(spec, None, broker, channel, birth).run()


KINDS = {
    "thread": _thread,
    "timer": _timer,
    "executor": _executor,
    "run_in_thread": _run_in_thread,
    "greenlet": _greenlet,
    "socketio_task": _socketio_task,
    "gevent_threadpool": _gevent_threadpool,
    "native_thread": _native_thread,
    "process": _process("fork"),
    "process_spawn": _process("spawn"),
    "process_forkserver": _process("forkserver"),
}
