"""Loops that wait for a lock or a lease: who waits is idle, who takes over is no second one."""

from __future__ import annotations

import pytest
from histories import (
    arbiter,
    created,
    gone,
    judged,
    ran,
    request,
    sample,
    scenario,
    server,
    window,
)

from forkproof import expectation
from forkproof.expectation import Expectation
from forkproof.history import LEASE, decisive_turns
from forkproof.plugin import Forkproof
from forkproof.scenario import Scenario, from_dict
from forkproof.verdict import Verdict

GUARDED = {"policy": "once_per_service", "guard": "lease", "start": "post_worker_init"}
TWO = {"server": {"workers": 2}}
BOTH = created("a", 110) + created("b", 111)


def test_who_waits_while_another_holds_it_is_neither_dead_nor_starved() -> None:
    events = (server(2), BOTH, ran("a", 110), request(a=True), request(slot=1, b=True), window())
    assert judged("no_dead_listener", scenario(GUARDED, **TWO), *events).verdict is Verdict.HELD
    assert judged("no_starved_greenlet", scenario(GUARDED, **TWO), *events).verdict is Verdict.HELD
    assert judged("exactly_one_listener", scenario(GUARDED, **TWO), *events).verdict is Verdict.HELD


def test_nobody_holds_it() -> None:
    events = (server(2), BOTH, request(slot=1, b=True), window())
    assert judged("exactly_one_listener", scenario(GUARDED, **TWO), *events).how == "zero"
    assert judged("no_dead_listener", scenario(GUARDED, **TWO), *events).how == "alive but silent"


def test_one_after_the_other_is_no_double() -> None:
    before = sample(1.1, 110, a=5) + sample(1.2, 110, a=9)
    after = sample(1.6, 111, b=3) + sample(1.8, 111, b=7)
    begun = ran("a", 110, w0=0) + ran("b", 111, w0=0)
    events = (server(2), BOTH, begun, before, after, window())
    assert judged("exactly_one_listener", scenario(GUARDED, **TWO), *events).verdict is Verdict.HELD
    plain = scenario({**GUARDED, "guard": "none"}, **TWO)
    assert judged("exactly_one_listener", plain, *events).how == "double"


def test_both_at_once_is_a_double() -> None:
    ticks = sample(1.2, 110, a=9) + sample(1.3, 111, b=3) + sample(1.6, 110, a=15)
    events = (server(2), BOTH, ran("a", 110, w0=0), ran("b", 111, w0=0), ticks, window())
    assert judged("exactly_one_listener", scenario(GUARDED, **TWO), *events).how == "double"


def test_a_holder_that_died_in_the_window_has_a_successor() -> None:
    ticks = sample(1.2, 110, a=9) + gone(110, 1.3) + sample(1.8, 111, b=3)
    events = (arbiter(), server(2), BOTH, ran("a", 110, w0=0), ran("b", 111, w0=0), ticks, window())
    assert judged("exactly_one_listener", scenario(GUARDED, **TWO), *events).verdict is Verdict.HELD


def test_windows_after_a_fault_outlast_the_lease() -> None:
    fault = {"faults": [{"fault": "kill_worker", "slot": 0}]}
    without = decisive_turns(scenario({**GUARDED, "guard": "none"}, **fault))
    assert decisive_turns(scenario(GUARDED, **fault)) - without >= 2 * LEASE / 0.02
    assert decisive_turns(scenario(GUARDED)) == without


@pytest.mark.parametrize(
    ("guard", "faults", "answer"),
    [
        ("lock", [], Expectation.MUST_HOLD),
        ("lock", [{"fault": "kill_worker", "slot": 0}], Expectation.MAY_BREAK),
        ("lease", [{"fault": "kill_worker", "slot": 0}], Expectation.MUST_HOLD),
        ("none", [], Expectation.MUST_BREAK),
    ],
)
def test_what_is_promised(guard: str, faults: list[object], answer: Expectation) -> None:
    what = from_dict({"loops": [{"name": "a", "policy": "once_per_service", "guard": guard}], "faults": faults, **TWO})
    assert expectation.expect(what, "exactly_one_listener", "a", {})[0] is answer


def killed(guard: str) -> Scenario:
    return from_dict(
        {
            "loops": [{"name": "a", "policy": "once_per_service", "guard": guard, "start": "post_fork"}],
            "faults": [{"fault": "kill_worker", "slot": slot} for slot in (0, 1)],
            **TWO,
        }
    )


@pytest.mark.fork
def test_a_lease_outlives_its_holder_and_a_lock_does_not(forkproof: Forkproof) -> None:
    forkproof.run(killed("lease")).assert_held("exactly_one_listener", "no_dead_listener")
    findings = [j.finding for j in forkproof.run(killed("lock")).report.judgements]
    assert "zero" in {finding.how for finding in findings if finding.claim == "exactly_one_listener"}
