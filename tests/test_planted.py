"""Every claim catches the bug that is planted for it on a real server, and passes its control."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from planted import IN_GUNICORN, PLANTED, session_with_the_bug

from forkproof.claims import REGISTRY
from forkproof.verdict import Verdict

ROOT = Path(__file__).parents[1]


def test_every_claim_has_a_planted_bug_and_a_control() -> None:
    assert PLANTED.keys() == REGISTRY.keys()


def test_the_page_is_made_from_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("planted_measured", ROOT / "benchmarks" / "planted.py")
    assert spec is not None
    assert spec.loader is not None
    measured = importlib.util.module_from_spec(spec)  # not by its name, which is that of ours
    monkeypatch.setitem(sys.modules, spec.name, measured)
    spec.loader.exec_module(measured)
    data = json.loads(measured.PAGE.with_suffix(".json").read_text(encoding="utf-8"))
    rows = [measured.Row(**row) for row in data["claims"]]
    assert measured.page(rows, data["target"]) == measured.PAGE.read_text(encoding="utf-8")
    assert [row.claim for row in rows] == [*REGISTRY]
    assert all(row.good for row in rows)


@pytest.mark.fork
@pytest.mark.parametrize("claim", REGISTRY)
def test_the_planted_bug_is_caught(claim: str, forkproof) -> None:  # type: ignore[no-untyped-def]
    planted, how, _ = PLANTED[claim]
    if claim in IN_GUNICORN:
        with session_with_the_bug(forkproof.session, claim) as session:
            report = session.run(planted)
    else:
        report = forkproof.run(planted).report
    findings = [j.finding for j in report.judgements if j.finding.claim == claim]
    assert how in {finding.how for finding in findings}, findings


@pytest.mark.fork
@pytest.mark.parametrize("claim", REGISTRY)
def test_the_control_passes(claim: str, forkproof) -> None:  # type: ignore[no-untyped-def]
    result = forkproof.run(PLANTED[claim][2])
    verdicts = {j.finding.verdict for j in result.report.judgements if j.finding.claim == claim}
    assert verdicts == {Verdict.HELD}, result.report.judgements
