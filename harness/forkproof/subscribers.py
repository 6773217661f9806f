"""What a Redis told of the connections of the user's app, window by window, and which processes have these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forkproof.history import Event, History, Process, Window


@dataclass(frozen=True)
class Holder:
    """A process that had connections to a Redis, how many, and how many subscriptions these had.

    What a fork leaves behind counts in each process that has the descriptor.
    """

    process: Process
    connections: int
    subscriptions: int


@dataclass(frozen=True)
class Told:
    """The answer of one Redis in one window: the app's part of CLIENT LIST, and PUBSUB NUMSUB. `error`: why none."""

    address: str
    after: str
    holders: tuple[Holder, ...]
    channels: Mapping[str, int]
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        processes = [
            {
                "role": one.process.place.role, "slot": one.process.place.slot, "pid": one.process.pid,
                "connections": one.connections, "subscriptions": one.subscriptions,
            }
            for one in self.holders
        ]  # fmt: skip
        return {
            "address": self.address, "after": self.after, "processes": processes, "channels": dict(self.channels),
            "error": self.error,
        }  # fmt: skip


def told(history: History) -> list[Told]:
    """What was told, in its order."""
    local = {event["inode"]: event["local"] for event in history.of("socket")}
    windows = {window.index: window for window in history.windows}
    return [
        Told(
            event["address"], windows[event["window"]].after,
            tuple(_holders(history, windows[event["window"]], event, local)), event["channels"], event.get("error"),
        )
        for event in history.of("redis") if event["window"] in windows
    ]  # fmt: skip


def _holders(history: History, window: Window, answer: Event, local: Mapping[int, str]) -> list[Holder]:
    had = {event["target"]: event for event in history.between("resources", window.opened, window.closed)}
    found = []
    for key, event in had.items():
        addresses = {local.get(inode, "") for inode in event.get("sockets", {}).values()} & answer["clients"].keys()
        if addresses and key in history.processes:
            counts = [answer["clients"][address] for address in addresses]
            found.append(Holder(history.processes[key], len(counts), sum(counts)))
    return sorted(found, key=lambda one: (one.process.place.role, one.process.place.slot or 0))
