"""A campaign on a pretended server: what is confirmed, shrunk, counted and kept. Nothing is launched."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from forkproof import known_issues
from forkproof.errors import CouldNotDecide, NothingBoots
from forkproof.expectation import Expectation
from forkproof.explore import GIVE_UP, KEPT_UNDECIDED, NEAR, Explorer, cheapest_first, draw
from forkproof.history import Event
from forkproof.judge import Judgement, RunReport
from forkproof.known_issues import KnownIssue
from forkproof.scenario import Loop, Patch, PatchSite, Scenario, Server, WorkerClass, from_dict
from forkproof.session import Session
from forkproof.target import PACKAGES, Target
from forkproof.verdict import Finding, Verdict

Breaks = Callable[[Scenario], bool]


@dataclass
class Pretended:
    """Stands for a Session: a scenario breaks where `breaks` says so."""

    folder: Path
    breaks: Breaks
    expectation: Expectation = Expectation.MUST_HOLD
    claims: Sequence[str] | None = None
    known_issue: str | None = None
    how: Callable[[Scenario], str] = lambda what: "no answer"
    launched: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    target: Target = field(
        default_factory=lambda: Target("python", "3.11.7", dict.fromkeys(PACKAGES, "99"), ("thread",))
    )

    def can_run(self, what: Scenario) -> bool:
        return True

    def run(self, what: Scenario, *, every_claim: bool = False) -> RunReport:
        self.launched += 1
        run = self.folder / f"run-{self.launched}"
        run.mkdir()
        broken = self.breaks(what)
        finding = Finding(
            "server_answers",
            Verdict.BROKEN if broken else Verdict.HELD,
            None,
            "pretended",
            (Event(0.0, 1, 1, "request.info", {}),),
            self.how(what) if broken else "",
        )
        judgement = Judgement(finding, self.expectation, "", self.known_issue, rate=(int(broken), 1))
        return RunReport(what, run, {"python": "3.11.7"}, [judgement], (), (run,))


BIG = Scenario(
    patches=(Patch(site=PatchSite.POST_FORK, flags={"thread": False}),),
    loops=(Loop(name="a"), Loop(name="b", daemon=False), Loop(name="c", kind="greenlet")),
    server=Server(worker_class=WorkerClass.GEVENT, workers=4, preload=True),
    faults=({"fault": "kill_worker", "slot": 3}, {"fault": "term"}),
)
PLAIN = Scenario(loops=(Loop(name="a"),))


def explorer(session: Pretended, **options: object) -> Explorer:
    return Explorer(cast(Session, session), **options)  # type: ignore[arg-type]


def test_a_surprise_is_confirmed_and_shrunk_to_what_it_needs(tmp_path: Path) -> None:
    session = Pretended(tmp_path, lambda what: what.server.preload and what.server.workers >= 2)
    campaign = explorer(session, jobs=2).explore([[PLAIN, BIG]])
    [failure] = campaign.failures
    assert failure.scenario.server == Server(preload=True, workers=2)
    assert [loop.kind.value for loop in failure.scenario.loops] == ["thread"]
    assert not failure.scenario.patches
    assert not failure.scenario.faults
    assert failure.rate == (5, 5)
    assert campaign.exit_code() == 1
    assert campaign.launched == session.launched
    assert {path.name for path in tmp_path.iterdir()} == {failure.folder.name}


def test_what_breaks_in_another_way_is_no_smaller_one(tmp_path: Path) -> None:
    session = Pretended(tmp_path, lambda what: True, how=lambda what: "late" if what.server.preload else "never")
    [failure] = explorer(session, find_causes=False).explore([[BIG]]).failures
    assert failure.scenario.server == Server(preload=True)
    assert failure.judgement.finding.how == "late"


def test_the_cause_is_looked_for_on_the_smallest_scenario(tmp_path: Path) -> None:
    session = Pretended(tmp_path, lambda what: what.server.preload and what.server.workers >= 2)
    [failure] = explorer(session, jobs=2).explore([[BIG]]).failures
    assert failure.cause is not None
    assert failure.cause.takes() == ["preload_app=True", "workers=2 (or 3)"]
    assert failure.cause.untried == 0
    plain = failure.to_dict()
    assert plain["cure"]["change"] == "with preload_app=False"
    assert {trial["verdict"] for trial in plain["cause"]} == {"held", "broken"}
    assert {path.name for path in tmp_path.iterdir()} == {failure.folder.name}


def test_a_known_issue_needs_no_cause(tmp_path: Path) -> None:
    session = Pretended(tmp_path, lambda what: True, known_issue="an-id")
    [failure] = explorer(session).explore([[PLAIN]]).failures
    assert failure.cause is None
    assert failure.to_dict()["cause"] is None


def test_interrupted_while_the_cause_is_looked_for_it_keeps_the_failure(tmp_path: Path) -> None:
    def breaks(what: Scenario) -> bool:
        if what.server.preload:  # which is not simpler, so it is not met before
            raise KeyboardInterrupt
        return True

    campaign = explorer(Pretended(tmp_path, breaks), jobs=1).explore([[PLAIN]])
    assert campaign.interrupted
    [failure] = campaign.failures
    assert failure.rate == (5, 5)
    assert failure.folder.is_dir()


def test_what_is_seen_once_keeps_its_rate(tmp_path: Path) -> None:
    seen: list[int] = []

    def once(what: Scenario) -> bool:
        seen.append(1)
        return len(seen) == 1

    [failure] = explorer(Pretended(tmp_path, once), jobs=1).explore([[BIG]]).failures
    assert failure.scenario == BIG
    assert failure.rate == (1, 6)


def test_a_sure_failure_is_not_shrunk_to_a_race(tmp_path: Path) -> None:
    seen: set[str] = set()

    def breaks(what: Scenario) -> bool:
        first = what.digest not in seen
        seen.add(what.digest)
        return first or what.server.preload

    [failure] = explorer(Pretended(tmp_path, breaks), jobs=1, find_causes=False).explore([[BIG]]).failures
    assert failure.scenario.server.preload
    assert failure.rate == (5, 5)
    assert {path.name for path in tmp_path.iterdir()} == {failure.folder.name}


def test_the_budget_of_launches_ends_the_shrinking(tmp_path: Path) -> None:
    session = Pretended(tmp_path, lambda what: what.server.preload)
    campaign = explorer(session, jobs=1, budget_launches=3).explore([[BIG]])
    assert campaign.failures[0].scenario != BIG
    assert session.launched <= 1 + 5 + 3 + 5 + 2 * 3


def test_an_expected_break_is_counted_and_does_not_fail(tmp_path: Path) -> None:
    session = Pretended(tmp_path, lambda what: True, Expectation.MAY_BREAK)
    campaign = explorer(session).explore([[BIG, PLAIN]])
    assert not campaign.failures
    [expected] = campaign.expected_breaks
    assert expected.scenario == PLAIN
    assert expected.seen == 2
    assert campaign.exit_code() == 0
    assert session.launched == 2


def test_an_expected_break_is_shrunk_where_its_claim_was_asked_for(tmp_path: Path) -> None:
    session = Pretended(tmp_path, lambda what: len(what.loops) > 1, Expectation.MUST_BREAK)
    campaign = explorer(session, shrink_expected=True).explore([[BIG]])
    assert [len(failure.scenario.loops) for failure in campaign.expected_breaks] == [2]


def test_held_where_it_must_break_is_a_surprise(tmp_path: Path) -> None:
    campaign = explorer(Pretended(tmp_path, lambda what: False, Expectation.MUST_BREAK)).explore([[PLAIN]])
    assert [failure.judgement.finding.verdict for failure in campaign.failures] == [Verdict.HELD]


@pytest.mark.parametrize("shows", [True, False])
def test_a_known_issue_that_does_not_show_any_more_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shows: bool
) -> None:
    issue = KnownIssue("id", "title", "link", ("server_answers",), {"gunicorn": ">=1"}, {}, (1, 2))
    elsewhere = replace(issue, versions={"gunicorn": "<1"})
    monkeypatch.setattr(known_issues, "load", lambda: (issue, elsewhere))
    monkeypatch.setattr(KnownIssue, "scenario", tmp_path / "scenario.json")
    (tmp_path / "scenario.json").write_text(BIG.to_json())
    session = Pretended(tmp_path, lambda what: shows and what == BIG, Expectation.MAY_BREAK)
    campaign = explorer(session, jobs=1, check_known=True).explore([[PLAIN]])
    assert [(stale.issue, stale.tried) for stale in campaign.stale] == ([] if shows else [(issue, 5)])
    assert campaign.exit_code(strict=True) == (0 if shows else 1)
    assert session.launched == (2 if shows else 6)
    assert [path.name for path in tmp_path.iterdir()] == ["scenario.json"]


def test_interrupted_it_reports_what_it_has(tmp_path: Path) -> None:
    runs: list[int] = []

    def breaks(what: Scenario) -> bool:
        runs.append(1)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return True

    session = Pretended(tmp_path, breaks)
    campaign = explorer(session, jobs=1).explore([[BIG, BIG]])
    assert campaign.interrupted
    assert session.stop.is_set()
    assert [failure.scenario for failure in campaign.failures] == [BIG]
    assert campaign.exit_code() == 1


def test_a_scenario_that_cannot_be_decided_is_told(tmp_path: Path) -> None:
    def breaks(what: Scenario) -> bool:
        raise CouldNotDecide("the machine went away")

    campaign = explorer(Pretended(tmp_path, breaks)).explore([[PLAIN]])
    assert campaign.problems == ["the machine went away"]
    assert campaign.exit_code() == 3


def test_where_nothing_boots_it_gives_up(tmp_path: Path) -> None:
    def breaks(what: Scenario) -> bool:
        raise NothingBoots("nothing boots", tmp_path / "run")

    session = Pretended(tmp_path, breaks)
    campaign = explorer(session, jobs=1).explore([[PLAIN] * 50])
    assert session.launched == GIVE_UP
    assert campaign.exit_code() == 3


def test_problems_do_not_pile_up(tmp_path: Path) -> None:
    def breaks(what: Scenario) -> bool:
        raise CouldNotDecide("the supervisor ended", tmp_path / f"run-{session.launched}")

    session = Pretended(tmp_path, breaks)
    campaign = explorer(session, jobs=1).explore([[PLAIN] * 20])
    assert session.launched == 20
    assert len(campaign.problems) == len(list(tmp_path.iterdir())) == KEPT_UNDECIDED


def test_no_new_run_begins_after_the_deadline(tmp_path: Path) -> None:
    session = Pretended(tmp_path, lambda what: False)
    campaign = explorer(session).explore([[PLAIN], [PLAIN]], until=time.monotonic())
    assert campaign.launched == 0
    assert campaign.exit_code() == 3


def test_with_claims_only_what_can_exercise_one_of_them_is_drawn() -> None:
    target = Target("python", "3.11.7", {}, ())
    found = draw(3, 1, target, None, ["no_leak_on_reload"])
    assert found
    for what in found:
        assert sum(fault.options.get("times", 1) for fault in what.faults if fault.fault == "hup") >= 3
    assert draw(3, 1, target, None, ["no_leak_on_reload", "workers_boot"]) == draw(3, 1, target)
    for claim in ("subscriptions_match", "no_socket_shared_across_fork"):
        assert draw(1, 1, target, None, [claim]) == [], "without redis nothing subscribes or is connected"


def test_empty_batches_end_by_the_deadline_too(tmp_path: Path) -> None:
    session = Pretended(tmp_path, lambda what: False)
    campaign = explorer(session).explore(([] for _ in itertools.count()), until=time.monotonic() + 0.01)
    assert campaign.drawn == 0


@pytest.mark.parametrize(
    ("versions", "classes"), [({}, 2), ({"gevent": "1"}, 4), ({"gevent": "1", "gevent-websocket": "1"}, 5)]
)
def test_what_a_target_lacks_is_not_drawn(versions: dict[str, str], classes: int) -> None:
    target = Target("python", "3.11.7", versions, ("thread", "os"))
    drawn = draw(15, 1, target)
    assert len({what.digest for what in drawn}) == 15
    assert len({what.server.worker_class for what in drawn}) <= classes
    for what in drawn:
        assert not any(loop.hears_redis for loop in what.loops)
        assert "gevent" in versions or not what.patches
        assert all(flag in ("thread", "os") for patch in what.patches for flag in patch.flags)


def test_the_cheap_ones_are_run_first_among_their_neighbours() -> None:
    dear = from_dict({**PLAIN.to_dict(), "server": {"workers": 4}})
    with_a_fault = from_dict({**PLAIN.to_dict(), "faults": [{"fault": "hup"}]})
    assert cheapest_first([with_a_fault, dear, PLAIN]) == [PLAIN, dear, with_a_fault]
    many = [with_a_fault] * NEAR + [PLAIN]
    assert cheapest_first(many) == many, "what comes much later does not come first"
