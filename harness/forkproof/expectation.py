"""What the documentation promises for a scenario, claim by claim.

A small model walks through the deployment line by line, as the documentation describes it, and notes in which process
each loop lives and whether it can advance there. A claim must hold where every way the model leaves open lets it hold,
must break where none does, and may break in between. The model knows what is written down, not what servers do: where
they differ, that is a surprise.

Sources, by the letter that the code gives:
 [F] POSIX fork(2): the child has one thread, a copy of the one that called fork.
 [G] gevent, "monkey.patch_all" and "gevent.os": threads become greenlets, and a fork copies all greenlets.
     https://www.gevent.org/api/gevent.monkey.html https://www.gevent.org/api/gevent.os.html
 [C] gevent, "introduction": a greenlet runs when another one blocks in a cooperative call, and not before.
     https://www.gevent.org/intro.html
 [H] gunicorn, "settings", "server hooks" and `preload_app`: which process runs which hook.
     https://docs.gunicorn.org/en/stable/settings.html
 [T] Python, "os.fork": a fork beside running threads may deadlock the child.
     https://docs.python.org/3/library/os.html#os.fork
 [S] gunicorn, "signal handling": what the master does at HUP, TTIN, TTOU and USR2.
     https://docs.gunicorn.org/en/stable/signals.html
 [E] Python, "concurrent.futures": the threads of an executor are joined before the interpreter can exit.
     https://docs.python.org/3/library/concurrent.futures.html
 [I] Flask-SocketIO, "Initialization": which `async_mode` is taken where none is given, by what is installed.
     https://flask-socketio.readthedocs.io/en/latest/api.html
 [Q] gunicorn's maintainer, of a traceback that a gevent worker prints at its end by Ctrl-C: no defect, but brutal.
     https://github.com/benoitc/gunicorn/issues/3239
 [P] Python, "multiprocessing": a daemonic process is ended by its parent's exit; a killed parent ends nothing.
     https://docs.python.org/3/library/multiprocessing.html
 [R] Redis, "Distributed locks": a key that is set if it is not there has one holder, until it expires; and "BLPOP": an
     element goes to the client that has waited longest.
     https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/
     https://redis.io/docs/latest/commands/blpop/
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from packaging.version import Version

from forkproof import servers
from forkproof.faults import REGISTRY, Life
from forkproof.history import Place
from forkproof.patching import KEYWORDS, OFF, asked, calls
from forkproof.scenario import (
    EarlyPlace,
    EarlyThing,
    Fault,
    ForkHooks,
    Guard,
    LogStream,
    Loop,
    LoopBody,
    LoopKind,
    LoopStart,
    OtherBody,
    ParkPoint,
    PatchSite,
    Policy,
    Scenario,
    WorkerClass,
    YieldCall,
)


class Expectation(enum.Enum):
    """What the documentation says of a claim in a scenario."""

    MUST_HOLD = "must_hold"
    MUST_BREAK = "must_break"
    MAY_BREAK = "may_break"


class Sure(enum.IntEnum):
    """Whether a loop advances in a process."""

    NO = 0
    MAYBE = 1
    YES = 2


_NATIVE = frozenset({LoopKind.GEVENT_THREADPOOL, LoopKind.NATIVE_THREAD})
_JOBS = frozenset({LoopKind.EXECUTOR, LoopKind.GEVENT_THREADPOOL})
"""What never is a greenlet, and what is asked through a handle that is mere data."""


@dataclass
class _Unit:
    """One loop in one process: the original, or a copy that a fork made."""

    loop: Loop
    birth: int
    native: bool
    copied: bool = False
    repatched: bool = False
    mid_fork: bool = False
    """Whether it was started by a hook of `os.fork`, in a process that gevent had yet to prepare."""
    made_with: frozenset[str] = frozenset()
    """What was patched when its lock, queue or logger was made."""

    @property
    def made_green(self) -> bool | None:
        """Whether what it shares with requests switches greenlets; None where a part of it does."""
        parts = {"thread", "queue"} if self.loop.body is LoopBody.QUEUE_GET else {"thread"}
        made = parts & self.made_with
        return None if made and made != parts else bool(made)


_MADE_OF = {
    EarlyThing.IMPORT_REDIS: frozenset[str](),
    EarlyThing.LOCK: frozenset({"thread"}),
    EarlyThing.FROM_THREADING: frozenset({"thread"}),
    EarlyThing.QUEUE: frozenset({"thread", "queue"}),
    EarlyThing.SIMPLE_QUEUE: frozenset({"queue"}),
    EarlyThing.REDIS_CLIENT: frozenset({"thread", "socket"}),
}
"""The keywords of `patch_all` that make a difference to an early thing."""


_SHARED = {LoopBody.LOCK: EarlyThing.LOCK, LoopBody.QUEUE_GET: EarlyThing.QUEUE}
"""What loops share with requests is made with them. The locks of logging's handlers are replaced by a patch [G]."""


@dataclass(frozen=True)
class _Early:
    """Something made in a module's first lines, or with a loop; `native_until` are the keywords not patched then.

    `kept` says that users may give way, or be caught by a fork, while they have it; `green` that a part is gevent's.
    """

    name: str
    where: EarlyPlace | None
    native_until: frozenset[str]
    kept: bool = True
    green: bool = False


@dataclass
class _Process:
    place: Place
    patched: set[str] = field(default_factory=set)
    odd: bool = False
    queue_patched_early: bool = False
    poller_patched_early: bool = False
    units: list[_Unit] = field(default_factory=list)
    orphaned: list[Loop] = field(default_factory=list)
    """Loops whose handle was copied by a fork, and whose native thread was not."""
    fork_server: Place | None = None
    """Where multiprocessing's fork server was started that a fork server's child would come from."""
    body: _Unit | None = None
    """What a child's main runs; None in the arbiter and in workers."""
    in_request: bool = False
    there: Sure = Sure.YES
    """MAYBE for one that was told to go and may have reasons to stay."""
    early: list[_Early] = field(default_factory=list)

    def fork(self, place: Place) -> _Process:
        """A child: what is patched is inherited, native threads are not [F], greenlets are copied [G]."""
        copies = [replace(unit, copied=True) for unit in self.units if not unit.native]
        orphaned = [*self.orphaned, *(unit.loop for unit in self.units if unit.native)]
        early = list(self.early)
        return replace(self, place=place, patched=set(self.patched), units=copies, orphaned=orphaned, early=early)

    @property
    def stale(self) -> list[_Early]:
        """What was made before it could be patched, and is patched by now [G]."""
        return [one for one in self.early if one.native_until & self.patched]


PATIENCE = 2.0
"""Seconds before timeout within which a worker that stands still may be taken for dead."""

_MODULES = frozenset({"socket", "time", "select", "thread", "os", "queue"})


@dataclass(frozen=True)
class Snapshot:
    """The processes of a window, and the slots that ought to have a worker."""

    processes: list[_Process]
    slots: tuple[int, ...]

    def __iter__(self) -> Iterator[_Process]:
        return iter(self.processes)


class _Model:
    """Walks through a deployment; `windows` holds the processes as they are in each window."""

    def __init__(self, scenario: Scenario, versions: Mapping[str, str | None]) -> None:
        self.scenario = scenario
        self.server = scenario.server
        self.gunicorn = versions.get("gunicorn") or "0"
        self.arbiter_waits_on_queue = Version(self.gunicorn) >= Version("24.0.0")
        self.green = {LoopKind.GREENLET}
        if versions.get("gevent"):
            self.green.add(LoopKind.SOCKETIO_TASK)  # it takes gevent where that is installed [I]
        # Before that, gevent left `queue.Queue` as it was.
        self.queues_are_patched = Version(versions.get("gevent") or "0") >= Version("25.4.1")
        self.off = OFF if Version(versions.get("gevent") or "0") >= Version("1.3") else OFF | {"Event"}
        self.births = itertools.count()
        self.arbiter = _Process(Place("arbiter"))
        self.children: list[_Process] = []
        self.workers: dict[int, _Process] = {}
        self.leavers: list[_Process] = []
        self.windows: list[Snapshot] = []
        self.fork_hooks = 1
        """How often the configuration has registered the hook of `os.fork`."""
        self.beside: list[_Unit] = []
        """Native units that ran where something was forked."""
        self.parked: list[tuple[ParkPoint, _Unit]] = []
        """Units of the arbiter that are held at a point while it forks a worker."""
        self.redis_disturbed = False
        self.orphans: list[Sure] = []
        """Children whose parent a fault has ended, and whether they go on."""
        self.unknown = ""
        """Why nothing is written down of what becomes of this server."""
        self._patch(self.arbiter, PatchSite.INTERPRETER_START)
        self._boot()
        self._live_on()

    def _boot(self) -> None:
        self._patch(self.arbiter, PatchSite.CONFIG_FIRST_LINE)
        self._make_early(self.arbiter, EarlyPlace.CONFIG)
        self._patch(self.arbiter, PatchSite.CONFIG_AFTER_IMPORTS)
        self.arbiter.queue_patched_early = "queue" in self.arbiter.patched
        self._start(self.arbiter, LoopStart.CONFIG_IMPORT)
        if self.server.preload:
            self._import_app(self.arbiter)
        self._start(self.arbiter, LoopStart.ON_STARTING)
        self._start(self.arbiter, LoopStart.WHEN_READY)
        for slot in range(self.server.workers):
            self._spawn(slot)

    def _live_on(self) -> None:
        before = self.scenario.booted()
        self._window(before)
        for fault, (_, after) in zip(self.scenario.faults, self.scenario.lives(), strict=True):
            if after.ended_by:
                return
            self._suffer(fault, before, after)
            self._window(after)
            before = after

    def _window(self, life: Life) -> None:
        everyone = [self.arbiter, *self.workers.values(), *self.children, *self.leavers]
        found = [replace(process, units=list(process.units)) for process in everyone]
        self.windows.append(Snapshot(found, tuple(sorted(life.slots))))

    def _suffer(self, fault: Fault, before: Life, after: Life) -> None:
        """What a fault does to the processes [S]."""
        match fault.fault:
            case "kill_worker":
                own = [child for child in self.children if child.place.slot == after.slots[-1]]
                self.orphans += [min(child.there, self._outlives(child)) for child in own]
                if any(loop.kind.is_process and loop.kind is not LoopKind.PROCESS for loop in self.scenario.loops):
                    self.orphans.append(Sure.MAYBE)  # helpers of multiprocessing: a fork server, a resource tracker
                self._spawn(after.slots[-1])
            case "hup":
                for _ in range(int(REGISTRY["hup"].option(fault.model_dump(), "times"))):
                    self._reload()
            case "ttin":
                self._spawn(after.slots[-1])
            case "ttou":
                self._leave(before.slots[0])
            case "usr2" if REGISTRY["usr2"].option(fault.model_dump(), "rollback"):
                if not all(loop.daemon and not loop.kind.is_process for loop in self.scenario.loops):
                    self.unknown = "what a master that is taken back waits for may keep it"
            case "usr2":
                self._reexec()
            case "max_requests":
                for slot in before.slots:
                    self._leave(slot)
                    self._spawn(slot)
                waits = any(process.place.role == "worker" for process in self.leavers)
                if waits or any(
                    loop.kind.is_process or loop.start is LoopStart.PRE_FORK for loop in self.scenario.loops
                ):
                    self.unknown = "which workers are replaced after max_requests is not promised"
            case "kill_child":
                here = [child for child in self.children if child.place.slot == fault.slot]
                for child in here:
                    child.there = Sure.MAYBE
                if len(here) == 1:
                    self.children.remove(here[0])
            case "redis_restart" | "redis_gone" | "redis_pause" | "redis_kill_clients":
                self.redis_disturbed = True
                early = self.scenario.surroundings.early_imports
                if self.scenario.parks or any(one.what.needs_redis for one in early):
                    self.unknown = "what a request does without Redis is not promised"
            case "foreign_child_exit":
                if Version(self.gunicorn) < Version("26.1.0") and fault.options.get("code", 0) in (3, 4):
                    self.unknown = "a server that has shut down keeps no promise"
            case "stop_worker" | "stop_arbiter" | "block_loop":
                seconds = REGISTRY[fault.fault].option(fault.model_dump(), "seconds")
                if seconds + PATIENCE >= self.server.timeout:
                    self.unknown = "a worker may be replaced that was stopped for longer than timeout"
            case "usr1":
                pass
            case other:
                self.unknown = f"nothing is written down of what {other} does to a loop"

    def _reload(self) -> None:
        """The configuration runs again in the arbiter, a preloaded app does not; every worker is another one [H, S]."""
        self._make_early(self.arbiter, EarlyPlace.CONFIG)
        if len(self.scenario.patches) > 1:  # gevent passes over a patch that is the same as the last one [G]
            for site in (PatchSite.CONFIG_FIRST_LINE, PatchSite.CONFIG_AFTER_IMPORTS):
                self._patch(self.arbiter, site)
        self.fork_hooks += 1
        self._start(self.arbiter, LoopStart.CONFIG_IMPORT)
        for slot in list(self.workers):
            self._leave(slot)
        for slot in range(self.server.workers):
            self._spawn(slot)

    def _reexec(self) -> None:
        """Everything once more in a new interpreter, and the old processes end [S]."""
        for slot in list(self.workers):
            self._leave(slot)
        for child in self.children:
            child.there = Sure.MAYBE
            self.orphans.append(Sure.MAYBE)
        self.arbiter.there = Sure.MAYBE
        if self.children or not all(_ends_with_its_process(unit.loop) for unit in self.arbiter.units):
            self.leavers.append(self.arbiter)
        if any(patch.site is PatchSite.INTERPRETER_START for patch in self.scenario.patches):
            self.unknown = "whether `python -m gevent.monkey` is run again at a re-exec is not written down"
        self.arbiter = _Process(Place("arbiter"))
        self.fork_hooks = 1
        self._boot()

    def _leave(self, slot: int) -> None:
        """A worker is told to go; what it waits for may keep it, and its processes hear a signal as it would [P]."""
        worker = self.workers.pop(slot)
        own = [child for child in self.children if child.place.slot == slot]
        for child in own:
            child.there = Sure.MAYBE
        self.orphans += [Sure.MAYBE for _ in own]
        if (
            own
            or self.hogs(worker) is not Sure.NO
            or not all(_ends_with_its_process(unit.loop) for unit in worker.units)
        ):
            worker.there = Sure.MAYBE
            self.leavers.append(worker)

    def _outlives(self, child: _Process) -> Sure:
        """Whether a child goes on when its parent is killed: a copy of a gevent worker's main may notice."""
        plain = child.body is not None and child.body.loop.kind is LoopKind.PROCESS
        judged = child.body is not None and child.body.loop.policy is not Policy.BEST_EFFORT
        return Sure.YES if plain and judged and self._child_advances(child) is Sure.YES else Sure.MAYBE

    def _spawn(self, slot: int) -> None:
        self._start(self.arbiter, LoopStart.PRE_FORK)
        for park in self.scenario.parks:
            units = [unit for unit in self.arbiter.units if unit.loop.name == park.who]
            self.parked += [(park.at, unit) for unit in units[-1:]]
        worker = self._fork(self.arbiter, Place("worker", slot))
        self.workers[slot] = worker
        self._patch(worker, PatchSite.POST_FORK)
        self._start(worker, LoopStart.POST_FORK)
        if self.server.worker_class.is_gevent:
            self._patch_all(worker, {})
        worker.poller_patched_early = "select" in worker.patched
        before = set(worker.patched)
        if not self.server.preload:
            self._import_app(worker)
        if self.server.worker_class is WorkerClass.GTHREAD:
            # A pool of threads that was made before the patch.
            worker.odd |= "thread" in worker.patched - before
            worker.odd |= self._pool_shares_queues(worker)
        self._start(worker, LoopStart.POST_WORKER_INIT)
        worker.in_request = True
        self._start(worker, LoopStart.FIRST_REQUEST)

    def _fork(self, parent: _Process, place: Place) -> _Process:
        around = self.scenario.surroundings
        if around.fork_hooks is ForkHooks.LOG and around.log is not LogStream.FAST:
            # A fork's hook that gives way, or waits for a stream whose lock another thread had at the fork [T].
            parent.odd = True
        child = parent.fork(place)
        self.beside += [unit for unit in parent.units if unit.native]
        for _ in range(self.fork_hooks):
            self._start(child, LoopStart.FORK_HOOK)
        return child

    def _import_app(self, process: _Process) -> None:
        self._patch(process, PatchSite.APP_FIRST_LINE)
        self._make_early(process, EarlyPlace.APP)
        for site in (PatchSite.APP_AFTER_IMPORTS, PatchSite.IN_THREAD):
            self._patch(process, site)
        self._start(process, LoopStart.APP_IMPORT)

    def _make_early(self, process: _Process, where: EarlyPlace) -> None:
        """What a module makes in its first lines; read again, it makes another one."""
        around = self.scenario.surroundings
        process.early = [one for one in process.early if one.where is not where]
        for early in around.early_imports:
            if early.where is where:
                native_until = self.native_until(early.what, process)
                green = bool(_MADE_OF[early.what] - native_until)
                process.early.append(_Early(f"{where}.{early.what}", where, native_until, green=green))
        if where is EarlyPlace.CONFIG and around.fork_hooks is ForkHooks.LOCK:
            native_until = self.native_until(EarlyThing.LOCK, process)
            process.early.append(_Early("config.fork_hooks_lock", where, native_until, kept=False))

    def native_until(self, thing: EarlyThing, process: _Process) -> frozenset[str]:
        """The keywords of `patch_all` that make a difference to something that is made now."""
        if thing is EarlyThing.QUEUE and not self.queues_are_patched:
            thing = EarlyThing.LOCK  # which is in it
        if thing is EarlyThing.QUEUE and "queue" in process.patched:
            return frozenset()
        return _MADE_OF[thing] - process.patched

    def _patch(self, process: _Process, site: PatchSite) -> None:
        for patch in self.scenario.patches:
            if patch.site is site:
                self._patch_all(process, patch.flags)
                # What a patch made by another thread than the main one does is not documented.
                process.odd |= site is PatchSite.IN_THREAD

    def _patch_all(self, process: _Process, flags: Mapping[str, bool]) -> None:
        off = {name for name, on in flags.items() if not on}
        process.patched |= _MODULES - off
        # gevent promises cooperation for the whole of its modules; `thread` alone is often left out.
        process.odd |= bool(off - {"thread"}) or bool(flags.get("sys"))
        for unit in process.units:
            unit.repatched = True
            # gevent asks to be patched in while the process has one thread [G].
            process.odd |= unit.native

    def _start(self, process: _Process, site: LoopStart) -> None:
        for loop in self.scenario.loops:
            if loop.start is site:
                native = loop.kind in _NATIVE or (loop.kind not in self.green and "thread" not in process.patched)
                unit = _Unit(
                    loop,
                    next(self.births),
                    native,
                    mid_fork=site is LoopStart.FORK_HOOK,
                    made_with=frozenset(process.patched),
                )
                if loop.body.like in _SHARED:
                    native_until = self.native_until(_SHARED[loop.body.like], process)
                    process.early.append(_Early(f"{loop.name}'s {loop.body}", None, native_until, kept=False))
                if loop.kind.is_process:
                    place = Place("child", process.place.slot)
                    child = _Process(place) if loop.kind.starts_afresh else self._fork(process, place)
                    if loop.kind is LoopKind.PROCESS_FORKSERVER:
                        process.fork_server = process.fork_server or process.place
                        # Whether a forked process may use the server of its parent is not documented.
                        process.odd |= process.fork_server != process.place
                        child.odd |= process.odd
                    child.body = unit
                    self.children.append(child)
                else:
                    process.units.append(unit)

    # What can advance

    def cooperative(self, process: _Process) -> Sure:
        """Whether the main of a process enters gevent's hub again and again [C]."""
        server = self.server.worker_class
        if process.body is not None:
            return self.gives_way(process.body, process)
        if process.place.role == "arbiter":
            # From 24.0.0 on the arbiter waits on a queue that it makes in its constructor, before that in select.
            waits = process.queue_patched_early if self.arbiter_waits_on_queue else "select" in process.patched
        elif server.is_gevent:
            return Sure.MAYBE if process.odd else Sure.YES
        elif server is WorkerClass.GTHREAD:
            if process.poller_patched_early != ("select" in process.patched):
                return Sure.MAYBE
            waits = process.poller_patched_early
        elif server is WorkerClass.TORNADO:
            waits = False  # what becomes of asyncio when its selectors are patched is not documented
        else:
            waits = "select" in process.patched
        if not waits:
            # A main that waits natively may still enter the hub now and then, where anything of it is patched.
            return Sure.MAYBE if process.patched or process.odd else Sure.NO
        return Sure.MAYBE if process.odd else Sure.YES

    def gives_way(self, unit: _Unit, process: _Process) -> Sure:
        """Whether a greenlet lets the others of its process run [C]."""
        yields = unit.loop.yields
        if unit.loop.kind is LoopKind.TIMER:
            return Sure.YES  # it is a greenlet because a timer waits cooperatively here
        if self.shares_oddly(unit, process) or unit.loop.polls:
            return Sure.MAYBE
        talks = unit.loop.hears_redis or unit.loop.kind is LoopKind.SOCKETIO_TASK
        waits_for_redis = talks and "socket" in process.patched and "select" in process.patched
        if (unit.loop.body is LoopBody.QUEUE_GET and unit.made_green) or (
            unit.loop.body is LoopBody.LOCK and "time" in process.patched
        ):
            return Sure.YES
        if yields.call is YieldCall.GEVENT_SLEEP or waits_for_redis:
            return Sure.YES
        if yields.call is YieldCall.TIME_SLEEP and "time" in process.patched:
            return Sure.YES
        # Whoever waits for a guard, or renews it, talks to Redis now and then.
        return Sure.MAYBE if process.odd or unit.loop.guard is not Guard.NONE else Sure.NO

    def shares_oddly(self, unit: _Unit, process: _Process) -> bool:
        """Whether requests share something with it of which nothing is documented.

        That is gevent's own in a native thread, or a native lock that is held by a greenlet while another one runs [G].
        """
        if unit.native and any(one.kept and one.green for one in process.early):
            return True
        if unit.native and unit.loop.kind is LoopKind.RUN_IN_THREAD and "socket" in process.patched:
            return True  # it reads from a socket that another thread has made
        if not unit.loop.body.is_shared:
            return False
        if unit.native:
            return unit.made_green is not False
        held = unit.loop.body is LoopBody.LOCK and "time" in process.patched
        return unit.made_green is None or (held and not unit.made_green)

    def keeps_its_lock(self, unit: _Unit, process: _Process) -> bool:
        """Whether a loop takes its lock again before anybody who waits for it has run: locks promise no turns [G]."""
        yields = unit.loop.yields
        if unit.loop.body is not LoopBody.LOCK:
            return False
        cooperative = yields.call is YieldCall.GEVENT_SLEEP or (
            yields.call is YieldCall.TIME_SLEEP and "time" in process.patched
        )
        waits = yields.call is not YieldCall.NONE and yields.seconds > 0
        return yields.every > 1 or not (waits if unit.native else cooperative)

    def blocks(self, unit: _Unit, process: _Process) -> bool:
        """Whether a greenlet waits natively in each turn: the others of its process stand still meanwhile [C]."""
        waits = unit.loop.body is LoopBody.QUEUE_GET and not unit.made_green
        holds = unit.loop.body is LoopBody.LOCK and "time" not in process.patched
        return not unit.native and (waits or holds)

    def hogs(self, process: _Process) -> Sure:
        """Whether some greenlet of a process never lets the others run."""
        if self.cooperative(process) is Sure.NO:
            return Sure.NO
        green = [unit for unit in process.units if not unit.native]
        worst = min((self.gives_way(unit, process) for unit in green), default=Sure.YES)
        if worst is Sure.YES:
            return Sure.NO
        return Sure.YES if worst is Sure.NO and self.cooperative(process) is Sure.YES else Sure.MAYBE

    def advances(self, unit: _Unit, process: _Process) -> Sure:
        """Whether a loop ticks in a process, once booted."""
        started = unit.loop.start is not LoopStart.FIRST_REQUEST or self.serves(process)
        return min(self._advances(unit, process), Sure.YES if started else Sure.MAYBE)

    def serves(self, process: _Process) -> bool:
        """Whether the worker at or above a process surely gets to handle a request."""
        worker = self.workers.get(process.place.slot, process) if process.place.slot is not None else process
        # A thread pool's threads are greenlets where threads are patched, and need a main that enters the hub [C].
        pool_is_green = self.server.worker_class is WorkerClass.GTHREAD and "thread" in worker.patched
        return not pool_is_green or self.cooperative(worker) is Sure.YES

    def _advances(self, unit: _Unit, process: _Process) -> Sure:
        if process.body is unit:
            return self._child_advances(process)
        if unit.native and self.talks_at_fork(process):
            return Sure.MAYBE
        if unit.native:
            # A thread that talks through sockets which were patched under it, or that is started while gevent has
            # yet to prepare the child: not documented.
            unsettled = (unit.loop.needs_redis or unit.mid_fork) and bool(process.patched)
            unsettled |= self.shares_oddly(unit, process)
            return Sure.MAYBE if unsettled or (unit.repatched and process.odd) else Sure.YES
        sure = self.cooperative(process)
        if process.body is not None:
            sure = min(sure, self._child_advances(process))
        if unit.mid_fork or self.talks_at_fork(process) or (unit.copied and unit.loop.needs_redis):
            # A copy may wait for what only its parent has, such as a look-up in gevent's thread pool [F].
            sure = min(sure, Sure.MAYBE)
        if self.hogs(process) is not Sure.NO:
            sure = min(sure, Sure.MAYBE)
        return sure

    def _child_advances(self, process: _Process) -> Sure:
        # A child that was forked inside a request, or beside greenlets, has copies of all of them [G].
        beside = process.in_request and self.server.worker_class is not WorkerClass.SYNC
        beside |= self.server.reload and process.place.slot is not None  # gunicorn's reloader is a thread [T]
        return Sure.MAYBE if beside or process.units or process.patched or process.odd else Sure.YES

    def talks_at_fork(self, process: _Process) -> bool:
        """Whether a native thread that does more than sleep runs in the parent while a process is forked [T]."""
        return process.place.role == "worker" and any(
            unit.native
            and (
                unit.loop.needs_redis
                or any(one.kept for one in self.arbiter.early)
                or self.enters_a_hub(unit, self.arbiter)
                or _holds_locks(unit)
            )
            for unit in self.arbiter.units
        )

    def enters_a_hub(self, unit: _Unit, process: _Process) -> bool:
        """Whether a native thread sleeps through gevent: its first sleep makes a hub of its own, and imports for it."""
        if unit.loop.body is LoopBody.LOCK and "time" in process.patched:
            return True
        if unit.loop.kind is LoopKind.TIMER:
            return False
        call = unit.loop.yields.call
        return call is YieldCall.GEVENT_SLEEP or (call is YieldCall.TIME_SLEEP and "time" in process.patched)

    def may_freeze(self, process: _Process) -> bool:
        """Whether greenlets of a process may wait natively for each other, through what was made before a patch [G]."""
        kept = any(one.kept for one in process.stale)
        return kept and bool(process.units or self.requests_in_greenlets(process) is not Sure.NO)

    def requests_in_greenlets(self, process: _Process) -> Sure:
        """Whether a process answers requests in greenlets [G]."""
        if process.place.role != "worker" or self.server.worker_class is WorkerClass.SYNC:
            return Sure.NO
        if not self.server.worker_class.is_gevent:
            return Sure.MAYBE if "thread" in process.patched else Sure.NO
        return Sure.MAYBE if process.odd else Sure.YES

    # What follows for claims

    def units_of(self, name: str, window: Snapshot) -> list[tuple[_Unit, _Process, Sure]]:
        """Every instance of a loop, with whether it advances."""
        found = []
        for process in window:
            body = [process.body] if process.body is not None else []
            for unit in [*process.units, *body]:
                if unit.loop.name == name:
                    found.append((unit, process, min(process.there, self.advances(unit, process))))
        return found

    @property
    def patches_as_documented(self) -> bool:
        """Whether every patch is made by the main thread, beside no other one, and native threads share nothing [G]."""
        in_thread = any(patch.site is PatchSite.IN_THREAD for patch in self.scenario.patches)
        units = [(unit, process) for process in self.everyone for unit in process.units]
        odd = any((unit.native and unit.repatched) or self.shares_oddly(unit, process) for unit, process in units)
        odd |= any(map(self._pool_shares_queues, self.everyone))
        return not in_thread and not odd

    def _pool_shares_queues(self, process: _Process) -> bool:
        """Whether a gthread worker's native threads share gevent's queues, which belong to one thread's hub [G]."""
        gthread = self.server.worker_class is WorkerClass.GTHREAD and process.place.role == "worker"
        return gthread and {"queue", "thread"} & process.patched == {"queue"}

    @property
    def workers_leave(self) -> bool:
        """Whether some worker is told to go while others stay or come."""
        return any(fault.fault in ("hup", "ttou", "max_requests", "usr2") for fault in self.scenario.faults)

    @property
    def everyone(self) -> list[_Process]:
        """Every process, as it is in each window."""
        return [process for window in self.windows for process in window]

    @property
    def held_up(self) -> bool:
        """Whether some greenlet may hold the arbiter or a worker."""
        return any(self.hogs(process) is not Sure.NO for process in self.everyone)

    @property
    def unsettled(self) -> bool:
        """Whether nothing is documented of how this deployment patches, or whether the arbiter itself is held up."""
        return any(process.odd for process in self.everyone) or self.hogs(self.arbiter) is not Sure.NO

    @property
    def enters_gevent_at_fork(self) -> bool:
        """Whether a hook of `os.fork` starts something in a child that gevent has yet to prepare [G]."""
        return any(unit.mid_fork for process in self.everyone if process.patched for unit in process.units)

    @property
    def left_in_the_middle(self) -> bool:
        """Whether a fork finds a unit at a point where it would not stand by itself."""
        return any(point is not ParkPoint.RECV for point, _ in self.parked)

    def stuck(self, points: Collection[ParkPoint]) -> bool:
        """Whether a child must wait for what a native thread had that was parked at one of these points [F]."""
        return any(
            point in points
            and unit.native
            and not (point is ParkPoint.QUEUE_MUTEX and "queue" in unit.made_with)  # gevent's has no mutex
            and unit.loop.guard is Guard.NONE
            and self.advances(unit, self.arbiter) is Sure.YES
            for point, unit in self.parked
        )


def _ends_with_its_process(loop: Loop) -> bool:
    """Whether nothing waits for it: an executor is joined at exit, daemonic or not [P]."""
    return loop.daemon and loop.kind is not LoopKind.EXECUTOR


def _holds_locks(unit: _Unit) -> bool:
    """Whether its turns take locks that a child will want: its own, or those of Python's threads."""
    return unit.loop.kind is LoopKind.TIMER or unit.loop.body.is_shared


Answer = tuple[Expectation, str]

_HOLD: Answer = (Expectation.MUST_HOLD, "")


def expect(
    scenario: Scenario, claim: str, loop: str | None, versions: Mapping[str, str | None], how: str = ""
) -> Answer:
    """What the documentation promises of a claim (for one loop where it is judged by loop), and why.

    `how` is how it broke, where it did: one way may be ruled out where another is not.
    """
    scenario, unwritten = _of_ours(scenario)
    model = _Model(scenario, versions)
    model.unknown = unwritten or model.unknown
    if claim == "quiet_runtime" and how.endswith("AssertionError in gevent") and model.patches_as_documented:
        return Expectation.MUST_HOLD, "gevent's own assertions hold wherever it is used as documented [G]"
    if claim == "quiet_runtime" and how == "greenlet failed with SystemExit" and _quits_in_a_greenlet(scenario):
        return (
            Expectation.MAY_BREAK,
            "at INT and QUIT a greenlet exits for its gevent worker, which may leave first [Q]",
        )
    rule = _RULES.get(claim)
    if rule is None:
        return Expectation.MAY_BREAK, "nothing is written down about it"
    # A copy is made at a fork: whatever becomes of a worker then, the next one comes about in the same way.
    if unwritten or (model.unknown and claim not in ("no_copied_thread", "foreign_child_ignored")):
        return Expectation.MAY_BREAK, model.unknown
    if rule not in (_patched, _stale) and any(map(model.may_freeze, model.everyone)):
        return (
            Expectation.MAY_BREAK,
            "greenlets may wait natively for each other, through what was made before a patch [G]",
        )
    of = scenario.loop(loop) if loop is not None else scenario.loops[0]
    of_redis = claim in _OF_REDIS or (loop is not None and of.needs_redis and claim != "no_copied_thread")
    if model.redis_disturbed and of_redis:
        return Expectation.MAY_BREAK, "how soon a client is back after Redis was gone is not promised"
    answer = rule(model, of)
    if answer[0] not in _DESPITE_PARKS.get(claim, _IN_DOUBT) and model.left_in_the_middle:
        return Expectation.MAY_BREAK, "a unit is held in the middle of something while the arbiter forks [T]"
    if claim not in _DESPITE_HOGS and model.held_up:
        return Expectation.MAY_BREAK, "a greenlet may hold a process, and what comes after it does not come about [C]"
    return answer


def _of_ours(scenario: Scenario) -> tuple[Scenario, str]:
    """A scenario whose bodies are the ones of ours that they are like, and of what in it nothing is written down."""
    by = scenario.server.started_by
    others = [loop.body for loop in scenario.loops if isinstance(loop.body, OtherBody)]
    unlike = [body.value for body in others if not body.is_promised]
    if unlike:
        return scenario, f"nothing is written down of what the body {unlike[0]!r} does"
    if by != servers.GUNICORN and not servers.REGISTRY[by].as_documented:
        return scenario, f"nothing is written down of what the server {by!r} does"
    if not others:
        return scenario, ""
    return scenario.model_copy(
        update={"loops": tuple(loop.model_copy(update={"body": loop.body.like}) for loop in scenario.loops)}
    ), ""


_OF_REDIS = frozenset({"quiet_runtime", "clean_shutdown", "no_socket_shared_across_fork", "no_leak_on_reload"})
"""Claims on the server that what becomes of a loop's connection can break."""

_DESPITE_HOGS = ("no_copied_thread", "no_starved_greenlet", "server_answers")
"""Claims whose rules know what a greenlet does that never gives way."""


def _merge(answers: Iterable[Answer]) -> Answer:
    """Over windows: one that must break decides, then one that may."""
    order = (Expectation.MUST_BREAK, Expectation.MAY_BREAK, Expectation.MUST_HOLD)
    return min(answers, key=lambda answer: order.index(answer[0]), default=_HOLD)


def _one_listener(model: _Model, loop: Loop) -> Answer:
    return _merge(_one_listener_in(model, loop, window) for window in model.windows)


def _one_listener_in(model: _Model, loop: Loop, window: Snapshot) -> Answer:
    if _may_be_ended_by_a_worker(model, loop):
        return Expectation.MAY_BREAK, "a worker that leaves may end the daemonic processes of the master [P]"
    units = model.units_of(loop.name, window)
    if loop.guard is not Guard.NONE:
        return _one_holder_in(model, loop, units)
    sure = [process.place for _, process, advances in units if advances is Sure.YES]
    open_ = [process.place for _, process, advances in units if advances is Sure.MAYBE]
    if len(open_) > 8:
        return Expectation.MAY_BREAK, "where it runs is not documented"
    answers = {
        _fits(loop, [*sure, *more], window.slots)
        for count in range(len(open_) + 1)
        for more in itertools.combinations(open_, count)
    }
    if len(answers) == 2:
        return Expectation.MAY_BREAK, "whether it advances in " + ", ".join(
            sorted(map(str, open_))
        ) + " is not promised"
    where = _named(sure)
    if answers == {True}:
        return Expectation.MUST_HOLD, f"runs in {where} [F, G, H]"
    if loop.daemon and loop.kind.is_process and model.workers_leave:
        return Expectation.MAY_BREAK, "a worker that leaves may end the daemonic processes of the master [P]"
    return Expectation.MUST_BREAK, f"runs in {where}, which is not {loop.policy.value} [F, G, H]"


def _may_be_ended_by_a_worker(model: _Model, loop: Loop) -> bool:
    """Whether it is a process of the master's, and workers need not stay up by themselves."""
    masters = loop.daemon and any(process.body is not None and process.body.loop is loop for process in model.children)
    return masters and any(rule(model, loop)[0] is not Expectation.MUST_HOLD for rule in (_answers, _boot))


def _one_holder_in(model: _Model, loop: Loop, units: Sequence[tuple[_Unit, _Process, Sure]]) -> Answer:
    if loop.guard is Guard.LOCK and len(model.windows) > 1:
        return Expectation.MAY_BREAK, "a lock that has no timeout dies with its holder [R]"
    if loop.guard is Guard.LOCK and _answers(model, loop)[0] is not Expectation.MUST_HOLD:
        return Expectation.MAY_BREAK, "a worker that is replaced takes the lock with it [R]"
    if loop.policy is not Policy.ONCE_PER_SERVICE or any(unit.copied for unit, _, _ in units):
        return Expectation.MAY_BREAK, "which process holds it is not promised [R]"
    if not units or any(advances is not Sure.YES for _, _, advances in units):
        return Expectation.MAY_BREAK, "who holds it may not advance, and nobody else does then [R]"
    return Expectation.MUST_HOLD, f"one of {len(units)} holds the {loop.guard.value} [R]"


def _named(places: Iterable[Place]) -> str:
    return ", ".join(sorted(map(str, places))) or "no process"


def _fits(loop: Loop, places: Sequence[Place], slots: Sequence[int]) -> bool:
    match loop.policy:
        case Policy.ONCE_PER_SERVICE:
            return len(places) == 1
        case Policy.ARBITER_ONLY:
            return list(places) == [Place("child" if loop.kind.is_process else "arbiter")]
        case Policy.ONCE_PER_WORKER:
            role = "child" if loop.kind.is_process else "worker"
            return sorted(places, key=str) == [Place(role, slot) for slot in slots]
        case Policy.INHERIT_ALLOWED:
            return bool(places)
        case Policy.BEST_EFFORT:
            return True


def _copied(model: _Model, loop: Loop) -> Answer:
    copies = [
        (advances, process)
        for window in model.windows
        for unit, process, advances in model.units_of(loop.name, window)
        if unit.copied
    ]
    for advances, process in copies:
        if advances is Sure.YES:
            return Expectation.MUST_BREAK, f"a greenlet at the fork is copied and runs on in {process.place} [G]"
    if any(advances is Sure.MAYBE for advances, _ in copies):
        return Expectation.MAY_BREAK, "a greenlet at the fork is copied; whether it runs on is not promised [G]"
    return Expectation.MUST_HOLD, "nothing of it is alive in a forked child [F]"


def _dead(model: _Model, loop: Loop) -> Answer:
    one = _one_listener(model, loop)
    everyone = model.everyone
    lies = [process.place for process in everyone if process.place.role == "worker" and loop in process.orphaned]
    if lies and loop.kind in _JOBS:
        if loop.kind is LoopKind.EXECUTOR and _answers(model, loop)[0] is Expectation.MUST_HOLD:
            return Expectation.MUST_BREAK, f"a fork copies the future into {lies[0]}, and not the thread [F]"
        return Expectation.MAY_BREAK, f"a fork copies what is asked into {lies[0]}, and not the thread [F]"
    for window in model.windows:
        units = model.units_of(loop.name, window)
        if any(unit.copied or advances is Sure.MAYBE for unit, _, advances in units):
            return Expectation.MAY_BREAK, "what is_alive() says of a copy is not promised [G]"
        if loop.guard is not Guard.NONE and any(advances is not Sure.YES for _, _, advances in units):
            return Expectation.MAY_BREAK, "who holds it may not advance, and nobody else does then [R]"
        if any(advances is Sure.NO and process.place.role == "worker" for _, process, advances in units):
            return Expectation.MUST_BREAK, "a greenlet is alive where nothing ever enters the hub [C]"
    if one[0] is Expectation.MUST_HOLD:
        return Expectation.MUST_HOLD, "it runs where it is meant to"
    return Expectation.MAY_BREAK, "where it is missing, what tells is not promised"


def _messages(model: _Model, loop: Loop) -> Answer:
    windows = [model.units_of(loop.name, window) for window in model.windows]
    if any(unit.copied for units in windows for unit, _, _ in units):
        return Expectation.MAY_BREAK, "copies may share one connection, and then each message reaches any of them [G]"
    if loop.competes and loop.guard is Guard.NONE:
        return _merge(_taken_once(loop, [(process, advances) for _, process, advances in units]) for units in windows)
    if _hurries_nobody(model, loop):
        # Messages are counted, wherever they are handled.
        anywhere = loop.policy is Policy.ARBITER_ONLY
        return _one_listener(model, loop.model_copy(update={"policy": Policy.ONCE_PER_SERVICE}) if anywhere else loop)
    return Expectation.MAY_BREAK, "another loop of its process rarely gives way"


def _taken_once(loop: Loop, consumers: Sequence[tuple[_Process, Sure]]) -> Answer:
    """A list gives each message to one of those who wait for it [R]."""
    role = "child" if loop.kind.is_process else "worker"
    if not any(advances is not Sure.NO for _, advances in consumers):
        return Expectation.MUST_BREAK, "nobody takes them"
    if not all(advances is Sure.YES for _, advances in consumers):
        return Expectation.MAY_BREAK, "who takes them may not advance"
    # A child of the master is of no worker.
    meant = [process.place.role == role and process.place.slot is not None for process, _ in consumers]
    if loop.policy is Policy.ONCE_PER_WORKER and not all(meant):
        return Expectation.MAY_BREAK, "who takes them is not promised, and not all are meant to [R]"
    return Expectation.MUST_HOLD, "one of those who wait takes each [R]"


def _hurries_nobody(model: _Model, loop: Loop) -> bool:
    return not _blocked(model) and not any(
        other.body is LoopBody.CPU or other.yields.every >= 50 for other in model.scenario.loops
    )


def _blocked(model: _Model) -> bool:
    return any(model.blocks(unit, process) for process in model.everyone for unit in process.units)


def _subscriptions(model: _Model, loop: Loop) -> Answer:
    if not _hurries_nobody(model, loop):
        return Expectation.MAY_BREAK, "another loop of its process rarely gives way"
    if len(model.windows) > 1 and (model.children or loop.guard is not Guard.NONE):
        # A child keeps what it inherited when its parent is killed [F]; who lost a lease stays subscribed.
        return Expectation.MAY_BREAK, "a subscription may outlive the process or the lease that it was made in [F]"
    return _merge(_subscriptions_in(model, loop, window) for window in model.windows)


def _subscriptions_in(model: _Model, loop: Loop, window: Snapshot) -> Answer:
    units = model.units_of(loop.name, window)
    if any(unit.copied for unit, _, _ in units):
        return Expectation.MAY_BREAK, "copies may share one connection [G]"
    if loop.guard is not Guard.NONE:
        return _one_holder_in(model, loop, units)
    # Redis counts connections, wherever they are.
    least = sum(advances is Sure.YES for _, _, advances in units)
    most = sum(advances is not Sure.NO for _, _, advances in units)
    wanted = len(window.slots) if loop.policy is Policy.ONCE_PER_WORKER else 1
    fits = {
        count >= 1 if loop.policy is Policy.INHERIT_ALLOWED else count == wanted for count in range(least, most + 1)
    }
    if len(fits) == 2:
        return Expectation.MAY_BREAK, f"whether {least} or up to {most} of them subscribe is not promised"
    told = f"{least} of them" if least == most else f"{least} to {most} of them"
    if fits == {True}:
        return Expectation.MUST_HOLD, f"{told} subscribe, each once [F, G, H]"
    return Expectation.MUST_BREAK, f"{told} subscribe, which is not {loop.policy.value} [F, G, H]"


def _leak(model: _Model, loop: Loop) -> Answer:
    if model.unsettled or model.arbiter.patched:
        return Expectation.MAY_BREAK, "what a patched arbiter sets up as it goes is not documented"
    again = [one for one in model.scenario.loops if one.start in (LoopStart.CONFIG_IMPORT, LoopStart.PRE_FORK)]
    if any(one.kind is LoopKind.THREAD for one in again):
        return Expectation.MUST_BREAK, "a reload reads the configuration and forks, and each starts a thread [H]"
    if again:
        return Expectation.MAY_BREAK, "a reload reads the configuration and forks, and each starts the loop again [H]"
    return Expectation.MUST_HOLD, "a reload starts nothing in the arbiter that it does not end [H]"


def _shared_sockets(model: _Model, loop: Loop) -> Answer:
    everyone = model.everyone
    if _share_connections(model):
        return Expectation.MAY_BREAK, "a copied greenlet goes on with the connection of the original [G]"
    if model.unsettled or any(process.in_request and process.body is not None for process in everyone):
        return Expectation.MAY_BREAK, "which greenlets a child goes on with is not promised [G]"
    return Expectation.MUST_HOLD, "a child has descriptors of its parent's connections, and nothing that reads them [F]"


def _starved(model: _Model, loop: Loop) -> Answer:
    answers: list[Answer] = []
    for window in model.windows:
        for unit, process, advances in model.units_of(loop.name, window):
            if advances is Sure.NO and not unit.copied and loop.guard is Guard.NONE:
                answers.append((Expectation.MUST_BREAK, f"nothing enters the hub in {process.place} [C]"))
            elif advances is not Sure.YES:
                answers.append((Expectation.MAY_BREAK, f"its turns in {process.place} are not promised [C]"))
    if not _hurries_nobody(model, loop):
        answers.append((Expectation.MAY_BREAK, "another loop of its process rarely gives way [C]"))
    return _merge(answers) if answers else (Expectation.MUST_HOLD, "whoever shares its process gives way [C]")


def _answers(model: _Model, loop: Loop) -> Answer:
    workers = [process for process in model.everyone if process.place.role == "worker"]
    worst = max((model.hogs(process) for process in workers), default=Sure.NO)
    later = [unit.loop.start is LoopStart.FIRST_REQUEST for process in workers for unit in process.units]
    if worst is Sure.YES and not model.unsettled and not any(later):
        return Expectation.MUST_BREAK, "a greenlet that never gives way holds the worker [C]"
    if worst is not Sure.NO or model.unsettled:
        return Expectation.MAY_BREAK, "a greenlet may hold the worker or the arbiter [C]"
    if any(model.talks_at_fork(process) for process in workers):
        return Expectation.MAY_BREAK, "a worker that is forked beside a busy native thread may deadlock [T]"
    if model.enters_gevent_at_fork:
        return Expectation.MAY_BREAK, "a hook of the fork may wait in a child that gevent has yet to prepare [G]"
    if _blocked(model):
        return Expectation.MAY_BREAK, "a greenlet that waits natively holds the worker meanwhile [C]"
    shared = [(process, unit) for process in workers for unit in process.units if unit.loop.body.is_shared]
    if any(model.keeps_its_lock(unit, process) for process, unit in shared):
        return Expectation.MAY_BREAK, "a loop may take the lock that requests wait for again and again [G]"
    if any(model.shares_oddly(unit, process) for process in workers for unit in process.units):
        return Expectation.MAY_BREAK, "requests share something with a loop of which nothing is documented [G]"
    if any(unit.copied and model.advances(unit, process) is not Sure.YES for process, unit in shared):
        return Expectation.MAY_BREAK, "a copy that does not advance may keep its lock for ever [G]"
    children = [process for process in model.everyone if process.body is not None]
    if any(child.in_request for child in children) and model.server.worker_class is WorkerClass.TORNADO:
        # gunicorn's own workers shut a connection down; tornado closes its descriptor, and the child has one too.
        return Expectation.MAY_BREAK, "a process forked in a request keeps its connection open [F]"
    if any(child.in_request and child.patched for child in children):
        return (
            Expectation.MAY_BREAK,
            "a process forked in a request copies the greenlets that serve, and may take theirs [G]",
        )
    if model.stuck((*_FOR_EVER, ParkPoint.IMPORT)):
        return Expectation.MUST_BREAK, "a request waits for what a thread had that was not copied [F]"
    if model.left_in_the_middle:
        return Expectation.MAY_BREAK, "a request may meet what another thread was in the middle of [T]"
    return Expectation.MUST_HOLD, "nothing holds a worker"


def _responsive(model: _Model, loop: Loop) -> Answer:
    answers: list[Answer] = []
    for process in (process for process in model.everyone if process.place.role == "arbiter"):
        for unit in process.units:
            advances = model.advances(unit, process)
            if unit.loop.policy is Policy.BEST_EFFORT or advances is Sure.YES:
                continue
            if advances is Sure.NO and unit.loop.guard is Guard.NONE:
                answers.append((Expectation.MUST_BREAK, "nothing enters the hub in the arbiter [C]"))
            else:
                answers.append((Expectation.MAY_BREAK, "the turns of the arbiter's greenlets are not promised [C]"))
        if process.units and not _hurries_nobody(model, loop):
            answers.append((Expectation.MAY_BREAK, "another loop of its process rarely gives way [C]"))
    if model.unsettled:
        answers.append((Expectation.MAY_BREAK, "a greenlet may hold the arbiter [C]"))
    if _share_connections(model):
        answers.append((Expectation.MAY_BREAK, "a copy may read the replies that a loop of the arbiter waits for [G]"))
    return _merge(answers) if answers else (Expectation.MUST_HOLD, "nothing holds the arbiter [S]")


def _share_connections(model: _Model) -> bool:
    """Whether a fork copies a greenlet that talks to Redis, and with it the connection of the original."""
    everyone = model.everyone
    return any(unit.copied and unit.loop.needs_redis for process in everyone for unit in process.units)


def _foreign(model: _Model, loop: Loop) -> Answer:
    if model.unsettled:
        return Expectation.MAY_BREAK, "a greenlet may hold the arbiter [C]"
    return Expectation.MUST_HOLD, "gunicorn's codes are those of its workers [S]"


def _orphans(model: _Model, loop: Loop) -> Answer:
    kinds = {fault.fault for fault in model.scenario.faults}
    if Sure.YES in model.orphans:
        return Expectation.MUST_BREAK, "a killed parent ends nothing [P]"
    if model.orphans or "kill_arbiter" in kinds:
        return Expectation.MAY_BREAK, "what becomes of a process whose parent is gone is not promised [P]"
    if "int" in kinds and not _plain(model):
        return Expectation.MAY_BREAK, "what does not end by itself is waited for [P]"
    return Expectation.MUST_HOLD, "nothing lives below what ends"


def _handover(model: _Model, loop: Loop) -> Answer:
    if loop.policy is not Policy.ONCE_PER_SERVICE:
        return Expectation.MUST_HOLD, "the policy knows no holder"
    if loop.guard is not Guard.NONE:
        return Expectation.MAY_BREAK, "when another one gets what the last one held is not promised [R]"
    if model.unsettled:
        return Expectation.MAY_BREAK, "a greenlet may hold a process [C]"
    steps = zip(model.scenario.faults, model.windows, model.windows[1:], strict=False)
    through = [_through(model, loop, fault, before, after) for fault, before, after in steps]
    return _merge([*through, _NO_HANDOVER])


_NO_HANDOVER: Answer = (Expectation.MUST_HOLD, "nobody takes it over")


def _through(model: _Model, loop: Loop, fault: Fault, before: Snapshot, after: Snapshot) -> Answer:
    if fault.fault not in ("kill_worker", "hup", "usr2", "max_requests"):
        return _NO_HANDOVER
    then, now = model.units_of(loop.name, before), model.units_of(loop.name, after)
    sure = [process for _, process, advances in now if advances is Sure.YES]
    if len(sure) > 1:
        return Expectation.MUST_BREAK, f"runs in {_named(process.place for process in sure)} after {fault.fault} [S]"
    if any(advances is Sure.MAYBE for _, _, advances in (*then, *now)) or len(then) != 1:
        return Expectation.MAY_BREAK, "where it runs is not promised"
    if not sure:
        return Expectation.MUST_BREAK, f"nobody starts it again after {fault.fault} [H]"
    holder = then[0][1].place
    if fault.fault == "usr2":
        return Expectation.MUST_BREAK, "both masters and their workers run until the old ones are told to go [S]"
    if fault.fault == "hup" and holder.role != "arbiter":
        return Expectation.MAY_BREAK, "new workers come before the old ones have gone [S]"
    return Expectation.MUST_HOLD, f"runs in {sure[0].place}, which comes when the last one is gone [H, S]"


def _boot(model: _Model, loop: Loop) -> Answer:
    everyone = model.everyone
    if model.unsettled or model.held_up:
        return Expectation.MAY_BREAK, "a greenlet may hold a process while it boots [C]"
    if any(model.talks_at_fork(process) for process in everyone):
        return Expectation.MAY_BREAK, "a worker that is forked beside a busy native thread may deadlock [T]"
    if model.enters_gevent_at_fork:
        return Expectation.MAY_BREAK, "a hook of the fork may wait in a child that gevent has yet to prepare [G]"
    return Expectation.MUST_HOLD, "nothing holds a process"


_FOR_EVER = (ParkPoint.LOCK, ParkPoint.QUEUE_MUTEX, ParkPoint.LOG_RECORD)
"""Locks that no Python renews in a child. A logging handler's is renewed since 3.7, which is not written down."""


def _locks(model: _Model, loop: Loop) -> Answer:
    if model.stuck(_FOR_EVER) and _hears_requests(model):
        return Expectation.MUST_BREAK, "a child has the lock that a thread held, and not the thread [F]"
    return _left_behind(model)


def _imports(model: _Model, loop: Loop) -> Answer:
    if model.stuck((ParkPoint.IMPORT,)):
        return Expectation.MUST_BREAK, "a child has the module that a thread was importing, and not the thread [F]"
    return _left_behind(model)


def _left_behind(model: _Model) -> Answer:
    everyone = model.everyone
    if model.beside or model.left_in_the_middle:
        return Expectation.MAY_BREAK, "what another thread has at a fork, a child has for ever [T]"
    if model.unsettled or any(process.body is not None and process.in_request for process in everyone):
        return Expectation.MAY_BREAK, "which threads there are at a fork is not promised [T]"
    if any(process.patched for process in everyone) and any(one.needs_redis for one in model.scenario.loops):
        return Expectation.MAY_BREAK, "gevent looks up names in native threads [G]"
    return Expectation.MUST_HOLD, "no other thread is there at a fork [F]"


def _hears_requests(model: _Model) -> bool:
    return not (model.unsettled or model.held_up)


def _plain(model: _Model, but_for: Callable[[_Model, Loop], bool] = lambda model, loop: False) -> bool:
    """Whether all is documented that a quiet life and a clean end rest on, but for certain loops."""
    loops = model.scenario.loops
    return (
        not model.unsettled
        and model.patches_as_documented
        and all((loop.daemon and loop.kind not in _WAITED_FOR) or but_for(model, loop) for loop in loops)
        and not model.held_up
        and not any(model.talks_at_fork(process) for process in model.everyone)
    )


def _quits_in_a_greenlet(scenario: Scenario) -> bool:
    """Whether a master tells gevent workers to QUIT: at INT, and at a USR2 that is not rolled back."""
    return scenario.server.worker_class.is_gevent and any(
        fault.fault == "int" or (fault.fault == "usr2" and not fault.options.get("rollback"))
        for fault in scenario.faults
    )


_WAITED_FOR = frozenset(kind for kind in LoopKind if kind.is_process) | _JOBS
"""Kinds that may keep a process from its end, daemons or not. An executor's threads are joined [E]."""


def _shutdown(model: _Model, loop: Loop) -> Answer:
    if _plain(model, but_for=_ends_with_its_parent):
        return Expectation.MUST_HOLD, "daemons do not keep a process, and their parent ends daemonic processes [P]"
    return Expectation.MAY_BREAK, "what does not end by itself is waited for [P]"


def _ends_with_its_parent(model: _Model, loop: Loop) -> bool:
    """Whether a loop is a daemonic process, in Python's hands alone, whose parent exits by itself and so ends it."""
    own = [process for process in model.everyone if process.body and process.body.loop is loop]
    settled = not any(process.patched or process.odd or process.units for process in own)
    killed = any(fault.fault != "term" for fault in model.scenario.faults)
    return (
        loop.daemon
        and loop.kind in (LoopKind.PROCESS, LoopKind.PROCESS_SPAWN)
        and settled
        and not (killed and any(process.place.slot is not None for process in own))
    )


def _quiet(model: _Model, loop: Loop) -> Answer:
    sites = [patch.site for patch in model.scenario.patches]
    if _share_connections(model):
        return Expectation.MAY_BREAK, "copies may share one connection and read each other's replies [G]"
    if _plain(model) and len(sites) <= 1:
        return Expectation.MUST_HOLD, "nothing is done that warns"
    return Expectation.MAY_BREAK, "what is printed then is not documented"


def _patched(model: _Model, loop: Loop) -> Answer:
    for role in ("arbiter", "worker"):
        sequence = calls(model.scenario, role)
        for keyword in KEYWORDS:
            if asked(sequence, keyword, model.off).contradicted:
                return Expectation.MUST_BREAK, f"a call that patches {keyword} is not undone by one that does not [G]"
    return Expectation.MUST_HOLD, "every call patches what its keywords say [G]"


def _stale(model: _Model, loop: Loop) -> Answer:
    answers: list[Answer] = []
    for process in (process for process in model.everyone if process.stale):
        things = f"{', '.join(one.name for one in process.stale)}, made before a patch [G]"
        if model.requests_in_greenlets(process) is Sure.YES:
            answers.append((Expectation.MUST_BREAK, f"requests of {process.place} use {things}"))
        else:
            answers.append((Expectation.MAY_BREAK, f"a greenlet of {process.place} may use {things}"))
    return _merge(answers) if answers else (Expectation.MUST_HOLD, "nothing is made before a patch that replaces it")


_IN_DOUBT = frozenset({Expectation.MAY_BREAK})
_DESPITE_PARKS: dict[str, Collection[Expectation]] = {
    "no_copied_thread": _IN_DOUBT | {Expectation.MUST_HOLD},
    **dict.fromkeys(("server_answers", "no_lock_held_at_fork", "no_half_imported_module"), frozenset(Expectation)),
}
"""What a claim's rule may answer where a unit is parked in the middle of something; of the others it is a doubt."""

_RULES: dict[str, Callable[[_Model, Loop], Answer]] = {
    "exactly_one_listener": _one_listener,
    "no_copied_thread": _copied,
    "no_dead_listener": _dead,
    "every_message_handled_once": _messages,
    "subscriptions_match": _subscriptions,
    "no_starved_greenlet": _starved,
    "server_answers": _answers,
    "arbiter_responsive": _responsive,
    "workers_boot": _boot,
    "clean_shutdown": _shutdown,
    "no_orphan_process": _orphans,
    "handover_is_safe": _handover,
    "no_leak_on_reload": _leak,
    "no_socket_shared_across_fork": _shared_sockets,
    "no_lock_held_at_fork": _locks,
    "no_half_imported_module": _imports,
    "quiet_runtime": _quiet,
    "patch_is_what_was_asked": _patched,
    "no_stale_original": _stale,
    "foreign_child_ignored": _foreign,
}
