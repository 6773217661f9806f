"""What a campaign exercised: values of each dimension, pairs of values, claims; and what was vacuous.

A value counts as exercised where what it says came about (the fault landed, the loop was created, the patch was made)
in a run that decided some claim. A pair is two values of different dimensions in one run; of two members of one list,
such as two loops, it takes values of the same one.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from forkproof.dimensions import Dimension, at, dimensions, leaves, lists, minimal, name_of
from forkproof.faults import REGISTRY
from forkproof.faults.life import MOST
from forkproof.judge import RunReport
from forkproof.scenario import Scenario
from forkproof.verdict import Verdict

MOST_REASONS = 200
"""How many different reasons are kept; a long campaign must not grow by what its runs say."""

FIRST = 20
"""How many of the pairs that were not met are named."""

Value = tuple[str, str]
"""A dimension and one of its values, as reports name them."""

Pair = tuple[Value, Value]

NONE = "none"


@dataclass(frozen=True)
class Vacuous:
    """A value or a claim that was not exercised, and why."""

    what: Value
    drawn: int
    why: str

    def __str__(self) -> str:
        return "=".join(self.what)


@dataclass(frozen=True)
class Universe:
    """What a target could be made to run."""

    values: Sequence[Value] = ()
    pairs: frozenset[Pair] = frozenset()


@dataclass
class Coverage:
    """Counts over the runs of one campaign."""

    claims: dict[str, Counter[str]] = field(default_factory=dict)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: dict[tuple[str, Verdict], Counter[str]] = field(default_factory=dict)
    exercised: set[Value] = field(default_factory=set)
    pairs: set[Pair] = field(default_factory=set)
    outcomes: dict[Value, dict[str, Counter[str]]] = field(default_factory=dict)
    """How often each claim came to what where a value came about; `surprise` counts those of them that surprised."""

    def add(self, report: RunReport) -> None:
        """Count a run."""
        decided = False
        for judgement in report.judgements:
            finding = judgement.finding
            decided |= finding.verdict in (Verdict.HELD, Verdict.BROKEN)
            self.claims.setdefault(finding.claim, Counter())[finding.verdict.value] += 1
            if finding.verdict in (Verdict.UNKNOWN, Verdict.NOT_APPLICABLE):
                self._reason((finding.claim, finding.verdict), reason(finding.explanation))
        found = list(values_of(report.scenario))
        for (name, value), _ in found:
            self.values.setdefault(name, Counter())[value] += 1
        came = [(value, member) for value, member in found if member not in report.missed]
        self._outcomes(report, came)
        if decided:
            self.exercised |= {value for value, _ in came}
            self.pairs |= set(_pairs(came))

    def _outcomes(self, report: RunReport, came: Iterable[tuple[Value, str]]) -> None:
        loops = {loop.name: f"loops.{number}" for number, loop in enumerate(report.scenario.loops)}
        # What is judged for one loop tells nothing of another one's values.
        about: dict[str | None, set[Value]] = {None: {value for value, _ in came}}
        for name, own in loops.items():
            about[name] = {value for value, member in came if member == own or not member.startswith("loops.")}
        for judgement in report.judgements:
            finding = judgement.finding
            if finding.verdict is not Verdict.NOT_APPLICABLE:
                for value in about.get(finding.loop, about[None]):
                    counts = self.outcomes.setdefault(value, {}).setdefault(finding.claim, Counter())
                    counts[finding.verdict.value] += 1
                    if judgement.surprise:
                        counts["surprise"] += 1

    def _reason(self, key: tuple[str, Verdict], why: str) -> None:
        known = self.reasons.setdefault(key, Counter())
        known[why if why in known or len(known) < MOST_REASONS else "other reasons"] += 1

    def unknown(self) -> Counter[str]:
        """Why claims were not decided, with how often."""
        return Counter(
            {
                f"{claim}: {why}": times
                for (claim, verdict), reasons in self.reasons.items()
                if verdict is Verdict.UNKNOWN
                for why, times in reasons.items()
            }
        )

    def vacuous_claims(self, names: Iterable[str]) -> list[Vacuous]:
        """The claims of `names` that were neither held nor broken in any run, with the most common reason."""
        found = []
        for name in names:
            counts = self.claims.get(name, Counter())
            if counts["held"] + counts["broken"] == 0:
                why: Counter[str] = Counter()
                for verdict in (Verdict.UNKNOWN, Verdict.NOT_APPLICABLE):
                    for text, times in self.reasons.get((name, verdict), Counter()).items():
                        why[f"{verdict.value.replace('_', ' ')}: {text}"] += times
                most = why.most_common(1)
                found.append(Vacuous((name,) * 2, sum(counts.values()), most[0][0] if most else "never judged"))
        return found

    def vacuous_values(self, universe: Universe) -> list[Vacuous]:
        """The values that the target could run and that were not exercised."""
        found = []
        for value in universe.values:
            if value not in self.exercised:
                drawn = self.values.get(value[0], Counter())[value[1]]
                why = "drawn, but never came about in a run that decided anything" if drawn else "never drawn"
                found.append(Vacuous(value, drawn, why))
        return found

    def missing_pairs(self, universe: Universe) -> list[Pair]:
        """The pairs of values that could be run and were not, those of values that were exercised alone first."""
        missing = sorted(universe.pairs - self.pairs)
        return sorted(missing, key=lambda pair: sum(value not in self.exercised for value in pair))

    def to_dict(self, universe: Universe, names: Iterable[str]) -> dict[str, Any]:
        """As in the JSON report, schema 1."""
        missing = self.missing_pairs(universe)
        return {
            "claims": {name: dict(counts) for name, counts in self.claims.items()},
            "values": {name: dict(counts) for name, counts in self.values.items()},
            "by_value": self._by_value(),
            "pairs": {
                "seen": len(universe.pairs) - len(missing),
                "possible": len(universe.pairs),
                "missing": [["=".join(one), "=".join(other)] for one, other in missing[:FIRST]],
            },
            "vacuous": {
                "values": [
                    {"dimension": gap.what[0], "value": gap.what[1], "drawn": gap.drawn, "why": gap.why}
                    for gap in self.vacuous_values(universe)
                ],
                "claims": [
                    {"claim": gap.what[0], "judged": gap.drawn, "why": gap.why} for gap in self.vacuous_claims(names)
                ],
            },
        }

    def _by_value(self) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
        found: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
        for name, values in self.values.items():
            for value in sorted(values):
                claims = self.outcomes.get((name, value))
                if claims:
                    found.setdefault(name, {})[value] = {claim: dict(counts) for claim, counts in claims.items()}
        return found


def values_of(what: Scenario) -> Iterator[tuple[Value, str]]:
    """The values that a scenario has, each with the list member that it belongs to ("" for none).

    >>> dict(value for value, member in values_of(Scenario(loops=[{"name": "a"}])) if member == "loops.0")["loop.kind"]
    'thread'
    """
    plain = what.to_dict()
    for path, dimension in leaves(plain):
        position = next((index for index, part in enumerate(path) if isinstance(part, int)), -1)
        yield (dimension.name, _said(dimension, at(plain, path))), ".".join(map(str, path[: position + 1]))
    for members in lists():
        count = len(at(plain, members.path))
        yield (members.path[-1], str(count)), ""
        if count == 0:
            yield (_first(members.path), NONE), ""


def pairs_of(what: Scenario) -> set[Pair]:
    """The pairs of values that a scenario has."""
    return set(_pairs(list(values_of(what))))


def reason(explanation: str) -> str:
    """An explanation without what differs from run to run.

    >>> reason("only 12 of 40 turns from +1.20s; birth id 9f3a11c0")
    'only N of N turns from +Ns; birth id N'
    """
    return re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{6,}\b|\d+(?:\.\d+)?", "N", explanation)


def universe(can_run: Callable[[Scenario], bool]) -> Universe:
    """The values that some scenario has which can be and can be run, and the pairs of them; takes a second or two."""
    return _Builder(can_run).build()


class _Builder:
    """Finds by trial which values, and which two, some scenario has: no rule is written down twice."""

    def __init__(self, can_run: Callable[[Scenario], bool]) -> None:
        self.can_run = can_run
        self.by_value = {
            (dimension.name, _said(dimension, value)): (dimension, value)
            for dimension in dimensions()
            for value in _listed(dimension)
        }
        self.empty = {(_first(members.path), NONE): members.path for members in lists() if members.least == 0}

    def build(self) -> Universe:
        every = [*self.by_value, *self.empty]
        alone = {value: self.can_be([value]) for value in every}
        runs = [value for value in every if alone[value]]
        needs: dict[Value, tuple[Value, ...]] = dict.fromkeys(runs, ())
        for value in every:
            if alone[value]:
                continue
            # Where a value can be said alone and not run, what is amiss may be what its member had to say beside it.
            unsaid = alone[value] is None
            for others in self.company(value, runs) if unsaid else self.kin(value, runs):
                able = self.can_be([*others, value])
                if able:
                    needs[value] = others
                if able or (unsaid and able is not None):
                    break
        pairs = {
            tuple(sorted((one, other)))
            for one, other in itertools.combinations(needs, 2)
            if one[0] != other[0] and self.meet(one, other, needs)
        }
        return Universe(sorted(needs), frozenset(pairs))  # type: ignore[arg-type]

    def company(self, value: Value, alone: Iterable[Value]) -> Iterator[tuple[Value, ...]]:
        """What may have to be said beside a value: one other thing, or two."""
        others = [other for other in alone if other[0] != value[0]]
        yield from ((other,) for other in others)
        near = [other for other in self.by_value if other[0] != value[0] and self.near(other, value)]
        yield from itertools.permutations(near, 2)

    def kin(self, value: Value, alone: Collection[Value]) -> Iterator[tuple[Value, ...]]:
        """Values of the other fields of a list's member."""
        place = [self.by_value[one][0].path[:-1] if one in self.by_value else None for one in (value, *alone)]
        return ((other,) for other, here in zip(alone, place[1:], strict=True) if here and here == place[0])

    def near(self, one: Value, other: Value) -> bool:
        owner = self.by_value[one][0].owner
        return owner == "server" or (other in self.by_value and owner == self.by_value[other][0].owner)

    def meet(self, one: Value, other: Value, needs: dict[Value, tuple[Value, ...]]) -> bool:
        tries = dict.fromkeys([(), needs[one], needs[other], needs[one] + needs[other], needs[other] + needs[one]])
        if any(self.can_be([*before, one, other]) for before in tries):
            return True
        # What two values of one loop need only when they meet, the server has, as preload has the app early.
        if not {one, other} <= self.by_value.keys() or {self.owner(one), self.owner(other)} != {"loops"}:
            return False
        servers = (value for value in self.by_value if self.owner(value) == "server")
        return any(self.can_be([server, one, other]) for server in servers)

    def owner(self, value: Value) -> str:
        return self.by_value[value][0].owner

    def can_be(self, values: Sequence[Value]) -> bool | None:
        """Whether the target can run a scenario that has these values; None where there is no such scenario."""
        plain: dict[str, Any] = {"loops": [{"name": "a"}]}
        for value in values:
            self.put(plain, value)
        able = None
        for variant in _variants(plain):
            what = self.scenario(variant, values)
            if what is not None:
                able = self.can_run(what)
                if able:
                    break
        return able

    def scenario(self, plain: dict[str, Any], values: Sequence[Value]) -> Scenario | None:
        try:
            what = Scenario.model_validate(plain)
        except ValidationError:
            return None
        # Whoever says more of a list than that it is empty, fills it.
        filled = (value in self.empty and functools.reduce(getattr, self.empty[value], what) for value in values)
        return None if any(filled) else what

    def put(self, plain: dict[str, Any], value: Value) -> None:
        if value in self.empty:
            return
        dimension, wanted = self.by_value[value]
        inner: Any = plain
        before: tuple[str, ...] = ()
        for part in dimension.path[:-1]:
            before = (*before, part)
            members = next((members for members in lists() if members.path == before), None)
            if members is not None:
                if not inner.get(part):
                    inner[part] = [minimal(members)]
                inner = inner[part][0]
            else:
                inner[part] = inner.get(part) or {}
                inner = inner[part]
        inner[dimension.path[-1]] = wanted


def _variants(plain: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A scenario, and it with what it may need beside it.

    A park may need another loop than the first; a fault more workers than it began with, or more yet; or one fewer.
    """
    parked = [{**plain, "loops": [*plain["loops"], _PARKED], "parks": [{**park, "who": _PARKED["name"]}]}
              for park in plain.get("parks", ())[:1]]  # fmt: skip
    for one in (plain, *parked):
        yield one
        for fault in one.get("faults", ())[:1]:
            scene = REGISTRY[fault["fault"]].scene
            more = scene.get("loops", [])
            before = [*([{"fault": "ttin"}] * workers for workers in range(MOST)), [{"fault": "ttou"}]]
            for loops, changes in itertools.product((more, *([loop] for loop in more)), before):
                yield {
                    **one,
                    "loops": [*one["loops"], *loops],
                    "server": {**scene.get("server", {}), **one.get("server", {})},
                    "faults": changes + one["faults"],
                }


_PARKED = {"name": "parked", "body": "get_message"}


def _listed(dimension: Dimension) -> Iterable[Any]:
    if dimension.path[1:2] == ("flags",):
        # A keyword matters where it is not at its default, which is True for all but one.
        return (dimension.path[-1] == "sys",)
    return dimension.values


def _said(dimension: Dimension, value: Any) -> str:
    if dimension.path[1:2] == ("flags",):
        return f"{dimension.path[-1]}={value}"
    if isinstance(value, bool):
        return str(value).lower()
    return NONE if value is None else str(value)


def _first(path: tuple[str, ...]) -> str:
    """What an empty list is told by: the first field that its members must have."""
    required = next((one for one in dimensions() if one.path[:-1] == path), None)
    return name_of(path) if required is None else required.name


def _pairs(found: Sequence[tuple[Value, str]]) -> Iterator[Pair]:
    for (one, here), (other, there) in itertools.combinations(found, 2):
        apart = here != there and here and there and here.rpartition(".")[0] == there.rpartition(".")[0]
        if one[0] != other[0] and not apart:
            yield (one, other) if one < other else (other, one)
