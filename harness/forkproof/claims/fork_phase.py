"""What a fork leaves in the child of threads that it did not copy: locks that they held, modules half imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forkproof.claims.base import (
    Claim,
    Say,
    booted,
    clock,
    decides,
    edges,
    listing,
    no_window,
    number,
    too_few,
    who,
)
from forkproof.history import Event, History, Window
from forkproof.scenario import CONTROL, Park, ParkPoint, Scenario
from forkproof.verdict import Finding

_LOCKS = frozenset(
    {ParkPoint.LOCK, ParkPoint.QUEUE_MUTEX, ParkPoint.LOG_RECORD, ParkPoint.LOG_HANDLER_LOCK},
)
_IMPORTS = frozenset({ParkPoint.IMPORT})

_IMPORT_LOCK = "<frozen importlib._bootstrap>"
# Locks that processes share may be held elsewhere.
_SHARED = "multiprocessing/synchronize.py"


@dataclass(frozen=True)
class _Stuck:
    """A child that waits, without an end, for what a thread had that it does not have."""

    fork: Event
    seen: Event
    at_import: bool
    told: str


def no_lock_held_at_fork(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("no_lock_held_at_fork")
    stuck = [one for one in _stuck(scenario, history) if not one.at_import]
    if stuck:
        first = stuck[0]
        told = first.told + (f", and {len(stuck) - 1} more like it" if len(stuck) > 1 else "")
        return [say.broken(told, [first.seen, first.fork], _park_events(history), how="blocks on a lock")]
    refused = [used for used in history.of("park.used") if ParkPoint(used["at"]) in _LOCKS and used["error"]]
    if refused:
        told = f"{who(history, refused[0].process)} was refused it at {clock(history, refused[0].t)}"
        told += f": {refused[0]['error']}"
        return [say.broken(told, refused[:3], _park_events(history), how="is refused")]
    return [_came_through(say, scenario, history, _LOCKS, _held_locks)]


def no_half_imported_module(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("no_half_imported_module")
    stuck = [one for one in _stuck(scenario, history) if one.at_import]
    left = [fork for fork in history.of("fork") if fork["imports"]]
    seen = [used for used in history.of("park.used") if "half imported" in str(used["error"])]
    if stuck:
        first = stuck[0]
        return [say.broken(first.told, [first.seen, first.fork], _park_events(history), how="blocks on an import")]
    if left:
        first_left = left[0]
        told = f"{listing(first_left['imports'])} half imported in {who(history, first_left.process)}"
        told += f" since {clock(history, first_left.t)}: {_beside(first_left)} did not come along;"
        told += " whoever imports it there waits for ever"
        return [say.broken(told, left[:3], _park_events(history), how="left half imported")]
    if seen:
        told = f"{who(history, seen[0].process)} imported it at {clock(history, seen[0].t)}: {seen[0]['error']}"
        return [say.broken(told, seen[:3], _park_events(history), how="sees it half imported")]
    return [_came_through(say, scenario, history, _IMPORTS, lambda fork: [])]


def _held_locks(fork: Event) -> list[str]:
    return list(fork["locks"])


# --- who is stuck


def _stuck(scenario: Scenario, history: History) -> Iterator[_Stuck]:
    """Children that are stuck, as what they use tells, or their stacks."""
    forks = {fork.process: fork for fork in history.of("fork")}
    told: set[str] = set()
    for use in history.of("park.use"):
        point = ParkPoint(use["at"])
        fork = forks.get(use.process)
        if fork is None or point not in _LOCKS | _IMPORTS or _came_back(history, use):
            continue
        if _long_enough(scenario, history, use) and fork["beside"]:
            told.add(use.process)
            yield _Stuck(fork, use, point in _IMPORTS, _told(history, use.process, use.t, fork))
    for stack in history.of("stack"):
        fork = forks.get(stack["target"])
        # One thread, and it waits for a lock without an end: nobody is there who could give it.
        if fork is None or stack.get("waits") != ["lock"] or not fork["beside"] or stack["target"] in told:
            continue
        frames = [frame for thread in stack.get("threads", ()) for frame in thread]
        if frames and _SHARED not in frames[0]:
            told.add(stack["target"])
            at_import = any(frame.startswith(_IMPORT_LOCK) for frame in frames[:2])
            yield _Stuck(fork, stack, at_import, _told(history, stack["target"], stack.t, fork))


def _came_back(history: History, use: Event) -> bool:
    return any(
        done.process == use.process and done["park"] == use["park"] for done in history.of("park.used")
    )  # fmt: skip


def _long_enough(scenario: Scenario, history: History, use: Event) -> bool:
    return any(
        window.opened >= use.t and _lived(history, use.process, window) for window in _decisive(scenario, history)
    )


def _told(history: History, key: str, t: float, fork: Event) -> str:
    stacks = [stack for stack in history.of("stack") if stack["target"] == key]
    frames = [frame for thread in stacks[0].get("threads", ()) for frame in thread] if stacks else []
    told = f"{who(history, key)} waits for ever"
    if frames:
        told += f", in {frames[0].rpartition('/')[2]} ({stacks[0]['file']})"
    return f"{told}, seen at {clock(history, t)}: {_beside(fork)} when it was forked, and did not come along"


def _beside(fork: Event) -> str:
    """The threads that were alive in the parent, with where they stood."""
    names = []
    for one in fork["beside"]:
        name = f"thread {one['thread']!r}" if one["thread"] else "a thread"
        names.append(f"{name} stood in {one['at'].rpartition('/')[2]}" if one["at"] else name)
    return listing(names, most=3)


# --- who came through


def _came_through(
    say: Say,
    scenario: Scenario,
    history: History,
    points: frozenset[ParkPoint],
    held: Callable[[Event], list[str]],
) -> Finding:
    """Nothing is stuck: whether anything could have been."""
    if not history.windows:
        return say.unknown(no_window(history))
    decisive = list(_decisive(scenario, history))
    if not decisive:
        return say.unknown(f"no child is stuck, but {too_few(scenario, history, history.windows[-1])}")
    last = edges(history, decisive[-1])
    parks = [(index, park) for index, park in enumerate(scenario.parks) if park.at in points]
    for index, park in parks:
        if problem := _not_parked(history, index):
            return say.unknown(problem, _park_events(history))
        if not _through(history, index, park, decisive):
            return say.unknown(f"no child came through a use of what {park.who!r} was in the middle of", last)
    if parks:
        through = [event for index, park in parks for event in _through(history, index, park, decisive)]
        told = listing(_stood(history, index, park) for index, park in parks)
        told += f"; {who(history, through[0].process)} used that, and came through"
        return say.held(told, through[:3], _park_events(history), last)
    beside = [fork for fork in history.of("fork") if fork["beside"]]
    forks = [fork for fork in beside if any(_lived(history, fork.process, window) for window in decisive)]
    if not forks:
        return say.not_applicable("no process was forked beside another thread, so nothing could be left behind")
    names = sorted({name for fork in forks for name in held(fork)})
    told = f"{number(len(forks), 'fork')} came while {_beside(forks[0])}; no child is stuck"
    if names:
        told += f", though {listing(names)} was held at the fork"
    return say.held(told, forks[:3], last)


def stood_at_fork(history: History, index: int) -> bool:
    """Whether the unit stood at its point at some fork."""
    stood = {event["fork"] for event in history.of("park.reached") if event["park"] == index}
    return bool(stood - {event["fork"] for event in _failed(history, index)})


def _failed(history: History, index: int) -> list[Event]:
    return [event for event in history.of("park.failed") if event["park"] == index]


def _not_parked(history: History, index: int) -> str:
    """Why a unit never stood at its point though it could have; empty where it did, or where it was not there."""
    failed = _failed(history, index)
    if stood_at_fork(history, index) or (failed and all(event["absent"] for event in failed)):
        return ""
    for event in failed:
        if not event["absent"]:
            return f"{event['who']!r} could not be parked at {event['at']!r}: {event['reason']}"
    return "no fork of a worker was seen"


def _stood(history: History, index: int, park: Park) -> str:
    if stood_at_fork(history, index):
        return f"{park.who!r} stood at {park.at.value!r} when the arbiter forked"
    return f"no fork could hit {park.who!r} at {park.at.value!r} ({_failed(history, index)[0]['reason']})"


def _through(history: History, index: int, park: Park, windows: list[Window]) -> list[Event]:
    """Children that came through a use of what is parked: of gunicorn's own log, by booting."""
    if park.who == CONTROL:
        found = list(booted(history).values())
    else:
        found = [event for event in history.of("park.used") if event["park"] == index]
    return [event for event in found if any(_lived(history, event.process, window) for window in windows)]


def _park_events(history: History) -> list[Event]:
    return history.of("park.reached", "park.failed", "park.released")[:6]


def _decisive(scenario: Scenario, history: History) -> Iterator[Window]:
    return (window for window in history.windows if decides(scenario, window))


def _lived(history: History, key: str, window: Window) -> bool:
    process = history.processes.get(key)
    return process is not None and process.first <= window.opened and process.alive_at(window.closed)


CLAIMS = (
    Claim(
        "no_lock_held_at_fork",
        "No child blocks on a lock whose owner did not survive the fork.",
        no_lock_held_at_fork,
    ),
    Claim(
        "no_half_imported_module",
        "No child sees a module that another thread was importing at the fork.",
        no_half_imported_module,
    ),
)
