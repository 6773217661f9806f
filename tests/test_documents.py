"""Links of README and docs lead somewhere, and the README says what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_blocks import PAGES, ROOT

from forkproof import expectation
from forkproof.claims import REGISTRY


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_letter_of_each_source_is_explained() -> None:
    table = re.findall(r"^\| ([A-Z]) \| ", (ROOT / "docs" / "cli.md").read_text(), re.M)
    assert expectation.__doc__ is not None
    assert sorted(table) == sorted(re.findall(r"^ \[([A-Z])\] ", expectation.__doc__, re.M))


def test_ci_calls_the_command_that_the_readme_gives() -> None:
    [command] = [
        line for line in (ROOT / "README.md").read_text().splitlines() if "-m pytest" in line and "venv" in line
    ]
    assert command.startswith("    python3 -m venv .venv && ")
    assert "grep -m 1 -F -- '-m pytest' README.md" in (ROOT / ".ci" / "run").read_text()


def test_the_readme_has_every_claim_with_its_definition_and_page() -> None:
    rows = re.findall(r"^\| \[`(\w+)`\]\(docs/claims/(\w+)\.md\) \| (.*) \|$", (ROOT / "README.md").read_text(), re.M)
    assert rows == [(name, name, claim.definition) for name, claim in REGISTRY.items()]


HERE = sorted({
    path
    for pattern in ("harness/forkproof/**/*", "strategies/**/*", "benchmarks/*")
    for path in ROOT.glob(pattern)
    if path.suffix in (".py", ".toml", ".json") and not path.name.startswith("__")
    if path.parent.name not in ("claims", "faults")  # a family, or a fault, each
})  # fmt: skip


def test_whats_here_has_every_file_and_no_other() -> None:
    named = re.findall(r"`([\w./-]+)`", (ROOT / "docs" / "whats-here.md").read_text(encoding="utf-8"))
    names = {Path(name).name for name in named}
    assert [str(path.relative_to(ROOT)) for path in HERE if path.name not in names] == []
    there = (
        {path.name for path in HERE}
        | {path.name for path in (ROOT / "docs").iterdir()}
        | {path.name for path in ROOT.iterdir()}
    )
    assert sorted(name for name in names if "." in name[1:] and name not in there) == []
