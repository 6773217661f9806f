"""What a fault is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Server(Protocol):
    """What a fault may do to, and ask of, the server under test."""

    @property
    def arbiter_pid(self) -> int:
        """The pid of the running master."""

    def worker_pid(self, slot: int) -> int | None:
        """The pid of the newest live worker in `slot`."""

    def signal(self, pid: int, number: int) -> None:
        """Send a signal; OSError where the process is gone."""

    async def all_slots_answered(self) -> bool:
        """Ask until each slot's newest worker has answered, or the calibrated bound has passed."""


Inject = Callable[[Server, Mapping[str, Any]], Awaitable[dict[str, Any]]]
Healed = Callable[[Server, Mapping[str, Any], Mapping[str, Any]], Awaitable[bool]]


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault.

    `inject(server, fault)` does it and returns facts for the history; OSError means that it did not land.
    `healed(server, fault, facts)` waits until the server has come through, or says False at its bound.
    """

    name: str
    label: str
    inject: Inject
    healed: Healed
    needs_slot: bool = False
    ends_the_run: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
