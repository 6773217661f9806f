"""The arbiter's claims, judged on histories of a few events."""

from __future__ import annotations

import pytest
from histories import (
    ARBITER,
    WORKER,
    Events,
    begin,
    created,
    exited,
    fault,
    gone,
    judged,
    log,
    ran,
    scenario,
    seen,
    server,
    window,
    worker,
)

from forkproof.verdict import Verdict

HELD, BROKEN, UNKNOWN, NONE = Verdict.HELD, Verdict.BROKEN, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE
PLAIN = scenario({"start": "on_starting", "policy": "arbiter_only"})
ASKED = seen(2.1, "signal.invoke", number=1, signal="winch", target=ARBITER)
ACTED = ASKED + seen(2.2, "signal.ok", number=1, signal="winch", seconds=0.1)


def test_it_acts_and_its_loop_gets_on() -> None:
    events = (server(), created("a", ARBITER), ran("a", ARBITER), window(), ACTED)
    finding = judged("arbiter_responsive", PLAIN, *events)
    assert finding.verdict is HELD
    assert finding.explanation == (
        "it acted on 1 signal, on the slowest after 0.10s; it had 50 turns in arbiter (pid 100) from +1.00s to +2.00s"
    )


def test_it_acts_and_has_no_loop() -> None:
    finding = judged("arbiter_responsive", scenario(), server(), window(), ACTED)
    assert finding.verdict is HELD
    assert finding.explanation.endswith("no loop of its own stands still")


def test_it_does_not_act() -> None:
    stack = seen(6.3, "stack", target="100-100", file="stacks/100-100.txt")
    silent = seen(6.2, "signal.fail", number=1, signal="winch", error="it did not act on it within 4.0 s")
    finding = judged("arbiter_responsive", PLAIN, server(), window(), ASKED, silent, stack)
    assert (finding.verdict, finding.how) == (BROKEN, "does not act")
    assert finding.evidence[0].event == "signal.fail"
    assert [event.event for event in finding.evidence] == ["signal.fail", "signal.invoke", "stack"]


def test_no_other_master_comes() -> None:
    reexec = scenario(faults=[{"fault": "usr2"}])
    finding = judged(
        "arbiter_responsive", reexec, server(), window(), ACTED, fault("usr2", 2.5, target=ARBITER, new=None)
    )
    assert (finding.verdict, finding.how) == (BROKEN, "does not act")


def test_its_loop_stands_still() -> None:
    events = (server(), created("a", ARBITER), begin("a", ARBITER), window(), ACTED)
    finding = judged("arbiter_responsive", PLAIN, *events)
    assert (finding.verdict, finding.how) == (BROKEN, "nothing enters the hub")


def test_a_loop_of_a_worker_is_not_its_own() -> None:
    events = (server(), created("a", WORKER), begin("a", WORKER), window(), ACTED)
    assert judged("arbiter_responsive", scenario(), *events).verdict is HELD


def test_a_loop_in_a_window_that_tells_nothing() -> None:
    events = (server(), created("a", ARBITER), begin("a", ARBITER), window(control=3), ACTED)
    assert judged("arbiter_responsive", PLAIN, *events).verdict is UNKNOWN


@pytest.mark.parametrize(
    "events",
    [
        server(),
        server() + window(),
        server() + window() + seen(2.2, "signal.info", number=1, signal="winch", error="the log was cut"),
    ],
    ids=["no window", "not asked", "no log"],
)
def test_it_was_not_seen_to_act(events: Events) -> None:
    assert judged("arbiter_responsive", scenario(), events).verdict is UNKNOWN


EXIT_3 = {"fault": "foreign_child_exit", "options": {"code": 3}}
FOREIGN = scenario(faults=[EXIT_3])
EXITS = fault("foreign_child_exit", 2.5, target=55, code=3, arbiter=ARBITER)


def test_the_exit_of_a_foreign_child_changes_nothing() -> None:
    finding = judged("foreign_child_ignored", FOREIGN, server(2), window(), EXITS, window(1))
    assert finding.verdict is HELD
    assert finding.explanation == (
        "child 55, which is no worker, exited with code 3 at +2.50s: the arbiter and 2 workers are the same"
    )


def test_it_ends_the_arbiter() -> None:
    events = (server(), window(), EXITS, log(2.6, "Reason: Worker failed to boot."), exited(ARBITER, 2.7, 3), window(1))
    finding = judged("foreign_child_ignored", FOREIGN, *events)
    assert (finding.verdict, finding.how) == (BROKEN, "the arbiter ended")
    assert finding.evidence[0].event == "exit"
    assert any(event.event == "log" for event in finding.evidence)


def test_it_is_taken_for_a_worker() -> None:
    events = (server(), window(), EXITS, log(2.6, "[100] [ERROR] Worker (pid:55) exited with code 3."), window(1))
    finding = judged("foreign_child_ignored", FOREIGN, *events)
    assert (finding.verdict, finding.how) == (BROKEN, "told")


def test_another_number_in_the_log_is_not_its_pid() -> None:
    lines = (log(2.6, '  File "src/gevent/_waiter.py", line 55, in switch'), log(2.6, "<callback at 0x7f55ad> failed"))
    assert judged("foreign_child_ignored", FOREIGN, server(2), window(), EXITS, *lines, window(1)).verdict is HELD


def test_a_worker_goes() -> None:
    events = (server(), window(), EXITS, gone(WORKER, 2.6), worker(0, pid=120, t=2.7), window(1))
    finding = judged("foreign_child_ignored", FOREIGN, *events)
    assert (finding.verdict, finding.how) == (BROKEN, "a worker went")
    often = scenario(faults=[EXIT_3], server={"max_requests": 100})
    assert judged("foreign_child_ignored", often, *events).verdict is HELD


@pytest.mark.parametrize(
    "events",
    [
        server() + window(),
        server() + window() + seen(2.5, "fault.fail", fault="foreign_child_exit", index=0, error="no child"),
        server() + window() + EXITS,
    ],
    ids=["never came", "never landed", "no window after it"],
)
def test_it_was_not_seen(events: Events) -> None:
    assert judged("foreign_child_ignored", FOREIGN, events).verdict is UNKNOWN


def test_no_foreign_child() -> None:
    assert judged("foreign_child_ignored", scenario(), server(), window()).verdict is NONE
