"""The dimensions are what the schema says, whatever is added to it."""

from __future__ import annotations

import enum

import pytest
from few import FEW
from hypothesis import given
from pydantic import BaseModel, Field

from forkproof import dimensions
from forkproof.dimensions import REQUIRED, Dimension, Members, at, leaves, lists, minimal
from forkproof.scenario import LoopKind, PatchSite, Scenario
from forkproof_strategies import scenarios

NAMED = {dimension.name: dimension for dimension in dimensions.dimensions()}


def test_words_are_listed_and_numbers_of_many_are_not() -> None:
    assert NAMED["loop.kind"].values == tuple(LoopKind)
    assert NAMED["patch.site"].values == tuple(PatchSite)
    assert NAMED["patch.site"].default is REQUIRED
    assert NAMED["preload"].values == (False, True)
    assert NAMED["workers"].values == (1, 2, 3, 4)
    assert NAMED["timeout"].values == ()
    assert NAMED["loop.yields.seconds"].values == ()
    assert {"term", "kill_worker"} <= set(NAMED["fault"].values)
    assert None in NAMED["fault.slot"].values
    assert not {"loop.name", "schema"} & NAMED.keys()


@FEW
@given(scenarios())
def test_every_field_of_a_scenario_has_its_dimension(what: Scenario) -> None:
    plain = what.to_dict()
    for path, dimension in leaves(plain):
        value = at(plain, path)
        assert not dimension.values or value in dimension.values, path
    found = {dimension.path for _, dimension in leaves(plain)}
    assert {("server", "preload"), ("loops", "yields", "call")} <= found
    assert (("faults", "after", "event") in found) == bool(what.faults)


def test_the_least_that_a_member_must_say_can_be() -> None:
    for members in lists():
        assert members.model.model_validate(minimal(members)), members.path


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    many: int = Field(default=0, ge=0, le=99)
    few: int | None = Field(default=None, ge=0, le=1)


class Later(BaseModel):
    """Fields of kinds that a scenario may come to have."""

    colour: Colour | None = None
    inner: Inner | None = None
    list_of: tuple[Inner, ...] = Field(default=(), max_length=2)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (("colour",), ("red", "blue", None)),
        (("inner", "many"), ()),
        (("inner", "few"), (0, 1, None)),
        (("list_of", "few"), (0, 1, None)),
    ],
)
def test_fields_of_any_kind_are_read(path: tuple[str, ...], values: tuple[object, ...]) -> None:
    found = {one.path: one for one in dimensions._of_model(Later, ()) if isinstance(one, Dimension)}
    assert found[path].values == values


def test_lists_are_read() -> None:
    [found] = [one for one in dimensions._of_model(Later, ()) if isinstance(one, Members)]
    assert (found.path, found.least, found.most) == (("list_of",), 0, 2)
