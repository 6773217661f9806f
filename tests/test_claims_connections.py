"""Subscriptions that Redis counts and connections that two processes read, on histories of a few events."""

from __future__ import annotations

from typing import Any

import pytest
from histories import (
    ARBITER,
    WORKER,
    Events,
    arbiter,
    connection,
    created,
    handled,
    has,
    judged,
    look,
    numsub,
    published,
    scenario,
    seen,
    server,
    subscribed,
    window,
    worker,
)

from forkproof.scenario import Scenario
from forkproof.verdict import Verdict

NUMSUB = "subscriptions_match"
SHARED = "no_socket_shared_across_fork"


def listener(policy: str = "once_per_service", *, workers: int = 1, **more: Any) -> Scenario:
    return scenario({"body": "listen", "policy": policy, **more}, server={"workers": workers})


HEARD = created("1", WORKER) + subscribed("1", WORKER) + published(1.2, "m1") + handled(1.21, "m1", "1", WORKER)


# subscriptions_match


@pytest.mark.parametrize(
    ("policy", "workers", "count"),
    [
        ("once_per_service", 2, 1),
        ("arbiter_only", 2, 1),
        ("once_per_worker", 2, 2),
        ("inherit_allowed", 2, 1),
        ("inherit_allowed", 2, 3),
    ],
)
def test_redis_counts_what_the_policy_wants(policy: str, workers: int, count: int) -> None:
    found = judged(NUMSUB, listener(policy, workers=workers), server(workers), HEARD, window(), numsub(count))
    assert found.verdict is Verdict.HELD
    assert found.loop == "listen"
    assert "a message arrives" in found.explanation


@pytest.mark.parametrize(
    ("policy", "count", "how", "wish"),
    [
        ("once_per_service", 2, "too many", "once_per_service wants 1"),
        ("arbiter_only", 0, "none", "arbiter_only wants 1"),
        ("once_per_worker", 1, "too few", "once_per_worker wants one for each of 2 workers"),
        ("once_per_worker", 3, "too many", "once_per_worker wants one for each of 2 workers"),
        ("inherit_allowed", 0, "none", "inherit_allowed wants at least 1"),
    ],
)
def test_redis_counts_something_else(policy: str, count: int, how: str, wish: str) -> None:
    found = judged(NUMSUB, listener(policy, workers=2), server(2), HEARD, window(), numsub(count))
    assert (found.verdict, found.how) == (Verdict.BROKEN, how)
    assert f"{count} subscription" in found.explanation
    assert wish in found.explanation
    assert [event.event for event in found.evidence[:2]] == ["numsub.ok", "loop.created"]


def test_there_is_no_worker_that_could_subscribe() -> None:
    found = judged(NUMSUB, listener("once_per_worker"), arbiter(), HEARD, window(), numsub(1))
    assert found.verdict is Verdict.UNKNOWN
    assert judged(NUMSUB, listener(), arbiter(), HEARD, window(), numsub(2)).verdict is Verdict.BROKEN


def test_one_window_is_enough_to_break_it() -> None:
    later = published(3.2, "m2") + handled(3.21, "m2", "1", WORKER)
    found = judged(
        NUMSUB, listener(), server(), HEARD, later, window(0), window(1, after="kill"), numsub(1), numsub(2, 3.9)
    )
    assert found.how == "too many"
    assert "from +3.00s to +4.00s" in found.explanation


def test_a_subscription_through_which_nothing_comes() -> None:
    silent = created("1", WORKER) + subscribed("1", WORKER) + published(1.2, "m1") + published(1.3, "m2")
    found = judged(NUMSUB, listener(), server(), silent, window(), numsub(1))
    assert (found.verdict, found.how) == (Verdict.BROKEN, "nothing arrives")
    assert "none of 2 messages arrives" in found.explanation
    short = judged(NUMSUB, listener(), server(), silent, window(control=4), numsub(1))
    assert short.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (window(control=4) + numsub(0), "the control process made only 4 of 21 turns"),
        (window() + seen(1.9, "numsub.info", loop="listen", error="ConnectionError: lost"), "ConnectionError: lost"),
        (window(), "it was not asked"),
        (window() + numsub(1, loop="other"), "it was not asked"),
        ([], "no window was opened"),
    ],
)
def test_a_count_that_tells_nothing(events: Events, why: str) -> None:
    found = judged(NUMSUB, listener(), server(), HEARD, events)
    assert found.verdict is Verdict.UNKNOWN
    assert why in found.explanation


def test_a_count_without_a_message_that_could_have_come() -> None:
    found = judged(NUMSUB, listener(), server(), window(), numsub(1), published(1.995, "m1"))
    assert found.verdict is Verdict.UNKNOWN
    assert "no message shows that they hear" in found.explanation


def test_a_worker_that_came_inside_the_window() -> None:
    late = worker(1, pid=120, t=1.5)
    what = listener("once_per_worker", workers=2)
    found = judged(NUMSUB, what, server(1), HEARD, late, window(), numsub(1))
    assert found.verdict is Verdict.UNKNOWN
    assert "worker 1 (pid 120) began only inside the window" in found.explanation


@pytest.mark.parametrize("what", [scenario(), listener("best_effort")])
def test_nothing_to_count(what: Scenario) -> None:
    assert judged(NUMSUB, what, server(), window()).verdict is Verdict.NOT_APPLICABLE


# no_socket_shared_across_fork

TWO = listener("arbiter_only", workers=2)


def everyone_has(*inodes: int) -> Events:
    return has(ARBITER, *inodes) + has(WORKER, *inodes) + has(111, *inodes)


def test_two_processes_wait_on_one_connection() -> None:
    looks = look({ARBITER: [70], WORKER: [50, 70]}, 1.3) + look({ARBITER: [70], 111: [50]}, 1.5)
    kinds = connection(70) + connection(50, state="listening")
    found = judged(SHARED, TWO, server(2), kinds, everyone_has(50, 70), looks, window())
    assert (found.verdict, found.how, found.loop) == (Verdict.BROKEN, "waited on by two", None)
    assert found.explanation == (
        "the tcp connection 127.0.0.1:40000 to 127.0.0.1:6379 (inode 70) is waited on by 2 processes: "
        "arbiter (pid 100) in 2 and worker 0 (pid 110) in 1 of 2 looks from +1.00s to +2.00s"
    )
    assert [event.event for event in found.evidence] == ["waits", "waits", "socket"]


def test_they_need_not_be_caught_at_the_same_moment() -> None:
    looks = look({ARBITER: [70]}, 1.3) + look({WORKER: [70]}, 1.5)
    found = judged(SHARED, TWO, server(2), connection(70), everyone_has(70), looks, window())
    assert found.verdict is Verdict.BROKEN


def test_one_after_the_other_is_a_handover() -> None:
    first = look({ARBITER: [70]}, 1.3) + everyone_has(70)
    then = look({WORKER: [70]}, 3.3) + has(WORKER, 70, t=3.9)
    found = judged(SHARED, TWO, server(2), connection(70), first, then, window(0), window(1))
    assert found.verdict is Verdict.HELD


@pytest.mark.parametrize(("waiting", "told"), [({ARBITER: [70]}, "arbiter (pid 100)"), ({}, "nobody")])
def test_a_descriptor_that_a_child_only_inherited(waiting: dict[int, list[int]], told: str) -> None:
    found = judged(SHARED, TWO, server(2), connection(70), everyone_has(70), look(waiting), window())
    assert found.verdict is Verdict.HELD
    everyone = "arbiter (pid 100), worker 0 (pid 110) and worker 1 (pid 111)"
    assert f"is open in {everyone}, and {told} waits on it" in found.explanation
    short = judged(SHARED, TWO, server(2), connection(70), everyone_has(70), look(waiting), window(control=4))
    assert short.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("state", ["listening", "other"])
def test_what_is_no_live_connection_may_be_shared(state: str) -> None:
    looks = look({WORKER: [50], 111: [50]})
    both = connection(50, state=state) + connection(70)
    found = judged(SHARED, TWO, server(2), both, everyone_has(50), has(ARBITER, 50, 70), looks, window())
    assert found.verdict is Verdict.HELD
    assert found.explanation == "none of 1 connection is open in two processes"


def test_a_connection_that_died_later_was_alive_then() -> None:
    died = connection(70, state="other", t=3.5)
    looks = look({ARBITER: [70], WORKER: [70]}) + look({}, 3.3)
    found = judged(SHARED, TWO, server(2), connection(70), died, everyone_has(70), looks, window(0), window(1))
    assert found.verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (look({}, blind={WORKER: "[Errno 13] Permission denied"}) + everyone_has(70), "Permission denied"),
        (look({}) + seen(1.9, "resources", target="110-110", error="[Errno 13] no"), "[Errno 13] no"),
        (everyone_has(70), "nobody looked"),
        (look({}), "nobody looked"),
        (look({}) + everyone_has(50), "no process had a connection"),
    ],
)
def test_where_nothing_was_seen(events: Events, why: str) -> None:
    found = judged(SHARED, TWO, server(2), connection(70), events, window())
    assert found.verdict is Verdict.UNKNOWN
    assert why in found.explanation
    assert judged(SHARED, TWO, server(2), events).explanation.startswith("no window was opened")


def test_what_was_seen_counts_though_one_may_not_look_elsewhere() -> None:
    looks = look({ARBITER: [70], WORKER: [70]}, blind={111: "[Errno 13] Permission denied"})
    found = judged(SHARED, TWO, server(2), connection(70), everyone_has(70), looks, window())
    assert found.verdict is Verdict.BROKEN


def test_no_loop_with_a_connection() -> None:
    found = judged(SHARED, scenario(), server(), has(ARBITER, 70), connection(70), look({}), window())
    assert found.verdict is Verdict.NOT_APPLICABLE
    both = has(ARBITER, 70) + has(WORKER, 70) + connection(70) + look({ARBITER: [70], WORKER: [70]})
    assert judged(SHARED, scenario(), server(), both, window()).verdict is Verdict.BROKEN
