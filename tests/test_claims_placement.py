"""Where a loop runs, on histories of a few events."""

from __future__ import annotations

import pytest
from histories import (
    ARBITER,
    WORKER,
    Events,
    arbiter,
    begin,
    created,
    ended,
    gone,
    history,
    judged,
    process,
    published,
    ran,
    sample,
    scenario,
    seen,
    server,
    window,
    worker,
)

from forkproof.claims import REGISTRY
from forkproof.judge import first_bad
from forkproof.verdict import Verdict

ONE = "exactly_one_listener"
COPY = "no_copied_thread"

SERVICE = {"policy": "once_per_service"}
WORKERS = {"policy": "once_per_worker"}
IN_ARBITER = {"policy": "arbiter_only"}
INHERIT = {"policy": "inherit_allowed"}
BEST = {"policy": "best_effort"}


def test_once_per_service_holds_in_one_place() -> None:
    found = judged(ONE, scenario(SERVICE), server(2), window(), created("aa", 100), ran("aa", ARBITER))
    assert found.verdict is Verdict.HELD
    assert found.explanation == "ticked where it is meant to in 1 window; in the last one: arbiter (pid 100)"


def test_a_copy_in_a_worker_is_a_second_listener() -> None:
    birth = "3fa0c1d2e5"
    found = judged(
        ONE, scenario(SERVICE), server(1), window(), created(birth, 100), ran(birth, ARBITER), ran(birth, WORKER)
    )
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == (
        "2 listeners alive from +1.00s to +2.00s: arbiter (pid 100) and worker 0 (pid 110), "
        "the same birth id 3fa0c1d2: copied by a fork; exactly one is meant to run, anywhere"
    )
    assert (found.evidence[0].event, found.evidence[0].pid) == ("loop.begin", WORKER)
    assert {event.event for event in found.evidence} >= {"loop.created", "loop.begin", "window.close"}


def test_started_twice_is_told_from_copied() -> None:
    twice = created("aa", 110) + ran("aa", 110) + created("bb", 111) + ran("bb", 111)
    found = judged(ONE, scenario(SERVICE), server(2), window(), twice)
    assert found.verdict is Verdict.BROKEN
    assert "the birth ids aa and bb: started 2 times" in found.explanation
    assert "copied" not in found.explanation
    assert (found.evidence[0].event, found.evidence[0].pid) == ("loop.begin", 111), "one alone is as it is meant to be"


def test_where_one_is_missing_the_others_are_not_the_first_that_is_bad() -> None:
    found = judged(ONE, scenario(WORKERS), server(2), window(), created("aa", 110), ran("aa", 110))
    assert (found.verdict, found.how) == (Verdict.BROKEN, "zero")
    assert found.evidence[0].event == "window.close"


def test_one_in_each_worker_and_a_second_in_one_of_them() -> None:
    each = scenario({"policy": "once_per_worker"})
    there = created("aa", 110) + ran("aa", 110) + created("bb", 111) + ran("bb", 111)
    more = created("cc", 111, t=0.8) + begin("cc", 111, t=0.9) + ran("cc", 111)[1:]
    found = judged(ONE, each, server(2), window(), there, more)
    assert (found.verdict, found.how) == (Verdict.BROKEN, "double")
    assert found.evidence[0]["birth"] == "cc"


def test_one_worker_of_two_has_none() -> None:
    each = scenario({"policy": "once_per_worker"})
    there = [*server(2), *window(), *created("aa", 110), *ran("aa", 110)]
    for begun in ([*created("bb", 111), *begin("bb", 111)], []):
        events = history(there, begun)
        (found,) = REGISTRY[ONE].check(each, events)
        assert (found.verdict, found.how) == (Verdict.BROKEN, "zero")
        assert found.evidence[0].event == "window.close"
        first, places = first_bad(events, found)
        assert (first.event, places) == ("window.open", ("111-111",)), "not the worker that has one"


def test_started_twice_and_copied() -> None:
    events = created("aa", 100) + ran("aa", 100) + ran("aa", 110) + created("bb", 110) + ran("bb", 110)
    found = judged(ONE, scenario(SERVICE), server(1), window(), events)
    assert "3 listeners" in found.explanation
    assert "started 2 times and copied by a fork" in found.explanation


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([], "it was never created"),
        (created("aa", 100), "it was created in arbiter (pid 100) as aa and never began"),
        (created("aa", 100) + begin("aa", 100), "it was created in arbiter (pid 100) as aa"),
        (
            created("aa", 100) + begin("aa", 100) + ended("aa", 100, 0.9, error="OSError: no"),
            "and ended in arbiter (pid 100) at +0.90s with OSError: no",
        ),
    ],
)
def test_no_listener_says_what_became_of_it(events: Events, why: str) -> None:
    found = judged(ONE, scenario(SERVICE), server(1), window(), events)
    assert found.verdict is Verdict.BROKEN
    assert found.explanation.startswith(
        "no listener in any process from +1.00s to +2.00s (50 turns of the control process)"
    )
    assert why in found.explanation
    assert found.evidence[0].event == "window.close"


def test_absence_in_a_short_window_decides_nothing() -> None:
    found = judged(ONE, scenario(SERVICE), server(1), window(control=17), created("aa", 100))
    assert found.verdict is Verdict.UNKNOWN
    assert "the control process made only 17 of 18 turns" in found.explanation


def test_the_last_turn_makes_a_window_decisive() -> None:
    found = judged(ONE, scenario(SERVICE), server(1), window(control=18), created("aa", 100))
    assert found.verdict is Verdict.BROKEN


def test_the_supervisors_own_turns_decide_nothing() -> None:
    mostly_its_own = seen(1.0, "window.open", window=0, after="boot", healed=True)
    mostly_its_own += seen(2.0, "window.close", window=0, turns=50, control=17)
    found = judged(ONE, scenario(SERVICE), server(1), mostly_its_own, created("aa", 100))
    assert found.verdict is Verdict.UNKNOWN


def test_two_listeners_in_a_short_window_are_too_many() -> None:
    both = created("aa", 100) + ran("aa", 100) + ran("aa", 110)
    assert judged(ONE, scenario(SERVICE), server(1), window(control=1), both).verdict is Verdict.BROKEN


def test_one_listener_in_a_short_window_may_have_company() -> None:
    found = judged(ONE, scenario(SERVICE), server(1), window(control=1), created("aa", 100), ran("aa", 100))
    assert found.verdict is Verdict.UNKNOWN
    assert "another listener need not have shown" in found.explanation


def test_the_worst_window_wins() -> None:
    loop = created("aa", 100) + ran("aa", 100, 50, 0)
    found = judged(ONE, scenario(SERVICE), server(1), window(0), window(1), loop)
    assert found.verdict is Verdict.BROKEN
    assert "from +3.00s to +4.00s" in found.explanation


def test_no_window_is_unknown() -> None:
    found = judged(ONE, scenario(SERVICE), server(1), created("aa", 100), ran("aa", 100))
    assert found.verdict is Verdict.UNKNOWN
    assert "no window was opened" in found.explanation


def test_a_listener_that_waits_for_messages_may_stand_still_without_them() -> None:
    hears = scenario({**SERVICE, "body": "listen"})
    silent = server(1) + window() + created("aa", 100) + begin("aa", 100)
    assert judged(ONE, hears, silent).verdict is Verdict.UNKNOWN
    assert judged(ONE, hears, silent, published(1.2, "m1")).verdict is Verdict.BROKEN


def test_once_per_worker_holds() -> None:
    each = created("aa", 110) + ran("aa", 110) + created("bb", 111) + ran("bb", 111)
    found = judged(ONE, scenario(WORKERS), server(2), window(), each)
    assert found.verdict is Verdict.HELD
    assert "worker 0 (pid 110) and worker 1 (pid 111)" in found.explanation


def test_once_per_worker_names_the_silent_worker() -> None:
    found = judged(ONE, scenario(WORKERS), server(2), window(), created("aa", 110), ran("aa", 110))
    assert found.verdict is Verdict.BROKEN
    assert found.explanation.startswith("no listener in worker 1 (pid 111) from +1.00s")


def test_once_per_worker_allows_none_in_the_arbiter() -> None:
    copied = created("aa", 100) + ran("aa", 100) + ran("aa", 110)
    found = judged(ONE, scenario(WORKERS), server(1), window(), copied)
    assert found.verdict is Verdict.BROKEN
    assert (found.evidence[0].event, found.evidence[0].pid) == ("loop.begin", ARBITER)


def test_once_per_worker_allows_one_a_slot() -> None:
    twice = created("aa", 110) + ran("aa", 110) + created("bb", 110) + ran("bb", 110)
    assert judged(ONE, scenario(WORKERS), server(1), window(), twice).verdict is Verdict.BROKEN


def test_once_per_worker_allows_none_in_a_child_of_the_worker() -> None:
    child = process(200, ppid=110, t=0.7)
    copied = created("aa", 110) + ran("aa", 110) + ran("aa", 200)
    found = judged(ONE, scenario(WORKERS), server(1), child, window(), copied)
    assert found.verdict is Verdict.BROKEN
    assert "child 0 (pid 200)" in found.explanation


def test_once_per_worker_without_a_worker_is_unknown() -> None:
    found = judged(ONE, scenario(WORKERS), arbiter(), window())
    assert found.verdict is Verdict.UNKNOWN
    assert "no worker was alive" in found.explanation


def test_a_worker_that_died_is_not_expected_to_have_one() -> None:
    events = server(2) + gone(111, 1.5) + window() + created("aa", 110) + ran("aa", 110)
    assert judged(ONE, scenario(WORKERS), events).verdict is Verdict.HELD


def test_a_worker_that_began_inside_the_window_need_not_have_one_yet() -> None:
    events = server(1) + worker(1, t=1.8) + window() + created("aa", 110) + ran("aa", 110)
    found = judged(ONE, scenario(WORKERS), events)
    assert found.verdict is Verdict.UNKNOWN
    assert "worker 1 (pid 111) began only inside the window" in found.explanation


def test_ticks_of_a_process_that_ended_inside_the_window_count() -> None:
    copied = created("aa", 100) + ran("aa", 100) + begin("aa", 110) + sample(1.2, 110, aa=9)
    assert judged(ONE, scenario(SERVICE), server(1), gone(110, 1.4), window(), copied).verdict is Verdict.BROKEN


def test_a_process_that_ended_before_the_window_does_not_count() -> None:
    # Its last count may be sampled after it is gone, and so lie in the window.
    copied = created("aa", 100) + ran("aa", 100) + begin("aa", 110) + sample(1.2, 110, aa=9)
    assert judged(ONE, scenario(SERVICE), server(1), gone(110, 0.9), window(), copied).verdict is Verdict.HELD


def successor(first_tick: float) -> Events:
    """Worker 0 dies at 1.5 s, and pid 120 takes its slot."""
    old = created("aa", 110) + begin("aa", 110) + sample(1.3, 110, aa=9) + gone(110, 1.5)
    new = worker(0, pid=120, t=1.35) + created("bb", 120, t=1.36) + begin("bb", 120, t=1.37)
    return server(1) + window() + old + new + sample(first_tick, 120, bb=3)


def test_a_successor_that_ticks_afterwards_is_no_second_listener() -> None:
    assert judged(ONE, scenario(WORKERS), successor(1.6)).verdict is Verdict.HELD


def test_a_successor_that_ticks_beside_its_predecessor_is_a_second_listener() -> None:
    assert judged(ONE, scenario(WORKERS), successor(1.4)).verdict is Verdict.BROKEN


@pytest.mark.parametrize(("policy", "creator", "parent"), [(WORKERS, 110, 110), (IN_ARBITER, 100, 100)])
def test_the_body_of_a_process_loop_runs_in_a_child(policy: dict[str, str], creator: int, parent: int) -> None:
    loop = scenario({**policy, "kind": "process"})
    child = process(200, ppid=parent, t=0.55)
    body = created("aa", creator, kind="process")
    assert judged(ONE, loop, server(1), child, window(), body, ran("aa", 200)).verdict is Verdict.HELD
    assert judged(ONE, loop, server(1), child, window(), body, ran("aa", creator)).verdict is Verdict.BROKEN


def test_arbiter_only() -> None:
    assert judged(ONE, scenario(IN_ARBITER), server(1), window(), created("aa", 100), ran("aa", 100)).verdict is (
        Verdict.HELD
    )


def test_arbiter_only_elsewhere() -> None:
    found = judged(ONE, scenario(IN_ARBITER), server(1), window(), created("aa", 110), ran("aa", 110))
    assert found.verdict is Verdict.BROKEN
    assert "1 listener alive from +1.00s to +2.00s: worker 0 (pid 110), birth id aa" in found.explanation
    assert "no listener in arbiter (pid 100)" in found.explanation


def test_arbiter_only_also_elsewhere() -> None:
    copied = created("aa", 100) + ran("aa", 100) + ran("aa", 110)
    assert judged(ONE, scenario(IN_ARBITER), server(1), window(control=1), copied).verdict is Verdict.BROKEN


def test_inherit_allowed() -> None:
    copied = created("aa", 100) + ran("aa", 100) + ran("aa", 110)
    assert judged(ONE, scenario(INHERIT), server(1), window(), copied).verdict is Verdict.HELD
    assert judged(ONE, scenario(INHERIT), server(1), window(control=1), copied).verdict is Verdict.HELD
    assert judged(ONE, scenario(INHERIT), server(1), window()).verdict is Verdict.BROKEN


def test_best_effort_is_never_judged() -> None:
    found = judged(ONE, scenario(BEST), server(1), window())
    assert found.verdict is Verdict.NOT_APPLICABLE
    assert found.explanation


# no_copied_thread


def test_a_copy_is_broken_even_without_a_window() -> None:
    found = judged(COPY, scenario(SERVICE), server(1), created("aa", 100, t=0.15), ran("aa", 100), ran("aa", 110))
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == (
        "birth id aa, created in arbiter (pid 100), also ticked in worker 0 (pid 110): copied by a fork"
    )
    assert (found.evidence[0].event, found.evidence[0].pid) == ("loop.begin", WORKER)


def test_a_greenlet_that_begins_only_after_the_fork_is_a_copy() -> None:
    found = judged(COPY, scenario(WORKERS), server(1), window(), created("aa", 100, t=0.15), ran("aa", 110))
    assert found.verdict is Verdict.BROKEN


def test_one_turn_of_a_copy_is_enough() -> None:
    once = created("aa", 100, t=0.15) + ran("aa", 100) + ran("aa", 110, w0=1)
    assert judged(COPY, scenario(SERVICE), server(1), window(), once).verdict is Verdict.BROKEN


def test_started_again_is_no_copy() -> None:
    loops = created("aa", 100, t=0.15) + ran("aa", 100) + created("bb", 110) + ran("bb", 110)
    found = judged(COPY, scenario(SERVICE), server(1), window(), loops)
    assert found.verdict is Verdict.HELD
    assert "aa ticked in arbiter (pid 100) only; 1 fork came after" in found.explanation


def test_a_fork_before_the_creation_copies_nothing() -> None:
    found = judged(COPY, scenario(WORKERS), server(2), window(), created("aa", 110), ran("aa", 110))
    assert found.verdict is Verdict.NOT_APPLICABLE
    assert "nothing was forked by worker 0 (pid 110) after it was created" in found.explanation


def test_a_fork_after_the_creation_makes_it_applicable() -> None:
    child = process(200, ppid=110, t=0.7)
    found = judged(COPY, scenario(WORKERS), server(1), child, window(), created("aa", 110), ran("aa", 110))
    assert found.verdict is Verdict.HELD


def test_a_pid_used_again_is_another_parent() -> None:
    stranger = process(200, ppid=110, t=0.9)
    loop = created("aa", 110) + ran("aa", 110)
    found = judged(COPY, scenario(WORKERS), server(1), gone(110, 0.8), stranger, window(), loop)
    assert found.verdict is Verdict.NOT_APPLICABLE


def test_no_copy_needs_a_decisive_window() -> None:
    loop = created("aa", 100, t=0.15) + ran("aa", 100)
    assert judged(COPY, scenario(SERVICE), server(1), loop).verdict is Verdict.UNKNOWN
    assert judged(COPY, scenario(SERVICE), server(1), window(control=2), loop).verdict is Verdict.UNKNOWN
    late = arbiter() + worker(0, t=1.5) + window() + loop
    assert judged(COPY, scenario(SERVICE), late).verdict is Verdict.UNKNOWN


def test_a_loop_that_never_ticked_cannot_show_a_copy() -> None:
    found = judged(COPY, scenario(SERVICE), server(1), window(), created("aa", 100, t=0.15))
    assert found.verdict is Verdict.UNKNOWN
    assert "never ticked anywhere" in found.explanation


def test_never_created_is_unknown() -> None:
    found = judged(COPY, scenario(SERVICE), server(1), window())
    assert found.verdict is Verdict.UNKNOWN
    assert found.explanation == "the loop was never created"


@pytest.mark.parametrize("policy", [INHERIT, BEST])
def test_policies_that_allow_copies(policy: dict[str, str]) -> None:
    copied = created("aa", 100, t=0.15) + ran("aa", 100) + ran("aa", 110)
    assert judged(COPY, scenario(policy), server(1), window(), copied).verdict is Verdict.NOT_APPLICABLE


def test_a_process_loop_is_no_copy_of_itself() -> None:
    loop = scenario({**SERVICE, "kind": "process"})
    body = created("aa", 100, t=0.12, kind="process") + process(200, ppid=100, t=0.13) + ran("aa", 200)
    assert judged(COPY, loop, arbiter(), window(), body).verdict is Verdict.NOT_APPLICABLE
    assert judged(COPY, loop, server(1), window(), body).verdict is Verdict.HELD
    found = judged(COPY, loop, server(1), window(), body, ran("aa", 110))
    assert found.verdict is Verdict.BROKEN


# More than one of something


def other_loop(pid: int) -> Events:
    """Another loop that had its whole life in a process."""
    life = created("dd", pid, loop="other") + ran("dd", pid, loop="other")
    return life + ended("dd", pid, 2.0, error="OSError: x", loop="other")


def test_a_child_of_a_fork_server_belongs_to_the_process_that_started_it() -> None:
    afresh = {**WORKERS, "kind": "process_forkserver"}
    child = process(120, ppid=95, t=0.6) + created("aa", 110, kind="process_forkserver") + ran("aa", 120)
    assert judged(ONE, scenario(afresh), server(1), child, window()).verdict is Verdict.HELD


def test_nothing_is_copied_into_a_new_interpreter() -> None:
    spawned = process(120, ppid=WORKER, t=0.6) + created("bb", 110, loop="other", kind="process_spawn")
    spawned += begin("bb", 120, loop="other")
    what = scenario(WORKERS, loops=[{"name": "other", "kind": "process_spawn"}])
    found = judged(COPY, what, server(1), spawned, created("aa", 110), ran("aa", 110), window())
    assert found.verdict is Verdict.NOT_APPLICABLE


def test_another_loop_is_not_taken_for_this_one() -> None:
    two = scenario(SERVICE, loops=[{"name": "other"}])
    found = judged(ONE, two, server(1), window(), created("aa", 100), other_loop(WORKER))
    assert found.explanation == (
        "no listener in any process from +1.00s to +2.00s (50 turns of the control process); "
        "it was created in arbiter (pid 100) as aa and never began; exactly one is meant to run, anywhere"
    )
    assert [event["birth"] for event in found.evidence if event.event.startswith("loop.")] == ["aa"]


def test_what_came_after_the_window_does_not_explain_it() -> None:
    later = created("aa", 100, t=2.5) + begin("aa", 100, t=2.6) + ended("aa", 100, 2.7)
    assert "it was never created" in judged(ONE, scenario(SERVICE), server(1), window(), later).explanation
    later = created("aa", 100) + begin("aa", 100, t=2.6) + ended("aa", 100, 2.7)
    assert "as aa and never began;" in judged(ONE, scenario(SERVICE), server(1), window(), later).explanation


def test_a_silent_worker_is_not_excused_by_one_that_began_late() -> None:
    found = judged(ONE, scenario(WORKERS), server(1), worker(1, t=1.5), window())
    assert found.verdict is Verdict.BROKEN
    assert "no listener in worker 0 (pid 110) from" in found.explanation


def test_a_process_loop_beside_the_one_that_is_meant() -> None:
    children = process(200, ppid=100, t=0.55) + process(210, ppid=110, t=0.55)
    bodies = created("aa", 100, kind="process") + created("bb", 110, kind="process")
    events = server(1) + children + window() + bodies
    for policy in (WORKERS, IN_ARBITER):
        found = judged(ONE, scenario({**policy, "kind": "process"}), events, ran("aa", 200), ran("bb", 210))
        assert "2 listeners" in found.explanation
    found = judged(ONE, scenario({**IN_ARBITER, "kind": "process"}), events, ran("bb", 210))
    assert found.verdict is Verdict.BROKEN


def test_many_places_are_cut_short() -> None:
    copies = [event for pid in range(300, 308) for event in process(pid, ppid=110, t=0.55) + ran("aa", pid)]
    found = judged(ONE, scenario(SERVICE), server(1), window(), created("aa", 110), copies)
    assert "8 listeners alive" in found.explanation
    assert "child 0 (pid 305) and 2 more, the same" in found.explanation


def test_a_fork_of_another_process_copies_nothing() -> None:
    stranger = process(200, ppid=111, t=0.9)
    loop = created("aa", 110) + ran("aa", 110)
    assert judged(COPY, scenario(WORKERS), server(2), stranger, window(), loop).verdict is Verdict.NOT_APPLICABLE


def test_workers_that_were_forked_before_the_creation_copy_nothing() -> None:
    loop = created("aa", 100, t=0.5) + ran("aa", 100)
    assert judged(COPY, scenario(SERVICE), server(2), window(), loop).verdict is Verdict.NOT_APPLICABLE


def test_a_copy_that_never_ticks_is_none() -> None:
    loop = created("aa", 100, t=0.15) + ran("aa", 100) + begin("aa", WORKER)
    assert judged(COPY, scenario(SERVICE), server(1), window(), loop).verdict is Verdict.HELD


def test_a_child_that_died_in_the_window_was_not_seen_long_enough() -> None:
    loop = created("aa", 100, t=0.15) + ran("aa", 100)
    assert judged(COPY, scenario(SERVICE), server(1), gone(110, 1.5), window(), loop).verdict is Verdict.UNKNOWN


def test_a_child_outlives_its_parent() -> None:
    child = process(200, ppid=110, t=0.7) + gone(110, 2.5)
    loop = created("aa", 110) + ran("aa", 110)
    assert judged(COPY, scenario(WORKERS), server(1), child, window(), loop).verdict is Verdict.HELD


def test_a_process_loop_that_never_ticked() -> None:
    loop = scenario({**SERVICE, "kind": "process"})
    body = created("aa", 100, t=0.12, kind="process")
    assert judged(COPY, loop, server(1), window(), body).verdict is Verdict.UNKNOWN
