"""Whether a loop lives and gets its turns, on histories of a few events."""

from __future__ import annotations

from typing import Any

import pytest
from histories import (
    WORKER,
    Events,
    arbiter,
    begin,
    created,
    ended,
    exited,
    fault,
    gone,
    judged,
    log,
    process,
    published,
    ran,
    request,
    sample,
    scenario,
    seen,
    server,
    window,
    worker,
)

from forkproof.verdict import Verdict

DEAD = "no_dead_listener"
STARVED = "no_starved_greenlet"

LOOP = created("aa", WORKER) + ran("aa", WORKER)
SILENT = created("aa", WORKER) + begin("aa", WORKER)
COPY = created("aa", 100) + ran("aa", 100) + begin("aa", WORKER)
"""Alive in the arbiter; it began in the worker too, and stands still there."""
ANYWHERE = scenario({"policy": "once_per_service"})


def still(birth: str, pid: int) -> Events:
    return created(birth, pid) + begin(birth, pid)


# no_dead_listener


def test_alive_and_ticking() -> None:
    found = judged(DEAD, scenario(), server(), window(), LOOP, request(aa=True))
    assert found.verdict is Verdict.HELD
    assert "is_alive() was true for birth id aa in worker 0 (pid 110) at +1.50s, and it ticked 50" in found.explanation


def test_alive_and_silent() -> None:
    found = judged(DEAD, ANYWHERE, server(), window(), COPY, request(aa=True))
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == (
        "is_alive() was true for birth id aa in worker 0 (pid 110) at +1.50s, "
        "yet it did not tick there once from +1.00s to +2.00s"
    )
    assert found.evidence[0].event == "request.ok"


def test_alive_and_silent_in_a_short_window() -> None:
    found = judged(DEAD, ANYWHERE, server(), window(control=1), COPY, request(aa=True))
    assert found.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "late",
    [
        server() + created("aa", 100, t=1.4) + ran("aa", 100),
        arbiter() + worker(t=1.4) + created("aa", 100) + ran("aa", 100),
        server() + COPY + ended("aa", WORKER, 1.6),
    ],
    ids=["created in the window", "process began in the window", "ended in the window"],
)
def test_alive_and_silent_without_the_whole_window(late: Events) -> None:
    assert judged(DEAD, ANYWHERE, late, window(), request(aa=True)).verdict is Verdict.HELD


def test_alive_though_it_ended_before_the_window() -> None:
    events = server() + COPY + ended("aa", WORKER, 0.9)
    assert judged(DEAD, ANYWHERE, events, window(), request(aa=True)).verdict is Verdict.BROKEN


def test_a_waiting_loop_is_alive_and_silent_without_messages() -> None:
    hears = scenario({"policy": "once_per_service", "body": "listen"})
    events = server() + window() + COPY + request(aa=True)
    assert judged(DEAD, hears, events).verdict is Verdict.HELD
    assert judged(DEAD, hears, events, published(1.2, "m1")).verdict is Verdict.BROKEN


def test_dead_but_ticking() -> None:
    loop = SILENT + sample(1.4, WORKER, aa=5) + sample(1.6, WORKER, aa=6) + sample(1.8, WORKER, aa=9)
    found = judged(DEAD, scenario(), server(), window(control=1), loop, request(1.5, aa=False))
    assert found.verdict is Verdict.BROKEN
    assert found.explanation.startswith("is_alive() was false for birth id aa in worker 0 (pid 110) at +1.50s")
    assert "ticked 3 times" in found.explanation


def test_one_more_turn_is_enough() -> None:
    loop = SILENT + sample(1.6, WORKER, aa=6) + sample(1.8, WORKER, aa=7)
    found = judged(DEAD, scenario(), server(), window(control=1), loop, request(1.5, aa=False))
    assert found.how == "dead but ticking"


def test_a_last_turn_sampled_late_is_no_tick_of_the_dead() -> None:
    loop = SILENT + sample(1.4, WORKER, aa=5) + sample(1.51, WORKER, aa=6)
    assert judged(DEAD, scenario(), server(), window(), loop, request(1.5, aa=False)).verdict is Verdict.HELD


def test_a_loop_that_began_after_the_request_was_not_dead() -> None:
    loop = created("aa", WORKER) + begin("aa", WORKER, t=1.55) + sample(1.6, WORKER, aa=1) + sample(1.8, WORKER, aa=9)
    assert judged(DEAD, scenario(), server(), window(), loop, request(1.5, aa=False)).verdict is Verdict.HELD


def test_a_handle_that_cannot_tell_says_nothing() -> None:
    assert judged(DEAD, ANYWHERE, server(), window(), COPY, request(aa=None)).verdict is Verdict.HELD


def test_a_request_outside_of_the_windows_says_nothing() -> None:
    assert judged(DEAD, ANYWHERE, server(), window(), COPY, request(2.5, aa=True)).verdict is Verdict.HELD


def test_a_process_loop_is_compared_with_its_child() -> None:
    loop = scenario({"kind": "process"})
    child = process(200, ppid=WORKER, t=0.55) + created("aa", WORKER, kind="process")
    assert judged(DEAD, loop, server(), child, window(), ran("aa", 200), request(aa=True)).verdict is Verdict.HELD
    # Silent in the child: the log has a sign of it, but the handle still says alive.
    events = server() + child + window() + begin("aa", 200) + request(aa=True) + log(0.9, "Traceback (most recent")
    assert judged(DEAD, loop, events).verdict is Verdict.BROKEN


def test_silent_without_a_sign() -> None:
    found = judged(DEAD, scenario(), server(2), window(), LOOP)
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == (
        "silent in worker 1 (pid 111) from +1.00s to +2.00s: nothing in the log tells; "
        "it was created in worker 0 (pid 110) as aa"
    )
    assert found.evidence[0].event == "window.close"


@pytest.mark.parametrize(
    "sign",
    [
        log(0.9, "Traceback (most recent call last):"),
        log(0.9, "[2026-01-01] [110] [ERROR] Exception in worker process"),
        log(2.0, "<Greenlet at 0x7f: body> failed with ValueError"),
        exited(100, 1.9, 1),
    ],
)
def test_silent_with_a_sign_leaves_nothing_to_compare(sign: Events) -> None:
    found = judged(DEAD, scenario(), server(), window(), SILENT, sign)
    assert found.verdict is Verdict.UNKNOWN
    assert "nothing to compare: it was silent in worker 0 (pid 110)" in found.explanation


@pytest.mark.parametrize(
    "no_sign",
    [
        log(0.9, "[100] [WARNING] Exception of no weight"),
        log(2.1, "Traceback (most recent call last):"),
        log(0.9, "[100] [INFO] Booting worker with pid: 110"),
        fault("kill_worker", 0.3, target=109) + log(0.9, "[100] [ERROR] Worker (pid:109) was sent SIGKILL!"),
        exited(110, 0.9, 1),
    ],
)
def test_what_is_no_sign(no_sign: Events) -> None:
    assert judged(DEAD, scenario(), server(), window(), SILENT, no_sign).verdict is Verdict.BROKEN


def test_a_fault_explains_no_line_of_another_process() -> None:
    term = fault("term", 0.3, target=100) + fault("kill_worker", 0.3, target=109)
    events = term + log(0.9, "[100] [ERROR] Exception in worker 110")
    assert judged(DEAD, scenario(), server(), window(), SILENT, events).verdict is Verdict.UNKNOWN


def test_silent_in_a_short_window() -> None:
    found = judged(DEAD, scenario(), server(), window(control=2), SILENT)
    assert found.verdict is Verdict.UNKNOWN
    assert "2 of 18 turns" in found.explanation


@pytest.mark.parametrize("policy", ["once_per_service", "arbiter_only", "inherit_allowed"])
def test_silent_everywhere(policy: str) -> None:
    found = judged(DEAD, scenario({"policy": policy}), server(), window())
    assert found.verdict is Verdict.BROKEN
    assert "it was never created" in found.explanation


def test_no_worker_and_no_window_are_unknown() -> None:
    assert judged(DEAD, scenario(), arbiter(), window()).verdict is Verdict.UNKNOWN
    assert judged(DEAD, scenario(), server(), LOOP).verdict is Verdict.UNKNOWN


def test_best_effort_may_be_dead() -> None:
    found = judged(DEAD, scenario({"policy": "best_effort"}), server(), window(), SILENT, request(aa=True))
    assert found.verdict is Verdict.NOT_APPLICABLE


# no_starved_greenlet


GREENLETS = scenario({"kind": "greenlet"}, loops=[{"name": "busy", "kind": "greenlet"}])


def busy(ticks: int, pid: int = WORKER) -> Events:
    return created("bb", pid, loop="busy") + ran("bb", pid, ticks, loop="busy")


def test_a_loop_that_has_its_turns() -> None:
    found = judged(STARVED, GREENLETS, server(), window(), LOOP, busy(500))
    assert found.verdict is Verdict.HELD
    assert "50 turns in worker 0 (pid 110)" in found.explanation


def test_starved_by_another_loop() -> None:
    stack = seen(2.1, "stack", target="110-110", file="stacks/110-110.txt")
    found = judged(STARVED, GREENLETS, server(), window(), SILENT, busy(20), stack)
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == (
        "birth id aa stands still in worker 0 (pid 110) from +1.00s to +2.00s while loop 'busy' (birth id bb) "
        "had 20 turns in the same process; its stack is in stacks/110-110.txt"
    )
    assert [event.event for event in found.evidence][-1] == "stack"
    assert found.evidence[0].event == "window.close", "it was well when it was created"


def test_the_busiest_loop_is_named() -> None:
    third = created("cc", WORKER, loop="calm") + ran("cc", WORKER, 3, loop="calm")
    found = judged(STARVED, GREENLETS, server(), window(), SILENT, third, busy(200))
    assert "loop 'busy' (birth id bb) had 200 turns" in found.explanation


def test_another_loop_that_did_little_decides_nothing() -> None:
    found = judged(STARVED, GREENLETS, server(), window(), SILENT, busy(19))
    assert found.verdict is Verdict.UNKNOWN
    assert "had only 19 turns there, of 20 that tell" in found.explanation


def test_another_window_may_break_what_one_left_open() -> None:
    busy_later = created("bb", WORKER, loop="busy") + ran("bb", WORKER, 19, 20, loop="busy")
    found = judged(STARVED, GREENLETS, server(), window(0), window(1), SILENT, busy_later)
    assert found.verdict is Verdict.BROKEN
    assert "from +3.00s" in found.explanation


def test_nothing_ticks_in_the_whole_process() -> None:
    silent_too = created("cc", WORKER, loop="busy") + begin("cc", WORKER, loop="busy")
    found = judged(STARVED, GREENLETS, server(), window(), SILENT, busy(500, pid=100), silent_too)
    assert found.verdict is Verdict.BROKEN
    assert found.explanation.endswith(
        "a native call, or a main that never enters the hub, holds everything: 50 turns of the control process passed"
    )


def test_created_and_never_begun_stands_still() -> None:
    found = judged(STARVED, GREENLETS, server(), window(), created("aa", WORKER))
    assert found.verdict is Verdict.BROKEN
    assert "birth id aa never began in worker 0 (pid 110)" in found.explanation


def test_standing_still_in_a_short_window_decides_nothing() -> None:
    assert judged(STARVED, GREENLETS, server(), window(control=3), SILENT).verdict is Verdict.UNKNOWN


def test_a_copy_that_stands_still_is_judged_too() -> None:
    assert judged(STARVED, GREENLETS, server(), window(), COPY).verdict is Verdict.BROKEN


def test_a_thread_that_never_begins_in_a_child_is_no_pair() -> None:
    loop = created("aa", 100, t=0.15) + ran("aa", 100)
    assert judged(STARVED, scenario(), server(2), window(), loop).verdict is Verdict.HELD


@pytest.mark.parametrize(
    "excused",
    [
        server() + SILENT + ended("aa", WORKER, 1.5),
        server() + SILENT + gone(WORKER, 1.5),
        server() + created("aa", WORKER, t=1.2),
        arbiter() + worker(t=1.2) + created("aa", WORKER, t=0.9),
    ],
    ids=["ended", "process gone", "created in the window", "process began in the window"],
)
def test_a_pair_that_did_not_live_through_a_window_is_not_judged(excused: Events) -> None:
    found = judged(STARVED, GREENLETS, excused, window())
    assert found.verdict is Verdict.UNKNOWN
    assert "no window saw it from end to end" in found.explanation


def test_an_end_in_another_process_excuses_nothing() -> None:
    found = judged(STARVED, GREENLETS, server(), window(), COPY, ended("aa", 100, 0.9))
    assert found.verdict is Verdict.BROKEN


def test_a_loop_that_waits_for_messages_runs_only_with_them() -> None:
    hears = scenario({"kind": "greenlet", "body": "get_message"})
    found = judged(STARVED, hears, server(), window(), SILENT)
    assert found.verdict is Verdict.UNKNOWN
    assert "nothing to do" in found.explanation
    assert judged(STARVED, hears, server(), window(), SILENT, published(1.1, "m1")).verdict is Verdict.BROKEN
    other = published(1.1, "m1", loop="other")
    assert judged(STARVED, hears, server(), window(), SILENT, other).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("events", [[], window()])
def test_nothing_to_starve(events: Events) -> None:
    assert judged(STARVED, GREENLETS, server(), events).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("loop", [{"kind": "process"}, {"policy": "best_effort"}])
def test_loops_that_are_not_judged(loop: dict[str, Any]) -> None:
    assert judged(STARVED, scenario(loop), server(), window(), still("aa", WORKER)).verdict is Verdict.NOT_APPLICABLE


# More than one of something


def test_what_a_handle_says_counts_for_its_own_loop_alone() -> None:
    two = scenario(loops=[{"name": "other"}])
    said = seen(
        1.5,
        "request.ok",
        request=1,
        slot=0,
        worker="110-110",
        loops=[
            {"birth": "bb", "loop": "other", "alive": True},
            {"birth": "ff", "loop": "listen", "alive": True},
            {"birth": "aa", "loop": "listen", "alive": None},
        ],
    )
    silent_other = created("bb", WORKER, loop="other") + begin("bb", WORKER, loop="other")
    ticking = SILENT + sample(1.4, WORKER, aa=5) + sample(1.6, WORKER, aa=6) + sample(1.8, WORKER, aa=9)
    assert judged(DEAD, two, server(), window(), ticking, silent_other, said).verdict is Verdict.HELD


def test_an_end_elsewhere_or_of_another_loop_excuses_no_silence() -> None:
    ends = ended("aa", 100, 1.6) + ended("bb", WORKER, 1.6, loop="other")
    assert judged(DEAD, ANYWHERE, server(), window(), COPY, ends, request(aa=True)).verdict is Verdict.BROKEN


def test_ticking_everywhere_is_enough_without_requests() -> None:
    assert judged(DEAD, scenario(), server(), window(), LOOP).verdict is Verdict.HELD
    in_arbiter = created("aa", 100) + ran("aa", 100)
    assert judged(DEAD, ANYWHERE, arbiter(), window(), in_arbiter).verdict is Verdict.HELD


def test_the_end_of_another_loop_excuses_no_standing_still() -> None:
    rival = busy(5) + ended("bb", WORKER, 1.5, loop="busy")
    found = judged(STARVED, GREENLETS, server(), window(), created("aa", WORKER), rival)
    assert found.verdict is Verdict.UNKNOWN
    assert found.explanation.startswith("birth id aa never began in worker 0 (pid 110)")
    assert "had only 5 turns" in found.explanation
    elsewhere = ran("aa", 100)
    found = judged(STARVED, GREENLETS, server(), window(), created("aa", WORKER), elsewhere, rival)
    assert "birth id aa never began in worker 0 (pid 110)" in found.explanation


def test_why_there_is_nothing_to_starve() -> None:
    assert "no window was opened" in judged(STARVED, GREENLETS, server(), LOOP).explanation
    assert judged(STARVED, GREENLETS, server(), window()).explanation == "the loop was never created"
