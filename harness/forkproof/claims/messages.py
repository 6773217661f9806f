"""What becomes of each published message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from forkproof.claims.base import (
    Claim,
    Say,
    decides,
    fate,
    last_call,
    listing,
    meant,
    no_window,
    number,
    published,
    sent_after_subscribing,
    span,
    too_few,
    traces,
    who,
    worst,
)
from forkproof.history import Event, History, Window
from forkproof.scenario import Loop, Policy, Scenario
from forkproof.verdict import Finding, Verdict


@dataclass
class _Tally:
    """What the messages of one window came to."""

    passed: int = 0
    lost: list[tuple[Event, list[str]]] = field(default_factory=list)
    """Messages, and the places that did not handle them."""
    doubled: list[tuple[Event, list[Event]]] = field(default_factory=list)
    """Messages, and their handlings, those that are too many first."""


def every_message_handled_once(scenario: Scenario, history: History) -> list[Finding]:
    """One finding per loop."""
    return [_handled_once(scenario, history, loop) for loop in scenario.loops]


def _handled_once(scenario: Scenario, history: History, loop: Loop) -> Finding:
    say = Say("every_message_handled_once", loop.name)
    if not loop.hears_redis:
        return say.not_applicable(f"the body {loop.body.value!r} hears no messages")
    if loop.policy is Policy.BEST_EFFORT:
        return say.not_applicable("the policy best_effort is counted, never judged")
    if not history.windows:
        return say.unknown(no_window(history))
    finding = worst([_in_window(say, scenario, history, loop, window) for window in history.windows])
    if finding.verdict is Verdict.NOT_APPLICABLE:
        return say.unknown(f"no message could be judged: {finding.explanation}")
    return finding


def _in_window(say: Say, scenario: Scenario, history: History, loop: Loop, window: Window) -> Finding:
    heard = any(e["loop"] == loop.name and e.t <= window.closed for e in history.of("loop.subscribed"))
    messages = sent_after_subscribing(history, loop, window)
    if not messages:
        sent = published(history, loop, window)
        reason = f"{number(len(sent), 'message')}, none after the loop had subscribed" if sent else "no message"
        return say.not_applicable(f"{reason} {span(history, window)}")
    tally = _tally(scenario, history, loop, window, messages)
    of_all = f"of {number(len(messages), 'message')} {span(history, window)}"
    decisive = decides(scenario, window)
    problems, evidence = [], []
    if tally.lost and decisive:
        problems.append(_lost(tally))
        evidence += [event for event, _ in tally.lost]
        if loop.subscribes and not heard:
            problems.append(f"the loop never subscribed: {fate(history, loop, window.closed)}")
    if tally.doubled:
        problems.append(_doubled(history, tally))
        evidence[1:1] = tally.doubled[0][1]  # beside the first loss, so that the cut at the end spares it
        evidence += [event for _, handlings in tally.doubled[1:] for event in handlings]
    if problems:
        births = [birth.birth for birth in history.births_of(loop.name)]
        how = " and ".join(
            word for word, found in (("lost", tally.lost and decisive), ("doubled", tally.doubled)) if found
        )
        return say.broken(f"{of_all}: {'; '.join(problems)}", evidence[:14], traces(history, births), how=how)
    if not decisive:
        lost = _lost(tally) if tally.lost else "none seen lost or doubled"
        return say.unknown(f"{of_all}: {lost}, but {too_few(scenario, history, window)}", messages)
    if tally.passed == 0:
        return say.not_applicable(f"{of_all}: none that a process was there for, and had the time for")
    times = "at least once" if loop.policy is Policy.INHERIT_ALLOWED else "as often as the policy says"
    return say.held(f"{of_all}: {tally.passed} judged, each handled {times}", messages[:3])


def _tally(scenario: Scenario, history: History, loop: Loop, window: Window, messages: Sequence[Event]) -> _Tally:
    handled: dict[str, list[Event]] = {}
    for event in history.of("handled"):
        if event["loop"] == loop.name and event.t <= window.closed:
            handled.setdefault(event["message"], []).append(event)
    slots = [slot for slot, worker in history.live_workers(window).items() if worker.first <= window.opened]
    until = last_call(scenario, window)
    tally = _Tally()
    for message in messages:
        handlings = handled.get(message["message"], [])
        missing, extra = _compare(history, loop, sorted(slots), handlings)
        if extra:
            tally.doubled.append((message, extra + [event for event in handlings if event not in extra]))
        if missing and message.t <= until:
            tally.lost.append((message, missing))
        wanted = slots or loop.policy is not Policy.ONCE_PER_WORKER
        if wanted and not missing:
            tally.passed += 1
    return tally


def _compare(
    history: History, loop: Loop, slots: Sequence[int], handlings: Sequence[Event]
) -> tuple[list[str], list[Event]]:
    """The places that did not handle a message though they should, and the handlings that are too many."""
    if loop.competes and loop.policy is Policy.ONCE_PER_WORKER:
        own = [event for event in handlings if _in_place(history, loop, event)]
        return ([] if own else ["any worker"]), [event for event in handlings if event not in own[:1]]
    if loop.policy is not Policy.ONCE_PER_WORKER:
        extra = [] if loop.policy is Policy.INHERIT_ALLOWED else list(handlings[1:])
        return ([] if handlings else ["any process"]), extra
    extra, seen = [], set()
    for event in handlings:
        slot = history.processes[event.process].place.slot if _in_place(history, loop, event) else None
        if slot is None or slot in seen:
            extra.append(event)
        else:
            seen.add(slot)
    return [f"worker {slot}" for slot in slots if slot not in seen], extra


def _in_place(history: History, loop: Loop, handling: Event) -> bool:
    """Whether a message was handled where the policy wants the loop."""
    process = history.processes.get(handling.process)
    return process is not None and meant(loop, process)


def _lost(tally: _Tally) -> str:
    places = dict.fromkeys(place for _, missing in tally.lost for place in missing)
    first = tally.lost[0][0]
    told = f"{len(tally.lost)} lost, not handled in {listing(places)} (first: {first['message']}"
    receivers = first.get("receivers")
    return told + (")" if receivers is None else f", for which Redis counted {number(receivers, 'receiver')})")


def _doubled(history: History, tally: _Tally) -> str:
    message, handlings = tally.doubled[0]
    places = listing(sorted(who(history, event.process) for event in handlings))
    return f"{len(tally.doubled)} handled too often or elsewhere (first: {message['message']}, by {places})"


CLAIMS = (
    Claim(
        "every_message_handled_once",
        "Each published message is handled by as many loops as the policy says; loss and duplication are told apart.",
        every_message_handled_once,
    ),
)
