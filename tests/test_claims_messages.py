"""What becomes of messages, on histories of a few events."""

from __future__ import annotations

import pytest
from histories import (
    WORKER,
    Events,
    arbiter,
    created,
    event,
    gone,
    handled,
    judged,
    process,
    published,
    ran,
    scenario,
    server,
    subscribed,
    window,
    worker,
)

from forkproof.scenario import Scenario
from forkproof.verdict import Verdict

ONCE = "every_message_handled_once"


def hears(policy: str, **loop: str) -> Scenario:
    return scenario({"body": "listen", "policy": policy, **loop})


def listener(birth: str, pid: int) -> Events:
    return created(birth, pid) + ran(birth, pid) + subscribed(birth, pid)


def passed(message: str, t: float, *handlers: int) -> Events:
    """A message, handled by these pids a moment later."""
    return published(t, message) + [one for pid in handlers for one in handled(t + 0.01, message, "aa", pid)]


AA = listener("aa", WORKER)


@pytest.mark.parametrize("policy", ["once_per_service", "once_per_worker", "inherit_allowed"])
def test_each_is_handled_once(policy: str) -> None:
    found = judged(ONCE, hears(policy), server(), window(), AA, passed("m1", 1.1, WORKER), passed("m2", 1.2, WORKER))
    assert found.verdict is Verdict.HELD
    assert found.explanation.startswith("of 2 messages from +1.00s to +2.00s: 2 judged")


def test_arbiter_only_is_handled_once() -> None:
    loop = listener("aa", 100)
    assert judged(ONCE, hears("arbiter_only"), server(), window(), loop, passed("m1", 1.1, 100)).verdict is Verdict.HELD


@pytest.mark.parametrize("policy", ["once_per_service", "inherit_allowed", "arbiter_only"])
def test_a_loss(policy: str) -> None:
    found = judged(ONCE, hears(policy), server(), window(), AA, passed("m1", 1.1, WORKER), passed("m2", 1.2))
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == (
        "of 2 messages from +1.00s to +2.00s: 1 lost, not handled in any process "
        "(first: m2, for which Redis counted 1 receiver)"
    )
    assert found.evidence[0]["message"] == "m2"


def test_a_duplication() -> None:
    twice = passed("m1", 1.1, 100, WORKER) + passed("m2", 1.2, WORKER)
    found = judged(ONCE, hears("once_per_service"), server(), window(control=1), AA, twice)
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == (
        "of 2 messages from +1.00s to +2.00s: 1 handled too often or elsewhere "
        "(first: m1, by arbiter (pid 100) and worker 0 (pid 110))"
    )
    assert (found.evidence[0].event, found.evidence[0].pid) == ("handled", WORKER)


def test_copies_may_all_handle_a_message() -> None:
    twice = passed("m1", 1.1, 100, WORKER)
    assert judged(ONCE, hears("inherit_allowed"), server(), window(), AA, twice).verdict is Verdict.HELD


def test_loss_and_duplication_are_told_apart() -> None:
    found = judged(
        ONCE, hears("once_per_service"), server(), window(), AA, passed("m1", 1.1, 100, 110), passed("m2", 1.2)
    )
    assert "1 lost, not handled in any process (first: m2" in found.explanation
    assert "1 handled too often or elsewhere (first: m1" in found.explanation
    assert [event["message"] for event in found.evidence[:2]] == ["m2", "m1"]


def test_each_worker_handles_each_message() -> None:
    loops = AA + listener("bb", 111)
    both = server(2) + window() + loops
    assert judged(ONCE, hears("once_per_worker"), both, passed("m1", 1.1, 110, 111)).verdict is Verdict.HELD
    found = judged(ONCE, hears("once_per_worker"), both, passed("m1", 1.1, 110))
    assert found.verdict is Verdict.BROKEN
    assert "1 lost, not handled in worker 1 (first: m1" in found.explanation


@pytest.mark.parametrize("extra", [100, 110, 200])
def test_a_worker_handles_it_once_and_nobody_else_does(extra: int) -> None:
    child = process(200, ppid=WORKER, t=0.5)
    events = server() + child + window() + AA + passed("m1", 1.1, WORKER, extra)
    found = judged(ONCE, hears("once_per_worker"), events)
    assert found.verdict is Verdict.BROKEN
    assert "lost" not in found.explanation
    assert found.evidence[0].pid == extra


TWO = server(2) + AA + listener("bb", WORKER + 1) + window()


@pytest.mark.parametrize("policy", ["once_per_service", "once_per_worker", "arbiter_only", "inherit_allowed"])
def test_a_list_gives_each_message_to_one_of_those_who_wait(policy: str) -> None:
    messages = passed("m1", 1.1, WORKER) + passed("m2", 1.2, WORKER + 1)
    assert judged(ONCE, hears(policy, body="blpop"), TWO, messages).verdict is Verdict.HELD


@pytest.mark.parametrize(
    ("policy", "handlers", "how"),
    [
        ("once_per_worker", (), "lost"),
        ("once_per_worker", (WORKER, WORKER + 1), "doubled"),
        ("once_per_worker", (100,), "lost and doubled"),
        ("once_per_service", (100,), ""),
        ("inherit_allowed", (WORKER, WORKER + 1), ""),
    ],
)
def test_what_a_list_does_to_a_policy(policy: str, handlers: tuple[int, ...], how: str) -> None:
    found = judged(ONCE, hears(policy, body="blpop"), TWO, passed("m1", 1.1, *handlers))
    assert found.how == how
    assert "subscribed" not in found.explanation


def test_the_child_of_a_worker_handles_for_a_process_loop() -> None:
    child = process(200, ppid=WORKER, t=0.55) + created("aa", WORKER, kind="process") + subscribed("aa", 200)
    events = server() + child + window() + passed("m1", 1.1, 200)
    assert judged(ONCE, hears("once_per_worker", kind="process"), events).verdict is Verdict.HELD


def test_a_worker_that_died_need_not_have_handled_it() -> None:
    events = server(2) + gone(111, 1.5) + window() + AA + passed("m1", 1.1, WORKER)
    assert judged(ONCE, hears("once_per_worker"), events).verdict is Verdict.HELD


def test_a_worker_that_began_in_the_window_need_not_have_handled_it() -> None:
    events = server(1) + worker(1, t=1.05) + window() + AA + passed("m1", 1.1, WORKER)
    assert judged(ONCE, hears("once_per_worker"), events).verdict is Verdict.HELD


def test_messages_before_a_subscription_are_not_judged() -> None:
    late = created("bb", WORKER) + subscribed("bb", WORKER, 1.3)
    found = judged(ONCE, hears("once_per_service"), server(), window(), AA, late, passed("m1", 1.1))
    assert found.verdict is Verdict.UNKNOWN
    assert "1 message, none after the loop had subscribed" in found.explanation
    found = judged(ONCE, hears("once_per_service"), server(), window(), AA, late, passed("m1", 1.1), passed("m2", 1.4))
    assert found.explanation.startswith("of 1 message ")


def test_a_subscription_after_the_close_counts_for_later() -> None:
    late = created("bb", WORKER) + subscribed("bb", WORKER, 2.5)
    found = judged(ONCE, hears("once_per_service"), server(), window(), AA, late, passed("m1", 1.1))
    assert found.verdict is Verdict.BROKEN


def test_a_loop_that_never_subscribed_loses_everything() -> None:
    found = judged(ONCE, hears("once_per_service"), server(), window(), passed("m1", 1.1), passed("m2", 1.2))
    assert found.verdict is Verdict.BROKEN
    assert "2 lost" in found.explanation
    assert "the loop never subscribed: it was never created" in found.explanation


def test_handled_after_the_close_is_too_late() -> None:
    events = server() + window() + AA + published(1.1, "m1") + handled(2.1, "m1", "aa", WORKER)
    assert judged(ONCE, hears("once_per_service"), events).verdict is Verdict.BROKEN


def test_a_message_just_before_the_close_may_be_under_way() -> None:
    events = server() + window() + AA + passed("m1", 1.1, WORKER) + published(1.99, "m2")
    assert judged(ONCE, hears("once_per_service"), events).verdict is Verdict.HELD
    alone = server() + window() + AA + published(1.99, "m2")
    assert judged(ONCE, hears("once_per_service"), alone).verdict is Verdict.UNKNOWN


def test_a_slow_machine_has_longer_for_the_last_message() -> None:
    # 25 turns of 20 ms took a second: half speed, so that the gap of 35 ms becomes 70 ms.
    events = server() + AA + passed("m1", 1.1, WORKER) + published(1.95, "m2")
    assert judged(ONCE, hears("once_per_service"), events, window(control=25)).verdict is Verdict.HELD
    assert judged(ONCE, hears("once_per_service"), events, window(control=50)).verdict is Verdict.BROKEN


@pytest.mark.parametrize("handlers", [(), (WORKER,)])
def test_no_loss_can_be_told_in_a_short_window(handlers: tuple[int, ...]) -> None:
    found = judged(ONCE, hears("once_per_service"), server(), window(control=2), AA, passed("m1", 1.1, *handlers))
    assert found.verdict is Verdict.UNKNOWN
    assert "2 of " in found.explanation


def test_messages_of_other_loops_and_outside_of_windows_are_not_its_own() -> None:
    others = published(1.1, "x1", loop="other") + published(2.5, "m1")
    found = judged(ONCE, hears("once_per_service"), server(), window(), AA, others)
    assert found.verdict is Verdict.UNKNOWN
    assert "no message could be judged: no message from" in found.explanation


def test_unknown_without_workers_or_windows() -> None:
    assert judged(ONCE, hears("once_per_worker"), arbiter(), window(), passed("m1", 1.1)).verdict is Verdict.UNKNOWN
    assert judged(ONCE, hears("once_per_worker"), server(), AA, passed("m1", 1.1)).verdict is Verdict.UNKNOWN


def test_not_applicable() -> None:
    assert judged(ONCE, scenario(), server(), window()).verdict is Verdict.NOT_APPLICABLE
    lost = server() + window() + passed("m1", 1.1)
    assert judged(ONCE, hears("best_effort"), lost).verdict is Verdict.NOT_APPLICABLE


def test_only_messages_with_time_to_be_handled_are_judged() -> None:
    events = server() + window() + AA + passed("m1", 1.1, WORKER) + published(1.99, "m2")
    found = judged(ONCE, hears("once_per_service"), events)
    assert (
        found.explanation == "of 2 messages from +1.00s to +2.00s: 1 judged, each handled as often as the policy says"
    )
    assert "each handled at least once" in judged(ONCE, hears("inherit_allowed"), events).explanation


def test_the_arbiter_needs_no_workers_to_handle_messages() -> None:
    events = arbiter() + window() + listener("aa", 100) + passed("m1", 1.1, 100)
    assert judged(ONCE, hears("once_per_service"), events).verdict is Verdict.HELD


def test_another_loop_subscribes_and_handles_for_itself() -> None:
    two = scenario({"body": "listen", "policy": "once_per_service"}, loops=[{"name": "other", "body": "listen"}])
    late = [
        event(1.5, WORKER, "loop.subscribed", loop="other", birth="bb"),
        event(1.6, WORKER, "handled", loop="other", birth="bb", message="m1"),
    ]
    found = judged(ONCE, two, server(), window(), AA, passed("m1", 1.1), late)
    assert found.verdict is Verdict.BROKEN


def test_a_process_that_nobody_knows_is_elsewhere() -> None:
    found = judged(ONCE, hears("once_per_worker"), server(), window(), AA, passed("m1", 1.1, WORKER, 300))
    assert found.verdict is Verdict.BROKEN
    assert "by unknown process (pid 300) and worker 0 (pid 110)" in found.explanation
