"""What the supervisor sees of a run's processes from outside, written as events; it asks none of them anything.

Sockets are named by their inode, and told of once: looking one up costs milliseconds, listing them microseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict

from forkproof import proc
from forkproof.containment import Stat


class Outside:
    """Looks at processes and records what it sees. What it may not look at is recorded with the reason."""

    def __init__(self, record: Callable[..., None]) -> None:
        self._record = record
        self._told: dict[int, proc.Socket] = {}

    def resources(self, processes: Iterable[Stat], **fields: object) -> None:
        """Record the descriptors, tasks and sockets of each process, and `fields` with them."""
        open_in: Counter[int] = Counter()
        for stat in processes:
            try:
                found = proc.resources(stat.pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
            except PermissionError as error:
                self._record("resources", target=_key(stat), error=str(error), **fields)
                continue
            open_in.update(set(found.sockets.values()))
            self._record(
                "resources",
                target=_key(stat), fds=found.fds, threads=found.threads, sockets=found.sockets, **fields,
            )  # fmt: skip
        self._tell_of(open_in)

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
        self._tell_of(
            Counter(inode for tasks in on.values() for inode in {i for found in tasks.values() for i in found})
        )

    def _tell_of(self, open_in: Counter[int]) -> None:
        """Record what is new of these sockets. One that several processes have is looked up each time: is it alive?"""
        again = {inode for inode, count in open_in.items() if count > 1 and self._state(inode) != "listening"}
        wanted = again | (open_in.keys() - self._told.keys())
        if wanted:
            for inode, one in proc.describe(wanted).items():
                if self._told.get(inode) != one:
                    self._told[inode] = one
                    self._record("socket", **asdict(one))

    def _state(self, inode: int) -> str | None:
        one = self._told.get(inode)
        return None if one is None else one.state


def _key(stat: Stat) -> str:
    return f"{stat.pid}-{stat.start}"
