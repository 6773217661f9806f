"""All lanes times one list of scenarios: what holds on which stack, as rows that a second run goes on from.

The list is the same for every lane: the recipes, the planted bugs with their controls, and a drawn part. What was run
is not run again as long as the lane, the scenario and what judges it are what they were.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fnmatch
import functools
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forkproof import known_issues, launch, target
from forkproof.cause import runs_until_sound
from forkproof.claims import REGISTRY
from forkproof.errors import ForkproofError, LaneError
from forkproof.expectation import Expectation
from forkproof.explore import GIVE_UP, Progress, drawn, drop, run_tasks
from forkproof.judge import Judgement, RunReport, combine
from forkproof.lanes import Lane, Shelf
from forkproof.ledger import Ledger, Row
from forkproof.planted import PLANTED
from forkproof.scenario import Scenario, from_dict
from forkproof.session import Session
from forkproof.target import Target
from forkproof.verdict import Finding, Verdict
from forkproof_strategies import RECIPES, recipes, scenarios

AGAIN = 2
"""How often what surprises, or may go either way in the atlas, is run again, so that it is told with a rate."""

LONGEST = 600
"""Characters of an explanation that a row keeps."""

JUDGING = (
    "claims", "expectation.py", "events.py", "faults", "history.py", "judge.py", "launch.py", "patching.py", "payload",
    "supervisor.py", "verdict.py",
)  # fmt: skip
"""What a verdict depends on, beside the target and the scenario. Which known issue it is, is asked each time."""


@dataclass(frozen=True)
class Named:
    """A scenario of the list. `kind` is recipe, planted, control, known or drawn; `about` what it is of."""

    kind: str
    about: str
    scenario: Scenario

    @property
    def name(self) -> str:
        """As it is chosen by: kind/about."""
        return f"{self.kind}/{self.about}"


def fixed() -> list[Named]:
    """The recipes, one scenario each, the planted bugs, and the same deployments without them."""
    found = [Named("recipe", recipe.name, drawn(1, 0, recipes(only=[recipe.name]))[0]) for recipe in RECIPES]
    for claim, (planted, _, control) in PLANTED.items():
        found += [Named("planted", claim, planted), Named("control", claim, control)]
    return found


def seeded(n: int, seed: int) -> list[Named]:
    """`n` drawn scenarios, the same for the same seed whatever the target."""
    return [Named("drawn", what.digest, what) for what in drawn(n, seed, scenarios())]


def chosen(everything: Iterable[Named], patterns: Sequence[str]) -> list[Named]:
    """Those whose name one of the patterns matches; all where there is none.

    >>> [one.name for one in chosen(fixed(), ["*/no_copied_thread"])]
    ['planted/no_copied_thread', 'control/no_copied_thread']
    """
    return [one for one in everything if not patterns or any(fnmatch.fnmatch(one.name, text) for text in patterns)]


def shown() -> list[Named]:
    """The scenarios of the known issues, each run on the lanes that are said to have it."""
    found = ((issue.id, issue.shown_by()) for issue in known_issues.load())
    return [Named("known", name, what) for name, what in found if what is not None]


@functools.cache
def judging() -> str:
    """Twelve hex digits that change with whatever a verdict depends on in forkproof itself."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for name in JUDGING:
        top = here / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(here)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def lock(lane: Lane, found: Target) -> str:
    """Twelve hex digits that change with what is installed in a lane."""
    plain = [lane.digest, found.to_dict()]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def key(locked: str, what: Scenario) -> str:
    """What a row is known by: as long as it is the same, running again would tell nothing new."""
    return f"{locked}-{what.digest}-{judging()}"


def concerns(one: Named, versions: Mapping[str, str | None]) -> bool:
    """Whether a scenario is run on a lane: that of a known issue is where its versions are."""
    return one.kind != "known" or _issue(one).affects(versions)


# --- running


@dataclass
class Done:
    """What a matrix came to: rows by lane and scenario, and the lanes that could not be had."""

    scenarios: Sequence[Named]
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    targets: dict[str, dict[str, str | None]] = field(default_factory=dict)
    launched: int = 0
    reused: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def lanes(self) -> list[str]:
        """The lanes that were run."""
        return list(dict.fromkeys(lane for lane, _ in self.rows))

    def missing(self) -> list[tuple[str, str]]:
        """The cells that were to be run and were not, as lane and scenario."""
        due = [(lane, one.name) for lane in self.lanes for one in self.scenarios if concerns(one, self.targets[lane])]
        return [cell for cell in due if cell not in self.rows]

    def surprises(self) -> Iterator[tuple[Row, dict[str, Any]]]:
        """What contradicts the documentation and is no known issue."""
        for row in self.rows.values():
            for claim in row["claims"] if row["kind"] != "known" else ():
                if state(claim, row["kind"]) == "surprise":
                    yield row, claim

    def stale(self) -> Iterator[Row]:
        """Known issues that did not show, in runs that could tell, on a lane that is said to have them."""
        issues = {issue.id: issue for issue in known_issues.load()}
        for row in self.rows.values():
            if row["kind"] == "known" and row["cannot"] is None:
                found = ((claim["name"], Verdict(claim["verdict"])) for claim in row["claims"])
                if issues[row["about"]].is_shown(found) is False:
                    yield row

    @property
    def exit_code(self) -> int:
        """1 for a surprise that is no known issue, and for one that is stale; 3 where not all was run or decided."""
        if any(True for _ in itertools.chain(self.surprises(), self.stale())):
            return 1
        decided = any(claim["verdict"] in ("held", "broken") for row in self.rows.values() for claim in row["claims"])
        return 0 if decided and not self.interrupted and not self.problems else 3

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Done:
        """What a JSON report tells, to make pages of it again."""
        listed = (name.partition("/") for name in data["scenarios"])
        found = [Named(kind, about, from_dict(data["scenarios"][f"{kind}/{about}"])) for kind, _, about in listed]
        rows = {(row["lane"], row["name"]): row for row in data["rows"]}
        return cls(found, rows, data["skipped"], data["targets"], interrupted=data["interrupted"])

    def to_dict(self) -> dict[str, Any]:
        """The JSON report, schema 1."""
        return {
            "schema": 1,
            "judging": judging(),
            "launched": self.launched,
            "reused": self.reused,
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
            "problems": self.problems,
            "skipped": self.skipped,
            "targets": self.targets,
            "scenarios": {one.name: one.scenario.to_dict() for one in self.scenarios},
            "rows": list(self.rows.values()),
        }


class Matrix:
    """Runs scenarios on lanes, one lane after the other, `jobs` servers at once."""

    def __init__(
        self,
        shelf: Shelf,
        ledger: Ledger,
        *,
        out: Path,
        opened: Callable[[Lane, str], contextlib.AbstractContextManager[Session]],
        jobs: int = 4,
        progress: Progress | None = None,
        remove: bool = False,
    ) -> None:
        self.shelf = shelf
        self.ledger = ledger
        self.out = out
        self.jobs = jobs
        self.progress = progress or Progress()
        self.opened = opened
        self.remove = remove

    def run(self, lanes: Sequence[Lane], what: Sequence[Named], until: float | None = None) -> Done:
        """Each scenario on each lane, none begun after the monotonic time `until`.

        Ctrl-C ends it early: what was run by then is kept, and is not run again.
        """
        begun = time.monotonic()
        done = Done(what)
        try:
            for place, lane in enumerate(lanes, start=1):
                if until is not None and time.monotonic() >= until:
                    done.interrupted = True
                    break
                called = f"{lane.name}, lane {place} of {len(lanes)}" if len(lanes) > 1 else lane.name
                self._lane(lane, called, what, done, until)
        except KeyboardInterrupt:
            done.interrupted = True
        done.seconds = time.monotonic() - begun
        return done

    def _lane(self, lane: Lane, called: str, what: Sequence[Named], done: Done, until: float | None) -> None:
        if self.shelf.python(lane) is None:
            self.progress.phase(f"building {called}", None)
        try:
            python = str(self.shelf.build(lane))
        except LaneError as error:
            done.skipped[lane.name] = str(error)
            self.progress.problem(LaneError(f"{lane.name}: {error}"))
            return
        found = target.find(python)
        locked = lock(lane, found)
        done.targets[lane.name] = found.to_dict()
        todo = []
        what = [one for one in what if concerns(one, done.targets[lane.name])]
        for one in what:
            row = self.ledger.get(key(locked, one.scenario))
            if row is None:
                todo.append(one)
            else:
                claims = [attributed(claim, one.scenario, done.targets[lane.name]) for claim in row["claims"]]
                mine = {"lane": lane.name, "name": one.name, "kind": one.kind, "about": one.about, "claims": claims}
                done.rows[lane.name, one.name] = {**row, **mine}
                done.reused += 1
        if todo:
            with self.opened(lane, python) as session:
                for row in self._rows(session, lane, called, locked, todo, done, until):
                    self.ledger.add(row)
                    done.rows[lane.name, row["name"]] = row
                done.launched += session.launched
        if len([1 for one in what if (lane.name, one.name) in done.rows]) < len(what) and not done.problems:
            done.interrupted = True
        if self.remove:
            self.shelf.remove(lane)

    def _rows(
        self,
        session: Session,
        lane: Lane,
        called: str,
        locked: str,
        todo: Sequence[Named],
        done: Done,
        until: float | None,
    ) -> Iterator[Row]:
        begun: dict[str, float] = {}
        tasks: list[tuple[Named, Callable[[], RunReport]]] = []
        for one in todo:
            why = cannot(session, one.scenario)
            about = {
                "key": key(locked, one.scenario), "lane": lane.name, "lock": locked, "kind": one.kind,
                "about": one.about, "name": one.name, "digest": one.scenario.digest, "judging": judging(),
            }  # fmt: skip
            if why is not None:
                yield {**about, "cannot": why, "claims": [], "seconds": 0.0}
            else:
                tasks.append((one, functools.partial(self._ask, session, one, begun)))
        self.progress.phase(called, len(tasks))
        pool = concurrent.futures.ThreadPoolExecutor(self.jobs, thread_name_prefix="run")
        nothing = 0
        try:
            for one, report in run_tasks(pool, self.jobs, tasks, until):
                if not isinstance(report, RunReport):
                    nothing += 1
                    told = f"{lane.name}, {one.name}: {self._plain(session, str(report))}"[:LONGEST]
                    done.problems.append(told)
                    self.progress.problem(ForkproofError(told))
                    if nothing >= GIVE_UP:
                        session.stop.set()
                    continue
                nothing = 0
                self.progress.ran(report)
                for found in report.judgements:
                    if found.surprise:
                        self.progress.found(found, report)
                yield {
                    "key": key(locked, one.scenario), "lane": lane.name, "lock": locked, "kind": one.kind,
                    "about": one.about, "name": one.name, "digest": one.scenario.digest, "judging": judging(),
                    "cannot": None, "seconds": round(time.monotonic() - begun[one.name], 2),
                    "runs": len(report.folders), "loops": where(report),
                    "claims": [self._claim(session, found) for found in report.judgements
                               if found.finding.verdict is not Verdict.NOT_APPLICABLE],
                }  # fmt: skip
        except KeyboardInterrupt:
            session.stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _ask(self, session: Session, one: Named, begun: dict[str, float]) -> RunReport:
        begun[one.name] = time.monotonic()
        reports = [session.run(one.scenario)]
        if one.kind == "known":
            issue = _issue(one)
            while len(reports) < runs_until_sound(issue.rate) and not issue.is_shown(
                (found.finding.claim, found.finding.verdict) for found in reports[-1].judgements
            ):
                reports.append(session.run(one.scenario))
        elif any(_in_doubt(found, one.kind) for found in reports[0].judgements):
            reports += [session.run(one.scenario) for _ in range(AGAIN)]
        for report in reports:
            drop(report.folder)
        return combine(reports)

    def _claim(self, session: Session, found: Judgement) -> dict[str, Any]:
        told = _told(found)
        return {**told, "explanation": self._plain(session, told["explanation"])[:LONGEST]}

    def _plain(self, session: Session, text: str) -> str:
        """Without the folders of this machine."""
        lane = Path(session.target.executable).parents[1]
        for folder, name in ((lane, "LANE"), (self.out.absolute(), "OUT"), (launch.PAYLOAD.parent, "forkproof")):
            text = text.replace(str(folder), name)
        return text


def _in_doubt(found: Judgement, kind: str) -> bool:
    may = kind == "atlas" and found.finding.verdict is Verdict.HELD and found.expectation is Expectation.MAY_BREAK
    return may or state(_told(found), kind) == "surprise"


def _issue(one: Named) -> known_issues.KnownIssue:
    return next(issue for issue in known_issues.load() if issue.id == one.about)


def attributed(claim: dict[str, Any], what: Scenario, versions: Mapping[str, str | None]) -> dict[str, Any]:
    """A claim of a row with the known issue that it is put down to today."""
    if not claim["surprise"]:
        return claim
    finding = Finding(claim["name"], Verdict(claim["verdict"]), claim["loop"], claim["explanation"], (), claim["how"])
    issue = known_issues.find(what, finding, versions)
    return {**claim, "known_issue": issue.id if issue else None}


def cannot(session: Session, what: Scenario) -> str | None:
    """Why a target cannot run a scenario; None where it can."""
    try:
        launch.require(what, session.target, session.broker)
    except ForkproofError as error:
        return str(error).removeprefix(f"{session.target.executable}: ").partition(". ")[0]
    return None


def _told(found: Judgement) -> dict[str, Any]:
    finding = found.finding
    return {
        "name": finding.claim,
        "loop": finding.loop,
        "verdict": finding.verdict.value,
        "expectation": found.expectation.value if found.expectation else None,
        "surprise": found.surprise,
        "known_issue": found.known_issue,
        "how": finding.how,
        "rate": list(found.rate),
        "explanation": finding.explanation,
    }


def where(report: RunReport) -> list[dict[str, Any]]:
    """Where each loop ticked: role and slot, and whether it was a copy there."""
    return [
        {
            "name": loop["name"],
            "in": sorted(
                {
                    f"{row['role']}{'' if row['slot'] is None else ' ' + str(row['slot'])}{' (copy)' * row['copied']}"
                    for row in loop["processes"]
                    if row["ticks"] > 1
                }
            ),
        }
        for loop in report.loops
    ]


# --- what a cell says

STATES = ("surprise", "known", "broken", "unknown", "held")
"""The worst first. `broken` is what the documentation allows or says, `known` what is a known issue."""


def state(claim: Mapping[str, Any], kind: str) -> str:
    """What one claim of a row comes to; in a recipe nothing may break, whatever else the documentation allows."""
    if claim["known_issue"] is not None:
        return "known"
    if claim["surprise"] or (kind == "recipe" and claim["verdict"] == "broken"):
        return "surprise"
    return str(claim["verdict"])


@dataclass(frozen=True)
class Cell:
    """What all rows of one lane say of a claim or a recipe: the worst state, and the row that shows it."""

    state: str
    counts: Mapping[str, int]
    row: Row | None
    claim: Mapping[str, Any] | None = None


def cell(rows: Iterable[Row], name: str | None) -> Cell:
    """The cell over some rows, for one claim or, where `name` is None, for all."""
    counts = dict.fromkeys(STATES, 0)
    worst: tuple[int, Row, Mapping[str, Any]] | None = None
    cannot_ = None
    for row in rows:
        if row["cannot"] is not None:
            cannot_ = row
        for claim in row["claims"]:
            if name is not None and claim["name"] != name:
                continue
            found = state(claim, row["kind"])
            if found not in counts:
                continue
            counts[found] += 1
            if worst is None or STATES.index(found) < worst[0]:
                worst = STATES.index(found), row, claim
    if worst is None:
        return Cell("cannot" if name is None and cannot_ else "", counts, cannot_ if name is None else None)
    return Cell(STATES[worst[0]], counts, worst[1], worst[2])


def claims_of(done: Done) -> list[str]:
    """The claims that anything was found of."""
    met = {claim["name"] for row in done.rows.values() for claim in row["claims"]}
    return [name for name in REGISTRY if name in met]


def links() -> Mapping[str, str]:
    """The links of the known issues."""
    return {issue.id: issue.link for issue in known_issues.load()}


def replay(lane: str, what: Scenario) -> str:
    """The command that runs a cell's scenario again."""
    plain = what.model_dump_json(exclude_defaults=True, by_alias=True)
    return f"forkproof run - --target {lane} <<< '{plain}'"
