"""What was read once and ended forkproof, or would have led it elsewhere: each stays refused."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from histories import event, history, scenario, seen, server, window
from test_judge import run_folder

import forkproof
import forkproof_strategies
from forkproof import events, known_issues, resp, storage, supervisor, target
from forkproof.claims import REGISTRY
from forkproof.errors import CouldNotDecide, ForkproofError, ScenarioError, TargetError, UsageError
from forkproof.judge import judge, server_log, stands
from forkproof.launch import Shared
from forkproof.scenario import load
from forkproof.session import LocalSession
from forkproof.supervisor import Supervisor, understood

HARNESS = Path(forkproof.__file__).parent
SOURCES = [*HARNESS.rglob("*.py"), *Path(forkproof_strategies.__file__).parent.rglob("*.py")]


# Nothing is run from data


RUNS_DATA = re.compile(
    r"^\s*(import|from) (pickle|marshal|shelve|yaml|runpy)\b"
    r"|\bshell=|\bos\.(system|popen)\(|(?<![\w.])(eval|exec|compile)\(",
    re.MULTILINE,
)


def test_nothing_in_a_file_is_run() -> None:
    assert RUNS_DATA.search("    import pickle")
    assert RUNS_DATA.search("x = eval(text)")
    found = {"/".join(path.parts[-2:]) for path in SOURCES if RUNS_DATA.search(path.read_text())}
    assert found == {
        # The launcher of `check` is there to run a program: the user's own gunicorn, which the command line names.
        "payload/begin.py",
        # A body of another package is one, too: which file that is, a package says that is installed here.
        "forkproof_payload/bodies.py",
    }


# What lies where a server could have put it


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stack = seen(1.5, "stack", target="110-110", file="stacks/110-110.txt")
    made = run_folder(tmp_path / "run", scenario(), server(1), window(), stack)
    (made / "stacks").mkdir()
    return made


MAKE: list[Callable[[Path], object]] = [
    os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("/etc/passwd"),
]  # fmt: skip


@pytest.mark.parametrize("make", MAKE, ids=["pipe", "folder", "endless", "link"])
def test_what_is_no_file_of_the_run_is_not_read(folder: Path, make: Callable[[Path], object]) -> None:
    make(folder / "server.log")
    make(folder / "stacks" / "110-110.txt")
    assert server_log(folder) == "(it left no output)"
    assert stands(folder, history(seen(1.5, "stack", target="1-1", file="stacks/110-110.txt"))) == []
    make(folder / "verdict.json")
    with pytest.raises(ForkproofError, match=r"verdict\.json: cannot be written: "):
        judge(folder)
    for name in ("scenario.json", "launch.json"):
        (folder / name).unlink()
        make(folder / name)
        with pytest.raises(ForkproofError, match=rf"^{folder}.*{name}: "):
            judge(folder)


def test_a_report_does_not_follow_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (folder / "verdict.json").symlink_to(tmp_path / "mine")
    with pytest.raises(ForkproofError):
        judge(folder)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_file_that_would_fill_the_memory(folder: Path) -> None:
    os.truncate(folder / "history" / "110-110.jsonl", 1 << 33)
    assert "cannot be read: is longer than" in judge(folder).judgements[0].finding.explanation


def test_a_scenario_without_end() -> None:
    with pytest.raises(ScenarioError, match=r"^/dev/zero: cannot be read: is longer than 1048576 bytes$"):
        load(Path("/dev/zero"))
    with pytest.raises(ScenarioError, match="cannot be read: embedded null byte"):
        load(Path("a\0b"))


@pytest.mark.parametrize("version", ["", "latest", "1.x"])
def test_a_version_that_cannot_be_compared(folder: Path, version: str) -> None:
    (folder / "launch.json").write_text(json.dumps({"target": {"python": "3.11.7", "gevent": version}}))
    with pytest.raises(UsageError, match=f"launch.json: target: .*gevent: '{version}' is no version"):
        judge(folder)
    answer = {"python": [3, 11, 7], "versions": {"gevent": version}, "patch_flags": []}
    with pytest.raises(TargetError, match=f"^python: has gevent '{version}', which is no version"):
        target.understand("python", json.dumps(answer))


@pytest.mark.parametrize("make", [*MAKE[:3], lambda path: path.write_text("[" * 100_000)])
def test_an_old_run_whose_verdict_is_none_is_left_alone(tmp_path: Path, make: Callable[[Path], object]) -> None:
    (tmp_path / "0123456789ab-cdef01").mkdir()
    make(tmp_path / "0123456789ab-cdef01" / "verdict.json")
    assert list(storage.runs(tmp_path)) == list(storage.runs(tmp_path / "none")) == []


def test_a_run_whose_record_a_server_damaged_is_undecided(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalSession, "launch", lambda self, what: folder)
    session = LocalSession(Shared(None, None, None, folder, None))  # type: ignore[arg-type]
    assert session.run(scenario()).folder == folder
    with (folder / "history" / "supervisor.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(CouldNotDecide, match=r"supervisor\.jsonl: line \d+ is no event: there is no such event"):
        session.run(scenario())


# Histories that are as the table says, and make no sense


def test_a_sentence_about_nothing() -> None:
    fork = event(0.5, 110, "fork", beside=[], imports=["m"], locks=[])
    [found] = REGISTRY["no_half_imported_module"].check(scenario(), history(server(1), window(), [fork]))
    assert "nothing did not come along" in found.explanation


def test_a_fault_without_its_facts() -> None:
    what = scenario(faults=[{"fault": "foreign_child_exit"}], surroundings={"foreign_children": 1})
    landed = seen(2.5, "fault.ok", fault="foreign_child_exit", index=0)
    [found] = REGISTRY["foreign_child_ignored"].check(what, history(server(1), window(), landed))
    assert found.explanation.startswith("child None, which is no worker")


# What a server answers and writes while it runs


def test_what_is_no_answer_of_a_worker() -> None:
    good: dict[str, Any] = {"token": "t", "slot": 0, "worker": "1-1", "loops": [], "threads": []}
    assert understood(json.dumps(good).encode(), "t")["worker"] == "1-1"
    bad = [[], 1, {}, good | {"token": "u"}, good | {"worker": []}, good | {"slot": -1}, good | {"loops": 1},
           good | {"loops": [{}]}, good | {"threads": [1]}]  # fmt: skip
    for body in [*(json.dumps(answer).encode() for answer in bad), b"", b"[" * 100_000, b"\xff"]:
        with pytest.raises(ValueError, match=r"."):
            understood(body, "t")


@pytest.mark.parametrize("ticks", [b"", b"abc", b"\xff" * 20, None], ids=["empty", "3 bytes", "full", "pipe"])
def test_the_supervisor_goes_on_whatever_it_reads(tmp_path: Path, ticks: bytes | None) -> None:
    for name in ("history", "ticks"):
        (tmp_path / name).mkdir()
    (tmp_path / "control").write_bytes(bytes(24))
    (tmp_path / "scenario.json").write_text(scenario().to_json())
    (tmp_path / "launch.json").write_text(json.dumps({"control": str(tmp_path / "control")}))
    begin = {"t": 1, "pid": 4, "start": 40, "event": "loop.begin", "birth": "a", "loop": "a", "cell": 0}
    lines = [
        begin,
        begin | {"cell": 10**6},
        begin | {"cell": -1},
        begin | {"cell": []},
        begin | {"birth": {}},
        [],
        None,
    ]
    lines += [
        begin | {"event": "listening", "address": ["x", 70000]},
        begin | {"event": "role", "role": 1, "slot": "a"},
    ]
    text = "\n".join(map(json.dumps, lines)) + "\n" + "[" * 100_000 + '\n{"pid": 1e999, "event": "hook"}\n'
    for name in ("4-40", "5-50", "no-process"):
        (tmp_path / "history" / f"{name}.jsonl").write_text(text)
        os.mkfifo(tmp_path / "ticks" / name) if ticks is None else (tmp_path / "ticks" / name).write_bytes(ticks)
    watching = Supervisor(tmp_path)
    try:
        watching.observe()
        watching.sample()
    finally:
        watching.close()
    assert set(watching.processes) == {"4-40", "5-50"}
    assert watching.address is None
    for line in (tmp_path / "history" / "supervisor.jsonl").read_bytes().splitlines():
        assert events.parse(line)


def test_folders_in_folders_without_end(tmp_path: Path) -> None:
    names = [str(tmp_path) + "/d" * depth for depth in range(1, 1100)]
    try:
        for name in names:
            os.mkdir(name)
        assert supervisor._size_of(tmp_path) == 0
    finally:
        for name in reversed(names):  # pytest could not
            os.rmdir(name)


def test_a_reply_of_lists_in_lists() -> None:
    async def ask() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"*1\r\n" * 5000)
        reader.feed_eof()
        with pytest.raises(ValueError, match="lists in lists"):
            await resp.Client(reader, None, timeout=5)._read()  # type: ignore[arg-type]

    asyncio.run(ask())


# Known issues

ISSUE = "[[issue]]\nid = 'a'\ntitle = ''\nlink = 'https://x'\nclaims = []\nversions = {}\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "is no TOML: "),
        ("a=" + "[" * 5000, "is no TOML: "),
        ("[[issue]]", "issue.0.id: Field required"),
        (ISSUE + "when = {a = 1}", "issue.0.when.a: Input should be a valid"),
        (ISSUE.replace("https://x", "/"), "issue.0.link: String should match"),
        (ISSUE.replace("https://x", "findings/../../x/README.md"), "issue.0.link: String should match"),
        (ISSUE.replace("{}", "{gevent = 'new'}"), "gevent: 'new' is no version specifier"),
    ],
)
def test_known_issues_that_cannot_be(text: str, why: str) -> None:
    assert known_issues.parse(ISSUE.encode(), source="f")
    with pytest.raises(UsageError, match=r"^f: ") as refused:
        known_issues.parse(text.encode(), source="f")
    assert why in str(refused.value)
