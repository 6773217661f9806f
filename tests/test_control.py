"""The control process, and budgets that are spent in its turns."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest

from forkproof import containment, control
from forkproof.control import TURN, Budget, Control, Gauge

PATIENCE = 10.0


class FakeGauge:
    """What a control process would say; `now` is the clock."""

    def __init__(self) -> None:
        self.turns = 0
        self.stretch = 1.0
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def budget(self, seconds: float) -> Budget:
        return Budget(cast(Gauge, self), seconds)

    def passes(self, seconds: float, *, turns: int | None = None) -> None:
        self.now += seconds
        self.turns += round(seconds / TURN) if turns is None else turns


@pytest.fixture
def gauge(monkeypatch: pytest.MonkeyPatch) -> FakeGauge:
    fake = FakeGauge()
    monkeypatch.setattr(control, "time", fake)
    return fake


def spend(gauge: FakeGauge, budget: Budget, steps: int) -> list[bool]:
    told = []
    for _ in range(steps):
        gauge.passes(0.1)
        told.append(budget.expired)
    return told


def test_a_budget_is_spent_as_time_passes(gauge: FakeGauge) -> None:
    budget = gauge.budget(0.45)
    assert spend(gauge, budget, 5) == [False] * 4 + [True]
    assert budget.spent == pytest.approx(0.5)


def test_an_empty_budget_is_spent_at_once(gauge: FakeGauge) -> None:
    assert gauge.budget(0.0).expired


def test_time_is_not_spent_while_the_control_makes_no_turn(gauge: FakeGauge) -> None:
    budget = gauge.budget(0.5)
    gauge.passes(3600, turns=0)
    assert not budget.expired
    assert budget.spent == 0.0


def test_one_may_ask_as_often_as_one_likes(gauge: FakeGauge) -> None:
    budget = gauge.budget(2.0)
    for _ in range(50):
        gauge.passes(TURN / 2, turns=0)
        assert not budget.expired
        gauge.passes(TURN / 2, turns=1)
        assert not budget.expired
    assert budget.spent == pytest.approx(50 * TURN)


def test_a_turn_is_worth_two_at_most(gauge: FakeGauge) -> None:
    budget = gauge.budget(0.5)
    gauge.passes(60, turns=3)
    assert not budget.expired
    assert budget.spent == pytest.approx(6 * TURN)


@pytest.mark.parametrize("stretch", [2.0, 5.0])
def test_a_stretched_machine_has_more_time(gauge: FakeGauge, stretch: float) -> None:
    budget = gauge.budget(0.45)
    gauge.stretch = stretch
    assert spend(gauge, budget, round(5 * stretch)).index(True) == round(4.5 * stretch)
    gauge.stretch = 1.0
    assert budget.expired
    assert budget.stretch == stretch


def test_time_in_which_nobody_is_kept_waiting_is_not_stretched(gauge: FakeGauge) -> None:
    gauge.stretch = 10.0
    budget = Budget(cast(Gauge, gauge), 0.9, gauge.monotonic)
    # Three steps until one looks; from the fourth on there is something to compare with.
    assert spend(gauge, budget, 20).index(True) == 11


def test_what_is_told_late_counts_from_when_it_was_told_before(gauge: FakeGauge) -> None:
    gauge.stretch = 10.0
    budget = Budget(cast(Gauge, gauge), 0.9, lambda: gauge.now // 0.5 * 0.5)
    assert spend(gauge, budget, 30).index(True) == pytest.approx(14, abs=1)


def test_what_is_told_to_be_free_is_worth_two_turns_at_most(gauge: FakeGauge) -> None:
    budget = Budget(cast(Gauge, gauge), 100.0, gauge.monotonic)
    gauge.stretch = 10.0
    spend(gauge, budget, 5)
    before = budget.spent
    gauge.passes(60, turns=3)
    assert not budget.expired
    assert budget.spent - before == pytest.approx(6 * TURN)


def test_time_in_which_somebody_is_kept_waiting_is_stretched(gauge: FakeGauge) -> None:
    gauge.stretch = 10.0
    budget = Budget(cast(Gauge, gauge), 0.095, lambda: 5.0)
    assert spend(gauge, budget, 12).index(True) == 9


def test_nobody_looks_why_before_it_takes_long(gauge: FakeGauge) -> None:
    def look() -> float:
        raise AssertionError("looked")

    budget = Budget(cast(Gauge, gauge), 1.0, look)
    gauge.passes(control.PATIENCE / 2)
    assert not budget.expired


# The real one


def test_what_is_published_is_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "control").write_bytes(struct.pack("3Q", 7, 2500, 300))
    gauge = Gauge(tmp_path / "control")
    assert (gauge.turns, gauge.stretch) == (7, 2.5)


def test_it_turns_and_leaves_nothing(tmp_path: Path) -> None:
    with Control(tmp_path) as running:
        gauge = Gauge(running.path)
        turns = _turns_after(gauge, 0)
        assert _turns_after(gauge, turns) > turns
        assert gauge.stretch >= 1.0
    assert not list(tmp_path.iterdir())


def _turns_after(gauge: Gauge, turns: int) -> int:
    deadline = time.monotonic() + PATIENCE
    while gauge.turns <= turns and time.monotonic() < deadline:
        time.sleep(TURN)
    return gauge.turns


def test_a_control_that_was_killed_is_no_trouble(tmp_path: Path) -> None:
    with Control(tmp_path) as running:
        _turns_after(Gauge(running.path), 0)
        os.kill(running._pid, signal.SIGKILL)
    assert not list(tmp_path.iterdir())


PARENT = """
import os, pathlib, sys, time
from forkproof import containment
from forkproof.control import Control, Gauge
with Control(pathlib.Path(sys.argv[1])) as running:
    while not Gauge(running.path).turns:
        time.sleep(0.01)
    print(running._pid, flush=True)
    time.sleep(60)
"""


def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        begun = _start(pid)
        parent.kill()
    deadline = time.monotonic() + PATIENCE
    while _start(pid) == begun and time.monotonic() < deadline:
        time.sleep(TURN)
    assert _start(pid) != begun


def _start(pid: int) -> Any:
    """When a process began; None where there is none, or its zombie alone."""
    stat = containment.read_stat(pid)
    return None if stat is None or stat.state == "Z" else stat.start
