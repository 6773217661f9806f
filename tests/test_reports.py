"""Reports: several runs as one, exit codes, JUnit that any reader takes, tables with whatever a server says."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from forkproof import known_issues
from forkproof.claims import REGISTRY
from forkproof.expectation import Expectation
from forkproof.explore import Campaign, Stale
from forkproof.judge import Judgement, RunReport, combine
from forkproof.reports import junit, terminal
from forkproof.scenario import from_dict
from forkproof.verdict import Finding, Verdict

PLAIN = from_dict({"loops": [{"name": "a"}]})
VERSIONS = {"python": "3.11.7", "gunicorn": "27.0.1"}
HELD, BROKEN, UNKNOWN, NONE = Verdict.HELD, Verdict.BROKEN, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE
RATE = {HELD: (0, 1), BROKEN: (1, 1), UNKNOWN: (0, 0), NONE: (0, 0)}


def report(*verdicts: Verdict, folder: str = "run", said: str = "so") -> RunReport:
    found = [
        Judgement(Finding(claim, verdict, None, said), Expectation.MUST_HOLD, "", rate=RATE[verdict])
        for claim, verdict in zip(REGISTRY, verdicts, strict=False)
    ]
    return RunReport(PLAIN, Path(folder), VERSIONS, found)


@pytest.mark.parametrize(
    ("verdicts", "worst", "rate"),
    [
        ([HELD], HELD, (0, 1)),
        ([HELD, HELD], HELD, (0, 2)),
        ([HELD, BROKEN, HELD], BROKEN, (1, 3)),
        ([UNKNOWN, HELD], UNKNOWN, (0, 1)),
        ([UNKNOWN, BROKEN], BROKEN, (1, 1)),
        ([NONE, HELD], HELD, (0, 1)),
        ([NONE, NONE], NONE, (0, 0)),
    ],
)
def test_rates(verdicts: list[Verdict], worst: Verdict, rate: tuple[int, int]) -> None:
    combined = combine([report(verdict) for verdict in verdicts])
    assert (combined.judgements[0].finding.verdict, combined.judgements[0].rate) == (worst, rate)
    assert len(combined.folders) == len(verdicts)


def test_the_folder_is_that_of_the_first_broken_run() -> None:
    assert combine([report(HELD), report(BROKEN, folder="b"), report(BROKEN)]).folder == Path("b")


CODES = [([HELD, NONE], 0), ([HELD, BROKEN, UNKNOWN], 1), ([UNKNOWN, HELD], 3), ([NONE], 3)]


@pytest.mark.parametrize(("verdicts", "code"), CODES)
def test_exit_codes(verdicts: list[Verdict], code: int) -> None:
    assert report(*verdicts).exit_code == code


# What a server says is not ours

ODD = "said \x1b[31m[/red] [bold] <b> & \x00 \ufffe \ud800 \u2028 \U0001f600 ]]>"


def test_junit_is_xml_whatever_a_server_said(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    junit.write(path, "run", junit.of_run(report(HELD, BROKEN, UNKNOWN, said=ODD)))
    suite = ElementTree.parse(path).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["skipped"]]
    told = suite[1][0].text or ""
    assert "[/red] [bold] <b> &" in told
    assert "forkproof replay run" in told


def test_junit_names_claim_and_loop() -> None:
    found = Judgement(Finding("workers_boot", HELD, "a", "so"), None, "")
    assert junit.of_run(RunReport(PLAIN, Path("run"), VERSIONS, [found]))[0][:2] == ("workers_boot[a]", "passed")


@pytest.mark.parametrize("verbosity", [0, 1])
def test_a_report_is_printed_whatever_a_server_said(verbosity: int) -> None:
    shown = io.StringIO()
    Console(file=shown, width=100).print(
        terminal.run(report(HELD, BROKEN, UNKNOWN, NONE, said=ODD), verbosity=verbosity)
    )
    text = shown.getvalue()
    assert "[/red] [bold]" in text
    assert "\x1b" not in text
    assert r"said \x1b[31m" in text
    assert "Reproduce with:  forkproof replay run" in text
    assert "broken  (1 launched)" in text
    assert ("no_dead_listener: not applicable" in text) is False
    assert ("every_message_handled_once: not applicable" in text) == bool(verbosity)


def shown(campaign: Campaign, verbosity: int = 0) -> str:
    into = io.StringIO()
    Console(file=into, width=120).print(terminal.campaign(campaign, seed=1, verbosity=verbosity))
    return into.getvalue()


def test_a_known_issue_that_does_not_show_is_named() -> None:
    [issue, *_] = known_issues.load()
    text = shown(Campaign(stale=[Stale(issue, 7)]))
    assert f"known issue {issue.id} does not show: its scenario held in 7 of 7 runs" in text
    # A long path is broken where the line ends.
    assert f"forkproof run {issue.scenario} --repeat 7".replace(" ", "") in "".join(text.split())
