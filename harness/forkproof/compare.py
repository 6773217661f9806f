"""Two targets, the same scenarios: what one of them breaks and the other does not.

What differs in a first run is only noticed. It is run again, and then put to a test on runs of its own
(`forkproof.rates`), so that a race that broke on one side by chance is not reported. What passed is brought down to the
smallest scenario that still differs and passes such a test, too. What comes with the same symptoms is told together.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from forkproof import aim, documented
from forkproof.claims import REGISTRY
from forkproof.claims.base import number
from forkproof.coverage import Coverage, Universe, universe
from forkproof.errors import CouldNotDecide, ScenarioError
from forkproof.explore import GIVE_UP, KEPT_UNDECIDED, Progress, drop, run_tasks, size
from forkproof.judge import Judgement, RunReport
from forkproof.rates import Rate, Spending, enough, fisher
from forkproof.scenario import Scenario
from forkproof.session import Session
from forkproof.simplify import descend
from forkproof.target import Target, uses
from forkproof.verdict import Verdict

LEVEL = 0.05
"""The chance that a whole comparison reports any difference where there is none."""

BATCH = 8
"""So many scenarios are run on both sides before what they showed is looked into."""

LOOK = 3
"""At most so many runs a side tell whether something noticed is put to a test."""

SHARE = 0.5
"""The part of the time that scenarios are run for, as long as what they showed is not all looked into."""

LAST = 0.25
"""The last part of the time, in which nothing new is looked for while anything is open."""

BASE, HEAD = 0, 1
SIDES = ("base", "head")

Key = tuple[str, str, str | None]
"""What may differ: a claim, the way in which it broke, and the loop for which, where it is judged for each."""

Symptom = tuple[int, str, str]
"""A side, a claim that breaks there, and the way in which it does."""


@dataclass(frozen=True)
class Sight:
    """What one run of a side showed of a key: whether it did, None where it could not tell."""

    shows: bool | None
    report: RunReport
    judgement: Judgement | None = None


@dataclass
class Noticed:
    """Something that broke on one side and not on the other, in so many scenarios; the smallest of them.

    `looked` has how many scenarios had shown it, each time that it was looked into; `beside` what came with it.
    """

    key: Key
    side: int
    scenarios: list[Scenario] = field(default_factory=list)
    seen: int = 0
    looked: list[int] = field(default_factory=list)
    beside: set[Symptom] = field(default_factory=set)

    @property
    def is_open(self) -> bool:
        """Whether it is to be looked into: never so far, or once, and it was seen again."""
        return not self.looked or (len(self.looked) == 1 and self.seen > self.looked[0])

    def add(self, what: Scenario, beside: Iterable[Symptom]) -> None:
        """Count one more."""
        self.seen += 1
        self.beside.update(beside)
        self.scenarios = sorted([*self.scenarios, what], key=size)[:3]


@dataclass(frozen=True)
class Difference:
    """A difference that passed its test: the smallest scenario, how often it breaks on either side, and the test.

    `apart` is what every run of one side showed, and none of the other, this difference among it. `after` has the
    seconds and the servers after which it had passed; `is_small` tells whether simpler scenarios were tried.
    """

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
    apart: frozenset[Symptom] = frozenset()
    change: documented.Change | None = None
    after: tuple[float, int] = (0.0, 0)
    is_small: bool = False

    @property
    def also(self) -> tuple[str, ...]:
        """The other claims that break with it."""
        return tuple(sorted({claim for side, claim, _ in self.apart if side == self.side} - {self.key[0]}))

    @property
    def name(self) -> str:
        """Regression, fixed, documented; unclassified where the claim breaks on both sides, in another way.

        A fix that was announced is one all the same.
        """
        if self.change is not None:
            return "documented" if self.side == HEAD else "fixed"
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
            "after": {"seconds": round(self.after[0], 1), "launched": self.after[1]},
            "is_small": self.is_small,
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

    def groups(self) -> list[list[Difference]]:
        """The differences by cause, as far as it can be told: what came with the same symptom is put together."""
        found: list[list[Difference]] = []
        for one in self.differences:
            together = [group for group in found if any(one.apart & other.apart for other in group)]
            found = [group for group in found if group not in together] + [[*itertools.chain(*together), one]]
        return sorted(found, key=lambda group: group[0].after)

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
            "failures": [
                {**difference.to_dict(), "group": number}
                for number, group in enumerate(self.groups(), start=1)
                for difference in group
            ],
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
        self._differ = differing(base.target, head.target)
        self._pool = concurrent.futures.ThreadPoolExecutor(jobs, thread_name_prefix="run")
        self._spending = Spending(LEVEL)
        self._noticed: dict[tuple[Key, int], Noticed] = {}
        self._took: dict[str, float] = {}
        self._nothing_boots = 0
        self._taken = 0
        self._more = True
        self._begun = 0.0
        self._until: float | None = None

    def can_run(self, what: Scenario) -> bool:
        """Whether both sides have what a scenario needs, and it uses anything of what differs between them."""
        return all(side.can_run(what) for side in self.sides) and (not self._differ or bool(self._differ & uses(what)))

    def compare(self, n: int | None = None, seconds: float | None = None) -> Comparison:
        """Run `n` scenarios on both sides, or go on for so many seconds, and look into what differs.

        Ctrl-C ends it early: what is running is ended, and what was confirmed by then is returned.
        """
        self._begun = time.monotonic()
        self._until = self._begun + seconds if seconds is not None else None
        words = aim.changed_words(self.sides[BASE].target, self.sides[HEAD].target)
        plan = aim.scenarios(n if n is not None else 100_000, self.seed, self.can_run, words)
        last = self._begun + (1 - LAST) * seconds if seconds is not None else None
        exploring = looking_into = 0.0
        try:
            while self._nothing_boots < GIVE_UP and not self._over():
                now = time.monotonic()
                step = self._step()
                late = last is None or now >= last
                if step is not None and (late or not self._more or looking_into * SHARE <= exploring * (1 - SHARE)):
                    step()
                    looking_into += time.monotonic() - now
                elif self._more:
                    self.progress.phase("compare", 2 * (BATCH if n is None else min(BATCH, n - self._taken)))
                    self._explore(plan, None if late else last)
                    exploring += time.monotonic() - now
                else:
                    break
        except KeyboardInterrupt:
            self.found.interrupted = True
            for side in self.sides:
                side.stop.set()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._report_left()
        self.found.launched = sum(side.launched for side in self.sides)
        self.found.seconds = time.monotonic() - self._begun
        self.found.can_run = self.can_run
        asked = self.sides[BASE].claims
        self.found.judged = [name for name in REGISTRY if asked is None or name in asked]
        self.found.tests = self._spending.tests
        return self.found

    def _over(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _explore(self, plan: Iterator[Scenario], until: float | None) -> None:
        """Run the next scenarios of the plan on both sides, none begun after `until`; what is not taken is left."""
        reports: dict[str, dict[int, RunReport]] = {}

        def tasks() -> Iterator[tuple[Scenario, int]]:
            for _ in range(BATCH):
                what = next(plan, None)
                if what is None:
                    self._more = False
                    return
                self._taken += 1
                yield from ((what, side) for side in (BASE, HEAD))

        for what, side, report in self._run(tasks(), until):
            pair = reports.setdefault(what.digest, {})
            pair[side] = report
            self.found.coverage.add(report)
            if len(pair) == len(SIDES):
                self.found.drawn += 1
                self._notice(what, pair[BASE], pair[HEAD])
            drop(report.folder)

    def _notice(self, what: Scenario, base: RunReport, head: RunReport) -> None:
        reports = (base, head)
        keys = [
            (key, side)
            for side in (BASE, HEAD)
            for key in _keys(reports[side])
            if sight(reports[1 - side], key).shows is False
        ]
        for key, side in keys:
            noticed = self._noticed.setdefault((key, side), Noticed(key, side))
            if what not in noticed.scenarios:
                noticed.add(what, (_symptom(*one) for one in keys))

    def _run(
        self, tasks: Iterable[tuple[Scenario, int]], until: float | None = None
    ) -> Iterator[tuple[Scenario, int, RunReport]]:
        todo = ((task, functools.partial(self._timed, *task)) for task in tasks)
        for (what, side), report in run_tasks(self._pool, self.jobs, todo, self._until if until is None else until):
            if isinstance(report, RunReport):
                self._nothing_boots = 0
                self.progress.ran(report)
                yield what, side, report
            else:
                self._problem(report)

    def _timed(self, what: Scenario, side: int) -> RunReport:
        begun = time.monotonic()
        report = self.sides[side].run(what)
        self._took[what.digest] = time.monotonic() - begun
        return report

    def _problem(self, error: CouldNotDecide | ScenarioError) -> None:
        self._nothing_boots += 1
        if len(self.found.problems) < KEPT_UNDECIDED:
            self.found.problems.append(str(error))
            self.progress.problem(error)
        if isinstance(error, CouldNotDecide) and error.folder is not None:
            drop(error.folder)

    # --- what was noticed

    def _step(self) -> Callable[[], None] | None:
        """What to look into next, if there is anything.

        First what is of a new kind, so that much is confirmed soon; then the smallest scenario of what is confirmed,
        which may explain the rest; then what breaks a claim that a difference breaks too, or came with one.
        """
        noticed, is_new = self._next()
        if noticed is not None and is_new:
            return functools.partial(self._look_into, noticed)
        large = next((number for number, found in enumerate(self.found.differences) if not found.is_small), None)
        if large is not None:
            return functools.partial(self._make_small, large)
        return functools.partial(self._look_into, noticed) if noticed is not None else None

    def _next(self) -> tuple[Noticed | None, bool]:
        """What no difference explains, and whether it is of a new kind: what was seen most, and runs fastest, first."""
        open_ = []
        for noticed in self._noticed.values():
            if noticed.is_open and (left := self._left(noticed)):
                open_.append((noticed, left))
        symptoms = {symptom for found in self.found.differences for symptom in found.apart}
        claims = {(side, claim) for side, claim, _ in symptoms}

        def order(one: tuple[Noticed, list[Scenario]]) -> tuple[bool, int, int, int]:
            noticed, left = one
            took = self._took.get(left[0].digest, 0.0)
            known = (noticed.side, noticed.key[0]) in claims or bool(noticed.beside & symptoms)
            return known, -noticed.seen, round(math.log2(1 + took)), size(left[0])

        best = min(open_, key=order, default=None)
        return (None, False) if best is None else (best[0], not order(best)[0])

    def _explained(self, noticed: Noticed, what: Scenario) -> bool:
        """Whether a difference that is reported has all that it takes in this scenario, and breaks the same claim."""
        return any(
            found.side == noticed.side and noticed.key[0] in (found.key[0], *found.also) and has(what, found.scenario)
            for found in self.found.differences
        )

    def _look_into(self, noticed: Noticed) -> None:
        """See whether something noticed is a difference."""
        key, side = noticed.key, noticed.side
        self.progress.phase(f"look into {key[0]} on {SIDES[side]}", None)
        found = None
        what = next((what for what in self._left(noticed) if self._shows_again(what, key, side)), None)
        if what is not None:
            found = self._test(what, key, side, noticed.seen)
        if found is not None:
            self.found.differences.append(found)
            self.progress.found(found.judgement, found.report)
        elif self._over():  # what the end of the time cut short is left
            return
        else:
            why = "not seen again" if what is None else "seen again, but not often enough"
            self.found.unconfirmed.append(f"{_told(key, side)}: {why}")
        noticed.looked.append(noticed.seen)

    def _left(self, noticed: Noticed) -> list[Scenario]:
        return [what for what in noticed.scenarios if not self._explained(noticed, what)]

    def _shows_again(self, what: Scenario, key: Key, side: int) -> bool:
        """Whether it is worth a test: it shows twice, in three runs at most, and much less on the other side."""
        sights: tuple[list[Sight], list[Sight]] = ([], [])
        for tries in (2, LOOK - 2):
            for one, more in zip(sights, self._sights(what, key, tries), strict=True):
                one.extend(more)
            mine, other = (rate(sights[one]) for one in (side, 1 - side))
            if mine[0] <= other[0] or (mine[0] == 2 and other[0] == 0):
                break
        _forget(sights)
        return mine[0] >= 2 and mine[0] * other[1] - other[0] * mine[1] > 0.5 * mine[1] * other[1]

    def _make_small(self, number: int) -> None:
        """Bring a difference down to a simpler scenario that passes a test of its own."""
        found = self.found.differences[number]
        key, side = found.key, found.side
        self.progress.phase(f"a simpler scenario for {key[0]} on {SIDES[side]}", None)
        mine, other = found.rates[side], found.rates[1 - side]
        steps = self._shrink(found.scenario, key, side, 1 if mine[0] == mine[1] and other[0] == 0 else 2)
        for _ in range(3):
            if not steps:
                break
            smaller = self._test(steps[-1], key, side, found.seen)
            if smaller is not None:
                drop(found.report.folder)
                found = replace(smaller, after=found.after)
                break
            del steps[-(len(steps) // 2 + 1) :]  # on the way a sure difference may have become a race
        self.found.differences[number] = replace(found, is_small=True)

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

        return descend(what, key[2], self.jobs, showing, lambda found: found, go_on)

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
        verdicts = tuple(_verdict([one.report for one in several], key) for several in both)
        _forget(both, but=shown)
        change = documented.find(what, shown.judgement.finding, *self.found.versions, SIDES[side])
        after = time.monotonic() - self._begun, sum(one.launched for one in self.sides)
        return Difference(
            key, side, what, shown.judgement, shown.report, (rate(both[BASE]), rate(both[HEAD])),
            (verdicts[0], verdicts[1]), chance, level, seen, apart(both) | {_symptom(key, side)}, change, after,
        )  # fmt: skip

    def _report_left(self) -> None:
        """What was noticed and not looked into, since the time was over."""
        for noticed in self._noticed.values():
            if not noticed.looked and self._left(noticed):
                self.found.left.append(f"{_told(noticed.key, noticed.side)}, in {number(noticed.seen, 'scenario')}")


def differing(base: Target, head: Target) -> set[str]:
    """The packages of which the targets have different versions; empty where every scenario may tell them apart."""
    if base.python != head.python:
        return set()
    names = base.versions.keys() | head.versions.keys()
    return {name for name in names if base.versions.get(name) != head.versions.get(name)}


def _told(key: Key, side: int) -> str:
    claim, how, loop = key
    return f"{claim} ({how}){f' of {loop}' if loop else ''} on {SIDES[side]}"


def _forget(both: Sequence[Sequence[Sight]], *, but: Sight | None = None) -> None:
    for one in itertools.chain(*both):
        if one is not but:
            drop(one.report.folder)


def sight(report: RunReport, key: Key) -> Sight:
    """What a run shows of a key: broken in that way, or held or broken in another way."""
    told = [found for found in report.judgements if _is_about(found, key)]
    for found in told:
        if found.finding.verdict is Verdict.BROKEN and found.finding.how == key[1]:
            return Sight(True, report, found)
    clear = told and all(found.finding.verdict in (Verdict.HELD, Verdict.BROKEN) for found in told)
    return Sight(False if clear else None, report)


def _is_about(found: Judgement, key: Key) -> bool:
    return (found.finding.claim, found.finding.loop) == (key[0], key[2])


def rate(sights: Sequence[Sight]) -> Rate:
    """How many show it, of how many that could tell."""
    told = [one.shows for one in sights if one.shows is not None]
    return sum(told), len(told)


def apart(both: Sequence[Sequence[Sight]]) -> frozenset[Symptom]:
    """What every run of one side showed, and no run of the other."""
    shown = [[{(claim, how) for claim, how, _ in _keys(one.report)} for one in several] for several in both]
    return frozenset(
        (side, claim, how)
        for side in (BASE, HEAD)
        for claim, how in set.intersection(*shown[side]).difference(*shown[1 - side])
    )


def _keys(report: RunReport) -> list[Key]:
    return [(found.finding.claim, found.finding.how, found.finding.loop) for found in report.broken]


def _symptom(key: Key, side: int) -> Symptom:
    return side, key[0], key[1]


def _verdict(reports: Sequence[RunReport], key: Key) -> Verdict:
    """What a claim came to in most runs."""
    told = (found.finding.verdict for report in reports for found in report.judgements if _is_about(found, key))
    counts = Counter(verdict for verdict in told if verdict is not Verdict.NOT_APPLICABLE)
    return max(counts, key=lambda verdict: (counts[verdict], verdict is Verdict.BROKEN), default=Verdict.UNKNOWN)


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
