"""Every failure of this repository's findings, examples and planted bugs has a program, which is sound as text.

`benchmarks/exported.py` runs them; its rows say what broke in which deployment.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from exportable import DEPLOYMENTS, Deployment

from forkproof.claims import REGISTRY
from forkproof.expectation import Expectation
from forkproof.judge import Judgement, RunReport
from forkproof.reproducer import LONGEST, Broken, Reproducer, programs
from forkproof.scenario import LoopStart, Scenario, WorkerClass
from forkproof.verdict import Finding, Verdict

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # after ours: both have a planted.py

import exported  # noqa: E402

DATA = json.loads((ROOT / "docs" / "exported.json").read_text(encoding="utf-8"))
BROKEN: list[dict[str, Any]] = [row for row in DATA["rows"] if "claim" in row]


def test_every_deployment_was_looked_at() -> None:
    assert {row["deployment"] for row in DATA["rows"]} == DEPLOYMENTS.keys()
    assert {row["claim"] for row in BROKEN} == REGISTRY.keys()
    assert not [row for row in BROKEN if row["came"] == "wrong"]
    # The only ones that there is no program for; the page of export says why.
    refused = {row["how"] for row in BROKEN if row["came"] == "refused"}
    assert refused <= {"copied, and stands still", "nothing arrives"}
    shown = {row["deployment"] for row in BROKEN if row.get("alone") == 1}
    assert shown >= {row["deployment"] for row in BROKEN if row["deployment"].startswith("findings/")}


def test_the_page_is_made_from_its_data() -> None:
    page = exported.PAGE.read_text(encoding="utf-8")
    command = re.search("`(.*?)`", page.split("\n\n")[1])
    assert command
    assert exported.page(DATA["rows"], DATA["target"], command[1]) == page


@pytest.mark.parametrize(
    "row",
    [row for row in BROKEN if row["came"] != "refused"],
    ids=lambda row: f"{row['deployment']}-{row['claim']}-{row['loop']}",
)
def test_what_broke_has_a_program(row: dict[str, Any]) -> None:
    what = DEPLOYMENTS[row["deployment"]].scenario
    broken = Broken(row["claim"], row["loop"], row["how"])
    made = programs(what, broken, DATA["target"])[0]
    assert made.lines_of_python <= LONGEST
    for name, text in made.files.items():
        assert "forkproof" not in text, name
        if name.endswith(".py"):
            ast.parse(text, name, feature_version=(3, 7))
            compile(text, name, "exec")
    assert subprocess.run(["sh", "-n"], input=made.files["reproduce.sh"], text=True).returncode == 0
    assert (what == made.scenario) == (not made.left_out)


PLANTED = DEPLOYMENTS["planted/exactly_one_listener"]


class Alone(exported.Bench):
    """One in which folders exit with what is given, one after another."""

    def __init__(self, codes: list[int], cured: int, root: Path) -> None:
        super().__init__(SimpleNamespace(target=SimpleNamespace(to_dict=lambda: DATA["target"])), root, root, 1, 3)
        self.codes = codes
        self.cured = cured

    def _alone(self, made: Reproducer) -> int:
        return self.codes.pop(0) if made.scenario == PLANTED.scenario else self.cured


@pytest.mark.parametrize(
    ("codes", "cured", "came", "rate"),
    [
        ([1, 1, 1], 0, "exported", [3, 3]),
        ([1, 1, 1], 1, "wrong", [3, 3]),  # what is called a cure is none
        ([1, 0, 1, *[0] * 9, 1, 1], 0, "exported", [3, 13]),  # the last one is the script, which tries often enough
        ([1, 0, 1, *[0] * 10, 0], 0, "wrong", [2, 13]),
        ([0] * 13, 0, "did not show", [0, 13]),
        ([0] * 22 + [1] + [1], 0, "exported", [1, 23]),  # a rare race
        ([1, 2, 1], 0, "wrong", None),
        ([2, 2, 2], 0, "cannot tell", None),  # a server that does not boot
    ],
)
def test_what_tries_come_to(
    codes: list[int], cured: int, came: str, rate: list[int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "PATIENCE", 60 if len(codes) > 20 else 0)
    found = Finding("exactly_one_listener", Verdict.BROKEN, "a", "told", (), "double")
    choices = programs(PLANTED.scenario, Broken(found.claim, found.loop, found.how), DATA["target"])
    bench = Alone(codes, cured, tmp_path)
    row = bench._exported(choices, Judgement(found, Expectation.MUST_BREAK, ""), PLANTED)
    assert (row["came"], row.get("rate")) == (came, rate)
    assert not bench.codes or came == "wrong"


class Trying(Alone):
    """One whose folders all show, and are sound with preload alone; forkproof finds it to hold there too."""

    def __init__(self, report: RunReport, root: Path) -> None:
        super().__init__([], 0, root)
        self.report = report
        self.launched: list[Scenario] = []
        self.session = SimpleNamespace(
            target=SimpleNamespace(to_dict=lambda: DATA["target"], require=lambda what: None), run=self.run
        )

    def run(self, what: Scenario) -> RunReport:
        self.launched.append(what)
        verdict = Verdict.HELD if what.server.preload else Verdict.BROKEN
        judged = [replace(one, finding=replace(one.finding, verdict=verdict)) for one in self.report.judgements]
        return replace(self.report, scenario=what, judgements=judged, folder=self.root / "none")

    def _broken(self, name: str, deployment: Deployment) -> RunReport:
        return self.report

    def _alone(self, made: Reproducer) -> int:
        return 0 if made.scenario.server.preload else 1


def twice_broken() -> tuple[RunReport, Deployment]:
    """Two claims that broke in a deployment, against what is promised, so that no promise is trusted."""
    found = [
        Finding(claim, Verdict.BROKEN, "a", "told", (), how)
        for claim, how in (("exactly_one_listener", "double"), ("no_dead_listener", "silent without a sign"))
    ]
    judged = [Judgement(one, Expectation.MUST_HOLD, "") for one in found]
    return RunReport(PLANTED.scenario, ROOT, DATA["target"], judged), Deployment(PLANTED.scenario)


def test_a_cure_is_what_holds_and_is_tried_first_for_the_next_claim(tmp_path: Path) -> None:
    report, deployment = twice_broken()
    bench = Trying(report, tmp_path)
    rows = list(bench.rows("it", deployment, {}, lambda: True, every_claim=True))
    assert [(row["came"], row["cure"], row["cured"]) for row in rows] == [("exported", "with preload_app=True", 0)] * 2
    digests = [what.digest for what in bench.launched]
    assert len(digests) == len(set(digests)) <= exported.CURES
    report.judgements[:1] = []  # the second alone does not know of the cure
    later = Trying(report, tmp_path)
    assert next(later.rows("it", deployment, {}, lambda: True, every_claim=True))["cure"] == "with preload_app=True"
    assert len(later.launched) == len(bench.launched)
    resumed = Trying(report, tmp_path)  # and of what was done before
    next(resumed.rows("it", deployment, {rows[0]["key"]: rows[0]}, lambda: True, every_claim=True))
    assert len(resumed.launched) == 1 < len(later.launched)


@pytest.mark.parametrize(("claim", "cured"), [("no_socket_shared_across_fork", 0), ("server_answers", 1)])
def test_where_a_program_asks_for_more_than_its_claim_both_must_call_a_cure_sound(
    claim: str, cured: int, tmp_path: Path
) -> None:
    """Here forkproof finds every change to hold, and a folder is sound where the app's import starts the loop."""
    what = DEPLOYMENTS["planted/no_socket_shared_across_fork"].scenario
    finding = Finding(claim, Verdict.BROKEN, None, "told", (), "waited on by two")
    report = RunReport(what, ROOT, DATA["target"], [Judgement(finding, Expectation.MUST_HOLD, "")])

    class Holding(Trying):
        def run(self, what: Scenario) -> RunReport:
            held = Judgement(replace(finding, verdict=Verdict.HELD), Expectation.MUST_HOLD, "")
            return replace(report, scenario=what, judgements=[held], folder=self.root / "none")

        def _alone(self, made: Reproducer) -> int:
            return int(made.scenario.loops[0].start.value != "app_import")

    [row] = Holding(report, tmp_path).rows("it", Deployment(what), {}, lambda: True, every_claim=True)
    assert row["cured"] == cured, row


def test_what_was_done_is_not_done_again(tmp_path: Path) -> None:
    report, deployment = twice_broken()
    bench = Trying(report, tmp_path)
    first, second = bench.rows("it", deployment, {}, lambda: True, every_claim=True)
    assert list(bench.rows("it", deployment, {first["key"]: first}, lambda: True, every_claim=True)) == [second]
    [row] = bench.rows("it", deployment, {first["key"]: first}, lambda: True, every_claim=False)
    assert row["came"] == "text"
    [row] = bench.rows("it", deployment, {}, lambda: False, every_claim=True)  # neither run nor kept
    assert row["came"] == "not run"
    assert not list(bench.rows("it", deployment, {first["key"]: first}, lambda: False, every_claim=True))


def test_what_takes_away_what_is_wanted_is_the_last_cure(tmp_path: Path) -> None:
    """And of the others, what a failure that was made small has no more is the first."""
    report, _ = twice_broken()
    term = DEPLOYMENTS["findings/forked-process-ignores-term"].scenario
    made = programs(term, Broken("clean_shutdown", None, "left"), DATA["target"])[0]
    found = list(Trying(report, tmp_path)._candidates(made))
    first = min(found, key=lambda one: one[2])
    assert first[0] == "when 'listen' has kind=thread"
    late = {words: late for words, _, late in found}
    assert late["when 'listen' has body=listen"] == max(late.values())


def test_of_what_was_promised_to_hold_and_broke_no_promise_makes_a_cure_likelier(tmp_path: Path) -> None:
    """A patched master that stands still is cured by no preload, of which the documentation leaves it open."""
    deployment = DEPLOYMENTS["examples/original-report/proposal-on-starting-preload"]
    found = Finding("server_answers", Verdict.BROKEN, None, "told", (), "no answer")
    judgement = Judgement(found, Expectation.MUST_HOLD, "")
    report = RunReport(deployment.scenario, ROOT, DATA["target"], [judgement])
    made = programs(deployment.scenario, Broken(found.claim, None, found.how), DATA["target"])[0]

    class NotPreloaded(Trying):
        """One that is sound where nothing is preloaded."""

        def _holds(self, sound: Reproducer) -> bool:
            return not sound.scenario.server.preload

        def _alone(self, made: Reproducer) -> int:
            return int(made.scenario.server.preload)

    row = NotPreloaded(report, tmp_path)._cured(made, (3, 3), judgement, deployment, [])
    assert row == {"cure": "with preload_app=False", "cured": 0}


def test_another_version_is_told_where_a_row_is_made_with_one() -> None:
    row = {"deployment": "planted/it", "claim": "workers_boot", "loop": None, "came": "text"}
    versions = {"python": "3.11.7", "gunicorn": "27.0.1"}
    rows = [row | {"on": f"Python 3.11.7, gunicorn {version}"} for version in ("26.0.0", "27.0.1")]
    told = exported.page(rows, versions, "it")
    assert "| planted/it (gunicorn 26.0.0) | `workers_boot` |" in told
    assert "| planted/it | `workers_boot` |" in told
    assert "A deployment that says so was run on another version" in told
    assert ["on" in exported._told(one, versions) for one in rows] == [True, False]
    assert "another version" not in exported.page(rows[1:], versions, "it")


def test_a_bug_of_gunicorn_is_cured_by_another_gunicorn(tmp_path: Path) -> None:
    """Its control is the deployment itself."""
    deployment = DEPLOYMENTS["planted/foreign_child_ignored"]
    bad = Broken("foreign_child_ignored", None, "the arbiter ended")
    made = programs(deployment.scenario, bad, {**DATA["target"], "gunicorn": "26.0.0"})[0]
    tried: list[str] = []

    class Cured(exported.Bench):
        def _alone(self, made: Reproducer) -> int:
            tried.append(made.files["requirements.txt"])
            return 0

    session: Any = SimpleNamespace(target=SimpleNamespace(to_dict=lambda: DATA["target"]))
    found = Finding(bad.claim, Verdict.BROKEN, None, "told", (), bad.how)
    judgement = Judgement(found, Expectation.MUST_HOLD, "")
    row = Cured(session, tmp_path, tmp_path, 1, 3)._cured(made, (3, 3), judgement, deployment, [])
    ours = version("gunicorn")
    assert (row, tried) == ({"cure": f"gunicorn {ours}", "cured": 0}, [f"gunicorn=={ours}\n"])


def test_two_changes_are_a_cure_where_no_one_is(tmp_path: Path) -> None:
    """The app and the worker class both undo what the configuration asked for."""
    deployment = DEPLOYMENTS["examples/original-report/claim-union-of-flags-add"]
    found = Finding("patch_is_what_was_asked", Verdict.BROKEN, None, "told", (), "undone")
    judgement = Judgement(found, Expectation.MUST_BREAK, "")
    made = programs(deployment.scenario, Broken(found.claim, None, found.how), DATA["target"])[0]

    class InSync(Trying):
        """One that is sound with sync workers alone."""

        def _holds(self, sound: Reproducer) -> bool:
            return False

        def _alone(self, made: Reproducer) -> int:
            return 0 if made.scenario.server.worker_class is WorkerClass.SYNC else 1

    bench = InSync(RunReport(deployment.scenario, ROOT, DATA["target"], [judgement]), tmp_path)
    row = bench._cured(made, (3, 3), judgement, deployment, [])
    assert row == {"cure": "without the patch at app_first_line and with worker_class=sync", "cured": 0}


def test_a_cure_of_another_claim_is_the_first_of_two_changes(tmp_path: Path) -> None:
    deployment = DEPLOYMENTS["examples/original-report/plan-2-process-no-preload"]
    found = Finding("clean_shutdown", Verdict.BROKEN, None, "told", (), "left")
    report = RunReport(deployment.scenario, ROOT, DATA["target"], [Judgement(found, Expectation.MUST_BREAK, "")])
    made = programs(deployment.scenario, Broken(found.claim, None, found.how), DATA["target"])[0]
    cure = "when each loop starts in config_import"
    words = [one[0] for one in Trying(report, tmp_path)._in_two(made, [cure])]
    assert words[0].startswith(f"{cure} and ")
    assert f"{cure} and when each loop has daemon=True" in words[: exported.CURES]


def test_a_race_is_cured_by_what_shows_in_none_of_as_many_tries(tmp_path: Path) -> None:
    report, deployment = twice_broken()
    made = programs(PLANTED.scenario, Broken("exactly_one_listener", "a", "double"), DATA["target"])[0]

    class Race(Trying):
        """One that shows in one of two scripts of one try."""

        def _alone(self, made: Reproducer) -> int:
            return 0 if made.tries == 1 or made.scenario.loop("a").start is LoopStart.ON_STARTING else 1

        def _holds(self, sound: Reproducer) -> bool:
            return True

    judgement = report.judgements[0]
    assert (
        Race(report, tmp_path)._cured(made, (1, 4), judgement, deployment, [])["cure"]
        == "when 'a' starts in on_starting"
    )
    assert Race(report, tmp_path)._cured(made, (4, 4), judgement, deployment, [])["cure"] == "with workers=1"


def test_a_race_that_shows_in_a_later_call_was_not_cured(tmp_path: Path) -> None:
    """One of 100 calls passes by luck, and many changes are tried."""
    report, deployment = twice_broken()
    made = programs(PLANTED.scenario, Broken("exactly_one_listener", "a", "double"), DATA["target"])[0]
    calls: Counter[str] = Counter()

    class Lucky(Trying):
        """One that shows with one worker too, in the second call."""

        def _alone(self, made: Reproducer) -> int:
            calls[made.scenario.digest] += 1
            if made.scenario.loop("a").start is LoopStart.ON_STARTING:
                return 0
            return int(made.scenario.server.workers != 1 or calls[made.scenario.digest] > 1)

        def _holds(self, sound: Reproducer) -> bool:
            return True

    row = Lucky(report, tmp_path)._cured(made, (1, 4), report.judgements[0], deployment, [])
    assert row == {"cure": "when 'a' starts in on_starting", "cured": 0}


@pytest.mark.parametrize("came", ["the control", "gunicorn", "with ", "without the patch at app_first_line and"])
def test_what_was_done_is_run_again_with_the_cure_that_its_row_tells(came: str, tmp_path: Path) -> None:
    row = next(row for row in BROKEN if row.get("cure", "").startswith(came))
    deployment = DEPLOYMENTS[row["deployment"]]
    ran: list[Reproducer] = []

    class Again(Trying):
        def _alone(self, made: Reproducer) -> int:
            ran.append(made)
            return 2 - len(ran)

    bench = Again(RunReport(deployment.scenario, ROOT, DATA["target"], []), tmp_path)
    assert bench.again(deployment, row) == {"alone": (1, 1), "cured": (0, 0)}
    bad, sound = ran
    assert bad.scenario == deployment.scenario
    assert bad.files != sound.files
    if came == "the control":
        assert sound.scenario == deployment.control


def test_what_is_not_as_it_was_told_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    row = next(row for row in BROKEN if row.get("cured") == 0)

    class Sound(Trying):
        def _alone(self, made: Reproducer) -> int:
            return 0

    bench = Sound(RunReport(DEPLOYMENTS[row["deployment"]].scenario, ROOT, DATA["target"], []), tmp_path)
    rows = [{"key": "it", **row}, {"key": "other", "deployment": row["deployment"], "came": "nothing broke"}]
    with ThreadPoolExecutor(1) as pool:
        assert exported._again(bench, DEPLOYMENTS, rows, pool) == 1
    assert capsys.readouterr().out == "it: {'alone': (0, 1), 'cured': (0, 0)}\n0 of 1 as they were told\n"
