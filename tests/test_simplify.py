"""Simpler neighbours: each can be, differs, is simpler; and going on for long ends at the plainest scenario."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from few import FEW
from hypothesis import given
from hypothesis import strategies as st

from forkproof.explore import size
from forkproof.scenario import Policy, Scenario, from_dict
from forkproof.simplify import descend, neighbours
from forkproof_strategies import scenarios

RICH: dict[str, Any] = {
    "patches": [{"site": "config_first_line", "flags": {"thread": False, "dns": False}}, {"site": "post_fork"}],
    "loops": [
        {"name": "a", "kind": "greenlet", "start": "on_starting", "policy": "once_per_service"},
        {"name": "b", "body": "listen", "daemon": False, "yields": {"call": "native_sleep", "every": 10}},
    ],
    "server": {"worker_class": "gthread", "workers": 4, "threads": 4, "preload": True, "timeout": 9},
    "surroundings": {
        "broker": "unix_socket",
        "early_imports": [{"what": "lock"}, {"what": "queue", "where": "config"}],
    },
    "faults": [
        {"fault": "kill_worker", "slot": 3, "after": {"event": "request", "slot": 2, "delay": 0.2}},
        {"fault": "term"},
    ],
}


def rank(what: Scenario) -> tuple[int, int]:
    return size(what), what.server.workers


@FEW
@given(scenarios())
def test_each_neighbour_is_simpler_and_can_be(what: Scenario) -> None:
    found = list(neighbours(what))
    digests = {simpler.digest for simpler in found}
    assert len(digests) == len(found)
    assert what.digest not in digests
    for simpler in found:
        assert rank(simpler) < rank(what)
        assert from_dict(simpler.to_dict()) == simpler


def test_each_dimension_is_tried() -> None:
    found = list(neighbours(from_dict(RICH)))
    assert {len(simpler.faults) for simpler in found} == {0, 1, 2}
    assert {simpler.server.workers for simpler in found} == {1, 3, 4}
    assert {len(simpler.loops) for simpler in found} == {1, 2}
    assert {tuple(len(patch.flags) for patch in simpler.patches) for simpler in found} == {
        (2, 0), (0,), (2,), (1, 0), (0, 0), (),
    }  # fmt: skip
    for name, value in {"worker_class": "sync", "preload": False, "threads": 1, "timeout": 30}.items():
        assert any(simpler.to_dict()["server"][name] == value for simpler in found), name
    assert any(simpler.surroundings.broker == "ip" for simpler in found)
    assert any(not simpler.surroundings.early_imports for simpler in found)
    assert any(simpler.loops[0].kind == "thread" for simpler in found)
    assert any(simpler.faults[:1] and simpler.faults[0].after.delay == 0 for simpler in found)


def test_the_biggest_steps_come_first() -> None:
    first = next(neighbours(from_dict(RICH)))
    assert not first.faults


@pytest.mark.parametrize("keep", ["a", "b"])
def test_the_loop_that_matters_stays(keep: str) -> None:
    found = list(neighbours(from_dict(RICH), keep=keep))
    assert all(keep in {loop.name for loop in simpler.loops} for simpler in found)
    assert any({loop.name for loop in simpler.loops} == {keep} for simpler in found)


def test_slots_follow_the_workers() -> None:
    fewer = [simpler for simpler in neighbours(from_dict(RICH)) if simpler.server.workers < 4 and simpler.faults]
    slots = {what.server.workers: (what.faults[0].slot, what.faults[0].after.slot) for what in fewer}
    assert slots == {1: (0, 0), 3: (2, 2)}


def test_threads_follow_the_worker_class() -> None:
    found = [simpler for simpler in neighbours(from_dict(RICH)) if simpler.server.worker_class == "sync"]
    assert {simpler.server.threads for simpler in found} == {1}


@FEW
@given(scenarios())
def test_going_on_ends_at_the_plainest_scenario(what: Scenario) -> None:
    ends_plain(what, what.loops[0].name)


def test_a_scenario_by_hand_ends_at_the_plainest_one_too() -> None:
    ends_plain(from_dict(RICH), "b")


def ends_plain(what: Scenario, keep: str) -> None:
    policies = {loop.name: loop.policy for loop in what.loops}
    while (simpler := next(neighbours(what, keep=keep), None)) is not None:
        what = simpler
    policy: Policy = policies[keep]
    assert what == from_dict({"loops": [{"name": keep, "policy": policy}]})


@FEW
@given(scenarios(), st.integers(1, 4), st.data())
def test_going_down_ends_where_no_simpler_neighbour_shows(what: Scenario, width: int, data: st.DataObject) -> None:
    plain = json.loads(what.model_dump_json(exclude_defaults=True))
    fields = [(part, name) for part in ("server", "surroundings") for name in plain.get(part, {})]
    needed = data.draw(st.lists(st.sampled_from(fields), max_size=2) if fields else st.just([]))

    def shows(one: Scenario) -> bool:
        return all(getattr(getattr(one, part), name) == getattr(getattr(what, part), name) for part, name in needed)

    def showing(batch: Sequence[Scenario]) -> list[Scenario]:
        assert 0 < len(batch) <= width
        return [one for one in batch if shows(one)]

    steps = descend(what, None, width, showing, lambda one: one, lambda: True)
    smallest = steps[-1] if steps else what
    assert shows(smallest)
    assert not any(shows(simpler) for simpler in neighbours(smallest))


def test_changes_that_show_are_made_together() -> None:
    asked: list[Scenario] = []

    def showing(batch: Sequence[Scenario]) -> list[Scenario]:
        asked.extend(batch)
        return [one for one in batch if one.server.preload]

    [*_, smallest] = descend(from_dict(RICH), None, 4, showing, lambda one: one, lambda: True)
    assert smallest.to_dict() == from_dict({"loops": [{"name": "b"}], "server": {"preload": True}}).to_dict()
    assert len(asked) <= 36, "one change at a time took 49"
