"""One run: starts the server of a run folder, drives it through the scenario, writes what it sees, ends everything.

It runs in a process of its own, below which the whole server lives, and ends when its lifeline closes. It reads
`scenario.json` and `launch.json`, writes `history/supervisor.jsonl`, and judges nothing. Standard library only, since
every run pays for what it imports.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import functools
import json
import mmap
import os
import re
import resource
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any

from forkproof import containment, files, proc, resp
from forkproof.control import Budget, Gauge
from forkproof.crowd import Unhindered
from forkproof.faults import REGISTRY, Defect, Life, extend
from forkproof.outside import Outside

SAMPLE_EVERY = 0.02
LOOKS = 6
"""How often in each window one looks who waits on what: a reader that now and then does something else is met."""
LOOKS_AFTER_RELOAD = 3
"""How often one looks what a process has then: what it has for a moment is not in all of them."""
MAX_LOG_LINES = 5000
MOST_FAILURES = 10
"""Failed requests in a row after which the wait before the next one grows no more: it is as many samples."""
FRAMES = 20
"""How many frames of a thread, and how many threads, a `stack` event holds; the file has them all."""
_OF_PROCESS = re.compile(r"[0-9]+-[0-9]+\.jsonl")
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')
LIMITS = {"log": 8 << 20, "folder": 256 << 20, "processes": 256}
"""What one run may take: bytes of output that are kept, bytes of its folder, processes. An ordinary run has 20 KB of
output, 2 MB in its folder and 10 processes."""
LONGEST_LINE = 1 << 16
LONGEST_ANSWER = 4 << 20
LONGEST_STACKS = 1 << 20
"""Bytes of an answer that are taken, and of the stacks that a process writes when it is asked once."""
_LAST_PID, _LAST_PORT, _MOST_CELLS = 1 << 22, 65535, 512
_LIMITS_EVERY = 25
"""Samples between two looks at what is slow to look at."""
_HALTED_EVERY = 5
"""Samples between two looks at who stands still."""
NEST_SECONDS = 10.0
"""Seconds of wall time that a nest may take to fork a server, which is a few ms, behind others that ask it."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Why a run folder cannot be written to any more; the supervisor then exits with that number."""
_SUBSCRIBING = ("listen", "get_message")
_FRESH = ("process_spawn", "process_forkserver")
_IN_MODIFY, _IN_CREATE, _IN_CLOEXEC, _IN_NONBLOCK = 0x2, 0x100, 0o2000000, 0o4000


@dataclass
class _Process:
    """A process of the server, as its own history file shows it."""

    key: str
    pid: int
    start: int
    first: float
    ppid: int
    ticks: _Cells | None = None
    counts: dict[int, int] = field(default_factory=dict)  # by cell, as last sampled
    role: str = "child"
    slot: int | None = None
    hooks: set[str] = field(default_factory=set)
    waiting: dict[str, int | None] = field(
        default_factory=dict
    )  # cell of each birth that has not ended, None until it begins
    gone: bool = False
    pidfd: int | None = None


class Supervisor:
    """Drives one run; see the module."""

    def __init__(self, folder: Path, host: int | None = None, nest: int | None = None) -> None:
        """`host` is a descriptor of the /proc that knows Redis by its pid; at `nest` one may ask for a server."""
        self.folder = folder
        self._host = host
        self._nest = nest
        self.scenario: dict[str, Any] = json.loads((folder / "scenario.json").read_bytes())
        self.launch: dict[str, Any] = json.loads((folder / "launch.json").read_bytes())
        if any(fault["fault"] not in REGISTRY for fault in self.scenario["faults"]):
            extend()
        others = self.launch.get("bodies", {})
        for loop in self.scenario["loops"]:
            if loop["body"] in others:
                loop["body"] = others[loop["body"]]["like"]
        self.life = Life.begin(self.scenario)
        self.gauge = Gauge(Path(self.launch["control"]))
        self.processes: dict[str, _Process] = {}
        self.address: tuple[str, int] | None = None
        self.arbiter_pid = 0
        self.arbiter_ended = False
        self.turn = 0
        self._changed = asyncio.Event()
        self._readers: dict[str, _Tail] = {}
        self._log_path = str(folder / "server.log")
        self._logs = {self._log_path: _Tail(self._log_path)}
        self._log_lines = 0
        self._log_cut = False
        self.over_limit = False
        """Whether the run was ended because it took more than it may."""
        self._pending_gone: list[str] = []
        self._requests = 0
        self._failures = 0
        self._messages = 0
        self._open_requests: set[asyncio.Task[bool]] = set()
        self._answered: set[str] = set()
        self._expected: dict[str, _Process] = {}  # creator of each birth that a new interpreter has yet to begin
        self._served: Counter[str] = Counter()
        self._signals = 0
        self._heard = 0
        self._arbiter_silent = False
        self._blocked: set[int] = set()
        self._foreign: dict[Path, int] = {}
        self._redis: resp.Client | None = None
        self._outside = Outside(self.record)
        self._reloads = 0
        self._crowd = Unhindered(self._everybody)
        self._granted = Budget(self.gauge, float("inf"), lambda: self._crowd.told)  # looked at where one waits
        self._halted: set[int] = set()
        self._start = containment.read_stat(os.getpid())
        self._histories = str(folder / "history")
        self._watch: _Watch | None = None
        self._history = os.open(
            folder / "history" / "supervisor.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )

    # Writing

    def record(self, kind: str, **fields: Any) -> None:
        """Append one event to the supervisor's own history."""
        start = self._start.start if self._start else 0
        fields = {"t": round(time.monotonic(), 6), "pid": os.getpid(), "start": start, "event": kind, **fields}
        # What a server says may hold what Unicode does not allow; a history does not.
        os.write(self._history, (json.dumps(fields, ensure_ascii=False) + "\n").encode(errors="replace"))

    def close(self) -> None:
        """Close what is open; the supervisor's own process ends instead."""
        os.close(self._history)
        for tail in (*self._logs.values(), *self._readers.values()):
            tail.close()
        for process in self.processes.values():
            if process.ticks is not None:
                process.ticks.close()

    # Watching

    def observe(self) -> None:
        """Read what the server's processes have written since the last time."""
        for name in os.listdir(self._histories):
            if name not in self._readers and _OF_PROCESS.fullmatch(name):
                path = f"{self._histories}/{name}"
                if self._watch is not None:
                    self._watch.file(path)
                self._readers[name] = _Tail(path)
        for name, reader in list(self._readers.items()):
            for line in reader.lines():
                # What is no event is told when the history is read.
                with contextlib.suppress(
                    ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError
                ):
                    self._note(name.removesuffix(".jsonl"), json.loads(line))
        for path, tail in self._logs.items():
            while self._log_lines < MAX_LOG_LINES and (lines := tail.lines()):
                for line in lines[: MAX_LOG_LINES - self._log_lines]:
                    self._hear(path, line)
                self._log_lines += len(lines)
        self._changed.set()

    def _hear(self, path: str, line: bytes, **fields: Any) -> None:
        """Record a line that the server has printed into a file."""
        self.record("log", line=line.decode(errors="replace")[:2000], stream="stderr", **fields)
        self._heard += b"Handling signal: winch" in line

    def _within_limits(self, *, at_last: bool = False) -> bool:
        """Whether the run takes no more than it may; output alone is cut, and goes on."""
        for path in self._logs:
            if _length(path) > LIMITS["log"]:  # of a link, its own
                # Opened for appending, so the server goes on writing at the new end.
                os.truncate(path, LIMITS["log"] // 2)
                if not self._log_cut:
                    self._log_cut = True
                    self.record("limit", what="log", limit=LIMITS["log"], found=None)
        if self.turn % _LIMITS_EVERY and not at_last:
            return True
        for what, found in (("folder", _size_of(self.folder)), ("processes", len(self._living()))):
            if found > LIMITS[what]:
                self.record("limit", what=what, limit=LIMITS[what], found=found)
                return False
        return True

    def _note(self, key: str, event: dict[str, Any]) -> None:
        kind = event["event"]
        process = self.processes.get(key)
        if process is None:
            pid, start, ppid = _whole(event["pid"], _LAST_PID), _whole(event["start"]), _whole(event.get("ppid", 0))
            process = self.processes[key] = _Process(key, pid, start, float(event["t"]), ppid)
            self._watch_exit(process)
        if kind == "role":
            slot = event["slot"]
            process.role, process.slot = _text(event["role"]), None if slot is None else _whole(slot)
        elif kind == "hook":
            process.hooks.add(_text(event["name"]))
        elif kind == "listening":
            self.address = (_text(event["address"][0]), _whole(event["address"][1], _LAST_PORT))
        elif kind == "blocked":
            self._blocked.add(_whole(event["number"]))
        elif kind == "loop.created":
            process.waiting.setdefault(_text(event["birth"]), None)
            if event["kind"] in _FRESH:
                self._expected[event["birth"]] = process
        elif kind == "loop.begin":
            birth, cell = _text(event["birth"]), _whole(event["cell"])
            self._expected.pop(birth, None)
            process.waiting[birth] = cell
            process.counts.setdefault(cell, 0)
        elif kind == "loop.end":
            process.waiting.pop(_text(event["birth"]), None)

    def _watch_exit(self, process: _Process) -> None:
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            self._mark_gone(process)
            return
        stat = containment.read_stat(process.pid)
        if stat is None or stat.start != process.start or stat.state == "Z":
            os.close(pidfd)
            self._mark_gone(process)
            return
        process.pidfd = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._exited, process)

    def _exited(self, process: _Process) -> None:
        if process.pidfd is not None:
            asyncio.get_running_loop().remove_reader(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = None
        self._mark_gone(process)
        self.observe()
        self.sample()

    def _mark_gone(self, process: _Process) -> None:
        if not process.gone:
            process.gone = True
            self._pending_gone.append(process.key)

    def sample(self) -> None:
        """Read every tick counter; write those that moved."""
        self.turn += 1
        ticks: dict[str, dict[str, int]] = {}
        for process in self.processes.values():
            moved = self._moved(process)
            if moved:
                ticks[process.key] = moved
        gone, self._pending_gone = self._pending_gone, []
        self._granted.spend()
        granted = round(self._granted.spent, 3)
        self.record("sample", turn=self.turn, control=self.gauge.turns, granted=granted, ticks=ticks, gone=gone)
        if self.turn % _HALTED_EVERY == 0:
            self._look_for_halted()

    def _look_for_halted(self) -> None:
        """Write down who stands still by a signal that is not ours: what it misses then is nobody's fault."""
        for process in self.processes.values():
            stat = containment.read_stat(process.pid) if process.pid not in self._halted else None
            if stat is not None and stat.start == process.start and stat.state == "T":
                self._halted.add(process.pid)
                self.record("halted", target=process.pid)
        redis = self._broker if self.life.uses_redis and not self._own_broker else None
        if redis is not None and redis[0] not in self._halted and proc.is_stopped(*redis):
            self._halted.add(redis[0])
            self.record("halted", target=redis[0], what="Redis")

    def _moved(self, process: _Process) -> dict[str, int]:
        if process.ticks is None:
            try:
                process.ticks = _Cells(self.folder / "ticks" / process.key)
            except (OSError, ValueError):
                return {}
        if not process.ticks.whole:
            return {}
        moved = {}
        for cell, before in process.counts.items():
            count = process.ticks[cell]
            if count != before:
                process.counts[cell] = count
                moved[str(cell)] = count
        return moved

    async def _sampling(self) -> None:
        """Sample until the run takes more than it may."""
        while not self.over_limit:
            self.observe()
            self.sample()
            self.over_limit = not self._within_limits()
            await asyncio.sleep(SAMPLE_EVERY)

    def _reap(self) -> None:
        for pid, status in containment.reap():
            self.record("exit", child=pid, status=status)
            if pid == self.arbiter_pid:
                self.arbiter_ended = True
        self._changed.set()

    def _budget(self, seconds: float) -> Budget:
        """So long may the server take; time in which it sleeps, and the machine keeps it from nothing, counts in full.

        Not where others are at work for it whom one does not see.
        """
        return Budget(self.gauge, seconds, self._crowd.seconds) if self._sees_all else Budget(self.gauge, seconds)

    @functools.cached_property
    def _sees_all(self) -> bool:
        """Whether all is known that the server may wait for: what lives in its namespace, and Redis while it is one."""
        if self._start is None or self._start.pid != 1:
            return False
        return not self.life.uses_redis or (self._broker is not None and not self._own_broker)

    @functools.cached_property
    def _own_broker(self) -> bool:
        """Whether faults are done to this run's Redis."""
        return any(REGISTRY[fault["fault"]].needs_broker for fault in self.scenario["faults"])

    @property
    def _broker(self) -> tuple[int, str] | None:
        pid = self.launch.get("broker_pid")
        return None if pid is None or self._host is None else (pid, f"/proc/self/fd/{self._host}")

    def _everybody(self) -> list[tuple[int, str]]:
        """Whom the server may wait for: its own processes, this one, and Redis."""
        found = [(int(name), "/proc") for name in os.listdir("/proc") if name.isdigit()]
        return [*found, self._broker] if self.life.uses_redis and self._broker else found

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> bool:
        """Wait until `condition()`, or until the calibrated bound has passed: then False, and a `bound` event."""
        budget = self._budget(seconds)
        while not condition():
            if budget.expired:
                slots = sorted(self.life.slots)
                self.record("bound", what=what, seconds=seconds, stretch=round(budget.stretch, 2), slots=slots)
                return False
            self._changed.clear()
            await self._changed.wait()  # which each sample sets
        return True

    # Asking

    def _live_workers(self) -> list[_Process]:
        """Every live worker, the oldest first."""
        live = (process for process in self.processes.values() if process.role == "worker" and not process.gone)
        return sorted(live, key=lambda process: process.first)

    def workers(self) -> list[str]:
        """The keys of all live workers."""
        return [process.key for process in self._live_workers()]

    def current_workers(self) -> dict[int, _Process]:
        """The newest live worker of each slot."""
        return {process.slot: process for process in self._live_workers() if process.slot is not None}

    def worker_pid(self, slot: int) -> int | None:
        """The pid of the newest live worker in `slot`."""
        process = self.current_workers().get(slot)
        return process.pid if process else None

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process of the server."""
        if number == signal.SIGSTOP:
            self._halted.add(pid)
        os.kill(pid, number)

    async def all_slots_answered(self) -> bool:
        """Whether each slot's newest worker has booted and answered, within the boot bound."""
        return await self.answered_by_others_than(())

    async def answered_by_others_than(self, old: Collection[str]) -> bool:
        """Whether workers other than `old` have booted and answered in each slot, within the boot bound."""

        def booted() -> bool:
            workers = self.current_workers()
            return self.arbiter_ended or all(
                slot in workers and workers[slot].key not in old and "post_worker_init" in workers[slot].hooks
                for slot in self.life.slots
            )

        if not await self.until(booted, self.launch["bounds"]["boot"], "boot") or self.arbiter_ended:
            return False
        return await self.ask_every_slot()

    async def replaced(self, old: Collection[str]) -> bool:
        """Whether workers other than `old` answer in each slot and those are gone, within the bounds."""
        answered = await self.answered_by_others_than(old)
        return await self.gone(old) and answered

    async def gone(self, keys: Collection[str], pid: int | None = None) -> bool:
        """Whether these processes, and the master with that pid, are gone within the bound of a graceful end."""
        masters = [process.key for process in self.processes.values() if process.pid == pid]
        return await self._until_ended(lambda: all(self.processes[key].gone for key in (*keys, *masters)))

    def leaving(self, keys: Collection[str]) -> list[str]:
        """Those of these workers that are gone, or that have had their max_requests."""
        most = self.scenario["server"]["max_requests"]
        return [key for key in keys if self.processes[key].gone or 0 < most <= self._served[key]]

    def child_pid(self, slot: int | None) -> int | None:
        """The pid of the newest live child of the worker in `slot`, or of the arbiter: one that is no worker."""
        workers = {process.pid for process in self._live_workers()}
        parent = self.arbiter_pid if slot is None else self.worker_pid(slot)
        below = set() if parent is None else {parent}
        living = containment.descendants(os.getpid())
        # A process that a fork server made is that one's child.
        while found := {stat.pid for stat in living if stat.ppid in below and stat.pid not in workers} - below:
            below |= found
        children = [
            process
            for process in self.processes.values()
            if process.role == "child" and not process.gone and process.pid in below and process.counts
        ]
        return max(children, key=lambda process: process.first).pid if children else None

    async def another_arbiter(self) -> int | None:
        """The pid of a master that was started by the running one, within the boot bound; None where none came."""

        def there() -> list[int]:
            masters = (process for process in self.processes.values() if process.role == "arbiter")
            return [process.pid for process in masters if process.ppid == self.arbiter_pid and not process.gone]

        await self.until(lambda: bool(there()) or self.arbiter_ended, self.launch["bounds"]["boot"], "another arbiter")
        return there()[0] if there() else None

    async def wait(self, seconds: float) -> None:
        """Let so many seconds pass."""
        await asyncio.sleep(seconds)

    async def redis(self, what: str) -> None:
        """`stop`, `start`, `pause` or `resume` the run's own Redis; OSError where that fails."""
        bound = self.launch["bounds"]["broker"]
        try:
            reader, writer = await asyncio.open_unix_connection(os.path.relpath(self.launch["broker_control"]))
            try:
                writer.write(what.encode())
                answer = (await resp.within(reader.readline(), bound)).decode().strip()
            finally:
                writer.close()
        except asyncio.TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"Redis did not {what} within {bound:g} s") from None
        if answer != "ok":
            raise OSError(f"Redis did not {what}: {answer}")

    async def clients(self) -> list[str]:
        """Redis' ids of the server's connections; OSError where it gives no answer."""
        own = str(await self._ask_redis("CLIENT", "ID"))
        lines = str(await self._ask_redis("CLIENT", "LIST")).splitlines()
        found = [dict(word.partition("=")[::2] for word in line.split()).get("id") for line in lines]
        return [client for client in found if client is not None and client != own]

    async def kill_clients(self) -> int:
        """Have Redis close the connections of the server's; how many."""
        found = await self.clients()
        for client in found:
            with contextlib.suppress(OSError):  # it may have gone by itself
                await self._ask_redis("CLIENT", "KILL", "ID", client)
        return len(found)

    async def connected(self, count: int) -> bool:
        """Whether Redis has so many connections of the server's again, within the bound."""
        bound = self.launch["bounds"]["reconnect"]
        budget = Budget(self.gauge, bound)
        while not budget.expired and not self.arbiter_ended:
            with contextlib.suppress(OSError):
                if len(await self.clients()) >= count:
                    return True
            await asyncio.sleep(SAMPLE_EVERY)
        self.record("bound", what="reconnect", seconds=bound, stretch=round(budget.stretch, 2))
        return False

    def follow(self, arbiter: int) -> None:
        """Take that master for the running one."""
        self.arbiter_pid = arbiter

    def end_foreign_child(self, code: int) -> int:
        """Make a child that was there before gunicorn exit with `code`; its pid."""
        path = next(iter(self._foreign), None)
        if path is None:
            raise OSError(errno.ESRCH, "no child was there before gunicorn")
        pid = self._foreign.pop(path)
        # Not to be waited for: opening fails where nobody reads.
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.closing(os.fdopen(pipe, "wb")) as file:
            file.write(f"{code}\n".encode())
        return pid

    async def reaped(self, pid: int) -> bool:
        """Whether a process that has exited was waited for, within the bound."""
        bound = self.launch["bounds"]["answer"]
        return await self.until(lambda: containment.read_stat(pid) is None or self.arbiter_ended, bound, "reaping")

    async def reloaded(self, old: Collection[str]) -> bool:
        """Whether `old` were replaced; then what each process has is recorded, once the arbiter has collected them."""
        if not await self.replaced(old):
            return False

        def collected() -> bool:
            stats = ((self.processes[key], containment.read_stat(self.processes[key].pid)) for key in old)
            return all(stat is None or stat.start != process.start for process, stat in stats)

        if await self.until(collected, self.launch["bounds"]["answer"], "collected"):
            self._reloads += 1
            for _ in range(LOOKS_AFTER_RELOAD):
                self._outside.resources(self._living(), reload=self._reloads)
                await asyncio.sleep(SAMPLE_EVERY)
        return True

    async def thinned_out(self) -> bool:
        """Whether no more workers are alive than there are slots, within the bound of a graceful end."""
        if not await self._until_ended(lambda: len(self._live_workers()) <= len(self.life.slots)):
            return False
        # Which of them had to go is gunicorn's choice.
        left = self.current_workers()
        expected = [slot for slot in self.life.slots if slot in left]
        self.life = replace(self.life, slots=(*expected, *(slot for slot in left if slot not in expected)))
        return True

    async def _until_ended(self, gone: Callable[[], bool]) -> bool:
        """Whether workers that were told to go have gone, within graceful_timeout and a margin."""
        bound = self.scenario["server"]["graceful_timeout"] + self.launch["bounds"]["stop_slack"]
        return await self.until(lambda: gone() or self.arbiter_ended, bound, "end of workers")

    async def ask_every_slot(self) -> bool:
        """Send requests until the current worker of each slot has answered, or the bound has passed."""
        self._answered.clear()

        def all_answered() -> bool:
            workers = self.current_workers()
            return all(slot in workers and workers[slot].key in self._answered for slot in self.life.slots)

        await self._ask(all_answered, self.launch["bounds"]["answer"])
        if self._open_requests:
            await asyncio.wait(self._open_requests)
        return all_answered()

    async def ask_until(self, condition: Callable[[], bool]) -> int | None:
        """Send requests until `condition()`; how many it took, None where the time of max_requests has passed first."""
        before = self._requests
        each = 0.01  # on an idle machine it is 3 ms
        bound = self.launch["bounds"]["answer"] + each * self.scenario["server"]["max_requests"] * len(self.life.slots)
        return self._requests - before if await self._ask(condition, bound) else None

    async def block(self, slot: int, seconds: float) -> None:
        """Send requests until the worker in `slot` has taken one that blocks it; OSError where the bound passed."""
        number = self._requests
        path = f"/block/{number}/{slot}/{seconds:f}"
        if not await self._ask(lambda: number in self._blocked, self.launch["bounds"]["answer"], path):
            raise OSError(errno.ETIMEDOUT, f"the worker in slot {slot} took no request")

    async def _ask(self, condition: Callable[[], bool], bound: float, path: str = "/") -> bool:
        """Send requests, several at once where the scenario says so, until `condition()` or the bound has passed."""
        budget = self._budget(bound)
        at_once = 2 * len(self.life.slots) if self.scenario["surroundings"]["requests"] == "bursts" else 1
        sent: list[asyncio.Task[bool]] = []
        while not condition() and not budget.expired and not self.arbiter_ended:
            # One that had no answer took the whole bound: another one would take it a second time.
            late = bound <= self.launch["bounds"]["answer"] and any(one.done() and not one.result() for one in sent)
            for _ in range(0 if late else at_once - len(self._open_requests)):
                task = asyncio.create_task(self._request(path))
                sent.append(task)
                self._open_requests.add(task)
                task.add_done_callback(self._open_requests.discard)
            if self._open_requests:
                await asyncio.wait(self._open_requests, timeout=SAMPLE_EVERY, return_when=asyncio.FIRST_COMPLETED)
            elif late:
                break
        if not condition() and not self.arbiter_ended:
            self.record("bound", what="answer", seconds=bound, stretch=round(budget.stretch, 2))
        return condition()

    async def _request(self, path: str) -> bool:
        """One request on a connection of its own: invoke, then ok, fail or info; False for the last."""
        if self.address is None:
            await asyncio.sleep(SAMPLE_EVERY)
            return True
        self._requests += 1
        number = self._requests
        self.record("request.invoke", request=number)
        exchange = asyncio.ensure_future(_http_get(*self.address, path))
        budget = self._budget(self.launch["bounds"]["answer"])
        while not exchange.done() and not budget.expired and not self.arbiter_ended:
            await asyncio.wait([exchange], timeout=SAMPLE_EVERY)
        if not exchange.done():
            exchange.cancel()
            await asyncio.wait([exchange])
            self.record("request.info", request=number, error=f"no answer within {budget.spent:.1f} s")
            return False
        try:
            status, body = exchange.result()
            answer = understood(body, self.launch["token"])
            error = "" if status == 200 else f"HTTP status {status}"
        except (OSError, EOFError, ValueError) as failed:
            error = f"{type(failed).__name__}: {failed}"
        if error:
            self.record("request.fail", request=number, error=error)
            # It fails at once, and would be tried thousands of times, each time with a traceback in the log.
            self._failures = min(self._failures + 1, MOST_FAILURES)
            await asyncio.sleep(SAMPLE_EVERY * self._failures)
            return True
        self._failures = 0
        self._answered.add(answer["worker"])
        self._served[answer["worker"]] += 1
        self.record("request.ok", request=number, **answer)
        return True

    # Windows

    async def window(self, index: int, after: str, healed: bool) -> None:
        """Let the server run undisturbed until absence can be told, with messages and requests."""
        needed = self.launch["decisive_turns"]
        await self._new_interpreters_begun()
        if index == 0 and self._with_body(*_SUBSCRIBING, "blpop"):
            with contextlib.suppress(OSError):
                await self._ask_redis("PING")  # else the first message would have to wait for the connection
        self.observe()
        self.sample()
        first_turn, first_control = self.turn, self.gauge.turns
        slots = sorted(self.life.slots)
        self.record("window.open", window=index, after=after, healed=healed, slots=slots, arbiter=self.arbiter_pid)
        before = self._counts()

        def turns() -> int:
            return min(self.turn - first_turn, self.gauge.turns - first_control)

        publishing = asyncio.create_task(self._publish(lambda: turns() < 0.6 * needed))
        tasks: list[asyncio.Task[Any]] = [publishing, asyncio.create_task(self._look(turns, needed))]
        try:
            await self._turns(turns, needed // 3)
            asking = asyncio.create_task(self.ask_every_slot())
            tasks.append(asking)
            await self._turns(turns, needed)
            answered = await asking
            await publishing
        finally:
            for task in tasks:
                task.cancel()
        await self._count_subscriptions()
        self._outside.resources(self._living())
        self.observe()
        self.sample()
        self.record(
            "window.close", window=index, turns=self.turn - first_turn, control=self.gauge.turns - first_control
        )
        if answered:
            await self.collect_stacks(self._standing_still(before))
        else:
            await self.collect_stacks(list(self.processes.values()))

    async def _new_interpreters_begun(self) -> None:
        """Wait for processes that loops were started in as new interpreters: these boot as long as a server, or never.

        Each is waited for once.
        """

        def begun() -> bool:
            return self.arbiter_ended or all(creator.gone for creator in self._expected.values())

        await self.until(begun, self.launch["bounds"]["boot"], "process")
        self._expected.clear()

    async def _turns(self, turns: Callable[[], int], needed: int) -> None:
        # A control that is never run (a frozen machine) must not keep a run for ever.
        latest = time.monotonic() + self.launch["bounds"]["window"]
        while turns() < needed and not self.arbiter_ended and time.monotonic() < latest:
            await asyncio.sleep(SAMPLE_EVERY / 2)

    async def _look(self, turns: Callable[[], int], needed: int) -> None:
        """Look what the processes have, and several times who waits on what, while messages and requests come."""
        living = self._living()
        self._outside.resources(living)
        for look in range(LOOKS):
            await self._turns(turns, needed * look // LOOKS)
            self._outside.waits(living)

    def _counts(self) -> dict[tuple[str, int | None], int]:
        return {
            (process.key, cell): count for process in self.processes.values() for cell, count in process.counts.items()
        }

    def _standing_still(self, before: Mapping[tuple[str, int | None], int]) -> list[_Process]:
        now = self._counts()
        return [
            process
            for process in self.processes.values()
            if any(
                now.get((process.key, cell), 0) == before.get((process.key, cell), 0)
                for cell in process.waiting.values()
            )
        ]

    def _with_body(self, *bodies: str) -> list[str]:
        return [loop["name"] for loop in self.scenario["loops"] if loop["body"] in bodies]

    async def _publish(self, going_on: Callable[[], bool]) -> None:
        hearing = dict.fromkeys(self._with_body(*_SUBSCRIBING), "PUBLISH")
        hearing.update(dict.fromkeys(self._with_body("blpop"), "LPUSH"))
        while hearing and going_on() and not self.arbiter_ended:
            for name, command in hearing.items():
                await self._publish_one(name, command)
            await asyncio.sleep(self.launch["message_gap"])

    async def _publish_one(self, loop: str, command: str) -> None:
        self._messages += 1
        message = f"{loop}-{self._messages}"
        self.record("publish.invoke", message=message, loop=loop)
        try:
            answer = await self._ask_redis(command, self._channel(loop), message)
        except OSError as error:
            self.record("publish.info", message=message, loop=loop, error=str(error))
        else:
            # A list answers with its length, which says nothing of receivers.
            receivers = answer if command == "PUBLISH" and isinstance(answer, int) else None
            self.record("publish.ok", message=message, loop=loop, receivers=receivers)

    async def _count_subscriptions(self) -> None:
        """Ask Redis how many connections have subscribed to each loop's channel."""
        for name in self._with_body(*_SUBSCRIBING):
            self.record("numsub.invoke", loop=name)
            try:
                answer = await self._ask_redis("PUBSUB", "NUMSUB", self._channel(name))
                if not (isinstance(answer, list) and len(answer) == 2 and isinstance(answer[1], int)):
                    raise OSError("its answer to PUBSUB NUMSUB is none")
            except OSError as error:
                self.record("numsub.info", loop=name, error=str(error))
            else:
                self.record("numsub.ok", loop=name, count=answer[1])

    def _channel(self, loop: str) -> str:
        return f"forkproof:{self.launch['token']}:{loop}"

    async def _ask_redis(self, *words: str) -> Any:
        """Redis' reply; OSError, with the error's name in its words, where it gives none."""
        try:
            if self._redis is None:
                redis = self.launch["redis"]
                self._redis = await resp.Client.connect(redis["host"], redis["port"], timeout=5)
            return await self._redis.command(*words)
        except (OSError, EOFError, asyncio.TimeoutError, resp.ReplyError) as error:
            self._redis = None
            raise OSError(f"{type(error).__name__}: {error}") from error

    async def collect_stacks(self, processes: list[_Process]) -> None:
        """Ask processes for their native stacks; of those that cannot hear the signal, what they are in is told."""
        asked: list[tuple[_Process, Path, int]] = []
        waits: dict[str, list[str]] = {}
        for process in processes:
            if process.gone:
                continue
            path = self.folder / "stacks" / f"{process.key}.txt"
            waits[process.key] = proc.blocked(process.pid)
            if not _catches(process.pid, self.launch["stack_signal"]):
                self.record("deaf", target=process.key, waits=waits[process.key])
            else:
                size = _length(path)
                with contextlib.suppress(OSError):
                    os.kill(process.pid, self.launch["stack_signal"])
                    asked.append((process, path, size))
        if asked:
            await self.until(lambda: all(_length(path) > size for _, path, size in asked), 0.5, "stacks")
        for process, path, size in asked:
            if _length(path) > size:
                try:
                    threads = _frames(files.end_of(path, LONGEST_STACKS, size).decode(errors="replace"))
                except OSError:  # it is a link, or a pipe
                    continue
                self.record(
                    "stack",
                    target=process.key,
                    file=f"stacks/{path.name}",
                    waits=waits[process.key],
                    threads=threads,
                )

    # The course of a run

    async def run(self) -> None:
        """Boot, windows and faults in turn, and the end."""
        os.chdir(self.folder / "work")
        self._spawn()
        try:
            healed = await self.all_slots_answered()
            self._look_at_server()
            if self.arbiter_ended and not healed:
                return
            self._find_foreign_children()
            await self.window(0, "boot", healed)
            await self.ask_arbiter()
            for index, fault in enumerate(self.scenario["faults"]):
                if self.arbiter_ended:
                    self.record(
                        "fault.fail", fault=fault["fault"], index=index, error="the arbiter had ended before it"
                    )
                    return
                if not healed and not REGISTRY[fault["fault"]].ends_the_run:
                    error = "the server had not come through what was before it"
                    self.record("fault.fail", fault=fault["fault"], index=index, error=error)
                    continue
                try:
                    healed = await self._fault(index, fault)
                except Defect as defect:
                    healed = False
                    self.record("plugin.defect", plugin=f"the fault {fault['fault']!r}", error=str(defect))
        finally:
            self._finish()
            await self._forget()

    def _look_at_server(self) -> None:
        """Tell what a server of another package has not done for this to be a run of it."""
        plugin = self.launch.get("server_plugin")
        masters = {process.pid for process in self.processes.values() if process.role == "arbiter"}
        if plugin is None or self.arbiter_pid in masters:
            return
        if masters:
            error = f"process {min(masters)} has read the configuration file, and not the one that its command started"
        else:
            error = "no process of it has read the configuration file"
        self.record("plugin.defect", plugin=plugin, error=error)

    async def _fault(self, index: int, fault: Mapping[str, Any]) -> bool:
        """Inject a fault once its anchor was seen, heal it, look; whether the server came through."""
        kind = REGISTRY[fault["fault"]]
        if not await self._anchor(fault["after"]):
            self.record("fault.fail", fault=kind.name, index=index, error=f"never saw {fault['after']['event']!r}")
            return True
        await asyncio.sleep(fault["after"]["delay"])
        self.record("fault.invoke", fault=kind.name, index=index)
        families = self._families()
        before, self.life = self.life, kind.effect(self.life, fault)
        try:
            facts = await kind.inject(self, fault)
        except OSError as error:
            self.life = before
            self.record("fault.fail", fault=kind.name, index=index, error=str(error))
            return True
        self.record("fault.ok", fault=kind.name, index=index, **facts)
        undone = await kind.heal(self, fault, facts)
        if undone:
            self.record("fault.heal", fault=kind.name, index=index, **undone)
        if kind.ends_the_run:
            await self._stop(kind.orphans_workers)
            return True
        healed = await kind.healed(self, fault, facts)
        self.record("fault.healed", fault=kind.name, index=index, healed=healed)
        await self._look_for_orphans(index, families)
        await self.window(index + 1, kind.label, healed)
        await self.ask_arbiter()
        return healed

    def _families(self) -> dict[tuple[int, int], list[containment.Stat]]:
        """What lives below each process of the server, by pid and start time."""
        living = self._living()
        children: dict[int, list[containment.Stat]] = {}
        for stat in living:
            children.setdefault(stat.ppid, []).append(stat)
        families = {}
        for stat in living:
            below = list(children.get(stat.pid, ()))
            for one in below:
                below += children.get(one.pid, ())
            families[stat.pid, stat.start] = below
        return families

    async def _look_for_orphans(self, index: int, families: Mapping[tuple[int, int], list[containment.Stat]]) -> None:
        """Wait until what lived below processes that a fault has ended is gone too, or the bound has passed."""
        living = {(stat.pid, stat.start) for stat in self._living()}
        ended = [key for key in families if key not in living]
        below = {
            (stat.pid, stat.start): stat for key in ended for stat in families[key] if (stat.pid, stat.start) != key
        }
        if not below:
            return
        begun = time.monotonic()

        def left() -> list[containment.Stat]:
            now = {(stat.pid, stat.start) for stat in self._living()}
            return [stat for key, stat in below.items() if key in now]

        if left():
            await self.until(lambda: not left(), self.launch["bounds"]["orphans"], "orphans")
        self.record(
            "orphans",
            index=index,
            ended=[f"{pid}-{start}" for pid, start in ended],
            below=[f"{pid}-{start}" for pid, start in below],
            left=[self._told(stat) for stat in left()],
            seconds=round(time.monotonic() - begun, 3),
        )

    def _told(self, stat: containment.Stat) -> dict[str, Any]:
        return {"pid": stat.pid, "start": stat.start, "command": containment.command_of(stat.pid)}

    async def ask_arbiter(self) -> None:
        """Send the arbiter a signal that changes nothing, and see in its log that it has acted on it.

        Between two windows, as it wakes the arbiter. Once it has not acted it is not asked again.
        """
        if self.arbiter_ended or self._arbiter_silent:
            return
        self._signals += 1
        number, heard = self._signals, self._heard
        if self._log_lines >= MAX_LOG_LINES:
            self.record("signal.info", number=number, signal="winch", error="the log was cut")
            return
        bound = self.scenario["server"]["graceful_timeout"] + self.launch["bounds"]["answer"]
        self.record("signal.invoke", number=number, signal="winch", target=self.arbiter_pid)
        begun = time.monotonic()
        try:
            os.kill(self.arbiter_pid, signal.SIGWINCH)
        except OSError as error:
            self.record("signal.info", number=number, signal="winch", error=str(error))
            return
        if await self.until(lambda: self._heard > heard or self.arbiter_ended, bound, "signal"):
            if self._heard > heard:
                self.record("signal.ok", number=number, signal="winch", seconds=round(time.monotonic() - begun, 3))
            else:
                self.record("signal.info", number=number, signal="winch", error="the arbiter ended")
            return
        self._arbiter_silent = True
        self.record("signal.fail", number=number, signal="winch", error=f"it did not act on it within {bound:.1f} s")
        arbiters = [process for process in self.processes.values() if process.pid == self.arbiter_pid]
        await self.collect_stacks(arbiters)

    async def _anchor(self, after: Mapping[str, Any]) -> bool:
        bound = self.launch["bounds"]["answer"]
        if after["event"] == "request":
            return await self.ask_every_slot()
        if after["event"] == "tick":
            before = self._count_in(after["slot"])

            def ticked() -> bool:
                return self._count_in(after["slot"]) > before

            # Who waits for messages ticks by them alone.
            over = False
            publishing = asyncio.create_task(self._publish(lambda: not over and not ticked()))
            try:
                return await self.until(ticked, bound, "tick")
            finally:
                over = True
                await publishing
        return True

    def _count_in(self, slot: int | None) -> int:
        slots = {process.pid: process.slot for process in self._live_workers()}
        return sum(
            sum(process.counts.values())
            for process in self.processes.values()
            if slot is None or slot in (process.slot, slots.get(process.ppid))
        )

    def _living(self) -> list[containment.Stat]:
        """What lives of the server; its foreign children are ours to end."""
        foreign = self._foreign.values()
        return [stat for stat in containment.descendants(os.getpid()) if stat.pid not in foreign]

    async def _stop(self, orphans: bool) -> None:
        """Wait until everything is gone; orphaned workers look for their parent every timeout / 2 or each second."""
        begun = time.monotonic()
        server = self.scenario["server"]
        bound = server["graceful_timeout"] + self.launch["bounds"]["stop_slack"]
        if orphans:
            bound += max(1.0, server["timeout"] / 2)

        def ended() -> bool:
            return self.arbiter_ended and not self._living()

        # The arbiter kills what still hangs at graceful_timeout, and with it the stacks that tell why.
        late = server["graceful_timeout"] / 2
        await self.until(lambda: ended() or time.monotonic() - begun >= late, bound, "stop")
        if not ended():
            await self.collect_stacks(list(self.processes.values()))
        if await self.until(ended, bound - late, "stop"):
            self.record("stopped", seconds=round(time.monotonic() - begun, 3))
            return
        living = self._living()
        self.record(
            "left",
            processes=[
                {"pid": stat.pid, "start": stat.start, "command": containment.command_of(stat.pid)} for stat in living
            ],
        )
        pids = {stat.pid for stat in living}
        await self.collect_stacks([process for process in self.processes.values() if process.pid in pids])

    def _finish(self) -> None:
        self.observe()
        self.sample()
        if not self.over_limit:  # a short run may end between two looks
            self._within_limits(at_last=True)
        killed = containment.kill_descendants()
        self.record("killed", processes=[{"pid": stat.pid, "start": stat.start} for stat in killed])
        own, servers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        self.record(
            "usage",
            supervisor=round(own.ru_utime + own.ru_stime, 3),
            server=round(servers.ru_utime + servers.ru_stime, 3),
        )
        self.observe()

    async def _forget(self) -> None:
        """Leave nothing in Redis: what nobody took off a list, and what guards held."""
        keys = [self._channel(name) for name in self._with_body("blpop")]
        keys += [f"{self._channel(loop['name'])}:guard" for loop in self.scenario["loops"] if loop["guard"] != "none"]
        if keys:
            with contextlib.suppress(OSError):
                await self._ask_redis("DEL", *keys)

    def _find_foreign_children(self) -> None:
        for stat in containment.all_processes():
            if stat.ppid == self.arbiter_pid:
                path = Path(containment.command_of(stat.pid).rpartition(" ")[2])
                if path in self._foreign:
                    self._foreign[path] = stat.pid

    def _spawn(self) -> None:
        command: list[str] = self.launch["command"]
        log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        environment: dict[str, str] = self.launch["environment"]
        children = [word for words in self.launch.get("children", ()) for word in words]
        said = [os.getcwd(), str(len(children) // 3), *children]
        said += [f"{name}={value}" for name, value in environment.items()]
        forked = None if self._nest is None else _forked(self._nest, ["server", *said], null, log)
        self.arbiter_pid = forked or os.posix_spawn(
            command[0],
            command,
            environment,
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
        )
        os.close(log)
        os.close(null)
        self._foreign = dict.fromkeys((self.folder / name for name in self.launch["foreign"]), 0)
        alone, warm = os.getpid() == 1, forked is not None
        self.record("launch", command=command, arbiter=self.arbiter_pid, namespace=alone, warm=warm)

    @contextlib.asynccontextmanager
    async def watching(self, abandon: Callable[[], object]) -> AsyncIterator[None]:
        """Watch the history folder, child exits and the clock; `abandon` ends a run that takes too much."""
        loop = asyncio.get_running_loop()
        watch = self._watch = _Watch(self._histories)
        loop.add_reader(watch.descriptor, self._woken, watch)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        sampling = asyncio.create_task(self._sampling())
        sampling.add_done_callback(lambda task: abandon())
        try:
            yield
        finally:
            sampling.cancel()
            loop.remove_reader(watch.descriptor)
            self._watch = None
            watch.close()
            # What ended the sampling ended the run: without it nothing is seen.
            with contextlib.suppress(asyncio.CancelledError):
                await sampling

    def _woken(self, watch: _Watch) -> None:
        watch.read()
        self.observe()


def _forked(nest: int, words: Sequence[str], null: int, log: int) -> int | None:
    """Have a nest fork the server into the namespaces that this process has begun, as its child: the pid.

    None where it cannot, or has not within its time: then none is there, and none comes later.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(NEST_SECONDS)
    namespaces = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("pid", "mnt")]
    try:
        with ours, theirs, socket.socket(fileno=nest) as line:
            socket.send_fds(line, [os.fsencode("\0".join(words))], [theirs.fileno(), null, log, *namespaces])
            theirs.close()  # else the nest's end would not be seen
            pid, orphaned = ours.recv(16), ours.recv(1)
            if not (pid and orphaned):
                return None
            ours.sendall(orphaned)
            return int(pid)
    except OSError:
        return None
    finally:
        for descriptor in namespaces:
            os.close(descriptor)


def understood(body: bytes, token: str) -> dict[str, Any]:
    """What a worker answered; ValueError where that is no answer of this run's payload."""
    try:
        answer = json.loads(body)
        if answer["token"] != token:
            raise ValueError("the answer lacks this run's token")
        slot = answer["slot"]
        return {
            "slot": None if slot is None else _whole(slot),
            "worker": _text(answer["worker"]),
            "loops": [
                {
                    "loop": _text(loop["loop"]),
                    "birth": _text(loop["birth"]),
                    "alive": None if loop["alive"] is None else bool(loop["alive"]),
                    "copied": bool(loop["copied"]),
                }
                for loop in answer["loops"]
            ],
            "threads": [
                {"name": str(thread["name"]), "class": str(thread["class"]), "alive": bool(thread["alive"])}
                for thread in answer["threads"]
            ],
        }
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"the answer is none of this run's: {type(error).__name__}: {error}") from None


def _whole(value: object, most: int = 2**63 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"is no whole number from 0 to {most}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value


class _Cells:
    """A process's tick counters, as it maps them; OSError or ValueError where there are none."""

    def __init__(self, path: Path) -> None:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        self._file = os.fdopen(opened, "rb")
        try:
            self._size = min(os.fstat(opened).st_size, _MOST_CELLS * 8) // 8 * 8
            if not self._size:
                raise ValueError("it has no cells")
            cells = mmap.mmap(opened, self._size, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            self._file.close()
            raise
        self._cells = memoryview(cells).cast("Q")

    @property
    def whole(self) -> bool:
        """Whether all of it is there: to read where the server has cut it would end this process (SIGBUS)."""
        return os.fstat(self._file.fileno()).st_size >= self._size

    def __getitem__(self, cell: int) -> int:
        """A count, 0 where there is no such cell; a history has no number beyond 63 bits."""
        return min(self._cells[cell], 2**63 - 1) if cell < len(self._cells) else 0

    def close(self) -> None:
        self._file.close()


def _frames(text: str) -> list[list[str]]:
    """The innermost frames of each thread that faulthandler wrote of: `file:line in function`, the innermost first."""
    threads: list[list[str]] = []
    for line in text.splitlines():
        if frame := _FRAME.match(line):
            if threads and len(threads[-1]) < FRAMES:
                threads[-1].append("{}:{} in {}".format(*frame.groups()))
        elif line.endswith("(most recent call first):"):
            threads.append([])
    return threads[:FRAMES]


class _Tail:
    """Whole new lines of a growing file; of one that is too long, its beginning."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._rest = b""
        self._plain = True

    def lines(self) -> list[bytes]:
        if self._descriptor is None:
            try:
                # A server's doing may be a link or a pipe, which has no end or makes one wait.
                opened = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                return []
            self._descriptor = opened
            self._plain = S_ISREG(os.fstat(opened).st_mode)
        if not self._plain:
            return []
        data = os.read(self._descriptor, 1 << 20)
        if not data:
            return []
        *whole, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:LONGEST_LINE]
        return whole

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _size_of(folder: Path) -> int:
    """Bytes that a folder takes on disk, with what is below it."""
    size, todo = 0, [str(folder)]  # not recursively: how deep folders lie is the server's to say
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
    return size


def _length(path: Path | str) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


class _Watch:
    """Tells of new files in a folder, and of what is written to some of them: not to our own, which we know of."""

    def __init__(self, folder: str) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = int(self._libc.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK))
        if self.descriptor < 0 or not self._add(folder, _IN_CREATE):
            number = ctypes.get_errno()
            raise OSError(number, f"cannot watch {folder}: {os.strerror(number)}")

    def _add(self, path: str, events: int) -> bool:
        return bool(self._libc.inotify_add_watch(self.descriptor, os.fsencode(path), events) >= 0)

    def file(self, path: str) -> None:
        """Tell of what is written to it; where that cannot be, it is found when the next sample is taken."""
        self._add(path, _IN_MODIFY)

    def read(self) -> None:
        """Take what was told."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 65536)

    def close(self) -> None:
        """Watch no more."""
        os.close(self.descriptor)


def _catches(pid: int, number: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    except OSError:
        pass
    return False


async def _http_get(host: str, port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: forkproof\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        answer = await reader.read(1 << 20)
        while chunk := await reader.read(1 << 20):
            answer += chunk
            if len(answer) > LONGEST_ANSWER:
                raise ValueError(f"the answer is longer than {LONGEST_ANSWER} bytes")
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        raise EOFError("the connection was closed without an answer")
    status = head.split(b" ", 2)[1:2]
    if not status:
        raise ValueError(f"the answer is not HTTP: {head[:60]!r}")
    return int(status[0]), body


async def _supervise(folder: Path, lifeline: int, host: int, kind: type[Supervisor], nest: int | None) -> None:
    supervisor = kind(folder, host, nest)
    loop = asyncio.get_running_loop()
    course = asyncio.create_task(supervisor.run())

    def abandon() -> None:
        loop.remove_reader(lifeline)
        # Said until it is heard: before 3.12 wait_for may swallow it, https://github.com/python/cpython/issues/86296
        if not course.done():
            course.cancel()
            loop.call_later(SAMPLE_EVERY, abandon)

    async with supervisor.watching(abandon):
        loop.add_reader(lifeline, abandon)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, abandon)
        try:
            await course
        except asyncio.CancelledError:
            if not supervisor.over_limit:  # then it ended as a run does, and is judged
                raise


def main(folder: str, lifeline: int, host: int, kind: type[Supervisor] = Supervisor, nest: int | None = None) -> None:
    """Run what `folder` says; `lifeline` is a descriptor whose end of file means that nobody waits any more.

    `host` is one of the /proc of the namespace that Redis is in; at `nest` a server may be asked for.
    """
    containment.become_subreaper()
    try:
        asyncio.run(_supervise(Path(folder), lifeline, host, kind, nest))
    except asyncio.CancelledError:
        sys.exit(1)
    except OSError as error:
        containment.kill_descendants()
        with contextlib.suppress(OSError):
            os.write(2, f"{error}\n".encode())
        # Not sys.exit: flushing to a full disk would change the code.
        os._exit(error.errno if error.errno in NO_ROOM else 1)
    finally:
        containment.kill_descendants()
