"""Histories written tersely, for checks that are judged on a few events.

The server is arbiter 100 and workers 110, 111, ... in slots 0, 1, ...; window 0 is open from 1 s to 2 s after the
launch, window 1 from 3 s to 4 s. A birth id is any hexadecimal word; its number is the cell that it ticks in.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from forkproof.claims import REGISTRY
from forkproof.history import Event, History
from forkproof.scenario import Scenario, from_dict
from forkproof.verdict import Finding

Events = list[Event]

ARBITER = 100
WORKER = 110
SUPERVISOR = 90
OPENED = {0: 1.0, 1: 3.0}
ENOUGH = 50
"""Turns of the control process that make a window decisive."""

_order = itertools.count()


def key(pid: int) -> str:
    return f"{pid}-{pid}"


def event(t: float, pid: int, name: str, /, **fields: Any) -> Event:
    return Event(t, pid, pid, name, fields)


def seen(t: float, name: str, /, **fields: Any) -> Events:
    """An event of the supervisor's."""
    return [event(t, SUPERVISOR, name, **fields)]


def scenario(loop: dict[str, Any] | None = None, *, loops: Iterable[dict[str, Any]] = (), **rest: Any) -> Scenario:
    """One loop `listen` that differs from the default in `loop`; more in `loops`; `server` and `faults` as in JSON."""
    return from_dict({"loops": [{"name": "listen", **(loop or {})}, *loops], **rest})


def history(*groups: Events) -> History:
    return History(event for group in groups for event in group)


def judged(claim: str, scenario: Scenario, *groups: Events) -> Finding:
    """The one finding of a claim; for the loop `listen` where it has several."""
    findings = REGISTRY[claim].check(scenario, history(*groups))
    return findings[0]


def process(pid: int, role: str | None = None, slot: int | None = None, *, ppid: int = 1, t: float = 0.1) -> Events:
    events = [event(t, pid, "process", ppid=ppid, python="3.11.0")]
    return events + ([event(t, pid, "role", role=role, slot=slot)] if role else [])


def arbiter() -> Events:
    return seen(0.0, "launch", command=["gunicorn"], arbiter=ARBITER, namespace=False) + process(ARBITER, "arbiter")


def worker(slot: int = 0, *, pid: int | None = None, t: float = 0.2) -> Events:
    return process(pid or WORKER + slot, "worker", slot, ppid=ARBITER, t=t)


def server(workers: int = 1) -> Events:
    """The arbiter and its workers."""
    return arbiter() + [event for slot in range(workers) for event in worker(slot)]


def gone(pid: int, t: float) -> Events:
    return seen(t, "sample", turn=0, control=0, ticks={}, gone=[key(pid)])


def window(index: int = 0, *, control: int = ENOUGH, after: str = "boot", healed: bool = True) -> Events:
    opened = OPENED[index]
    return seen(opened, "window.open", window=index, after=after, healed=healed) + seen(
        opened + 1, "window.close", window=index, turns=control, control=control
    )


def created(birth: str, pid: int, *, t: float = 0.5, loop: str = "listen", kind: str = "thread") -> Events:
    return [event(t, pid, "loop.created", loop=loop, birth=birth, kind=kind, site="app_import")]


def begin(birth: str, pid: int, *, t: float = 0.6, loop: str = "listen") -> Events:
    return [event(t, pid, "loop.begin", loop=loop, birth=birth, cell=int(birth, 16), tid=1, thread="Thread")]


def sample(t: float, pid: int, **counts: int) -> Events:
    """Tick counters as read at `t`: what each birth has come to."""
    ticks = {key(pid): {str(int(birth, 16)): count for birth, count in counts.items()}}
    return seen(t, "sample", turn=0, control=0, ticks=ticks, gone=[])


def ran(birth: str, pid: int, w0: int = 50, w1: int = 0, *, loop: str = "listen") -> Events:
    """The loop begins in a process, and ticks so many times in each window."""
    counts = {1.9: w0} if w0 else {}
    if w1:
        counts[3.9] = w0 + w1
    return begin(birth, pid, loop=loop) + [one for t, n in counts.items() for one in sample(t, pid, **{birth: n})]


def ended(birth: str, pid: int, t: float, *, error: str | None = None, loop: str = "listen") -> Events:
    return [event(t, pid, "loop.end", loop=loop, birth=birth, error=error)]


def request(t: float = 1.5, *, slot: int = 0, pid: int | None = None, **alive: bool | None) -> Events:
    """An answer of a worker; `alive` is what each birth's handle said there."""
    loops = [{"birth": birth, "loop": "listen", "alive": answer} for birth, answer in alive.items()]
    number = next(_order)
    return seen(t, "request.ok", request=number, slot=slot, worker=key(pid or WORKER + slot), loops=loops, threads=[])


def published(t: float, message: str, *, loop: str = "listen", receivers: int = 1) -> Events:
    return seen(t, "publish.ok", message=message, loop=loop, receivers=receivers)


def subscribed(birth: str, pid: int, t: float = 0.7) -> Events:
    return [event(t, pid, "loop.subscribed", loop="listen", birth=birth)]


def handled(t: float, message: str, birth: str, pid: int) -> Events:
    return [event(t, pid, "handled", loop="listen", birth=birth, message=message)]


def hook(name: str, pid: int, t: float = 0.4) -> Events:
    return [event(t, pid, "hook", name=name)]


def log(t: float, line: str) -> Events:
    return seen(t, "log", line=line, stream="stderr")


def fault(kind: str, t: float, **facts: Any) -> Events:
    return seen(t, "fault.ok", fault=kind, index=0, **facts)


def exited(pid: int, t: float, status: int) -> Events:
    return seen(t, "exit", child=pid, status=status)


def numsub(count: int, t: float = 1.95, *, loop: str = "listen") -> Events:
    """What Redis counts of subscriptions."""
    return seen(t, "numsub.ok", loop=loop, count=count)


def connection(inode: int, *, state: str = "connected", t: float = 1.1) -> Events:
    ends = {"local": "127.0.0.1:40000", "peer": "127.0.0.1:6379"}
    return seen(t, "socket", inode=inode, family="tcp", state=state, **ends)


def has(pid: int, *inodes: int, t: float = 1.95, fds: int = 12, threads: int = 1, reload: int | None = None) -> Events:
    """What a process was seen to have, from outside."""
    sockets = {str(7 + n): inode for n, inode in enumerate(inodes)}
    more = {} if reload is None else {"reload": reload}
    return seen(t, "resources", target=key(pid), fds=fds, threads=threads, sockets=sockets, **more)


def look(on: dict[int, list[int]], t: float = 1.5, *, blind: dict[int, str] | None = None) -> Events:
    """On which sockets the main task of each process was blocked."""
    tasks = {key(pid): {str(pid): inodes} for pid, inodes in on.items()}
    return seen(t, "waits", on=tasks, blind={key(pid): why for pid, why in (blind or {}).items()})
