"""A line of JSON for each run, in the format of Hypothesis' observability reports, for the tools that read these."""

from __future__ import annotations

import json
from typing import Any

from forkproof.coverage import values_of
from forkproof.judge import RunReport
from forkproof.verdict import Verdict

SEARCHES = ("explore", "diff")
"""The commands in which what is expected to break is no failure."""


def observation(command: str, report: RunReport, run_start: float, seconds: float) -> dict[str, Any]:
    """What a run came to: failed where the command would by it, given up where nothing was decided.

    `run_start` is when the command began, in seconds since the epoch; `seconds` went by since the run before.
    """
    if command in SEARCHES:
        bad = [judgement for judgement in report.surprises if judgement.known_issue is None]
    else:
        bad = report.broken
    decided = any(one.finding.verdict in (Verdict.HELD, Verdict.BROKEN) for one in report.judgements)
    features: dict[str, Any] = {}
    for (name, value), _ in values_of(report.scenario):
        features.setdefault(name, value)
    for judgement in report.judgements:
        finding = judgement.finding
        features[f"{finding.claim}[{finding.loop}]" if finding.loop else finding.claim] = finding.verdict.value
    small = report.scenario.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {
        "type": "test_case",
        "run_start": run_start,
        "property": f"forkproof {command}",
        "status": "failed" if bad else "passed" if decided else "gave_up",
        "status_reason": bad[0].finding.explanation if bad else "" if decided else "nothing was decided",
        "representation": json.dumps(small),
        "arguments": report.scenario.to_dict(),
        "how_generated": "drawn by forkproof_strategies" if command in SEARCHES else "given",
        "features": features,
        "coverage": None,
        "timing": {"since the run before": round(seconds, 3)},
        "metadata": {"run": str(report.folder), "verdict": report.verdict.value, "target": dict(report.versions)},
    }
