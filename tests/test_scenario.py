"""Scenarios: JSON both ways, digests, and what is said of those that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from few import FEW
from hypothesis import given

from forkproof.errors import ScenarioError
from forkproof.scenario import Loop, Scenario, from_dict, load, parse
from forkproof_strategies import scenarios

PLAIN: dict[str, Any] = {"loops": [{"name": "a"}]}


def refused(data: object) -> str:
    with pytest.raises(ScenarioError) as caught:
        from_dict(data)
    return str(caught.value)


def with_loop(**fields: Any) -> dict[str, Any]:
    return {"loops": [{"name": "a", **fields}]}


def with_server(**fields: Any) -> dict[str, Any]:
    return {**PLAIN, "server": fields}


def with_faults(*faults: dict[str, Any]) -> dict[str, Any]:
    return {**PLAIN, "faults": faults}


def with_patches(*patches: dict[str, Any]) -> dict[str, Any]:
    return {**PLAIN, "patches": patches}


# Both ways


@FEW
@given(scenarios())
def test_json_both_ways(what: Scenario) -> None:
    assert parse(what.to_json()) == what
    assert parse(what.to_json()).digest == what.digest
    assert from_dict(what.to_dict()) == what


def test_a_file_is_read(tmp_path: Path) -> None:
    what = Scenario(loops=(Loop(name="a"),))
    path = tmp_path / "scenario.json"
    path.write_text(what.to_json(), encoding="utf-8")
    assert load(path) == what


@pytest.mark.parametrize("content", [None, b"\xff\xfe{", b"{"])
def test_a_file_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "scenario.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScenarioError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@FEW
@given(scenarios())
def test_what_is_at_its_default_does_not_change_the_digest(what: Scenario) -> None:
    terse = what.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert from_dict(terse).digest == from_dict(what.to_dict()).digest


@pytest.mark.parametrize(
    "other",
    [
        with_loop(daemon=False),
        with_loop(yields={"seconds": 0.02}),
        with_server(workers=2),
        with_patches({"site": "post_fork"}),
        with_faults({"fault": "term"}),
    ],
)
def test_a_change_changes_the_digest(other: dict[str, Any]) -> None:
    assert from_dict(other).digest != from_dict(PLAIN).digest


def test_the_order_of_flags_is_none() -> None:
    one = with_patches({"site": "post_fork", "flags": {"thread": False, "dns": False}})
    other = with_patches({"site": "post_fork", "flags": {"dns": False, "thread": False}})
    assert from_dict(one).digest == from_dict(other).digest


# What cannot be: the message names the field, the value and what is allowed

NO_FIELD = "is no field of a scenario; allowed there:"
START = {"site": "interpreter_start"}

IMPOSSIBLE: list[tuple[object, str]] = [
    (None, "the whole: None is not allowed: must be an object"),
    ([], "the whole: [] is not allowed: must be an object"),
    ({}, "loops: is missing"),
    ({"loops": []}, "loops: [] is not allowed: list should have at least 1 item"),
    ({"loops": [{"name": name} for name in "abcd"]}, "list should have at most 3 items"),
    ({"loops": "a"}, "loops: 'a' is not allowed: input should be a list"),
    ({"loops": [5]}, "loops.0: 5 is not allowed: must be an object"),
    ({"loops": [{}]}, "loops.0.name: is missing"),
    ({"loops": [{"name": "a"}, {"name": "a"}]}, "loops: the names ['a', 'a'] must differ"),
    ({**PLAIN, "schema": 2}, "schema: 2 is not allowed: input should be less than or equal to 1"),
    ({**PLAIN, "colour": 1}, f"colour: {NO_FIELD} schema, patches, loops, server, surroundings, parks, faults"),
    ({**PLAIN, "\x00": 1}, rf"\x00: {NO_FIELD} schema"),
    (with_loop(colour=1), f"loops.0.colour: {NO_FIELD} name, start, kind"),
    (with_loop(yields={"colour": 1}), f"loops.0.yields.colour: {NO_FIELD} call, seconds, every"),
    (with_server(colour=1), f"server.colour: {NO_FIELD} worker_class, workers"),
    (with_loop(kind="fibre"), "loops.0.kind: 'fibre' is not allowed: input should be 'thread', 'timer',"),
    (with_server(worker_class="eventlet"), "server.worker_class: 'eventlet' is not allowed: input should be 'sync'"),
    (with_loop(name="A b"), "loops.0.name: 'A b' is not allowed: string should match pattern '^[a-z]"),
    (with_loop(name="\ud800"), r"loops.0.name: '\ud800' is not allowed: input should be a valid string"),
    (with_loop(**{"\ud800": 1}), r"loops.0: '\ud800' is not allowed: input should be a valid string"),
    (with_server(workers=0), "server.workers: 0 is not allowed: input should be greater than or equal to 1"),
    (with_server(workers=5), "server.workers: 5 is not allowed: input should be less than or equal to 4"),
    (with_server(workers=10**40), f"server.workers: {10**40} is not allowed: input should be less than"),
    (with_loop(yields={"every": 10**5000}), "loops.0.yields.every: this int is not allowed: input should be less than"),
    (with_server(workers=True), "server.workers: True is not allowed: input should be a valid integer"),
    (with_server(workers=2.0), "server.workers: 2.0 is not allowed: input should be a valid integer"),
    (with_server(workers="2"), "server.workers: '2' is not allowed: input should be a valid integer"),
    (with_server(preload=1), "server.preload: 1 is not allowed: input should be a valid boolean"),
    (with_server(preload="yes"), "server.preload: 'yes' is not allowed: input should be a valid boolean"),
    (with_server(reload=True, preload=True), "server.reload: true is not allowed with preload: gunicorn's reloader"),
    (with_server(threads=2), "server.threads: 2 is not allowed: more than 1 needs worker_class 'gthread', not 'sync'"),
    (with_loop(yields={"seconds": float("nan")}), "loops.0.yields.seconds: nan is not allowed: input should be"),
    (with_loop(yields={"seconds": float("inf")}), "loops.0.yields.seconds: inf is not allowed: input should be"),
    (with_loop(yields={"seconds": "0.1"}), "loops.0.yields.seconds: '0.1' is not allowed: input should be a"),
    (with_loop(yields={"seconds": True}), "loops.0.yields.seconds: True is not allowed: input should be a"),
    (with_loop(yields={"seconds": 0.6}), "loops.0.yields.seconds: 0.6 is not allowed: input should be less than"),
    (with_loop(kind="timer", yields={"call": "none"}), "loops.0: yields.call: 'none' is not allowed: a 'timer' waits"),
    (with_loop(kind="socketio_task", start="post_fork"), "loops.0.start: 'post_fork' is not allowed for a 'socketio"),
    (with_loop(kind="run_in_thread"), "loops.0: body: 'sleep' is not allowed: redis-py's own thread does 'listen'"),
    (with_loop(kind="run_in_thread", body="listen", guard="lock"), "redis-py's own thread takes neither yields.every"),
    (with_loop(kind="process", start="fork_hook"), "loops.0: start: 'fork_hook' is not allowed for a 'process'"),
    (with_patches({"site": "late"}), "patches.0.site: 'late' is not allowed: input should be 'interpreter_start'"),
    (with_patches(*[{"site": "post_fork"}] * 4), "list should have at most 3 items"),
    (with_patches(START, START), "patches: an interpreter starts once: 'interpreter_start' may stand once only"),
    (with_patches({**START, "flags": {"sys": True}}), "patches.0: 'sys': true is not allowed at interpreter_start"),
    (with_patches({**START, "flags": {"dsn": False}}), "patches.0.flags: 'dsn' is no keyword of patch_all; allowed:"),
    (with_patches({**START, "flags": {"dns": 0}}), "patches.0.flags.dns: 0 is not allowed: input should be a valid"),
    (with_faults({"fault": "flood"}), "faults.0: 'flood' is no fault; allowed: term"),
    (with_faults({"fault": "term"}, {"fault": "term"}), "faults.1: comes after 'term', which ends the server"),
    (with_faults({"fault": "term", "slot": 0}), "faults.0: 'term' takes no slot, so not 0"),
    (with_faults({"fault": "kill_worker"}), "faults.0: 'kill_worker' needs a slot, a whole number"),
    (with_faults({"fault": "term", "options": {"hard": 1}}), "faults.0: 'term' has no option 'hard'; allowed: none"),
    (with_faults({"fault": "term", "after": {"delay": 3}}), "faults.0.after.delay: 3 is not allowed: input should"),
    (with_faults({"fault": "kill_worker", "slot": 1}), "faults.0: slot 1 is not allowed: there are 1 workers"),
    (with_faults({"fault": "term", "after": {"slot": 1}}), "faults.0: slot 1 is not allowed: there are 1 workers"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), IMPOSSIBLE, ids=[message[:50].strip() for _, message in IMPOSSIBLE])
def test_what_cannot_be(data: object, message: str) -> None:
    told = refused(data)
    assert message in told
    assert "\n" not in told


def test_every_problem_is_named() -> None:
    assert len(refused({"loops": [{"name": "a"}], "server": {"workers": 9, "threads": 99}}).splitlines()) == 2


@pytest.mark.parametrize(
    "text",
    ["", "{", "{'loops': []}", '{"loops": ' + "[" * 100_000, '{"a":' * 100_000, '{"a": 1' + "0" * 5000 + "}", "\x00"],
    ids=["empty", "open", "quotes", "deep list", "deep object", "huge int", "NUL"],
)
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(ScenarioError, match="is not JSON: ") as caught:
        parse(text, source="here.json")
    assert str(caught.value).startswith("here.json: ")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [60, 500, 900])
def test_deep_nesting(opening: str, depth: int) -> None:
    with pytest.raises(ScenarioError):
        parse('{"loops": ' + opening * depth + "1" + ("]" if opening == "[" else "}") * depth + "}")
