"""Why a scenario fails, by experiment: its neighbours in one dimension are run, and what makes it hold is the cause.

The neighbours are read off the schema, so a dimension that is added is tried like the others. Each is run until it
fails or has held often enough for the rate of the failure. The cheapest change that makes it hold is the cure that is
offered.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from forkproof.dimensions import REQUIRED, Dimension, Members, Path, at, by_path, leaves, lists
from forkproof.judge import RunReport
from forkproof.scenario import PATCH_FLAGS, PatchSite, Scenario
from forkproof.simplify import DROP, changed
from forkproof.verdict import Verdict

DOUBT = 0.05
"""How likely it may be that what held so often still fails at the rate that was seen."""

MOST_RUNS = 12
"""Rarer races are left with more doubt than that."""


def runs_until_sound(rate: tuple[int, int]) -> int:
    """How often something must hold before it counts as sound, where `rate` (failed, tried) was seen before.

    >>> runs_until_sound((5, 5)), runs_until_sound((1, 2)), runs_until_sound((1, 20))
    (2, 5, 12)
    """
    failed, tried = rate
    # Laplace's rule: five failures of five do not say that it always fails.
    likely = (failed + 1) / (tried + 2)
    return min(MOST_RUNS, math.ceil(math.log(DOUBT) / math.log(1 - likely)))


class Cost(enum.IntEnum):
    """What a change takes, the cheapest first; the words are those of reports."""

    SETTING = 1
    START = 2
    FLAG = 3
    SITE = 4
    LOOP = 5
    KIND = 6
    SERVER = 7

    @property
    def words(self) -> str:
        """What is changed."""
        return _COSTS[self]


_COSTS = {
    Cost.SETTING: "a setting",
    Cost.START: "where the loop starts",
    Cost.FLAG: "a flag of patch_all",
    Cost.SITE: "where is patched",
    Cost.LOOP: "how app and loop are written",
    Cost.KIND: "the kind of the loop",
    Cost.SERVER: "the worker class or the number of workers",
}

# What a loop does and what happens to the server are given: to leave them out tells the cause, and is no cure.
_COST: dict[tuple[str, ...], Cost | None] = {
    ("server",): Cost.SETTING,
    ("server", "worker_class"): Cost.SERVER,
    ("server", "started_by"): Cost.SERVER,
    ("server", "workers"): Cost.SERVER,
    ("surroundings", "broker"): Cost.SETTING,
    ("surroundings", "log"): Cost.SETTING,
    ("surroundings", "requests"): None,
    ("patches",): Cost.SITE,
    ("patches", "flags"): Cost.FLAG,
    ("loops",): Cost.LOOP,
    ("loops", "start"): Cost.START,
    ("loops", "kind"): Cost.KIND,
    ("loops", "body"): None,
}

_COST_OF_ONE_LESS = {"patches": Cost.SITE, "surroundings": Cost.LOOP}

# What the user wants is no dimension of the deployment; how a fault is placed or a loop is parked is not varied.
_FIXED = frozenset({("loops", "policy")})
_VARIED = ("server", "surroundings", "loops", "patches")


@dataclass(frozen=True)
class Change:
    """One thing done differently. `words` tell what, `stands` what it is now; without a cost it is no cure.

    In `round` 0 each field is tried with one other value, in round 1 with another, and so on.
    """

    path: Path
    before: Any
    after: Any
    words: str
    stands: str
    cost: Cost | None
    round: int = 0


@dataclass(frozen=True)
class Trial:
    """What came of a change. `rate` is (failed, runs that could tell); `breaks` what held before and broke now."""

    change: Change
    verdict: Verdict
    rate: tuple[int, int]
    sure: bool
    how: str = ""
    breaks: tuple[str, ...] = ()
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON report, schema 1."""
        change = self.change
        return {
            "change": change.words,
            "path": ".".join(map(str, change.path)),
            "from": change.before,
            "to": change.after,
            "cost": change.cost.name.lower() if change.cost is not None else None,
            "verdict": self.verdict.value,
            "rate": list(self.rate),
            "sure": self.sure,
            "how": self.how,
            "breaks": list(self.breaks),
            "why": self.why,
        }


@dataclass(frozen=True)
class Cause:
    """What the neighbours of a failing scenario came to, in the order of trying; `untried` counts what was left."""

    trials: Sequence[Trial]
    launched: int = 0
    untried: int = 0

    @property
    def cures(self) -> list[Trial]:
        """The changes that make it hold and can be offered: those that break nothing else first, then by cost."""
        held = [trial for trial in self.of(Verdict.HELD) if trial.change.cost is not None]
        return sorted(held, key=lambda trial: (not trial.sure, bool(trial.breaks), trial.change.cost))

    @property
    def cure(self) -> Trial | None:
        """The one that is offered."""
        return next(iter(self.cures), None)

    def of(self, verdict: Verdict) -> list[Trial]:
        """The trials that came to a verdict."""
        return [trial for trial in self.trials if trial.verdict is verdict]

    def takes(self) -> list[str]:
        """What the failure needs: whatever stands where a change makes it hold, and what does as well."""
        found: dict[Path, list[Trial]] = {}
        for trial in self.trials:
            found.setdefault(trial.change.path, []).append(trial)
        held = {trial.change.path for trial in self.of(Verdict.HELD)}
        told = []
        for path, trials in found.items():
            # What is said of a part is said of the whole.
            if path in held and not any(other[: len(path)] == path and other != path for other in held):
                also = [_plainly(trial.change.after) for trial in trials if trial.verdict is Verdict.BROKEN]
                told.append(trials[0].change.stands + (f" (or {', '.join(also)})" if also else ""))
        return told

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON report, schema 1: `cause` and `cure` of a failure."""
        return {
            "cause": [trial.to_dict() for trial in self.trials],
            "cure": self.cure.to_dict() if self.cure is not None else None,
        }

    def lines(self) -> Iterator[str]:
        """What was found, as text: what it takes, what makes it hold, what does not, and the cure."""
        number = f"{len(self.trials)} changes, {self.launched} runs"
        left = f", {self.untried} not tried: the budget was spent" if self.untried else ""
        takes = self.takes()
        yield f"cause ({number}{left}): " + (f"it takes {', '.join(takes)}" if takes else "no one change makes it hold")
        for verdict, title in (
            (Verdict.HELD, "holds"), (Verdict.BROKEN, "still broken"),
            (Verdict.UNKNOWN, "unknown"), (Verdict.NOT_APPLICABLE, "not applicable"),
        ):  # fmt: skip
            if self.of(verdict):
                yield f"  {title} {'; '.join(_grouped(self.of(verdict)))}"
        cure = self.cure
        if cure is not None and cure.change.cost is not None:
            alike = [
                other
                for other in self.cures
                if (other.sure, other.breaks, other.change.cost) == (cure.sure, cure.breaks, cure.change.cost)
            ]
            doubt = "" if cure.sure else "; held too seldom to be sure"
            but = f"; but it breaks {', '.join(cure.breaks)}" if cure.breaks else ""
            yield f"cure: {' or '.join(_grouped(alike, rated=False))} ({cure.change.cost.words}{doubt}{but})"


Claimed = tuple[str, str | None]
"""A claim, and the loop that it is judged for."""


@dataclass
class _Neighbour:
    """A changed scenario and what its runs came to so far."""

    change: Change
    scenario: Scenario
    found: dict[Claimed, list[tuple[Verdict, str, str]]] = field(default_factory=dict)
    breaks: Counter[str] = field(default_factory=Counter)
    runs: int = 0

    def add(self, report: RunReport, asked: Iterable[Claimed], held: Iterable[Claimed]) -> None:
        self.runs += 1
        for key in asked:
            judgement = report.judgement(*key)
            if judgement is not None:
                finding = judgement.finding
                self.found.setdefault(key, []).append((finding.verdict, finding.how, finding.explanation))
        for key in held:
            judgement = report.judgement(*key)
            if judgement is not None and judgement.finding.verdict is Verdict.BROKEN:
                self.breaks[key[0] + (f" ({key[1]})" if key[1] else "")] += 1

    def settled(self, key: Claimed, needed: int) -> bool:
        """Whether more runs would tell no more: it broke, held often enough, or tells nothing."""
        verdicts = [verdict for verdict, _, _ in self.found.get(key, ())]
        silent = self.runs - sum(verdict in (Verdict.HELD, Verdict.BROKEN) for verdict in verdicts)
        return Verdict.BROKEN in verdicts or verdicts.count(Verdict.HELD) >= needed or silent >= 2

    def trial(self, key: Claimed, needed: int) -> Trial:
        found = self.found.get(key, [])
        broken = [how for verdict, how, _ in found if verdict is Verdict.BROKEN]
        held = sum(verdict is Verdict.HELD for verdict, _, _ in found)
        rate = (len(broken), len(broken) + held)
        breaks = tuple(self.breaks)
        if broken:
            return Trial(self.change, Verdict.BROKEN, rate, True, Counter(broken).most_common(1)[0][0], breaks)
        if held:
            return Trial(self.change, Verdict.HELD, rate, held >= needed, breaks=breaks)
        verdict, _, why = found[0] if found else (Verdict.UNKNOWN, "", "it was not judged")
        return Trial(self.change, verdict, rate, False, why=why)


def investigate(
    what: Scenario,
    asked: Mapping[Claimed, tuple[int, int]],
    run_all: Callable[[Sequence[Scenario]], Iterable[RunReport]],
    *,
    held: Iterable[Claimed] = (),
    can_run: Callable[[Scenario], bool] = lambda what: True,
    go_on: Callable[[], bool] = lambda: True,
    jobs: int = 1,
) -> dict[Claimed, Cause]:
    """Run the neighbours of a failing scenario, and tell the cause of each failure in `asked`, given with its rate.

    `held` is what held in the failing runs: a change that breaks it is told. Neighbours are run once each, round by
    round, and what held is run again until that says something, as long as `go_on()`.
    """
    needed = {key: runs_until_sound(rate) for key, rate in asked.items()}
    keep = {loop for _, loop in asked if loop is not None} or {loop.name for loop in what.loops[:1]}
    neighbours = [_Neighbour(change, other) for change, other in changes(what, keep=keep) if can_run(other)]
    by_digest = {neighbour.scenario.digest: neighbour for neighbour in neighbours}
    held = [key for key in held if key not in asked]

    def run(batch: Sequence[_Neighbour]) -> None:
        for report in run_all([neighbour.scenario for neighbour in batch]):
            by_digest[report.scenario.digest].add(report, asked, held)

    for part in itertools.groupby(neighbours, key=lambda neighbour: neighbour.change.round):
        several = list(part[1])
        for start in range(0, len(several), jobs):
            if go_on():
                run(several[start : start + jobs])
        for neighbour in several:
            while neighbour.runs and go_on() and not all(neighbour.settled(key, needed[key]) for key in asked):
                before = neighbour.runs
                run([neighbour] * jobs)
                if neighbour.runs == before:  # it cannot be run at all
                    break
    tried = [neighbour for neighbour in neighbours if neighbour.runs]
    launched = sum(neighbour.runs for neighbour in tried)
    return {
        key: Cause([neighbour.trial(key, needed[key]) for neighbour in tried], launched, len(neighbours) - len(tried))
        for key in asked
    }


def changes(what: Scenario, *, keep: Iterable[str] = ()) -> list[tuple[Change, Scenario]]:
    """The scenarios that differ in one thing, round by round, the cheapest changes first; the loops in `keep` stay.

    >>> changes(Scenario(loops=[{"name": "a"}]), keep="a")[0][0].words
    'with preload_app=True'
    """
    plain = what.to_dict()
    found: dict[str, tuple[Change, Scenario]] = {}
    of_field: Counter[Path] = Counter()
    for change, path, value in _changes(plain, set(keep)):
        other = changed(what, path, value)
        if other is not None and other != what and other.digest not in found:
            if len(other.faults) < len(what.faults) - (path[0] == "faults"):
                change = replace(change, words=f"{change.words} and without the faults that cannot be then")
            found[other.digest] = (replace(change, round=of_field[path] + _LATE * _rare(change)), other)
            of_field[path] += 1
    return sorted(found.values(), key=lambda pair: (pair[0].round, pair[0].cost or len(Cost) + 1))


_LATE = 100


def _rare(change: Change) -> bool:
    """What is least likely to matter: a number of seconds among the settings, a keyword other than `thread`."""
    number = isinstance(change.after, int | float) and not isinstance(change.after, bool)
    flag = change.path[2:3] == ("flags",) and change.path[-1] != "thread"
    return flag or (number and change.cost is Cost.SETTING)


def _changes(plain: dict[str, Any], keep: set[str]) -> Iterator[tuple[Change, Path, Any]]:
    for members in lists():
        for index, member in enumerate(at(plain, members.path)):
            path: Path = (*members.path, index)
            if members.path != ("loops",) or member["name"] not in keep:
                named, cost = _named(members, member), _COST_OF_ONE_LESS.get(members.path[0])
                yield Change(path, member, None, f"without {named}", named, cost), path, DROP
    if not plain["patches"]:
        for site in PatchSite:
            patched: list[dict[str, Any]] = [{"site": site.value, "flags": {}}]
            words = f"with patch_all() at {site.value}"
            yield Change(("patches",), [], patched, words, "no patch", Cost.SITE), ("patches",), patched
    for path, dimension in leaves(plain):
        if path[0] in _VARIED and dimension.path not in _FIXED and dimension.path[1:2] != ("flags",):
            before = at(plain, path)
            for value in _others(dimension, before):
                yield _change(plain, path, dimension.path, before, value), path, value
    for index, patch in enumerate(plain["patches"]):
        for flag in PATCH_FLAGS:
            path = ("patches", index, "flags", flag)
            dimension = by_path()["patches", "flags", flag]
            given = patch["flags"].get(flag)
            # A keyword's default is True, but for `sys`.
            value = (flag == "sys") if given is None else None
            change = _change(plain, path, dimension.path, given, value)
            yield change, path, DROP if value is None else value


def _others(dimension: Dimension, value: Any) -> list[Any]:
    """The values to try in place of one: all of a few; of many numbers the default, or of a whole one its double."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if dimension.values and not number:
        # What is farthest in the schema's order differs most, as do first request and config import.
        here = dimension.values.index(value)
        far = sorted(range(len(dimension.values)), key=lambda index: -abs(index - here))
        return [dimension.values[index] for index in far if index != here]
    if dimension.values:
        near = {min(other for other in dimension.values if other is not None), value - 1, value + 1} - {value}
        return [other for other in dimension.values if other in near]
    if value != dimension.default and dimension.default is not REQUIRED:
        return [dimension.default]
    return [2 * value] if isinstance(value, int) and number else []


def _change(plain: dict[str, Any], path: Path, abstract: tuple[str, ...], before: Any, after: Any) -> Change:
    return Change(path, before, after, _words(plain, path, after), _stands(plain, path, before), _cost(abstract))


def _cost(abstract: tuple[str, ...]) -> Cost | None:
    for length in range(len(abstract), 0, -1):
        if abstract[:length] in _COST:
            return _COST[abstract[:length]]
    return Cost.LOOP


def _words(plain: dict[str, Any], path: Path, value: Any) -> str:
    """How the changed deployment is told."""
    owner = path[0]
    if owner == "loops":
        name = plain["loops"][path[1]]["name"]
        if path[2] == "start":
            return f"when {name!r} starts in {value}"
        return f"when {name!r} has {_field(path)}={_plainly(value)}"
    if owner == "patches":
        site = plain["patches"][path[1]]["site"]
        several = f" at {site}" if len(plain["patches"]) > 1 else ""
        if path[2] == "site":
            return f"when patched, instead of at {site}, at {value}" if several else f"when patched at {value}"
        return f"with {path[3]} at its default{several}" if value is None else f"with {path[3]}={value}{several}"
    return f"with {_field(path)}={_plainly(value)}"


def _stands(plain: dict[str, Any], path: Path, value: Any) -> str:
    """What there is now, where a change would be."""
    owner = path[0]
    if owner == "loops":
        name = plain["loops"][path[1]]["name"]
        with_value = f"{name!r} with {_field(path)}={_plainly(value)}"
        return f"{name!r} started in {value}" if path[2] == "start" else with_value
    if owner == "patches":
        site = plain["patches"][path[1]]["site"]
        if path[2] == "site":
            return f"a patch at {site}"
        return f"{path[3]} patched at {site}" if value is None else f"{path[3]}={value} at {site}"
    return f"{_field(path)}={_plainly(value)}"


def _field(path: Path) -> str:
    """A field by its own name; gunicorn's, where it has another."""
    own = [str(part) for part in path if isinstance(part, str)][1:]
    return {"preload": "preload_app"}.get(own[0], ".".join(own))


def _plainly(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _named(members: Members, member: dict[str, Any]) -> str:
    """A member of a list, by what it is called."""
    if members.path == ("patches",):
        return f"the patch at {member['site']}"
    word = next((value for value in member.values() if isinstance(value, str)), "")
    return f"{members.path[-1].removesuffix('s').replace('_', ' ')} {word!r}"


def _grouped(trials: Sequence[Trial], *, rated: bool = True) -> list[str]:
    """The words of changes; several of one field are told in one go."""
    groups: dict[Path, list[str]] = {}
    for trial in trials:
        change = trial.change
        keywords = change.path[2:3] == ("flags",)  # of one patch: told as if they were one field
        told = groups.setdefault(change.path[:3] if keywords else change.path, [])
        words = change.words
        if told:
            words = words.partition(" ")[2] if keywords else _plainly(change.after)
        told.append(words + (_rated(trial) if rated else ""))
    return [", ".join(told) for told in groups.values()]


def _rated(trial: Trial) -> str:
    """How often it failed or held, where that is not simply always."""
    failed, tried = trial.rate
    told = []
    if trial.verdict is Verdict.BROKEN and failed < tried:
        told.append(f"{failed} of {tried}")
    if trial.verdict is Verdict.HELD:
        told.append(f"{tried - failed} of {tried}")
        told += [f"but breaks {broken}" for broken in trial.breaks]
    return f" ({', '.join(told)})" if told else ""
