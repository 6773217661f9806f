"""What a timeline shows, as plain data: lanes, what is on them, and each broken claim at its first bad event.

It is bounded whatever the history is: turns are counted in bins, and of what comes too often in a lane the events of a
bin are one mark that has their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from forkproof.check import CheckReport
from forkproof.claims.base import clock, short, who
from forkproof.history import Event, History, Process
from forkproof.judge import Judgement, RunReport, first_bad
from forkproof.observed import Observed
from forkproof.target import describe
from forkproof.verdict import Finding

BINS = 600
"""Parts of the time in which turns are counted, and in which what comes too often is put together."""

MARKS = (400, 300, 200, 150, 100, 70, 50, 30, 20)
"""Marks of one kind in one row; where there are more, those of a part of the time are one. The first is taken with
which there are not more than `ALL` in all."""

ALL = 6000
"""Marks that a browser draws and moves without delay."""

EVIDENCE = 12
"""Events that are told of each broken claim."""

STACK = 12
"""Calls of each thread that are told."""

STACKS = 10
"""Processes whose stacks are told of a claim that is none of theirs."""


@dataclass(frozen=True)
class Mark:
    """Something at a time. `kind` is its look: hook, patch, fork, created, ended, message, signal, log, stack, exit."""

    t: float
    kind: str
    text: str


@dataclass(frozen=True)
class Span:
    """Something that lasts. `kind` is its look: request, failed, unanswered, fault, window."""

    t: float
    end: float
    kind: str
    text: str


_Told = TypeVar("_Told", Mark, Span)


@dataclass
class Row:
    """A strip of a lane. `bins` are turns by the number of the bin."""

    label: str
    marks: list[Mark] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    bins: dict[int, int] = field(default_factory=dict)
    copied: bool = False


@dataclass
class Lane:
    """One process, or the one that looks from outside. `parent` is the lane that it was forked from."""

    key: str
    label: str
    begin: float
    end: float
    lives: bool
    parent: str | None = None
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Break:
    """A broken claim, where it broke first, and what that stands on.

    `lanes` are the processes of its first bad event, or the one that looks from outside; `row` is where in them, if
    they have such a row.
    """

    number: int
    claim: str
    loop: str | None
    rule: str
    t: float
    lanes: Sequence[str]
    row: str
    explanation: str
    expected: str
    surprise: bool
    evidence: Sequence[str]
    stacks: Sequence[tuple[str, Sequence[str]]]


@dataclass
class Picture:
    """Everything, in seconds since the launch."""

    title: str
    versions: str
    scenario: str
    verdict: str
    seconds: float
    events: int
    lanes: list[Lane]
    faults: list[Span]
    windows: list[Span]
    breaks: list[Break]

    @property
    def bin_width(self) -> float:
        """Seconds of a bin."""
        return self.seconds / BINS


def of_run(report: RunReport, history: History, rules: dict[str, str]) -> Picture:
    """The picture of a run that was judged; `rules` are the claims' definitions."""
    scenario = report.scenario.model_dump_json(by_alias=True, exclude_defaults=True, indent=1)
    return _drawn(report, history, rules, scenario, None)


def of_check(report: CheckReport, asked: str, rules: dict[str, str]) -> Picture:
    """The same of a check; `asked` is what it was asked. Its loops move where they were elsewhere at the next look."""
    return _drawn(report, report.observed.history, rules, asked, report.observed)


def _drawn(
    report: RunReport | CheckReport, history: History, rules: dict[str, str], asked: str, observed: Observed | None
) -> Picture:
    launch = history.of("launch") or history.events[:1]
    zero = launch[0].t if launch else 0.0
    last = history.events[-1].t if history.events else zero
    seconds = max(last - zero, 0.001)
    made = _Maker(history, zero, seconds, observed, report.broken)
    return Picture(
        title=f"Run {report.folder.resolve().name}",
        versions=describe(report.versions),
        scenario=asked,
        verdict=report.verdict.value.replace("_", " "),
        seconds=seconds,
        events=len(history.events),
        lanes=made.lanes(),
        faults=made.faults(),
        windows=made.windows(),
        breaks=[
            made.broken(number, judgement, rules.get(judgement.finding.claim, ""))
            for number, judgement in enumerate(report.broken, 1)
        ],
    )


class _Maker:
    def __init__(
        self, history: History, zero: float, seconds: float, observed: Observed | None, broken: Sequence[Judgement]
    ) -> None:
        first = [one.finding.evidence[0] for one in broken if one.finding.evidence]
        self.noise = {(event.t, event["line"]) for event in first if event.event == "log"}
        self.history = history
        self.observed = observed
        self.zero = zero
        self.seconds = seconds

    def at(self, t: float) -> float:
        return min(max(t - self.zero, 0.0), self.seconds)

    def bin(self, t: float) -> int:
        return min(int(self.at(t) / self.seconds * BINS), BINS - 1)

    # --- lanes

    def lanes(self) -> list[Lane]:
        outside = Lane("", "from outside", 0.0, self.seconds, True)
        found = {"": outside}
        processes = sorted(self.history.processes.values(), key=_order)
        by_pid: dict[int, str] = {}
        for process in sorted(processes, key=lambda process: process.first):
            by_pid[process.pid] = process.key
        for process in processes:
            end = self.at(process.gone) if process.gone is not None else self.seconds
            label = f"{process.place} · pid {process.pid}"
            parent = by_pid.get(process.ppid)
            lane = Lane(process.key, label, self.at(process.first), end, process.gone is None, parent)
            loops = self._loops(process) if self.observed is None else self._looked_at(process, self.observed)
            lane.rows = [*self._doings(process), *loops]
            found[process.key] = lane
        outside.rows = self._outside()
        self._thin_all([row for lane in found.values() for row in lane.rows])
        return list(found.values())

    def _doings(self, process: Process) -> list[Row]:
        """What the process did: hooks, patches, what it left behind at its fork; and the requests that it answered."""
        row, requests = Row("hooks"), Row("requests")
        for event in self._by_process.get(process.key, ()):
            kind, words = _DOINGS[event.event]
            if told := words(event):
                row.marks.append(Mark(self.at(event.t), kind, f"{_clock(self.at(event.t))} {told}"))
        for event in self._answers.get(process.key, ()):
            begin = self.at(self._invoked.get(event["request"], event.t))
            text = f"{_clock(begin)} request {event['request']}, answered after {self.at(event.t) - begin:.3f} s"
            requests.spans.append(Span(begin, self.at(event.t), "request", text))
        return [one for one in (row, requests) if one.marks or one.spans]

    def _loops(self, process: Process) -> list[Row]:
        rows = []
        for birth in self.history.births.values():
            begun = [e for e in self._begins.get(birth.birth, ()) if e.process == process.key]
            if not begun and birth.process != process.key:
                continue
            copied = birth.process != process.key and not birth.in_child
            row = Row(f"{birth.loop} · {short(birth)}{' · copied by the fork' if copied else ''}", copied=copied)
            before = 0
            for t, count in self.history.changes(birth.birth, process.key):
                number = self.bin(t)
                row.bins[number] = row.bins.get(number, 0) + max(count - before, 0)
                before = max(before, count)
            for event in self._of_birth.get((birth.birth, process.key), ()):
                kind = _LOOP_MARKS[event.event]
                row.marks.append(Mark(self.at(event.t), kind, f"{_clock(self.at(event.t))} {_loop_words(event)}"))
            rows.append(row)
        return rows

    def _looked_at(self, process: Process, observed: Observed) -> list[Row]:
        rows = []
        for loop in observed.loops:
            course = observed.course(loop, process)
            births = [self.history.births[birth] for birth in loop.births if birth in self.history.births]
            own = [birth for birth in births if birth.process == process.key]
            if not course and not own:
                continue
            copied = bool(course) and not any(not loop.births[birth.birth].get("copy_of") for birth in own)
            row = Row(f"{loop.name} · {loop.kind}{' · copied by the fork' if copied else ''}", copied=copied)
            for t, moved in course:
                row.bins[self.bin(t)] = row.bins.get(self.bin(t), 0) + moved
            for birth in own:
                text = f"{_clock(self.at(birth.t))} {loop.name} created by {loop.started}"
                row.marks.append(Mark(self.at(birth.t), "created", text))
                for event in self._of_birth.get((birth.birth, process.key), ()):
                    if event.event == "loop.end":
                        words = f"{_clock(self.at(event.t))} {_loop_words(event)}"
                        row.marks.append(Mark(self.at(event.t), "ended", words))
            if course:
                text = f"{_clock(self.at(course[0][0]))} {loop.name} is seen here for the first time"
                row.marks.append(Mark(self.at(course[0][0]), "begun", text))
            rows.append(row)
        return rows

    def _outside(self) -> list[Row]:
        requests, doings = Row(_UNANSWERED), Row(_DONE)
        for event in self.history.of("request.fail", "request.info"):
            begin = self.at(self._invoked.get(event["request"], event.t))
            kind = "failed" if event.event == "request.fail" else "unanswered"
            text = f"{_clock(begin)} request {event['request']}: {event.get('error', '')}"
            requests.spans.append(Span(begin, self.at(event.t), kind, text))
        for event in self.history.of("publish.ok", "publish.info", "signal.invoke", "signal.fail", "stack", "exit"):
            kind, text = _OUTSIDE[event.event](event, self.history)
            doings.marks.append(Mark(self.at(event.t), kind, f"{_clock(self.at(event.t))} {text}"))
        log = Row(_LOG)
        for event in self.history.of("log"):
            if any(word in event["line"] for word in _BAD) or (event.t, event["line"]) in self.noise:
                log.marks.append(Mark(self.at(event.t), "log", f"{_clock(self.at(event.t))} {event['line'][:200]}"))
        return [row for row in (requests, doings, log) if row.marks or row.spans]

    def faults(self) -> list[Span]:
        """Each fault from when it was done until the server had come through it, or the run was at its end."""
        found = []
        for begun in self.history.of("fault.invoke"):
            same = [
                event
                for event in self.history.of("fault.healed", "fault.fail")
                if event["index"] == begun["index"] and event.t >= begun.t
            ]
            end = self.at(same[0].t) if same else self.seconds
            how = "" if not same else ", failed" if same[0].event == "fault.fail" else ""
            if same and same[0].get("healed") is False:
                how = ", the server did not come through it"
            text = f"fault {begun['fault']} from {_clock(self.at(begun.t))} to {_clock(end)}{how}"
            found.append(Span(self.at(begun.t), end, "fault", text))
        return found

    def windows(self) -> list[Span]:
        return [
            Span(
                self.at(window.opened),
                self.at(window.closed),
                "window",
                f"window {window.index} after {window.after}, {_clock(self.at(window.opened))} to "
                f"{_clock(self.at(window.closed))}",
            )
            for window in self.history.windows
        ]

    def broken(self, number: int, judgement: Judgement, rule: str) -> Break:
        finding = judgement.finding
        first, places = first_bad(self.history, finding) if finding.evidence else (None, ())
        t = self.at(first.t) if first is not None else self.seconds
        asked = [event for event in self.history.of("stack") if event in finding.evidence]
        later = {event["target"]: event for event in reversed(self.history.of("stack")) if self.at(event.t) >= t}
        asked = asked or [later[key] for key in places if key in later] or list(later.values())[::-1][:STACKS]
        expected = judgement.expectation.value.replace("_", " ") if judgement.expectation else ""
        return Break(
            number,
            finding.claim,
            finding.loop,
            rule,
            t,
            places or ("",),
            self._row(finding, first, bool(places)),
            finding.explanation,
            f"{expected}; {judgement.reason}" if expected else "",
            judgement.surprise,
            [self._told(event) for event in finding.evidence[:EVIDENCE]],
            [self._stack(event) for event in asked],
        )

    @staticmethod
    def _row(finding: Finding, first: Event | None, inside: bool) -> str:
        """Where in the lane the first bad event stands."""
        if first is None or not inside:
            return _OUTSIDE_ROWS.get(first.event, "") if first is not None else ""
        return "hooks" if first.event in _DOINGS else finding.loop or ""

    def _told(self, event: Event) -> str:
        where = f" in {who(self.history, event.process)}" if event.process in self.history.processes else ""
        fields = ", ".join(f"{name}={value}" for name, value in event.fields.items() if name != "n")
        return f"{clock(self.history, event.t)} {event.event}{where}: {fields[:300]}"

    def _stack(self, event: Event) -> tuple[str, Sequence[str]]:
        calls = [call for thread in event.get("threads", ())[:4] for call in [*thread[:STACK], ""]]
        return f"{who(self.history, event['target'])} at {clock(self.history, event.t)}, {event['file']}", calls

    # --- what comes too often

    def _thin_all(self, rows: Sequence[Row]) -> None:
        kinds = [[mark.kind for mark in row.marks] + [span.kind for span in row.spans] for row in rows]
        counts = [count for row in kinds for count in Counter(row).values()]
        fits = (most for most in MARKS if sum(min(count, most) for count in counts) <= ALL)
        most = next(fits, MARKS[-1])
        for row in rows:
            row.marks = [_several(same) for same in self._parts(row.marks, most)]
            row.spans = [_spanned(same) for same in self._parts(row.spans, most)]

    def _parts(self, found: Sequence[_Told], most: int) -> list[list[_Told]]:
        """What is to be one mark, by time: of a kind that there are more of than `most`, what is in one part."""
        often = {kind for kind, count in Counter(one.kind for one in found).items() if count > most}
        parts: dict[tuple[Any, ...], list[_Told]] = {}
        for index, one in enumerate(sorted(found, key=lambda one: one.t)):
            part = min(int(one.t / self.seconds * most), most - 1)
            parts.setdefault((one.kind, part) if one.kind in often else (index,), []).append(one)
        return list(parts.values())

    # --- what the lanes are made from, looked up once

    @cached_property
    def _by_process(self) -> dict[Any, list[Event]]:
        return _table(self.history.of(*_DOINGS), lambda event: event.process)

    @cached_property
    def _answers(self) -> dict[Any, list[Event]]:
        return _table(self.history.of("request.ok"), lambda event: event["worker"])

    @cached_property
    def _invoked(self) -> dict[int, float]:
        return {event["request"]: event.t for event in self.history.of("request.invoke")}

    @cached_property
    def _begins(self) -> dict[Any, list[Event]]:
        return _table(self.history.of("loop.begin"), lambda event: event["birth"])

    @cached_property
    def _of_birth(self) -> dict[Any, list[Event]]:
        return _table(self.history.of(*_LOOP_MARKS), lambda event: (event["birth"], event.process))


def _several(same: Sequence[Mark]) -> Mark:
    first = same[0]
    return replace(first, text=f"{first.text} and {len(same) - 1} more") if len(same) > 1 else first


def _spanned(same: Sequence[Span]) -> Span:
    first = same[0]
    if len(same) == 1:
        return first
    return replace(first, end=max(span.end for span in same), text=f"{first.text} and {len(same) - 1} more")


def _table(events: Iterable[Event], key: Callable[[Event], Any]) -> dict[Any, list[Event]]:
    found: dict[Any, list[Event]] = {}
    for event in events:
        found.setdefault(key(event), []).append(event)
    return found


def _order(process: Process) -> tuple[int, int, float]:
    """The arbiters first, then the workers by slot, each followed by its children."""
    slot = process.place.slot
    return (process.place.role != "arbiter" and slot is not None, -1 if slot is None else slot, process.first)


def _clock(t: float) -> str:
    return f"{t:+.3f} s"


_UNANSWERED, _DONE, _LOG = "requests without an answer", "messages and signals", "bad lines of the log"
_OUTSIDE_ROWS = {"request.info": _UNANSWERED, "request.fail": _UNANSWERED, "log": _LOG, "publish.ok": _DONE,
                 "publish.info": _DONE, "signal.fail": _DONE}  # fmt: skip
"""Where in the lane of what is seen from outside an event stands."""

_BAD = ("Traceback", "[ERROR]", "[CRITICAL]", "Exception ", " failed with ", "Parent changed")

_DOINGS: dict[str, tuple[str, Callable[[Event], str]]] = {
    "hook": ("hook", lambda event: f"hook {event['name']}"),
    "patch": ("patch", lambda event: f"patch_all at {event['site']} {dict(event['flags']) or ''}".rstrip()),
    "patched": ("patch", lambda event: _patched_words(event)),
    "fork": ("fork", lambda event: _fork_words(event)),
    "listening": ("hook", lambda event: "listening"),
    "early.made": ("hook", lambda event: f"made {event['name']}"),
    "blocked": ("log", lambda event: "a request blocks it"),
    "park.reached": ("fork", lambda event: f"{event['who']} is parked at {event['at']}"),
    "park.released": ("fork", lambda event: f"{event['who']} goes on from {event['at']}"),
    "park.failed": ("fork", lambda event: f"{event['who']} could not be parked at {event['at']}: {event['reason']}"),
    "park.used": ("fork", lambda event: f"used what {event['who']} held: {event['error'] or 'fine'}"),
}
"""What is told of a process: the look of the mark, and its words."""

_LOOP_MARKS = {"loop.created": "created", "loop.begin": "begun", "loop.subscribed": "message", "handled": "message",
               "loop.end": "ended"}  # fmt: skip


def _patched_words(event: Event) -> str:
    """What is found patched; of a process in which nothing is there is nothing to tell."""
    found = [name for name in event["keywords"] if name not in event["off"]]
    return f"found patched: {', '.join(found)}" if found else ""


def _fork_words(event: Event) -> str:
    left = [f"locks {', '.join(event['locks'])}" if event["locks"] else ""]
    left += [f"imports {', '.join(event['imports'])}" if event["imports"] else ""]
    held = " and ".join(word for word in left if word)
    beside = f", beside {len(event['beside'])} threads" if event["beside"] else ""
    return f"forked{beside}{', which left behind ' + held if held else ''}"


def _loop_words(event: Event) -> str:
    match event.event:
        case "loop.created":
            return f"{event['loop']} created as {event['kind']}"
        case "loop.begin":
            return f"{event['loop']} takes its first turn{' in ' + event['thread'] if event.get('thread') else ''}"
        case "loop.subscribed":
            return f"{event['loop']} has subscribed"
        case "loop.end":
            return f"{event['loop']} ended{': ' + event['error'] if event['error'] else ''}"
        case _:
            return f"{event['loop']} handled {event['message']}"


_OUTSIDE: dict[str, Callable[[Event, History], tuple[str, str]]] = {
    "publish.ok": lambda event, _: (
        "message",
        f"published {event['message']}"
        + ("" if event.get("receivers") is None else f", {event['receivers']} receivers"),
    ),
    "publish.info": lambda event, _: ("log", f"publishing {event['message']}: {event.get('error', 'no answer')}"),
    "signal.invoke": lambda event, _: ("signal", f"signal {event['signal']}"),
    "signal.fail": lambda event, _: ("log", f"signal {event['signal']}: {event['error']}"),
    "stack": lambda event, history: ("stack", f"stacks of {who(history, event['target'])}: {event['file']}"),
    "exit": lambda event, _: ("ended", f"process {event['child']} ended with {event['status']}"),
}
