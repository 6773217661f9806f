"""The files for GitHub and GitLab: they keep to the published schemas, and each command in them can be given."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from forkproof import lanes
from forkproof.cli import _parser

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
    line = re.sub(r"^if \[.*\]; then (.*); fi$", r"\1", line)
    program, *words = shlex.split(line)
    if program == "forkproof":
        assert _parser().parse_args(words).run
    elif program == "tox":
        assert words[:2] == ["-e", "museum"]
        plugin = (ROOT / "harness" / "forkproof" / "plugin.py").read_text(encoding="utf-8")
        for word in words[words.index("--") + 1 :]:
            assert not word.startswith("--fork") or f'"{word}"' in plugin
    else:
        assert (program, words[0]) in {("python", "-m"), ("cat", "map.md")}


def test_what_failed_is_kept_and_told() -> None:
    steps = read("github-compat.yml")["jobs"]["lane"]["steps"]
    [kept] = [step["with"] for step in steps if str(step.get("uses")).startswith("actions/upload-artifact")]
    [cached] = [step["with"] for step in steps if str(step.get("uses")).startswith("actions/cache")]
    assert "runs" in kept["path"].split()
    assert cached["path"] == ".hypothesis/examples"
    assert any("GITHUB_STEP_SUMMARY" in step.get("run", "") for step in steps)
    job = read("gitlab-ci.yml")["lane"]
    assert "runs" in job["artifacts"]["paths"]
    assert ".hypothesis/examples" in job["cache"]["paths"]
