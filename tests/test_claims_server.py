"""What the server does and prints as a whole, on histories of a few events."""

from __future__ import annotations

import pytest
from histories import (
    WORKER,
    Events,
    arbiter,
    exited,
    fault,
    gone,
    hook,
    judged,
    key,
    log,
    process,
    request,
    scenario,
    seen,
    server,
    window,
    worker,
)

from forkproof.verdict import Verdict

ANSWERS = "server_answers"
BOOT = "workers_boot"
STOP = "clean_shutdown"
QUIET = "quiet_runtime"

ONE = scenario()
TWO = scenario(server={"workers": 2})
TERM = scenario(faults=[{"fault": "term"}], server={"graceful_timeout": 3})


# server_answers


def test_every_slot_answered() -> None:
    found = judged(ANSWERS, TWO, server(2), window(), request(slot=0), request(slot=1))
    assert found.verdict is Verdict.HELD
    assert found.loop is None


def test_a_silent_slot_is_named() -> None:
    found = judged(ANSWERS, TWO, server(2), window(), request(slot=0))
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == "no answer from worker 1 from +1.00s to +2.00s"


def test_a_slot_must_answer_in_every_window() -> None:
    found = judged(ANSWERS, ONE, server(), window(0), window(1), request(1.5))
    assert found.verdict is Verdict.BROKEN
    assert "from +3.00s to +4.00s" in found.explanation


def test_a_silent_slot_in_a_short_window() -> None:
    found = judged(ANSWERS, TWO, server(2), window(control=4), request(slot=0))
    assert found.verdict is Verdict.UNKNOWN
    assert "no answer from worker 1 was seen, but the control process made only 4 of 18" in found.explanation


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("request.fail", "request 7 failed at +1.60s (ConnectionResetError)"),
        ("request.info", "request 7 was not answered within the bound, at +1.60s (ConnectionResetError)"),
    ],
)
def test_a_request_without_an_answer(kind: str, told: str) -> None:
    bad = seen(1.6, kind, request=7, error="ConnectionResetError")
    found = judged(ANSWERS, ONE, server(), window(control=1), request(), bad)
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == f"1 of 2 requests from +1.00s to +2.00s had no answer: {told}"
    assert found.evidence[0].event == kind


def test_requests_outside_of_the_windows_are_not_judged() -> None:
    outside = seen(0.9, "request.fail", request=1, error="refused") + seen(2.1, "request.info", request=2, error="late")
    assert judged(ANSWERS, ONE, server(), window(), request(), outside).verdict is Verdict.HELD


def test_no_window_to_answer_in() -> None:
    found = judged(ANSWERS, ONE, server(), request(0.9), exited(100, 0.95, 3))
    assert found.verdict is Verdict.UNKNOWN
    assert found.explanation == "no window was opened: the arbiter ended at +0.95s with status 3"


# workers_boot


def bound(what: str = "boot", t: float = 0.9) -> Events:
    return seen(t, "bound", what=what, seconds=8.0, stretch=1.0)


INIT = hook("post_worker_init", WORKER)


def test_every_slot_booted() -> None:
    found = judged(BOOT, TWO, server(2), INIT, hook("post_worker_init", 111), window())
    assert found.verdict is Verdict.HELD
    assert found.explanation == "every slot booted: worker 0 (pid 110) and worker 1 (pid 111)"


def test_the_bound_passed() -> None:
    found = judged(BOOT, TWO, server(2), INIT, bound(), window())
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == "worker 1 had not booted when the bound of 8.0s passed at +0.90s"
    assert found.evidence[0].event == "bound"


def test_booting_after_the_bound_is_too_late() -> None:
    assert judged(BOOT, ONE, server(), bound(t=0.3), INIT, window()).verdict is Verdict.BROKEN


def test_a_bound_of_something_else() -> None:
    assert judged(BOOT, TWO, server(2), INIT, bound("tick"), window()).verdict is Verdict.UNKNOWN
    assert judged(BOOT, ONE, server(), INIT, bound(), window()).verdict is Verdict.HELD


def test_the_hook_of_another_process_is_no_boot() -> None:
    assert judged(BOOT, ONE, server(), hook("post_worker_init", 100), window()).verdict is Verdict.UNKNOWN
    assert judged(BOOT, ONE, server(), hook("post_fork", WORKER), window()).verdict is Verdict.UNKNOWN


def test_the_arbiter_ended_before_a_window() -> None:
    found = judged(BOOT, ONE, server(), log(0.6, "Worker failed to boot."), exited(100, 0.7, 3))
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == ("the arbiter (pid 100) ended with status 3 at +0.70s, before any window was opened")
    assert [event.event for event in found.evidence] == ["exit", "log"]


def test_the_arbiter_ended_before_it_had_a_name() -> None:
    launched = seen(0.0, "launch", command=[], arbiter=100, namespace=False)
    assert judged(BOOT, ONE, launched, exited(100, 0.7, 1)).verdict is Verdict.BROKEN
    assert judged(BOOT, ONE, launched, exited(99, 0.7, 1)).verdict is Verdict.UNKNOWN


def test_an_end_that_the_supervisor_made_says_nothing() -> None:
    killed = seen(0.6, "killed", processes=[]) + exited(100, 0.7, -9) + gone(WORKER, 0.8)
    assert judged(BOOT, ONE, server(), killed).verdict is Verdict.UNKNOWN
    assert judged(BOOT, ONE, server(), INIT, window(), exited(100, 2.5, 0)).verdict is Verdict.HELD


def test_a_worker_died_in_boot() -> None:
    again = worker(0, pid=120, t=0.5) + hook("post_worker_init", 120, t=0.6)
    found = judged(BOOT, ONE, server(), gone(WORKER, 0.5), again, window(), log(0.45, "[110] Segmentation fault"))
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == "worker 0 (pid 110) was gone at +0.50s before it had booted"
    assert found.evidence[-1].event == "log"


def test_many_workers_died_in_boot() -> None:
    found = judged(BOOT, TWO, server(2), gone(110, 0.5), gone(111, 0.6), window())
    assert found.explanation.endswith("and 1 more like it")


@pytest.mark.parametrize(
    "excused",
    [
        fault("kill_worker", 0.4, target=110) + gone(110, 0.5),
        gone(110, 2.5),
    ],
    ids=["a fault", "the end of the run"],
)
def test_a_death_in_boot_that_is_no_fault_of_the_server(excused: Events) -> None:
    again = worker(0, pid=120, t=0.6) + hook("post_worker_init", 120, t=0.7)
    assert judged(BOOT, ONE, server(), excused, again, window()).verdict is Verdict.HELD


def back(index: int = 1, *, healed: bool) -> Events:
    killed = INIT + window(0) + fault("kill_worker", 2.2, target=WORKER) + gone(WORKER, 2.3)
    return killed + window(index, after="kill -9 of a worker", healed=healed)


def test_a_killed_worker_never_came_back() -> None:
    found = judged(BOOT, ONE, server(), back(healed=False))
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == (
        "worker 0 did not come back after kill_worker at +2.20s: no booted worker there at +4.00s"
    )


def test_a_killed_worker_came_back_but_did_not_boot() -> None:
    assert judged(BOOT, ONE, server(), back(healed=False), worker(0, pid=120, t=2.5)).verdict is Verdict.BROKEN


def test_a_killed_worker_came_back() -> None:
    again = worker(0, pid=120, t=2.5) + hook("post_worker_init", 120, t=2.6)
    assert judged(BOOT, ONE, server(), back(healed=False), again).verdict is Verdict.HELD
    assert judged(BOOT, ONE, server(), back(healed=True)).verdict is Verdict.HELD


def test_a_boot_that_nobody_saw() -> None:
    found = judged(BOOT, TWO, server(2), INIT)
    assert found.verdict is Verdict.UNKNOWN
    assert "worker 1 was not seen to boot" in found.explanation


# clean_shutdown


TERMED = INIT + window() + fault("term", 5.0, target=100)


def test_a_clean_stop() -> None:
    goes = hook("worker_exit", WORKER, 5.5) + gone(WORKER, 5.6) + exited(100, 5.8, 0)
    found = judged(STOP, TERM, server(), TERMED, goes, seen(5.9, "stopped", seconds=0.9))
    assert found.verdict is Verdict.HELD
    assert "0.90s after TERM" in found.explanation


def test_processes_that_are_left() -> None:
    left = seen(9.0, "left", processes=[{"pid": 110, "start": 110, "command": "gunicorn"}])
    found = judged(STOP, TERM, server(), TERMED, left)
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == "1 process still alive 4.0s after TERM: worker 0 (pid 110)"


def test_processes_that_nobody_knows_are_left() -> None:
    left = seen(9.0, "left", processes=[{"pid": n, "start": n, "command": "sleep"} for n in (110, 300)])
    found = judged(STOP, TERM, server(), TERMED, left)
    assert "2 processes still alive 4.0s after TERM: worker 0 (pid 110) and 'sleep' (pid 300)" in (found.explanation)


STOPPED = seen(8.1, "stopped", seconds=3.1)


def test_a_worker_that_used_up_its_time() -> None:
    found = judged(STOP, TERM, server(), TERMED, gone(WORKER, 8.0), exited(100, 8.1, 0), STOPPED)
    assert found.verdict is Verdict.BROKEN
    assert "worker 0 (pid 110) went 3.00s after TERM without worker_exit" in found.explanation


@pytest.mark.parametrize(
    "goes",
    [
        hook("worker_exit", WORKER, 7.9) + gone(WORKER, 8.0),
        gone(WORKER, 7.6),
        gone(WORKER, 2.5),
    ],
    ids=["by itself", "before its time was up", "before TERM"],
)
def test_a_worker_that_went_by_itself(goes: Events) -> None:
    assert judged(STOP, TERM, server(), TERMED, goes, exited(100, 8.1, 0), STOPPED).verdict is Verdict.HELD


def test_a_worker_that_never_booted_is_not_judged() -> None:
    events = window() + fault("term", 5.0, target=100) + gone(WORKER, 8.0)
    assert judged(STOP, TERM, server(), events, STOPPED).verdict is Verdict.HELD


def test_the_log_tells_of_a_kill() -> None:
    line = "[100] [ERROR] Worker (pid:110) was sent SIGKILL! Perhaps out of memory?"
    found = judged(STOP, TERM, server(), TERMED, log(8.0, line), STOPPED)
    assert found.verdict is Verdict.BROKEN
    assert found.evidence[0].event == "log"
    assert judged(STOP, TERM, server(), TERMED, log(4.9, line), STOPPED).verdict is Verdict.HELD


@pytest.mark.parametrize(
    ("waits", "t", "told"),
    [(["lock"], 6.5, True), (["other"], 6.5, False), (["lock", "lock"], 6.5, False), (["lock"], 4.5, False)],
)
def test_a_worker_that_hangs_once_python_has_ended_in_it(waits: list[str], t: float, told: bool) -> None:
    deaf = seen(t, "deaf", target=key(WORKER), waits=waits)
    found = judged(STOP, TERM, server(), TERMED, deaf, exited(110, 8.0, -9), STOPPED)
    assert found.verdict is Verdict.BROKEN
    assert ("C code waited for a lock" in found.explanation) is told


@pytest.mark.parametrize(("granted", "verdict"), [(1.4, Verdict.UNKNOWN), (1.6, Verdict.BROKEN)])
def test_graceful_timeout_is_the_machines_too(granted: float, verdict: Verdict) -> None:
    def told(t: float, seconds: float) -> Events:
        return seen(t, "sample", turn=0, control=0, granted=seconds, ticks={}, gone=[])

    before, after = told(4.9, 2.0) + told(5.01, 3.0), told(7.9, 3.0 + granted) + told(9.0, 9.0)
    events = (server(), TERMED, before, after)
    line = "[100] [ERROR] Worker (pid:110) was sent SIGKILL! Perhaps out of memory?"
    assert judged(STOP, TERM, *events, log(8.0, line), STOPPED).verdict is verdict
    assert judged(STOP, TERM, *events, exited(110, 8.0, -9), STOPPED).verdict is verdict
    assert judged(STOP, TERM, *events, STOPPED).verdict is Verdict.HELD


def test_the_log_tells_late_of_a_fault() -> None:
    line = "[100] [ERROR] Worker (pid:109) was sent SIGKILL! Perhaps out of memory?"
    killed = fault("kill_worker", 2.5, target=109)
    assert judged(STOP, TERM, server(), TERMED, killed, log(5.1, line), STOPPED).verdict is Verdict.HELD


def test_the_arbiter_ends_with_a_status() -> None:
    found = judged(STOP, TERM, server(), TERMED, exited(100, 5.5, 1), STOPPED)
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == "the arbiter (pid 100) ended with status 1 0.50s after TERM"
    assert judged(STOP, TERM, server(), TERMED, exited(300, 5.5, 1), STOPPED).verdict is Verdict.HELD
    assert judged(STOP, TERM, server(), TERMED, exited(100, 5.5, -11), STOPPED).how == "bad exit"


def test_the_stop_was_not_seen() -> None:
    assert judged(STOP, TERM, server(), TERMED).verdict is Verdict.UNKNOWN


def test_term_never_landed() -> None:
    failed = seen(5.0, "fault.fail", fault="term", index=0, error="no such process")
    found = judged(STOP, TERM, server(), window(), failed, STOPPED)
    assert found.verdict is Verdict.UNKNOWN
    assert found.explanation == "TERM never landed: no such process"
    assert judged(STOP, TERM, server(), fault("kill_worker", 5.0, target=110), STOPPED).verdict is Verdict.UNKNOWN


def test_no_term_to_judge() -> None:
    assert judged(STOP, ONE, server(), window(), exited(100, 5.5, 1)).verdict is Verdict.NOT_APPLICABLE


# quiet_runtime


@pytest.mark.parametrize(
    "line",
    [
        "Exception ignored in: <function _after_fork at 0x7f>",
        "Exception in thread Thread-1 (body):",
        "gevent.exceptions.LoopExit: This operation would block forever",
        "Unraisable exception",
        "[110] [INFO] Parent changed, shutting down: <Worker 110>",
        "2026-01-01T00:00:00Z <Greenlet at 0x7f5e: body> failed with ValueError",
        "2026-01-01T00:00:00Z <callback at 0x7f5e args=([],)> failed with AssertionError",
        "Task exception was never retrieved",
        "Future exception was never retrieved",
        "[110] [ERROR] Control server error: no running event loop",
    ],
)
def test_a_bad_line(line: str) -> None:
    found = judged(QUIET, ONE, server(), log(0.9, "booting"), log(1.84, line))
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == f"1 bad line in the output, the first at +1.84s: {line!r}"
    assert [event["line"] for event in found.evidence] == [line]


OWN = "Exception ignored: AssertionError in gevent"
MAIN = "<greenlet.greenlet object at 0x7f (otid=0x5) current active started main> failed with SystemExit"
NOTIFY = "gevent.AbstractLinkable._notify_links"
BEFORE = [
    "[100] [INFO] Booting worker with pid: 110",
    "Traceback (most recent call last):",
    '  File "src/gevent/_abstract_linkable.py", line 287, in gevent.AbstractLinkable._notify_links',
    "AssertionError: (None, <callback at 0x7f args=([],)>)",
    "2026-01-01T00:00:00Z <callback at 0x7f args=([],)> failed with AssertionError",
]
AFTER = [
    "Exception ignored in: <bound method _ForkHooks.after_fork_in_child of <gevent._ForkHooks object>>",
    "Traceback (most recent call last):",
    '  File "/lib/gevent/threading.py", line 398, in after_fork_in_child',
    "    assert not thread.is_alive()",
    "AssertionError: ",
]


@pytest.mark.parametrize(
    ("lines", "how", "where"),
    [
        (BEFORE, "callback failed with AssertionError in gevent", f", raised in {NOTIFY}: {BEFORE[3]!r}"),
        (BEFORE[-1:], "callback failed with AssertionError", ""),
        ([MAIN], "greenlet failed with SystemExit", ""),
        (AFTER, OWN, ", raised in after_fork_in_child: 'AssertionError:'"),
        (
            [line.replace("/lib/gevent/", "/app/") for line in AFTER],
            "Exception ignored: AssertionError",
            ", raised in after_fork_in_child: 'AssertionError:'",
        ),
        (AFTER[:1], "Exception ignored", ""),
        (
            [BEFORE[0], *AFTER, BEFORE[0]],
            "Exception ignored: AssertionError in gevent",
            ", raised in after_fork_in_child: 'AssertionError:'",
        ),
        # Two processes, across each other.
        ([line for line in AFTER for _ in range(2)], OWN, ", raised in after_fork_in_child: 'AssertionError:'"),
        (
            ["Exception in thread a:", "gevent.exceptions.LoopExit: This operation would block forever"],
            "Exception in thread: LoopExit",
            "",
        ),
    ],
)
def test_a_bad_line_names_its_exception(lines: list[str], how: str, where: str) -> None:
    found = judged(QUIET, ONE, server(), *(log(1 + n / 100, line) for n, line in enumerate(lines)))
    assert (found.verdict, found.how) == (Verdict.BROKEN, how)
    assert found.explanation.endswith("'" + where)
    assert BEFORE[0] not in [event["line"] for event in found.evidence]


def test_many_and_long_lines() -> None:
    lines = [one for n in range(30) for one in log(1 + n, "Exception ignored in: " + "x" * 500)]
    found = judged(QUIET, ONE, server(), lines)
    assert found.explanation.startswith("30 bad lines in the output, the first at +1.00s: ")
    assert len(found.explanation) < 300
    assert len(found.evidence) == 20


@pytest.mark.parametrize(
    "line",
    [
        "[100] [INFO] Listening at: http://127.0.0.1:1 (100)",
        "Exception of the app",
        "the job failed with 3 errors",
        "[100] [ERROR] Worker (pid:110) was sent SIGKILL!",
    ],
)
def test_other_lines(line: str) -> None:
    assert judged(QUIET, ONE, server(), window(), log(0.9, line)).verdict is Verdict.HELD


def test_what_is_printed_when_all_is_killed_is_not_judged() -> None:
    killed = seen(3.0, "killed", processes=[])
    found = judged(QUIET, ONE, server(), window(), log(1.0, "fine"), killed, log(3.1, "Exception ignored in: x"))
    assert found.verdict is Verdict.HELD
    assert "none of 1 line " in found.explanation


def test_quiet_without_a_window() -> None:
    assert judged(QUIET, ONE, server()).verdict is Verdict.UNKNOWN


def test_boot_of_a_worker_that_forked_a_child_is_the_workers() -> None:
    child = process(200, ppid=110) + hook("post_worker_init", 200)
    assert judged(BOOT, ONE, arbiter(), worker(), child, window()).verdict is Verdict.UNKNOWN


def test_a_child_and_a_booted_worker_may_go() -> None:
    child = process(200, ppid=110) + gone(200, 0.9)
    again = worker(0, pid=120, t=1.3) + hook("post_worker_init", 120, t=1.4)
    answer = request(0.8)
    assert judged(BOOT, ONE, server(), INIT, answer, child, gone(WORKER, 1.2), again, window()).verdict is Verdict.HELD


def test_a_worker_went_between_its_hook_and_its_first_answer() -> None:
    again = worker(0, pid=120, t=1.3) + hook("post_worker_init", 120, t=1.4)
    found = judged(BOOT, ONE, server(), INIT, gone(WORKER, 1.2), again, window())
    assert found.verdict is Verdict.BROKEN
    assert found.explanation == "worker 0 (pid 110) was gone at +1.20s before it had answered anything"


def test_a_boot_that_is_not_healed_needs_its_bound_to_pass() -> None:
    assert judged(BOOT, ONE, server(), window(healed=False)).verdict is Verdict.UNKNOWN
    assert judged(BOOT, ONE, server(), window(healed=False), fault("term", 5.0, target=100)).verdict is Verdict.UNKNOWN


def test_other_lines_after_term() -> None:
    assert judged(STOP, TERM, server(), TERMED, log(5.5, "Shutting down: Master"), STOPPED).verdict is Verdict.HELD


def test_the_evidence_of_a_worker_that_used_up_its_time() -> None:
    found = judged(STOP, TERM, server(), TERMED, gone(300, 5.0), gone(WORKER, 8.0), STOPPED)
    assert [event.event for event in found.evidence] == ["fault.ok", "sample", "hook"]
    assert found.evidence[1]["gone"] == ["110-110"]
