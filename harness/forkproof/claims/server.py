"""What the server does as a whole: it boots, answers, and goes when it is told to."""

from __future__ import annotations

import signal

from forkproof.claims.base import (
    Claim,
    Say,
    arbiter_exits,
    booted,
    clock,
    decides,
    edges,
    listing,
    no_window,
    number,
    pids_in,
    quoted,
    span,
    targets,
    tells_of_fault,
    too_few,
    who,
    worst,
)
from forkproof.history import Event, History, Process, Window, slots_in
from forkproof.scenario import Scenario
from forkproof.verdict import Finding


def server_answers(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("server_answers")
    if not history.windows:
        return [say.unknown(no_window(history))]
    return [worst([_answers(say, scenario, history, window) for window in history.windows])]


def _answers(say: Say, scenario: Scenario, history: History, window: Window) -> Finding:
    failed = [
        event for event in history.of("request.fail", "request.info") if window.opened <= event.t <= window.closed
    ]
    good = history.between("request.ok", window.opened, window.closed)
    answered = {event.get("slot") for event in good}
    slots = slots_in(scenario, window)
    silent = [f"worker {slot}" for slot in slots if slot not in answered]
    problems = []
    if failed:
        of_all = f"{len(failed)} of {number(len(failed) + len(good), 'request')} {span(history, window)}"
        problems.append(f"{of_all} had no answer: {_outcome(history, failed[0])}")
    if silent and decides(scenario, window):
        problems.append(f"no answer from {listing(silent)} {span(history, window)}")
    if problems:
        return say.broken("; ".join(problems), failed[:15], edges(history, window), good[:3], how="no answer")
    if silent:
        told = f"no answer from {listing(silent)} was seen, but {too_few(scenario, history, window)}"
        return say.unknown(told, edges(history, window))
    windows = number(len(history.windows), "window")
    return say.held(f"every slot of {number(len(slots), 'worker')} answered in {windows}", good)


def _outcome(history: History, event: Event) -> str:
    told = f"request {event['request']}"
    if event.event == "request.info":
        told += f" was not answered within the bound, at {clock(history, event.t)}"
    else:
        told += f" failed at {clock(history, event.t)}"
    return f"{told} ({event['error']})" if event.get("error") else told


def workers_boot(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("workers_boot")
    hooks = booted(history)
    found = _arbiter_gave_up(say, history) or _died_in_boot(say, history, hooks)
    found = found or _bound_passed(say, scenario, history, hooks) or _never_came_back(say, scenario, history, hooks)
    if found is not None:
        return [found]
    up = {history.processes[key].place.slot for key in hooks}
    slots = {*range(scenario.server.workers), *(n for window in history.windows for n in slots_in(scenario, window))}
    missing = [f"worker {slot}" for slot in sorted(slots) if slot not in up]
    if missing:
        reason = "" if history.windows else f": {no_window(history)}"
        return [say.unknown(f"{listing(missing)} was not seen to boot, but no bound had passed{reason}")]
    told = f"every slot booted: {listing(who(history, key) for key in hooks)}"
    return [say.held(told, hooks.values())]


def _gave_up_at(history: History) -> float:
    """Up to when a death in boot is the server's own doing: after that the run is being ended, by TERM or by us."""
    if history.windows:
        return history.windows[-1].closed
    return min((event.t for event in history.of("bound", "left", "killed", "stopped")), default=float("inf"))


def _arbiter_gave_up(say: Say, history: History) -> Finding | None:
    until = history.windows[0].opened if history.windows else _gave_up_at(history)
    for event in arbiter_exits(history):
        if event.t <= until:
            lines = [line for line in history.of("log") if line.t <= event.t][-10:]
            told = f"the arbiter (pid {event['child']}) ended with status {event['status']}"
            told += f" at {clock(history, event.t)}, before any window was opened"
            return say.broken(told, [event], lines, how="the arbiter ended")
    return None


def _died_in_boot(say: Say, history: History, hooks: dict[str, Event]) -> Finding | None:
    until = _gave_up_at(history)
    faulted = targets(history)
    # gevent's workers open their server after post_worker_init, so only an answer tells that one is through.
    through = {answer["worker"] for answer in history.of("request.ok")} & hooks.keys()
    died = [
        process
        for process in history.processes.values()
        if process.place.role == "worker" and process.gone is not None and process.gone <= until
        if process.key not in through and process.pid not in faulted
    ]
    if not died:
        return None
    first = died[0]
    told = f"{who(history, first.key)} was gone at {clock(history, first.gone or 0)}"
    told += " before it had answered anything" if first.key in hooks else " before it had booted"
    if len(died) > 1:
        told += f", and {len(died) - 1} more like it"
    events = [event for event in history if event.process == first.key][-10:]
    return say.broken(told, events, _said_by(history, died), how="a worker died")


def _said_by(history: History, processes: list[Process]) -> list[Event]:
    pids = {process.pid for process in processes}
    return [event for event in history.of("log") if pids & pids_in(event)][:10]


def _bound_passed(say: Say, scenario: Scenario, history: History, hooks: dict[str, Event]) -> Finding | None:
    for bound in history.of("bound"):
        up = {history.processes[key].place.slot for key, hook in hooks.items() if hook.t <= bound.t}
        slots = bound.get("slots", range(scenario.server.workers))
        missing = [f"worker {slot}" for slot in slots if slot not in up]
        if bound["what"] == "boot" and missing:
            told = f"{listing(missing)} had not booted when the bound of {bound['seconds']:.1f}s passed"
            told += f" at {clock(history, bound.t)}"
            return say.broken(told, [bound], history.of("role")[:10], hooks.values(), how="too late")
    return None


def _never_came_back(say: Say, scenario: Scenario, history: History, hooks: dict[str, Event]) -> Finding | None:
    for window in history.windows:
        faults = [event for event in history.of("fault.ok") if event.t <= window.opened]
        live = history.live_workers(window)
        missing = [
            f"worker {slot}" for slot in slots_in(scenario, window) if slot not in live or live[slot].key not in hooks
        ]
        if faults and not window.healed and missing:
            told = f"{listing(missing)} did not come back after {faults[-1]['fault']} at {clock(history, faults[-1].t)}"
            told += f": no booted worker there at {clock(history, window.closed)}"
            return say.broken(told, [faults[-1]], edges(history, window), hooks.values(), how="never came back")
    return None


def clean_shutdown(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("clean_shutdown")
    if not any(fault.fault == "term" for fault in scenario.faults):
        return [say.not_applicable("the scenario has no TERM")]
    terms = [event for event in history.of("fault.ok") if event["fault"] == "term"]
    if not terms:
        failures = [event for event in history.of("fault.fail") if event["fault"] == "term"]
        reason = f": {failures[0]['error']}" if failures else ""
        return [say.unknown(f"TERM never landed{reason}", failures)]
    term = terms[0]
    found = _left(say, history, term) or _killed(say, scenario, history, term) or _bad_exit(say, history, term)
    if found is not None:
        return [found]
    stopped = history.of("stopped")
    if not stopped:
        return [say.unknown("the history ends before the server had stopped", [term])]
    allowed = f"graceful_timeout is {scenario.server.graceful_timeout}s"
    told = f"all processes were gone {stopped[0]['seconds']:.2f}s after TERM; {allowed}"
    return [say.held(told, [term], stopped, arbiter_exits(history))]


def _left(say: Say, history: History, term: Event) -> Finding | None:
    for event in history.of("left"):
        if event["processes"]:
            names = [who(history, f"{process['pid']}-{process['start']}") for process in event["processes"]]
            told = f"{number(len(names), 'process')} still alive {event.t - term.t:.1f}s after TERM: {listing(names)}"
            return say.broken(told, [event], [term], how="left")
    return None


def _killed(say: Say, scenario: Scenario, history: History, term: Event) -> Finding | None:
    patience = 0.9 * scenario.server.graceful_timeout
    parted = {event.process for event in history.of("hook") if event["name"] == "worker_exit"}
    for key, hook in booted(history).items():
        gone = history.processes[key].gone
        if key not in parted and gone is not None and gone - term.t >= patience:
            told = f"{who(history, key)} went {gone - term.t:.2f}s after TERM without worker_exit"
            told += f": killed when graceful_timeout ({scenario.server.graceful_timeout}s) was used up"
            seen = [event for event in history.of("sample") if key in event.get("gone", ())][:1]
            return _too_late(say, scenario, history, term, gone, told, [term, *seen, hook])
    workers = {history.processes[key].pid: key for key in booted(history)}
    for event in history.of("exit"):
        # The arbiter reaps its workers; one that it killed last and left to us has ended with -9.
        if event.t > term.t and event["child"] in workers and event["status"] == -signal.SIGKILL:
            told = f"{who(history, workers[event['child']])} was killed {event.t - term.t:.2f}s after TERM"
            told += f": graceful_timeout ({scenario.server.graceful_timeout}s) was used up"
            deaf = _locked_at_its_end(history, workers[event["child"]], term)
            told += "; Python had ended in it, and C code waited for a lock" if deaf else ""
            return _too_late(say, scenario, history, term, event.t, told, [event, term, *deaf])
    for event in history.of("log"):
        if event.t > term.t and "was sent SIGKILL" in event["line"] and not tells_of_fault(history, event):
            told = f"a worker was killed after TERM: {quoted(event)}"
            return _too_late(say, scenario, history, term, event.t, told, [event, term])
    return None


def _locked_at_its_end(history: History, key: str, term: Event) -> list[Event]:
    late = (event for event in history.of("deaf") if event.t > term.t)
    return [event for event in late if event["target"] == key and event["waits"] == ["lock"]]


def _too_late(
    say: Say, scenario: Scenario, history: History, term: Event, killed: float, told: str, events: list[Event]
) -> Finding:
    """gunicorn counts graceful_timeout in seconds, however few of them the machine gave to its workers."""
    granted = history.granted(term.t, killed)
    if granted is not None and granted < ENOUGH * scenario.server.graceful_timeout:
        return say.unknown(f"{told}; but the machine gave it only {granted:.2f}s of these", events)
    return say.broken(told, events, how="killed")


ENOUGH = 0.5
"""The share of graceful_timeout within which a worker that can leave has left: gevent's looks once a second whether
it is to go. One that hangs asleep is kept waiting by nobody, and gets all of it on a crowded machine too."""


def _bad_exit(say: Say, history: History, term: Event) -> Finding | None:
    for event in arbiter_exits(history):
        if event["status"] != 0:
            told = f"the arbiter (pid {event['child']}) ended with status {event['status']}"
            told += f" {event.t - term.t:.2f}s after TERM"
            return say.broken(told, [event], [term], how="bad exit")
    return None


CLAIMS = (
    Claim(
        "server_answers",
        "In every window each worker's turn comes to answer a request, and every request is answered within the bound.",
        server_answers,
    ),
    Claim(
        "workers_boot",
        "Every worker slot boots within the bound, repeats included.",
        workers_boot,
    ),
    Claim(
        "clean_shutdown",
        "After TERM every process of the run is gone within graceful_timeout and a margin, none of them by SIGKILL.",
        clean_shutdown,
    ),
)
