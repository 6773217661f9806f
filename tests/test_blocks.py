"""Every block of code, of commands or of output on our pages: who runs it, or why nobody does.

A block that nothing below speaks of makes `test_each_block_is_run_or_has_its_reason` fail, and a line below that no
block answers to the next one. What can be typed can be parsed by our own parser, whether it is run or not.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from forkproof import lanes
from forkproof.check import policies
from forkproof.cli import _parser
from forkproof.errors import UsageError
from forkproof.scenario import from_dict, load

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "findings").rglob("*.md")),
]


@dataclass(frozen=True)
class Block:
    """Lines of a page that are set apart."""

    page: str
    line: int
    text: str

    @property
    def first(self) -> str:
        return self.text.splitlines()[0]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.first}"


def blocks(page: str, text: str) -> Iterator[Block]:
    """The blocks of a page, fenced or indented; those that lie in a list are paragraphs of it."""
    lines = [*text.splitlines(), ""]
    at = 0
    while at < len(lines):
        if lines[at].startswith("```"):
            end = lines.index("```", at + 1)
            yield Block(page, at + 1, "\n".join(lines[at + 1 : end]))
            at = end + 1
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1]):
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end]):
                end += 1
            yield Block(page, at + 1, "\n".join(line[4:] for line in lines[at:end]).rstrip())
            at = end
        else:
            at += 1


BLOCKS = [
    block
    for path in PAGES
    for block in blocks(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    if not block.text.startswith(":caption:")  # of the index of the site
]

# Page, how the block begins, and the test that runs it or holds it against what it shows.
RUN = (
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -q '.[stack,test]'",
     "test_documents.py::test_ci_calls_the_command_that_the_readme_gives"),
    ("README.md", "forkproof run examples/original-report/symptom-a", "test_blocks.py::test_the_run_of_the_readme"),
    ("README.md", "def test_listener(forkproof):", "test_blocks.py::test_the_readmes_own_test"),
    ("docs/check.md", "[tool.forkproof.policies]", "test_blocks.py::test_policies_are_read_as_they_stand"),
    ("docs/check.md", "def test_background_loops(forkproof):", "test_blocks.py::test_the_check_in_ones_own_tests"),
    ("docs/dimensions.md", '{"patches": ', "test_blocks.py::test_the_scenario_of_the_dimensions"),
    ("docs/extending.md", "[project.entry-points", "test_blocks.py::test_the_entry_points_are_those_of_the_example"),
    ("docs/extending.md", "pip install ./examples/plugin", "test_plugins.py::test_the_examples_claim_and_fault"),
    ("docs/extending.md", "forkproof: plug-in 'quit_worker'",
     "test_plugins.py::test_a_bad_one_is_named_with_cause_and_next_step"),
    ("docs/lanes.md", "[lane.mine]", "test_blocks.py::test_the_lane_of_ones_own"),
    ("docs/planted.md", "bug      {", "test_blocks.py::test_the_scenarios_of_the_planted_bugs"),
    ("docs/the-original-report.md", "forkproof run examples/original-report/",
     "test_original_report.py::test_a_scenario_shows_what_the_page_says"),
    ("docs/tutorial.md", "*", "test_tutorial.py::test_the_tutorial"),
)  # fmt: skip

# Page, how the block begins, and why no test runs it: its commands are parsed all the same.
PARSED = (
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -q '.[stack]'",
     "a hundred servers, some minutes; test_explore_servers.py explores with fewer"),
    ("README.md", "forkproof check app:app", "the tutorial's test runs it, on an app"),
    ("docs/advise.md", "forkproof advise", "it needs an app; test_advise_servers.py has some"),
    ("docs/atlas.md", "forkproof atlas", "4,000 servers; test_atlas.py runs a corner of it"),
    ("docs/campaign-page.md", "forkproof explore", "hundreds of servers; test_explore_servers.py explores with fewer"),
    ("docs/campaign-page.md", "forkproof serve", "it goes on until it is interrupted; test_serve.py does that"),
    ("docs/check.md", "forkproof check", "it needs an app; the tutorial's test runs it"),
    ("docs/cli.md", "forkproof explore  [--target T]", "a synopsis; test_every_option_of_the_synopsis_is_one"),
    ("docs/cluster.md", "pip install '/path/to/forkproof[dask]'", "it takes machines; test_cluster.py has processes"),
    ("docs/cluster.md", "forkproof explore --database", "a Redis of several machines; test_corpus.py has one"),
    ("docs/contributing.md", "python3 -m venv .venv", "it makes the environment that the tests run in; .ci/run does"),
    ("docs/diff.md", "forkproof diff", "ten minutes on two lanes; test_compare.py compares two"),
    ("docs/export.md", "forkproof export RUN DIR", "test_reproducer.py exports runs"),
    ("docs/inspect.md", "forkproof inspect PID", "it needs a server that runs; test_inspection.py has some"),
    ("docs/lanes.md", "forkproof run scenario.json", "it builds environments; test_lanes.py builds one"),
    ("docs/lanes.md", "forkproof matrix", "hours; test_matrix.py runs some rows"),
    ("docs/speed.md", "python ", "a measurement of minutes to hours"),
    ("docs/timeline.md", "forkproof timeline RUN", "test_timeline.py draws runs"),
    ("docs/trust.md", "python benchmarks/", "a measurement of hours"),
    ("docs/tutorial.md", "python3 -m venv forkproof-venv", "it takes the network; the rest of the page is run"),
    ("examples/README.md", "pip install '.[stack,examples]'", "a server to look at; test_examples.py deploys all apps"),
)  # fmt: skip

# Page, how the block begins, and what it shows: there is nothing in it that one could type.
SHOWN = (
    ("README.md", "strategies -> Scenario", "how values flow; test_import_direction.py holds it"),
    ("docs/whats-here.md", "strategies -> Scenario", "how values flow; test_import_direction.py holds it"),
    ("README.md", "loop                          kind", "of an app with APScheduler, as on docs/check.md"),
    ("docs/advise.md", "as it is:", "of one app on one day; test_advise_servers.py runs such a search"),
    ("docs/check.md", "server: 2 gthread workers", "of an app with APScheduler; the tutorial's outputs are compared"),
    ("docs/check.md", "redis                            after boot", "test_check_servers.py sees such connections"),
    ("docs/cli.md", '"coverage": ', "the form of a report; test_schema.py holds reports against it"),
    ("docs/cli.md", "cause (", "of one search on one day; test_cause.py has such searches"),
    ("docs/diff.md", "fixed: quiet_runtime", "of one comparison on one day"),
    ("docs/inspect.md", "gunicorn master 5219", "of one server on one day; test_inspection.py looks at such a one"),
    ("docs/lanes.md", "py314-gevent269-gunicorn27   skipped", "what a machine may lack; test_lanes.py"),
    ("findings/*", "*", "for whoever mends it: its program is reproduce.sh, which test_findings.py runs"),
)  # fmt: skip
TYPED = re.compile(r"^(?:\$ )?(?:\S*/)?(forkproof|python3?|pip|pytest|tox|gunicorn(?! master)|dask|cd|export) [^=(]*$")


def fits(block: Block, page: str, begins: str) -> bool:
    return fnmatch(block.page, page) and (begins == "*" or block.first.startswith(begins))


def spoken_of(block: Block) -> list[tuple[str, str, str]]:
    found = [one for table in (PARSED, SHOWN, RUN) for one in table if fits(block, *one[:2])]
    return [one for one in found if one[1] != "*"] or found


def test_each_block_is_run_or_has_its_reason() -> None:
    assert [str(block) for block in BLOCKS if len(spoken_of(block)) != 1] == []
    assert len(BLOCKS) > 150


def test_no_reason_is_for_a_block_that_is_gone() -> None:
    used = [one for block in BLOCKS for one in spoken_of(block)]
    assert [one for one in (*RUN, *PARSED, *SHOWN) if one not in used] == []


def test_a_block_that_nobody_speaks_of_is_found() -> None:
    text = "# New\n\nDo so:\n\n    forkproof frob x\n\n- a list\n\n      deeper\n\n```toml\na = 1\n```\n"
    new = list(blocks("docs/new.md", text))
    assert [(block.line, block.first) for block in new] == [(5, "forkproof frob x"), (9, "  deeper"), (11, "a = 1")]
    assert [spoken_of(block) for block in new] == [[], [], []]
    for unknown in ("forkproof frob", "forkproof frob x", "forkproof run --frob"):
        with pytest.raises(UsageError):
            parsed(unknown)
    with pytest.raises(AssertionError):
        parsed("python benchmarks/soak.py --frob")


@pytest.mark.parametrize("test", sorted({test for _, _, test in RUN}))
def test_what_is_said_to_run_a_block_is_a_test(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_what_is_only_shown_cannot_be_typed() -> None:
    shown = [block for block in BLOCKS if not block.page.startswith("findings/") and {*spoken_of(block)} & {*SHOWN}]
    assert [line for block in shown for line in block.text.splitlines() if TYPED.match(line)] == []


COMMANDS = sorted({
    line.strip().removeprefix("$ ")
    for block in BLOCKS
    if block.page != "docs/cli.md"  # a synopsis
    for line in block.text.splitlines()
    if TYPED.match(line.partition("  #")[0]) and (line.startswith("forkproof ") or "findings/" not in block.page)
} | {
    command
    for path in PAGES
    for command in re.findall(r"`((?:forkproof |\.venv/bin/python |python |tox )[^`]*)`", path.read_text("utf-8"))
})  # fmt: skip
"""What one may type, in blocks and between words."""


@pytest.mark.parametrize("command", COMMANDS)
def test_what_one_may_type_is_understood(command: str) -> None:
    parsed(command)


STANDS_FOR = {
    "RUN": "run", "PID": "1", "DIR": "dir", "SCENARIO.json": "s.json", "REPORT.json": "r.json",
    "LOOP=POLICY": "a=best_effort",
    "FILE": "file", "NAME": "quiet_runtime", "N": "1", "S": "1", "URL": "redis://127.0.0.1:1", "ID": "a", "T": "python",
}  # fmt: skip
"""What a word in capitals may be."""


def parsed(line: str) -> None:
    """Each command of a line has a parser that takes it; a file of ours that it names is there."""
    for command in re.split(r" && |;", line.partition("  #")[0]):
        words = [STANDS_FOR.get(word, word) for word in shlex.split(re.sub(r"[\[\]]", "", command)) if word != "..."]
        program, *rest = words or [""]
        match Path(program).name.removesuffix("3"):
            case "forkproof":
                rest = rest[: rest.index("--")] if "--" in rest else rest  # what comes then is gunicorn's
                if len(rest) == 1:  # it is named, and not typed
                    with pytest.raises(SystemExit):
                        _parser().parse_args([*rest, "--help"])
                elif rest:
                    assert _parser().parse_args(rest)
            case "python" if rest[:1] and rest[0].startswith("benchmarks/"):
                source = (ROOT / rest[0]).read_text(encoding="utf-8")
                assert [word for word in rest[1:] if word.startswith("-") and f'"{word}"' not in source] == []
        for word in words:
            if word.startswith(("examples/", "benchmarks/", "findings/")) and "*" not in word:
                assert (ROOT / word).exists(), word
            if word.startswith("examples/") and word.endswith(".json"):
                load(ROOT / word)


def test_every_option_of_the_synopsis_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    for line in block_of("docs/cli.md", "forkproof explore  ").text.splitlines():
        _, command, *_ = line.split()
        with pytest.raises(SystemExit):
            _parser().parse_args([command, "--help"])
        usage = capsys.readouterr().out
        for option in re.findall(r"(?<!-)--?[a-z][a-z-]*", line):
            assert re.search(rf"{option}\b", usage), (command, option)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.page.startswith("findings/")], ids=str)
def test_the_python_of_a_finding_is_python(block: Block) -> None:
    text = (ROOT / block.page).read_text(encoding="utf-8").splitlines()
    if text[block.line - 1] == "```python":
        ast.parse("if True:\n" + block.text if block.text.startswith(" ") else block.text)


# Those that are run here


def block_of(page: str, begins: str) -> Block:
    [found] = [block for block in BLOCKS if block.page == page and block.first.startswith(begins)]
    return found


def test_policies_are_read_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(block_of("docs/check.md", "[tool.").text, encoding="utf-8")
    assert {name: policy.value for name, policy in policies({}, tmp_path).items()} == {
        "listen": "once_per_service",
        "*": "once_per_worker",
    }


def test_the_scenario_of_the_dimensions() -> None:
    what = from_dict(json.loads(block_of("docs/dimensions.md", "{").text))
    assert [fault.fault for fault in what.faults] == ["kill_worker", "term"]


def test_the_scenarios_of_the_planted_bugs() -> None:
    found = [block for block in BLOCKS if block.page == "docs/planted.md"]
    assert len(found) == 20
    for line in [line for block in found for line in block.text.splitlines()]:
        from_dict(json.loads(line.partition(" ")[2]))


def test_the_entry_points_are_those_of_the_example() -> None:
    shown_there = block_of("docs/extending.md", "[project").text
    assert shown_there in (ROOT / "examples" / "plugin" / "pyproject.toml").read_text(encoding="utf-8")


def test_the_lane_of_ones_own(tmp_path: Path) -> None:
    text = block_of("docs/lanes.md", "[lane.mine]").text.replace(", ...", "")
    (tmp_path / "lanes.toml").write_text(text, encoding="utf-8")
    assert lanes.load(tmp_path / "lanes.toml").lane("mine").python == "3.11"


VARIES = re.compile(r"\b[0-9a-f]{12}-[0-9a-f]{6}\b|\b[0-9a-f]{8}\b|\d+\.\d\ds|(?<![\w./-])\d+(?![\w./-])")
"""Runs, births, times; pids and counts of turns."""


def words(text: str) -> list[str]:
    return VARIES.sub("~", text).split()


def first_missing(output: str, wanted: str) -> str:
    """The first part of what is wanted, between dots, that does not come in its turn; empty where all do."""
    found, at = words(output), 0
    for part in map(words, wanted.split("...")):
        at = next((n for n in range(at, len(found) + 1) if found[n : n + len(part)] == part), -1)
        if at < 0:
            return " ".join(part)
        at += len(part)
    return ""


def test_an_output_is_held_against_what_is_shown() -> None:
    assert first_missing("a  1\nb +0.31s (pid 7)\nc", "a 2\n...\n+0.44s (pid 9) c") == ""
    assert first_missing("a  1\nb\nc", "b\n...\na 1") == "a ~"
    assert first_missing("a 1/2", "a 1/1") == "a 1/1"


@pytest.mark.fork
def test_the_run_of_the_readme() -> None:
    command, _, output = block_of("README.md", "forkproof run examples/original-report/").text.partition("\n\n")
    with tempfile.TemporaryDirectory(prefix="fp-") as out:
        given = [sys.executable, "-m", *command.split(), "--out", out, "--target", sys.executable]
        done = subprocess.run(
            given, cwd=ROOT, env={"PATH": "/usr/bin:/bin", "COLUMNS": "200"}, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    told = done.stdout.replace(out, ".forkproof")
    assert first_missing(told, output) == "", told


def passes(folder: Path, test: str, **files: str) -> None:
    """Whether a test passes that stands in a folder with these files."""
    for name, text in {"test_own": test, **files}.items():
        path = folder / (f"{name}.py" if "." not in name else name)
        path.write_text(text, encoding="utf-8")
    options = ["-q", "-p", "no:cacheprovider", "--fork-target", sys.executable, "test_own.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert " passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.fork
def test_the_readmes_own_test() -> None:
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        test = block_of("README.md", "def test_listener").text
        passes(Path(folder), test, **{"scenario.json": '{"loops": [{"name": "listen"}]}'})


APP = """
import threading, time
from flask import Flask

app = Flask(__name__)

def listen():
    while True:
        time.sleep(0.05)

threading.Thread(target=listen, daemon=True).start()
"""


@pytest.mark.fork
def test_the_check_in_ones_own_tests() -> None:
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        test = block_of("docs/check.md", "def test_background_loops").text
        passes(Path(folder), test, app=APP, **{"gunicorn.conf.py": "workers = 1\n"})
