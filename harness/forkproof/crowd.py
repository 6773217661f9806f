"""How long a machine kept a server waiting for a processor, as the kernel tells of each task.

Under load work is slow, but sleep is not: a server that hangs, with all its tasks asleep, is not slower for it. A bound
that is stretched by how crowded the machine is (`control.Budget`) would wait for it six times as long for nothing.

Does not see: others that the server waits for, unless they are named, as its Redis is. Standard library only: the
supervisor imports this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from forkproof import proc

EVERY = 0.1
"""Seconds between two looks."""
_GAP = 1.0
"""What lies between two looks that are further apart is not known."""


class Unhindered:
    """A clock that stands still while a task of these processes waits for a processor, or for a disk.

    It goes on only while it is read, every `EVERY` seconds or so.
    """

    def __init__(self, processes: Callable[[], Iterable[tuple[int, str]]]) -> None:
        """`processes` gives pids, each with the /proc that knows it by that."""
        self._processes = processes
        self.told = 0.0
        """What was told last."""
        self._last = float("-inf")
        self._tasks: dict[tuple[str, int], proc.Task] = {}

    def seconds(self) -> float:
        """Seconds so far in which no task was kept waiting; none where the kernel does not tell."""
        now = time.monotonic()
        if now - self._last < EVERY:
            return self.told
        tasks: dict[tuple[str, int], proc.Task] = {}
        try:
            for pid, root in self._processes():
                tasks.update(((root, tid), task) for tid, task in proc.tasks(pid, root).items())
        except NotImplementedError:
            return 0.0
        if now - self._last < _GAP and not any(self._hindered(key, task) for key, task in tasks.items()):
            before = {key: task.waited for key, task in self._tasks.items()}
            waited = sum(task.waited - before.get(key, 0.0) for key, task in tasks.items())
            self.told += max(0.0, now - self._last - waited)
        self._last, self._tasks = now, tasks
        return self.told

    def _hindered(self, key: tuple[str, int], task: proc.Task) -> bool:
        """Whether it waits now: what a task has waited is told only once it runs."""
        before = self._tasks.get(key)
        return task.state == "D" or (task.state == "R" and before is not None and task.ran == before.ran)
