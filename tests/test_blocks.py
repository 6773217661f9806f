"""Every block of code, of commands or of output on our pages: who runs it, or why nobody does.

A block that nothing below speaks of makes `test_each_block_is_run_or_has_its_reason` fail, and a line below that no
block answers to the next one. What can be typed can be parsed by our own parser, whether it is run or not.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from gunicorn.config import Config

from forkproof import cli, cluster, lanes, storage, supervisor
from forkproof.check import policies, still_possible
from forkproof.cli import _parser
from forkproof.errors import ClusterError, CouldNotDecide, LaneError, MissingPackage, UsageError
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
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -q '.[stack]'",
     "test_blocks.py::test_the_exploration_of_the_readme"),
    ("README.md", "forkproof run examples/original-report/symptom-a", "test_blocks.py::test_the_run_of_the_readme"),
    ("README.md", "def test_listener(forkproof):", "test_blocks.py::test_the_readmes_own_test"),
    ("README.md", "loop                          kind", "test_blocks.py::test_the_check_that_the_pages_show"),
    ("docs/check.md", "server: 2 gthread workers", "test_blocks.py::test_the_check_that_the_pages_show"),
    ("docs/check.md", "redis                            after boot", "test_blocks.py::test_the_redis_of_a_check"),
    ("docs/advise.md", "as it is:", "test_blocks.py::test_the_search_that_the_page_shows"),
    ("docs/advise.md", "forkproof advise", "test_blocks.py::test_the_search_that_the_page_shows"),
    ("docs/inspect.md", "gunicorn master 5219", "test_inspection.py::test_a_server"),
    ("docs/lanes.md", "py314-gevent269-gunicorn27   skipped", "test_blocks.py::test_why_a_lane_is_skipped"),
    ("docs/check.md", "[tool.forkproof.policies]", "test_blocks.py::test_policies_are_read_as_they_stand"),
    ("docs/check.md", "def test_background_loops(forkproof):", "test_blocks.py::test_the_check_in_ones_own_tests"),
    ("docs/cli.md", "cause (", "test_cause.py::test_the_cause_that_the_page_shows"),
    ("docs/diff.md", "fixed: quiet_runtime", "test_compare.py::test_what_the_page_shows_is_told_so"),
    ("docs/dimensions.md", '{"patches": ', "test_blocks.py::test_the_scenario_of_the_dimensions"),
    ("docs/extending.md", "[project.entry-points", "test_blocks.py::test_the_entry_points_are_those_of_the_example"),
    ("docs/extending.md", "pip install ./examples/plugin", "test_plugins.py::test_the_examples_claim_and_fault"),
    ("docs/extending.md", "forkproof: plug-in 'quit_worker'",
     "test_plugins.py::test_a_bad_one_is_named_with_cause_and_next_step"),
    ("docs/lanes.md", "[lane.mine]", "test_blocks.py::test_the_lane_of_ones_own"),
    ("docs/planted.md", "bug      {", "test_blocks.py::test_the_scenarios_of_the_planted_bugs"),
    ("docs/the-original-report*.md", "forkproof run examples/original-report/",
     "test_original_report.py::test_a_scenario_shows_what_the_page_says"),
    ("docs/tutorial.md", "*", "test_tutorial.py::test_the_tutorial"),
)  # fmt: skip

# Page, how the block begins, and why no test runs it: its commands are parsed all the same.
PARSED = (
    ("README.md", "pip install /path/to/forkproof", "the tutorial's test runs it, on an app"),
    ("docs/atlas.md", "forkproof atlas", "4,000 servers; test_atlas.py runs a corner of it"),
    ("docs/campaign-page.md", "forkproof explore", "hundreds of servers; test_explore_servers.py explores with fewer"),
    ("docs/campaign-page.md", "forkproof serve", "until it is interrupted: test_serve.py::test_it_ends_on_ctrl_c"),
    ("docs/check.md", "forkproof check", "it needs an app; the tutorial's test runs it"),
    ("docs/cli.md", "forkproof explore  [--target T]", "a synopsis; test_every_option_of_the_synopsis_is_one"),
    ("docs/cluster.md", "pip install '/path/to/forkproof[dask]'",
     "it takes machines, and dask parses what is its own; test_cluster.py has processes"),
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
    ("docs/cli.md", '"coverage": ', "the form of a report; test_schema.py holds reports against it"),
    ("findings/*", "*", "for whoever mends it: its program is reproduce.sh, which test_findings.py runs"),
)  # fmt: skip
PROGRAMS = "forkproof|python3?|pip|pytest|tox|gunicorn|dask|ruff|mypy|sphinx-build|run"
TYPED = re.compile(rf"^(?:\$ )?(?:(?:\S*/)?(?:{PROGRAMS}) (?!master )(?![=(])|(?:cd|export) )")
NAMED = re.compile(rf"`((?:\S*/)?(?:{PROGRAMS}) [^`]*|\.ci/\w+)`")
"""A command that stands between words."""


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


def test_a_block_that_nobody_speaks_of_is_found(pytestconfig: pytest.Config) -> None:
    text = "# New\n\nDo so:\n\n    forkproof frob x\n\n- a list\n\n      deeper\n\n```toml\na = 1\n```\n"
    new = list(blocks("docs/new.md", text))
    assert [(block.line, block.first) for block in new] == [(5, "forkproof frob x"), (9, "  deeper"), (11, "a = 1")]
    assert [spoken_of(block) for block in new] == [[], [], []]
    for unknown in ("forkproof frob", "forkproof frob x", "forkproof run --frob"):
        with pytest.raises(UsageError):
            parsed(unknown, pytestconfig)
    for unknown in (
        "python benchmarks/soak.py --frob", "pytest -m frob", "pytest --fork-frob", "pytest tests/test_frob.py",
        "pip instal x", "pip install flask gunicron", "pip install --frob .", "pip install '.[stack,frob]'",
        "python -m forkproof.original_report --frob", "ruff frob .", "dask worker --frob",
        "cd examples/apps/process && gunicorn -c ../../deployments/frob.conf.py app:app", "cd frob", "tox -m frob",
        "sphinx-build -c d . site",
    ):  # fmt: skip
        with pytest.raises(AssertionError):
            parsed(unknown, pytestconfig)
    for unknown, error in (
        ("gunicorn --frob app:app", SystemExit), ("python -m forkproof.frob", AttributeError),
        ("tox -e py311-gunicorn9", UsageError), ("dask frob", ValueError),
        ("forkproof lanes build py311-gunicorn9", UsageError), ("forkproof check a:a --policy a=frob", UsageError),
    ):  # fmt: skip
        with pytest.raises(error):
            parsed(unknown, pytestconfig)


@pytest.mark.parametrize("test", sorted({test for _, _, test in RUN}))
def test_what_is_said_to_run_a_block_is_a_test(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_what_is_only_shown_cannot_be_typed() -> None:
    shown = [block for block in BLOCKS if not block.page.startswith("findings/") and {*spoken_of(block)} & {*SHOWN}]
    assert [line for block in shown for line in block.text.splitlines() if TYPED.match(line)] == []


def typed(block: Block) -> Iterator[str]:
    """The commands of a block, each in the folder that one is in by then."""
    folder = ""
    for line in block.text.splitlines():
        if TYPED.match(line) and (line.startswith("forkproof ") or "findings/" not in block.page):
            yield folder + line.strip().removeprefix("$ ")
        if line.startswith("cd "):
            folder = f"{line} && "


COMMANDS = sorted({
    command
    for block in BLOCKS
    if block.page != "docs/cli.md"  # a synopsis
    for command in typed(block)
} | {
    " ".join(command.split())
    for path in PAGES
    for command in NAMED.findall(path.read_text("utf-8"))
})  # fmt: skip
"""What one may type, in blocks and between words."""


@pytest.mark.parametrize("command", COMMANDS)
def test_what_one_may_type_is_understood(command: str, pytestconfig: pytest.Config) -> None:
    parsed(command, pytestconfig)


STANDS_FOR = {
    "RUN": "run", "PID": "1", "DIR": "dir", "SCENARIO.json": "s.json", "REPORT.json": "r.json",
    "LOOP=POLICY": "a=best_effort", "SETTING=VALUES": "workers=1",
    "LANE": "museum", "FILE": "file", "NAME": "quiet_runtime", "N": "1", "S": "1", "ID": "a", "T": "python",
    "URL": "redis://127.0.0.1:1",
}  # fmt: skip
"""What a word in capitals may be."""
TOOLS = {
    ("pip", "uninstall"), ("pip", "check"), ("mypy",), ("ruff", "check", "."), ("ruff", "format", "."), ("tox", "-e"),
    ("python", "-m", "venv"), ("python", "-m", "gevent.monkey"), ("python", "-c"), ("python", "-X"), (".",),
}  # fmt: skip
"""How commands of others begin that no parser of ours reads."""


def parsed(line: str, config: pytest.Config) -> None:
    """Each command of a line has a parser that takes it; what it names of ours is there."""
    folder = ROOT
    for command in re.split(r" && |;", re.split(r"  +#", line)[0]):
        words = [STANDS_FOR.get(word, word) for word in shlex.split(re.sub(r"(?<!\S)\[(.*?)\]", r"\1", command))]
        words = [word for word in words if word != "..."]
        program, *rest = words
        for word in words:
            if re.fullmatch(r"py\d+(-[a-z0-9]+)+", word):
                assert lanes.load().lane(word)
            path = word.partition("::")[0]
            if path.startswith(("examples/", "benchmarks/", "findings/", "tests/")) and "*" not in path:
                assert (ROOT / path).exists(), path
            if path.startswith("examples/") and path.endswith(".json"):
                load(ROOT / path)
            for extra in re.findall(r"[\w,]+(?=\])", word.partition("[")[2] if word[:1] in "./" else ""):
                assert {*extra.split(",")} <= set(EXTRAS), word
        match [Path(program).name.removesuffix("3") or program, *rest]:
            case ["forkproof", *rest] if len(rest) < 2:  # it is named, and not typed
                with pytest.raises(SystemExit) as left:
                    _parser().parse_args([*rest, "--help"])
                assert left.value.code == 0
            case ["forkproof", *rest]:
                given = _parser().parse_args(rest[: rest.index("--")] if "--" in rest else rest)  # then gunicorn's come
                policies(dict(one.split("=") for one in getattr(given, "policy", [])), folder)
            case ["pytest", *rest] | ["python", "-m", "pytest", *rest]:
                given, unknown = config._parser.parse_known_and_unknown_args(rest)
                assert not unknown
                assert given.markexpr in ("", "fork", "not fork")
            case ["python", script, *rest] if script.startswith("benchmarks/"):
                source = (ROOT / script).read_text(encoding="utf-8")
                assert [word for word in rest if word.startswith("-") and f'"{word}"' not in source] == []
            case ["python", "-m", module, *rest] if module.startswith("forkproof."):
                source = Path(str(importlib.util.find_spec(module).origin)).read_text(encoding="utf-8")  # type: ignore[union-attr]
                assert [word for word in rest if f'"{word}"' not in source] == []
            case ["python", script, *rest] if script.endswith(".py"):
                [source] = [path.read_text(encoding="utf-8") for path in ROOT.glob(f"findings/*/{script}")]
                assert all(one in source for word in rest if "=" not in word for one in word.split("|"))
            case ["run", *rest] if rest:
                assert _parser().parse_args(["run", *(["s.json"] if rest[0][1:] else []), *rest])
            case ["tox", "-e", name]:
                assert f"testenv:{name}]" in TOX or lanes.load().lane(name)
            case ["tox", "-m", name]:
                assert re.search(rf"^ +{name} = ", TOX.partition("[testenv]")[0], re.M)
            case ["gunicorn", *rest] | ["python", "-m", "gunicorn", *rest]:
                given = Config().parser().parse_args(rest)
                assert given.config is None or "/" not in given.config or (folder / given.config).is_file()
            case ["sphinx-build", *rest]:
                assert rest == SITE
            case ["dask", command, *rest]:
                pytest.importorskip("distributed", reason="pip install '.[dask]'")
                [there] = entry_points(group="dask_cli", name=command)
                taken = there.load().make_context(command, rest)  # an option that it does not know it hands on
                assert not [word for word in (*taken.args, *taken.params.values()) if f"{word}".startswith("-")]
            case ["pip", "install", *rest] | ["python", "-m", "pip", "install", *rest]:
                names = {word for word in rest if word[0] not in "-./"}
                assert names <= PACKAGES, names - PACKAGES
                assert {word for word in rest if word[0] == "-"} <= {"-q", "-e", "--no-deps"}
            case [_] if program.startswith(".ci/"):
                assert (ROOT / program).is_file()
            case ["cd", where]:
                folder = folder if where.startswith("/path/to/") else ROOT / where
                assert folder.is_dir()
            case ["export", setting]:
                assert re.match(r"[A-Z]+=", setting)
            case words:
                assert any(tuple(words[: len(one)]) == one for one in TOOLS), command


PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.scripts]")[0]
EXTRAS = re.findall(r"^(\w+) = \[", PROJECT.partition("[project.opt")[2], re.M)
TOX = (ROOT / "tox.ini").read_text(encoding="utf-8")
PACKAGES = {*re.findall(r'"([\w-]+)[\w,\[\]]*>=', PROJECT), "tox"}
"""What may be installed by its name: ours and the target's."""
SITE = ["-W", "-c", "docs", ".", "site"]
"""What `test_site.py` runs, but for the folder."""


def test_every_option_of_the_synopsis_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    for line in block_of("docs/cli.md", "forkproof explore  ").text.splitlines():
        _, command, *_ = line.split()
        with pytest.raises(SystemExit):
            _parser().parse_args([command, "--help"])
        usage = capsys.readouterr().out
        for option in re.findall(r"(?<!-)--?[a-z][a-z-]*", line):
            assert re.search(rf"{option}\b", usage), (command, option)


OPTIONS = {
    command: parser._option_string_actions
    for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
    for command, parser in action.choices.items()
}  # fmt: skip
"""Of each command of ours."""


def options_of(page: str, pytestconfig: pytest.Config) -> set[str]:
    """Those that may stand alone on a page: our commands', pytest's, gunicorn's, and of measurements."""
    ours = {option for options in OPTIONS.values() for option in options}
    theirs = {*Config().parser()._option_string_actions, *pytestconfig._parser.optparser._option_string_actions}
    measured = [path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py")]
    given = {option for text in measured for option in re.findall(r'"(--[a-z-]+)"', text)} | {"--check"}
    return ours | theirs | (set() if page in ("README.md", "docs/check.md", "docs/advise.md") else given)


@pytest.mark.parametrize("page", [path for path in PAGES if "findings" not in path.parts], ids=lambda page: page.name)
def test_an_option_that_stands_alone_is_one(page: Path, pytestconfig: pytest.Config) -> None:
    known = options_of(str(page.relative_to(ROOT)), pytestconfig)
    named = re.findall(r"`(--?[a-z][a-z-]*)", page.read_text(encoding="utf-8"))
    assert [option for option in named if option not in known] == []


def rows_of_options() -> Iterator[tuple[str, list[str], str]]:
    """Command, options, and what a table on its page says of them; "" is any command."""
    for path in sorted((ROOT / "docs").glob("*.md")):
        for cell, told in re.findall(r"^\| (`-[^|]*) \| (.*) \|$", path.read_text(encoding="utf-8"), re.M):
            yield path.stem if path.stem in OPTIONS else "", re.findall(r"`(--?[a-z][a-z-]*)", cell), told


def test_each_option_of_a_table_is_one_of_its_command_with_its_default() -> None:
    rows = list(rows_of_options())
    assert len(rows) > 45
    for command, options, told in rows:
        known = [those for name, those in OPTIONS.items() if command in ("", name)]
        assert [option for option in options if not any(option in those for those in known)] == [], command
        actions = [those[option] for those in known for option in options if option in those]
        defaults = [f"{a.default:g}" if isinstance(a.default, float) else str(a.default) for a in actions]
        for default in re.findall(r"(?:; |, |\()default (?!the |is )`?([\w./]+)`?", told.replace("default two ", "")):
            said = any(re.search(rf"\bdefault:? {re.escape(default)}(?!\w)", f"{action.help}") for action in actions)
            assert said or default in defaults, (options, told)


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


@pytest.mark.fork
def test_the_exploration_of_the_readme() -> None:
    """With two scenarios in place of its 40."""
    command = block_of("README.md", "python3 -m venv .venv && .venv/bin/pip install -q '.[stack]' &&").text
    command = command.rpartition(" && .venv/bin/")[2].replace("-n 40 ", "-n 2 ")
    with tempfile.TemporaryDirectory(prefix="fp-") as out:
        told = runs(ROOT, f"{command} --out {out}")
    assert re.search(r"^seed 1\b|\bseed 1\b", told), told
    assert re.search(r"\b2 scenarios\b", told), told


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


def runs(folder: Path, command: str, **files: str) -> str:
    """What a command of ours prints on this Python's packages, in a folder with these files."""
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    words = [sys.executable, "-m", *shlex.split(command), "--target", sys.executable]
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    told = done.stdout.replace(sysconfig.get_path("stdlib"), "/usr/lib/python3.11").replace(f"{folder.resolve()}/", "")
    return told.replace(str(folder.resolve()), "/srv/app").replace(sys.executable, "/srv/venv/bin/python")


LOGGED = """
import logging, queue
from logging.handlers import QueueListener

from flask import Flask

records = queue.Queue()
QueueListener(records, logging.StreamHandler()).start()

from apscheduler.schedulers.background import BackgroundScheduler

BackgroundScheduler().start()
app = Flask(__name__)

@app.route("/")
def index():
    records.put(logging.makeLogRecord({"msg": "asked"}))
    return ""
"""


@pytest.mark.fork
def test_the_check_that_the_pages_show() -> None:
    pytest.importorskip("apscheduler", reason="pip install '.[examples]'")
    conf = "workers = 2\npreload_app = True\nworker_class = 'gthread'\n"
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        command = block_of("docs/check.md", "forkproof check app:app -c").text
        told = runs(Path(folder), command, app__py=LOGGED.lstrip(), gunicorn__conf__py=conf)
    assert first_missing(told, block_of("README.md", "loop                  ").text) == "", told
    assert first_missing(told, block_of("docs/check.md", "server: 2 gthread").text) == "", told


HEARS = """
import os, threading
import redis

pubsub = redis.Redis.from_url(os.environ["REDIS_URL"]).pubsub()
pubsub.subscribe("orders")
threading.Thread(target=lambda: list(pubsub.listen()), daemon=True).start()

def app(environ, start_response):
    start_response("200 OK", [])
    return []
"""


@pytest.mark.fork
def test_the_redis_of_a_check() -> None:
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        conf = "workers = 1\npreload_app = True\n"
        told = runs(Path(folder), "forkproof check app:app --redis embedded", app__py=HEARS, gunicorn__conf__py=conf)
    plain = re.sub(r":\d+", ":PORT", told)
    assert re.sub(r":\d+", ":PORT", block_of("docs/check.md", "redis         ").text).split() == [
        word for line in plain.splitlines() if line.startswith(("redis  ", "127.0.0.1:")) for word in line.split()
    ]


@pytest.mark.fork
def test_the_search_that_the_page_shows() -> None:
    conf = 'worker_class = "gthread"\nworkers = 2\npreload_app = True\n'
    app = "\n" * 5 + APP
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        told = runs(
            Path(folder), block_of("docs/advise.md", "forkproof advise").text, app__py=app, gunicorn__conf__py=conf
        )
    assert first_missing(told, block_of("docs/advise.md", "as it is:").text) == "", told


def test_why_a_lane_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_python, no_wheel = block_of("docs/lanes.md", "py314").text.splitlines()
    with pytest.raises(LaneError) as error:
        lanes.interpreter("3.14", {"3.9.1": "python"})
    assert first_missing(f"py314-gevent269-gunicorn27 skipped: {error.value}", no_python) == ""
    name, _, reason = no_wheel.partition("  skipped: ")
    pin = reason.rpartition(" ")[2]
    assert pin in lanes.load().lane(name).pins
    assert reason == f"No matching distribution found for {pin}"  # pip's words, as test_lanes.py has them


STATED = (
    ("docs/campaign-page.md", "Ctrl-C ends it, with exit code {}", 0),  # test_serve.py::test_it_ends_on_ctrl_c
    ("docs/check.md", "could not be decided (exit code {})", CouldNotDecide.exit_code),
    ("docs/check.md", "refused with its own error and exit code {}", UsageError.exit_code),
    ("docs/check.md", "whose package the target lacks with exit code {}", MissingPackage.exit_code),
    ("docs/cluster.md", "the command ends with exit code {} | | a scheduler", ClusterError.exit_code),
    ("docs/cluster.md", "a scheduler that is lost | the command ends with exit code {}", ClusterError.exit_code),
    ("docs/diff.md", "`-n` scenarios ({}),", cli.DRAWN),
    ("docs/extending.md", "every command refuses to start, with exit code {},", UsageError.exit_code),
    ("docs/lanes.md", "`lanes build` exits {}", LaneError.exit_code),
    ("docs/cli.md", "the newest {} are kept", storage.MOST_HELD),
    ("docs/cli.md", "of what takes more than {} GiB", storage.MOST_BYTES >> 30),
    ("docs/cluster.md", "without any worker for {} s the command ends", round(cluster.ALONE)),
    ("docs/what-a-green-run-means.md", "20 runs still allow {} %", round(100 * still_possible(20))),
    ("docs/what-a-green-run-means.md", "{} MB of output are kept", supervisor.LIMITS["log"] >> 20),
    ("docs/what-a-green-run-means.md", "comes to {} MB", supervisor.LIMITS["folder"] >> 20),
    ("docs/what-a-green-run-means.md", "of which the first {} lines are judged", supervisor.MAX_LOG_LINES),
    ("docs/what-a-green-run-means.md", "or {} processes", supervisor.LIMITS["processes"]),
)
"""Numbers that pages tell and code has."""


@pytest.mark.parametrize(("page", "text", "number"), STATED)
def test_a_number_that_a_page_states_is_that_of_the_code(page: str, text: str, number: int) -> None:
    assert text.format(number) in " ".join((ROOT / page).read_text(encoding="utf-8").split())
