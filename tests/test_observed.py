"""What is said of the user's own app, on hand-written histories: a planted case and a control of each failure."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from histories import ARBITER, WORKER, Events, event, gone, history, key, process, seen, server

from forkproof.cures import cure
from forkproof.judge import first_bad, since
from forkproof.observed import Observed
from forkproof.scenario import Policy
from forkproof.verdict import Finding, Verdict

OTHER = WORKER + 1
LOOKS = (1.1, 1.3, 1.5, 1.7, 1.9)


def birth(
    pid: int, birth: str = "aa", loop: str = "listen", kind: str = "thread", t: float = 0.3, **rest: Any
) -> Events:
    fields = {"site": "import of app.py", "defined_at": "/srv/app.py:5", "user": "/srv/app.py:9", "thread": "Thread-1"}
    return [event(t, pid, "loop.created", loop=loop, birth=birth, kind=kind, **{**fields, **rest})]


def unit(birth: str = "aa", **fields: Any) -> dict[str, Any]:
    plain = {"alive": True, "running": True, "tid": 7, "print": None, "at": [], "job": None, "sizes": []}
    return {"birth": birth, **plain, "waiting": fields.get("sizes", []), **fields}


def look(pid: int, t: float, *units: dict[str, Any], **fields: Any) -> Events:
    plain: dict[str, Any] = {"at": ["arbiter.py:9 in run"], "inside": None, "iteration": None, "others": []}
    return [event(t, pid, "look", units=list(units), **{**plain, **fields})]


def looks(pid: int, *units: dict[str, Any], window: int = 0, **fields: Any) -> Events:
    return [one for t in LOOKS for one in look(pid, t + 2 * window, *units, **fields)]


def opened(index: int = 0, after: str = "boot", slots: tuple[int, ...] = (0, 1)) -> Events:
    t = 1.0 + 2 * index
    return [
        *seen(t, "window.open", window=index, after=after, healed=True, slots=list(slots), arbiter=ARBITER),
        *seen(t + 0.01, "request.invoke", request=index),
        *seen(t + 0.02, "request.ok", request=index, worker=key(WORKER), loops=[]),
        *seen(t + 1, "window.close", window=index, turns=60, control=60),
    ]


def tasks(counts: dict[float, dict[int, int]], pid: int = WORKER, locked: tuple[int, ...] = ()) -> Events:
    return [
        one
        for t, found in counts.items()
        for one in seen(
            t,
            "tasks",
            tasks={key(pid): {str(tid): count for tid, count in found.items()}},
            locked={key(pid): list(locked)},
        )
    ]


BOOTED = seen(0.9, "booted", seconds=0.5)


def observed(*groups: Events, **policies: str) -> Observed:
    named = {name: Policy(value) for name, value in policies.items()}
    return Observed(history(server(2), BOOTED, opened(), *groups), named, {})


def found(one: Observed, claim: str) -> Finding:
    return next(finding for finding in one.findings() if finding.claim == claim)


IN_BOTH = birth(WORKER, "aa") + birth(OTHER, "bb") + looks(WORKER, unit("aa")) + looks(OTHER, unit("bb"))
IN_MASTER = birth(ARBITER, "aa") + looks(ARBITER, unit("aa")) + looks(WORKER) + looks(OTHER)


def test_a_loop_is_found_with_its_places() -> None:
    (loop,) = observed(IN_BOTH).loops
    assert (loop.name, loop.kind, loop.defined_at) == ("listen", "thread", "/srv/app.py:5")
    assert loop.started == "import of app.py at /srv/app.py:9"
    states = observed(IN_BOTH).states(loop, 0)
    assert [(str(state.process.place), state.word) for state in states] == [("worker 0", "runs"), ("worker 1", "runs")]


def test_what_ends_between_two_looks_is_no_loop() -> None:
    assert observed(birth(WORKER), looks(WORKER)).loops == []


def test_two_loops_of_one_name_are_told_apart_by_their_place() -> None:
    two = birth(WORKER, "aa") + birth(WORKER, "bb", defined_at="/srv/b.py:2") + looks(WORKER, unit("aa"), unit("bb"))
    assert [loop.name for loop in observed(two).loops] == ["listen@app.py:5", "listen@b.py:2"]


@pytest.mark.parametrize("pattern", ["listen", "Thread-1", "app.py:5", "*", "lis*"])
def test_a_policy_names_a_loop_as_its_user_would(pattern: str) -> None:
    one = observed(IN_BOTH, **{pattern: "once_per_worker"})
    assert [loop.policy for loop in one.loops] == [Policy.ONCE_PER_WORKER]
    assert one.unmatched == []


def test_a_policy_that_names_no_loop_is_told() -> None:
    one = observed(IN_BOTH, listn="once_per_worker")
    assert one.unmatched == ["listn"]
    told = [finding for finding in one.findings() if finding.loop == "listn"]
    assert [(finding.claim, finding.verdict) for finding in told] == [("exactly_one_listener", Verdict.UNKNOWN)]
    counted = observed(IN_BOTH, listn="best_effort").findings()
    assert Verdict.UNKNOWN not in [finding.verdict for finding in counted if finding.loop == "listn"]


@pytest.mark.parametrize(
    ("events", "policy", "verdict", "how"),
    [
        (IN_BOTH, "once_per_worker", Verdict.HELD, ""),
        (IN_BOTH, "once_per_service", Verdict.BROKEN, "double"),
        (IN_BOTH, "arbiter_only", Verdict.BROKEN, "double"),
        (IN_BOTH, "best_effort", Verdict.NOT_APPLICABLE, ""),
        (IN_MASTER, "once_per_service", Verdict.HELD, ""),
        (IN_MASTER, "arbiter_only", Verdict.HELD, ""),
        (IN_MASTER, "inherit_allowed", Verdict.HELD, ""),
        (IN_MASTER, "once_per_worker", Verdict.BROKEN, "zero"),
    ],
)
def test_policies(events: Events, policy: str, verdict: Verdict, how: str) -> None:
    finding = found(observed(events, listen=policy), "exactly_one_listener")
    assert (finding.verdict, finding.how) == (verdict, how)
    broken = "+1.00s, window.open in "  # and not when it was created: it was wrong from the window on
    told = since(observed(events).history, finding)
    assert told.startswith(broken) if verdict is Verdict.BROKEN else told == ""


@pytest.mark.parametrize(
    ("events", "policy", "first"),
    [
        (IN_BOTH, "once_per_service", OTHER),
        (IN_BOTH, "arbiter_only", WORKER),
        (IN_MASTER, "once_per_worker", WORKER),
        (IN_MASTER + looks(WORKER) + looks(OTHER), "once_per_worker", WORKER),
        (IN_BOTH + birth(ARBITER, "cc") + looks(ARBITER, unit("cc")), "once_per_worker", ARBITER),
    ],
)
def test_it_is_told_in_which_process_it_is_wrong_first(events: Events, policy: str, first: int) -> None:
    one = observed(events, listen=policy)
    event, places = first_bad(one.history, found(one, "exactly_one_listener"))
    assert (event.event, places) == ("window.open", (key(first),))


def test_without_a_policy_the_count_is_a_fact() -> None:
    finding = found(observed(IN_BOTH), "exactly_one_listener")
    assert finding.verdict is Verdict.NOT_APPLICABLE
    assert "worker 0 (runs) and worker 1 (runs)" in finding.explanation


def test_a_copy_is_a_failure_unless_it_is_allowed() -> None:
    copied = birth(ARBITER) + looks(ARBITER, unit(print="1")) + looks(WORKER, unit(print="2")) + looks(OTHER)
    finding = found(observed(copied), "no_copied_thread")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "copied")
    assert since(observed(copied).history, finding) == f"+1.10s, look in worker 0 (pid {WORKER})"
    assert "worker 0" in finding.explanation
    assert "worker 1" not in finding.explanation
    assert (finding.evidence[0].pid, finding.evidence[0].t) == (WORKER, LOOKS[0])
    allowed = found(observed(copied, listen="inherit_allowed"), "no_copied_thread")
    assert allowed.verdict is Verdict.NOT_APPLICABLE
    assert found(observed(IN_MASTER), "no_copied_thread").verdict is Verdict.HELD


def test_a_thread_that_counts_as_alive_where_nothing_runs_it() -> None:
    lies = IN_MASTER + looks(WORKER, unit(running=False, tid=None))
    finding = found(observed(lies), "no_dead_listener")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "believed alive")
    once = IN_MASTER + look(WORKER, 1.95, unit(running=False, tid=None))  # it may be starting
    assert found(observed(once), "no_dead_listener").verdict is Verdict.HELD


def test_a_thread_that_has_ended_and_counts_as_alive_for_good() -> None:
    ended = observed(birth(WORKER), looks(WORKER, unit(running=False, tid=None)))
    finding = found(ended, "no_dead_listener")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "ended unnoticed")
    assert "was imported, and nobody tells such a thread's owner" in cure(finding, ended, Path("/srv"))
    assert found(observed(IN_BOTH), "no_dead_listener").verdict is Verdict.HELD


def test_a_loop_that_died_of_an_error() -> None:
    died = event(0.5, WORKER, "loop.end", loop="Thread-1", birth="aa", error="OSError: gone", at=["/srv/app.py:7"])
    finding = found(observed(IN_BOTH, [died]), "no_dead_listener")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "died")
    assert "OSError: gone, raised at /srv/app.py:7" in finding.explanation


def test_a_process_that_died_before_the_first_window() -> None:
    made = [*birth(ARBITER, kind="process"), event(0.4, ARBITER, "child", birth="aa", child=150)]
    died = event(0.5, 150, "loop.end", loop="Process-1", birth="aa", error="OSError: gone", at=["/srv/app.py:7"])
    finding = found(observed(made, process(150, "child"), [died]), "no_dead_listener")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "died")
    assert "it died in child (pid 150) of OSError: gone, raised at /srv/app.py:7" in finding.explanation
    assert observed(made, process(150, "child")).loops == []


def test_a_process_that_runs_the_code_of_the_worker_that_forked_it() -> None:
    made = [*birth(WORKER, kind="process"), event(0.4, WORKER, "child", birth="aa", child=150)]
    line = seen(0.8, "log", line="[2026-11-23 15:55:16 +0000] [150] [INFO] Parent changed, shutting down: <Worker 110>")
    finding = found(observed(made, line), "no_dead_listener")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "ran the worker's code")
    assert observed(made).loops == []  # it has ended, as a job may
    lives = [one for t in LOOKS for one in seen(t, "tasks", tasks={"150-150": {"150": 3}})]
    (loop,) = observed(made, lives).loops
    assert [str(state.process.place) for state in observed(made, lives).states(loop, 0)] == ["child 0"]


def test_a_process_of_the_masters_that_a_worker_has_ended() -> None:
    made = [*birth(ARBITER, kind="process", loop="work"), event(0.4, ARBITER, "child", birth="aa", child=150)]
    again = [*birth(ARBITER, "bb", kind="process", loop="work"), event(2.6, ARBITER, "child", birth="bb", child=160)]
    until = [one for t in LOOKS for one in seen(t, "tasks", tasks={"150-150": {"150": 3}})]
    new = [one for t in LOOKS for one in seen(t + 2, "tasks", tasks={"160-160": {"160": 3}})]
    ended = [event(2.5, WORKER, "ended", birth="aa", child=150)]
    lost = observed(made, until, ended, opened(1, "hup"))
    finding = found(lost, "no_dead_listener")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "ended by another")
    assert "worker 0 (pid 110) has ended its process (pid 150), which arbiter (pid 100)" in finding.explanation
    assert "a worker that exits ends the daemon processes" in cure(finding, lost, Path("/srv"))
    late = [event(5.0, WORKER, "ended", birth="aa", child=150)]
    for more in ([], [*ended, *again, *new], [*ended, *gone(ARBITER, 2.9)], late):
        kept = observed(made, until, more, opened(1, "hup"))
        assert found(kept, "no_dead_listener").verdict is Verdict.HELD


def test_a_main_thread_that_runs_no_python_code() -> None:
    deaf = [one for n, t in enumerate(LOOKS) for one in seen(t, "look.asked", number=n, asked=[], deaf=[key(WORKER)])]
    said = [finding for finding in observed(IN_BOTH, deaf).findings() if finding.verdict is Verdict.UNKNOWN]
    assert any("ran no Python code in 5 of 5 looks" in finding.explanation for finding in said)
    quiet = [finding for finding in observed(IN_BOTH).findings() if "ran no Python code" in finding.explanation]
    assert quiet == []


def sized(pid: int, *sizes: int, **fields: Any) -> Events:
    return [one for t, size in zip(LOOKS, sizes, strict=True) for one in look(pid, t, unit(sizes=[size], **fields))]


DEAD = {"alive": False, "running": False, "tid": None}


def test_a_queue_that_fills_where_nobody_is_left_to_take() -> None:
    master = birth(ARBITER) + looks(ARBITER, unit(sizes=[0]))
    fills = observed(master, sized(WORKER, 0, 1, 2, 2, 2, **DEAD))
    finding = found(fills, "no_dead_listener")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "dead in worker")
    assert since(fills.history, finding) == f"+1.90s, look in worker 0 (pid {WORKER})"
    assert (finding.evidence[0].event, finding.evidence[0].pid) == ("look", WORKER)
    for control in ((1, 1, 1, 1, 1), (0, 1, 0, 1, 0)):  # it was copied so; somebody takes
        assert found(observed(master, sized(WORKER, *control, **DEAD)), "no_dead_listener").verdict is Verdict.HELD


def test_a_queue_that_fills_for_a_loop_that_was_started_again() -> None:
    """A library starts another thread in the child, which lets the same queue fill until its time comes."""

    def of(*sizes: int) -> Verdict:
        again = [
            one
            for n, (t, size) in enumerate(zip(LOOKS, sizes, strict=True))
            for one in look(WORKER, t, unit(sizes=[n], **DEAD), unit("bb", sizes=[size], tid=8))
        ]
        master = birth(ARBITER) + looks(ARBITER, unit(sizes=[0])) + birth(WORKER, "bb")
        return found(observed(master, again), "no_starved_greenlet").verdict

    assert of(0, 1, 2, 3, 4) is Verdict.HELD
    assert of(0, 0, 0, 0, 0) is Verdict.BROKEN  # that one has another queue


def test_a_loop_that_takes_nothing_though_its_queue_is_full() -> None:
    at = ["threading.py:331 in wait", "queue.py:171 in get", "app.py:5 in listen"]
    waits = birth(WORKER) + sized(WORKER, 0, 1, 1, 1, 1, at=at)
    still = tasks({t: {7: 5} for t in LOOKS}, locked=(7,))
    finding = found(observed(waits, still), "no_starved_greenlet")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "stuck")
    moving = tasks({t: {7: n} for n, t in enumerate(LOOKS)}, locked=(7,))
    collects = tasks({t: {7: 5} for t in LOOKS})  # its wait has an end
    for control in (moving, collects):
        assert found(observed(waits, control), "no_starved_greenlet").verdict is Verdict.HELD
    # It waits for something else; it has another queue, for what it makes; a deque is no queue.
    for fields in ({"at": ["threading.py:331 in wait", "app.py:5 in listen"]}, {"waiting": [1, 0]}, {"waiting": []}):
        other = birth(WORKER) + sized(WORKER, 0, 1, 1, 1, 1, **{"at": at, **fields})
        assert found(observed(other, still), "no_starved_greenlet").verdict is Verdict.HELD


def test_a_greenlet_where_nobody_runs_the_hub() -> None:
    made = birth(ARBITER)
    starved = looks(ARBITER, unit(print="1"), inside=False, iteration=3)
    finding = found(observed(made, starved), "no_starved_greenlet")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "starved")
    assert "arbiter.py:9 in run" in finding.explanation
    idle = looks(ARBITER, unit(print="1"), inside=True, iteration=3)
    busy = [
        one for n, t in enumerate(LOOKS) for one in look(ARBITER, t, unit(print="1"), inside=False, iteration=9 * n)
    ]
    native = looks(ARBITER, unit(), inside=False, iteration=3)
    boots = [
        one
        for n, t in enumerate(LOOKS)
        for one in look(ARBITER, t, unit(print="1"), inside=False, iteration=3, at=[f"a.py:{n} in f{n}"])
    ]
    for control in (idle, busy, native, boots):
        assert found(observed(made, control), "no_starved_greenlet").verdict is Verdict.HELD


def asked(*at: float, apart: float = 0.02, worker: int = WORKER) -> Events:
    """Requests that one worker answers, each 0.02 s long and begun so long after the one before."""
    return [
        one
        for t in at
        for number in range(2)
        for one in (
            *seen(t + number * apart, "request.invoke", request=int(1000 * t) + number),
            *seen(
                t + number * apart + 0.02, "request.ok", request=int(1000 * t) + number, worker=key(worker), loops=[]
            ),
        )
    ]


def test_a_queue_behind_other_objects_that_grows_with_each_request() -> None:
    def of(*sizes: int, at: tuple[float, ...] = (1.2, 1.4, 1.6), master: Events = IN_MASTER, **rest: Any) -> Finding:
        far = [[9, size] if size >= 0 else [9] for size in sizes]
        worker = [e for t, found in zip(LOOKS, far, strict=True) for e in look(WORKER, t, unit(far=found, **DEAD))]
        return found(observed(master, worker, asked(*at, **rest)), "no_dead_listener")

    alone = of(0, 2, 4, 6, 6)
    assert (alone.verdict, alone.how) == (Verdict.BROKEN, "dead in worker")
    assert "a queue of it has grown from 0 to 6" in alone.explanation
    assert of(-1, 2, 4, 6, 6).verdict is Verdict.BROKEN  # found when the first thing came
    for control in (
        of(0, 1, 1, 1, 1),  # a store that had nothing that it could use again
        of(0, 2, 4, 6, 0),
        of(-1, -1, 4, 6, 6),
        of(0, 2, 4, 6, 6, apart=0.01),  # each of them meets another
        of(0, 2, 4, 6, 6, worker=OTHER),
        of(0, 2, 4, 6, 6, at=(1.2,)),
        # What has ended where it was made leaves nothing undone.
        of(0, 2, 4, 6, 6, master=birth(ARBITER) + birth(OTHER, "bb") + looks(OTHER, unit("bb"))),
    ):
        assert control.verdict is Verdict.HELD
    again = birth(WORKER, "bb") + [
        e for n, t in enumerate(LOOKS) for e in look(WORKER, t, unit(far=[2 * n], **DEAD), unit("bb", tid=8))
    ]
    assert found(observed(IN_MASTER, again, asked(1.2, 1.4, 1.6)), "no_dead_listener").verdict is Verdict.HELD


def replaced(*units: dict[str, Any]) -> Events:
    """Worker 0 is killed, and 120 takes its slot."""
    new = [
        event(2.5, 120, "process", ppid=ARBITER),
        event(2.5, 120, "role", role="worker", slot=0),
        *looks(120, *units, window=1),
        *looks(OTHER, unit("bb"), window=1),
    ]
    return [*gone(WORKER, 2.2), *new, *opened(1, "kill_worker")]


def test_a_loop_that_does_not_come_back() -> None:
    finding = found(observed(IN_BOTH, replaced()), "handover_is_safe")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "not back")
    assert since(observed(IN_BOTH, replaced()).history, finding) == "+3.00s, window.open in worker 0 (pid 120)"
    back = replaced(unit("cc")) + birth(120, "cc", t=2.6)
    assert found(observed(IN_BOTH, back), "handover_is_safe").verdict is Verdict.HELD
    in_one = birth(WORKER, "aa") + looks(WORKER, unit("aa"))  # only ever in one of them: no rule says so
    assert found(observed(in_one, replaced()), "handover_is_safe").verdict is Verdict.HELD


def test_a_loop_that_was_started_again_and_has_done_its_work() -> None:
    """A library starts it for what has come, and it ends when that is done."""
    begun = replaced() + birth(120, "cc", t=2.6)
    assert found(observed(IN_BOTH, begun), "handover_is_safe").verdict is Verdict.HELD
    later = replaced() + birth(120, "cc", t=4.5)
    assert found(observed(IN_BOTH, later), "handover_is_safe").verdict is Verdict.BROKEN
    stays = [one for one in begun if not (one.event == "look" and one.process == key(OTHER))]
    assert found(observed(IN_BOTH, stays, looks(OTHER, window=1)), "handover_is_safe").verdict is Verdict.HELD
    greenlets = [one for pid, name in ((WORKER, "aa"), (OTHER, "bb")) for one in birth(pid, name, kind="greenlet")]
    greenlets += looks(WORKER, unit("aa", print="1")) + looks(OTHER, unit("bb", print="1"))
    ended = observed(greenlets, stays, looks(OTHER, window=1))  # of an error, for all that one knows
    assert found(ended, "handover_is_safe").verdict is Verdict.BROKEN


def test_a_job_that_an_executor_never_ends_is_a_loop_by_itself() -> None:
    thread = birth(WORKER, loop="ThreadPoolExecutor-0", kind="executor")
    (loop,) = observed(thread, looks(WORKER, unit(job="/srv/app.py:3 in poll"))).loops
    assert (loop.name, loop.kind, loop.defined_at) == ("poll", "job", "/srv/app.py:3")
    (loop,) = observed(thread, looks(WORKER, unit())).loops
    assert loop.name == "ThreadPoolExecutor-0"


def test_a_job_that_is_done_later_is_work_however_long_it_took() -> None:
    thread = birth(WORKER, loop="pool", kind="executor")
    slow = looks(WORKER, unit(job="/srv/app.py:3 in send"))

    def names(*units: dict[str, Any]) -> list[str]:
        return [loop.name for loop in observed(thread, slow, opened(1, "hup"), looks(WORKER, *units, window=1)).loops]

    assert names(unit(job="/srv/app.py:4 in send")) == ["send"]
    assert names(unit()) == ["pool"]
    assert names(unit(running=False, alive=False)) == ["send"]  # its thread is no more
    quick = birth(OTHER, "bb", loop="pool", kind="executor") + look(OTHER, 1.1, unit("bb", job="/srv/app.py:3 in send"))
    assert [one.name for one in observed(thread, slow, quick, look(OTHER, 1.3, unit("bb"))).loops] == ["pool"]


def test_a_worker_that_ends_by_itself() -> None:
    assert found(observed(IN_BOTH), "workers_boot").verdict is Verdict.HELD
    finding = found(observed(IN_BOTH, gone(WORKER, 1.5)), "workers_boot")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "crash")
    silent = seen(1.1, "log", line=f"[2026-11-30 16:17:18 +0000] [100] [CRITICAL] WORKER TIMEOUT (pid:{WORKER})")
    other = seen(1.5, "log", line="[2026-11-30 16:17:23 +0000] [130] [INFO] Booting worker with pid: 130")
    finding = found(observed(IN_BOTH, gone(WORKER, 1.5), silent, other), "workers_boot")
    assert (finding.verdict, "WORKER TIMEOUT" in finding.explanation) == (Verdict.BROKEN, True)
    timeout = [event(0.4, ARBITER, "server", **{**SET[0].fields, "timeout": 1})]
    for granted, verdict in ((0.2, Verdict.UNKNOWN), (0.9, Verdict.BROKEN)):
        given = seen(0.6, "sample", ticks={}, granted=0.0) + seen(1.4, "sample", ticks={}, granted=granted)
        finding = found(observed(IN_BOTH, timeout, gone(WORKER, 1.5), silent, given), "workers_boot")
        assert (finding.verdict, finding.how) == (verdict, "crash")

    def with_most(most: int, *more: Events) -> Verdict:
        told = [event(0.4, ARBITER, "server", **{**SET[0].fields, "max_requests": most})]
        return found(observed(IN_BOTH, told, gone(WORKER, 1.5), *more), "workers_boot").verdict

    spent = "[2026-11-30 16:17:18 +0000] [100] [INFO] Autorestarting worker after current request."
    assert with_most(1) is Verdict.HELD, "it has answered one request"
    assert with_most(2) is Verdict.BROKEN
    assert with_most(2, seen(1.4, "log", line=spent, by=key(WORKER))) is Verdict.HELD
    assert with_most(2, seen(1.4, "log", line=spent, by=key(OTHER))) is Verdict.BROKEN
    late = seen(0.6, "sample", ticks={}, granted=0.0) + seen(1.4, "sample", ticks={}, granted=0.2)
    for gone_at in (1.2, 1.8):
        both = observed(IN_BOTH, timeout, gone(WORKER, 1.5), silent, late, gone(OTHER, gone_at))
        finding = found(both, "workers_boot")
        assert (finding.verdict, str(OTHER) in finding.explanation) == (Verdict.BROKEN, True), "no doubt hides it"


TERM = seen(2.5, "fault.ok", fault="term", index=0, target=ARBITER)
SET = [
    event(0.4, ARBITER, "server", workers=2, worker_class="sync", preload=False, timeout=30, graceful_timeout=5)
]  # fmt: skip


def ended(*, status: int = 0, granted: float = 6.0) -> Events:
    return [
        *seen(2.5, "sample", turn=1, control=1, granted=0.0, ticks={}, gone=[]),
        *seen(8.9, "sample", turn=2, control=2, granted=granted, ticks={}, gone=[]),
        *seen(9.0, "exit", child=WORKER, status=status),
        *seen(9.1, "exit", child=ARBITER, status=0),
        *seen(9.1, "stopped", seconds=6.6),
    ]


@pytest.mark.parametrize(
    ("end", "verdict"),
    [
        (ended(), Verdict.HELD),
        (ended(status=-9), Verdict.BROKEN),
        (ended(status=-9, granted=0.5), Verdict.UNKNOWN),
        (seen(9.0, "left", processes=[{"pid": WORKER, "start": WORKER, "command": "gunicorn"}]), Verdict.BROKEN),
    ],
)
def test_the_end(end: Events, verdict: Verdict) -> None:
    assert found(observed(IN_BOTH, SET, TERM, end), "clean_shutdown").verdict is verdict


def test_a_stop_that_is_waited_for_no_longer_than_graceful_timeout_is_open() -> None:
    def left(pid: int) -> Events:
        return seen(9.0, "left", processes=[{"pid": pid, "start": pid, "command": "gunicorn"}])

    long = [replace(SET[0], fields={**SET[0].fields, "graceful_timeout": 61})]
    finding = found(observed(IN_BOTH, long, TERM, left(ARBITER)), "clean_shutdown")
    assert finding.verdict is Verdict.UNKNOWN
    assert found(observed(IN_BOTH, SET, TERM, left(ARBITER)), "clean_shutdown").verdict is Verdict.BROKEN
    # The master had ended: nobody will end what it has left.
    assert found(observed(IN_BOTH, long, TERM, left(WORKER)), "clean_shutdown").verdict is Verdict.BROKEN
    assert "of graceful_timeout (61 s) a check waits for 60 s at most" in finding.explanation
    assert "-- --graceful-timeout 30" in finding.explanation
    killed = found(observed(IN_BOTH, long, TERM, ended(status=-9)), "clean_shutdown")  # that was waited for
    assert "waits for" not in killed.explanation
    late = seen(9.0, "outlived", fault="hup", processes=[key(WORKER)], seconds=62.0)
    told = [one for one in observed(IN_BOTH, long, late).findings() if one.how == "old workers stay"]
    assert [one.verdict for one in told] == [Verdict.UNKNOWN]


def printed(*lines: str, t: float = 1.2, by: str = key(WORKER)) -> Events:
    return [one for line in lines for one in seen(t, "log", line=line, by=by)]


DIED = "Exception ignored in thread started by: <bound method Thread._bootstrap of <Thread>>"


def test_what_a_worker_prints_that_ends() -> None:
    exiting = printed("[2026-11-30 16:40:36 +0000] [110] [INFO] Worker exiting (pid: 110)", t=2.3)

    def of(*more: Events) -> Verdict:
        return found(observed(IN_BOTH, TERM, *more), "quiet_runtime").verdict

    assert of(exiting, printed(DIED, t=2.4)) is Verdict.HELD
    assert of(printed(DIED, t=99.0)) is Verdict.HELD  # after TERM
    masters = seen(2.4, "log", line=DIED)
    for others in (printed(DIED, t=2.2), printed(DIED, t=2.4, by=key(120)), masters):
        assert of(exiting, others) is Verdict.BROKEN
    assert of(printed(DIED, t=2.4)) is Verdict.BROKEN


IGNORED = (
    "Exception ignored in: <module 'threading' from '/usr/lib/python3.11/threading.py'>",
    "Traceback (most recent call last):",
    '  File "/usr/lib/python3.11/threading.py", line 1560, in _shutdown',
    "    atexit_call()",
    "KeyError: 139",
    "",
    "During handling of the above exception, another exception occurred:",
    "",
    "Traceback (most recent call last):",
    '  File "src/gevent/hub.py", line 647, in run',
    "gevent.exceptions.LoopExit: This operation would block forever",
    "\tHub: <Hub '' at 0x7f>",
)


def test_an_exception_that_python_ignores_ends_nothing() -> None:
    one = observed(IN_BOTH, printed(*IGNORED, "[110] [INFO] Handling"))
    finding = found(one, "quiet_runtime")
    assert finding.verdict is Verdict.HELD
    assert finding.explanation.endswith("; 1 exception that Python has ignored")
    assert [event["line"] for event in one.ignored[0]] == list(IGNORED)
    for more in ((DIED,), ("gevent.exceptions.LoopExit: This operation would block forever",)):
        for lines in ((*IGNORED, "[110] [INFO] Handling", *more), (*more, *IGNORED)):
            assert found(observed(IN_BOTH, printed(*lines)), "quiet_runtime").verdict is Verdict.BROKEN
    died = (DIED, *IGNORED[1:4], "ValueError: 139", *IGNORED[5:])
    mixed = zip(printed(*IGNORED), printed(*died, by=key(OTHER)), strict=True)
    finding = found(observed(IN_BOTH, [line for both in mixed for line in both]), "quiet_runtime")
    assert finding.how == "Exception ignored: ValueError"  # of the lines of one process


def test_what_keeps_a_server_is_told() -> None:
    kept = birth(WORKER, daemon=False) + looks(WORKER, unit("aa"))
    finding = found(observed(kept, SET, TERM, ended(status=-9), look(WORKER, 5.0, unit("aa"))), "clean_shutdown")
    assert "still running: listen in worker 0" in finding.explanation


def test_a_request_without_an_answer() -> None:
    assert found(observed(IN_BOTH), "server_answers").verdict is Verdict.HELD
    silent = seen(1.2, "request.invoke", request=9) + seen(1.9, "request.info", request=9, error="no answer within 5 s")
    assert found(observed(IN_BOTH, silent), "server_answers").verdict is Verdict.BROKEN


def test_a_request_that_is_answered_with_an_error() -> None:
    def of(*statuses: int, work: bool = True, path: str = "/work") -> Finding:
        told = seen(1.41, "log", line="RuntimeError: the pool is no more")
        for n, status in enumerate(statuses):
            told += seen(1.3 + n / 10, "request.invoke", request=10 + n, path=path, work=work)
            fields = {"worker": key(WORKER), "slot": n % 2, "loops": [], "status": status, "path": path}
            told += seen(1.35 + n / 10, "request.ok", request=10 + n, **fields)
        return found(observed(IN_BOTH, told), "server_answers")

    bad = of(200, 500)
    assert (bad.verdict, bad.how) == (Verdict.BROKEN, "error")
    assert "1 of 2 requests to /work came to 500, in worker 1: 'RuntimeError: the pool is no more'" in bad.explanation
    assert of(500, 500).verdict is Verdict.BROKEN
    assert of(500, 500, work=False).verdict is Verdict.HELD  # nobody says that it should be well
    assert of(200, 500, work=False).verdict is Verdict.BROKEN
    assert of(404, 404).verdict is Verdict.HELD


def test_an_app_that_never_booted() -> None:
    one = Observed(history(server(0)), {}, {})
    (finding,) = one.findings()
    assert (finding.claim, finding.verdict, finding.how) == ("workers_boot", Verdict.BROKEN, "never")
    assert finding.explanation == "the app did not boot"
    late = Observed(history(server(0), seen(3.0, "bound", what="boot", seconds=3.0, stretch=1.0)), {}, {})
    assert late.findings()[0].explanation == "the app did not boot within 3 s: --boot S gives it more"
    assert late.findings()[0].evidence[0].event == "bound"
    said = Observed(
        history(server(0), seen(0.2, "log", line="[110] [INFO] Booting"), seen(0.3, "log", line="[110] [ERROR] no")),
        {},
        {},
    )
    assert [line["line"][6:] for line in said.findings()[0].evidence] == ["[ERROR] no", "[INFO] Booting"]
    lost = Observed(history(server(0), seen(3.0, "lost", workers=11)), {}, {})
    assert lost.findings()[0].explanation == "the app did not boot: 11 workers ended before one had booted"
    asked = [seen(1.0, "request.invoke", request=n, path="/", work=False) for n in (1, 2, 3)]
    answered = seen(1.5, "request.ok", request=1, worker=WORKER, slot=0, loops=[], status=200, path="/")
    silent = Observed(history(server(0), *asked, answered), {}, {})
    assert silent.findings()[0].explanation == (
        "the app did not boot; of 3 requests for / 1 were answered: --health PATH asks for another"
    )
    assert cure(finding, one, Path("/srv")) == ""
    began = Observed(history(server(0), birth(WORKER, loop="Writer.run")), {}, {})
    told = cure(began.findings()[0], began, Path("/srv"))
    assert "had started `Writer.run`, app.py:5, by import of app.py." in told
    alone = Observed(history(server(0), birth(ARBITER, loop="Writer.run")), {}, {})  # no worker was forked
    assert cure(alone.findings()[0], alone, Path("/srv")) == told


def test_the_loops_that_an_app_had_started_that_never_booted() -> None:
    """Those that had ended by then are none, where somebody could look."""
    begun = birth(WORKER) + birth(WORKER, "bb", loop="once") + birth(WORKER, "cc", kind="process")

    def loops(*more: Events) -> list[tuple[str, str]]:
        return [(one.name, one.kind) for one in Observed(history(server(0), begun, *more), {}, {}).loops]

    assert loops() == [("listen@app.py:5", "thread"), ("once", "thread"), ("listen@app.py:5", "process")]
    seen_by_one = look(WORKER, 2.0, unit("bb")) + look(WORKER, 3.0, unit(running=False))
    assert loops(seen_by_one) == [("listen@app.py:5", "thread"), ("listen@app.py:5", "process")]
    assert loops(look(WORKER, 3.0)) == [("listen", "process")]


def outlived(*more: Events) -> Finding | None:
    """What is said of a worker that goes on 7 s after a reload."""
    late = seen(9.0, "outlived", fault="hup", processes=[key(WORKER)], seconds=7.0)
    findings = observed(IN_BOTH, late, *more).findings()
    told = [one for one in findings if one.claim == "handover_is_safe" and one.loop is None]
    return told[0] if told else None


def test_workers_of_before_that_go_on_beside_the_new_ones() -> None:
    finding = outlived()
    assert finding is not None
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "old workers stay")
    assert "7.0 s after hup, worker 0" in finding.explanation
    assert "in them: listen" in finding.explanation
    assert not [one for one in observed(IN_BOTH).findings() if one.claim == "handover_is_safe" and one.loop is None]


def test_a_worker_that_a_reload_has_told_to_end_is_no_crash_however_it_ends() -> None:
    late = seen(1.05, "outlived", fault="hup", processes=[key(WORKER)], seconds=7.0)
    assert found(observed(IN_BOTH, late, gone(WORKER, 1.5)), "workers_boot").verdict is Verdict.HELD
    assert found(observed(IN_BOTH, late, gone(OTHER, 1.5)), "workers_boot").how == "crash"


def test_workers_that_the_machine_gave_no_time_to_go() -> None:
    crowded = seen(2.1, "sample", ticks={}, granted=1.0) + seen(8.9, "sample", ticks={}, granted=1.5)
    finding = outlived(crowded)
    assert finding is not None
    assert finding.verdict is Verdict.UNKNOWN
    idle = seen(2.1, "sample", ticks={}, granted=1.0) + seen(8.9, "sample", ticks={}, granted=27.0)
    finding = outlived(idle)
    assert finding is not None
    assert finding.verdict is Verdict.BROKEN


def filling(**fields: Any) -> Events:
    """A worker's looks at a thread with ever more in its queue."""
    return [one for n, t in enumerate(LOOKS) for one in look(WORKER, t, unit(sizes=[n], **fields))]


def test_an_executor_whose_thread_has_ended_while_work_waits() -> None:
    pool = birth(WORKER, kind="executor", loop="pool")
    ended = observed(pool, filling(alive=False, running=False))
    assert (found(ended, "no_dead_listener").verdict, found(ended, "no_dead_listener").how) == (
        Verdict.BROKEN,
        "abandoned",
    )
    # A thread may end, and what it had may grow for other reasons; an executor may have another thread.
    assert observed(birth(WORKER), filling(alive=False, running=False)).loops == []
    both = [
        one
        for n, t in enumerate(LOOKS)
        for one in look(WORKER, t, unit(sizes=[n], alive=False, running=False), unit("bb", sizes=[n], tid=8))
    ]
    second = observed(pool, birth(WORKER, "bb", kind="executor", loop="pool"), both)
    assert found(second, "no_dead_listener").verdict is Verdict.HELD


def test_an_executor_whose_only_thread_has_ended_with_work_left() -> None:
    pool = birth(WORKER, kind="executor", loop="pool")
    dead: dict[str, Any] = {"sizes": [1], "alive": False, "running": False}
    other = unit("bb", sizes=[1], tid=8, open=True)

    def seen_as(*units: dict[str, Any]) -> Observed:
        return observed(pool, birth(WORKER, "bb", kind="executor", loop="pool"), looks(WORKER, *units))

    left = found(seen_as(unit(open=True, **dead)), "no_dead_listener")
    assert (left.verdict, left.how) == (Verdict.BROKEN, "abandoned")
    assert "1 thing in its queue, and nobody is there who takes" in left.explanation
    for units in (
        [unit(open=False, **dead)],  # shut down, which leaves a mark in the queue
        [unit(open=True, inherited=True, **dead)],  # a copy of another process's, and given nothing here
        [unit(open=True, **{**dead, "sizes": [0]})],
    ):
        assert seen_as(*units).loops == []
    assert found(seen_as(unit(open=True, **dead), other), "no_dead_listener").verdict is Verdict.HELD


def chain(pid: int, first: str, **fields: Any) -> Events:
    """A loop of which each turn is another timer: five births in a window."""
    names = [f"{first}{n}" for n in range(5)]
    made = [one for n, name in enumerate(names) for one in birth(pid, name, "again", "timer", 0.3 + n / 100, **fields)]
    return made + [one for name, t in zip(names, LOOKS, strict=True) for one in look(pid, t, unit(name, print="1"))]


def test_a_chain_of_timers_that_a_fork_has_copied() -> None:
    copied = observed(chain(ARBITER, "a"), chain(WORKER, "b", copy_of="a0"))
    finding = found(copied, "no_copied_thread")
    assert (finding.verdict, finding.how) == (Verdict.BROKEN, "copied")
    assert "worker 0" in finding.explanation
    (loop,) = copied.loops
    assert [(state.moves, state.copied) for state in copied.states(loop, 0)] == [(4, 0), (4, 1)]
    own = observed(chain(ARBITER, "a"), chain(WORKER, "b"))
    assert found(own, "no_copied_thread").verdict is Verdict.HELD


def test_a_look_between_two_timers_of_a_chain_loses_nothing() -> None:
    events = [one for one in chain(WORKER, "b") if not (one.event == "look" and one.t == LOOKS[-1])]
    one = observed(events, look(WORKER, LOOKS[-1]))
    assert [state.word for state in one.states(one.loops[0], 0)] == ["runs"]
    ended = observed(birth(WORKER), [e for t in LOOKS[:-1] for e in look(WORKER, t, unit())], look(WORKER, LOOKS[-1]))
    assert ended.loops == []


def test_how_a_loop_moves_from_look_to_look() -> None:
    greenlet = [one for n, t in enumerate(LOOKS) for one in look(WORKER, t, unit("aa", print=str(n // 2)))]
    one = observed(birth(WORKER, kind="greenlet"), greenlet, looks(OTHER))
    (process,) = [process for process in one.history.processes.values() if process.pid == WORKER]
    moved = [moves for _, moves in one.course(one.loops[0], process)]
    assert moved == [0, *(int(n % 2 == 0) for n in range(1, len(LOOKS)))]
    assert [t for t, _ in one.course(one.loops[0], process)] == list(LOOKS)
    wakes = tasks({t - 0.01: {7: 3 * n} for n, t in enumerate(LOOKS)})
    one = observed(birth(WORKER), wakes, looks(WORKER, unit()), looks(OTHER))
    assert [moves for _, moves in one.course(one.loops[0], process)] == [0, *[3] * (len(LOOKS) - 1)]


def test_judging_takes_as_long_as_there_are_greenlets() -> None:
    def seconds(count: int) -> float:
        crowd = [unit("aa", print=str(number)) for number in range(count)]
        begun = time.process_time()
        observed(birth(WORKER, kind="greenlet"), looks(WORKER, *crowd), looks(OTHER)).findings()
        return time.process_time() - begun

    assert min(seconds(2000) for _ in range(3)) < 9 * min(seconds(500) for _ in range(3))


def test_a_cure_is_for_what_is_meant() -> None:
    def cured(one: Observed, claim: str) -> str:
        return cure(found(one, claim), one, Path("/srv"))

    placed = "exactly_one_listener"
    assert "in the one worker that gets a lock" in cured(observed(IN_BOTH, listen="once_per_service"), placed)
    assert "`when_ready`, which the master alone runs" in cured(observed(IN_BOTH, listen="arbiter_only"), placed)
    assert "which each worker runs once" in cured(observed(IN_MASTER, listen="once_per_worker"), placed)
    silent = seen(1.2, "request.invoke", request=9) + seen(1.9, "request.info", request=9, error="no answer within 5 s")
    assert "left in the master alone: `listen`" in cured(observed(IN_MASTER, silent), "server_answers")
    assert cured(observed(IN_BOTH, silent), "server_answers") == ""
    never = Observed(history(server(2), birth(ARBITER)), {}, {})
    assert "A fork catches a thread in whatever it does" in cured(never, "workers_boot")
    assert cured(Observed(history(server(0)), {}, {}), "workers_boot") == ""
    raised = ['  File "/srv/app.py", line 3, in <module>', "ValueError: 7"]
    said = [one for line in raised for one in seen(0.5, "log", line=line, by=key(WORKER))]
    halted = seen(0.6, "log", line="gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>")
    for log, told in ((halted, ""), (said + halted, "The last error that was printed: ValueError: 7 (app.py:3).")):
        assert cured(Observed(history(server(0), log), {}, {}), "workers_boot") == told
    made = [*birth(WORKER, kind="process", loop="work"), event(0.4, WORKER, "child", birth="aa", child=150)]
    lives = [one for t in LOOKS for one in seen(t, "tasks", tasks={"150-150": {"150": 3}})]
    stays = seen(9.0, "left", processes=[{"pid": 150, "start": 150, "command": "gunicorn"}])
    kept = observed(made, lives, SET, TERM, stays, process(150, "child", 0, ppid=WORKER))
    assert "`work` (app.py:5): a process that is forked takes over" in cured(kept, "clean_shutdown")
    kept = observed(made, lives, SET, TERM, stays)
    assert "`work` (app.py:5): a program of its own, which nobody ends" in cured(kept, "clean_shutdown")
    program = seen(9.0, "left", processes=[{"pid": 150, "start": 150, "command": "sleep 1000"}])
    kept = observed(IN_BOTH, SET, TERM, program)
    assert "'sleep 1000' (pid 150)" in found(kept, "clean_shutdown").explanation
    assert cured(kept, "clean_shutdown").startswith("What is left: a program of its own, which nobody ends")
    others = seen(9.0, "left", processes=[{"pid": WORKER, "start": WORKER, "command": "gunicorn"}])
    assert "Make its threads daemons" in cured(observed(made, lives, SET, TERM, others), "clean_shutdown")
    hangs = observed(made, lives, silent, SET, TERM, others)
    assert "A request that never ends keeps its worker" in cured(hangs, "clean_shutdown")
    master = seen(9.0, "left", processes=[{"pid": ARBITER, "start": ARBITER, "command": "gunicorn"}])
    assert "Make its threads daemons" in cured(observed(made, lives, silent, SET, TERM, master), "clean_shutdown")
    library = birth(WORKER, defined_at="/srv/lib/python3/site-packages/watcher.py:9")
    died = event(0.5, WORKER, "loop.end", loop="Thread-1", birth="aa", error="TypeError: None", at=[])
    assert "its code is a library's" in cured(observed(library, looks(WORKER), [died]), "no_dead_listener")
    assert "Catch the error in its body" in cured(observed(IN_BOTH, [died]), "no_dead_listener")
