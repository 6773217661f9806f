"""Each statement of docs/fork-and-patching.md is shown by the scenario that it names."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from forkproof.claims import REGISTRY
from forkproof.plugin import Forkproof

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "fork-and-patching.md"
FOLDER = ROOT / "examples" / "explained"
LINK = re.compile(r"\[`(\w+)`\s+(held|broken)(?:\s+\(([^)]*)\))?\]\(\.\./examples/explained/([\w-]+)\.json\)")


def statements() -> dict[str, list[tuple[str, str, str]]]:
    """By scenario: claim, verdict, and how it breaks."""
    found = defaultdict(list)
    for claim, verdict, how, name in LINK.findall(PAGE.read_text(encoding="utf-8")):
        found[name].append((claim, verdict, how))
    return found


STATEMENTS = statements()


def test_each_statement_names_its_scenario_and_each_scenario_its_statement() -> None:
    assert STATEMENTS.keys() == {path.stem for path in FOLDER.glob("*.json")}
    bullets = re.findall(r"^- .*?(?=^- |^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(bullets) > 15
    assert [bullet for bullet in bullets if not LINK.search(bullet)] == []
    assert {claim for found in STATEMENTS.values() for claim, _, _ in found} <= REGISTRY.keys()


@pytest.mark.fork
@pytest.mark.parametrize("name", STATEMENTS)
def test_it_is_so(name: str, forkproof: Forkproof) -> None:
    judgements = forkproof.run(FOLDER / f"{name}.json").report.judgements
    for claim, verdict, how in STATEMENTS[name]:
        found = [judgement.finding for judgement in judgements if judgement.finding.claim == claim]
        shown = [(finding.verdict.value, finding.how) for finding in found]
        assert (verdict, how) in shown, f"{claim}: " + "; ".join(finding.explanation for finding in found)
        assert verdict == "broken" or {told for told, _ in shown} == {"held"}
