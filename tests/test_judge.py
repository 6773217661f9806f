"""From a run folder to a report: JSON schema 1, rates, the same verdict twice, what is torn, what is no run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from histories import SUPERVISOR as SUPERVISOR_PID
from histories import WORKER, Events, created, history, ran, request, scenario, seen, server, window

from forkproof.claims import REGISTRY
from forkproof.errors import ForkproofError, HistoryError, ScenarioError, UsageError
from forkproof.history import SUPERVISOR
from forkproof.judge import judge, stands
from forkproof.scenario import Scenario

VERSIONS = {
    "python": "3.11.7", "gunicorn": "27.0.1", "gevent": "26.9.0", "greenlet": "3.2.4", "redis": None, "flask": "3.1.3",
}  # fmt: skip
COPIED = created("aa", 100, t=0.15) + ran("aa", 100) + ran("aa", WORKER)
EARLY: dict[str, Any] = {
    "patches": [{"site": "config_first_line"}],
    "server": {"preload": True, "worker_class": "gevent"},
}
CASE_ZERO = scenario({"policy": "once_per_service"}, **EARLY)


def run_folder(folder: Path, what: Scenario, *groups: Events) -> Path:
    (folder / "history").mkdir(parents=True)
    (folder / "scenario.json").write_text(what.to_json(), encoding="utf-8")
    (folder / "launch.json").write_text(json.dumps({"target": VERSIONS}), encoding="utf-8")
    for event in history(*groups):
        name = SUPERVISOR if event.pid == SUPERVISOR_PID else f"{event.process}.jsonl"
        with (folder / "history" / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event.to_dict()) + "\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Case zero: a listener that was copied into the worker."""
    return run_folder(tmp_path / "run", CASE_ZERO, server(1), window(), COPIED, request(aa=True))


TYPES: dict[str, Any] = {
    "schema": int,
    "verdict": {"held", "unknown", "broken"},
    "target": {"redis": (type(None)), **dict.fromkeys(("python", "gevent", "gunicorn", "greenlet", "flask"), str)},
    "claims": {
        "name": set(REGISTRY),
        "verdict": {"held", "unknown", "broken", "not_applicable"},
        "loop": (str, type(None)),
        "expectation": {"must_hold", "must_break", "may_break", None},
        "expectation_reason": str,
        "surprise": bool,
        "known_issue": (str, type(None)),
        "rate": list,
        "explanation": str,
        "since": str,
        "evidence": list,
    },
    "loops": {
        "name": str,
        "defined_at": (str, type(None)),
        "kind": str,
        "policy": (str, type(None)),
        "processes": {
            "role": {"arbiter", "worker", "child"},
            "slot": (int, type(None)),
            "pid": int,
            "birth": str,
            "alive": (bool, type(None)),
            "ticks": int,
            "copied": bool,
            "thread": (str, type(None)),
        },
    },
    "stacks": {"process": str, "file": str, "calls": list},
    "run": str,
}  # fmt: skip


def check(data: Any, types: dict[str, Any]) -> None:
    assert set(data) == set(types)
    for name, wanted in types.items():
        value = data[name]
        if isinstance(wanted, dict):
            for member in value if isinstance(value, list) else [value]:
                check(member, wanted)
        elif isinstance(wanted, set):
            assert value in wanted, name
        else:
            assert isinstance(value, wanted), name


def test_the_report_is_schema_1(folder: Path) -> None:
    data = judge(folder).to_dict()
    check(json.loads(json.dumps(data)), TYPES)
    assert (data["schema"], data["verdict"], data["run"]) == (1, "broken", str(folder))
    assert {claim["name"] for claim in data["claims"]} == set(REGISTRY)
    copied = next(claim for claim in data["claims"] if claim["name"] == "no_copied_thread")
    assert copied["verdict"] == "broken"
    assert copied["expectation"] == "must_break"
    assert copied["surprise"] is False
    assert copied["rate"] == [1, 1]
    assert copied["evidence"][0]["event"] == "loop.begin"
    (loop,) = data["loops"]
    assert [(row["role"], row["slot"], row["copied"], row["alive"]) for row in loop["processes"]] == [
        ("arbiter", None, False, None),
        ("worker", 0, True, True),
    ]


def test_the_verdict_is_kept(folder: Path) -> None:
    report = judge(folder)
    assert json.loads((folder / "verdict.json").read_bytes()) == report.to_dict()
    assert report.exit_code == 1


def test_the_same_history_has_the_same_verdict(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fork", "posix_spawn"):
        monkeypatch.setattr(os, name, None)
    monkeypatch.setattr("subprocess.Popen", None)
    first = judge(folder).to_dict()
    assert judge(folder).to_dict() == first


def test_claims_can_be_chosen(folder: Path) -> None:
    assert [found.finding.claim for found in judge(folder, ["quiet_runtime"]).judgements] == ["quiet_runtime"]
    with pytest.raises(UsageError, match="'nope' is no claim; there are: exactly_one_listener"):
        judge(folder, ["nope"])


@pytest.mark.parametrize("name", ["110-110.jsonl", SUPERVISOR, "another.jsonl"])
def test_a_torn_last_line_is_passed_over(folder: Path, name: str) -> None:
    whole = judge(folder).to_dict()
    with (folder / "history" / name).open("ab") as file:
        file.write(b'{"t": 1.9, "pid": 110, "st')
    assert judge(folder).to_dict() == whole


NO_EVENTS = [
    (b"\x00\xff", "invalid JSON"),
    (b"[1]", "input should be an object"),
    (b"{}", "there is no such event"),
    (b'{"t": 1, "pid": 1, "start": 1, "event": "nope"}', "there is no such event"),
    (b'{"t": NaN, "pid": 1, "start": 1, "event": "log", "line": ""}', "log: t: input should be a finite number"),
    (b'{"t": 1, "pid": true, "start": 1, "event": "log", "line": ""}', "log: pid: input should be a valid integer"),
    (b'{"t": 1, "pid": 1e999, "start": 1, "event": "log", "line": ""}', "log: pid: input should be a valid integer"),
    (b'{"t": 1, "pid": 1, "start": 1, "event": "log"}', "log: line: field required"),
    (b'{"t": 1, "pid": 1, "start": 1, "event": "log", "line": "\\ud800"}', "invalid JSON"),
    (b'{"t": 1, "pid": 1, "start": 1, "event": "log", "line": "", "more": NaN}', "log: more"),
    (b'{"t": 1, "pid": 1, "start": 1, "event": "stack", "target": "", "file": "/etc/passwd"}', "stack: file"),
    (b"[" * 5000, "invalid JSON: recursion limit exceeded"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "why"), NO_EVENTS, ids=[str(line[:40]) for line, _ in NO_EVENTS])
def test_a_line_that_is_no_event(folder: Path, line: bytes, why: str) -> None:
    path = folder / "history" / SUPERVISOR
    whole = path.read_bytes()
    path.write_bytes(line + b"\n" + whole)
    with pytest.raises(HistoryError, match=f"^{path}: line 1 is no event: .*The file is damaged") as refused:
        judge(folder)
    assert why in str(refused.value)
    path.write_bytes(whole)
    # What the server can write into ends no command, and is no pass.
    path = folder / "history" / f"{WORKER}-{WORKER}.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n{}\n")
    report = judge(folder)
    assert report.exit_code == 3
    found = {judgement.finding.verdict.value for judgement in report.judgements}
    assert found == {"unknown", "not_applicable"}
    told = report.judgements[0].finding.explanation
    assert f"the record is damaged: history/{path.name}: line " in told
    assert told.endswith(", and 1 more like it")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_history_that_is_no_file(folder: Path, make: Callable[[Path], None]) -> None:
    make(folder / "history" / "7-7.jsonl")
    assert "history/7-7.jsonl: cannot be read: " in judge(folder).judgements[0].finding.explanation


def test_a_process_whose_first_line_is_lost(folder: Path) -> None:
    path = folder / "history" / f"{WORKER}-{WORKER}.jsonl"
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    (loop,) = judge(folder).loops
    assert [row["pid"] for row in loop["processes"]] == [100]


def test_an_empty_history_is_no_pass(folder: Path) -> None:
    shutil.rmtree(folder / "history")
    report = judge(folder)
    assert report.exit_code == 3
    assert report.to_dict()["verdict"] == "unknown"
    assert report.loops[0]["processes"] == []


@pytest.mark.parametrize("launched", [None, b"", b"{", b"[]", b"{}", b'{"target": 3}', b'{"target": {"python": 3}}'])
def test_a_folder_that_is_no_run(folder: Path, launched: bytes | None) -> None:
    (folder / "launch.json").unlink()
    if launched is not None:
        (folder / "launch.json").write_bytes(launched)
    with pytest.raises(UsageError, match=f"^{folder}: is not the folder of a run: launch.json: "):
        judge(folder)


def test_a_run_whose_scenario_is_gone(folder: Path) -> None:
    (folder / "scenario.json").unlink()
    with pytest.raises(ScenarioError, match=r"scenario\.json: cannot be read: "):
        judge(folder)


def test_a_verdict_that_cannot_be_written(folder: Path) -> None:
    (folder / "verdict.json").mkdir()
    with pytest.raises(ForkproofError, match=r"verdict\.json: cannot be written: Is a directory"):
        judge(folder)


def test_a_process_that_is_looked_at_stands_in_what_that_interrupts(tmp_path: Path) -> None:
    frames = [
        ("/x/forkproof_payload/reach.py", 82, "go"), ("/x/forkproof_payload/watch.py", 10, "_look"),
        ("/lib/multiprocessing/pool.py", 675, "_help_stuff_finish"), ("/x/forkproof_payload/bodies.py", 3, "body"),
    ]  # fmt: skip
    text = "Current thread 0x1 (most recent call first):\n"
    text += "".join(f'  File "{file}", line {line} in {name}\n' for file, line, name in frames)
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "110-110.txt").write_text(text)
    (one,) = stands(tmp_path, history(seen(1.5, "stack", target="110-110", file="stacks/110-110.txt")))
    assert list(one.calls) == ["multiprocessing/pool.py:675 _help_stuff_finish", "forkproof_payload/bodies.py:3 body"]
