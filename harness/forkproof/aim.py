"""Scenarios that are likely to tell two targets apart: few things at once, every pair of them, and what changed first.

Made from the schema, so that a dimension that is added is met without being named. Most of them are a usual deployment
of which one setting, one thing of a loop and one fault is not as usual: what a fix or a slip of one line touches shows
there, with little beside it that hides it, and what is there from the boot on shows before the fault. The others are
random ones. Of both those are taken, one after the other, that bring most that was not yet met: values and claims, or
pairs of them, weighed by how much of what speaks of them changed between the targets, for what the run costs.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import math
import random
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forkproof import files
from forkproof.claims import judge as judge_claims
from forkproof.coverage import Pair, Value, pairs_of, values_of
from forkproof.dimensions import Dimension, Members, at, dimensions, lists, minimal
from forkproof.errors import ScenarioError
from forkproof.faults import REGISTRY as FAULTS
from forkproof.faults.base import Option
from forkproof.history import History
from forkproof.scenario import CONTROL, Scenario, from_dict
from forkproof.target import Target
from forkproof.verdict import Verdict

POOL, MORE = 200, 2
"""So many scenarios are made to choose from, and so many more for each that is taken."""

CHANGED = 6.0
"""How much more a value weighs of which lines that changed speak much more often than others."""

USUAL: Sequence[Mapping[str, Any]] = (
    {"loops": [{"name": "a"}], "server": {"workers": 2}},
    {
        "patches": [{"site": "config_first_line"}],
        "loops": [{"name": "a", "start": "config_import"}],
        "server": {"workers": 2},
    },
    {
        "patches": [{"site": "app_first_line"}],
        "loops": [{"name": "a", "start": "app_import"}],
        "server": {"workers": 2, "preload": True},
    },
    {
        "loops": [{"name": "a", "kind": "greenlet", "start": "post_worker_init"}],
        "server": {"workers": 2, "worker_class": "gevent"},
    },
    {
        "patches": [{"site": "config_first_line", "flags": {"thread": False}}],
        "loops": [{"name": "a", "start": "app_import"}],
        "server": {"workers": 2, "worker_class": "gthread", "preload": True},
    },
)
"""Deployments that people have: nothing patched, the arbiter patched, a preloaded app that patches, a gevent worker,
threads left native in a gthread worker. Two each: the second one is forked beside what the first fork left running."""

AGAIN = 0.5
"""What a value is still worth once it was met, each time."""

THERE = 0.75
"""What it is worth that a deployment has not met a value, beside that none has."""

# How often a member is there, or a field is not at its default; by the most exact path that is named.
_CHANCE: dict[tuple[str, ...], float] = {
    ("patches",): 0.6,
    ("patches", "flags"): 0.02,
    ("patches", "flags", "thread"): 0.15,
    ("loops",): 0.6,
    ("loops", "yields"): 0.1,
    ("loops", "daemon"): 0.1,
    ("loops", "guard"): 0.05,
    ("server",): 0.35,
    ("server", "workers"): 0.6,
    ("server", "reload"): 0.1,
    ("server", "control_socket"): 0.1,
    ("surroundings",): 0.1,
    ("surroundings", "early_imports"): 0.15,
    ("parks",): 0.08,
    ("faults",): 0.6,
    ("faults", "after"): 0.0,
    ("faults", "slot"): 0.0,
}
# What the schema leaves open, and faults or other settings need.
_NUMBERS: dict[tuple[str, ...], Sequence[int]] = {("server", "max_requests"): (100,), ("server", "threads"): (4,)}

_AGAIN = 0.3
"""How often there is one member more, where there is one."""


def scenarios(
    n: int, seed: int, can_run: Callable[[Scenario], bool], changed: Mapping[str, float] | None = None
) -> Iterator[Scenario]:
    """`n` scenarios, those that tell most first; the same for the same seed and the same targets.

    Three of four are near a usual deployment, as long as there are such.
    """
    weight = functools.cache(lambda value: _weight(value, changed or {}))
    near = _near_first(can_run, weight)
    mixed = _pairs_first(n, seed, can_run, weight)
    seen: set[str] = set()
    for turn in itertools.count():
        here, there = (mixed, near) if turn % 4 == 3 else (near, mixed)
        # A scenario of the one may be among the other's too.
        fresh = (what for what in itertools.chain(here, there) if what.digest not in seen)
        what = next(fresh, None)
        if what is None or len(seen) >= n:
            return
        seen.add(what.digest)
        yield what


@dataclass(frozen=True)
class More:
    """A deployment with one thing more. What is in one column takes the place of what else is there."""

    column: str
    edit: Callable[[dict[str, Any]], None]
    what: Scenario


_COLUMNS = {"loops": "loop", "faults": "event", "parks": "event"}


def _near_first(can_run: Callable[[Scenario], bool], weight: Callable[[Value], float]) -> Iterator[Scenario]:
    """Usual deployments, then each with what is newest, in itself and there: of each column one thing."""
    met: Counter[object] = Counter()
    left: dict[str, tuple[More, int]] = {}
    usuals = [from_dict(json.loads(json.dumps(usual))) for usual in USUAL]
    said = [_said(usual) for usual in usuals]
    for number, usual in enumerate(usuals):
        if can_run(usual):
            yield usual
        for more in one_more_each(usual):
            if more.what.digest not in left and can_run(more.what):
                left[more.what.digest] = more, number
    new = {digest: sorted(_said(more.what) - said[number]) for digest, (more, number) in left.items()}
    # What is new anywhere is met first where there is least beside it that hides it.
    plainest: dict[Value, int] = {}
    for digest, (_, number) in left.items():
        for value in new[digest]:
            plainest[value] = min(number, plainest.get(value, number))

    def gain(digest: str) -> float:
        more, number = left[digest]

        def worth(value: Value) -> float:
            anywhere = AGAIN ** met[value] if met[value] or plainest[value] == number else 0.0
            return weight(value) * (anywhere + THERE * AGAIN ** met[number, value])

        return sum(map(worth, new[digest])) / math.sqrt(_cost(more.what))

    while left:
        order = sorted(left, key=gain, reverse=True)  # of those that are equal the first, in the order of the schema
        more, number = left.pop(order[0])
        what, taken = more.what, {more.column}
        for other, _ in (left[digest] for digest in order[1:] if left[digest][1] == number):
            if other.column not in taken:
                both = _taken(what, other.edit)
                if both is not what and can_run(both):
                    what = both
                    taken.add(other.column)
        values = _said(what) - said[number]
        met.update(values)
        met.update((number, value) for value in values)
        yield what


def _said(what: Scenario) -> set[Value]:
    return {*(value for value, _ in values_of(what)), *_claims(what)}


def one_more_each(before: Scenario) -> Iterator[More]:
    """A deployment with one thing more, each that there is: a setting, or a member of a list; faults repeatedly.

    >>> made = [more.what for more in one_more_each(from_dict({"loops": [{"name": "a"}]}))]
    >>> [fault.options for what in made for fault in what.faults if fault.fault == "hup"]
    [{'times': 5}]
    """
    for field in dimensions():
        if _CHANCE.get(field.path) == 0.0:
            continue
        for value in _values(field):
            said = field.path[-1] == "sys" if field.path[1:2] == ("flags",) else value
            for edit in _edits(field, said):
                what = _taken(before, edit)
                if what is not before:
                    yield More(_COLUMNS.get(field.path[0], "setting"), edit, what)
                    break


def _edits(field: Dimension, value: Any) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Ways to say one thing of a deployment: as it is, or with what the thing needs beside it."""

    def edit(plain: dict[str, Any], who: str, beside: Mapping[str, Any]) -> None:
        plain["loops"] += beside.get("loops", [])
        plain["server"] |= beside.get("server", {})
        inner: Any = plain
        before: tuple[str, ...] = ()
        for part in field.path[:-1]:
            before = (*before, part)
            members = next((one for one in lists() if one.path == before), None)
            if members is None:
                inner = inner.setdefault(part, {})
                continue
            if not inner.get(part):
                inner[part] = [minimal(members)]
            inner = inner[part][0]
            if "who" in inner:
                inner["who"] = who
        inner[field.path[-1]] = value
        for fault in plain["faults"]:
            kind = FAULTS[fault["fault"]]
            fault["options"] = _most_of(kind.options)
            fault["slot"] = 0 if kind.needs_slot else None

    kind = FAULTS.get(str(value)) if field.path == ("faults", "fault") else None
    for beside in ({}, {"loops": [_PARKED]}, *([kind.scene] if kind is not None and kind.scene else [])):
        who = _PARKED["name"] if beside else "a"
        yield functools.partial(edit, who=who, beside=beside)
    if field.path[0] == "parks":
        yield functools.partial(edit, who=CONTROL, beside={})


_PARKED = {"name": "parked", "body": "get_message"}


def _most_of(options: Mapping[str, Option]) -> dict[str, float]:
    """A whole number tells how often or how much: what is rare shows sooner where there is more of it."""
    return {name: option.most for name, option in options.items() if isinstance(option.default, int)}


def _pairs_first(
    n: int, seed: int, can_run: Callable[[Scenario], bool], weight: Callable[[Value], float]
) -> Iterator[Scenario]:
    """Random scenarios, those first that have most pairs which were not met, for what they cost."""
    chance = random.Random(seed)
    met: set[Pair] = set()
    seen: set[str] = set()
    pool: list[tuple[float, str, Scenario, frozenset[Pair]]] = []

    def loss(what: Scenario, pairs: frozenset[Pair]) -> float:
        return -sum(weight(one) * weight(other) for one, other in pairs - met) / _cost(what)

    for taken in range(n):
        misses = 0
        while len(pool) < POOL + taken * MORE and misses < 500:
            what = _made(chance, weight)
            if what.digest in seen or not can_run(what):
                misses += 1
                continue
            seen.add(what.digest)
            pairs = frozenset(_pairs(what))
            heapq.heappush(pool, (loss(what, pairs), what.digest, what, pairs))
        if not pool:
            return
        # What a scenario brings only gets less, so only the best need be looked at again.
        _, digest, what, pairs = heapq.heappop(pool)
        while pool and (now := loss(what, pairs)) > pool[0][0]:
            _, digest, what, pairs = heapq.heapreplace(pool, (now, digest, what, pairs))
        met |= pairs
        yield what


def _made(chance: random.Random, weight: Callable[[Value], float]) -> Scenario:
    """A scenario with a few things that are not at their defaults; each is taken if it can be beside the others."""
    what = from_dict({"loops": [{"name": "a"}]})
    alone = [field for field in dimensions() if _values(field) and not any(_below(field, one.path) for one in lists())]
    for field in alone:
        if chance.random() < _chance(field.path):
            what = _taken(what, functools.partial(_put, path=field.path, value=_value(field, chance, weight)))
    for members in lists():
        count = members.least
        while count < min(members.most, 3) and chance.random() < (_chance(members.path) if count == 0 else _AGAIN):
            count += 1
        for index in range(count):
            for _ in range(TRIES):
                member = _member(members, what, chance, weight)
                before = what
                what = _taken(what, functools.partial(_put_member, members=members, index=index, member=member))
                if what is not before:
                    break
    return what


TRIES = 8
"""How often a member of a list is drawn until one can be there."""


def _member(
    members: Members, what: Scenario, chance: random.Random, weight: Callable[[Value], float]
) -> dict[str, Any]:
    """A member of a list, with what it must say and some of what it may."""
    member = minimal(members)
    required = tuple(member)
    for field in dimensions():
        inside = field.path[len(members.path) :]
        if not _below(field, members.path) or not field.values:
            continue
        if inside[0] in required or chance.random() < _chance(field.path):
            _put(member, inside, _value(field, chance, weight))
    if "who" in member:  # the schema leaves open whom there is
        member["who"] = chance.choice([*(loop.name for loop in what.loops), CONTROL])
    kind = FAULTS.get(member.get("fault", ""))
    if kind is not None:
        member["options"] = _most_of(kind.options) if chance.random() < 0.7 else {}
        member["slot"] = 0 if kind.needs_slot else None
    return member


def _taken(what: Scenario, edit: Callable[[dict[str, Any]], None]) -> Scenario:
    """A scenario after an edit, or as it was where that cannot be."""
    plain = what.to_dict()
    edit(plain)
    try:
        return from_dict(plain)
    except ScenarioError:
        return what


def _put(plain: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *way, last = path
    for part in way:
        plain = plain.setdefault(part, {})
    plain[last] = value


def _put_member(plain: dict[str, Any], members: Members, index: int, member: dict[str, Any]) -> None:
    there = at(plain, members.path)
    if members.path == ("loops",):
        member["name"] = "abc"[index]
    there[index:] = [member]


def _value(field: Dimension, chance: random.Random, weight: Callable[[Value], float]) -> Any:
    values = [value for value in _values(field) if value != field.default] or list(field.values)
    if field.path == ("faults", "fault"):
        values = [name for name in values for _ in range(FAULTS[name].weight)]
    if field.path[1:2] == ("flags",):
        return field.path[-1] == "sys"  # what is not its default
    return chance.choices(values, [weight((field.name, str(value))) for value in values])[0]


def _values(field: Dimension) -> Sequence[Any]:
    return field.values or _NUMBERS.get(field.path, ())


def _below(field: Dimension, path: Sequence[str]) -> bool:
    return field.path[: len(path)] == tuple(path)


def _chance(path: Sequence[str]) -> float:
    return next(_CHANCE[tuple(path[:end])] for end in range(len(path), 0, -1) if tuple(path[:end]) in _CHANCE)


def _pairs(what: Scenario) -> Iterator[Pair]:
    yield from pairs_of(what)
    values = {value for value, _ in values_of(what)}
    yield from itertools.product(_claims(what), values)


def _claims(what: Scenario) -> list[Value]:
    """The claims that a run can tell something of."""
    return [
        ("claim", finding.claim)
        for finding in judge_claims(what, History([]))
        if finding.verdict is not Verdict.NOT_APPLICABLE
    ]


def _cost(what: Scenario) -> float:
    """What a run takes, in plain runs: each worker that boots, and each fault with what comes after it.

    A client takes seconds until it is connected to its Redis again.
    """
    boots = sum(fault.options.get("times", 1) for fault in what.faults)
    redis = sum(FAULTS[fault.fault].needs_broker for fault in what.faults)
    return 1 + 0.2 * len(what.faults) + 2 * redis + 0.05 * (1 + boots) * what.server.workers


# --- what changed


def changed_words(base: Target, head: Target) -> dict[str, float]:
    """The words that lines which differ between two targets have more often than others, each with how much more.

    The lines are those of the packages that differ; where Python does, of the modules of its library that the packages
    import. 1 stands for `MUCH` times as often; what a few lines have by chance is pulled towards what is usual.
    """
    names = [name for name in base.versions if head.versions.get(name) not in (None, base.versions[name])]
    changed: Counter[str] = Counter()
    every: Counter[str] = Counter()
    lines = [0, 0]
    if names or base.python != head.python:
        old, new = (_sources(target, names, base.python != head.python) for target in (base, head))
        for path in old.keys() | new.keys():
            before, after = old.get(path, Counter()), new.get(path, Counter())
            differ = (before - after) + (after - before)
            all_ = before + after
            of_file = set(_words(Path(path).stem))  # a file's name is a word of each of its lines
            for counts, found, number in ((changed, differ, 0), (every, all_, 1)):
                for line, times in found.items():
                    counts.update(dict.fromkeys({*of_file, *_words(line)}, times))
                    lines[number] += times
    if not lines[0]:
        return {}
    usual = lines[0] / lines[1]
    often = {word: (changed[word] + FEW * usual) / (times + FEW) / usual for word, times in every.items()}
    return {word: min(1.0, math.log(more) / math.log(MUCH)) for word, more in often.items() if more > 1}


FEW, MUCH = 50, 8
"""So many lines with a word say half of what there is to say of it; so many times as often as usual is much."""


def _sources(target: Target, names: Sequence[str], library: bool) -> dict[str, Counter[str]]:
    """The lines of the Python files of packages that are installed there, and of what they import of its library."""
    question = (
        "import json, sysconfig; get = sysconfig.get_path;"
        "print(json.dumps([get('stdlib'), *sorted({get('purelib'), get('platlib')})]))"
    )
    try:
        done = subprocess.run(
            [target.executable, "-c", question], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            check=False, cwd="/",
        )  # fmt: skip
        standard, *folders = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    found: dict[str, str] = {}
    imported: set[str] = set()
    for folder, name in itertools.product(folders, target.versions if library else names):
        for spelling in {name, name.replace("-", "_"), name.replace("-", "")}:
            for path, text in _texts(Path(folder), spelling):
                imported.update(re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE))
                if name in names:
                    found[path] = text
    if library:
        found.update(itertools.chain.from_iterable(_texts(Path(standard), name) for name in imported))
    return {path: Counter(line.strip() for line in text.splitlines()) for path, text in found.items()}


def _texts(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """The Python files of a module or package, by their paths in its folder; no tests."""
    for path in (folder / f"{name}.py", *(folder / name).rglob("*.py")):
        if not {"test", "tests"} & set(path.parts):
            try:
                yield str(path.relative_to(folder)), files.read(path).decode(errors="replace")
            except OSError:
                continue


def _words(text: str) -> list[str]:
    """The words of a text, those within identifiers and behind SIG too.

    >>> _words("def handle_hup(self): kill(SIGHUP, maxRequests)")
    ['def', 'handle', 'hup', 'self', 'kill', 'hup', 'max', 'requests']
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text)
    return [word.lower().removeprefix("sig") or "sig" for word in words]


def _weight(value: Value, changed: Mapping[str, float]) -> float:
    """More for a value, or a claim, the more often lines that changed have a word of its name."""
    words = [word for word in _words(value[1]) if len(word) > 2 and word not in _EVERYWHERE]
    most = max((changed.get(word, 0.0) for word in words), default=0.0)
    return (1 + (CHANGED - 1) * most) * _SELDOM.get(value, _OF.get(value[0], 1.0))


_EVERYWHERE = frozenset(
    {
        "none", "true", "false", "one", "not", "with", "from", "import", "app", "config", "the", "first", "line",
        "once", "when", "per", "after", "every", "what", "was", "get", "allowed", "fast",
    }
)  # fmt: skip

# What ends most servers at once, or before anything else is seen, so that nothing else is.
_SELDOM: dict[Value, float] = {
    ("patch.site", "in_thread"): 0.1,
    ("fault", "kill_arbiter"): 0.3,
    ("loop.yield", "none"): 0.3,
}

# What happens to a server tells most; of what modules import, of flags and of places to be held at there is much; how
# many there are of something, and when a fault comes, is little beside what they are.
_OF = {
    "fault": 2.0,
    "patch.flag": 0.5,
    "park.at": 0.5,
    "early_imports.what": 0.4,
    **dict.fromkeys(("early_imports", "early_imports.where", "loops", "patches", "parks", "faults"), 0.2),
    **dict.fromkeys(("fault.slot", "fault.after.event", "fault.after.slot", "fault.after.delay"), 0.2),
}
