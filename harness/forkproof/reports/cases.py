"""What a command came to as cases that pass, fail or are skipped, for the machines that count them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forkproof.cause import Cause, Claimed
from forkproof.check import CheckReport
from forkproof.compare import Comparison
from forkproof.coverage import Coverage
from forkproof.explore import Campaign, Failure
from forkproof.judge import Judgement, RunReport
from forkproof.reports import replay
from forkproof.verdict import Verdict

PASSED, FAILED, SKIPPED = "passed", "failure", "skipped"

ATTACHED = ("verdict.json", "server.log", "timeline.html")
"""The files of a run's folder that a case has with it, those that are there."""

_PLACE = re.compile(r"(?P<file>[^\n:]+):(?P<line>\d+)")


@dataclass(frozen=True)
class Case:
    """A claim, for a loop or the server. `outcome` is passed, failure or skipped.

    `text` tells why; `properties` are the evidence, by name; `file` and `line` where it stands in the user's own code,
    where that is known; `folder` is the run that shows it, and `again` the command that runs it again.
    """

    name: str
    outcome: str
    text: str
    properties: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    line: int = 0
    folder: Path | None = None
    again: str = ""

    @property
    def attached(self) -> list[Path]:
        """The files that go with it."""
        found = [self.folder / name for name in ATTACHED] if self.folder is not None else []
        return [path.absolute() for path in found if path.is_file() and not path.is_symlink()]


def of_run(report: RunReport, source: Path | None = None, causes: Mapping[Claimed, Cause] | None = None) -> list[Case]:
    """The cases of one scenario, which stands in the file `source`."""
    found = []
    for judgement in report.judgements:
        cause = (causes or {}).get(judgement.key)
        told = list(cause.lines()) if cause is not None else []
        text = "\n".join([judgement.finding.explanation, *told, replay(report.folder)])
        properties = _evidence(judgement, report.folder) | ({"cause": "\n".join(told)} if told else {})
        place = (str(source), 1) if source is not None else ("", 0)
        again = replay(report.folder)
        found.append(Case(_name(judgement), _outcome(judgement), text, properties, *place, report.folder, again))
    return found


def of_check(report: CheckReport) -> list[Case]:
    """The cases of the user's app: each stands where its loop is defined; what the baseline accepts passes."""
    places = {loop.name: loop.defined_at for loop in report.observed.loops}
    found = []
    for judgement in report.judgements:
        finding, cured = judgement.finding, report.cures.get(judgement.key, "")
        place = _PLACE.fullmatch(places.get(finding.loop or "", ""))
        text = "\n".join(word for word in (finding.explanation, cured, report.again) if word)
        properties = _evidence(judgement, report.folder) | ({"cure": cured} if cured else {})
        outcome = PASSED if report.is_accepted(finding) else _outcome(judgement)
        where = (place["file"], int(place["line"])) if place is not None else ("", 0)
        found.append(Case(_name(judgement), outcome, text, properties, *where, report.folder, report.again))
    return found


def of_campaign(campaign: Campaign) -> list[Case]:
    """The cases of an exploration: a claim fails by each surprise that is no known issue."""
    bad = [failure for failure in campaign.failures if failure.judgement.known_issue is None]
    return _by_claim(campaign.coverage, {name: [_surprise(one) for one in found] for name, found in _by_name(bad)})


def of_comparison(found: Comparison) -> list[Case]:
    """The cases of two targets: a claim fails by each difference that is not documented."""
    bad: dict[str, list[Case]] = {}
    for one in found.differences:
        if one.change is None:
            text = (
                f"{one.name}: {one.judgement.finding.explanation}\n{json.dumps(one.scenario.to_dict())}\n"
                f"{replay(one.report.folder)}"
            )
            rates = {side: f"{rate[0]}/{rate[1]}" for side, rate in zip(("base", "head"), one.rates, strict=True)}
            properties = _evidence(one.judgement, one.report.folder) | rates | {"change": one.name}
            folder = one.report.folder
            case = Case(_name(one.judgement), FAILED, text, properties, folder=folder, again=replay(folder))
            bad.setdefault(one.key[0], []).append(case)
    return _by_claim(found.coverage, bad)


def _by_claim(coverage: Coverage, bad: Mapping[str, Sequence[Case]]) -> list[Case]:
    """What failed, and a case for each claim of which nothing did."""
    found: list[Case] = []
    for claim in dict.fromkeys([*coverage.claims, *bad]):
        counts: Mapping[str, int] = coverage.claims.get(claim, {})
        decided = counts.get("held", 0) + counts.get("broken", 0) > 0
        told = ", ".join(f"{number} {verdict.replace('_', ' ')}" for verdict, number in counts.items())
        found += bad.get(claim, ()) or [Case(claim, PASSED if decided else SKIPPED, told)]
    return found


def _by_name(failures: Iterable[Failure]) -> Iterable[tuple[str, list[Failure]]]:
    found: dict[str, list[Failure]] = {}
    for failure in failures:
        found.setdefault(failure.judgement.finding.claim, []).append(failure)
    return found.items()


def _surprise(failure: Failure) -> Case:
    cause = list(failure.cause.lines()) if failure.cause is not None else []
    scenario = json.dumps(failure.scenario.to_dict())
    told = [failure.judgement.finding.explanation, *cause, scenario, replay(failure.folder)]
    properties = _evidence(failure.judgement, failure.folder) | {
        "rate": f"{failure.rate[0]}/{failure.rate[1]}", "seen": str(failure.seen), "scenario": scenario,
        **({"cause": "\n".join(cause)} if cause else {}),
    }  # fmt: skip
    how = f": {failure.judgement.finding.how}" if failure.judgement.finding.how else ""
    name = _name(failure.judgement) + how
    return Case(name, FAILED, "\n".join(told), properties, folder=failure.folder, again=replay(failure.folder))


def _name(judgement: Judgement) -> str:
    return judgement.finding.claim + (f"[{judgement.finding.loop}]" if judgement.finding.loop else "")


def _outcome(judgement: Judgement) -> str:
    return {Verdict.HELD: PASSED, Verdict.BROKEN: FAILED}.get(judgement.finding.verdict, SKIPPED)


def _evidence(judgement: Judgement, folder: Path) -> dict[str, str]:
    failed, tried = judgement.rate
    events = [json.dumps(event.to_dict()) for event in judgement.finding.evidence]
    found = {
        "verdict": judgement.finding.verdict.value,
        "how": judgement.finding.how,
        "since": judgement.since,
        "rate": f"{failed}/{tried}" if tried else "",
        "expectation": judgement.expectation.value if judgement.expectation else "",
        "surprise": "true" if judgement.surprise else "",
        "known_issue": judgement.known_issue or "",
        "evidence": "\n".join(events),
        "run": str(folder),
    }
    return {name: value for name, value in found.items() if value}
