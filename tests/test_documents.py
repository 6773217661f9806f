"""Links of README and docs lead somewhere, and the README says what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_blocks import PAGES, ROOT

from forkproof import broker, expectation
from forkproof.bodies import OURS
from forkproof.claims import REGISTRY
from forkproof.dimensions import dimensions
from forkproof.errors import CouldNotDecide, UsageError


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_letter_of_each_source_is_explained() -> None:
    table = dict(re.findall(r"^\| ([A-Z]) \| (.*) \|$", (ROOT / "docs" / "cli.md").read_text(), re.M))
    assert expectation.__doc__ is not None
    sources = dict(re.findall(r"^ \[([A-Z])\] (.*(?:\n {5}.*)*)", expectation.__doc__, re.M))
    assert sorted(table) == sorted(sources)
    for letter, source in sources.items():
        links = re.findall(r"https://\S+", source)
        shown = re.findall(r"\]\((https://[^)]+)\)", table[letter])
        assert shown == links or (letter == "F" and not links), letter  # fork(2) needs no address there


def test_each_kind_of_redis_that_the_page_names_is_one() -> None:
    [row] = re.findall(r"^\| `--broker B` \| (.*) \|$", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), re.M)
    kinds = re.findall(r"`([^`]+)`", row)
    assert [broker.parse(re.sub(r"\[/db\]", "/1", kind).replace("host:port", "there:6379")).kind for kind in kinds] == [
        "embedded", "redis-server", "redis-server", "url",
    ]  # fmt: skip


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


def test_the_dimensions_page_has_every_value() -> None:
    page = (ROOT / "docs" / "dimensions.md").read_text(encoding="utf-8")
    named = {word for span in re.findall(r"`([^`]+)`", page) for word in re.findall(r"\w+", span)}
    values = {str(value) for dimension in dimensions() for value in dimension.values or ()}
    assert sorted(value for value in values if re.fullmatch(r"[a-z]\w+", value) and value not in named) == []


def test_what_a_scenario_says_with_the_example_is_what_that_adds() -> None:
    page = " ".join((ROOT / "docs" / "extending.md").read_text(encoding="utf-8").split())
    ours = re.findall(r"body of ours \((.*?)\)", page)[0]
    assert {*re.findall(r"`(\w+)`", ours)} <= {*OURS}
    added = (ROOT / "examples" / "plugin" / "pyproject.toml").read_text(encoding="utf-8")
    names = [re.search(r'"(?:fault|body|started_by)": "(\w+)"', span) for span in re.findall(r'`("\w+": [^`]+)`', page)]
    assert len(names) == 3
    assert all(name and f"\n{name[1]} = " in added for name in names)


def test_the_exit_codes_and_the_files_of_a_run_are_those_of_the_command_line() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    codes = re.findall(r"^\| (\d) \| (held|broken|wrong usage|could not decide|forkproof itself failed)\b", page, re.M)
    told = {"0": "held", "1": "broken", "2": "wrong usage", "3": "could not decide", "4": "forkproof itself failed"}
    assert dict(codes) == told
    assert (UsageError.exit_code, CouldNotDecide.exit_code) == (2, 3)
    code = "".join(path.read_text(encoding="utf-8") for path in HERE if path.suffix == ".py")
    files = re.findall(r"^\| `([\w.]+)(?:/[*.\w]*)?` \| ", page.partition("## The folder of a run")[2], re.M)
    assert len(files) > 6
    assert [name for name in files if f'"{name}' not in code] == []
