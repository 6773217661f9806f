"""Strategies: what they shrink to, what they can be narrowed to, that they reach everything, that they are pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis import strategies as st

from forkproof.faults import REGISTRY, Life
from forkproof.scenario import (
    PATCH_FLAGS,
    AnchorEvent,
    BrokerAddress,
    EarlyPlace,
    EarlyThing,
    Fault,
    ForkHooks,
    Loop,
    LoopBody,
    LoopKind,
    LoopStart,
    PatchSite,
    Policy,
    Requests,
    Scenario,
    WorkerClass,
    YieldCall,
)
from forkproof_strategies import faults, scenarios

QUIET = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
FOUR = Life(workers=4, timeout=6, slots=(0, 1, 2, 3))
PLAINEST = Scenario(loops=(Loop(name="a"),))


def drawn(strategy: st.SearchStrategy[Any], count: int, *, start: int = 1) -> list[Any]:
    """The same examples in each run."""
    found: list[Any] = []

    @seed(start)
    @settings(QUIET, max_examples=count, phases=[Phase.generate])
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


@pytest.fixture(scope="module")
def many() -> list[Scenario]:
    # In small slices, as `explore.draw` does: Hypothesis varies what it has just drawn.
    return [what for start in range(20) for what in drawn(scenarios(), 10, start=start)]


def test_the_plainest_scenario_is_what_shrinking_ends_at() -> None:
    # Hypothesis begins with the example that nothing is simpler than.
    assert drawn(scenarios(), 1) == [PLAINEST]


def test_shrinking_keeps_what_matters_alone() -> None:
    smallest = find(
        faults(life=FOUR),
        lambda some: any(fault.fault == "kill_worker" for fault in some),
        settings=QUIET,
    )
    assert smallest == (Fault(fault="kill_worker", slot=0),)


def values(what: Scenario) -> Iterator[tuple[str, object]]:
    """The value that a scenario has in each dimension."""
    yield "worker_class", what.server.worker_class
    yield "workers", what.server.workers
    yield "preload", what.server.preload
    yield "reload", what.server.reload
    yield "control_socket", what.server.control_socket
    yield "threads", what.server.threads > 1
    yield "requests", what.surroundings.requests
    yield "patches", len(what.patches)
    yield "loops", len(what.loops)
    yield "faults", len(what.faults)
    for patch in what.patches:
        yield "site", patch.site
        yield from (("flag", flag) for flag in patch.flags)
    for loop in what.loops:
        yield from (("start", loop.start), ("kind", loop.kind), ("daemon", loop.daemon), ("body", loop.body))
        yield from (("policy", loop.policy), ("yield", loop.yields.call), ("every", loop.yields.every))
        yield "seconds", loop.yields.seconds
    yield "broker", what.surroundings.broker
    yield "hiredis", what.surroundings.hiredis
    yield "app's hooks", what.surroundings.fork_hooks
    yield "foreign children", what.surroundings.foreign_children
    yield "early", len(what.surroundings.early_imports)
    for early in what.surroundings.early_imports:
        yield from (("early thing", early.what), ("early place", early.where))
    sites = [patch.site for patch in what.patches]
    flags = {json.dumps(patch.flags) for patch in what.patches}
    yield "patched twice at one site, otherwise", len(set(sites)) < len(sites) and len(flags) > 1
    for fault in what.faults:
        yield from (
            ("fault", fault.fault),
            ("slot", fault.slot),
            ("slot", fault.after.slot),
            ("anchor", fault.after.event),
        )
        yield "delay", fault.after.delay


@pytest.mark.parametrize(
    ("dimension", "all_of_them"),
    [
        ("worker_class", WorkerClass),
        ("workers", (1, 2, 3, 4)),
        ("preload", (False, True)),
        ("reload", (False, True)),
        ("control_socket", (False, True)),
        ("threads", (False, True)),
        ("requests", Requests),
        ("patches", (0, 1, 2, 3)),
        ("loops", (1, 2, 3)),
        ("faults", (0, 1, 2, 3)),
        ("site", PatchSite),
        ("flag", PATCH_FLAGS),
        ("start", LoopStart),
        ("kind", LoopKind),
        ("daemon", (False, True)),
        ("body", LoopBody),
        ("policy", Policy),
        ("yield", YieldCall),
        ("every", (1, 2, 10, 100)),
        ("seconds", (0.0, 0.001, 0.01, 0.05, 0.1, 0.5)),
        ("broker", BrokerAddress),
        ("hiredis", (False, True)),
        ("app's hooks", ForkHooks),
        ("foreign children", (0, 1, 2)),
        ("early", (0, 1, 2)),
        ("early thing", EarlyThing),
        ("early place", EarlyPlace),
        ("patched twice at one site, otherwise", (False, True)),
        ("slot", (None, 0, 1, 2, 3)),
        ("anchor", AnchorEvent),
        ("delay", (0.0, 0.05, 0.2)),
    ],
)
def test_every_value_of_every_dimension_is_drawn(many: list[Scenario], dimension: str, all_of_them: Any) -> None:
    assert {value for what in many for name, value in values(what) if name == dimension} == set(all_of_them)


def test_every_fault_is_drawn_where_it_can_be() -> None:
    whole = replace(FOUR, max_requests=100, uses_redis=True, children=frozenset({"arbiter", "worker"}))
    some = [one for start in range(30) for one in drawn(faults(life=whole, max_size=5), 10, start=start)]
    assert {fault.fault for one in some for fault in one} == set(REGISTRY)


def test_faults_need_what_they_are_done_to(many: list[Scenario]) -> None:
    special = {fault.fault for what in many for fault in what.faults if REGISTRY[fault.fault].scene}
    assert len(special) > 2


def test_few_are_drawn_twice(many: list[Scenario]) -> None:
    assert len({what.digest for what in many}) > 0.7 * len(many)


@pytest.mark.parametrize(
    ("narrow", "dimension", "allowed"),
    [
        ({"worker_classes": [WorkerClass.SYNC, WorkerClass.GTHREAD]}, "worker_class", {"sync", "gthread"}),
        ({"flags": ["dns", "thread"]}, "flag", {"dns", "thread"}),
        ({"flags": []}, "flag", set()),
        ({"without": ["patches"]}, "site", set()),
        ({"without": ["several patches"]}, "patches", {0, 1}),
        ({"without": ["redis", "cpu", "shared"]}, "body", {LoopBody.SLEEP}),
        ({"without": ["other addresses"]}, "broker", {"ip"}),
        (
            {
                "without": [
                    "greenlets",
                    "timers",
                    "executors",
                    "native threads",
                    "processes",
                    "new processes",
                    "socketio",
                ]
            },
            "kind",
            {LoopKind.THREAD, LoopKind.RUN_IN_THREAD},
        ),
        ({"without": ["requests one by one"]}, "requests", {Requests.BURSTS}),
        ({"without": ["fork hooks"]}, "start", set(LoopStart) - {LoopStart.FORK_HOOK}),
        ({"without": ["foreign children"]}, "foreign children", {0}),
        ({"without": ["hooks of the app"]}, "app's hooks", {ForkHooks.NONE}),
        ({"without": ["hiredis"]}, "hiredis", {False}),
        ({"without": ["early imports"]}, "early", {0}),
        ({"without": ["simple queues"]}, "early thing", set(EarlyThing) - {EarlyThing.SIMPLE_QUEUE}),
        ({"without": ["preload"]}, "preload", {False}),
        ({"without": ["reload", "no control socket"]}, "reload", {False}),
        ({"max_workers": 2}, "workers", {1, 2}),
        ({"max_loops": 1}, "loops", {1}),
        ({"max_faults": 0}, "faults", {0}),
        ({"max_faults": 1}, "faults", {0, 1}),
    ],
)
def test_narrowed(narrow: dict[str, Any], dimension: str, allowed: set[object]) -> None:
    some = drawn(scenarios(**narrow), 12)
    assert {value for what in some for name, value in values(what) if name == dimension} <= allowed


@pytest.mark.parametrize("max_size", [0, 1, 2])
@pytest.mark.parametrize("allow", [{"term"}, {"kill_worker"}, set(REGISTRY), set()])
def test_faults_are_those_allowed(allow: set[str], max_size: int) -> None:
    for some in drawn(faults(life=FOUR, allow=frozenset(allow), max_size=max_size), 10):
        assert len(some) <= max_size
        assert {fault.fault for fault in some} <= allow


def test_nothing_is_started() -> None:
    before = children()
    assert drawn(scenarios(), 20)
    assert children() == before


def children() -> set[str]:
    # Fork tests in the same process may have a session open, with children of its own.
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}
