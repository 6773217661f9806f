"""The clock that stands still while a server is kept waiting for a processor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from forkproof import crowd, proc
from forkproof.crowd import Unhindered
from forkproof.proc import Task

STEP = 0.11
SPIN = "while True: pass"
SLEEP = "import time; time.sleep(60)"


class Kernel:
    """What it would tell of one process, look after look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.tasks: dict[int, Task] = {7: Task("S", 1.0, 2.0)}
        monkeypatch.setattr(crowd, "time", self)
        monkeypatch.setattr(proc, "tasks", lambda pid, root: dict(self.tasks))

    def monotonic(self) -> float:
        return self.now

    def passes(self, clock: Unhindered, *, ran: float = 0.0, waited: float = 0.0, state: str = "S") -> float:
        """How far the clock goes while its task does that."""
        before, task = clock.seconds(), self.tasks[7]
        self.now += STEP
        self.tasks[7] = Task(state, task.ran + ran, task.waited + waited)
        return clock.seconds() - before


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_who_sleeps_is_kept_from_nothing(kernel: Kernel) -> None:
    clock = Unhindered(lambda: [(7, "/proc")])
    assert [kernel.passes(clock) for _ in range(3)] == pytest.approx([STEP] * 3)


def test_who_runs_is_kept_from_nothing(kernel: Kernel) -> None:
    assert kernel.passes(Unhindered(lambda: [(7, "/proc")]), ran=STEP, state="R") == pytest.approx(STEP)


def test_what_a_task_waited_is_taken_off(kernel: Kernel) -> None:
    clock = Unhindered(lambda: [(7, "/proc")])
    assert kernel.passes(clock, ran=0.005, waited=0.1) == pytest.approx(0.01)
    assert kernel.passes(clock, waited=3.0) == 0  # told late, of many looks


def test_it_stands_still_while_a_task_waits(kernel: Kernel) -> None:
    clock = Unhindered(lambda: [(7, "/proc")])
    assert kernel.passes(clock, state="R") == 0
    assert kernel.passes(clock, ran=0.001, state="D") == 0


def test_what_a_new_task_waited_is_taken_off(kernel: Kernel) -> None:
    clock = Unhindered(lambda: [(7, "/proc")])
    clock.seconds()
    kernel.tasks[8] = Task("S", 0.0, 0.1)
    assert kernel.passes(clock) == pytest.approx(0.01)


def test_what_was_not_looked_at_is_not_counted(kernel: Kernel) -> None:
    clock = Unhindered(lambda: [(7, "/proc")])
    clock.seconds()
    kernel.now += 10
    assert clock.seconds() == 0
    assert kernel.passes(clock) == pytest.approx(STEP)


def test_it_does_not_go_where_the_kernel_does_not_tell(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, root: str) -> dict[int, Task]:
        raise NotImplementedError

    monkeypatch.setattr(proc, "tasks", refuse)
    assert kernel.passes(Unhindered(lambda: [(7, "/proc")])) == 0


# Real processes


@contextmanager
def running(code: str, count: int) -> Iterator[list[int]]:
    """So many processes on one core."""
    core = {min(os.sched_getaffinity(0))}
    started = [subprocess.Popen([sys.executable, "-I", "-S", "-c", code]) for _ in range(count)]
    try:
        for one in started:
            os.sched_setaffinity(one.pid, core)
        yield [one.pid for one in started]
    finally:
        for one in started:
            one.kill()
            one.wait()


def measured(pids: list[int]) -> float:
    """The share of a second in which the clock went."""
    clock, begun = Unhindered(lambda: [(pid, "/proc") for pid in pids]), time.monotonic()
    while (passed := time.monotonic() - begun) < 1.0:
        clock.seconds()
        time.sleep(0.02)
    return clock.seconds() / passed


def test_two_that_share_a_core_wait_for_each_other() -> None:
    with running(SPIN, 2) as pids:
        assert measured(pids) < 0.5


def test_one_that_sleeps_waits_for_nobody_however_crowded_it_is() -> None:
    with running(SPIN, 2), running(SLEEP, 1) as pids:
        deadline = time.monotonic() + 10
        while not _asleep(pids[0]) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert measured(pids) > 0.5


def _asleep(pid: int) -> bool:
    with open(f"/proc/{pid}/wchan", "rb") as file:
        return b"sleep" in file.read()


def test_a_process_that_is_gone_has_no_tasks() -> None:
    with running(SLEEP, 1) as pids:
        assert proc.tasks(pids[0]).keys() == {pids[0]}
    assert proc.tasks(pids[0]) == {}
