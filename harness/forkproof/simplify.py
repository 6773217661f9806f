"""Simpler neighbours of a scenario: what shrinking tries, one dimension at a time.

To leave a field out is to have its default, so whatever a scenario may say is met here without being named.

>>> from forkproof.scenario import Loop, Scenario, Server
>>> what = Scenario(loops=[Loop(name="a")], server=Server(workers=3))
>>> [simpler.server.workers for simpler in neighbours(what)]
[1, 2]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from forkproof.dimensions import Path, at
from forkproof.errors import ScenarioError
from forkproof.faults import Life, walk
from forkproof.scenario import CONTROL, Fault, Scenario, Server, from_dict

Shown = TypeVar("Shown")
Change = tuple[Path, Any]

DROP = object()
"""In place of a value: leave it out."""

_SERVER = Server().model_dump(mode="json")
_FAULT = Fault(fault="term").model_dump(mode="json")

# A loop's policy is what the user wants of it, so it is not the harness's to simplify.
_KEPT = ("name", "policy")


def neighbours(scenario: Scenario, *, keep: str | None = None) -> Iterator[Scenario]:
    """Scenarios that are simpler in one dimension, the biggest steps first; the loop called `keep` stays."""
    return (simpler for _, simpler in _steps(scenario, keep))


def _steps(scenario: Scenario, keep: str | None) -> Iterator[tuple[Change, Scenario]]:
    seen = {scenario.digest}
    for path, value in _changes(scenario, keep):
        simpler = changed(scenario, path, value)
        if simpler is not None and simpler.digest not in seen:
            seen.add(simpler.digest)
            yield (path, value), simpler


def descend(
    what: Scenario,
    keep: str | None,
    width: int,
    showing: Callable[[Sequence[Scenario]], list[Shown]],
    scenario_of: Callable[[Shown], Scenario],
    go_on: Callable[[], bool],
) -> list[Shown]:
    """Steps to simpler and simpler scenarios: `showing` tells which of up to `width` still show, in their order.

    Changes that show together are made together, if that still shows. One that was refused is tried again only when
    all others have been: most of what matters goes on to matter.
    """
    steps: list[Shown] = []
    refused: set[str] = set()
    late: set[Change] = set()
    while go_on():
        candidates = [(change, simpler) for change, simpler in _steps(what, keep) if simpler.digest not in refused]
        batch = sorted(candidates, key=lambda one: one[0] in late)[:width]
        if not batch:
            break
        found = showing([simpler for _, simpler in batch])
        shown = {scenario_of(one).digest for one in found}
        refused |= {simpler.digest for _, simpler in batch} - shown
        late |= {change for change, simpler in batch if simpler.digest not in shown}
        if not found:
            continue
        together = _together(what, [change for change, simpler in batch if simpler.digest in shown])
        together = [one for one in together if one.digest not in refused | shown][:width]
        if together and go_on():
            more = showing(together)
            refused |= {one.digest for one in together} - {scenario_of(one).digest for one in more}
            found = [*more, *found]
        steps.append(found[0])
        what = scenario_of(found[0])
    return steps


def _together(what: Scenario, changes: Sequence[Change]) -> list[Scenario]:
    """Scenarios with two or more of some changes, most of them first; positions in lists may have moved by then."""
    found: dict[str, Scenario] = {}
    for count in range(len(changes), 1, -1):
        for some in itertools.combinations(changes, count):
            merged: Scenario | None = what
            for path, value in reversed(some):  # the later of a list first
                merged = merged and _applied(merged, path, value)
            if merged is not None:
                found.setdefault(merged.digest, merged)
    return list(found.values())


def _applied(what: Scenario, path: Path, value: Any) -> Scenario | None:
    """As `changed`, where the path may have gone."""
    try:
        return changed(what, path, value)
    except LookupError:
        return None


def changed(scenario: Scenario, path: Path, value: Any) -> Scenario | None:
    """A scenario with one thing changed, and what hangs on it; None where that cannot be."""
    plain = scenario.to_dict()
    *way, last = path
    if value is DROP:
        del at(plain, tuple(way))[last]
    else:
        at(plain, tuple(way))[last] = value
    _fit(plain)
    try:
        return from_dict(plain)
    except ScenarioError:
        return None


def _changes(scenario: Scenario, keep: str | None) -> Iterator[tuple[Path, Any]]:
    plain = scenario.to_dict()
    others = [name for name, value in plain.items() if isinstance(value, list) and name not in ("loops", "patches")]
    for name in others:
        yield (name,), DROP
        for index in range(len(plain[name])):
            yield (name, index), DROP
    for name in ("surroundings", "server", "patches"):
        yield (name,), DROP
    for index, loop in enumerate(plain["loops"]):
        if loop["name"] != keep:
            yield ("loops", index), DROP
    yield ("server", "workers"), 1
    yield ("server", "workers"), scenario.server.workers - 1
    for index in range(len(plain["patches"])):
        yield ("patches", index), DROP
    for owner in (
        "server",
        "patches",
        "loops",
        *(name for name in plain if name not in ("server", "patches", "loops")),
    ):
        for path in _fields(plain[owner], (owner,)):
            yield path, DROP


def _fields(plain: Any, path: Path) -> Iterator[Path]:
    """Every field below, a whole part before its own fields."""
    if isinstance(plain, dict):
        for name, value in plain.items():
            if name not in _KEPT:
                yield (*path, name)
                yield from _fields(value, (*path, name))
    elif isinstance(plain, list):
        for index, value in enumerate(plain):
            if len(path) > 1:
                yield (*path, index)
            yield from _fields(value, (*path, index))


def _fit(plain: dict[str, Any]) -> None:
    """Let what hangs on another field follow it."""
    server = plain.get("server", {})
    if server.get("worker_class") != "gthread":
        server.pop("threads", None)
    if "parks" in plain:
        names = {loop["name"] for loop in plain["loops"]} | {CONTROL}
        plain["parks"] = [park for park in plain["parks"] if park.get("who") in names]
    if "faults" in plain:
        life = Life.begin({"server": {**_SERVER, **server}, "loops": plain.get("loops", ())})
        plain["faults"] = list(_still_possible(plain["faults"], life))


def _still_possible(faults: list[dict[str, Any]], life: Life) -> Iterator[dict[str, Any]]:
    """A sequence of faults without those that cannot be any more, each in a slot that there is."""
    for fault in faults:
        for place in (fault, fault.get("after", {})):
            if place.get("slot") is not None:
                place["slot"] = _nearest(place["slot"], life.slots)
        whole = {**_FAULT, **fault, "after": {**_FAULT["after"], **fault.get("after", {})}}
        ((problem, after),) = walk(life, [whole])
        if not problem:
            life = after
            yield fault


def _nearest(slot: int, slots: Sequence[int]) -> int:
    return min(slots, key=lambda other: (abs(other - slot), other), default=slot)
