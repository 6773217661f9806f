"""Anything that is given as a scenario is one, or is refused with ScenarioError."""

from __future__ import annotations

import json
from collections.abc import Callable

from few import FEW
from hypothesis import given
from hypothesis import strategies as st

from forkproof.errors import ScenarioError
from forkproof.scenario import Scenario, from_dict, parse
from forkproof_strategies import scenarios

TEXT = st.text(st.characters() | st.just("\ud800"), max_size=5)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = LEAF | st.lists(LEAF, max_size=2) | st.dictionaries(TEXT, LEAF | st.lists(LEAF, max_size=1), max_size=2)
FIELDS = st.sampled_from(["schema", "patches", "loops", "server", "faults"])


def accepted_or_refused(make: Callable[[], Scenario]) -> None:
    try:
        what = make()
    except ScenarioError:
        return
    assert parse(what.to_json()) == what


@FEW
@given(JSON | st.dictionaries(FIELDS, JSON | st.lists(JSON, max_size=2), max_size=3))
def test_any_json(data: object) -> None:
    accepted_or_refused(lambda: from_dict(data))
    accepted_or_refused(lambda: parse(json.dumps(data)))


@FEW
@given(st.text())
def test_any_text(text: str) -> None:
    accepted_or_refused(lambda: parse(text))


@FEW
@given(scenarios(), st.data())
def test_a_scenario_with_one_value_changed(what: Scenario, data: st.DataObject) -> None:
    plain = place = what.to_dict()
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not place[key] or not isinstance(place[key], (dict, list)) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    accepted_or_refused(lambda: from_dict(plain))
