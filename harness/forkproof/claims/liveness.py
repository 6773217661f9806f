"""Whether a loop lives: what its handle says against what it does, and whether it gets its turns."""

from __future__ import annotations

import re
from collections.abc import Iterator

from forkproof.claims.base import (
    Claim,
    Say,
    absence,
    arbiter_exits,
    decides,
    edges,
    fate,
    idle,
    listing,
    no_window,
    number,
    quoted,
    short,
    silence,
    span,
    still_copies,
    tells_of_fault,
    too_few,
    traces,
    who,
    worst,
)
from forkproof.claims.base import clock as at
from forkproof.history import Birth, Event, History, Window, runs_in_child
from forkproof.scenario import Loop, Policy, Scenario
from forkproof.verdict import Finding, Verdict

BUSY = 20
"""Ticks after which a loop has had so many turns that another one of its process ought to have had one, in a window of
at least three periods of the slowest loop."""

_SIGN = re.compile(r"Traceback|ERROR|CRITICAL|Exception|failed with")


def no_dead_listener(scenario: Scenario, history: History) -> list[Finding]:
    """One finding per loop."""
    return [_not_dead(scenario, history, loop) for loop in scenario.loops]


def _not_dead(scenario: Scenario, history: History, loop: Loop) -> Finding:
    say = Say("no_dead_listener", loop.name)
    if loop.policy is Policy.BEST_EFFORT:
        return say.not_applicable("the policy best_effort is counted, never judged")
    windows = history.windows
    if not windows:
        return say.unknown(no_window(history))
    findings = [finding for window in windows for finding in _handles(say, scenario, history, loop, window)]
    findings += [_sound(say, scenario, history, loop, window) for window in windows]
    finding = worst(findings)
    if finding.verdict is not Verdict.NOT_APPLICABLE:
        return finding
    return say.unknown(f"there was nothing to compare: {finding.explanation}", edges(history, windows[-1]))


def _handles(say: Say, scenario: Scenario, history: History, loop: Loop, window: Window) -> Iterator[Finding]:
    """What each request saw of the loop's handles, against the ticks."""
    for request in history.between("request.ok", window.opened, window.closed):
        for seen in request.get("loops", ()):
            birth = history.births.get(seen["birth"])
            if seen["loop"] == loop.name and seen["alive"] is not None and birth is not None:
                found = _handle(say, scenario, history, loop, window, request, birth, seen["alive"])
                if found is not None:
                    yield found


def _handle(
    say: Say,
    scenario: Scenario,
    history: History,
    loop: Loop,
    window: Window,
    request: Event,
    birth: Birth,
    alive: bool,
) -> Finding | None:
    begins = [event for event in history.of("loop.begin") if event["birth"] == birth.birth]
    if not runs_in_child(loop):
        begins = [event for event in begins if event.process == request["worker"]]
    places = {event.process for event in begins}
    ticks = sum(history.ticks(birth.birth, key, window.opened, window.closed) for key in places)
    worker = who(history, request["worker"])
    asked = f"birth id {short(birth)} in {worker} at {at(history, request.t)}"
    if not alive:
        begun = {event.process for event in begins if event.t <= request.t}
        later = sum(history.ticks_after(birth.birth, key, request.t, window.closed) for key in begun)
        if later > 0:
            told = f"is_alive() was false for {asked}, yet it ticked {number(later, 'time')} between that and"
            told += f" {at(history, window.closed)}"
            return say.broken(told, [request], traces(history, [birth.birth]), how="dead but ticking")
        return say.held(f"is_alive() was false for {asked}, and it ticked no more", [request])
    if ticks > 0:
        return say.held(f"is_alive() was true for {asked}, and it ticked {number(ticks, 'time')}", [request])
    process = history.processes.get(request["worker"])
    new = birth.t > window.opened or process is None or process.first > window.opened
    ends = history.between("loop.end", window.opened, window.closed)
    ended = any(event["birth"] == birth.birth and event.process in places for event in ends)
    if new or ended or idle(history, loop, window):
        return None  # it had not the whole window to tick in, or nothing to do
    told = f"is_alive() was true for {asked}, yet it did not tick there once {span(history, window)}"
    if not decides(scenario, window):
        return say.unknown(f"{told}; but {too_few(scenario, history, window)}", [request])
    return say.broken(told, [request], traces(history, [birth.birth]), edges(history, window), how="alive but silent")


def _sound(say: Say, scenario: Scenario, history: History, loop: Loop, window: Window) -> Finding:
    """Whether a silent loop left a sign."""
    absent = absence(scenario, history, loop, window)
    if not absent.places:
        if loop.policy is Policy.ONCE_PER_WORKER and not history.live_workers(window):
            return say.not_applicable("no worker was alive at the end of a window")
        return say.held(f"it ticked in every place that its policy names {span(history, window)}")
    missing = listing(absent.places)
    if absent.doubt:
        return say.unknown(f"no tick was seen in {missing}, but {absent.doubt}", edges(history, window))
    sign = _sign(history, window)
    if sign is not None:
        told = f"it was silent in {missing} {span(history, window)}, but that showed: {_describe(sign)}"
        return say.not_applicable(told)
    told = f"silent in {missing} {span(history, window)}: nothing in the log tells"
    told += f"; {fate(history, loop, window.closed)}"
    births = [birth.birth for birth in history.births_of(loop.name)]
    seen = silence(history, births, absent.processes)
    return say.broken(told, edges(history, window), seen, how="silent without a sign")


def _sign(history: History, window: Window) -> Event | None:
    """The first thing before the window's close that would make a person look; not what a fault itself caused."""
    for event in [*arbiter_exits(history), *history.of("log")]:
        if event.t <= window.closed and (event.event == "exit" or _alarming(history, event)):
            return event
    return None


def _alarming(history: History, event: Event) -> bool:
    line = event["line"]
    return bool(_SIGN.search(line)) and "WARNING" not in line and not tells_of_fault(history, event)


def _describe(sign: Event) -> str:
    return quoted(sign) if sign.event == "log" else f"the arbiter ended with status {sign['status']}"


def no_starved_greenlet(scenario: Scenario, history: History) -> list[Finding]:
    """One finding per loop."""
    return [_not_starved(scenario, history, loop) for loop in scenario.loops]


def _not_starved(scenario: Scenario, history: History, loop: Loop) -> Finding:
    say = Say("no_starved_greenlet", loop.name)
    if runs_in_child(loop):
        return say.not_applicable("the loop is a process of its own: the kernel gives it its turns")
    if loop.policy is Policy.BEST_EFFORT:
        return say.not_applicable("the policy best_effort is counted, never judged")
    if not history.windows:
        return say.unknown(no_window(history))
    pairs = {(birth.birth, birth.process): birth.t for birth in history.births_of(loop.name)}
    for begin in history.of("loop.begin"):
        if begin["loop"] == loop.name:
            pairs.setdefault((begin["birth"], begin.process), begin.t)
    if not pairs:
        return say.unknown("the loop was never created")
    findings = [
        turns_of(say, scenario, history, loop, window, birth, process)
        for window in history.windows
        for (birth, process), since in pairs.items()
        if since <= window.opened and lived_through(history, birth, process, window)
    ]
    for birth in history.births_of(loop.name):
        for key, answer in still_copies(history, birth.birth).items():
            told = f"the copy of birth id {short(birth)} in {who(history, key)} never had a turn"
            told += ": whether it could run, or waits for what only its parent has, is not known"
            findings.append(say.unknown(told, [answer], traces(history, [birth.birth])))
    if not findings:
        return say.unknown(f"no window saw it from end to end: {fate(history, loop, history.windows[-1].closed)}")
    finding = worst(findings)
    if finding.verdict is Verdict.NOT_APPLICABLE:
        return say.unknown(f"it had nothing to do: {finding.explanation}")
    return finding


def lived_through(history: History, birth: str, key: str, window: Window) -> bool:
    """Whether a process lived through a window without the loop having ended in it."""
    process = history.processes.get(key)
    if process is None or not (process.first <= window.opened and process.alive_at(window.closed)):
        return False
    ends = (event for event in history.of("loop.end") if event["birth"] == birth and event.process == key)
    return all(event.t > window.closed for event in ends)


def turns_of(
    say: Say, scenario: Scenario, history: History, loop: Loop, window: Window, birth: str, key: str
) -> Finding:
    """Whether a loop got its turns in a process, in a window that both lived through."""
    ticks = history.ticks(birth, key, window.opened, window.closed)
    place = who(history, key)
    evidence = (edges(history, window), silence(history, [birth], [key]))
    if ticks > 0:
        return say.held(f"it had {number(ticks, 'turn')} in {place} {span(history, window)}", *evidence)
    if reason := idle(history, loop, window):
        return say.not_applicable(reason)
    begun = any(event["birth"] == birth and event.process == key for event in history.of("loop.begin"))
    still = f"birth id {short(birth)} {'stands still' if begun else 'never began'} in {place} {span(history, window)}"
    if not decides(scenario, window):
        return say.unknown(f"{still}, but {too_few(scenario, history, window)}", *evidence)
    others = _others(history, birth, key, window)
    stacks = [event for event in history.of("stack") if event["target"] == key]
    told = f"; its stack is in {stacks[0]['file']}" if stacks else ""
    if not others:
        holder = "a native call, or a main that never enters the hub, holds everything"
        turns = number(window.control, "turn")
        told = f"{still}: {holder}: {turns} of the control process passed{told}"
        return say.broken(told, *evidence, stacks, how="nothing enters the hub")
    culprit, most = max(others.items(), key=lambda item: item[1])
    name = history.births[culprit].loop if culprit in history.births else culprit
    rival = f"loop {name!r} (birth id {short(culprit)})"
    if most < BUSY:
        few = f"{rival} had only {number(most, 'turn')} there, of {BUSY} that tell"
        return say.unknown(f"{still}, but {few}", *evidence)
    told = f"{still} while {rival} had {number(most, 'turn')} in the same process{told}"
    return say.broken(told, *evidence, traces(history, [culprit]), stacks, how="beside a busy loop")


def _others(history: History, birth: str, key: str, window: Window) -> dict[str, int]:
    """Ticks of the other loops of a process in a window, those that ticked alone."""
    births = {event["birth"] for event in history.of("loop.begin") if event.process == key} - {birth}
    ticks = {other: history.ticks(other, key, window.opened, window.closed) for other in births}
    return {other: count for other, count in sorted(ticks.items()) if count > 0}


CLAIMS = (
    Claim(
        "no_dead_listener",
        "is_alive() agrees with ticking in each process, and an expected loop that stays silent leaves a visible sign.",
        no_dead_listener,
    ),
    Claim(
        "no_starved_greenlet",
        "No runnable loop stands still while another loop of its process, or the control process, has its turns.",
        no_starved_greenlet,
    ),
)
