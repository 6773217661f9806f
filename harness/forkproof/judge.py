"""From a run folder to a verdict: reads what a run left, judges it, writes `verdict.json`; launches nothing."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from forkproof import claims, expectation, files, known_issues, scenario, tables
from forkproof.claims.base import clock, listing, who
from forkproof.claims.fork_phase import stood_at_fork
from forkproof.errors import RunFolderError, UsageError
from forkproof.expectation import Expectation
from forkproof.history import Event, History, Process
from forkproof.scenario import Policy, Scenario
from forkproof.target import is_version
from forkproof.verdict import Finding, Verdict, merge

SCHEMA = 1

LONGEST_LINE = 2000
"""Characters of one line of the server's that are shown."""

LONGEST_STACKS = 1 << 20
"""Bytes of a file of stacks that are looked at, the last ones."""


@dataclass(frozen=True)
class Judgement:
    """A finding, set against what the documentation promises.

    `rate` is (broken, runs that could tell); `since` tells the first bad event of what broke.
    """

    finding: Finding
    expectation: Expectation | None
    reason: str
    known_issue: str | None = None
    rate: tuple[int, int] = (0, 0)
    since: str = ""

    @property
    def key(self) -> tuple[str, str | None]:
        """What is judged: claim and loop."""
        return self.finding.claim, self.finding.loop

    @property
    def surprise(self) -> bool:
        """Whether it broke where it must hold, or held where it must break."""
        return (self.finding.verdict, self.expectation) in (
            (Verdict.BROKEN, Expectation.MUST_HOLD),
            (Verdict.HELD, Expectation.MUST_BREAK),
        )

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON report, schema 1."""
        return {
            "name": self.finding.claim,
            "verdict": self.finding.verdict.value,
            "loop": self.finding.loop,
            "expectation": self.expectation.value if self.expectation else None,
            "expectation_reason": self.reason,
            "surprise": self.surprise,
            "known_issue": self.known_issue,
            "rate": list(self.rate),
            "explanation": self.finding.explanation,
            "since": self.since,
            "evidence": [event.to_dict() for event in self.finding.evidence],
        }


@dataclass(frozen=True)
class Stands:
    """Where a process stood when it was asked: the innermost calls of its main thread, of the last time."""

    process: str
    file: str
    calls: Sequence[str]

    def __str__(self) -> str:
        return f"{self.process} stands in {' < '.join(self.calls)} ({self.file})"


@dataclass(frozen=True)
class RunReport:
    """One run, or several of the same scenario, judged."""

    scenario: Scenario
    folder: Path
    versions: Mapping[str, str | None]
    judgements: Sequence[Judgement]
    loops: Sequence[Mapping[str, Any]] = ()
    folders: Sequence[Path] = field(default=())
    stands: Sequence[Stands] = ()
    booted: bool = True
    missed: Collection[str] = ()
    """What the scenario says and the run did not come to, as `faults.0`, `loops.1`, `patches.0`."""

    @property
    def verdict(self) -> Verdict:
        """The worst of all claims."""
        return merge(judgement.finding.verdict for judgement in self.judgements)

    @property
    def exit_code(self) -> int:
        """0 held, 1 broken, 3 undecided or nothing applicable."""
        return {Verdict.HELD: 0, Verdict.BROKEN: 1}.get(self.verdict, 3)

    @property
    def broken(self) -> list[Judgement]:
        """The broken claims, surprises first."""
        found = [judgement for judgement in self.judgements if judgement.finding.verdict is Verdict.BROKEN]
        return sorted(found, key=lambda judgement: not judgement.surprise)

    @property
    def surprises(self) -> list[Judgement]:
        """What contradicts the documentation."""
        return [judgement for judgement in self.judgements if judgement.surprise]

    def judgement(self, claim: str, loop: str | None) -> Judgement | None:
        """What was found for a claim and a loop."""
        return next((found for found in self.judgements if found.key == (claim, loop)), None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON report, schema 1."""
        verdict = self.verdict
        return {
            "schema": SCHEMA,
            "verdict": "unknown" if verdict is Verdict.NOT_APPLICABLE else verdict.value,
            "target": dict(self.versions),
            "claims": [judgement.to_dict() for judgement in self.judgements],
            "loops": [dict(loop) for loop in self.loops],
            "stacks": [asdict(stands) for stands in self.stands],
            "run": str(self.folder),
        }


def judge(folder: Path, names: Collection[str] | None = None) -> RunReport:
    """Judge the run in a folder, all claims or those named, and write its verdict; UsageError where it is no run's."""
    report = assess(folder, names)
    write_verdict(folder, report.to_dict())
    return report


def write_verdict(folder: Path, plain: Mapping[str, Any]) -> None:
    """Write a run's `verdict.json`; RunFolderError where there is no room for it."""
    try:
        files.write(folder / "verdict.json", json.dumps(plain, indent=1) + "\n")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):  # an old run that is read-only is judged all the same
            raise RunFolderError(f"{folder}/verdict.json: cannot be written: {error.strerror}. Make room.") from None


def assess(folder: Path, names: Collection[str] | None = None) -> RunReport:
    """As `judge`, and leave the folder as it is."""
    versions = launched(folder).target
    what = scenario.of_run(folder)
    history = History.read(folder / "history")
    judgements = []
    for finding in claims.judge(what, history, names):
        expected, reason = _promised(what, finding.claim) or expectation.expect(
            what, finding.claim, finding.loop, versions, finding.how
        )
        if finding.verdict is Verdict.NOT_APPLICABLE:
            judgements.append(Judgement(finding, None, ""))
            continue
        found = Judgement(finding, expected, reason, rate=_rate([finding.verdict]), since=since(history, finding))
        if found.surprise:
            issue = known_issues.find(what, finding, versions)
            found = replace(found, known_issue=issue.id if issue else None)
        judgements.append(found)
    return RunReport(
        what, folder, versions, judgements, loops(what, history), (folder,), stands(folder, history),
        bool(history.windows), missed(what, history),
    )  # fmt: skip


def _promised(what: Scenario, claim: str) -> tuple[Expectation, str] | None:
    """What a claim of another package says that it promises; None where it is ours, or promises nothing."""
    try:
        why: object = claims.REGISTRY[claim].promised(what)
    except (Exception, SystemExit) as error:
        return Expectation.MAY_BREAK, f"its `promised` raised {type(error).__name__}: {error}"
    if not isinstance(why, str):
        return Expectation.MAY_BREAK, f"its `promised` returned {type(why).__name__}, not a text"
    return (Expectation.MUST_HOLD, why) if why else None


def combine(reports: Sequence[RunReport]) -> RunReport:
    """Several runs of one scenario as one report: the worst verdict of each claim, with its rate."""
    worst: dict[tuple[str, str | None], list[Judgement]] = {}
    for report in reports:
        for judgement in report.judgements:
            worst.setdefault(judgement.key, []).append(judgement)
    first_bad = next((report for report in reports if report.verdict is Verdict.BROKEN), reports[0])
    return replace(
        first_bad,
        judgements=[_worst(found) for found in worst.values()],
        folders=tuple(report.folder for report in reports),
    )


def _worst(found: Sequence[Judgement]) -> Judgement:
    verdict = merge(judgement.finding.verdict for judgement in found)
    chosen = next(judgement for judgement in found if judgement.finding.verdict is verdict)
    return replace(chosen, rate=_rate([judgement.finding.verdict for judgement in found]))


def _rate(verdicts: Sequence[Verdict]) -> tuple[int, int]:
    told = [verdict for verdict in verdicts if verdict in (Verdict.HELD, Verdict.BROKEN)]
    return sum(verdict is Verdict.BROKEN for verdict in told), len(told)


def since(history: History, finding: Finding) -> str:
    """When something broke first, in which process, and how long after the fault before it; empty where nothing did."""
    if finding.verdict is not Verdict.BROKEN or not finding.evidence:
        return ""
    first, places = first_bad(history, finding)
    told = f"{clock(history, first.t)}, {first.event}"
    if places:
        told += f" in {listing(who(history, key) for key in places)}"
    faults = [event for event in history.of("fault.ok") if event.t <= first.t]
    return told + (f", {first.t - faults[-1].t:.2f} s after {faults[-1]['fault']}" if faults else "")


def first_bad(history: History, finding: Finding) -> tuple[Event, tuple[str, ...]]:
    """The first bad event of what broke, and the processes that it happened in: none where it was seen from outside."""
    first, *others = finding.evidence
    if first.event not in ("window.open", "window.close"):
        return first, _places(history, first, others)
    # What was missing was so from the window's beginning, in the process that the evidence names first.
    opened = (event for event in history.of("window.open") if event["window"] == first["window"])
    first = next(opened, first)
    for event in others:
        process = history.processes.get(event.process)
        if process is not None and event.event.startswith(("loop.", "role", "look")):
            return first, (process.key,) if process.alive_at(first.t) else ()
    return first, ()


def _places(history: History, event: Event, others: Sequence[Event]) -> tuple[str, ...]:
    if event.process in history.processes:
        return (event.process,)
    named = [event.get(name) for name in ("worker", "target", "by")]
    if event.event == "waits":
        shared = {other["inode"] for other in others if other.event == "socket"}
        named += [key for key, tasks in event["on"].items() if any(shared & set(inodes) for inodes in tasks.values())]
    listed = event.get("left") if event.event == "orphans" else event.get("processes")
    named += [f"{one['pid']}-{one['start']}" for one in listed or () if isinstance(one, Mapping)]
    pids = {event.get("child"), *({event.get("target")} if event.event == "fault.ok" else ())}
    known = history.processes.values()
    named += [one.key for one in known if one.pid in pids and one.first <= event.t and one.key not in named]
    return tuple(key for key in dict.fromkeys(named) if isinstance(key, str) and key in history.processes)


def stands(folder: Path, history: History) -> list[Stands]:
    """Where each process stood that was asked for its stacks, as last asked."""
    found = {}
    for event in history.of("stack"):
        calls = _innermost(folder / event["file"])
        if calls:
            found[event["target"]] = Stands(who(history, event["target"]), event["file"], calls)
    return list(found.values())


def _innermost(path: Path) -> list[str]:
    """The innermost calls of the thread that heard the signal, from the last that faulthandler wrote there."""
    try:
        text = files.end_of(path, LONGEST_STACKS).decode(errors="replace")
    except OSError:
        return []
    calls: list[str] = []
    for line in text.rpartition("Current thread")[2].splitlines()[1:]:
        call = _CALL.fullmatch(line)
        if call is None or len(calls) == CALLS:
            break
        if not calls and call["file"].endswith(_LOOKING):
            continue
        calls.append(f"{'/'.join(call['file'].split('/')[-2:])}:{call['line']} {call['name']}")
    return calls


CALLS = 3
"""How many calls of a stack a report shows; the file has all."""

_LOOKING = tuple(f"/forkproof_payload/{name}.py" for name in ("watch", "reach", "probe"))
"""What runs when a process is looked at: it stands in what that has interrupted."""

_CALL = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)')


def missed(what: Scenario, history: History) -> frozenset[str]:
    """Patches that were not made, loops that were not created, units that were not parked, faults that did not land."""
    patched = [(event["site"], dict(event["flags"])) for event in history.of("patch")]
    landed = {event["index"] for event in history.of("fault.ok")}
    return frozenset(
        [f"patches.{n}" for n, patch in enumerate(what.patches) if (patch.site.value, patch.flags) not in patched]
        + [f"loops.{n}" for n, loop in enumerate(what.loops) if not history.births_of(loop.name)]
        + [f"parks.{n}" for n in range(len(what.parks)) if not stood_at_fork(history, n)]
        + [f"faults.{n}" for n in range(len(what.faults)) if n not in landed]
    )


def loops(what: Scenario, history: History) -> list[dict[str, Any]]:
    """Each loop, and what it did in each process, over the whole run."""
    table = []
    alive = {
        (loop["birth"], answer["worker"]): loop["alive"]
        for answer in history.of("request.ok")
        for loop in answer["loops"]
    }
    created = {event["birth"]: event for event in history.of("loop.created")}
    for loop in what.loops:
        rows = []
        births = history.births_of(loop.name)
        for birth in births:
            seen = {event.process for event in history.of("loop.begin") if event["birth"] == birth.birth}
            # A process whose first line is lost is not known.
            known = [history.processes[key] for key in {*seen, birth.process} if key in history.processes]
            for process in sorted(known, key=lambda process: process.first):
                rows.append(_row(process, birth.birth, birth.process, history, alive.get((birth.birth, process.key))))
        table.append(
            {
                "name": loop.name,
                "defined_at": created[births[0].birth].get("defined_at") if births else None,
                "kind": loop.kind.value,
                "policy": None if loop.policy is Policy.BEST_EFFORT else loop.policy.value,
                "processes": rows,
            }
        )
    return table


def _row(process: Process, birth: str, creator: str, history: History, alive: bool | None) -> dict[str, Any]:
    begun = [e for e in history.of("loop.begin") if e["birth"] == birth and e.process == process.key]
    return {
        "role": process.place.role,
        "slot": process.place.slot,
        "pid": process.pid,
        "birth": birth,
        "alive": alive,
        "ticks": history.count(birth, process.key, float("inf")),
        "copied": process.key != creator and not history.births[birth].in_child,
        "thread": begun[-1].get("thread") if begun else None,
    }


def server_log(folder: Path, lines: int = 15) -> str:
    """The last lines that the server printed."""
    try:
        text = files.end_of(folder / "server.log", lines * LONGEST_LINE).decode(errors="replace")
    except OSError:
        return "(it left no output)"
    return "\n".join(line[:LONGEST_LINE] for line in text.splitlines()[-lines:]) or "(it printed nothing)"


class Launched(BaseModel):
    """What is read of a run's `launch.json`: the target's versions, and what the run was asked for."""

    model_config = ConfigDict(strict=True)

    target: dict[str, str | None]
    asked: dict[str, str] = {}
    environment: dict[str, str] = {}

    def lies_at(self, folder: Path) -> bool:
        """Whether the run was made in that folder."""
        made = self.environment.get("FORKPROOF_RUN", "")
        return bool(made) and "\0" not in made and Path(made).resolve() == folder.resolve()

    @field_validator("target")
    @classmethod
    def _versions(cls, target: dict[str, str | None]) -> dict[str, str | None]:
        if target.get("python") is None:
            raise ValueError("it names no Python")
        for name, version in target.items():
            if version is not None and not is_version(version):
                raise ValueError(f"{name}: {version[:40]!r} is no version")
        return target


def launched(folder: Path) -> Launched:
    """How a run was launched; UsageError where the folder is no run's."""
    try:
        return Launched.model_validate_json(files.read(folder / "launch.json"))
    except ValidationError as error:
        why = tables.first_problem(error)
    except OSError as error:
        why = str(error.strerror)
    raise UsageError(
        f"{folder}: is not the folder of a run: launch.json: {why}. Give the folder that a report names as `run`."
    )
