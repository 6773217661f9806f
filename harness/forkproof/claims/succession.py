"""What comes after processes that end: nobody of theirs stays, and a loop that there is one of is handed over."""

from __future__ import annotations

import math
from dataclasses import dataclass

from forkproof.claims.base import (
    Claim,
    Say,
    absence,
    clock,
    edges,
    fate,
    listing,
    no_window,
    number,
    short,
    traces,
    who,
    worst,
)
from forkproof.history import Event, History, Window
from forkproof.scenario import Loop, Policy, Scenario
from forkproof.verdict import Finding

ENDS_PROCESSES = frozenset(
    ("kill_worker", "kill_child", "kill_arbiter", "int", "hup", "ttou", "usr2", "max_requests")
)  # fmt: skip
"""Faults that end processes; what TERM leaves is judged by `clean_shutdown`."""

HANDOVERS = frozenset(("kill_worker", "hup", "usr2", "max_requests"))
"""Faults after which other processes do what those that ended did."""


def no_orphan_process(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("no_orphan_process")
    if not any(fault.fault in ENDS_PROCESSES for fault in scenario.faults):
        return [say.not_applicable("nothing that happens ends a process but TERM")]
    landed = [event for event in history.of("fault.ok") if event["fault"] in ENDS_PROCESSES]
    if not landed:
        failures = [event for event in history.of("fault.fail") if event["fault"] in ENDS_PROCESSES]
        return [say.unknown("nothing that ends a process ever landed", failures)]
    found = [_orphans(say, scenario, history, event) for event in history.of("orphans")]
    found += [
        _after_the_end(say, scenario, history, event) for event in landed if event["fault"] in ("int", "kill_arbiter")
    ]
    if not found:
        return [say.not_applicable("nothing that ended had a process below it")]
    return [worst(found)]


def _orphans(say: Say, scenario: Scenario, history: History, seen: Event) -> Finding:
    ended = listing(who(history, key) for key in seen["ended"])
    stayed = [process for process in seen["left"] if not _may_stay(scenario, history, process)]
    if stayed:
        told = f"{_named(history, stayed)} still alive {seen['seconds']:.1f}s after {ended} had ended"
        return say.broken(told, [seen], _cause(history, seen["index"]), how="left")
    gone = number(len(seen["below"]) - len(seen["left"]), "process")
    return say.held(f"{gone} below {ended} went within {seen['seconds']:.1f}s", [seen])


def _after_the_end(say: Say, scenario: Scenario, history: History, fault: Event) -> Finding:
    for event in history.of("left"):
        stayed = [process for process in event["processes"] if not _may_stay(scenario, history, process)]
        if stayed:
            told = f"{_named(history, stayed)} still alive {event.t - fault.t:.1f}s after {fault['fault']}"
            return say.broken(told, [event], [fault], how="left")
    if history.of("left"):
        return say.held(f"what is left after {fault['fault']} may stay", history.of("left"))
    stopped = [event for event in history.of("stopped") if event.t >= fault.t]
    if not stopped:
        return say.unknown(f"the history ends before everything had gone after {fault['fault']}", [fault])
    told = f"everything was gone {stopped[0]['seconds']:.2f}s after {fault['fault']}"
    return say.held(told, [fault], stopped)


def _cause(history: History, index: int) -> list[Event]:
    return [event for event in history.of("fault.ok") if event.get("index") == index]


def _named(history: History, processes: list[dict[str, object]]) -> str:
    names = listing(who(history, f"{process['pid']}-{process['start']}") for process in processes)
    return f"{number(len(processes), 'process')} ({names})"


def _may_stay(scenario: Scenario, history: History, process: dict[str, object]) -> bool:
    """Whether a process may outlive its parent: one whose loops are counted and never judged."""
    key = f"{process['pid']}-{process['start']}"
    loops = {event["loop"] for event in history.of("loop.begin") if event.process == key}
    calm = {loop.name for loop in scenario.loops if loop.policy is Policy.BEST_EFFORT}
    return bool(loops) and loops <= calm


@dataclass(frozen=True)
class _Holder:
    """One who ticks between two times: a birth id in a process, and its first and last tick as sampled."""

    birth: str
    process: str
    first: float
    last: float


def handover_is_safe(scenario: Scenario, history: History) -> list[Finding]:
    """One finding per loop."""
    return [_handed_over(scenario, history, loop) for loop in scenario.loops]


def _handed_over(scenario: Scenario, history: History, loop: Loop) -> Finding:
    say = Say("handover_is_safe", loop.name)
    if loop.policy is not Policy.ONCE_PER_SERVICE:
        return say.not_applicable(f"the policy {loop.policy.value} knows no holder")
    if not any(fault.fault in HANDOVERS for fault in scenario.faults):
        return say.not_applicable("no process is replaced by another")
    begun = {event["index"]: event for event in history.of("fault.invoke")}
    landed = [event for event in history.of("fault.ok") if event["fault"] in HANDOVERS]
    if not landed:
        reason = "" if history.windows else f": {no_window(history)}"
        return say.unknown(f"nothing that replaces a process ever landed{reason}")
    findings = []
    for event in landed:
        window = next((window for window in history.windows if window.opened >= event.t), None)
        since = begun[event["index"]].t if event["index"] in begun else event.t
        findings.append(_through(say, scenario, history, loop, event, since, window))
    return worst(findings)


def _through(
    say: Say, scenario: Scenario, history: History, loop: Loop, fault: Event, since: float, window: Window | None
) -> Finding:
    through = f"through {fault['fault']} at {clock(history, fault.t)}"
    holders = _holders(history, loop, since, window.closed if window else math.inf)
    for index, one in enumerate(holders):
        for other in holders[index + 1 :]:
            # Each ticked before the other one's last tick, in different samples: their turns alternate.
            if one.first < other.last and other.first < one.last:
                begin, end = max(one.first, other.first), min(one.last, other.last)
                told = f"two holders {through}: {_holder(history, one)} and {_holder(history, other)} both ticked"
                told += f" from {clock(history, begin)} to {clock(history, end)}"
                second = _beginning(history, max(one, other, key=lambda holder: holder.first), since) or fault
                evidence = traces(history, {one.birth, other.birth})
                return say.broken(told, [second], evidence, [fault], how="two holders")
    if window is None:
        return say.unknown(f"no window was opened {through}", [fault])
    absent = absence(scenario, history, loop, window)
    if absent.places and absent.doubt:
        return say.unknown(f"nobody was seen to hold it {through}, but {absent.doubt}", edges(history, window))
    if absent.places:
        told = f"nobody holds it {through}, by {clock(history, window.closed)}: {fate(history, loop, window.closed)}"
        return say.broken(told, [fault], edges(history, window), how="no holder")
    last = [holder for holder in holders if holder.last >= window.opened]
    now = listing(_holder(history, holder) for holder in last) if last else "somebody"
    return say.held(f"never two holders {through}, and then {now}", [fault], edges(history, window))


def _holders(history: History, loop: Loop, opened: float, closed: float) -> list[_Holder]:
    found = []
    for birth in history.births_of(loop.name):
        for process in history.processes:
            times = [t for t, _ in history.changes(birth.birth, process) if opened < t <= closed]
            if times:
                found.append(_Holder(birth.birth, process, times[0], times[-1]))
    return found


def _beginning(history: History, holder: _Holder, since: float) -> Event | None:
    """The first turn of a holder; None where it was one before."""
    begun = (e for e in history.of("loop.begin") if (e["birth"], e.process) == (holder.birth, holder.process))
    return next((event for event in begun if event.t > since), None)


def _holder(history: History, holder: _Holder) -> str:
    return f"birth id {short(holder.birth)} in {who(history, holder.process)}"


CLAIMS = (
    Claim(
        "no_orphan_process",
        "After any kill what lived below the killed process goes within the bound, or may stay.",
        no_orphan_process,
    ),
    Claim(
        "handover_is_safe",
        "Through reload, respawn and re-exec a once_per_service loop never has two holders, and has one again.",
        handover_is_safe,
    ),
)
