"""What a person reads of a gunicorn that was looked at: its processes, its threads, its connections."""

from __future__ import annotations

from collections import Counter

from rich.console import Group, RenderableType

from forkproof.inspection import Connection, Inspection, Process, Thread
from forkproof.reports.terminal import Fitting, escape

_WORDS = {
    "futex": "a lock",
    "nanosleep": "time to pass",
    "clock_nanosleep": "time to pass",
    "wait4": "a child",
    "waitid": "a child",
    "pause": "a signal",
    "rt_sigtimedwait": "a signal",
    "rt_sigsuspend": "a signal",
    "running": "(runs)",
    "": "(hidden)",
}


def inspection(found: Inspection) -> RenderableType:
    """All of it."""
    parts: list[RenderableType] = [f"gunicorn master {found.master}: {escape(found.command)}", ""]
    parts += [_processes(found), "", _threads(found)]
    if any(map(_is_shown, found.connections)):
        parts += ["", _connections(found)]
    if found.channels is not None:
        channels = ", ".join(f"{escape(name)} {count}" for name, count in sorted(found.channels.items()))
        parts += ["", f"subscribers by channel: {channels or 'none'}"]
    parts += _told(found)
    return Group(*parts)


def _processes(found: Inspection) -> Fitting:
    rows = []
    for one in found.processes:
        held = sum(one.pid in connection.held_by for connection in found.connections)
        rows.append((one.place, str(one.pid), str(one.parent), str(len(one.threads)), str(held)))
    return Fitting(("process", "pid", "parent", "threads", "connections"), rows)


def _threads(found: Inspection) -> Fitting:
    """One row for the threads of a process that have one name and wait on the same."""
    rows = []
    for process in found.processes:
        alike = Counter(
            (thread.name, thread.state, _waits_on(thread, process, found)) for thread in process.threads
        )  # fmt: skip
        for (name, state, what), number in alike.items():
            rows.append((process.place, str(process.pid), escape(name), str(number), state, escape(what)))
    return Fitting(("process", "pid", "thread", "number", "state", "waits on"), rows)


def _waits_on(thread: Thread, process: Process, found: Inspection) -> str:
    by_inode = {one.inode: one for one in found.connections}
    waited = [by_inode[inode] for inode in thread.on if inode in by_inode]
    connections = [_spelt(one) for one in waited if _is_shown(one)]
    if connections:
        return ", ".join(connections)
    if thread.call in _WORDS:
        return _WORDS[thread.call]
    return thread.call if thread.target is None else f"{thread.call} {thread.target}"


def _is_shown(one: Connection) -> bool:
    """All but the pairs of sockets by which event loops wake themselves."""
    return one.family != "unix" or len(one.held_by) > 1


def _spelt(one: Connection) -> str:
    if one.family == "unix":
        return f"unix socket {one.inode}"
    return f"{one.local} -> {one.peer}"


def _connections(found: Inspection) -> Fitting:
    titles = ["connection", "open in", "waited on by", *(["subscriptions"] if found.redis is not None else [])]
    rows = []
    for one in filter(_is_shown, found.connections):
        row = [escape(_spelt(one)), _places(found, one.held_by), _places(found, one.waited_on_by) or "nobody"]
        if found.redis is not None:
            row.append("" if one.subscriptions is None else str(one.subscriptions))
        rows.append(row)
    return Fitting(titles, rows)


def _places(found: Inspection, pids: tuple[int, ...]) -> str:
    return ", ".join(found.place(pid) for pid in pids)


def _told(found: Inspection) -> list[str]:
    """What is wrong, and what could not be seen."""
    told = []
    for one in found.contested:
        told += [
            "",
            f"[bold red]{escape(_spelt(one))}[/] is waited on by {_places(found, one.waited_on_by)}: what comes"
            " reaches one of them by chance. It was made before the fork: make it after, as in post_fork.",
        ]
    for one in found.unheard:
        told += [
            "",
            f"[bold yellow]{escape(_spelt(one))}[/] is subscribed, and nobody was seen waiting on it in "
            f"{found.seconds:g} s: its listener may be dead.",
        ]
    for reason in sorted({process.blind for process in found.processes if process.blind}):
        places = ", ".join(process.place for process in found.processes if process.blind == reason)
        told += ["", f"[bold yellow]not seen[/]: {places}: {escape(reason)}"]
    return told
