"""What really happened: events as they are written, and the merged history that claims are judged on.

Every process writes a file of its own, `history/<pid>-<start>.jsonl`, whole lines with O_APPEND, so that neither a
fork nor a kill -9 tears or mixes lines. `start` is the start time of the process in clock ticks since boot (proc(5),
field 22), so that a pid used again is another process. All times are seconds of CLOCK_MONOTONIC, which processes of one
machine share. Which events there are, and what they have, says `forkproof.events`.

The supervisor writes `history/supervisor.jsonl`. Its `sample` events hold the tick counters that it read out of shared
memory, since a starved process cannot report.

What is read is checked. A last line that is torn is passed over: a process may end at any time. Another line that is no
event means that something is lost. Without the supervisor's own record nothing can be judged; the files of the server's
processes are that server's to damage, so what was judged without their lines is not known (`History.damage`).
"""

from __future__ import annotations

import bisect
import contextlib
import heapq
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from forkproof import events as known_events
from forkproof import files
from forkproof.errors import HistoryError
from forkproof.scenario import Guard, Loop, LoopKind, Scenario

SUPERVISOR = "supervisor.jsonl"
_PROCESSES = frozenset(kind.value for kind in LoopKind if kind.is_process)
_AFRESH = frozenset(kind.value for kind in LoopKind if kind.starts_afresh)


@dataclass(frozen=True)
class Event:
    """One line of a history."""

    t: float
    pid: int
    start: int
    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The field `name`, or `default`."""
        return self.fields.get(name, default)

    @property
    def process(self) -> str:
        """The key of the process that the event is about: `pid-start`."""
        return f"{self.pid}-{self.start}"

    def to_dict(self) -> dict[str, Any]:
        """The event as it stands in the file."""
        return {"t": self.t, "pid": self.pid, "start": self.start, "event": self.event, **self.fields}


@dataclass(frozen=True, order=True)
class Place:
    """Where a loop ticks. A child has its parent's slot; the arbiter's children have none."""

    role: str
    slot: int | None = None

    def __str__(self) -> str:
        return self.role if self.slot is None else f"{self.role} {self.slot}"


@dataclass(frozen=True)
class Process:
    """One process of the run; `gone` is when it was first seen to be no more."""

    key: str
    pid: int
    ppid: int
    place: Place
    first: float
    gone: float | None

    def alive_at(self, t: float) -> bool:
        """Whether it had begun by `t` and was not yet seen to be gone."""
        return self.first <= t and (self.gone is None or self.gone > t)


@dataclass(frozen=True)
class Birth:
    """One creation of a loop."""

    birth: str
    loop: str
    kind: str
    site: str
    process: str
    t: float

    @property
    def in_child(self) -> bool:
        """Whether it runs in a process of its own, below the one that created it."""
        return self.kind in _PROCESSES


@dataclass(frozen=True)
class Window:
    """A stretch with no fault or boot under way. `turns` are the supervisor's, `control` the control process's.

    `slots` are those that ought to have a worker, None in a history that does not tell; `arbiter` is its pid.
    """

    index: int
    opened: float
    closed: float
    after: str
    healed: bool
    turns: int
    control: int
    slots: tuple[int, ...] | None = None
    arbiter: int | None = None


class History:
    """A merged history. Everything is computed from `events` alone, so an old one can be judged again.

    `damage` says which lines of the processes' files are lost; empty where none is.
    """

    def __init__(self, events: Iterable[Event], damage: str = "") -> None:
        self.events = sorted(events, key=lambda event: event.t)
        self.damage = damage

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    @classmethod
    def read(cls, folder: Path) -> History:
        """Merge all files of a run's `history` folder; HistoryError where the supervisor's cannot be relied on."""
        events: list[Event] = []
        problems: list[str] = []
        for path in sorted(folder.glob("*.jsonl")):
            found, wrong = _read(path)
            if wrong and path.name == SUPERVISOR:
                raise HistoryError(
                    f"{path}: {wrong[0]}. The file is damaged, and nothing can be judged without it: run the scenario "
                    f"again with `forkproof replay {shlex.quote(str(folder.parent))}`."
                )
            events += found
            problems += [f"history/{path.name}: {why}" for why in wrong]
        more = f", and {len(problems) - 1} more like it" if len(problems) > 1 else ""
        return cls(events, f"{problems[0]}{more}" if problems else "")

    def of(self, *kinds: str) -> list[Event]:
        """The events of these kinds, in order of time."""
        if len(kinds) == 1:
            return self._by_kind.get(kinds[0], [])
        # Merged by their places: claims ask this once an answer, which may not go through the whole history each time.
        return [self.events[place] for place in heapq.merge(*(self._places.get(kind, ()) for kind in {*kinds}))]

    def between(self, kind: str, opened: float, closed: float) -> list[Event]:
        """The events of one kind with opened <= t <= closed."""
        found = self.of(kind)
        first = bisect.bisect_left(found, opened, key=_time)
        return found[first : bisect.bisect_right(found, closed, lo=first, key=_time)]

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        kinds: dict[str, list[int]] = {}
        for place, event in enumerate(self.events):
            kinds.setdefault(event.event, []).append(place)
        return kinds

    @cached_property
    def _by_kind(self) -> dict[str, list[Event]]:
        return {kind: [self.events[place] for place in places] for kind, places in self._places.items()}

    @cached_property
    def processes(self) -> dict[str, Process]:
        """Every process that wrote an event, by key. A process that never named its role is a child."""
        roles = {event.process: Place(event["role"], event.get("slot")) for event in self.of("role")}
        created = {event["birth"]: event.process for event in self.of("loop.created") if event["kind"] in _PROCESSES}
        creators = {e.process: created[e["birth"]] for e in self.of("loop.begin") if e["birth"] in created}
        gone: dict[str, float] = {}
        for sample in self.of("sample"):
            for key in sample.get("gone", ()):
                gone.setdefault(key, sample.t)
        found: dict[str, Process] = {}
        by_pid: dict[int, str] = {}
        for event in self.of("process"):
            place = roles.get(event.process)
            if place is None:
                # The parent of a child may be a process that nobody knows, as with multiprocessing's forkserver.
                parent = found.get(creators.get(event.process, by_pid.get(event["ppid"], "")))
                place = Place("child", parent.place.slot if parent else None)
            found[event.process] = Process(
                event.process, event.pid, event["ppid"], place, event.t, gone.get(event.process)
            )
            by_pid[event.pid] = event.process
        return found

    @cached_property
    def births(self) -> dict[str, Birth]:
        """Every loop that was created, by birth id."""
        return {
            event["birth"]: Birth(event["birth"], event["loop"], event["kind"], event["site"], event.process, event.t)
            for event in self.of("loop.created")
        }

    @cached_property
    def afresh(self) -> set[str]:
        """The processes that began as a new interpreter for a loop: nothing was copied into them."""
        own = {birth.birth: birth for birth in self.births.values() if birth.kind in _AFRESH}
        return {begin.process for begin in self.of("loop.begin") if begin["birth"] in own} - {
            birth.process for birth in own.values()
        }

    def births_of(self, loop: str) -> list[Birth]:
        """The births of the loop called `loop`, oldest first."""
        return [birth for birth in self.births.values() if birth.loop == loop]

    @cached_property
    def windows(self) -> list[Window]:
        """The windows, in order."""
        opened = {event["window"]: event for event in self.of("window.open")}
        return [
            _window(opened[close["window"]], close) for close in self.of("window.close") if close["window"] in opened
        ]

    @cached_property
    def _counts(self) -> dict[tuple[str, str], tuple[list[float], list[int]]]:
        cells: dict[tuple[str, int], str] = {
            (event.process, event["cell"]): event["birth"] for event in self.of("loop.begin")
        }
        series: dict[tuple[str, str], tuple[list[float], list[int]]] = {}
        for sample in self.of("sample"):
            for process, counts in sample["ticks"].items():
                for cell, count in counts.items():
                    birth = cells.get((process, int(cell)))
                    if birth is not None:
                        times, values = series.setdefault((birth, process), ([], []))
                        times.append(sample.t)
                        values.append(count)
        return series

    def granted(self, since: float, until: float) -> float | None:
        """How many seconds of an idle machine there were between two times; None where no sample tells."""
        told = [(sample.t, sample["granted"]) for sample in self.of("sample") if "granted" in sample.fields]
        inside = [granted for t, granted in told if since <= t <= until]
        return inside[-1] - inside[0] if inside else None

    def count(self, birth: str, process: str, t: float) -> int:
        """How often a loop had ticked in a process by `t`, as last sampled."""
        times, values = self._counts.get((birth, process), ([], []))
        index = bisect.bisect_right(times, t)
        return values[index - 1] if index else 0

    def ticks(self, birth: str, process: str, opened: float, closed: float) -> int:
        """How often a loop ticked in a process between two times, as sampled."""
        return self.count(birth, process, closed) - self.count(birth, process, opened)

    def ticks_after(self, birth: str, process: str, t: float, closed: float) -> int:
        """How often a loop was seen to tick after `t` and until `closed`.

        Counted from the first sample after `t`: the one before it may be older than the loop's last turn.
        """
        times, values = self._counts.get((birth, process), ([], []))
        first, end = bisect.bisect_left(times, t), bisect.bisect_right(times, closed)
        return values[end - 1] - values[first] if first < end else 0

    def changes(self, birth: str, process: str) -> list[tuple[float, int]]:
        """When a loop's counter was seen to have changed, and to what."""
        times, values = self._counts.get((birth, process), ([], []))
        return list(zip(times, values, strict=True))

    def ticking(self, loop: str, window: Window) -> dict[tuple[str, str], int]:
        """Ticks in a window by (birth, process key), those that ticked alone."""
        found: dict[tuple[str, str], int] = {}
        for birth, process in self._counts:
            known = self.births.get(birth)
            if known is not None and known.loop == loop and process in self.processes:
                ticks = self.ticks(birth, process, window.opened, window.closed)
                if ticks > 0:
                    found[birth, process] = ticks
        return found

    def live_workers(self, window: Window) -> dict[int, Process]:
        """The worker in each slot that lived through to the window's end, the newest where there are two."""
        live: dict[int, Process] = {}
        for process in self.processes.values():
            slot = process.place.slot
            if process.place.role == "worker" and slot is not None and process.alive_at(window.closed):
                live[slot] = process
        return live

    @property
    def arbiter(self) -> Process | None:
        """The first process that named itself the arbiter."""
        return next((p for p in self.processes.values() if p.place.role == "arbiter"), None)

    def arbiter_in(self, window: Window) -> Process | None:
        """The arbiter that a window is about: after a re-exec it is another one."""
        named = (p for p in self.processes.values() if p.place.role == "arbiter" and p.pid == window.arbiter)
        return next(named, self.arbiter)


def _time(event: Event) -> float:
    return event.t


def slots_in(scenario: Scenario, window: Window) -> Sequence[int]:
    """The slots that ought to have a worker in a window."""
    return range(scenario.server.workers) if window.slots is None else window.slots


def _window(opened: Event, closed: Event) -> Window:
    slots = opened.get("slots")
    return Window(
        closed["window"], opened.t, closed.t, opened["after"], opened["healed"], closed["turns"], closed["control"],
        None if slots is None else tuple(slots), opened.get("arbiter"),
    )  # fmt: skip


def message_gap(scenario: Scenario) -> float:
    """Seconds between two messages of one loop, such that a healthy loop keeps up."""
    hearing = [loop for loop in scenario.loops if loop.hears_redis]
    return max([0.02] + [1.5 * loop.yields.seconds + 0.02 for loop in hearing])


LEASE = 1.0
"""Seconds that the payload's lease lasts."""

CONTROL_TURN = 0.02
"""Nominal seconds between two turns of the control process."""


def decisive_turns(scenario: Scenario) -> int:
    """How many turns of the control process a window must have before absence may be concluded from it.

    Three periods of the slowest loop and a margin, counted in turns, so that a slow machine gets a longer window.
    """
    slowest = max([loop.yields.seconds for loop in scenario.loops] + [message_gap(scenario)])
    # Whoever held a lease may have died with it: it has to expire first, and then there must be time to see the next.
    patience = 2 * LEASE if scenario.faults and any(loop.guard is Guard.LEASE for loop in scenario.loops) else 0
    return math.ceil((0.3 + 3 * slowest + patience) / CONTROL_TURN)


def runs_in_child(loop: Loop) -> bool:
    """Whether the loop is a process of its own, below the one that created it."""
    return loop.kind.is_process


def _read(path: Path) -> tuple[list[Event], list[str]]:
    """The events in a file, and what is wrong with it."""
    try:
        *lines, last = files.read(path).split(b"\n")
    except OSError as error:
        return [], [f"cannot be read: {error.strerror}"]
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        try:
            found.append(_event(line))
        except ValueError as error:
            wrong.append(f"line {number} is no event: {error}")
    with contextlib.suppress(ValueError):  # it is torn, as a rule
        found.append(_event(last))
    numbers = {event["n"] for event in found if "n" in event.fields}
    # The last ones may be missing: each thread writes for itself, and a kill takes one between number and write.
    lost = [number for number in range(max(numbers, default=0) - LAST) if number not in numbers]
    if lost and not wrong:
        wrong.append(f"the event of number {lost[0]} is missing, one of {len(lost)}")
    return found, wrong


LAST = 4
"""So many numbers before the last one a gap says nothing."""


def _event(line: bytes) -> Event:
    data = known_events.parse(line)
    return Event(data.pop("t"), data.pop("pid"), data.pop("start"), data.pop("event"), data)
