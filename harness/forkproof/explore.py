"""Draws deployments, runs them, and brings what surprises down to the smallest scenario that still shows it.

The scenarios are drawn first, as data, so that the same seed gives the same list whatever the machine and however many
servers run at once. What is seen is confirmed by running it again before it is reported, and then shrunk by a
structured pass: each simpler neighbour is launched, and taken if it still fails in the same way.

Why not Hypothesis' own shrinker here: it works on the choices that drew an example and needs several launches for what
one step of the structured pass does; `tests/test_fork_property.py` uses it, with the verdicts of this module.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from forkproof import known_issues
from forkproof.broker import Broker
from forkproof.cause import Cause, Claimed, investigate, runs_until_sound
from forkproof.claims import REGISTRY
from forkproof.claims import judge as judge_claims
from forkproof.coverage import Coverage, Universe, universe
from forkproof.errors import CouldNotDecide, ForkproofError, NothingBoots, ScenarioError
from forkproof.history import History
from forkproof.judge import Judgement, RunReport, Stands, assess
from forkproof.known_issues import KnownIssue
from forkproof.scenario import Scenario, WorkerClass
from forkproof.session import Session
from forkproof.simplify import descend
from forkproof.target import Target
from forkproof.verdict import Verdict

if TYPE_CHECKING:  # what draws nothing need not wait for Hypothesis, and all that reports is imported by every command
    from hypothesis.strategies import SearchStrategy

CONFIRM = 5
"""How often a surprise is run again before it is reported, and again once it is shrunk."""

SLICE = 10
"""How many examples are drawn from one seed: Hypothesis varies what it has just drawn, so a long run has favourites."""

WIDER = 20
"""How many times as many scenarios as are wanted are drawn at most, to find those that can exercise a claim."""

NOTHING = History([])

NEAR = 20
"""How many scenarios next to each other change places, so that the cheap ones are run first."""

KEPT_UNDECIDED = 10
"""How many run folders of undecided runs, and how many problems, are kept to be looked at."""

GIVE_UP = 5
"""After so many runs in a row in which not even the plainest server booted, an exploration ends."""

Key = tuple[str, str, bool, str | None]
"""What makes two failures the same one: claim, how it broke, whether that surprises, known issue."""


def draw(
    n: int, seed: int, target: Target, broker: Broker | None = None, names: Collection[str] | None = None
) -> list[Scenario]:
    """`n` scenarios that target and broker can run, the same for the same seed and these; doubles are drawn again.

    Where claims are named, only scenarios that can exercise one of them, as far as they are among `WIDER` times `n`.
    """
    from forkproof_strategies import scenarios

    worker_classes, without = abilities(target, broker)
    strategy = scenarios(worker_classes=worker_classes, flags=target.patch_flags, without=without)
    return drawn(n, seed, strategy, None if names is None else lambda what: _can_exercise(what, names))


def _can_exercise(what: Scenario, names: Collection[str]) -> bool:
    """Whether a run can tell anything of these claims: not if they are not applicable before anything has happened."""
    return any(finding.verdict is not Verdict.NOT_APPLICABLE for finding in judge_claims(what, NOTHING, names))


def drawn(
    n: int, seed: int, strategy: SearchStrategy[Scenario], keep: Callable[[Scenario], bool] | None = None
) -> list[Scenario]:
    """`n` scenarios of a strategy, the same for the same seed; doubles and what is not to be kept are drawn again."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    found: dict[str, Scenario] = {}
    for part in itertools.count():
        if len(found) >= n or (keep is not None and part * SLICE >= WIDER * n):
            break

        @seeded(seed * 1000 + part)
        @settings(
            max_examples=SLICE, phases=[Phase.generate], database=None, deadline=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(strategy)
        def collect(what: Scenario) -> None:
            if len(found) < n and (keep is None or keep(what)):
                found.setdefault(what.digest, what)

        collect()
    return list(found.values())


def abilities(target: Target, broker: Broker | None = None) -> tuple[list[WorkerClass], list[str]]:
    """The worker classes that a target has, and the features that it or a broker of the user's lacks."""
    from forkproof_strategies import features_of_others

    lacks: list[str] = []
    if broker is not None and broker.socket is None:
        lacks += ["other addresses", "redis faults"]
    if "gevent" not in target.versions:
        lacks += ["patches", "greenlets", "native threads", "gevent sleeps"]
    if "redis" not in target.versions:
        lacks.append("redis")
    if "flask-socketio" not in target.versions or "redis" not in target.versions:
        lacks.append("socketio")
    if "hiredis" not in target.versions:
        lacks.append("hiredis")
    if not target.has_fork_hooks:
        lacks += ["fork hooks", "hooks of the app"]
    if not target.has_simple_queue:
        lacks.append("simple queues")
    lacks += [name for name, needs in features_of_others().items() if not {*needs} <= target.versions.keys()]
    return [worker_class for worker_class in WorkerClass if target.has_worker_class(worker_class)], lacks


@dataclass(frozen=True)
class Failure:
    """One way in which a claim broke, with the smallest scenario found, and how often that one fails."""

    judgement: Judgement
    scenario: Scenario
    folder: Path
    rate: tuple[int, int]
    seen: int = 1
    cause: Cause | None = None
    stands: Sequence[Stands] = ()

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON report, schema 1."""
        return {
            "claim": self.judgement.finding.claim,
            "how": self.judgement.finding.how,
            "loop": self.judgement.finding.loop,
            "verdict": self.judgement.finding.verdict.value,
            "explanation": self.judgement.finding.explanation,
            "since": self.judgement.since,
            "stacks": [asdict(stands) for stands in self.stands],
            "expectation": self.judgement.expectation.value if self.judgement.expectation else None,
            "scenario": self.scenario.to_dict(),
            "rate": list(self.rate),
            "seen": self.seen,
            "surprise": self.judgement.surprise,
            "known_issue": self.judgement.known_issue,
            "run": str(self.folder),
            **(self.cause.to_dict() if self.cause is not None else {"cause": None, "cure": None}),
        }


@dataclass(frozen=True)
class Stale:
    """A known issue that did not show in `tried` runs of its own scenario, on a version that is said to have it."""

    issue: KnownIssue
    tried: int

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON report, schema 1."""
        return {"id": self.issue.id, "title": self.issue.title, "link": self.issue.link, "tried": self.tried}


class _Group:
    """The runs that failed in one way: the three smallest, and how many there were."""

    def __init__(self) -> None:
        self.members: list[tuple[RunReport, Judgement]] = []
        self.seen = 0

    def add(self, report: RunReport, judgement: Judgement) -> None:
        self.seen += 1
        self.members.append((report, judgement))
        self.members.sort(key=lambda member: size(member[0].scenario))
        del self.members[3:]

    def as_seen(self) -> Failure:
        report, judgement = self.members[0]
        return _failure(report, judgement, judgement.rate, self.seen)


class Progress:
    """What a report of a campaign may listen to; every method does nothing here."""

    def phase(self, name: str, total: int | None) -> None:
        """A phase has begun, with `total` runs where that is known."""

    def until(self, moment: float) -> None:
        """The phase begins nothing more after that monotonic time."""

    def ran(self, report: RunReport) -> None:
        """A run was judged."""

    def found(self, failure: Judgement, report: RunReport) -> None:
        """A surprise was seen for the first time."""

    def problem(self, error: ForkproofError) -> None:
        """A scenario could not be run."""


@dataclass(frozen=True)
class Part:
    """A part of a campaign: what was done, how many servers that launched, and how many seconds it took."""

    name: str
    launched: int
    seconds: float


@dataclass
class Campaign:
    """What an exploration came to."""

    drawn: int = 0
    kept: int = 0
    """How many scenarios that had surprised in earlier campaigns were run first."""
    launched: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    failures: list[Failure] = field(default_factory=list)
    expected_breaks: list[Failure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    stale: list[Stale] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    can_run: Callable[[Scenario], bool] | None = None
    judged: Sequence[str] = ()
    """The claims that were asked for."""
    seed: int | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    phases: list[Part] = field(default_factory=list)

    @functools.cached_property
    def universe(self) -> Universe:
        """What could have been run; worked out when it is asked for."""
        return universe(self.can_run) if self.can_run is not None else Universe()

    def exit_code(self, *, strict: bool = False) -> int:
        """1 for a surprise that is no known issue (`strict`: any, and a stale issue), 3 where nothing was decided."""
        if any(strict or failure.judgement.known_issue is None for failure in self.failures) or self.stale:
            return 1
        decided = any(counts["held"] + counts["broken"] for counts in self.coverage.claims.values())
        return 0 if decided and not self.interrupted and not self.problems else 3

    def to_dict(self) -> dict[str, Any]:
        """The JSON report, schema 1."""
        return {
            "schema": 1,
            "drawn": self.drawn,
            "kept": self.kept,
            "launched": self.launched,
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
            "seed": self.seed,
            "target": dict(self.versions),
            "phases": [asdict(phase) | {"seconds": round(phase.seconds, 1)} for phase in self.phases],
            "failures": [failure.to_dict() for failure in self.failures],
            "expected_breaks": [failure.to_dict() for failure in self.expected_breaks],
            "problems": self.problems,
            "stale_issues": [stale.to_dict() for stale in self.stale],
            "unknown": dict(self.coverage.unknown()),
            "coverage": self.coverage.to_dict(self.universe, self.judged),
        }


Task = TypeVar("Task")


def run_tasks(
    pool: concurrent.futures.Executor,
    jobs: int,
    tasks: Iterable[tuple[Task, Callable[[], RunReport]]],
    until: float | None = None,
) -> Iterator[tuple[Task, RunReport | CouldNotDecide | ScenarioError]]:
    """Run tasks, `jobs` at once, none begun after the monotonic time `until`; each with what came of it."""
    todo = iter(tasks)
    running: dict[concurrent.futures.Future[RunReport], Task] = {}

    def fill() -> None:
        while len(running) < jobs and (until is None or time.monotonic() < until):
            found = next(todo, None)
            if found is None:
                return
            running[pool.submit(found[1])] = found[0]

    fill()
    while running:
        done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in done:
            task = running.pop(future)
            try:
                yield task, future.result()
            except (CouldNotDecide, ScenarioError) as error:
                yield task, error
        fill()


class Explorer:
    """Runs one campaign on a session, `jobs` servers at once.

    Scenarios that were `kept` are run first; `keep` is given each that is confirmed to surprise and is no known issue.
    """

    def __init__(
        self,
        session: Session,
        *,
        jobs: int = 2,
        progress: Progress | None = None,
        budget_launches: int = 60,
        budget_seconds: float = 90.0,
        shrink_expected: bool = False,
        check_known: bool = False,
        find_causes: bool = True,
        kept: Sequence[Scenario] = (),
        keep: Callable[[Scenario], None] = lambda what: None,
    ) -> None:
        self.session = session
        self.progress = progress or Progress()
        self.campaign = Campaign()
        self.jobs = jobs
        self.budget_launches = budget_launches
        self.budget_seconds = budget_seconds
        self.shrink_expected = shrink_expected
        self.check_known = check_known
        self.find_causes = find_causes
        self.kept = kept
        self.keep = keep
        self._pool = concurrent.futures.ThreadPoolExecutor(jobs, thread_name_prefix="run")
        self._groups: dict[Key, _Group] = {}
        self._folders: set[Path] = set()
        self._undecided: list[Path] = []
        self._nothing_boots = 0
        self._under_way: tuple[str, int, float] | None = None

    def explore(self, what: Iterable[Sequence[Scenario]], *, until: float | None = None) -> Campaign:
        """Run batches of scenarios (until the monotonic time `until`), then confirm and shrink what broke.

        Ctrl-C ends it early: what is running is ended, and what was found is returned, unconfirmed.
        """
        begun = time.monotonic()
        # One stream over all batches, so that no slot stands empty while a batch's last run ends.
        total = sum(len(batch) for batch in what) if isinstance(what, Sequence) else None
        try:
            self._run_kept(until)
            self._phase("explore", total)
            for report in self.run_all(self._counted(what, until), until):
                self._take(report)
            self._settle()
            if self.check_known:
                self._check_known()
        except KeyboardInterrupt:
            self.campaign.interrupted = True
            self.session.stop.set()
            self._report_unconfirmed()
        finally:
            self.close()
        self._end_phase()
        self.campaign.launched = self.session.launched
        self.campaign.versions = self.session.target.to_dict()
        self.campaign.can_run = self.session.can_run
        self.campaign.judged = [name for name in REGISTRY if self.session.claims is None or name in self.session.claims]
        self.campaign.seconds = time.monotonic() - begun
        return self.campaign

    def close(self) -> None:
        """Wait for what is running; begin nothing more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run_kept(self, until: float | None) -> None:
        claims = self.session.claims
        fitting = [one for one in self.kept if self.session.can_run(one)]
        fitting = [one for one in fitting if claims is None or _can_exercise(one, claims)]
        if fitting:
            self._phase("what surprised before", len(fitting))
            for report in self.run_all(fitting, until):
                self.campaign.kept += 1
                self._take(report)

    def _phase(self, name: str, total: int | None) -> None:
        self._end_phase()
        self._under_way = (name, self.session.launched, time.monotonic())
        self.progress.phase(name, total)

    def _end_phase(self) -> None:
        if self._under_way is not None:
            name, launched, begun = self._under_way
            self.campaign.phases.append(Part(name, self.session.launched - launched, time.monotonic() - begun))
            self._under_way = None

    def _counted(self, what: Iterable[Sequence[Scenario]], until: float | None) -> Iterator[Scenario]:
        for batch in what:
            if until is not None and time.monotonic() >= until:  # batches may be empty, and have no end
                return
            for one in cheapest_first(batch):
                if self._nothing_boots >= GIVE_UP:
                    return
                self.campaign.drawn += 1
                yield one

    def run_all(
        self, batch: Iterable[Scenario], until: float | None = None, *, every_claim: bool = False
    ) -> Iterator[RunReport]:
        """The reports of a batch, as they come; judged by the claims that were asked for, or by all."""
        tasks = ((what, functools.partial(self.session.run, what, every_claim=every_claim)) for what in batch)
        for _, report in run_tasks(self._pool, self.jobs, tasks, until):
            if isinstance(report, RunReport):
                self._nothing_boots = 0
                self.progress.ran(report)
                yield report
            else:
                self._problem(report)

    def _problem(self, error: CouldNotDecide | ScenarioError) -> None:
        self._nothing_boots += isinstance(error, NothingBoots)
        if len(self.campaign.problems) < KEPT_UNDECIDED:
            self.campaign.problems.append(str(error))
            self.progress.problem(error)
        elif isinstance(error, CouldNotDecide) and error.folder is not None:
            drop(error.folder)

    def _take(self, report: RunReport) -> None:
        self.campaign.coverage.add(report)
        for judgement in report.judgements:
            if judgement.finding.verdict is not Verdict.BROKEN and not judgement.surprise:
                continue
            key = key_of(judgement)
            if judgement.surprise and key not in self._groups:
                self.progress.found(judgement, report)
            self._groups.setdefault(key, _Group()).add(report, judgement)
        if report.verdict is Verdict.UNKNOWN and len(self._undecided) < KEPT_UNDECIDED:
            self._undecided.append(report.folder)
        self._folders.add(report.folder)
        self._prune()

    def _prune(self) -> None:
        """Drop the folders of runs that are no example of anything."""
        kept = {report.folder for group in self._groups.values() for report, _ in group.members}
        kept |= {failure.folder for failure in (*self.campaign.failures, *self.campaign.expected_breaks)}
        kept |= set(self._undecided)
        for folder in self._folders - kept:
            drop(folder)
        self._folders &= kept

    def _settle(self) -> None:
        # Surprises first: if somebody loses patience, these were what the campaign was for.
        for key, group in sorted(self._groups.items(), key=lambda item: not item[0][2]):
            where = self.campaign.failures if key[2] else self.campaign.expected_breaks
            if not key[2] and not self.shrink_expected:
                where.append(group.as_seen())
            else:
                failure, example = self._confirm_and_shrink(key, group)
                where.append(failure)
                group.members.clear()
                broken = failure.judgement.finding.verdict is Verdict.BROKEN
                if self.find_causes and broken and key[3] is None:
                    where[-1] = replace(failure, cause=self._cause_of(failure, example))
            group.members.clear()
            self._prune()

    def _check_known(self) -> None:
        """Run the scenarios of the known issues that the target is said to have and that did not show by themselves."""
        shown = {failure.judgement.known_issue for failure in self.campaign.failures}
        for issue in known_issues.load():
            judged = self.session.claims is None or set(issue.claims) & set(self.session.claims)
            if issue.id in shown or not judged or not issue.affects(self.session.target.to_dict()):
                continue
            what = issue.shown_by()
            if what is not None and self.session.can_run(what):
                self._show_again(issue, what)

    def _show_again(self, issue: KnownIssue, what: Scenario) -> None:
        self._phase(f"known issue {issue.id}", None)
        tried = 0
        for batch in _batches([what] * runs_until_sound(issue.rate), self.jobs):
            for report in self.run_all(batch):
                shown = issue.is_shown((j.finding.claim, j.finding.verdict) for j in report.judgements)
                drop(report.folder)
                if shown:
                    return
                tried += shown is False
        if tried:
            self.campaign.stale.append(Stale(issue, tried))

    def _report_unconfirmed(self) -> None:
        for key, group in self._groups.items():
            if group.members:
                where = self.campaign.failures if key[2] else self.campaign.expected_breaks
                where.append(group.as_seen())

    def _cause_of(self, failure: Failure, example: RunReport) -> Cause:
        key = failure.judgement.key
        return self.explain(failure.scenario, {key: failure.rate}, example)[key]

    def explain(
        self, what: Scenario, asked: Mapping[Claimed, tuple[int, int]], example: RunReport
    ) -> dict[Claimed, Cause]:
        """The causes of failures of one scenario, given with their rates, by running its neighbours."""
        self._phase("cause of " + ", ".join(sorted({claim for claim, _ in asked})), None)
        # There are more neighbours to every side than simpler ones.
        last_launch = self.session.launched + 2 * self.budget_launches
        deadline = time.monotonic() + self.budget_seconds
        self.progress.until(deadline)
        before = example if self.session.claims is None else assess(example.folder)

        def run_all(batch: Sequence[Scenario]) -> Iterator[RunReport]:
            for report in self.run_all(batch, every_claim=True):
                yield report
                drop(report.folder)

        return investigate(
            what,
            asked,
            run_all,
            held=[found.key for found in before.judgements if found.finding.verdict is Verdict.HELD],
            can_run=self.session.can_run,
            go_on=lambda: time.monotonic() < deadline and self.session.launched < last_launch,
            jobs=self.jobs,
        )

    def _confirm_and_shrink(self, key: Key, group: _Group) -> tuple[Failure, RunReport]:
        self._phase(f"confirm and shrink {key[0]}", None)
        for report, judgement in group.members:  # noqa: B007 - used below, as the last one looked at
            failed, tried, _ = again = self.rate(report.scenario, key, CONFIRM)
            if failed:
                break
        else:
            # Seen once and never again: a race, and its rate says so.
            report, judgement = group.members[0]
            return _failure(report, judgement, (1, 1 + tried), group.seen), report
        steps: list[tuple[RunReport, Judgement]] = []
        if key[3] is None:  # A known issue has its smallest scenario already; that it still shows is what matters.
            steps = self.shrink(report.scenario, key, judgement.finding.loop, (failed, tried))
        while steps:
            smaller = self.rate(steps[-1][0].scenario, key, CONFIRM)
            if 2 * smaller[0] * tried >= failed * smaller[1]:
                failed, tried, _ = again = smaller
                break
            # Somewhere on the way a sure failure has become a race, which is harder to look into than a longer one.
            del steps[len(steps) // 2 :]
        shown = again[2] or (steps[-1] if steps else (report, judgement))
        if key[2] and key[3] is None:
            self._keep(shown[0].scenario)
        return _failure(*shown, (failed, tried), group.seen), shown[0]

    def _keep(self, what: Scenario) -> None:
        try:
            self.keep(what)
        except ForkproofError as error:  # the campaign itself goes on
            self.campaign.problems.append(str(error))
            self.progress.problem(error)

    def rate(self, what: Scenario, key: Key, tries: int) -> tuple[int, int, tuple[RunReport, Judgement] | None]:
        """How many of `tries` runs fail in the way `key`, of how many; and the first that did."""
        failed = tried = 0
        shown: tuple[RunReport, Judgement] | None = None
        for report in self.run_all([what] * tries):
            tried += 1
            match = _match(report, key)
            failed += match is not None
            if match is not None and shown is None:
                shown = (report, match)
                self._folders.add(report.folder)
            else:
                drop(report.folder)
        return failed, tried, shown

    def shrink(
        self, what: Scenario, key: Key, loop: str | None, rate: tuple[int, int]
    ) -> list[tuple[RunReport, Judgement]]:
        """Runs of simpler and simpler scenarios that still fail so, within the budget of launches and time."""
        last_launch = self.session.launched + self.budget_launches
        deadline = time.monotonic() + self.budget_seconds
        self.progress.until(deadline)
        # A race that fails in one of three runs needs several tries before a simpler candidate counts as sound.
        tries = 1 if rate[0] == rate[1] else min(4, max(2, round(2 * rate[1] / rate[0])))
        return descend(
            what,
            loop,
            self.jobs,
            lambda batch: self._failing(batch, key, tries),
            lambda step: step[0].scenario,
            lambda: time.monotonic() <= deadline and self.session.launched < last_launch,
        )

    def _failing(self, batch: Sequence[Scenario], key: Key, tries: int) -> list[tuple[RunReport, Judgement]]:
        failing: dict[str, tuple[RunReport, Judgement]] = {}
        for report in self.run_all([simpler for simpler in batch for _ in range(tries)]):
            match = _match(report, key)
            if match is not None and report.scenario.digest not in failing:
                failing[report.scenario.digest] = (report, match)
                self._folders.add(report.folder)
            else:
                drop(report.folder)
        return [failing[simpler.digest] for simpler in batch if simpler.digest in failing]


def _failure(report: RunReport, judgement: Judgement, rate: tuple[int, int], seen: int) -> Failure:
    return Failure(judgement, report.scenario, report.folder, rate, seen, stands=report.stands)


def key_of(judgement: Judgement) -> Key:
    """What a failure is grouped by."""
    return judgement.finding.claim, judgement.finding.how, judgement.surprise, judgement.known_issue


def size(what: Scenario) -> int:
    """How far a scenario is from the plainest one: the length of what is not at its default."""
    return len(what.model_dump_json(exclude_defaults=True))


def cheapest_first(what: Sequence[Scenario]) -> list[Scenario]:
    """Scenarios in their order, but within each `NEAR` the cheap ones first: a failure is then found sooner.

    Not over all of them, so that a campaign that is cut short has seen dear ones too. What is dear is to wait for what
    faults do, and to boot workers.
    """
    parts = (what[start : start + NEAR] for start in range(0, len(what), NEAR))
    return [one for part in parts for one in sorted(part, key=lambda one: (len(one.faults), one.server.workers))]


def _match(report: RunReport, key: Key) -> Judgement | None:
    return next((judgement for judgement in report.judgements if key_of(judgement) == key), None)


def _batches(items: Sequence[Scenario], count: int) -> Iterator[Sequence[Scenario]]:
    for start in range(0, len(items), count):
        yield items[start : start + count]


def drop(folder: Path) -> None:
    """Remove the folder of a run that is no example of anything."""
    shutil.rmtree(folder, ignore_errors=True)
