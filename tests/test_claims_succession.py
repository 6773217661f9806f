"""Orphans and handovers, judged on histories of a few events."""

from __future__ import annotations

from typing import Any

import pytest
from histories import (
    ARBITER,
    WORKER,
    Events,
    begin,
    created,
    fault,
    gone,
    judged,
    key,
    process,
    ran,
    sample,
    scenario,
    seen,
    server,
    window,
    worker,
)

from forkproof.verdict import Verdict

HELD, BROKEN, UNKNOWN, NONE = Verdict.HELD, Verdict.BROKEN, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE
KILL = {"fault": "kill_worker", "slot": 0}
KILLED = scenario({"kind": "process"}, faults=[KILL])
LANDED = fault("kill_worker", 2.1, target=WORKER)
CHILD = 150


def orphans(*left: int, below: tuple[int, ...] = (CHILD,)) -> Events:
    told = [{"pid": pid, "start": pid, "command": "python"} for pid in left]
    below_keys = [key(pid) for pid in below]
    return seen(2.9, "orphans", index=0, ended=[key(WORKER)], below=below_keys, left=told, seconds=0.5)


def with_child() -> Events:
    return server() + process(CHILD, ppid=WORKER, t=0.5) + created("a", WORKER, kind="process") + begin("a", CHILD)


def test_what_lived_below_a_killed_worker_goes() -> None:
    finding = judged("no_orphan_process", KILLED, with_child(), LANDED, orphans())
    assert finding.verdict is HELD
    assert finding.explanation == "1 process below worker 0 (pid 110) went within 0.5s"


def test_what_lived_below_a_killed_worker_stays() -> None:
    finding = judged("no_orphan_process", KILLED, with_child(), LANDED, orphans(CHILD))
    assert (finding.verdict, finding.how) == (BROKEN, "left")
    assert finding.explanation == "1 process (child 0 (pid 150)) still alive 0.5s after worker 0 (pid 110) had ended"
    assert finding.evidence[0].event == "orphans"


def test_what_is_never_judged_may_stay() -> None:
    calm = scenario({"kind": "process", "policy": "best_effort"}, faults=[KILL])
    assert judged("no_orphan_process", calm, with_child(), LANDED, orphans(CHILD)).verdict is HELD


def test_nothing_lived_below_it() -> None:
    assert judged("no_orphan_process", KILLED, server(), LANDED).verdict is NONE


@pytest.mark.parametrize("faults", [[], [{"fault": "term"}], [{"fault": "usr1"}]], ids=str)
def test_nothing_is_killed(faults: list[dict[str, Any]]) -> None:
    assert judged("no_orphan_process", scenario(faults=faults), server(), window()).verdict is NONE


def test_the_kill_never_landed() -> None:
    failed = seen(2.1, "fault.fail", fault="kill_worker", index=0, error="no live worker in slot 0")
    assert judged("no_orphan_process", KILLED, server(), window(), failed).verdict is UNKNOWN


@pytest.mark.parametrize("kind", ["kill_arbiter", "int"])
def test_after_the_end_nothing_is_left(kind: str) -> None:
    what = scenario(faults=[{"fault": kind}])
    end = fault(kind, 2.1, target=ARBITER)
    assert judged("no_orphan_process", what, server(), end, seen(3.0, "stopped", seconds=0.9)).verdict is HELD
    left = seen(9.0, "left", processes=[{"pid": WORKER, "start": WORKER, "command": "gunicorn"}])
    finding = judged("no_orphan_process", what, server(), end, left)
    assert (finding.verdict, finding.how) == (BROKEN, "left")
    assert judged("no_orphan_process", what, server(), end).verdict is UNKNOWN


ONE = scenario({"policy": "once_per_service"}, faults=[KILL])
SINCE = seen(2.05, "fault.invoke", fault="kill_worker", index=0)
NEXT = 120


def taken_over(*, old_until: float = 1.9, new_from: float = 2.8) -> Events:
    """The loop ticks in the first worker up to a time, and in its successor from a time on."""
    events = server() + created("a", WORKER) + ran("a", WORKER) + window() + SINCE + LANDED
    events += worker(0, pid=NEXT, t=2.4) + created("b", NEXT, t=2.5) + begin("b", NEXT, t=2.6) + window(1)
    if old_until > 2:
        events += sample(2.2, WORKER, a=60) + sample(old_until, WORKER, a=90)
    return events + sample(new_from, NEXT, b=1) + sample(3.9, NEXT, b=60)


def test_one_after_the_other() -> None:
    finding = judged("handover_is_safe", ONE, taken_over(), gone(WORKER, 2.2))
    assert finding.verdict is HELD
    assert finding.explanation == (
        "never two holders through kill_worker at +2.10s, and then birth id b in worker 0 (pid 120)"
    )


def test_they_meet() -> None:
    finding = judged("handover_is_safe", ONE, taken_over(old_until=2.9, new_from=2.8), gone(WORKER, 2.95))
    assert (finding.verdict, finding.how) == (BROKEN, "two holders")
    assert "both ticked from +2.80s to +2.90s" in finding.explanation
    assert {event.get("birth") for event in finding.evidence} == {"a", "b", None}
    assert (finding.evidence[0].event, finding.evidence[0].pid) == ("loop.begin", NEXT)


def test_there_were_two_before() -> None:
    both = server() + created("a", ARBITER) + ran("a", ARBITER, 50, 50) + created("b", ARBITER) + window()
    both += ran("b", ARBITER, 50, 50) + SINCE + LANDED + window(1)
    turns = [
        one
        for t in (3.2, 3.4, 3.6)
        for one in (*sample(t, ARBITER, a=int(100 * t)), *sample(t + 0.1, ARBITER, b=int(100 * t)))
    ]
    finding = judged("handover_is_safe", ONE, both, turns)
    assert (finding.verdict, finding.how) == (BROKEN, "two holders")
    assert finding.evidence[0].event == "fault.ok", "what came before is no handover's"


def test_in_one_sample_they_need_not_have_met() -> None:
    finding = judged("handover_is_safe", ONE, taken_over(old_until=2.8, new_from=2.8), gone(WORKER, 2.9))
    assert finding.verdict is HELD


def test_a_holder_that_stays() -> None:
    stays = server() + created("a", ARBITER) + ran("a", ARBITER, 50, 50) + window() + SINCE + LANDED + window(1)
    assert judged("handover_is_safe", ONE, stays).verdict is HELD


def test_nobody_holds_it_again() -> None:
    lost = server() + created("a", WORKER) + ran("a", WORKER) + window() + SINCE + LANDED + gone(WORKER, 2.2)
    finding = judged("handover_is_safe", ONE, lost, worker(0, pid=NEXT, t=2.4), window(1))
    assert (finding.verdict, finding.how) == (BROKEN, "no holder")
    short = judged("handover_is_safe", ONE, lost, worker(0, pid=NEXT, t=2.4), window(1, control=3))
    assert short.verdict is UNKNOWN


def test_no_window_after_it() -> None:
    begun = server() + created("a", WORKER) + ran("a", WORKER) + window() + SINCE + LANDED
    assert judged("handover_is_safe", ONE, begun).verdict is UNKNOWN


def test_it_never_landed() -> None:
    assert judged("handover_is_safe", ONE, server(), window()).verdict is UNKNOWN


def test_what_knows_no_holder() -> None:
    assert judged("handover_is_safe", scenario(faults=[KILL]), server(), window()).verdict is NONE
    calm = scenario({"policy": "once_per_service"}, faults=[{"fault": "usr1"}])
    assert judged("handover_is_safe", calm, server(), window()).verdict is NONE
