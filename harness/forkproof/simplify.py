"""Simpler neighbours of a scenario: what shrinking tries, one dimension at a time.

>>> from forkproof.scenario import Loop, Scenario, Server
>>> what = Scenario(loops=[Loop(name="a")], server=Server(workers=3))
>>> [simpler.server.workers for simpler in neighbours(what)]
[1, 2]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from forkproof.errors import ScenarioError
from forkproof.scenario import Loop, Scenario, Server, from_dict

_DROP = object()
_LOOP = Loop(name="a").model_dump(mode="json")
_SERVER = Server().model_dump(mode="json")
# A loop's policy is what the user wants of it, so it is not the harness's to simplify.
_LOOP_FIELDS = ("kind", "body", "yields", "start", "daemon")
_SERVER_FIELDS = ("worker_class", "preload", "threads", "timeout", "graceful_timeout")


def neighbours(scenario: Scenario, *, keep: str | None = None) -> Iterator[Scenario]:
    """Scenarios that are simpler in one dimension, the biggest steps first; the loop called `keep` stays."""
    seen = {scenario.digest}
    for path, value in _changes(scenario, keep):
        plain = scenario.to_dict()
        _change(plain, path, value)
        _fit(plain)
        try:
            simpler = from_dict(plain)
        except ScenarioError:
            continue
        if simpler.digest not in seen:
            seen.add(simpler.digest)
            yield simpler


def _changes(scenario: Scenario, keep: str | None) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    yield ("faults",), []
    for index in range(len(scenario.faults)):
        yield ("faults", index), _DROP
    for index, loop in enumerate(scenario.loops):
        if loop.name != keep:
            yield ("loops", index), _DROP
    yield ("server", "workers"), 1
    yield ("server", "workers"), scenario.server.workers - 1
    for index in range(len(scenario.patches)):
        yield ("patches", index), _DROP
    for name in _SERVER_FIELDS:
        yield ("server", name), _SERVER[name]
    for index, patch in enumerate(scenario.patches):
        for flag in patch.flags:
            yield ("patches", index, "flags", flag), _DROP
    for index in range(len(scenario.loops)):
        for name in _LOOP_FIELDS:
            yield ("loops", index, name), _LOOP[name]
    for index in range(len(scenario.faults)):
        yield ("faults", index, "after"), _DROP


def _change(plain: Any, path: tuple[str | int, ...], value: Any) -> None:
    *way, last = path
    for part in way:
        plain = plain[part]
    if value is _DROP:
        del plain[last]
    else:
        plain[last] = value


def _fit(plain: dict[str, Any]) -> None:
    """Let what hangs on another field follow it."""
    last = plain["server"]["workers"] - 1
    if plain["server"]["worker_class"] != "gthread":
        plain["server"]["threads"] = 1
    for place in [part for fault in plain["faults"] for part in (fault, fault.get("after"))]:
        if place and place["slot"] is not None:
            place["slot"] = min(place["slot"], last)
