"""What processes hold on to, as it is seen from outside."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from forkproof.claims.base import Claim, Say, clock, listing, number, who
from forkproof.history import Event, History
from forkproof.scenario import Scenario
from forkproof.verdict import Finding

ENOUGH = 3
"""Reloads that it takes: what the second one adds to the first may be a step that is made once."""


def no_leak_on_reload(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("no_leak_on_reload")
    planned = sum(int(fault.options.get("times", 1)) for fault in scenario.faults if fault.fault == "hup")
    if planned < ENOUGH:
        return [say.not_applicable(f"it takes {ENOUGH} reloads to tell a leak from a step, and there are {planned}")]
    looks: dict[str, dict[int, list[Event]]] = {}
    for event in history.of("resources"):
        if event.get("reload") is not None:
            looks.setdefault(event["target"], {}).setdefault(event["reload"], []).append(event)
    # Workers are replaced: what they got through the fork, the process that they got it from has as well.
    lasting = {target: seen for target, seen in looks.items() if len(seen) >= ENOUGH}
    blind = [event for seen in lasting.values() for events in seen.values() for event in events if event.get("error")]
    if blind:
        return [say.unknown(f"one may not look into {who(history, blind[0]['target'])}: {blind[0]['error']}", blind)]
    arbiters = [key for key, process in history.processes.items() if process.place.role == "arbiter" and key in lasting]
    if not arbiters:
        through = max((reload for seen in looks.values() for reload in seen), default=0)
        came = f"the server came through {through} of {number(planned, 'reload')}"
        return [say.unknown(f"{came}, and it takes {ENOUGH} to tell a leak from a step", history.of("fault.fail"))]
    for target, seen in lasting.items():
        grown = {kind: counts for kind, counts in _counts(seen).items() if _grows(counts)}
        if grown:
            reloads = sorted(seen)
            told = f"{who(history, target)} has more and more: {listing(map(_told, grown.items()))}"
            told += f" after reloads {reloads[0]} to {reloads[-1]}"
            last, *others = (seen[reload][0] for reload in reversed(reloads))
            told += f", from {clock(history, others[-1].t)} to {clock(history, last.t)}"
            return [say.broken(told, [last, *others], how="grows")]
    steady = lasting[arbiters[0]]
    counts = listing(f"{counts[0]} and {counts[-1]} {kind}" for kind, counts in _counts(steady).items())
    told = f"after the first and after the last of {number(len(steady), 'reload')} the arbiter had {counts}"
    return [say.held(told, steady[min(steady)], steady[max(steady)])]


def _counts(seen: Mapping[int, Sequence[Event]]) -> dict[str, list[int]]:
    """What a process had after each reload; what it had for a moment is not in each look."""
    after = [events for _, events in sorted(seen.items())]
    return {
        "fds": [min(event["fds"] for event in events) for events in after],
        "threads": [min(event["threads"] for event in events) for events in after],
        "sockets": [min(len(set(event["sockets"].values())) for event in events) for events in after],
    }


def _grows(counts: Sequence[int]) -> bool:
    """Whether there is more again and again; a single step is made once, and what comes and goes is no leak.

    >>> _grows([12, 12, 13, 13, 14]), _grows([12, 16, 16, 16, 16]), _grows([12, 12, 13, 13, 13]), _grows([12, 14, 13])
    (True, True, False, False)
    """
    steps = [after - before for before, after in itertools.pairwise(counts)]
    again = min(steps) >= 0 and sum(step > 0 for step in steps) > 1
    return again or sum(steps) >= len(steps)


def _told(item: tuple[str, Sequence[int]]) -> str:
    kind, counts = item
    return f"{', '.join(map(str, counts))} {kind}"


CLAIMS = (
    Claim(
        "no_leak_on_reload",
        "Descriptors, threads and sockets of each process come back to where they were after k reloads.",
        no_leak_on_reload,
    ),
)
