"""The arbiter itself: it acts on signals, its loops get on, and it knows its workers from other children."""

from __future__ import annotations

from forkproof.claims.base import (
    Claim,
    Say,
    arbiter_exits,
    clock,
    edges,
    no_window,
    number,
    pids_in,
    quoted,
    who,
    worst,
)
from forkproof.claims.liveness import lived_through, turns_of
from forkproof.history import Event, History, Window, runs_in_child
from forkproof.scenario import Policy, Scenario
from forkproof.verdict import Finding, Verdict


def arbiter_responsive(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("arbiter_responsive")
    if not history.windows:
        return [say.unknown(no_window(history))]
    silent = history.of("signal.fail")
    if silent:
        asked = [event for event in history.of("signal.invoke") if event["number"] == silent[0]["number"]]
        stacks = [event for event in history.of("stack") if event.t >= silent[0].t]
        told = f"the arbiter did not act on SIG{silent[0]['signal'].upper()}: {silent[0]['error']}"
        told += f", at {clock(history, silent[0].t)}"
        return [say.broken(told, silent, asked, stacks[:1], how="does not act")]
    for reexec in history.of("fault.ok"):
        if reexec["fault"] == "usr2" and reexec.get("new") is None:
            told = f"the arbiter did not act on SIGUSR2 at {clock(history, reexec.t)}: no other master came"
            return [say.broken(told, [reexec], how="does not act")]
    loops = worst([*_loops(say, scenario, history), say.held("no loop of its own stands still")])
    answers = history.of("signal.ok")
    if loops.verdict is Verdict.BROKEN or answers:
        slowest = max((event["seconds"] for event in answers), default=0)
        told = f"it acted on {number(len(answers), 'signal')}, on the slowest after {slowest:.2f}s; {loops.explanation}"
        if loops.verdict is Verdict.HELD:
            return [say.held(told, answers, loops.evidence)]
        return [loops]
    info = history.of("signal.info")
    reason = f": {info[0]['error']}" if info else ""
    return [say.unknown(f"it was not seen to act on a signal{reason}", info)]


def _loops(say: Say, scenario: Scenario, history: History) -> list[Finding]:
    """How the arbiter's own threads and greenlets got on."""
    found = []
    for loop in scenario.loops:
        if runs_in_child(loop) or loop.policy is Policy.BEST_EFFORT:
            continue
        for birth in history.births_of(loop.name):
            for window in history.windows:
                arbiter = history.arbiter_in(window)
                if arbiter is None or birth.process != arbiter.key or birth.t > window.opened:
                    continue
                if lived_through(history, birth.birth, arbiter.key, window):
                    got_on = turns_of(say, scenario, history, loop, window, birth.birth, arbiter.key)
                    found.append(got_on)
    return found


def foreign_child_ignored(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("foreign_child_ignored")
    if not any(fault.fault == "foreign_child_exit" for fault in scenario.faults):
        return [say.not_applicable("no child that is no worker exits")]
    exits = [event for event in history.of("fault.ok") if event["fault"] == "foreign_child_exit"]
    if not exits:
        failures = [event for event in history.of("fault.fail") if event["fault"] == "foreign_child_exit"]
        reason = f": {failures[0]['error']}" if failures else ""
        return [say.unknown(f"no such child was seen to exit{reason}", failures)]
    return [worst([_ignored(say, scenario, history, event) for event in exits])]


def _ignored(say: Say, scenario: Scenario, history: History, event: Event) -> Finding:
    child = f"child {event.get('target')}, which is no worker, exited with code {event.get('code')}"
    when = f"at {clock(history, event.t)}"
    before = [window for window in history.windows if window.closed <= event.t]
    after = [window for window in history.windows if window.opened >= event.t][:1]
    until = after[0].closed if after else float("inf")
    for gone in arbiter_exits(history):
        if event.t <= gone.t <= until:
            told = f"{child} {when}, and the arbiter (pid {gone['child']}) ended with status {gone['status']}"
            lines = [line for line in history.of("log") if event.t <= line.t <= gone.t + 1]
            return say.broken(
                f"{told} at {clock(history, gone.t)}", [gone], [event], lines[-10:], how="the arbiter ended"
            )
    if not after or not before:
        return say.unknown(f"{child} {when}, but no window was opened after it", [event])
    for line in history.of("log"):
        if event.t <= line.t <= until and event.get("target") in pids_in(line):
            return say.broken(
                f"{child} {when}, and the arbiter told of it: {quoted(line)}", [line], [event], how="told"
            )
    return _same_workers(say, scenario, history, event, before[-1], after[0], child, when)


def _same_workers(
    say: Say, scenario: Scenario, history: History, event: Event, before: Window, after: Window, child: str, when: str
) -> Finding:
    was = {slot: process.key for slot, process in history.live_workers(before).items()}
    now = {slot: process.key for slot, process in history.live_workers(after).items()}
    changed = [key for slot, key in was.items() if now.get(slot) != key]
    if changed and not scenario.server.max_requests:
        told = f"{child} {when}, and {who(history, changed[0])} had gone by {clock(history, after.closed)}"
        return say.broken(told, [event], edges(history, after), how="a worker went")
    same = f"the arbiter and {number(len(now), 'worker')} are the same"
    return say.held(f"{child} {when}: {same}", [event], edges(history, after))


CLAIMS = (
    Claim(
        "arbiter_responsive",
        "The arbiter acts on a signal within the bound, and its own threads make progress.",
        arbiter_responsive,
    ),
    Claim(
        "foreign_child_ignored",
        "The exit of a child that is no worker changes nothing in the arbiter.",
        foreign_child_ignored,
    ),
)
