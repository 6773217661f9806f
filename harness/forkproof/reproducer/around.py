"""What is there beside server and loops, in a few lines: what is made early, at-fork hooks, log streams, held units.

What is made early is a module of its own, so that it is made where it is imported first, and once.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from forkproof.scenario import (
    CONTROL,
    EarlyPlace,
    EarlyThing,
    ForkHooks,
    LogStream,
    Loop,
    LoopBody,
    ParkPoint,
    Scenario,
)

# --- names

TAKEN = {
    *keyword.kwlist,
    # of Python, where the loops' functions use them
    "dict", "enumerate", "int", "len", "next", "open", "print", "range", "sum",
    # modules, helpers and what is in functions
    "after_fork", "app", "background", "before_fork", "birth", "client", "concurrent", "data", "early_app",
    "early_config", "emit", "end", "errand", "file", "fire", "flask", "flask_socketio", "fork", "found",
    "functools", "getaddrinfo", "gevent", "guard", "handled", "handles", "held", "host", "io", "item",
    "itertools", "json", "key", "lock", "log", "logging", "look_up", "loop", "message", "monkey", "more",
    "multiprocessing", "os", "pathlib", "pubsub", "queue", "record", "redis", "rest", "self", "shared", "slow",
    "socket", "start", "stay", "sys", "threading", "tick", "time", "timer", "token", "turn", "turns", "write",
}  # fmt: skip
"""Names that mean something else in a program than the loop that is called so."""

BESIDE = ("{}", "{}_lock", "{}_log", "{}_pool", "{}_queue", "{}_unit", "hear_{}", "hold_{}", "set_{}")
"""What there may be of each loop."""


def name_of(scenario: Scenario, loop: Loop) -> str:
    """The function of a loop in background.py: its own name, or one like it where that is taken.

    The names of what stands beside it are made of it, and so must be free too.
    """
    taken = TAKEN | {f"start_in_{one.start.value}" for one in scenario.loops}
    for one in scenario.loops:
        name = one.name
        while not taken.isdisjoint(beside := {form.format(name) for form in BESIDE}):
            name += "_loop"
        if one.name == loop.name:
            return name
        taken |= beside
    raise ValueError(loop.name)


# --- what is made early


@dataclass(frozen=True)
class Early:
    """Something that a module makes in its first lines; `{m}` stands for that module.

    `request` and `turn` are what a request and a turn of a loop do with it, `part` what of it a native lock may be.
    """

    imports: Sequence[str]
    made: Sequence[str]
    request: Sequence[str] = ()
    turn: Sequence[str] = ()
    part: str = ""


def _lock(name: str, imports: Sequence[str], *made: str, call: str = "") -> Early:
    held = f"with {{m}}.{name}{call}:"
    return Early(imports, made, [held, "    time.sleep(0.001)"], [held, "    pass"], f"{{m}}.{name}{call}")


# gevent's own queue has none.
_MUTEX = 'getattr({}, "mutex", None)'


def _queue(name: str, kind: str, part: str) -> Early:
    there = f"{{m}}.{name}"
    request = [f"token = {there}.get()", "time.sleep(0.001)", f"{there}.put(token)"]
    made = [f"{name} = queue.{kind}()", f'{name}.put("token")']
    return Early(["import queue"], made, request, [f"{there}.put({there}.get())"], part.format(there))


_THINGS = {
    EarlyThing.LOCK: _lock("lock", ["import threading"], "lock = threading.Lock()"),
    EarlyThing.FROM_THREADING: _lock(
        "late_lock",
        ["import functools", "from threading import Lock"],
        "late_lock = functools.lru_cache(None)(Lock)",
        call="()",
    ),
    EarlyThing.QUEUE: _queue("shared", "Queue", _MUTEX),
    EarlyThing.SIMPLE_QUEUE: _queue("simple", "SimpleQueue", "{}"),
    EarlyThing.REDIS_CLIENT: Early(
        ["import os", "import redis"], ["client = {redis}", "client.ping()"], ["{m}.client.ping()"]
    ),
}

_HELD_LOCK = _lock(
    "hook_lock",
    ["import os", "import threading"],
    "hook_lock = threading.Lock()",
    "give_back = hook_lock.release",
    "os.register_at_fork(before=hook_lock.acquire, after_in_parent=give_back, after_in_child=give_back)",
)
_HOOKS = {
    # Nobody holds it while it waits for something else.
    ForkHooks.LOCK: Early(_HELD_LOCK.imports, _HELD_LOCK.made, _HELD_LOCK.turn, _HELD_LOCK.turn, _HELD_LOCK.part),
    ForkHooks.LOG: Early(
        ["import logging", "import os"],
        [
            'log = logging.getLogger("gunicorn.error").info',
            'os.register_at_fork(before=lambda: log("about to fork"), after_in_parent=lambda: log("forked"))',
            'os.register_at_fork(after_in_child=lambda: log("forked, as the child"))',
        ],
    ),
}


def early(scenario: Scenario, where: EarlyPlace) -> list[Early]:
    """What a module of the deployment makes in its first lines."""
    around = scenario.surroundings
    hooks = [_HOOKS[around.fork_hooks]] if where is EarlyPlace.CONFIG and around.fork_hooks in _HOOKS else []
    return hooks + [_THINGS[one.what] for one in around.early_imports if one.where is where and one.what in _THINGS]


def module_of(where: EarlyPlace) -> str:
    """The module that makes it."""
    return f"early_{where.value}"


def early_modules(scenario: Scenario) -> list[str]:
    """The modules that there are for it."""
    return [module_of(where) for where in EarlyPlace if early(scenario, where)]


def used(scenario: Scenario, where: EarlyPlace, what: str) -> list[str]:
    """The lines of a request or a turn that use what is made there."""
    lines = [line for one in early(scenario, where) for line in getattr(one, what)]
    return [line.replace("{m}", module_of(where)) for line in lines]


def used_in_turns(scenario: Scenario, loop: Loop) -> tuple[list[str], list[str]]:
    """The modules that a loop uses, and the lines with which each of its turns does.

    The app's only where the app is imported, or under import, when the loop starts.
    """
    modules, lines = [], []
    for where in EarlyPlace:
        there = where is EarlyPlace.CONFIG or scenario.server.has_app_at(loop.start)
        if there and (uses := used(scenario, where, "turn")):
            modules.append(module_of(where))
            lines += uses
    return modules, lines


_SHARED_PART = {
    LoopBody.LOCK: "background.{}_lock",
    LoopBody.QUEUE_GET: _MUTEX.format("background.{}_queue"),
    LoopBody.LOGGER: "background.{}_log.handlers[0].lock",
}


def locks(scenario: Scenario) -> list[str]:
    """What requests use, and of which a patch that came later leaves something native."""
    found = [
        one.part.replace("{m}", module_of(where)) for where in EarlyPlace for one in early(scenario, where) if one.part
    ]
    return found + [
        _SHARED_PART[loop.body.like].format(name_of(scenario, loop))
        for loop in scenario.loops
        if loop.body in _SHARED_PART
    ]


# --- log streams


def stream(log: LogStream, native_sleep: str) -> tuple[list[str], list[str], str]:
    """The imports, a class, and what `on_starting` does, for gunicorn's error log to be a file of that pace."""
    if log is LogStream.FAST:
        return [], [], ""
    wait = "time.sleep(0)" if log is LogStream.YIELDING else f"{native_sleep}(0.1)"
    lines = [
        "class Stream(io.RawIOBase):",
        "    def writable(self):",
        "        return True",
        "",
        "    def write(self, data):",
        f"        {wait}",
        "        return os.write(2, data)",
    ]
    put = "server.log.error_log.handlers[0].stream = io.TextIOWrapper(io.BufferedWriter(Stream()))"
    imports = ["import io", "import os", "import time"]
    return [*imports, *(["from gevent import monkey"] if "monkey" in wait else [])], lines, put


# --- units that stand at a point while the master forks

STAY = """
fork = {"near": False, "awaited": True}

def stay():  # while the master forks
    while fork["near"]:
        fork["awaited"] = False
        time.sleep(0.001)

def before_fork():
    fork["near"], end = True, time.monotonic() + 3
    while fork["awaited"] and time.monotonic() < end:
        time.sleep(0.001)

after_fork = lambda: fork.update(near=False, awaited=True)
""".splitlines()

REGISTER = "os.register_at_fork(before=before_fork, after_in_parent=after_fork, after_in_child=after_fork)"


@dataclass(frozen=True)
class Point:
    """How a unit comes to stand there: what is defined, and what it and requests do."""

    imports: Sequence[str]
    lines: Sequence[str]
    errand: Sequence[str]
    module: str = ""
    """The text of the module `slow`, which is imported."""


_LOG = ["", 'log = logging.getLogger("parked")']

POINTS = {
    ParkPoint.LOCK: Point(["import threading"], ["", "held = threading.Lock()"], ["with held:", "    stay()"]),
    ParkPoint.QUEUE_MUTEX: Point(
        ["import queue"],
        [
            "",
            "class Queue(queue.Queue):",
            "    def _put(self, item):",
            "        stay()",
            "        queue.Queue._put(self, item)",
            "",
            "shared = Queue()",
        ],
        ["shared.put(None)", "shared.get()"],
    ),
    ParkPoint.IMPORT: Point(
        [], [], ["import slow", "return slow.last"], "import background\n\nbackground.stay()\nlast = True\n"
    ),
    ParkPoint.LOG_HANDLER_LOCK: Point(
        ["import logging"],
        [
            "",
            "class Handler(logging.Handler):",
            "    def emit(self, record):",
            "        stay()",
            *_LOG,
            "log.addHandler(Handler())",
        ],
        ['log.warning("a record")'],
    ),
    ParkPoint.LOG_RECORD: Point(
        ["import io", "import logging"],
        [
            "",
            "class File(io.FileIO):",
            "    def write(self, data):",
            "        stay()",
            "        return len(data)",
            "",
            "class Handler(logging.StreamHandler):",
            "    def handleError(self, record):",
            "        raise",
            *_LOG,
            'log.addHandler(Handler(io.TextIOWrapper(io.BufferedWriter(File("/dev/null", "w")))))',
        ],
        ['log.warning("a record")'],
    ),
    ParkPoint.GETADDRINFO: Point(
        ["import _socket", "import socket"],
        [
            "",
            'b"localhost".decode("idna")  # what a first look-up imports',
            "look_up = _socket.getaddrinfo",
            "",
            "def getaddrinfo(host, *rest, **more):",
            "    stay()",
            '    return look_up("127.0.0.1", *rest, **more)',
            "",
            "_socket.getaddrinfo = getaddrinfo",
        ],
        ['socket.getaddrinfo("a-name", 80)'],
    ),
}
"""Where a unit can be held; in `recv` a listener stands by itself."""


def park_problem(scenario: Scenario) -> str:
    """Which park cannot be had; empty where each can."""
    for park in scenario.parks:
        if park.who == CONTROL:
            return f"parks: {CONTROL} is held by forkproof's own logger"
        if park.at not in POINTS and park.at is not ParkPoint.RECV:
            return f"parks: {park.at.value!r} takes a client of its own"
    held = [park for park in scenario.parks if park.at in POINTS]
    return "parks: two units that stand while the master forks" if len(held) > 1 else ""


def point_of(scenario: Scenario, loop: Loop | None = None) -> Point | None:
    """The point at which a unit (that loop) is held, if one is."""
    held: Iterator[Point] = (
        POINTS[park.at] for park in scenario.parks if park.at in POINTS and (loop is None or park.who == loop.name)
    )
    return next(held, None)
