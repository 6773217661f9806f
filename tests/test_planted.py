"""Every claim catches the bug that is planted for it on a real server, and passes its control."""

from __future__ import annotations

import pytest
from planted import IN_GUNICORN, PLANTED, session_with_the_bug

from forkproof.claims import REGISTRY
from forkproof.verdict import Verdict


def test_every_claim_has_a_planted_bug_and_a_control() -> None:
    assert PLANTED.keys() == REGISTRY.keys()


@pytest.mark.fork
@pytest.mark.parametrize("claim", REGISTRY)
def test_the_planted_bug_is_caught(claim: str, forkproof) -> None:  # type: ignore[no-untyped-def]
    planted, how, _ = PLANTED[claim]
    if claim in IN_GUNICORN:
        with session_with_the_bug(forkproof.session, claim) as session:
            report = session.run(planted)
    else:
        report = forkproof.run(planted).report
    findings = [j.finding for j in report.judgements if j.finding.claim == claim]
    assert how in {finding.how for finding in findings}, findings


@pytest.mark.fork
@pytest.mark.parametrize("claim", REGISTRY)
def test_the_control_passes(claim: str, forkproof) -> None:  # type: ignore[no-untyped-def]
    result = forkproof.run(PLANTED[claim][2])
    verdicts = {j.finding.verdict for j in result.report.judgements if j.finding.claim == claim}
    assert verdicts == {Verdict.HELD}, result.report.judgements
