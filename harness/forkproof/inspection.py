"""A gunicorn that runs, looked at from outside alone: what /proc tells of its processes, and a Redis that is named.

Nothing is done to a process: no signal, no attaching, no descriptor taken. A worker is told by the file that gunicorn
keeps for its heartbeat: master and worker alone have it open, and only while the worker lives.

Does not see: greenlets; which lock a thread waits for; who waits where the kernel tells only a process's owner or root
(ptrace(2), "access mode checking"). Slots are counted by the workers' age: which one was replaced cannot be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pwd
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from forkproof import proc, subscriptions
from forkproof.containment import Stat, all_processes, command_of, descendants, read_stat
from forkproof.errors import BrokerError, CouldNotDecide, UsageError
from forkproof.resp import ReplyError

SAMPLE_SECONDS = 0.02
_REDIS_SECONDS = 3.0
_HEARTBEAT = re.compile(r"/wgunicorn-[^/]+ \(deleted\)$")


@dataclass(frozen=True)
class Thread:
    """One thread as it was seen last.

    `call` is the system call that it is in, `target` what that call's descriptor leads to, `on` the inodes of the
    sockets that it was seen waiting on at any time.
    """

    tid: int
    name: str
    state: str
    wchan: str
    call: str
    target: str | None = None
    on: tuple[int, ...] = ()


@dataclass(frozen=True)
class Process:
    """One process of the server; `place` is where in the server it is, and `blind` why its waits are not seen."""

    pid: int
    parent: int
    role: str
    slot: int | None
    place: str
    threads: tuple[Thread, ...]
    blind: str | None = None


@dataclass(frozen=True)
class Connection:
    """A connected socket: the processes that have it open, and those seen waiting on it.

    `subscriptions` is what Redis counts for it, None where it is none of that Redis' or none was named.
    """

    inode: int
    family: str
    local: str
    peer: str
    held_by: tuple[int, ...]
    waited_on_by: tuple[int, ...]
    subscriptions: int | None = None

    @property
    def contested(self) -> bool:
        """Whether several processes wait on it: what comes then reaches one of them by chance."""
        return len(self.waited_on_by) > 1


@dataclass(frozen=True)
class Inspection:
    """What was seen. `channels` counts the subscribers of each channel of the Redis that was named."""

    master: int
    command: str
    seconds: float
    processes: tuple[Process, ...]
    connections: tuple[Connection, ...]
    redis: str | None = None
    channels: dict[str, int] | None = None

    @property
    def contested(self) -> list[Connection]:
        """The connections on which several processes wait."""
        return [one for one in self.connections if one.contested]

    @property
    def unheard(self) -> list[Connection]:
        """Connections with subscriptions on which nobody was seen waiting, though all who have them were looked at."""
        blind = {process.pid for process in self.processes if process.blind}
        return [
            one for one in self.connections
            if one.subscriptions and not one.waited_on_by and not blind & set(one.held_by)
        ]  # fmt: skip

    @property
    def exit_code(self) -> int:
        """1 where several processes wait on one connection, 3 where that could not be told of some process, else 0."""
        return 1 if self.contested else 3 if any(process.blind for process in self.processes) else 0

    def place(self, pid: int) -> str:
        """Where process `pid` is, in words."""
        return next(process.place for process in self.processes if process.pid == pid)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, schema 1."""
        return {
            "schema": 1,
            **asdict(self),
            "contested": [one.inode for one in self.contested],
            "unheard": [one.inode for one in self.unheard],
        }


def inspect(pid: int, *, seconds: float = 1.0, redis: str | None = None) -> Inspection:
    """Look at the gunicorn master `pid` for so long.

    Raises UsageError where it is none, with the one that it belongs to; CouldNotDecide where this user may not look;
    BrokerError where that Redis does not answer.
    """
    address = _parse_redis(redis) if redis is not None else None
    master = _require_master(pid)
    members = _members(master)
    on, blind = _watch([one.stat.pid for one in members], seconds)
    subscribed, channels = _ask(*address) if address else ({}, None)
    held = _held(members, blind)
    sockets = proc.listed({inode: next(iter(pids)) for inode, pids in held.items()})
    processes = [_process(one, on, blind) for one in members]
    now = read_stat(pid)
    if now is None or now.start != master.start:
        raise UsageError(f"{pid}: the master ended while it was looked at. Look at the one that runs now.")
    return Inspection(
        pid, command_of(pid), seconds, tuple(processes),
        tuple(_connections(held, sockets, on, subscribed)), redis, channels,
    )  # fmt: skip


# --- which processes


def _require_master(pid: int) -> Stat:
    """The process, if it is the master of a gunicorn that one may look at."""
    stat = read_stat(pid)
    if stat is None:
        raise UsageError(f"{pid}: there is no such process. {_others()}")
    if stat.state == "Z":
        raise UsageError(f"{pid}: that process has ended. {_others()}")
    try:
        _heartbeats(pid)
    except PermissionError:
        owner = _user(os.stat(f"/proc/{pid}").st_uid)
        raise CouldNotDecide(
            f"{pid}: the kernel does not let user {_user(os.geteuid())} look into this process, which belongs to"
            f" {owner}. Run forkproof as its user, in the same container, or as root with CAP_SYS_PTRACE."
        ) from None
    except FileNotFoundError:
        raise UsageError(f"{pid}: that process has just ended. {_others()}") from None
    if _is_master(stat):
        return stat
    for one in _ancestors(stat):
        if _is_master(one):
            raise UsageError(f"{pid}: belongs to the gunicorn whose master is {one.pid}. {_type(one.pid)}")
    for one in descendants(pid):
        if _is_master(one):
            raise UsageError(f"{pid}: is no gunicorn master; {one.pid}, below it, is. {_type(one.pid)}")
    raise UsageError(f"{pid}: is no gunicorn master ({command_of(pid) or 'a thread of the kernel'}). {_others()}")


def _type(pid: int) -> str:
    return f"Type `forkproof inspect {pid}`."


def _others() -> str:
    masters = [one.pid for one in all_processes() if _is_master(one)]
    if not masters:
        return "No gunicorn master can be seen here."
    return f"Gunicorn masters here: {', '.join(map(str, sorted(masters)))}."


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _ancestors(stat: Stat) -> list[Stat]:
    """The processes above one, its parent first."""
    found = []
    while (above := read_stat(stat.ppid)) is not None:
        found.append(above)
        stat = above
    return found


def _is_master(stat: Stat) -> bool:
    """Whether it has heartbeat files that are not its parent's, which a new master after USR2 has too."""
    mine = _visible_heartbeats(stat.pid)
    return not mine & _visible_heartbeats(stat.ppid) if mine else _has_no_worker(stat)


def _has_no_worker(stat: Stat) -> bool:
    """Whether it is a master by its command, before its first worker or after its last."""
    if not _is_called_gunicorn(stat.pid) or _is_called_gunicorn(stat.ppid):
        return False
    return not any(_visible_heartbeats(one.pid) for one in (*_ancestors(stat), *descendants(stat.pid)))


def _is_called_gunicorn(pid: int) -> bool:
    try:
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    words = {os.path.basename(word) for word in command_of(pid).split()}
    return os.path.basename(program).startswith(("python", "pypy")) and bool(words & {"gunicorn", "gunicorn:"})


def _visible_heartbeats(pid: int) -> set[str]:
    try:
        return _heartbeats(pid)
    except OSError:
        return set()


def _heartbeats(pid: int) -> set[str]:
    """The heartbeat files that a process has open."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:  # closed since it was listed
            continue
        if _HEARTBEAT.search(target):
            found.add(target)
    return found


@dataclass(frozen=True)
class _Member:
    stat: Stat
    role: str
    slot: int | None
    place: str


def _members(master: Stat) -> list[_Member]:
    """The master, its workers by age, and whatever lives below them."""
    kept = _heartbeats(master.pid)
    below = sorted(descendants(master.pid), key=lambda stat: (stat.start, stat.pid))
    members = [_Member(master, "arbiter", None, "arbiter")]
    owned: set[str] = set()
    slots = itertools.count()
    for stat in below:
        mine: set[str] = set()
        if stat.ppid == master.pid:
            with contextlib.suppress(OSError):
                mine = _heartbeats(stat.pid) & kept
        # A process that the master forks later has the files of its workers too, and none of its own.
        if mine - owned:
            owned |= mine
            slot = next(slots)
            members.append(_Member(stat, "worker", slot, f"worker {slot}"))
    told = {one.stat.pid: one.place for one in members}
    for stat in below:
        if stat.pid not in told:
            told[stat.pid] = f"child of {told.get(stat.ppid, 'arbiter')}"
            members.append(_Member(stat, "child", None, told[stat.pid]))
    return members


# --- what they do

_Waits = dict[tuple[int, int], set[int]]
"""The inodes of the sockets that each task was seen waiting on, by process and task."""


def _watch(pids: Sequence[int], seconds: float) -> tuple[_Waits, dict[int, str]]:
    """Look again and again who waits on what; for processes of which the kernel does not tell, why."""
    on: _Waits = {}
    blind: dict[int, str] = {}
    until = time.monotonic() + seconds
    while True:
        for pid in pids:
            try:
                for tid, inodes in proc.waits(pid).items():
                    on.setdefault((pid, tid), set()).update(inodes)
            except (FileNotFoundError, ProcessLookupError):
                continue
            except (PermissionError, NotImplementedError) as error:
                blind[pid] = _why(error)
        if time.monotonic() >= until:
            return on, blind
        time.sleep(SAMPLE_SECONDS)


def _why(error: Exception) -> str:
    if not isinstance(error, PermissionError):
        return str(error)
    return "the kernel does not let this user see what it waits on: run forkproof as root"


def _held(members: Iterable[_Member], blind: dict[int, str]) -> dict[int, dict[int, int]]:
    """Which processes have each socket open, and under which descriptor."""
    held: dict[int, dict[int, int]] = {}
    for one in members:
        pid = one.stat.pid
        try:
            sockets = proc.resources(pid).sockets
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError as error:
            blind[pid] = _why(error)
            continue
        for descriptor, inode in sockets.items():
            held.setdefault(inode, {})[pid] = descriptor
    return held


def _process(one: _Member, on: _Waits, blind: Mapping[int, str]) -> Process:
    pid = one.stat.pid
    threads = []
    for name in _tasks(pid):
        try:
            threads.append(_thread(pid, int(name), on.get((pid, int(name)), set())))
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
    return Process(pid, one.stat.ppid, one.role, one.slot, one.place, tuple(threads), blind.get(pid))


def _tasks(pid: int) -> list[str]:
    try:
        return sorted(os.listdir(f"/proc/{pid}/task"), key=int)
    except FileNotFoundError:
        return []


def _thread(pid: int, tid: int, on: set[int]) -> Thread:
    task = proc.activity(pid, tid)
    target = None
    if task.descriptor is not None:
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{task.descriptor}")
    return Thread(tid, task.name, task.state, task.wchan, task.call, target, tuple(sorted(on)))


def _connections(
    held: Mapping[int, Mapping[int, int]],
    sockets: Mapping[int, proc.Socket],
    on: _Waits,
    subscribed: Mapping[str, int],
) -> Iterator[Connection]:
    for inode, one in sorted(sockets.items()):
        if one.state == "connected":
            waiting = {pid for (pid, _), inodes in on.items() if inode in inodes}
            yield Connection(
                inode, one.family, one.local, one.peer, tuple(sorted(held[inode])), tuple(sorted(waiting)),
                subscribed.get(one.local),
            )  # fmt: skip


# --- Redis


def _parse_redis(url: str) -> tuple[str, int]:
    address = subscriptions.parse(url)
    if address is None:
        shown = url.rpartition("@")[2]  # A password has no place in a CI log.
        raise UsageError(f"--redis {shown!r} is not allowed: give redis://host[:port], without user or password")
    return address


def _ask(host: str, port: int) -> subscriptions.Subscriptions:
    try:
        return asyncio.run(subscriptions.ask(host, port, seconds=_REDIS_SECONDS))
    except (OSError, asyncio.TimeoutError, ReplyError) as error:
        told = str(error) or "no answer"
        raise BrokerError(
            f"--redis redis://{host}:{port}: {told}. Name one that answers CLIENT LIST without a password, or leave"
            " it out: the rest needs no Redis."
        ) from None
