"""Processes that hold a server's first imports and fork the servers of many runs: the warm start.

Four fifths of the CPU time of a plain verdict are imports that every server makes again. A nest is a process that has
been started by the very command of the servers that it is for, has made those imports that come in the same order and
before the same patches in all of them, and stops there. A server that it forks goes on from there as one that was
started cold would: what the scenario does, and all that is imported after the first of its patches that could make a
difference, is its own. What is neutral in this sense:

- gunicorn itself, always: the command imports it before it reads the configuration file, and after a patch at
  interpreter start, which is in the command;
- the worker class, where the configuration file does not patch: gunicorn loads it when that has been read. Where it
  does patch, gevent alone, which its first line imports unpatched;
- flask, redis and what else the app imports, where the arbiter imports the app (preload), and the app's first line does
  not patch either. Not where each worker imports it: the arbiter would then have what a cold one has not.

`tests/test_nest_servers.py` compares all objects of all modules of servers that were started either way. Not for the
user's own app, without a pid namespace of root's, or before Python 3.7.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from forkproof.scenario import LoopKind, PatchSite, Scenario, WorkerClass

USES = 2
"""The use of a plan at which its nest is made: making one costs as much as a server."""
MOST = 16
"""How many nests there are at once; one takes some 15 to 35 MB of its own, and shares them with its servers."""
LAST_SECONDS = 2.0
"""Seconds that a nest may take to end when nobody asks it any more."""
_CLASSES = {WorkerClass.GEVENTWEBSOCKET: "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"}


def neutral(scenario: Scenario) -> tuple[str, ...]:
    """What a server of this scenario may find imported, in its order, as `forkproof_payload.nest` takes it."""
    sites = {patch.site for patch in scenario.patches}
    words = ["gunicorn.app.wsgiapp"]
    if sites & {PatchSite.CONFIG_FIRST_LINE, PatchSite.CONFIG_AFTER_IMPORTS}:
        return (*words, "gevent.monkey")
    worker_class = scenario.server.worker_class
    words.append(f"class:{_CLASSES.get(worker_class, worker_class.value)}")
    if not scenario.server.preload or PatchSite.APP_FIRST_LINE in sites:
        return tuple(words)
    if not scenario.surroundings.hiredis:
        words.append("-hiredis")
    words += ["logging", "ssl"]
    if PatchSite.APP_AFTER_IMPORTS in sites or any(loop.needs_redis for loop in scenario.loops):
        words.append("redis")
    words.append("flask")
    if any(loop.kind is LoopKind.SOCKETIO_TASK for loop in scenario.loops):
        words.append("flask_socketio")
    return tuple(words)


@dataclass(frozen=True)
class Plan:
    """What the servers of one nest have in common: their command, and what they find imported."""

    command: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def first(self) -> Plan:
        """The same with nothing but what all servers of that command have."""
        return Plan(self.command, self.words[:1])


class Nests:
    """The nests of one command, made as they pay; safe to use from several threads. A context manager."""

    def __init__(self, folder: Path, environment: Callable[[Path], Mapping[str, str]]) -> None:
        """Below `folder` each nest has one that stands for that of a run, with what `environment` says for it."""
        self._folder = folder
        self._environment = environment
        self._lock = threading.Lock()
        self._uses: Counter[Plan] = Counter()
        self._nests: dict[Plan, _Nest] = {}  # the one that was used last is the last
        self._processes: list[subprocess.Popen[bytes]] = []
        self.eager = False
        """Whether a nest is made at the first use of a plan, and waited for: for tests and measurements."""

    def __enter__(self) -> Nests:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            for nest in self._nests.values():
                nest.line.close()
            self._nests.clear()
            latest = time.monotonic() + LAST_SECONDS
            for process in self._processes:
                try:
                    process.wait(max(0.0, latest - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def line(self, plan: Plan) -> socket.socket | None:
        """Where a server of this plan may be asked for, to be closed by the caller; None where it is to start cold."""
        with self._lock:
            first = self._ready(plan.first, self._start)
            if first is None:
                return None
            # Imports that a nest of this plan would have made, the server makes for itself.
            nest = self._ready(plan, lambda plan: _branch(first, plan)) or first
            return nest.line.dup()

    def _ready(self, plan: Plan, make: Callable[[Plan], _Nest]) -> _Nest | None:
        """The nest of a plan once it is there, made where it pays."""
        self._uses[plan] += 1
        nest = self._nests.pop(plan, None)
        if nest is None:
            if self._uses[plan] < USES and not self.eager:
                return None
            if len(self._nests) >= MOST:
                self._nests.pop(next(iter(self._nests))).line.close()  # it ends once nobody is left to ask it
            nest = make(plan)
        self._nests[plan] = nest
        try:
            return nest if nest.ready(wait=self.eager) else None
        except OSError:
            # It cannot make these imports, or something has ended it; the use after next makes another.
            self._nests.pop(plan).line.close()
            self._uses[plan] = 0
            return None

    def _start(self, plan: Plan) -> _Nest:
        folder = self._folder / f"nest-{len(self._processes) + 1}"
        for name in ("work", "home", "tmp"):
            (folder / name).mkdir(parents=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, (folder / "nest.log").open("ab") as log:
            process = subprocess.Popen(
                plan.command,
                env={**self._environment(folder), "FORKPROOF_NEST": f"{theirs.fileno()} {' '.join(plan.words)}"},
                cwd=folder / "work", stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        return _Nest(plan, ours)

    @property
    def pids(self) -> set[int]:
        """The processes that are nests, or that nests were forked from."""
        with self._lock:
            return {process.pid for process in self._processes}

    @property
    def descriptors(self) -> set[int]:
        """Where they are asked."""
        with self._lock:
            return {nest.line.fileno() for nest in self._nests.values()}


@dataclass
class _Nest:
    """One process, and where it is asked; it ends when nobody is there to ask it."""

    plan: Plan
    line: socket.socket
    pid: int = 0

    def ready(self, *, wait: bool) -> bool:
        """Whether it has made its imports, which it says once; OSError where it has ended."""
        try:
            said = self.line.recv(16, 0 if wait and not self.pid else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return self.pid > 0
        if not said:
            raise ConnectionResetError("the nest has ended")
        self.pid = int(said)
        return True


def _branch(first: _Nest, plan: Plan) -> _Nest:
    """A nest that is forked from another one, and has imported more."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = " ".join(plan.words[len(first.plan.words) :])
    with theirs:
        socket.send_fds(first.line, [f"nest\0{words}".encode()], [theirs.fileno()])
    return _Nest(plan, ours)
