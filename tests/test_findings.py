"""Findings: each folder has what a stranger needs, and one of them shows its bug by the script that it gives."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gunicorn.workers import SUPPORTED_WORKERS

from forkproof import known_issues
from forkproof.scenario import load
from forkproof.target import inspect

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "findings").glob("*/README.md"))
NEEDED = {"README.md", "requirements.txt", "reproduce.sh", "app.py", "gunicorn.conf.py"}
KNOWN = {issue.link: issue for issue in known_issues.load()}

each_finding = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@each_finding
def test_it_has_all_its_files(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} >= NEEDED
    assert os.access(folder / "reproduce.sh", os.X_OK)
    for path in folder.glob("scenario*.json"):
        load(path)


@each_finding
def test_its_page_has_rates_a_cause_and_a_report(folder: Path) -> None:
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "## Cause" in page
    assert "Looked for:" in page
    assert re.search(r"\d+ of \d+", page)
    reports = re.findall(r"\]\(([^)]*REPORT\.md)\)", page)
    assert reports
    assert all((folder / report).is_file() for report in reports)


@each_finding
def test_it_is_a_known_issue_or_says_why_not(folder: Path) -> None:
    page = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    issue = KNOWN.get(f"findings/{folder.name}/README.md")
    assert f"Known issue `{issue.id}`" in page if issue else "there is no known issue for it" in page


@each_finding
def test_its_script_is_sound_and_makes_its_own_environment(folder: Path) -> None:
    script = (folder / "reproduce.sh").read_text(encoding="utf-8")
    assert subprocess.run(["sh", "-n"], input=script, text=True).returncode == 0
    assert "-m venv .venv" in script
    assert "pip install -q -r requirements.txt" in script


TAKES = re.compile(r"(?:^|[^\w./])\./reproduce\.sh((?: [\w|\[\]=-]+)*)")
"""The script, called with these words."""


@each_finding
def test_its_page_calls_the_script_as_that_can_be_called(folder: Path) -> None:
    """With what its usage lists, or nothing; what it lists it takes, and hands to the server or to its app."""
    page = (folder / "README.md").read_text(encoding="utf-8")
    script = (folder / "reproduce.sh").read_text(encoding="utf-8")
    usage = {word for words in re.findall(r"^# +\./reproduce\.sh (\S+)", script, re.M) for word in choices(words)}
    called = [words for span in re.findall(r"`([^`]+)`", page) for words in TAKES.findall(span)]
    assert called
    given = {word for words in called for word in choices(words)}
    assert given <= usage
    code = script[script.index("cd ") :] + "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    assert not given or '"${1:-' in code
    assert {word for word in given if word not in SUPPORTED_WORKERS and f'"{word}"' not in code} == set()
    variables = re.findall(r"`([A-Z]+)=\S* (?:\./)?reproduce\.sh", page)
    assert [name for name in variables if f"${name}" not in code] == []


def choices(words: str) -> set[str]:
    """The words that a synopsis such as `[sync|gthread]` has one choose from."""
    return {word for word in re.split(r"[ |\[\]]", words) if word}


@pytest.mark.fork
def test_a_finding_shows_by_its_script(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "findings" / "late-patch-no-respawn", tmp_path / "finding")
    issue = KNOWN["findings/late-patch-no-respawn/README.md"]
    if not issue.affects(inspect(sys.executable).to_dict()):
        pytest.skip(f"{issue.id} is about {issue.versions}")
    run = subprocess.run(
        ["./reproduce.sh"],
        cwd=folder,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (1, "BUG: no worker 10 s after the only one was killed\n"), run.stderr
