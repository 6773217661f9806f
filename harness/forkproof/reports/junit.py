"""JUnit XML, one test case for each claim and loop."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from forkproof.compare import Comparison
from forkproof.explore import Campaign, Failure
from forkproof.judge import RunReport
from forkproof.verdict import Verdict

Case = tuple[str, str, str]
"""Name, outcome (passed, failure or skipped), text."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, and a server may say."""


def of_run(report: RunReport) -> list[Case]:
    """The cases of one scenario: a broken claim fails, an undecided one is skipped."""
    outcomes = {Verdict.HELD: "passed", Verdict.BROKEN: "failure"}
    return [
        (
            judgement.finding.claim + (f"[{judgement.finding.loop}]" if judgement.finding.loop else ""),
            outcomes.get(judgement.finding.verdict, "skipped"),
            f"{judgement.finding.explanation}\nforkproof replay {report.folder}",
        )
        for judgement in report.judgements
    ]


def of_campaign(campaign: Campaign) -> list[Case]:
    """The cases of an exploration: each claim passes unless something of it is a surprise that is no known issue."""
    cases: list[Case] = []
    for claim, counts in campaign.coverage.claims.items():
        bad = [
            failure
            for failure in campaign.failures
            if failure.judgement.finding.claim == claim and failure.judgement.known_issue is None
        ]
        text = "\n\n".join(_told(failure) for failure in bad)
        decided = counts["held"] + counts["broken"] > 0
        cases.append((claim, "failure" if bad else "passed" if decided else "skipped", text))
    return cases


def of_comparison(found: Comparison) -> list[Case]:
    """The cases of two targets: each claim passes unless it differs in a way that is not documented."""
    cases: list[Case] = []
    for claim, counts in found.coverage.claims.items():
        bad = [one for one in found.differences if one.key[0] == claim and one.change is None]
        text = "\n\n".join(
            f"{one.name}: {one.judgement.finding.explanation}\n{json.dumps(one.scenario.to_dict())}\n"
            f"forkproof replay {one.report.folder}"
            for one in bad
        )
        decided = counts["held"] + counts["broken"] > 0
        cases.append((claim, "failure" if bad else "passed" if decided else "skipped", text))
    return cases


def _told(failure: Failure) -> str:
    cause = failure.cause.lines() if failure.cause is not None else ()
    return "\n".join(
        [
            failure.judgement.finding.explanation,
            *cause,
            json.dumps(failure.scenario.to_dict()),
            f"forkproof replay {failure.folder}",
        ]
    )


def write(path: Path, name: str, cases: Iterable[Case]) -> None:
    """Write the cases as one suite; OSError where the file cannot be written."""
    cases = list(cases)
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(sum(outcome == "failure" for _, outcome, _ in cases)),
        skipped=str(sum(outcome == "skipped" for _, outcome, _ in cases)),
    )
    for case, outcome, text in cases:
        element = ElementTree.SubElement(suite, "testcase", classname=f"forkproof.{name}", name=case)
        if outcome != "passed":
            text = _NOT_XML.sub("?", text)
            ElementTree.SubElement(element, outcome, message=text.partition("\n")[0]).text = text
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
