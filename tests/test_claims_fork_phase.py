"""`no_lock_held_at_fork` and `no_half_imported_module` on hand-written histories."""

from __future__ import annotations

from typing import Any

import pytest
from histories import (
    ARBITER,
    WORKER,
    Events,
    begin,
    created,
    event,
    gone,
    hook,
    judged,
    key,
    ran,
    request,
    scenario,
    seen,
    server,
    window,
)

from forkproof.scenario import Scenario
from forkproof.verdict import Verdict

LOCK = "no_lock_held_at_fork"
MODULE = "no_half_imported_module"
THREAD = {"thread": "listen", "at": "/app/work.py:7 in take"}
IN_LOCK = "/app/work.py:9 in request"
IN_IMPORT = ["<frozen importlib._bootstrap>:120 in acquire", "<frozen importlib._bootstrap>:224 in _lock_unlock_module"]


def parked(at: str = "lock", who: str = "listen") -> Scenario:
    return scenario({"start": "config_import"}, parks=[{"who": who, "at": at}])


def fork(
    *beside: dict[str, Any], pid: int = WORKER, imports: tuple[str, ...] = (), locks: tuple[str, ...] = ()
) -> Events:
    found = {"parent": ARBITER, "beside": list(beside), "imports": list(imports), "locks": list(locks)}
    return [event(0.21, pid, "fork", **found)]


def stood(at: str = "lock", **fields: Any) -> Events:
    fields = {"park": 0, "who": "listen", "at": at, "fork": 0, **fields}
    return [event(0.15, ARBITER, "park.failed" if "reason" in fields else "park.reached", **fields)]


def use(at: str = "lock", *, pid: int = WORKER, t: float = 0.8) -> Events:
    return [event(t, pid, "park.use", park=0, who="listen", at=at)]


def used(at: str = "lock", *, error: str | None = None) -> Events:
    return [event(0.9, WORKER, "park.used", park=0, who="listen", at=at, error=error)]


def stack(*frames: str, waits: tuple[str, ...] = ("lock",)) -> Events:
    threads = [list(frames)] * len(waits)
    return seen(2.1, "stack", target=key(WORKER), file="stacks/110.txt", threads=threads, waits=list(waits))


def test_a_worker_that_never_comes_back_from_what_it_uses() -> None:
    finding = judged(LOCK, parked(), server(), fork(THREAD), stood(), use(), window(), stack(IN_LOCK))
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "blocks on a lock")
    assert finding.evidence[0].event == "park.use"
    assert "worker 0 (pid 110) waits for ever, in work.py:9 in request (stacks/110.txt)" in finding.explanation
    assert "thread 'listen' stood in work.py:7 in take when it was forked" in finding.explanation


def test_a_stack_alone_tells_of_a_process_with_one_thread() -> None:
    finding = judged(LOCK, scenario(), server(), fork(THREAD), window(), stack(IN_LOCK))
    assert finding.how == "blocks on a lock"
    assert judged(MODULE, scenario(), server(), fork(THREAD), window(), stack(IN_LOCK)).verdict is Verdict.HELD


@pytest.mark.parametrize(
    "events",
    [
        [fork(THREAD), stack(IN_LOCK, waits=("lock", "other"))],  # another thread may give it
        [fork(THREAD), stack("/lib/multiprocessing/synchronize.py:95 in __enter__")],  # another process may
        [fork(THREAD), stack()],
        [fork(), stack(IN_LOCK)],  # nobody was left behind who could have had it
    ],
)
def test_a_stack_that_tells_nothing(events: list[Events]) -> None:
    assert judged(LOCK, scenario(), server(), window(), *events).verdict is not Verdict.BROKEN


def test_what_was_parked_is_used_and_nobody_is_stuck() -> None:
    finding = judged(LOCK, parked(), server(), fork(), stood(native=False), use(), used(), window())
    assert finding.verdict is Verdict.HELD
    assert "'listen' stood at 'lock' when the arbiter forked; worker 0 (pid 110) used that" in finding.explanation


def test_a_thread_of_the_same_identifier_is_refused() -> None:
    error = "RuntimeError('reentrant call inside <_io.BufferedWriter>')"
    events = (server(), fork(), stood("log_record"), use("log_record"), used("log_record", error=error), window())
    finding = judged(LOCK, parked("log_record"), *events)
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "is refused")
    assert "reentrant call" in finding.explanation
    other = (server(), fork(), stood("mid_reply"), use("mid_reply"), used("mid_reply", error=error), window())
    assert judged(LOCK, parked("mid_reply"), *other).verdict is not Verdict.BROKEN


def test_what_is_not_there_at_the_fork_cannot_be_hit_by_it() -> None:
    absent = stood(reason="the loop is not in the arbiter", absent=True)
    finding = judged(LOCK, parked(), server(), fork(), absent, use(), used(), window())
    assert finding.verdict is Verdict.HELD
    assert "no fork could hit 'listen' at 'lock' (the loop is not in the arbiter)" in finding.explanation


def test_gunicorns_own_log_is_used_by_a_boot() -> None:
    control = parked("log_record", "gunicorn_control")
    absent = stood("log_record", reason="gunicorn has no control thread when it forks", absent=True)
    assert judged(LOCK, control, server(), fork(), absent, window()).verdict is Verdict.UNKNOWN
    booted = hook("post_worker_init", WORKER)
    assert judged(LOCK, control, server(), fork(), absent, booted, window()).verdict is Verdict.HELD


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([stood(reason="it did not come there", absent=False)], "could not be parked at 'lock': it did not come there"),
        ([stood(), stood(reason="no fork came", absent=False)], "could not be parked at 'lock': no fork came"),
        ([], "no fork of a worker was seen"),
        ([stood(), use(t=1.5)], "no child came through a use of what 'listen' was in the middle of"),
    ],
)
def test_a_park_that_tells_nothing(events: list[Events], why: str) -> None:
    finding = judged(LOCK, parked(), server(), fork(THREAD), *events, window())
    assert finding.verdict is Verdict.UNKNOWN
    assert why in finding.explanation


def test_a_fork_beside_a_thread_that_holds_nothing() -> None:
    finding = judged(LOCK, scenario(), server(), fork(THREAD), window())
    assert (finding.verdict, judged(MODULE, scenario(), server(), fork(THREAD), window()).verdict) == (
        Verdict.HELD,
        Verdict.HELD,
    )
    assert "1 fork came while thread 'listen' stood in work.py:7 in take; no child is stuck" in finding.explanation
    finding = judged(LOCK, scenario(), server(), fork(THREAD, locks=("app.lock",)), window())
    assert "though app.lock was held at the fork" in finding.explanation


def test_too_few_turns_decide_nothing() -> None:
    for events in ([fork(THREAD)], [fork(THREAD), stood(), use()]):
        finding = judged(LOCK, scenario(), server(), *events, window(control=5))
        assert finding.verdict is Verdict.UNKNOWN
        assert "the control process made only 5 of" in finding.explanation


def test_without_another_thread_there_is_nothing_to_leave_behind() -> None:
    for claim in (LOCK, MODULE):
        assert judged(claim, scenario(), server(), fork(), window()).verdict is Verdict.NOT_APPLICABLE
        assert judged(claim, scenario(), server(), fork(THREAD)).verdict is Verdict.UNKNOWN
        short_lived = [fork(THREAD), gone(WORKER, 1.5)]
        assert judged(claim, scenario(), server(), *short_lived, window()).verdict is Verdict.NOT_APPLICABLE


def test_a_worker_that_waits_for_an_import() -> None:
    events = (server(), fork(THREAD, imports=("late",)), stood("import"), use("import"), window(), stack(*IN_IMPORT))
    finding = judged(MODULE, parked("import"), *events)
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "blocks on an import")
    assert judged(LOCK, parked("import"), *events).verdict is Verdict.HELD
    assert judged(MODULE, scenario(), server(), fork(THREAD), window(), stack(*IN_IMPORT)).how == "blocks on an import"


def test_a_module_that_is_left_half_imported() -> None:
    finding = judged(MODULE, scenario(), server(), fork(THREAD, imports=("encodings.idna",)), window())
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "left half imported")
    assert "encodings.idna half imported in worker 0 (pid 110)" in finding.explanation


def test_a_module_that_is_seen_half_imported() -> None:
    error = "ImportError('late is half imported')"
    events = (server(), fork(), stood("import"), use("import"), used("import", error=error), window())
    assert judged(MODULE, parked("import"), *events).how == "sees it half imported"
    fine = (server(), fork(), stood("import"), use("import"), used("import"), window())
    assert judged(MODULE, parked("import"), *fine).verdict is Verdict.HELD


def test_a_copy_that_stands_still_is_seen_by_its_handle() -> None:
    still = request(aa=True)
    seen_there = [{**still[0].fields["loops"][0], "copied": True}]
    answer = [event(1.5, still[0].pid, "request.ok", **{**still[0].fields, "loops": seen_there})]
    events = (server(), created("aa", ARBITER, t=0.15), begin("aa", ARBITER), ran("aa", ARBITER), window())
    assert judged("no_copied_thread", scenario(), *events).verdict is Verdict.HELD
    finding = judged("no_copied_thread", scenario(), *events, answer)
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "copied, and stands still")
    assert judged("no_starved_greenlet", scenario(), *events, answer).verdict is Verdict.UNKNOWN
