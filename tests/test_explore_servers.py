"""Exploration on real servers: a planted bug shrinks, and Ctrl-C leaves a report and nothing else."""

from __future__ import annotations

import itertools
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from planted import GENTLE, HOG, VICTIM
from schema import validate
from test_containment import ours, until

from forkproof.explore import Explorer, Progress
from forkproof.judge import RunReport
from forkproof.scenario import from_dict
from forkproof.session import open_session

pytestmark = pytest.mark.fork


class _Seen(Progress):
    """Whether a run has shown what is to shrink: where the machine has no time for the fault, a run cannot tell."""

    broken = False

    def ran(self, report: RunReport) -> None:
        self.broken |= bool(report.broken)


def test_a_planted_starvation_shrinks_to_two_loops(short_folder: Path) -> None:
    third = {"name": "third", "start": "post_fork", "yields": GENTLE, "policy": "best_effort"}
    large = from_dict(
        {
            "loops": [VICTIM, HOG, third],
            "server": {"worker_class": "gevent", "workers": 2},
            "faults": [{"fault": "kill_worker", "slot": 1}, {"fault": "term"}],
        }
    )
    seen = _Seen()
    with open_session(out=short_folder, claims=["no_starved_greenlet"]) as session:
        explorer = Explorer(
            session, jobs=2, progress=seen, shrink_expected=True, find_causes=False, budget_seconds=math.inf
        )
        campaign = explorer.explore(itertools.takewhile(lambda _: not seen.broken, itertools.repeat([large], 10)))
    [found] = [failure for failure in campaign.expected_breaks if failure.judgement.finding.how == "beside a busy loop"]
    assert found.scenario.server.workers == 1
    assert sorted(loop.name for loop in found.scenario.loops) == ["hog", "victim"]
    assert not found.scenario.faults
    assert found.rate == (5, 5)


def test_ctrl_c_ends_it_and_reports(short_folder: Path) -> None:
    report = short_folder / "report.json"
    command = [sys.executable, "-m", "forkproof", "explore", "-n", "200", "-j", "2", "--seed", "1"]
    command += ["--out", str(short_folder / "out"), "--json", str(report)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert until(lambda: len(list((short_folder / "out").glob("*/history/supervisor.jsonl"))) >= 2)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode in (1, 3)
    assert "Traceback" not in said
    assert "interrupted" in said
    plain = json.loads(report.read_text())
    validate(plain, "campaign")
    assert plain["interrupted"] is True
    assert until(lambda: not ours(str(short_folder))), ours(str(short_folder))
