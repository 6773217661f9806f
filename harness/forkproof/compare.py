"""Two targets, the same scenarios: what one of them breaks and the other does not.

What differs in a first run is only noticed. It is run again, brought down to the smallest scenario that still differs,
and then put to a test on runs of its own (`forkproof.rates`), so that a race that broke on one side by chance is not
reported. What a difference explains is grouped with it.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from forkproof import aim, documented
from forkproof.claims import REGISTRY
from forkproof.coverage import Coverage, Universe, universe
from forkproof.errors import CouldNotDecide, ScenarioError
from forkproof.explore import GIVE_UP, KEPT_UNDECIDED, Progress, drop, run_tasks, size
from forkproof.judge import Judgement, RunReport
from forkproof.rates import Rate, Spending, enough, fisher
from forkproof.scenario import Scenario
from forkproof.session import Session
from forkproof.simplify import descend
from forkproof.verdict import Verdict

LEVEL = 0.05
"""The chance that a whole comparison reports any difference where there is none."""

BATCH = 16
"""So many scenarios are run on both sides before what they showed is looked into."""

LOOK = 3
"""Runs a side that something noticed must come through before it is looked into further."""

SHARE = 0.5
"""The part of the time that scenarios are run for; the rest is for looking into what they showed."""

BASE, HEAD = 0, 1
SIDES = ("base", "head")

Key = tuple[str, str]
"""What may differ: a claim, and the way in which it broke."""


@dataclass(frozen=True)
class Sight:
    """What one run of a side showed of a key: whether it did, None where it could not tell."""

    shows: bool | None
    report: RunReport
    judgement: Judgement | None = None


@dataclass
class Noticed:
    """Something that broke on one side and not on the other, in so many scenarios; the smallest of them."""

    key: Key
    side: int
    scenarios: list[Scenario] = field(default_factory=list)
    seen: int = 0
    loop: str | None = None

    def add(self, what: Scenario) -> None:
        """Count one more."""
        self.seen += 1
        self.scenarios = sorted([*self.scenarios, what], key=size)[:3]


@dataclass(frozen=True)
class Difference:
    """A difference that passed its test: the smallest scenario, how often it breaks on either side, and the test."""

    key: Key
    side: int
    scenario: Scenario
    judgement: Judgement
    report: RunReport
    rates: tuple[Rate, Rate]
    verdicts: tuple[Verdict, Verdict]
    chance: float
    level: float
    seen: int
    also: tuple[str, ...] = ()
    change: documented.Change | None = None

    @property
    def name(self) -> str:
        """Regression, fixed, documented; unclassified where the claim breaks on both sides, in another way."""
        if self.change is not None:
            return "documented"
        if self.verdicts == (Verdict.BROKEN, Verdict.BROKEN):
            return "unclassified"
        return "regression" if self.side == HEAD else "fixed"

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON report, schema 1."""
        shown, tried = self.rates[self.side]
        return {
            "claim": self.key[0],
            "how": self.key[1],
            "loop": self.judgement.finding.loop,
            "change": self.name,
            "documented": self.change.to_dict() if self.change is not None else None,
            "explanation": self.judgement.finding.explanation,
            "expectation": self.judgement.expectation.value if self.judgement.expectation else None,
            "scenario": self.scenario.to_dict(),
            "rate": [shown, tried],
            "surprise": self.judgement.surprise,
            "known_issue": self.judgement.known_issue,
            "base": {"verdict": self.verdicts[BASE].value, "rate": list(self.rates[BASE])},
            "head": {"verdict": self.verdicts[HEAD].value, "rate": list(self.rates[HEAD])},
            "chance": self.chance,
            "level": self.level,
            "seen": self.seen,
            "also": list(self.also),
            "run": str(self.report.folder),
        }


@dataclass
class Comparison:
    """What a comparison came to."""

    drawn: int = 0
    launched: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    differences: list[Difference] = field(default_factory=list)
    unconfirmed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tests: int = 0
    versions: tuple[dict[str, str | None], dict[str, str | None]] = ({}, {})
    coverage: Coverage = field(default_factory=Coverage)
    can_run: Callable[[Scenario], bool] | None = None
    judged: Sequence[str] = ()

    @functools.cached_property
    def universe(self) -> Universe:
        """What both targets could have run; worked out when it is asked for."""
        return universe(self.can_run) if self.can_run is not None else Universe()

    @property
    def exit_code(self) -> int:
        """1 for a difference that is not documented; 3 where nothing was decided."""
        if any(difference.change is None for difference in self.differences):
            return 1
        decided = any(counts["held"] + counts["broken"] for counts in self.coverage.claims.values())
        return 0 if decided and not self.interrupted and not self.problems else 3

    def to_dict(self) -> dict[str, Any]:
        """The JSON report, schema 1."""
        return {
            "schema": 1,
            "base": self.versions[BASE],
            "head": self.versions[HEAD],
            "drawn": self.drawn,
            "launched": self.launched,
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
            "level": LEVEL,
            "tests": self.tests,
            "failures": [difference.to_dict() for difference in self.differences],
            "unconfirmed": self.unconfirmed,
            "left": self.left,
            "problems": self.problems,
            "coverage": self.coverage.to_dict(self.universe, self.judged),
        }


class Comparer:
    """Compares two sessions, `jobs` servers at once on both together."""

    def __init__(
        self,
        base: Session,
        head: Session,
        *,
        jobs: int = 4,
        seed: int = 0,
        progress: Progress | None = None,
        budget_launches: int = 60,
    ) -> None:
        self.sides = (base, head)
        self.jobs = jobs
        self.seed = seed
        self.progress = progress or Progress()
        self.budget_launches = budget_launches
        self.found = Comparison(versions=(base.target.to_dict(), head.target.to_dict()))
        self._pool = concurrent.futures.ThreadPoolExecutor(jobs, thread_name_prefix="run")
        self._spending = Spending(LEVEL)
        self._noticed: dict[tuple[Key, int], Noticed] = {}
        self._settled: Counter[tuple[Key, int]] = Counter()
        self._nothing_boots = 0
        self._until: float | None = None

    def can_run(self, what: Scenario) -> bool:
        """Whether both sides have what a scenario needs."""
        return all(side.can_run(what) for side in self.sides)

    def compare(self, n: int | None = None, seconds: float | None = None) -> Comparison:
        """Run `n` scenarios on both sides, or go on for so many seconds, and look into what differs.

        Ctrl-C ends it early: what is running is ended, and what was confirmed by then is returned.
        """
        begun = time.monotonic()
        self._until = begun + seconds if seconds is not None else None
        words = aim.changed_words(self.sides[BASE].target, self.sides[HEAD].target)
        plan = aim.scenarios(n if n is not None else 100_000, self.seed, self.can_run, words)
        try:
            exploring = 0.0
            while self._nothing_boots < GIVE_UP and not self._over():
                # With a time to keep, as much of it goes into looking as into looking into.
                last = None
                if seconds is not None:
                    last = time.monotonic() + max(0.0, SHARE * seconds - exploring)
                started = time.monotonic()
                batch = list(itertools.islice(plan, BATCH if seconds is None or exploring < SHARE * seconds else 0))
                self.progress.phase("compare", 2 * len(batch))
                self._explore(batch, last)
                exploring += time.monotonic() - started
                looked = self._settle()
                if not batch and not looked:
                    if seconds is None or exploring < SHARE * seconds:
                        break
                    exploring = 0.0  # nothing is left to look into: the rest of the time is for new scenarios
                    seconds = max(0.0, (self._until or 0.0) - time.monotonic()) / SHARE
        except KeyboardInterrupt:
            self.found.interrupted = True
            for side in self.sides:
                side.stop.set()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._report_left()
        self.found.launched = sum(side.launched for side in self.sides)
        self.found.seconds = time.monotonic() - begun
        self.found.can_run = self.can_run
        asked = self.sides[BASE].claims
        self.found.judged = [name for name in REGISTRY if asked is None or name in asked]
        self.found.tests = self._spending.tests
        return self.found

    def _over(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _explore(self, batch: Sequence[Scenario], until: float | None) -> None:
        reports: dict[str, dict[int, RunReport]] = {}
        for what, side, report in self._run(((one, side) for one in batch for side in (BASE, HEAD)), until):
            pair = reports.setdefault(what.digest, {})
            pair[side] = report
            self.found.coverage.add(report)
            if len(pair) == len(SIDES):
                self.found.drawn += 1
                self._notice(what, pair[BASE], pair[HEAD])
            drop(report.folder)

    def _notice(self, what: Scenario, base: RunReport, head: RunReport) -> None:
        reports = (base, head)
        for side in (BASE, HEAD):
            for judgement in reports[side].broken:
                key = (judgement.finding.claim, judgement.finding.how)
                if sight(reports[1 - side], key).shows is False:
                    noticed = self._noticed.setdefault((key, side), Noticed(key, side))
                    if what not in noticed.scenarios:
                        noticed.add(what)

    def _run(
        self, tasks: Iterable[tuple[Scenario, int]], until: float | None = None
    ) -> Iterator[tuple[Scenario, int, RunReport]]:
        todo = ((task, functools.partial(self.sides[task[1]].run, task[0])) for task in tasks)
        for (what, side), report in run_tasks(self._pool, self.jobs, todo, self._until if until is None else until):
            if isinstance(report, RunReport):
                self._nothing_boots = 0
                self.progress.ran(report)
                yield what, side, report
            else:
                self._problem(report)

    def _problem(self, error: CouldNotDecide | ScenarioError) -> None:
        self._nothing_boots += 1
        if len(self.found.problems) < KEPT_UNDECIDED:
            self.found.problems.append(str(error))
            self.progress.problem(error)
        if isinstance(error, CouldNotDecide) and error.folder is not None:
            drop(error.folder)

    # --- what was noticed

    def _settle(self) -> int:
        """Look into what was noticed, what was seen most often first; how many things were."""
        looked = 0
        while not self._over() and (noticed := self._next()) is not None:
            looked += 1
            found = self._look_into(noticed)
            if found is not None:
                self.found.differences.append(found)
        return looked

    def _next(self) -> Noticed | None:
        """What to look into: what no difference explains yet, what was seen in most scenarios, the smallest first."""
        open_ = []
        for noticed in self._noticed.values():
            left = [what for what in noticed.scenarios if not self._explained(noticed, what)]
            if left and self._settled[noticed.key, noticed.side] < 2:
                open_.append(replace(noticed, scenarios=left))
        known = {(found.side, claim) for found in self.found.differences for claim in (found.key[0], *found.also)}
        open_.sort(key=lambda one: ((one.side, one.key[0]) in known, -one.seen, size(one.scenarios[0])))
        return open_[0] if open_ else None

    def _explained(self, noticed: Noticed, what: Scenario) -> bool:
        """Whether a difference that is reported has all that it takes in this scenario, and breaks the same claim."""
        return any(
            found.side == noticed.side and noticed.key[0] in (found.key[0], *found.also) and has(what, found.scenario)
            for found in self.found.differences
        )

    def _look_into(self, noticed: Noticed) -> Difference | None:
        found = self._asked_again(noticed)
        if found is not None or not self._over():  # what the end of the time cut short is left
            self._settled[noticed.key, noticed.side] += 1
        return found

    def _asked_again(self, noticed: Noticed) -> Difference | None:
        key, side = noticed.key, noticed.side
        self.progress.phase(f"look into {key[0]} on {SIDES[side]}", None)
        for what in noticed.scenarios:
            sights = self._sights(what, key, LOOK)
            _forget(sights)
            mine, other = (rate(sights[one]) for one in (side, 1 - side))
            if mine[0] >= 2 and mine[0] * other[1] - other[0] * mine[1] > 0.5 * mine[1] * other[1]:
                break
        else:
            self._unconfirmed(noticed, "not seen again")
            return None
        tries = 1 if mine[0] == mine[1] and other[0] == 0 else 2
        steps = [what, *self._shrink(what, key, side, tries)]
        for _ in range(3):
            found = self._test(steps[-1], key, side, noticed.seen)
            if found is not None:
                return found
            if len(steps) == 1:
                break
            del steps[-(len(steps) // 2) :]  # on the way a sure difference may have become a race
        self._unconfirmed(noticed, "seen again, but not often enough")
        return None

    def _unconfirmed(self, noticed: Noticed, why: str) -> None:
        if not self._over():
            key, side = noticed.key, noticed.side
            self.found.unconfirmed.append(f"{key[0]} ({key[1]}) on {SIDES[side]}: {why}")

    def _sights(self, what: Scenario, key: Key, tries: int) -> tuple[list[Sight], list[Sight]]:
        sights: tuple[list[Sight], list[Sight]] = ([], [])
        for _, side, report in self._run((what, side) for _ in range(tries) for side in (BASE, HEAD)):
            sights[side].append(sight(report, key))
        return sights

    def _shrink(self, what: Scenario, key: Key, side: int, tries: int) -> list[Scenario]:
        last = sum(one.launched for one in self.sides) + self.budget_launches

        def showing(batch: Sequence[Scenario]) -> list[Scenario]:
            # The side that breaks is asked first: most simpler scenarios do not, and then the other need not run.
            broken = self._all(batch, key, side, tries, shows=True)
            return self._all(broken, key, 1 - side, tries, shows=False)

        def go_on() -> bool:
            return not self._over() and sum(one.launched for one in self.sides) < last

        return descend(what, None, self.jobs, showing, lambda found: found, go_on)

    def _all(self, batch: Sequence[Scenario], key: Key, side: int, tries: int, *, shows: bool) -> list[Scenario]:
        """Those of a batch that show a key, or do not, in each of so many runs on a side."""
        agreed: Counter[str] = Counter()
        for what, _, report in self._run((one, side) for one in batch for _ in range(tries)):
            agreed[what.digest] += sight(report, key).shows is shows
            drop(report.folder)
        return [what for what in batch if agreed[what.digest] == tries]

    def _test(self, what: Scenario, key: Key, side: int, seen: int) -> Difference | None:
        """Whether a difference is one, on runs of its own: a first look, and a second if that did not settle it."""
        level = self._spending.next()
        tries = enough(level / 2)
        both: tuple[list[Sight], list[Sight]] = ([], [])
        for _ in range(2):
            more = self._sights(what, key, tries)
            for one, two in zip(both, more, strict=True):
                one.extend(two)
            rates = (rate(both[BASE]), rate(both[HEAD]))
            chance = fisher(rates[side], rates[1 - side])
            if chance <= level / 2:
                return self._difference(what, key, side, seen, both, chance, level)
            mine, other = rates[side], rates[1 - side]
            if mine[0] * other[1] <= other[0] * mine[1]:
                break
        _forget(both)
        return None

    def _difference(
        self,
        what: Scenario,
        key: Key,
        side: int,
        seen: int,
        both: tuple[list[Sight], list[Sight]],
        chance: float,
        level: float,
    ) -> Difference:
        shown = next(one for one in both[side] if one.shows and one.judgement is not None)
        assert shown.judgement is not None
        verdicts = tuple(_verdict([one.report for one in several], key[0]) for several in both)
        others = {j.finding.claim for one in both[side] for j in one.report.broken}
        also = []
        for claim in others - {key[0]}:
            counts = [sum(_broke(one.report, claim) for one in several) for several in both]
            if counts[side] == len(both[side]) and counts[1 - side] == 0:
                also.append(claim)
        _forget(both, but=shown)
        change = documented.find(what, shown.judgement.finding, *self.found.versions, SIDES[side])
        self.progress.found(shown.judgement, shown.report)
        return Difference(
            key, side, what, shown.judgement, shown.report, (rate(both[BASE]), rate(both[HEAD])),
            (verdicts[0], verdicts[1]), chance, level, seen, tuple(sorted(also)), change,
        )  # fmt: skip

    def _report_left(self) -> None:
        """What was noticed and not looked into, since the time was over."""
        for noticed in self._noticed.values():
            if not self._settled[noticed.key, noticed.side] and not all(
                self._explained(noticed, what) for what in noticed.scenarios
            ):
                told = f"{noticed.key[0]} ({noticed.key[1]}) on {SIDES[noticed.side]}"
                self.found.left.append(f"{told}, in {noticed.seen} scenarios")


def _forget(both: Sequence[Sequence[Sight]], *, but: Sight | None = None) -> None:
    for one in itertools.chain(*both):
        if one is not but:
            drop(one.report.folder)


def sight(report: RunReport, key: Key) -> Sight:
    """What a run shows of a key: broken in that way for some loop, or held or broken in another way for all."""
    told = [found for found in report.judgements if found.finding.claim == key[0]]
    for found in told:
        if found.finding.verdict is Verdict.BROKEN and found.finding.how == key[1]:
            return Sight(True, report, found)
    clear = told and all(found.finding.verdict in (Verdict.HELD, Verdict.BROKEN) for found in told)
    return Sight(False if clear else None, report)


def rate(sights: Sequence[Sight]) -> Rate:
    """How many show it, of how many that could tell."""
    told = [one.shows for one in sights if one.shows is not None]
    return sum(told), len(told)


def _broke(report: RunReport, claim: str) -> bool:
    return any(found.finding.claim == claim for found in report.broken)


def _verdict(reports: Sequence[RunReport], claim: str) -> Verdict:
    """What a claim came to in most runs."""
    counts: Counter[Verdict] = Counter()
    for report in reports:
        told = {found.finding.verdict for found in report.judgements if found.finding.claim == claim}
        for verdict in (Verdict.BROKEN, Verdict.UNKNOWN, Verdict.HELD):
            if verdict in told:
                counts[verdict] += 1
                break
    return counts.most_common(1)[0][0] if counts else Verdict.UNKNOWN


def has(what: Scenario, smaller: Scenario) -> bool:
    """Whether a scenario has all that a smaller one says: what is not at its default there stands here too.

    >>> from forkproof.scenario import Loop, Server
    >>> one = Scenario(loops=[Loop(name="a")], server=Server(workers=2))
    >>> other = Scenario(loops=[Loop(name="a"), Loop(name="b", kind="greenlet")], server=Server(workers=3))
    >>> has(other, one), has(one, other)
    (True, False)
    """
    return _within(_said(smaller), _said(what))


def _said(what: Scenario) -> dict[str, Any]:
    plain: dict[str, Any] = what.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for loop in plain["loops"]:
        for name in ("name", "policy"):
            loop.pop(name, None)
    return plain


def _within(small: Any, large: Any) -> bool:
    if isinstance(small, dict):
        return isinstance(large, dict) and all(name in large and _within(small[name], large[name]) for name in small)
    if isinstance(small, list):
        return isinstance(large, list) and all(any(_within(one, other) for other in large) for one in small)
    if isinstance(small, int | float) and not isinstance(small, bool) and isinstance(large, int | float):
        return large >= small
    return bool(small == large)
