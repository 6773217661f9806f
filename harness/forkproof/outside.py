"""What the supervisor sees of a run's processes from outside, written as events; it asks none of them anything.

Sockets are named by their inode, and told of when they are new or have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict

from forkproof import proc
from forkproof.containment import Stat


class Outside:
    """Looks at processes and records what it sees. What it may not look at is recorded with the reason."""

    def __init__(self, record: Callable[..., None]) -> None:
        self._record = record
        self._told: dict[int, proc.Socket] = {}
        self._unknown: set[int] = set()  # of other families, or closed before they were looked up

    def resources(self, processes: Iterable[Stat], **fields: object) -> None:
        """Record the descriptors, tasks and sockets of each process, and `fields` with them."""
        where: dict[int, tuple[int, int]] = {}
        for stat in processes:
            try:
                found = proc.resources(stat.pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
            except PermissionError as error:
                self._record("resources", target=_key(stat), error=str(error), **fields)
                continue
            where.update((inode, (stat.pid, descriptor)) for descriptor, inode in found.sockets.items())
            self._record(
                "resources",
                target=_key(stat), fds=found.fds, threads=found.threads, sockets=found.sockets, **fields,
            )  # fmt: skip
        for inode, one in proc.describe(where).items():
            if self._told.get(inode) != one:
                self._told[inode] = one
                self._record("socket", **asdict(one))

    def peers(self) -> set[str]:
        """The addresses that connections lead to, as far as they have been told."""
        return {one.peer for one in self._told.values() if one.family in ("tcp", "tcp6") and one.state == "connected"}

    def waits(self, processes: Iterable[Stat]) -> None:
        """Record on which sockets the tasks of each process are blocked now."""
        on: dict[str, Mapping[int, list[int]]] = {}
        blind: dict[str, str] = {}
        for stat in processes:
            try:
                on[_key(stat)] = proc.waits(stat.pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
            except (PermissionError, NotImplementedError) as error:
                blind[_key(stat)] = str(error)
        self._record("waits", on=on, blind=blind)


def _key(stat: Stat) -> str:
    return f"{stat.pid}-{stat.start}"
