"""The control process: sleeps, computes and forks beside the servers, so that bounds can be counted in its turns.

A bound in seconds is wrong on a machine that is crowded or stopped. The control publishes how many turns it made and
how far the machine stretches work; whoever waits spends a budget in the control's time (`Budget`).

Why a long burst and the run queue: a process that mostly sleeps is favoured by the scheduler, so lateness of its sleep
or a short burst says little of what a boot suffers. Standard library only: the supervisor imports this.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

TURN = 0.02
BURST_SECONDS = 0.02
BURST_EVERY = 50
BURSTS_OVER = 3
RUNNABLE_OVER = 25
PATIENCE = 0.02
"""Seconds of an idle machine that are waited before one looks why it takes so long: what goes well has come by then."""
_TURNS, _STRETCH, _FORK = range(3)
_SIZE = 3 * 8
"""Cells of 8 bytes: turns, stretch in thousandths, microseconds of the last fork. One store each: a reader must not see
a cell that is half written, as struct.pack_into, which clears first, would show it."""


def main(path: str, parent: int) -> None:
    """Run until the parent is gone."""
    cores = len(os.sched_getaffinity(0))
    with open(path, "r+b") as file:
        cells = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("Q")
    turns, burst, runnable, fork = 0, 1.0, 1.0, 0.0
    while os.getppid() == parent:
        time.sleep(TURN)
        runnable += (max(1.0, (_runnable() - 1) / cores) - runnable) / RUNNABLE_OVER
        if turns % BURST_EVERY == 0:
            burst += (_burst() - burst) / BURSTS_OVER
            fork = _fork()
        turns += 1
        stretch = max(1.0, burst, runnable)
        cells[_STRETCH], cells[_FORK], cells[_TURNS] = int(stretch * 1000), int(fork * 1e6), turns


def _runnable() -> int:
    with open("/proc/loadavg", "rb") as file:
        return int(file.read().split()[3].partition(b"/")[0])


def _burst() -> float:
    wall, cpu = time.monotonic(), time.process_time()
    while time.process_time() - cpu < BURST_SECONDS:
        sum(range(1000))
    return (time.monotonic() - wall) / (time.process_time() - cpu)


def _fork() -> float:
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return time.monotonic() - begun


class Gauge:
    """Reads what a control process publishes."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), _SIZE, access=mmap.ACCESS_READ)).cast("Q")

    @property
    def turns(self) -> int:
        """Turns made so far."""
        return self._cells[_TURNS]

    @property
    def stretch(self) -> float:
        """By what factor work takes longer now than on an idle machine, at least 1."""
        return max(1.0, self._cells[_STRETCH] / 1000)


class Budget:
    """So many seconds of an idle machine, spent as the control process turns.

    `unhindered` tells the seconds in which the machine kept nobody waiting: these are not stretched, however crowded
    it is.
    """

    def __init__(self, gauge: Gauge, seconds: float, unhindered: Callable[[], float] = float) -> None:
        self.seconds = seconds
        self.spent = 0.0
        self.stretch = 1.0
        self._gauge = gauge
        self._turns = gauge.turns
        self._last = time.monotonic()
        self._unhindered = unhindered
        self._free: float | None = None
        self._looked = 0.0
        self._free_turns = 0
        self._stretched = 0.0

    @property
    def expired(self) -> bool:
        """Whether it is spent; asking is what spends it, so ask at least every few turns, and as often as one likes."""
        self.spend()
        return self.spent >= self.seconds

    def spend(self) -> None:
        """Count what the machine has given since the last time."""
        now, turns = time.monotonic(), self._gauge.turns
        if turns > self._turns:
            stretch = self._gauge.stretch
            self.stretch = max(self.stretch, stretch)
            # A control that makes no turns is not run: then time is nobody's.
            given = min((now - self._last) / stretch, (turns - self._turns) * 2 * TURN)
            self.spent += given
            self._stretched += given
            self._last, self._turns = now, turns
            if self.spent > PATIENCE:
                self._spend_unhindered()

    def _spend_unhindered(self) -> None:
        """What is told to have been free counts in full, in place of what was counted of it so far."""
        free = self._unhindered()
        if self._free is not None and free > self._free:
            # What was told at first may have been some time ago.
            given = min(free - self._free, self._last - self._looked, (self._turns - self._free_turns) * 2 * TURN)
            self.spent += max(0.0, given - self._stretched)
        if self._free is None or free > self._free:
            self._free, self._looked, self._free_turns, self._stretched = free, self._last, self._turns, 0.0


class Control:
    """A running control process, as a context manager; `path` is what `Gauge` reads."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "control"
        self._pid = 0

    def __enter__(self) -> Control:
        self.path.write_bytes(bytes(_SIZE))
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        code += f"from forkproof.control import main; main({str(self.path)!r}, {os.getpid()})"
        self._pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-c", code], dict(os.environ), setsid=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)
        self.path.unlink(missing_ok=True)
