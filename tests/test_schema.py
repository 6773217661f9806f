"""The published schema of JSON reports: real ones keep to it, and what does not is refused."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from histories import WORKER, seen, server, window
from jsonschema import ValidationError
from schema import PUBLISHED, validate
from test_cli import Run, run, tmp_path
from test_judge import CASE_ZERO, COPIED, run_folder
from test_reports import BROKEN, HELD, report

from forkproof.cause import Cause
from forkproof.events import EVENTS
from forkproof.explore import Campaign, Failure, Stale
from forkproof.judge import judge
from forkproof.known_issues import load
from forkproof.scenario import from_dict
from forkproof.verdict import Verdict

__all__ = ["run", "tmp_path"]
DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    """The report of a run that broke claims, held some, and left stacks."""
    (tmp_path / "run" / "stacks").mkdir(parents=True)
    text = 'Current thread 0x1 (most recent call first):\n  File "/a/b.py", line 3 in wait\n'
    (tmp_path / "run" / "stacks" / "110-110.txt").write_text(text, encoding="utf-8")
    stack = seen(2.1, "stack", target=f"{WORKER}-{WORKER}", file="stacks/110-110.txt")
    found: dict[str, Any] = judge(run_folder(tmp_path / "run", CASE_ZERO, server(1), window(), COPIED, stack)).to_dict()
    assert {claim["verdict"] for claim in found["claims"]} == {"broken", "held", "unknown", "not_applicable"}
    assert found["stacks"]
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def test_a_report_of_a_run_keeps_to_it(plain: dict[str, Any]) -> None:
    validate(plain, "run")


def test_what_a_server_tells_of_itself_is_in_it() -> None:
    published = json.loads(PUBLISHED.read_bytes())["$defs"]["checked_server"]
    assert published["properties"].keys() == EVENTS["server"].keys()


def _without(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(plain: Any) -> None:
        for step in path[:-1]:
            plain = plain[step]
        del plain[path[-1]]

    return change


def _with(value: object, *path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(plain: Any) -> None:
        for step in path[:-1]:
            plain = plain[step]
        plain[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _with(2, "schema"),
        _with("not_applicable", "verdict"),
        _with("so", "claims", 0, "verdict"),
        _with("should", "claims", 0, "expectation"),
        _with([1], "claims", 0, "rate"),
        _with([1, 2, 3], "claims", 0, "rate"),
        _with("master", "loops", 0, "processes", 0, "role"),
        _with(1, "more"),
        _with(1, "claims", 0, "more"),
        _without("run"),
        _without("target", "python"),
        _without("claims", 0, "evidence"),
        _without("loops", 0, "processes", 0, "ticks"),
        _without("stacks", 0, "calls"),
    ],
)
def test_what_does_not_keep_to_it_is_refused(plain: dict[str, Any], change: Callable[[Any], None]) -> None:
    other = copy.deepcopy(plain)
    change(other)
    with pytest.raises(ValidationError):
        validate(other, "run")


def test_a_report_of_a_campaign_keeps_to_it() -> None:
    found = report(BROKEN, HELD)
    small = from_dict({"loops": [{"name": "a"}]})
    campaign = Campaign(drawn=3, launched=9, seconds=1.25, problems=["so"])
    failure = Failure(found.judgements[0], small, Path("run"), (3, 5), 2, Cause([]))
    campaign.failures.append(failure)
    campaign.expected_breaks.append(failure)
    campaign.stale.append(Stale(load()[0], 20))
    campaign.coverage.claims["workers_boot"] = Counter({Verdict.HELD.value: 2})
    plain = json.loads(json.dumps(campaign.to_dict()))
    validate(plain, "campaign")
    del plain["failures"][0]["scenario"]["loops"]
    with pytest.raises(ValidationError):
        validate(plain, "campaign")


def test_what_doctor_says_keeps_to_it(run: Run) -> None:
    code, out, _ = run("doctor", "--json", "-")
    assert code in (0, 3)
    validate(json.loads(out), "doctor")
    with pytest.raises(ValidationError):
        validate(
            {"schema": 1, "answers": [{"subject": "machine", "good": "yes", "text": "", "needed": True}]}, "doctor"
        )


def test_what_lanes_says_keeps_to_it(run: Run) -> None:
    code, out, _ = run("lanes", "--json", "-")
    assert code == 0
    validate(json.loads(out), "lanes")


def test_the_map_of_the_repository_keeps_to_it() -> None:
    plain = json.loads((DOCS / "compatibility.json").read_text(encoding="utf-8"))
    validate(plain, "map")
    for change in (_with("so", "rows", 0, "kind"), _with(1, "rows", 0, "more"), _without("targets")):
        other = copy.deepcopy(plain)
        change(other)
        with pytest.raises(ValidationError):
            validate(other, "map")


def test_every_kind_is_one_that_a_command_writes() -> None:
    kinds = [part["$ref"].removeprefix("#/$defs/") for part in json.loads(PUBLISHED.read_bytes())["anyOf"]]
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    _, _, told = page.partition("| part of the schema |")
    assert re.findall(r"^\| `(\w+)` \| .*`", told.partition("\n\n")[0], re.MULTILINE) == kinds


def test_the_page_leads_to_it() -> None:
    page = DOCS / "cli.md"
    assert f"(../harness/forkproof/reports/{PUBLISHED.name})" in page.read_text(encoding="utf-8")
