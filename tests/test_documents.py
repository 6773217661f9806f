"""What README and docs tell people to type is what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from forkproof.claims import REGISTRY
from forkproof.cli import _parser
from forkproof.scenario import load

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "findings").glob("*/*.md"))]
LINES = [
    (path.relative_to(ROOT), line.strip())
    for path in PAGES
    for line in path.read_text(encoding="utf-8").splitlines()
    if re.match(r" {4}(.*/bin/)?forkproof [a-z]+ [^\[]*$", line) and "..." not in line
]


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}:{line}" for page, line in LINES])
def test_a_command_can_be_typed(page: Path, line: str) -> None:
    command = line.split("&&")[-1]
    words = shlex.split(command.replace("RUN", "run").replace("PID", "1").replace("SCENARIO.json", "scenario.json"))[1:]
    assert _parser().parse_args(words).run
    for word in words:
        if word.startswith("examples/"):
            load(ROOT / word)


def test_there_are_commands() -> None:
    assert len(LINES) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_ci_calls_the_command_that_the_readme_gives() -> None:
    [command] = [
        line for line in (ROOT / "README.md").read_text().splitlines() if "-m pytest" in line and "venv" in line
    ]
    assert command.startswith("    python3 -m venv .venv && ")
    assert "grep -m 1 -F -- '-m pytest' README.md" in (ROOT / ".ci" / "run").read_text()


def test_the_readme_has_every_claim_with_its_definition_and_page() -> None:
    rows = re.findall(r"^\| \[`(\w+)`\]\(docs/claims/(\w+)\.md\) \| (.*) \|$", (ROOT / "README.md").read_text(), re.M)
    assert rows == [(name, name, claim.definition) for name, claim in REGISTRY.items()]
