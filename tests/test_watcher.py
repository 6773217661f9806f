"""What the supervisor of the user's own app waits for, step by step; no server is started."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forkproof import watcher
from forkproof.supervisor import _Process
from forkproof.watcher import Watcher


class Rig(Watcher):
    """A supervisor of two workers; `waiting` are the pids of those that wait for connections."""

    waiting: set[int]
    looks: int = 0

    def current_workers(self) -> dict[int, _Process]:
        return {slot: _Process(f"{pid}-1", pid, 1, 1.0, 2, role="worker", slot=slot) for slot, pid in ((0, 7), (1, 8))}

    def _waits(self, pid: int) -> bool:  # type: ignore[override]
        self.looks += 1
        if self.looks == 6:
            self.waiting.add(8)
        return pid in self.waiting


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    (tmp_path / "history").mkdir()
    (tmp_path / "control").write_bytes(bytes(24))
    server = {
        "workers": 2,
        "timeout": 30,
        "graceful_timeout": 30,
        "max_requests": 0,
        "worker_class": "sync",
        "preload": False,
    }
    (tmp_path / "scenario.json").write_text(json.dumps({"server": server, "loops": [], "faults": []}))
    (tmp_path / watcher.PLAN).write_text("{}")
    told = {"control": str(tmp_path / "control"), "bounds": {"answer": 5.0}}
    (tmp_path / "launch.json").write_text(json.dumps(told))
    made = Rig(tmp_path, 0)
    made.waiting = {7}
    yield made
    made.close()
    vars(made).clear()  # what it maps is closed with that


@pytest.mark.parametrize(("silent", "age", "failed"), [(True, 3.0, False), (True, 0.1, True), (False, 3.0, True)])
def test_a_connection_that_is_closed_since_we_were_late(rig: Rig, silent: bool, age: float, failed: bool) -> None:
    async def ask(path: str) -> int:
        raise ConnectionResetError

    one: Any = SimpleNamespace(closed=False, ask=ask, silent=silent, age=age, close=lambda: None)
    rig.plan = {"requests": []}
    assert asyncio.run(rig._exchange(one, "/")) is False
    said = (rig.folder / "history" / "supervisor.jsonl").read_text(encoding="utf-8")
    assert ("request.fail" in said) is failed


def test_workers_that_end_one_after_the_other_and_none_boots(rig: Rig) -> None:
    rig.processes = {
        f"{pid}-1": _Process(f"{pid}-1", pid, 1, 1.0, 2, role="worker", gone=True) for pid in range(10, 20)
    }
    assert rig._never_boots() == 0
    rig.processes["30-1"] = _Process("30-1", 30, 1, 1.0, 2, role="worker", gone=True)
    assert rig._never_boots() == 11
    rig._booted = {"7-1"}
    assert rig._never_boots() == 0


def test_a_path_that_fails_each_time_is_asked_for_no_longer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def release(held: list[Any], path: str, alone: bool) -> set[int]:
        asked.append(path)
        held.clear()
        rig._failed += 2
        return {0, 1} if path == "/" and len(asked) > 30 else set()

    connection = SimpleNamespace(slot=None, age=0.0, close=lambda: None)
    for name, answer in (("_connect", connection), ("_accepted", None), ("_release", None)):
        monkeypatch.setattr(rig, name, release if name == "_release" else _giving(answer))
    rig.plan = {"health": "/", "requests": ["/work"]}
    assert asyncio.run(rig.ask_every_slot("/work")) is False
    assert (len(asked), rig._silent) == (11, True)
    asked.clear()
    assert asyncio.run(rig.ask_every_slot()) is True, "a server that boots may fail more often"


def _giving(answer: Any) -> Any:
    async def give(*args: Any) -> Any:
        return answer

    return give


def test_a_path_with_a_number_in_it_is_another_each_time(rig: Rig) -> None:
    asked = []

    async def ask(path: str) -> int:
        asked.append(path)
        return 200

    one: Any = SimpleNamespace(closed=False, ask=ask, silent=True, age=0.0, close=lambda: None, worker="", slot=0)
    rig.plan = {"requests": ["/orders/{n}"]}
    for _ in range(2):
        assert asyncio.run(rig._exchange(one, "/orders/{n}")) is True
    assert asked == ["/orders/1", "/orders/2"]
    said = (rig.folder / "history" / "supervisor.jsonl").read_text(encoding="utf-8")
    assert said.count('"path": "/orders/{n}", "work": true') == 2


class Once:
    """A bound that has passed when it is asked for the second time."""

    stretch = 1.0

    def __init__(self) -> None:
        self._ends = iter([False, True])

    @property
    def expired(self) -> bool:
        return next(self._ends)


@pytest.mark.parametrize(
    ("silent", "old", "back"), [(True, "5-1", True), (False, "5-1", False), (True, "7-1 8-1", False)]
)
def test_a_worker_that_hung_before_a_fault_need_not_answer_after_it(
    silent: bool, old: str, back: bool, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig, "_budget", lambda seconds: Once())
    monkeypatch.setattr(rig, "ask_every_slot", _giving(False))
    rig.waiting, rig._silent, rig.plan = {7, 8}, silent, {"back": 20.0}
    assert asyncio.run(rig._back(old.split())) is back


def settle(rig: Rig) -> None:
    asyncio.run(rig._settled())


def test_a_fault_waits_for_a_worker_that_has_replaced_another_by_itself(rig: Rig) -> None:
    settle(rig)
    assert rig.looks == 6
    assert rig._booted == {"7-1", "8-1"}


def test_one_that_has_booted_and_hangs_now_is_not_waited_for(rig: Rig) -> None:
    rig._booted = {"7-1", "8-1"}
    settle(rig)
    assert rig.looks == 0


def test_nor_is_one_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    budget: Any = SimpleNamespace(expired=True)
    monkeypatch.setattr(rig, "_budget", lambda seconds: budget)
    settle(rig)
    assert rig.looks == 0
