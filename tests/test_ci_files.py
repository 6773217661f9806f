"""The files for GitHub and GitLab: they keep to the published schemas, and each command in them can be given."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from forkproof import lanes, matrix
from forkproof.cli import _parser
from forkproof.errors import LaneError

ROOT = Path(__file__).parents[1]
FILES = {"github-compat.yml": "github-workflows.json", "gitlab-ci.yml": "gitlab-ci.json"}
KNOWN = lanes.load()
OURS = {name for name in KNOWN.names if not name.startswith("py38")}  # forkproof itself needs 3.10, and so has tox


def read(name: str) -> Any:
    return YAML(typ="safe").load(ROOT / "examples" / "ci" / name)


def schema(name: str) -> Any:
    folder = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    return json.loads((folder / FILES[name]).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_it_keeps_to_the_published_schema(name: str) -> None:
    assert [error.message for error in Draft7Validator(schema(name)).iter_errors(read(name))] == []


@pytest.mark.parametrize(("name", "key"), [("github-compat.yml", "jobs"), ("gitlab-ci.yml", "lane")])
def test_the_schema_refuses_what_is_wrong(name: str, key: str) -> None:
    data = read(name)
    data[key] = {"lane": {"steps": 1}, "script": 1}
    assert list(Draft7Validator(schema(name)).iter_errors(data))


def test_every_lane_is_a_job() -> None:
    github = read("github-compat.yml")["jobs"]["lane"]["strategy"]["matrix"]["lane"]
    assert (set(github), len(github)) == (OURS, len(OURS))
    by_python = {one["PYTHON"]: one["LANE"] for one in read("gitlab-ci.yml")["lane"]["parallel"]["matrix"]}
    gitlab = [name for names in by_python.values() for name in names]
    # An image has one Python, and forkproof does not run on the museum's.
    assert (set(gitlab), len(gitlab)) == (OURS - {"museum"}, len(OURS) - 1)
    for python, names in by_python.items():
        assert {KNOWN.lane(name).python for name in names} <= {python, lanes.NEWEST}


def commands() -> Iterator[tuple[str, str]]:
    for step in read("github-compat.yml")["jobs"]["lane"]["steps"]:
        yield from (("github", line) for line in step.get("run", "").splitlines())
    job = read("gitlab-ci.yml")["lane"]
    yield from (("gitlab", line) for line in (*job["script"], *job["after_script"]))


COMMANDS = list(commands())


@pytest.mark.parametrize(("where", "line"), COMMANDS, ids=[f"{where}: {line[:50]}" for where, line in COMMANDS])
def test_a_command_is_one_that_there_is(where: str, line: str) -> None:
    line = re.sub(r"\$\{\{ matrix\.lane \}\}|\$LANE", "museum", line)
    line = re.sub(r"^if \[.*\]; then (.*); fi$", r"\1", line).removesuffix(" || failed=1")
    program, *words = shlex.split(line)
    if program == "forkproof":
        assert _parser().parse_args(words).run
    elif program == "tox":
        assert words[:2] == ["-e", "museum"]
        plugin = (ROOT / "harness" / "forkproof" / "plugin.py").read_text(encoding="utf-8")
        for word in words[words.index("--") + 1 :]:
            assert not word.startswith("--fork") or f'"{word}"' in plugin
    else:
        assert (program, words[0]) in {("python", "-m"), ("cat", "map.md"), ("exit", "${failed:-0}")}


def test_both_run_the_same_commands() -> None:
    found: dict[str, set[str]] = {"github": set(), "gitlab": set()}
    for where, line in COMMANDS:
        line = re.sub(r"^if \[.*\]; then (.*); fi$", r"\1", line).removesuffix(" || failed=1")
        found[where].add(line.replace("${{ matrix.lane }}", "$LANE").partition(" >> ")[0])
    assert found["gitlab"] == found["github"] | {"exit ${failed:-0}"}


LESS = {
    r"--fork-out runs": "--fork-out runs --fork-examples 2",
    r"matrix (\S+) -n 0": r"matrix \1 -n 0 --only recipe/thread_in_each_worker",
    r"--time 900": "--time 3 --budget 1",
}
"""What makes hours of a job minutes of a test; the rest of each command is as it stands there."""


@pytest.mark.fork
@pytest.mark.timeout(1800)  # tox makes an environment, and pip may be slow
def test_each_command_does_its_work_in_a_checkout(short_folder: Path) -> None:
    try:
        lanes.Shelf(lanes.default_folder()).build(KNOWN.lane("museum"))
    except LaneError as error:
        pytest.skip(f"the museum lane cannot be had: {error}")
    checkout = short_folder / "c"
    left_out = (".git", ".venv", ".tox", ".forkproof", ".hypothesis", "*cache*", "dist")
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*left_out))
    (checkout / ".forkproof").mkdir()
    (checkout / ".forkproof" / "lanes").symlink_to(lanes.default_folder().absolute())
    venv = short_folder / "v"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    [packages] = venv.glob("lib/python3*/site-packages")
    (packages / "ours.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")  # so that pip has them
    summary = short_folder / "summary.md"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TOX", "GITHUB"))},
        "PATH": f"{venv / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(summary),
    }  # fmt: skip

    def call(text: str) -> tuple[int, str]:
        text = text.replace("${{ matrix.lane }}", "museum")
        for found, less in LESS.items():
            text = re.sub(found, less, text)
        done = subprocess.run(
            ["bash", "-e", "-c", text],
            cwd=checkout, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    code, told = call("python -m pip install -q tox hatchling")
    if code:
        pytest.skip(f"no package can be had: {told.splitlines()[-1]}")
    # GitLab's are the same ones, as `test_both_run_the_same_commands` holds, so that each is run once.
    steps = [step["run"] for step in read("github-compat.yml")["jobs"]["lane"]["steps"] if "run" in step]
    for text in steps:
        code, told = call(text)
        # What an exploration comes to is luck: 1 for a surprise, 3 where nothing was decided.
        assert code == 0 or ("explore" in text and code in (1, 3)), f"{text}: {code}\n{told}"
    assert "thread_in_each_worker" in summary.read_text(encoding="utf-8")
    assert all((checkout / name).exists() for name in ("runs", "rows.jsonl", "map.html", "map.md", "explore.xml"))
    assert (checkout / ".hypothesis" / "examples").is_dir()


def test_what_failed_is_kept_and_told() -> None:
    steps = read("github-compat.yml")["jobs"]["lane"]["steps"]
    uses = {step["uses"].partition("@")[0]: step for step in steps if "uses" in step}
    kept = uses["actions/upload-artifact"]
    assert ("runs" in kept["with"]["path"].split(), kept["if"]) == (True, "failure()")
    found, saved = uses["actions/cache/restore"], uses["actions/cache/save"]
    assert found["with"]["path"] == saved["with"]["path"] == ".hypothesis/examples"
    assert found["with"]["key"] == saved["with"]["key"]
    assert saved["if"] == "always()", "a job that found something has failed"
    order = [step.get("run", step.get("uses", "")) for step in steps]
    assert order.index(found["uses"]) < min(n for n, text in enumerate(order) if DATABASE in text)
    assert order.index(saved["uses"]) > max(n for n, text in enumerate(order) if DATABASE in text)
    assert any("GITHUB_STEP_SUMMARY" in step.get("run", "") and step["if"] == "always()" for step in steps)
    job = read("gitlab-ci.yml")["lane"]
    assert ("runs" in job["artifacts"]["paths"], job["artifacts"]["when"]) == (True, "always")
    assert (".hypothesis/examples" in job["cache"]["paths"], job["cache"]["when"]) == (True, "always")


DATABASE = "database .hypothesis/examples"


def test_what_is_kept_is_what_the_commands_write() -> None:
    for where in ("github", "gitlab"):
        lines = [line for origin, line in COMMANDS if origin == where and ("tox -e" in line or "explore" in line)]
        assert len(lines) == 2
        assert all(DATABASE in line for line in lines)


def test_every_night_more_is_run_and_a_known_issue_that_no_longer_shows_fails_the_job() -> None:
    workflow = read("github-compat.yml")
    assert workflow["on"]["schedule"]
    steps = workflow["jobs"]["lane"]["steps"]
    [nightly] = [step for step in steps if "schedule" in step.get("if", "")]
    assert "explore" in nightly["run"]
    assert "failure()" in nightly["if"], "whatever the properties came to"
    for where in ("github", "gitlab"):
        [line] = [line for origin, line in COMMANDS if origin == where and line.startswith("forkproof matrix")]
        words = shlex.split(re.sub(r"\$\{\{ matrix\.lane \}\}|\$LANE", "museum", line.partition(" || ")[0]))
        arguments = _parser().parse_args(words[1:])
        listed = [*matrix.fixed(), *matrix.shown(), *matrix.seeded(arguments.n, arguments.seed)]
        assert any(one.kind == "known" for one in matrix.chosen(listed, arguments.only or ()))
    assert not any("--strict" in line for _, line in COMMANDS), "which fails for known issues that do show"
