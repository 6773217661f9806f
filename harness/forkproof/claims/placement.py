"""Where a loop runs: the policy's places, and no copies."""

from __future__ import annotations

import math
from collections import Counter

from forkproof.claims.base import (
    Claim,
    Listener,
    Say,
    absence,
    decides,
    edges,
    fate,
    listeners,
    listing,
    meant,
    no_window,
    number,
    short,
    silence,
    span,
    still_copies,
    too_few,
    traces,
    who,
    worst,
)
from forkproof.history import Birth, Event, History, Process, Window, runs_in_child
from forkproof.scenario import Loop, Policy, Scenario
from forkproof.verdict import Finding, Verdict

_MEANT = {
    Policy.ONCE_PER_SERVICE: "exactly one is meant to run, anywhere",
    Policy.ONCE_PER_WORKER: "one is meant to run in each live worker, none elsewhere",
    Policy.ARBITER_ONLY: "one is meant to run in the arbiter, none elsewhere",
    Policy.INHERIT_ALLOWED: "at least one is meant to run, anywhere",
}


def exactly_one_listener(scenario: Scenario, history: History) -> list[Finding]:
    """One finding per loop."""
    return [_exactly_one(scenario, history, loop) for loop in scenario.loops]


def _exactly_one(scenario: Scenario, history: History, loop: Loop) -> Finding:
    say = Say("exactly_one_listener", loop.name)
    if loop.policy is Policy.BEST_EFFORT:
        return say.not_applicable("the policy best_effort is counted, never judged")
    windows = history.windows
    if not windows:
        return say.unknown(no_window(history))
    finding = worst([_in_window(say, scenario, history, loop, window) for window in windows])
    if finding.verdict is not Verdict.HELD:
        return finding
    if loop.policy is Policy.ONCE_PER_WORKER and not any(history.live_workers(window) for window in windows):
        return say.unknown("no worker was alive at the end of any window", edges(history, windows[-1]))
    found = listeners(history, loop, windows[-1])
    places = listing(sorted(who(history, one.process.key) for one in found)) if found else "nowhere"
    told = f"ticked where it is meant to in {number(len(windows), 'window')}; in the last one: {places}"
    return say.held(told, traces(history, {one.birth for one in found}))


def _in_window(say: Say, scenario: Scenario, history: History, loop: Loop, window: Window) -> Finding:
    found = listeners(history, loop, window)
    absent = absence(scenario, history, loop, window)
    missing = listing(absent.places) if absent.places else ""
    problems, hows = [], []
    if _too_many(loop, found):
        hows.append("double")
        problems.append(_alive(history, found, window))
    if missing and not absent.doubt:
        hows.append("zero")
        turns = number(window.control, "turn")
        problems.append(f"no listener in {missing} {span(history, window)} ({turns} of the control process)")
        if not found:
            problems.append(fate(history, loop, window.closed))
    if problems:
        births = {birth.birth for birth in history.births_of(loop.name)}
        if found and not missing:
            births = {one.birth for one in found}
        evidence = _first_bad(history, loop, found) if "double" in hows else edges(history, window)
        seen = silence(history, births, absent.processes)
        told = "; ".join([*problems, _MEANT[loop.policy]])
        return say.broken(told, evidence, seen, edges(history, window), how=" and ".join(hows))
    if missing:
        return say.unknown(f"no tick was seen in {missing}, but {absent.doubt}", edges(history, window))
    if loop.policy is not Policy.INHERIT_ALLOWED and not decides(scenario, window):
        told = f"{too_few(scenario, history, window)}, so another listener need not have shown"
        return say.unknown(told, edges(history, window))
    return say.held("as it is meant to")


def _too_many(loop: Loop, found: list[Listener]) -> bool:
    if loop.policy is Policy.INHERIT_ALLOWED:
        return False
    if any(not meant(loop, one.process) for one in found):
        return True
    if loop.policy is Policy.ONCE_PER_WORKER:
        return any(count > 1 for count in Counter(one.process.place.slot for one in found).values())
    return len(found) > 1


def _alive(history: History, found: list[Listener], window: Window) -> str:
    places = listing(sorted(who(history, one.process.key) for one in found))
    births = sorted({short(one.birth) for one in found})
    told = f"{number(len(found), 'listener')} alive {span(history, window)}: {places}, "
    if len(found) == 1:
        return f"{told}birth id {births[0]}"
    if len(births) == 1:
        return f"{told}the same birth id {births[0]}: copied by a fork"
    if len(births) == len(found):
        return f"{told}the birth ids {listing(births)}: started {len(births)} times"
    return f"{told}the birth ids {listing(births)}: started {len(births)} times and copied by a fork"


def _first_bad(history: History, loop: Loop, found: list[Listener]) -> list[Event]:
    """The first turns of the listeners: where none is meant, of copies, of those that came second, then of the rest."""
    where = {(one.birth, one.process.key): one.process for one in found}
    begins = [event for event in history.of("loop.begin") if (event["birth"], event.process) in where]
    taken: set[int | None] = set()
    ranked = []
    for event in sorted(begins, key=lambda event: event.t):
        process = where[event["birth"], event.process]
        place = process.place.slot if loop.policy is Policy.ONCE_PER_WORKER else None
        is_copy = history.births[event["birth"]].process != event.process
        ranked.append(((meant(loop, process), not is_copy, place not in taken, event.t), event))
        taken.add(place)
    return [event for _, event in sorted(ranked, key=lambda one: one[0])]


def no_copied_thread(scenario: Scenario, history: History) -> list[Finding]:
    """One finding per loop."""
    return [_not_copied(scenario, history, loop) for loop in scenario.loops]


def _not_copied(scenario: Scenario, history: History, loop: Loop) -> Finding:
    say = Say("no_copied_thread", loop.name)
    if loop.policy is Policy.INHERIT_ALLOWED:
        return say.not_applicable("the policy inherit_allowed allows copies")
    if loop.policy is Policy.BEST_EFFORT:
        return say.not_applicable("the policy best_effort is counted, never judged")
    births = history.births_of(loop.name)
    if not births:
        reason = "" if history.windows else f": {no_window(history)}"
        return say.unknown(f"the loop was never created{reason}")
    return worst([_one_birth(say, scenario, history, loop, birth) for birth in births])


def _one_birth(say: Say, scenario: Scenario, history: History, loop: Loop, birth: Birth) -> Finding:
    begins = [event for event in history.of("loop.begin") if event["birth"] == birth.birth]
    ticked = [event for event in begins if history.count(birth.birth, event.process, math.inf) > 0]
    places = list(dict.fromkeys(event.process for event in ticked))
    # The body of a process loop always runs in a child of its creator; only a second process is a copy.
    own = places[0] if runs_in_child(loop) and places else birth.process
    copies = [event for event in ticked if event.process != own]
    creator = who(history, birth.process)
    if copies:
        told = f"birth id {short(birth)}, created in {creator}, also ticked in "
        told += f"{listing(sorted({who(history, event.process) for event in copies}))}: copied by a fork"
        return say.broken(told, copies, traces(history, [birth.birth]), how="copied")
    still = still_copies(history, birth.birth)
    if still:
        told = f"birth id {short(birth)}, created in {creator}, is there as a greenlet in "
        told += f"{listing(sorted(who(history, key) for key in still))}, where it never had a turn: copied by a fork"
        return say.broken(told, still.values(), traces(history, [birth.birth]), how="copied, and stands still")
    bodies = {event.process for event in begins} if runs_in_child(loop) else set()
    forked = _forked_after(history, birth, {birth.process, *bodies})
    heirs = [process for process in forked if process.key not in bodies | history.afresh]
    if not heirs:
        return say.not_applicable(f"nothing was forked by {creator} after it was created, so nothing could copy it")
    if not ticked:
        return say.unknown(f"birth id {short(birth)} never ticked anywhere, so a copy would not have shown", begins)
    if not any(_lived_through(window, heirs) and decides(scenario, window) for window in history.windows):
        reason = "no decisive window saw a process that was forked after it" if history.windows else no_window(history)
        return say.unknown(f"birth id {short(birth)} was seen in {who(history, own)} only, but {reason}", begins)
    forks = number(len(heirs), "fork")
    told = f"birth id {short(birth)} ticked in {who(history, own)} only; {forks} came after it was created"
    return say.held(told, traces(history, [birth.birth]))


def _forked_after(history: History, birth: Birth, parents: set[str]) -> list[Process]:
    """Children that the loop's processes forked once it existed: a copy in any descendant must come through one."""
    found = []
    for parent in (history.processes[key] for key in parents if key in history.processes):
        for process in history.processes.values():
            in_time = parent.gone is None or process.first <= parent.gone
            if process.ppid == parent.pid and in_time and process.first > birth.t:
                found.append(process)
    return found


def _lived_through(window: Window, processes: list[Process]) -> bool:
    return any(process.first <= window.opened and process.alive_at(window.closed) for process in processes)


CLAIMS = (
    Claim(
        "exactly_one_listener",
        "In every window the places in which the loop ticks are those that its policy names, one birth id in each.",
        exactly_one_listener,
    ),
    Claim(
        "no_copied_thread",
        "No birth id ticks in a process other than the one that it was created in, unless the policy allows it.",
        no_copied_thread,
    ),
)
