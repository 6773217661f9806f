"""A small model of a server's life: which slots there are before each fault, so that a sequence of faults can be.

It is drawn from, validated against, and walked along while the server runs; what it says of gunicorn is what gunicorn
documents of its signals, and that TTOU ends the oldest worker (`Arbiter.manage_workers`, all versions).

>>> life = Life(workers=2, timeout=30, slots=(0, 1))
>>> life.fewer().slots, life.fewer().more().slots, life.respawned(0).fewer().slots
((1,), (1, 0), (0,))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

MOST = 4
"""Slots that a scenario can name."""


@dataclass(frozen=True)
class Life:
    """A server between two faults. `workers` and `timeout` are gunicorn's settings.

    `slots` are those that have a worker, the oldest worker's first.
    """

    workers: int
    timeout: int
    slots: tuple[int, ...]
    max_requests: int = 0
    counts_requests: bool = True
    children: frozenset[str] = frozenset()
    """Which of "arbiter" and "worker" start a process for a loop."""
    bereft: frozenset[int | None] = frozenset()
    """The slots whose worker has lost such a child since it booted; None for the arbiter."""
    uses_redis: bool = False
    redis: bool = True
    in_order: bool = True
    """Whether it is known which of the workers is the oldest."""
    foreign: bool = True
    """Whether the master is the one that was started, and so has the children that were there before it."""
    ended_by: str = ""
    """The fault that ended the server."""

    @classmethod
    def begin(cls, scenario: Mapping[str, Any]) -> Life:
        """A server that has just booted, from the plain data of a scenario."""
        server = scenario["server"]
        return cls(
            workers=server["workers"],
            timeout=server["timeout"],
            slots=tuple(range(server["workers"])),
            max_requests=server["max_requests"],
            counts_requests=server["worker_class"] not in ("gevent_pywsgi", "geventwebsocket"),
            children=frozenset(
                _creator(loop.get("start", "app_import"), server["preload"])
                for loop in scenario["loops"]
                if "process" in loop.get("kind", "")
            ),
            uses_redis=any(
                loop.get("body") in ("listen", "get_message", "blpop") or loop.get("guard", "none") != "none"
                for loop in scenario["loops"]
            ),
        )

    def respawned(self, slot: int) -> Life:
        """A worker has died and another one has its slot: it is the youngest."""
        slots = (*(other for other in self.slots if other != slot), slot)
        return replace(self, slots=slots, bereft=self.bereft - {slot})

    def reloaded(self) -> Life:
        """All workers are new, and as many as the configuration says."""
        return replace(self, slots=tuple(range(self.workers)), in_order=True, bereft=self.bereft & {None})

    def reexecuted(self) -> Life:
        """The same under another master."""
        return replace(self.reloaded(), foreign=False, bereft=frozenset())

    def shuffled(self) -> Life:
        """Some worker has been replaced, and nobody knows which."""
        return replace(self, in_order=self.in_order and len(self.slots) == 1)

    def more(self) -> Life:
        """One worker more, in the lowest free slot."""
        return replace(self, slots=(*self.slots, min(set(range(MOST + 1)) - set(self.slots))))

    def fewer(self) -> Life:
        """One worker less, the oldest."""
        return replace(self, slots=self.slots[1:])

    def ended(self, fault: str) -> Life:
        """No server any more."""
        return replace(self, ended_by=fault)


def _creator(start: str, preload: bool) -> str:
    """Who runs the line that a loop starts at."""
    if start in ("config_import", "on_starting", "when_ready", "pre_fork") or (start == "app_import" and preload):
        return "arbiter"
    return "worker"
