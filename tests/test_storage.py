"""Disk: what is pruned, what is left alone, and that a session sees to it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from forkproof import storage

SIZE = 1000


def run(out: Path, number: int, verdict: str | None = "held", *, surprise: bool = False, age: float = 0) -> Path:
    """A run's folder of `SIZE` bytes and a bit; higher numbers are newer."""
    folder = out / f"{number:012x}-abcdef"
    (folder / "history").mkdir(parents=True)
    (folder / "scenario.json").write_text("{}")
    (folder / "history" / "a.jsonl").write_bytes(b"x" * SIZE)
    told = folder / "scenario.json"
    if verdict is not None:
        told = folder / "verdict.json"
        told.write_text(json.dumps({"verdict": verdict, "claims": [{"surprise": surprise}]}))
    os.utime(told, (told.stat().st_mtime - 1000 + number - age,) * 2)
    return folder


def test_old_runs_that_held_go_and_others_stay(tmp_path: Path) -> None:
    held = [run(tmp_path, number) for number in range(5)]
    others = [run(tmp_path, 10, "broken"), run(tmp_path, 11, "unknown"), run(tmp_path, 12, "held", surprise=True)]
    assert storage.prune(tmp_path, most_held=2) == held[:3]
    assert sorted(tmp_path.iterdir()) == sorted(held[3:] + others)


def test_of_too_many_bytes_those_go_first_that_tell_least(tmp_path: Path) -> None:
    surprise = run(tmp_path, 1, "broken", surprise=True)
    failed = [run(tmp_path, number, "broken") for number in (2, 3)]
    held = run(tmp_path, 4)
    each = 2 * SIZE
    assert storage.prune(tmp_path, most_bytes=4 * each) == []
    assert storage.prune(tmp_path, most_bytes=each) == [held, failed[0], failed[1]]
    assert list(tmp_path.iterdir()) == [surprise]


def test_what_is_no_finished_run_is_left_alone(tmp_path: Path) -> None:
    under_way = run(tmp_path, 1, None)
    named_otherwise = tmp_path / "notes"
    run(tmp_path, 2).rename(named_otherwise)
    torn = run(tmp_path, 3)
    (torn / "verdict.json").write_text('{"verdict": "he')
    elsewhere = tmp_path / "elsewhere" / "0"
    elsewhere.mkdir(parents=True)
    link = tmp_path / f"{9:012x}-abcdef"
    link.symlink_to(elsewhere)
    assert storage.prune(tmp_path, most_bytes=0, most_held=0) == []
    assert all(path.exists() for path in (under_way, named_otherwise, torn, link, elsewhere))


def test_what_was_abandoned_goes(tmp_path: Path) -> None:
    old = run(tmp_path, 1, None, age=2 * 86400)
    assert storage.prune(tmp_path, most_held=0) == [old]


def test_there_need_be_no_folder(tmp_path: Path) -> None:
    assert storage.prune(tmp_path / "nowhere") == []


def test_it_is_done_at_first_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr(storage, "prune", done.append)
    pruner = storage.Pruner(tmp_path)
    for _ in range(storage.EVERY + 1):
        pruner.ran()
    assert done == [tmp_path, tmp_path]
