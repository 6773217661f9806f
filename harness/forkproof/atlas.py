"""Every combination of a small declared scope: where the loop runs, what breaks, and the nearest settings that hold.

Patch site, preload and start of the loop are chosen apart from each other and act together, so no list of tips can say
which combination is safe. Here each one is run, or has the reason why it cannot be.
"""

from __future__ import annotations

import collections
import csv
import io
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forkproof.errors import ScenarioError, UsageError
from forkproof.ledger import Row
from forkproof.matrix import Named, replay, state
from forkproof.scenario import Scenario, from_dict

LANE = "py311-gevent269-gunicorn27"
"""The newest lane of a Python that most machines have."""

SCOPE: Mapping[str, Sequence[Any]] = {
    "patch": ("none", "interpreter_start", "config_first_line", "app_first_line", "post_fork"),
    "threads": ("patched", "native"),
    "preload": (False, True),
    "start": (
        "config_import", "on_starting", "when_ready", "app_import", "post_fork", "post_worker_init", "first_request",
    ),
    "kind": ("thread", "greenlet", "executor", "process"),
    "worker_class": ("sync", "gthread", "gevent", "geventwebsocket"),
    "workers": (1, 2),
}  # fmt: skip
"""What is combined. `threads` native is `patch_all(thread=False)`; `patch` post_fork is in the workers alone."""

POLICY = "inherit_allowed"
"""What the loop is judged by: it may run anywhere, so what breaks is not that it runs where nobody wanted it."""

FAR = 3
"""In so many settings the nearest combination that holds may differ."""

MORE = 10
"""How often what came to something else is asked once more: what comes to either is a race."""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Combination:
    """One combination of the scope, and its scenario, or why there is none."""

    settings: Settings
    scenario: Scenario | None
    reason: str = ""

    @property
    def id(self) -> str:
        """Its settings in the scope's order, as in config_first_line-patched-preload-app_import-thread-gevent-2."""
        return identity(self.settings)


def identity(settings: Mapping[str, Any]) -> str:
    """The name of a combination."""
    words = {**settings, "preload": "preload" if settings["preload"] else "no_preload"}
    return "-".join(str(words[name]) for name in SCOPE)


def combinations(scope: Mapping[str, Sequence[Any]] = SCOPE) -> Iterator[Combination]:
    """All of a scope.

    >>> some = list(combinations())
    >>> len(some), sum(one.scenario is None for one in some), len({one.id for one in some})
    (4480, 448, 4480)
    """
    for values in itertools.product(*scope.values()):
        settings = dict(zip(scope, values, strict=True))
        if settings["patch"] == "none" and settings["threads"] == "native":
            yield Combination(settings, None, "nothing is patched, so threads are native anyway: see patched")
            continue
        try:
            yield Combination(settings, scenario(settings))
        except ScenarioError as error:
            yield Combination(settings, None, error.problems[0])


def scenario(settings: Settings) -> Scenario:
    """The scenario of some settings; ScenarioError where that cannot be."""
    flags = {"thread": False} if settings["threads"] == "native" else {}
    patches = [] if settings["patch"] == "none" else [{"site": settings["patch"], "flags": flags}]
    return from_dict(
        {
            "patches": patches,
            "loops": [{"name": "loop", "kind": settings["kind"], "start": settings["start"], "policy": POLICY}],
            "server": {name: settings[name] for name in ("worker_class", "workers", "preload")},
        }
    )


def narrowed(texts: Sequence[str]) -> dict[str, Sequence[Any]]:
    """The scope with some settings kept to some values, each said as `start=app_import,post_fork`.

    >>> narrowed(["workers=1", "preload=true"])["preload"]
    (True,)
    """
    scope = dict(SCOPE)
    for text in texts:
        name, _, values = text.partition("=")
        if name not in SCOPE:
            raise UsageError(f"--only {text}: there is no setting {name[:40]!r}; there are: {', '.join(SCOPE)}.")
        known = {str(value).lower(): value for value in SCOPE[name]}
        for value in values.split(","):
            if value not in known:
                raise UsageError(f"--only {text}: {name} is never {value[:40]!r}; it is: {', '.join(known)}.")
        scope[name] = tuple(known[value] for value in values.split(","))
    return scope


def named(some: Sequence[Combination]) -> list[Named]:
    """Those that can be run, as the matrix takes them."""
    return [Named("atlas", one.id, one.scenario) for one in some if one.scenario is not None]


def sample(some: Sequence[Combination], n: int, seed: int) -> list[Combination]:
    """`n` of those that can be run, the same for the same seed."""
    able = [one for one in some if one.scenario is not None]
    return random.Random(seed).sample(able, min(n, len(able)))


# --- what came of it


def entries(some: Sequence[Combination], rows: Mapping[str, Row], lane: str) -> list[dict[str, Any]]:
    """One for each combination: settings, verdict, where the loop ran, what broke, the nearest that hold, replay."""
    found = [_entry(one, rows.get(one.id), lane) for one in some]
    holding = {entry["id"]: entry for entry in found if entry["verdict"] == "held"}
    for entry, one in zip(found, some, strict=True):
        entry["nearest"] = [] if entry["verdict"] in ("held", "not run") else nearest(one.settings, holding)
    return found


def _entry(one: Combination, row: Row | None, lane: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": one.id, **one.settings, "verdict": "not run", "reason": "", "runs_in": []}
    entry |= {"breaks": {}, "races": [], "surprises": [], "known_issues": [], "replay": ""}
    if one.scenario is not None:
        entry["replay"] = replay(lane, one.scenario)
    if one.scenario is None:
        entry |= {"verdict": "cannot be", "reason": one.reason}
    elif row is not None and row["cannot"] is not None:
        entry |= {"verdict": "cannot be", "reason": row["cannot"]}
    elif row is not None:
        claims = row["claims"]
        broken = {claim["name"]: _explained(claim) for claim in claims if claim["verdict"] == "broken"}
        unknown = [claim for claim in claims if claim["verdict"] == "unknown"]
        entry["verdict"] = "broken" if broken else "unknown" if unknown else "held"
        entry["reason"] = unknown[0]["explanation"] if unknown and not broken else ""
        entry["runs_in"] = row["loops"][0]["in"] if row["loops"] else []
        entry["breaks"] = broken
        entry["races"] = sorted({claim["name"] for claim in claims if 0 < claim["rate"][0] < claim["rate"][1]})
        entry["surprises"] = [claim["name"] for claim in claims if state(claim, "atlas") == "surprise"]
        entry["known_issues"] = sorted({claim["known_issue"] for claim in claims if claim["known_issue"]})
    return entry


def _explained(claim: Mapping[str, Any]) -> str:
    broken, runs = claim["rate"]
    return str(claim["explanation"]) if broken == runs else f"in {broken} of {runs} runs: {claim['explanation']}"


def nearest(settings: Settings, holding: Mapping[str, Any]) -> list[str]:
    """The combinations that hold and differ in the fewest settings, at most `FAR`; the first five of them."""
    for far in range(1, FAR + 1):
        found = []
        for names in itertools.combinations(SCOPE, far):
            for values in itertools.product(*(SCOPE[name] for name in names)):
                other = {**settings, **dict(zip(names, values, strict=True))}
                if sum(other[name] != settings[name] for name in SCOPE) == far and identity(other) in holding:
                    found.append(identity(other))
        if found:
            return found[:5]
    return []


def disagreements(
    before: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    """(id, before, again) of those that came to something else, where both could tell."""
    known = {entry["id"]: entry for entry in before}
    return [
        (entry["id"], told(known[entry["id"]]), told(entry))
        for entry in again
        if {entry["verdict"], known[entry["id"]]["verdict"]} <= {"held", "broken"}
        and not agree(known[entry["id"]], entry)
    ]


def agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether it ran in the same places, and what broke in every run of either broke in some run of both."""
    always = (set(one["breaks"]) - set(one["races"])) | (set(other["breaks"]) - set(other["races"]))
    return one["runs_in"] == other["runs_in"] and always <= set(one["breaks"]) & set(other["breaks"])


def told(entry: Mapping[str, Any]) -> str:
    """Verdict, where it runs and what breaks, in one line."""
    breaks = f": {', '.join(sorted(entry['breaks']))}" if entry["breaks"] else ""
    return f"{entry['verdict']}{breaks}; runs in {', '.join(entry['runs_in']) or 'nothing'}"


def counts(found: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many came to what."""
    return dict(collections.Counter(str(entry["verdict"]) for entry in found))


COLUMNS = (
    "id", *SCOPE, "verdict", "runs_in", "breaks", "races", "surprises", "known_issues", "reason", "nearest", "replay",
)  # fmt: skip


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """All of it as CSV, with a line of headings; lists are joined by "; "."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in found:
        writer.writerow([_in_csv(entry[name]) for name in COLUMNS])
    return text.getvalue()


def _in_csv(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "; ".join(map(str, value)) if isinstance(value, list | dict) else str(value)
