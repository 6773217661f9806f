"""The vocabulary: one deployment, and what happens to it, as frozen data.

A scenario is read from JSON, drawn by a strategy or written by hand; nothing in it is ever executed.
Dimensions and words: docs/dimensions.md.

>>> Scenario(loops=[Loop(name="listen")]).server.workers
1
>>> parse('{"loops": [{"name": "listen"}], "server": {"workers": 9}}')
Traceback (most recent call last):
    ...
forkproof.errors.ScenarioError: server.workers: 9 is not allowed: input should be less than or equal to 4
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

from forkproof import bodies, files, servers
from forkproof import faults as fault_registry
from forkproof.errors import ScenarioError
from forkproof.faults import Life

SCHEMA = 1

LONGEST = 1 << 20
"""Bytes that a file with a scenario may have."""

PATCH_FLAGS = (
    "socket", "dns", "time", "select", "thread", "os", "ssl", "subprocess", "sys", "aggressive",
    "Event", "builtins", "signal", "queue", "contextvars",
)  # fmt: skip
"""Every keyword that `gevent.monkey.patch_all` has had; a target may lack some (`Target.patch_flags`)."""


class Word(str, enum.Enum):
    """An enumeration whose members are their JSON spelling."""

    def __str__(self) -> str:
        return str(self.value)


class PatchSite(Word):
    """Where `gevent.monkey.patch_all` is called."""

    INTERPRETER_START = "interpreter_start"
    CONFIG_FIRST_LINE = "config_first_line"
    CONFIG_AFTER_IMPORTS = "config_after_imports"
    APP_FIRST_LINE = "app_first_line"
    APP_AFTER_IMPORTS = "app_after_imports"
    POST_FORK = "post_fork"
    IN_THREAD = "in_thread"


class LoopStart(Word):
    """The line of the deployment that creates and starts the loop."""

    CONFIG_IMPORT = "config_import"
    ON_STARTING = "on_starting"
    WHEN_READY = "when_ready"
    PRE_FORK = "pre_fork"
    APP_IMPORT = "app_import"
    POST_FORK = "post_fork"
    POST_WORKER_INIT = "post_worker_init"
    FIRST_REQUEST = "first_request"
    FORK_HOOK = "fork_hook"


class LoopKind(Word):
    """What runs the loop's body."""

    THREAD = "thread"
    TIMER = "timer"
    EXECUTOR = "executor"
    RUN_IN_THREAD = "run_in_thread"
    GREENLET = "greenlet"
    SOCKETIO_TASK = "socketio_task"
    GEVENT_THREADPOOL = "gevent_threadpool"
    NATIVE_THREAD = "native_thread"
    PROCESS = "process"
    PROCESS_SPAWN = "process_spawn"
    PROCESS_FORKSERVER = "process_forkserver"

    @property
    def is_process(self) -> bool:
        """Whether the body runs in a process of its own, below the one that created it."""
        return self is LoopKind.PROCESS or self.starts_afresh

    @property
    def starts_afresh(self) -> bool:
        """Whether the body runs in an interpreter that has nothing of its creator's."""
        return self in (LoopKind.PROCESS_SPAWN, LoopKind.PROCESS_FORKSERVER)

    @property
    def waits_by_itself(self) -> bool:
        """Whether it is not the loop that ends its turns, but what runs it."""
        return self in (LoopKind.TIMER, LoopKind.RUN_IN_THREAD)

    @property
    def needs_gevent(self) -> bool:
        """Whether it is gevent that starts it."""
        return self in (LoopKind.GREENLET, LoopKind.GEVENT_THREADPOOL, LoopKind.NATIVE_THREAD)

    @property
    def may_be_daemon(self) -> bool:
        """Whether its owner chooses if it is a daemon."""
        return self in (LoopKind.THREAD, LoopKind.TIMER, LoopKind.RUN_IN_THREAD) or self.is_process


class LoopBody(Word):
    """What one turn does, beside the yield."""

    SLEEP = "sleep"
    LISTEN = "listen"
    GET_MESSAGE = "get_message"
    BLPOP = "blpop"
    QUEUE_GET = "queue_get"
    LOCK = "lock"
    LOGGER = "logger"
    CPU = "cpu"

    @property
    def like(self) -> LoopBody:
        """Itself; that of another package's is one of ours."""
        return self

    @property
    def waits(self) -> bool:
        """Whether a turn waits for something to come, and so needs no yield."""
        return self in (LoopBody.LISTEN, LoopBody.GET_MESSAGE, LoopBody.BLPOP, LoopBody.QUEUE_GET)

    @property
    def is_shared(self) -> bool:
        """Whether requests use what the body uses."""
        return self in (LoopBody.QUEUE_GET, LoopBody.LOCK, LoopBody.LOGGER)


class OtherBody(str):
    """A body of another package, by its name (`forkproof.bodies`)."""

    is_shared = False

    @property
    def value(self) -> str:
        """Its spelling, as a member's of `LoopBody`."""
        return str(self)

    @property
    def like(self) -> LoopBody:
        """The body of ours that it is like to whoever watches it."""
        return LoopBody(bodies.REGISTRY[self].like or LoopBody.SLEEP)

    @property
    def is_promised(self) -> bool:
        """Whether what is promised of that one is promised of it."""
        return bool(bodies.REGISTRY[self].like)

    @property
    def waits(self) -> bool:
        """Whether a turn waits for something to come, and so needs no yield."""
        return self.like.waits


def _body(value: object) -> LoopBody | OtherBody:
    known = [*LoopBody, *bodies.REGISTRY]
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{_shown(value)} is no body; allowed: {', '.join(known)}")
    return OtherBody(value) if value in bodies.REGISTRY else LoopBody(value)


class YieldCall(Word):
    """How a turn gives way."""

    GEVENT_SLEEP = "gevent.sleep"
    TIME_SLEEP = "time.sleep"
    NATIVE_SLEEP = "native_sleep"
    NONE = "none"


class Policy(Word):
    """Where a loop is meant to run."""

    ONCE_PER_SERVICE = "once_per_service"
    ONCE_PER_WORKER = "once_per_worker"
    ARBITER_ONLY = "arbiter_only"
    INHERIT_ALLOWED = "inherit_allowed"
    BEST_EFFORT = "best_effort"


class Guard(Word):
    """What a loop waits for before it ticks, where it is started in several processes and is meant to run in one."""

    NONE = "none"
    LOCK = "lock"
    LEASE = "lease"


class WorkerClass(Word):
    """gunicorn's worker class; `geventwebsocket` is `geventwebsocket.gunicorn.workers.GeventWebSocketWorker`."""

    SYNC = "sync"
    GTHREAD = "gthread"
    GEVENT = "gevent"
    GEVENT_PYWSGI = "gevent_pywsgi"
    GEVENTWEBSOCKET = "geventwebsocket"
    TORNADO = "tornado"

    @property
    def is_gevent(self) -> bool:
        """Whether the worker class patches its own process."""
        return self.value.startswith("gevent")


class BrokerAddress(Word):
    """How the loops reach Redis: `127.0.0.1`, `localhost` (a look-up each time), or a socket file."""

    IP = "ip"
    HOST_NAME = "host_name"
    UNIX_SOCKET = "unix_socket"


class Requests(Word):
    """How the supervisor asks: several requests at once, or each after the answer to the one before."""

    BURSTS = "bursts"
    ONE_BY_ONE = "one_by_one"


class ForkHooks(Word):
    """What the app has registered with `os.register_at_fork`: a lock that is held around each fork, as logging and
    concurrent.futures do, or a line in gunicorn's error log before and after it."""

    NONE = "none"
    LOCK = "lock"
    LOG = "log"


class EarlyThing(Word):
    """What a module imports or makes in its first lines: `import redis`; `threading.Lock()`; `from threading import
    Lock`, made into one later; `queue.Queue()`; `queue.SimpleQueue()`; a client of Redis that is connected."""

    IMPORT_REDIS = "import_redis"
    LOCK = "lock"
    FROM_THREADING = "from_threading_import_lock"
    QUEUE = "queue"
    SIMPLE_QUEUE = "simple_queue"
    REDIS_CLIENT = "redis_client"

    @property
    def needs_redis(self) -> bool:
        """Whether redis-py is imported for it."""
        return self in (EarlyThing.IMPORT_REDIS, EarlyThing.REDIS_CLIENT)

    @property
    def is_used(self) -> bool:
        """Whether requests use it, and not only what it imports."""
        return self is not EarlyThing.IMPORT_REDIS


class EarlyPlace(Word):
    """Which module: between the two sites of a patch that it has."""

    APP = "app"
    CONFIG = "config"


class AnchorEvent(Word):
    """What a fault waits for."""

    WINDOW = "window"
    REQUEST = "request"
    TICK = "tick"


class ParkPoint(Word):
    """Where a unit of the arbiter stands while the arbiter forks."""

    LOCK = "lock"
    QUEUE_MUTEX = "queue_mutex"
    IMPORT = "import"
    LOG_RECORD = "log_record"
    LOG_HANDLER_LOCK = "log_handler_lock"
    RECV = "recv"
    MID_REPLY = "mid_reply"
    GETADDRINFO = "getaddrinfo"


CONTROL = "gunicorn_control"
"""Who is parked where it is no loop: the thread of gunicorn's control socket."""

CONTROL_POINTS = (ParkPoint.LOG_RECORD, ParkPoint.LOG_HANDLER_LOCK)


class LogStream(Word):
    """How the stream behaves that gunicorn's error log writes to: at once, giving way once, or 0.1 s a record."""

    FAST = "fast"
    YIELDING = "yielding"
    SLOW = "slow"


Seconds = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_enum_values=False, validate_default=True)


class Patch(_Frozen):
    """One call of `patch_all`: where, and with which keywords (those left out keep gevent's default)."""

    site: PatchSite
    flags: dict[str, StrictBool] = Field(default_factory=dict)

    @field_validator("flags")
    @classmethod
    def _known_flags(cls, flags: dict[str, bool]) -> dict[str, bool]:
        for flag in flags:
            if flag not in PATCH_FLAGS:
                raise ValueError(f"{flag!r} is no keyword of patch_all; allowed: {', '.join(PATCH_FLAGS)}")
        return dict(sorted(flags.items()))

    @model_validator(mode="after")
    def _sayable(self) -> Patch:
        if self.site is PatchSite.INTERPRETER_START and self.flags.get("sys"):
            # `python -m gevent.monkey --sys` patches sys and nothing else.
            raise ValueError("'sys': true is not allowed at interpreter_start: gevent.monkey's options cannot say it")
        return self


class Yield(_Frozen):
    """How and how often a loop gives way: `call` for `seconds` on every `every`-th turn."""

    call: YieldCall = YieldCall.TIME_SLEEP
    seconds: Seconds = Field(default=0.01, ge=0, le=0.5)
    every: StrictInt = Field(default=1, ge=1, le=1000)


class Loop(_Frozen):
    """A background unit with a body that ticks, and the policy that it is judged by."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")
    start: LoopStart = LoopStart.APP_IMPORT
    kind: LoopKind = LoopKind.THREAD
    daemon: StrictBool = True
    body: Annotated[LoopBody | OtherBody, PlainValidator(_body), PlainSerializer(str)] = LoopBody.SLEEP
    yields: Yield = Yield()
    policy: Policy = Policy.ONCE_PER_WORKER
    guard: Guard = Guard.NONE

    def seen(self) -> dict[str, Any]:
        """Its fields as one sees it who knows our bodies alone."""
        return {**dict(self), "body": self.body.like}

    @property
    def needs_redis(self) -> bool:
        """Whether it talks to Redis at all."""
        return self.hears_redis or self.guard is not Guard.NONE or self.kind is LoopKind.SOCKETIO_TASK

    @property
    def subscribes(self) -> bool:
        """Whether the body subscribes to its own channel."""
        return self.body.like in (LoopBody.LISTEN, LoopBody.GET_MESSAGE)

    @property
    def hears_redis(self) -> bool:
        """Whether the body handles messages that come through Redis for it."""
        return self.subscribes or self.competes

    @property
    def polls(self) -> bool:
        """Whether redis-py's own thread asks for messages without waiting for them, which is its default."""
        return self.kind is LoopKind.RUN_IN_THREAD and self.yields.seconds == 0

    @property
    def competes(self) -> bool:
        """Whether Redis gives each message to one of those who wait for it."""
        return self.body.like is LoopBody.BLPOP

    @model_validator(mode="after")
    def _possible(self) -> Loop:
        if self.kind.waits_by_itself and self.yields.call is not YieldCall.TIME_SLEEP:
            raise ValueError(
                f"yields.call: {self.yields.call.value!r} is not allowed: a {self.kind.value!r} waits by itself, for "
                f"yields.seconds, so leave it at {YieldCall.TIME_SLEEP.value!r}"
            )
        if self.kind is LoopKind.RUN_IN_THREAD:
            if self.body is not LoopBody.LISTEN:
                raise ValueError(f"body: {self.body.value!r} is not allowed: redis-py's own thread does 'listen'")
            if self.yields.every != 1 or self.guard is not Guard.NONE:
                raise ValueError("redis-py's own thread takes neither yields.every nor guard")
        if self.kind is LoopKind.PROCESS and self.start is LoopStart.FORK_HOOK:
            raise ValueError("start: 'fork_hook' is not allowed for a 'process': each fork would fork again")
        return self


def points_of(loop: Loop) -> tuple[ParkPoint, ...]:
    """Where a loop can be parked: a listener stays in `recv` while it has no message, and nobody else comes there."""
    if loop.kind.is_process:
        return ()
    other = isinstance(loop.body, OtherBody)  # whose connection nobody knows
    if loop.body.like is LoopBody.LISTEN:
        return () if loop.kind is LoopKind.TIMER or other else (ParkPoint.RECV,)
    stays = loop.hears_redis and loop.kind is not LoopKind.TIMER and not other
    return tuple(point for point in ParkPoint if stays or point is not ParkPoint.RECV)


class Server(_Frozen):
    """gunicorn's settings. Seconds where a time is meant."""

    worker_class: WorkerClass = WorkerClass.SYNC
    workers: StrictInt = Field(default=1, ge=1, le=4)
    threads: StrictInt = Field(default=1, ge=1, le=8)
    preload: StrictBool = False
    reload: StrictBool = False
    control_socket: StrictBool = True
    timeout: StrictInt = Field(default=30, ge=1, le=300)
    graceful_timeout: StrictInt = Field(default=3, ge=1, le=60)
    max_requests: StrictInt = Field(default=0, ge=0, le=1000)
    started_by: str = servers.GUNICORN

    @field_validator("started_by")
    @classmethod
    def _known_server(cls, name: str) -> str:
        known = [servers.GUNICORN, *servers.REGISTRY]
        if name not in known:
            raise ValueError(f"{name!r} is no server; allowed: {', '.join(known)}")
        return name

    def has_app_at(self, start: LoopStart) -> bool:
        """Whether the app is imported, or under import, where a loop is started."""
        late = (LoopStart.APP_IMPORT, LoopStart.POST_WORKER_INIT, LoopStart.FIRST_REQUEST)
        return start in late or (self.preload and start is not LoopStart.CONFIG_IMPORT)


class EarlyImport(_Frozen):
    """Something that is imported or made in a module's first lines, and used by every request and loop."""

    what: EarlyThing
    where: EarlyPlace = EarlyPlace.APP


class Surroundings(_Frozen):
    """What is there beside server and loops."""

    broker: BrokerAddress = BrokerAddress.IP
    requests: Requests = Requests.BURSTS
    log: LogStream = LogStream.FAST
    early_imports: tuple[EarlyImport, ...] = Field(default=(), max_length=2)
    hiredis: StrictBool = False
    fork_hooks: ForkHooks = ForkHooks.NONE
    foreign_children: StrictInt = Field(default=0, ge=0, le=2)


class After(_Frozen):
    """When a fault lands: once `event` was seen (in `slot`, or anywhere), and `delay` seconds later.

    `window` is the end of the window before the fault, so it is always reached.
    """

    event: AnchorEvent = AnchorEvent.WINDOW
    slot: StrictInt | None = Field(default=None, ge=0, le=3)
    delay: Seconds = Field(default=0.0, ge=0, le=2)


class Fault(_Frozen):
    """Something done to the server. Its kinds, and what `slot` and `options` mean to each: `forkproof.faults`."""

    fault: str
    slot: StrictInt | None = Field(default=None, ge=0, le=3)
    after: After = After()
    options: dict[str, StrictInt | Seconds] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> Fault:
        kind = fault_registry.REGISTRY.get(self.fault)
        if kind is None:
            raise ValueError(f"{self.fault!r} is no fault; allowed: {', '.join(fault_registry.REGISTRY)}")
        if kind.needs_slot != (self.slot is not None) and not kind.takes_slot:
            wanted = "needs a slot, a whole number" if kind.needs_slot else f"takes no slot, so not {self.slot}"
            raise ValueError(f"{self.fault!r} {wanted}")
        for name, value in self.options.items():
            option = kind.options.get(name)
            if option is None:
                allowed = ", ".join(kind.options) or "none"
                raise ValueError(f"{self.fault!r} has no option {name!r}; allowed: {allowed}")
            whole = isinstance(option.default, int)
            if not option.least <= value <= option.most or (whole and not isinstance(value, int)):
                kind_of = "a whole number" if whole else "a number"
                raise ValueError(
                    f"options.{name}: {value} is not allowed: {kind_of} from {option.least} to {option.most} is"
                )
        return self


class Park(_Frozen):
    """A unit of the arbiter that is held at a point whenever the arbiter forks a worker, until the fork is done."""

    who: str
    at: ParkPoint = ParkPoint.LOCK


class Scenario(_Frozen):
    """One deployment and what happens to it."""

    version: StrictInt = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA, alias="schema")
    patches: tuple[Patch, ...] = Field(default=(), max_length=3)
    loops: tuple[Loop, ...] = Field(min_length=1, max_length=3)
    server: Server = Server()
    surroundings: Surroundings = Surroundings()
    parks: tuple[Park, ...] = Field(default=(), max_length=3)
    faults: tuple[Fault, ...] = Field(default=(), max_length=5)

    @model_validator(mode="after")
    def _possible(self) -> Scenario:
        names = [loop.name for loop in self.loops]
        if len(set(names)) < len(names):
            raise ValueError(f"loops: the names {names} must differ")
        for index, loop in enumerate(self.loops):
            if loop.kind is LoopKind.SOCKETIO_TASK and not self.server.has_app_at(loop.start):
                allowed = ", ".join(start for start in LoopStart if self.server.has_app_at(start))
                raise ValueError(
                    f"loops.{index}.start: {loop.start.value!r} is not allowed for a {loop.kind.value!r}: the app that "
                    f"has the Socket.IO server may not be imported there; allowed: {allowed}"
                )
        if CONTROL in names:
            raise ValueError(f"loops: {CONTROL!r} is the name of gunicorn's own thread: choose another")
        for index, park in enumerate(self.parks):
            if problem := self._problem_of(park):
                raise ValueError(f"parks.{index}: {problem}")
        if len({park.who for park in self.parks}) < len(self.parks):
            raise ValueError("parks: one stands at one point only: each 'who' may stand once")
        if sum(patch.site is PatchSite.INTERPRETER_START for patch in self.patches) > 1:
            raise ValueError("patches: an interpreter starts once: 'interpreter_start' may stand once only")
        for index, (problem, _) in enumerate(self.lives()):
            if problem:
                raise ValueError(f"faults.{index}: {problem}")
        if self.server.reload and self.server.preload:
            raise ValueError(
                "server.reload: true is not allowed with preload: gunicorn's reloader takes no preloaded app"
            )
        if self.server.threads > 1 and self.server.worker_class is not WorkerClass.GTHREAD:
            raise ValueError(
                f"server.threads: {self.server.threads} is not allowed: more than 1 needs worker_class 'gthread', "
                f"not {self.server.worker_class.value!r}"
            )
        if problem := servers.problem(self.server.started_by, self.to_dict()):
            raise ValueError(f"server.started_by: {self.server.started_by!r} is not possible here: {problem}")
        return self

    def lives(self) -> Iterator[tuple[str, Life]]:
        """For each fault why it cannot be done, if so, and the server that it leaves."""
        faults = [fault.model_dump(mode="json") for fault in self.faults]
        return fault_registry.walk(self.booted(), faults)

    def booted(self) -> Life:
        """The server before the first fault."""
        return Life.begin({"server": dict(self.server), "loops": [loop.seen() for loop in self.loops]})

    def _problem_of(self, park: Park) -> str:
        """What a park cannot be, and why; empty where it can."""
        loop = next((loop for loop in self.loops if loop.name == park.who), None)
        if loop is None and park.who != CONTROL:
            return f"{park.who!r} is no loop; allowed: {', '.join(loop.name for loop in self.loops)}, {CONTROL}"
        points = CONTROL_POINTS if loop is None else points_of(loop)
        if park.at in points:
            return ""
        if not points:
            return f"{park.who!r} is no unit of the arbiter that comes by a point"
        return f"{park.who!r} does not come by {park.at.value!r}; it comes by {', '.join(points)}"

    def to_json(self) -> str:
        """Every field, one per line, ready to be edited and run again."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain data."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def digest(self) -> str:
        """Twelve hex digits that name this scenario; a field at its default does not change them."""
        plain = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]

    def loop(self, name: str) -> Loop:
        """The loop called `name`; KeyError if there is none."""
        for loop in self.loops:
            if loop.name == name:
                return loop
        raise KeyError(name)


def from_dict(data: object, *, source: str = "scenario") -> Scenario:
    """A validated scenario from plain data; ScenarioError names the field, the value and what is allowed."""
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        raise ScenarioError(source, _problems(error.errors())) from None


def parse(text: str, *, source: str = "scenario") -> Scenario:
    """A validated scenario from JSON text; errors as `from_dict`."""
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except _Twice as error:
        raise ScenarioError(source, [str(error)]) from None
    except (ValueError, RecursionError) as error:
        raise ScenarioError(source, [f"is not JSON: {error}"]) from None
    return from_dict(data, source=source)


class _Twice(ValueError):
    """A field that an object has more than once: which one is meant cannot be told."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(f"{_shown(name)} stands twice in one object: {_shown(found[name])} and {_shown(value)}")
        found[name] = value
    return found


def load(path: Path) -> Scenario:
    """The scenario in a file; ScenarioError also where the file cannot be read."""
    return _parsed(path, lambda: files.beginning(path, LONGEST + 1))


def of_run(folder: Path) -> Scenario:
    """The scenario of a run, which is a file in its folder and no link or pipe; errors as `load`."""
    path = folder / "scenario.json"
    return _parsed(path, lambda: files.read(path, LONGEST))


def _parsed(path: Path, read: Callable[[], bytes]) -> Scenario:
    try:
        content = read()
        if len(content) > LONGEST:
            raise ValueError(f"is longer than {LONGEST} bytes")
        text = content.decode()
    except OSError as error:
        why = f"cannot be read: {error.strerror}. Give the file of a scenario, or the folder of a run."
        raise ScenarioError(str(path), [why]) from None
    except ValueError as error:
        raise ScenarioError(str(path), [f"cannot be read: {error}"]) from None
    return parse(text, source=str(path))


_PARTS: dict[str, type[BaseModel]] = {
    "patches": Patch, "loops": Loop, "yields": Yield, "server": Server, "surroundings": Surroundings,
    "early_imports": EarlyImport, "parks": Park, "faults": Fault, "after": After,
}  # fmt: skip


def _problems(items: Sequence[Any]) -> list[str]:
    # A list whose members are all refused counts as empty as well, which tells nobody anything.
    refused = {item["loc"][:1] for item in items if len(item["loc"]) > 1}
    return [_problem(item) for item in items if item["type"] != "too_short" or item["loc"] not in refused]


def _problem(item: Any) -> str:
    field = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ").replace("valid tuple", "list").replace("Tuple", "list")
    match item["type"]:
        case "value_error":
            return f"{field}: {message}" if field else message
        case "missing":
            return f"{field}: is missing"
        case "extra_forbidden":
            around = next((_PARTS[part] for part in item["loc"][-2::-1] if part in _PARTS), Scenario)
            names = (known.alias or name for name, known in around.model_fields.items())
            return f"{ascii(field)[1:-1]}: is no field of a scenario; allowed there: {', '.join(names)}"
        case "model_type":
            message = "Must be an object"
    return f"{field or 'the whole'}: {_shown(item['input'])} is not allowed: {message[0].lower()}{message[1:]}"


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of more than 4300 digits; lists in lists
        return f"this {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
