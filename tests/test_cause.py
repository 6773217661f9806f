"""Cause by experiment, on runs that are pretended: which neighbours there are, how often each is run, what it means."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from few import FEW
from hypothesis import given
from test_blocks import block_of, first_missing

from forkproof.cause import Cause, Change, Cost, Trial, changes, investigate, runs_until_sound
from forkproof.dimensions import at
from forkproof.judge import Judgement, RunReport
from forkproof.scenario import Scenario, from_dict
from forkproof.simplify import DROP
from forkproof.verdict import Finding, Verdict
from forkproof_strategies import scenarios

HELD, BROKEN, UNKNOWN, NONE = Verdict.HELD, Verdict.BROKEN, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE
KEY = ("no_copied_thread", "a")
OTHER = ("server_answers", None)
COPIES: dict[str, Any] = {
    "patches": [{"site": "config_first_line"}],
    "loops": [{"name": "a", "start": "config_import", "policy": "once_per_service"}],
    "faults": [{"fault": "term"}],
}
WHAT = from_dict(COPIES)
Answers = Callable[[Scenario], dict[tuple[str, str | None], Verdict]]


class Runs:
    """Stands for servers: a scenario comes to what `answers` says; counts the runs of each."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.of: Counter[str] = Counter()

    def __call__(self, batch: Sequence[Scenario]) -> Iterator[RunReport]:
        for what in batch:
            self.of[what.digest] += 1
            judgements = [
                Judgement(Finding(claim, verdict, loop, "pretended", (), "copied" * (verdict is BROKEN)), None, "")
                for (claim, loop), verdict in self.answers(what).items()
            ]
            yield RunReport(what, Path("run"), {}, judgements)


def copies(what: Scenario) -> bool:
    """A model of `patch_all` before the fork: a thread that was started there is copied, unless `thread=False`."""
    early = [patch for patch in what.patches if patch.site.value.startswith(("config", "interpreter"))]
    return any(patch.flags.get("thread", True) for patch in early) and what.loops[0].start.value in (
        "config_import", "on_starting", "when_ready", "pre_fork",
    )  # fmt: skip


def copied(what: Scenario) -> dict[tuple[str, str | None], Verdict]:
    return {KEY: BROKEN if copies(what) else HELD}


def explain(answers: Answers, rate: tuple[int, int] = (5, 5), **options: Any) -> tuple[Cause, Runs]:
    runs = Runs(answers)
    return investigate(WHAT, {KEY: rate}, runs, **options)[KEY], runs


def words(trials: Sequence[Trial]) -> set[str]:
    return {trial.change.words for trial in trials}


# Neighbours


@FEW
@given(scenarios())
def test_a_neighbour_differs_in_one_thing(what: Scenario) -> None:
    keep = what.loops[0].name
    found = changes(what, keep={keep})
    assert len({other.digest for _, other in found} | {what.digest}) == len(found) + 1
    for change, other in found:
        assert from_dict(other.to_dict()) == other
        assert keep in {loop.name for loop in other.loops}
        assert {loop.name: loop.policy for loop in what.loops}.items() >= {
            loop.name: loop.policy for loop in other.loops
        }.items()
        if change.words.startswith("without"):
            around = change.path[:-1]
            fewer = len(at(what.to_dict(), around)) - len(at(other.to_dict(), around))
            assert fewer == 1 or (fewer > 1 and change.words.endswith("the faults that cannot be then"))
        elif change.after is not None:
            assert at(other.to_dict(), change.path) == change.after


def test_every_dimension_is_varied_in_both_directions() -> None:
    told = words([Trial(change, HELD, (0, 1), True) for change, _ in changes(WHAT, keep="a")])
    assert {
        "with preload_app=True", "with worker_class=gevent", "with workers=2", "with thread=False", "with sys=True",
        "when 'a' starts in post_worker_init", "when 'a' has kind=process", "when 'a' has body=cpu",
        "when 'a' has yields.call=none", "when patched at post_fork", "without the patch at config_first_line",
        "without fault 'term'",
    } <= told  # fmt: skip
    plainest = from_dict({"loops": [{"name": "a"}]})
    told = {change.words for change, _ in changes(plainest, keep="a")}
    assert "with patch_all() at config_first_line" in told
    twice = from_dict({**COPIES, "patches": [{"site": "config_first_line"}, {"site": "post_fork"}]})
    told = {change.words for change, _ in changes(twice, keep="a")}
    assert "when patched, instead of at post_fork, at app_first_line" in told
    assert "with thread=False at post_fork" in told
    flagged = from_dict({**COPIES, "patches": [{"site": "config_first_line", "flags": {"thread": False}}]})
    assert "with thread at its default" in {change.words for change, _ in changes(flagged, keep="a")}


def test_each_field_has_its_turn_before_any_has_another() -> None:
    paths = [change.path for change, _ in changes(WHAT, keep="a") if change.round == 0]
    assert len(paths) == len(set(paths))
    assert ("loops", 0, "start") in paths
    rounds = [change.round for change, _ in changes(WHAT, keep="a")]
    assert rounds == sorted(rounds)


def test_costs_are_in_order() -> None:
    costs = {change.words: change.cost for change, _ in changes(WHAT, keep="a")}
    assert costs["with preload_app=True"] == Cost.SETTING
    assert costs["when 'a' starts in post_fork"] == Cost.START
    assert costs["with thread=False"] == Cost.FLAG
    assert costs["when patched at post_fork"] == costs["without the patch at config_first_line"] == Cost.SITE
    assert costs["when 'a' has daemon=False"] == Cost.LOOP
    assert costs["when 'a' has kind=process"] == Cost.KIND
    assert costs["with worker_class=gevent"] == costs["with workers=2"] == Cost.SERVER
    assert costs["without fault 'term'"] is None
    assert costs["when 'a' has body=cpu"] is None


def test_what_the_target_cannot_run_is_left_out() -> None:
    cause, _ = explain(copied, can_run=lambda other: not other.server.worker_class.is_gevent)
    assert "with worker_class=gthread" in words(cause.trials)
    assert "with worker_class=gevent" not in words(cause.trials)


# Conclusions


def test_what_makes_it_hold_is_the_cause_and_the_cheapest_the_cure() -> None:
    cause, runs = explain(copied)
    assert cause.takes() == [
        "'a' started in config_import (or pre_fork, when_ready, on_starting)",
        "thread patched at config_first_line",
        "a patch at config_first_line (or interpreter_start, config_after_imports)",
    ]
    assert cause.cure is not None
    assert cause.cure.change.cost is Cost.START
    assert cause.cure.rate == (0, 2)
    assert "with worker_class=gevent" in words(cause.of(BROKEN))
    assert "with preload_app=True" in words(cause.of(BROKEN))
    assert cause.launched == sum(runs.of.values())
    assert cause.untried == 0
    # What broke was run once, what held until it was sure.
    assert {runs.of[other.digest] for _, other in changes(WHAT, keep="a") if copies(other)} == {1}
    assert {runs.of[other.digest] for _, other in changes(WHAT, keep="a") if not copies(other)} == {2}


def test_the_text() -> None:
    lines = list(explain(copied)[0].lines())
    assert lines[0].startswith("cause (")
    assert "it takes 'a' started in config_import (or " in lines[0]
    [holds] = [line for line in lines if line.startswith("  holds ")]
    assert "when 'a' starts in first_request (2 of 2), post_worker_init (2 of 2)" in holds.replace(
        "fork_hook (2 of 2), ", ""
    )
    assert "with thread=False (2 of 2)" in holds
    [broken] = [line for line in lines if line.startswith("  still broken ")]
    assert re.search(r"with worker_class=[a-z_, ]*gevent_pywsgi, gevent, gthread", broken)
    assert "with preload_app=True; " in broken
    assert "with socket=False, dns=False, " in broken
    assert lines[-1].startswith("cure: when 'a' starts in ")
    assert lines[-1].endswith("(where the loop starts)")


@pytest.mark.parametrize("verdict", [UNKNOWN, NONE])
def test_what_was_not_judged_is_no_cure(verdict: Verdict) -> None:
    def answers(what: Scenario) -> dict[tuple[str, str | None], Verdict]:
        return {KEY: BROKEN if copies(what) else verdict}

    cause, runs = explain(answers)
    assert cause.cure is None
    assert cause.takes() == []
    assert not cause.of(HELD)
    assert "with thread=False" in words(cause.of(verdict))
    assert max(runs.of.values()) <= 2
    assert "no one change makes it hold" in next(cause.lines())


def test_a_cure_that_breaks_something_else_is_not_the_one_that_is_offered() -> None:
    def answers(what: Scenario) -> dict[tuple[str, str | None], Verdict]:
        late = what.loops[0].start.value not in ("config_import", "on_starting", "when_ready", "pre_fork")
        return {**copied(what), OTHER: BROKEN if late else HELD}

    cause, _ = explain(answers, held=[OTHER])
    assert cause.cure is not None
    assert cause.cure.change.words == "with thread=False"
    [late] = [trial for trial in cause.of(HELD) if trial.change.words == "when 'a' starts in post_fork"]
    assert late.breaks == ("server_answers",)
    assert any("post_fork (2 of 2, but breaks server_answers)" in line for line in cause.lines())


def test_where_every_cure_breaks_something_else_that_is_said() -> None:
    cause, _ = explain(lambda what: {**copied(what), OTHER: HELD if copies(what) else BROKEN}, held=[OTHER])
    assert list(cause.lines())[-1].endswith("(where the loop starts; but it breaks server_answers)")


def test_a_race_is_given_its_tries() -> None:
    seen: Counter[str] = Counter()

    def answers(what: Scenario) -> dict[tuple[str, str | None], Verdict]:
        seen[what.digest] += 1
        return {KEY: BROKEN if copies(what) and seen[what.digest] % 4 == 0 else HELD}

    cause, _ = explain(answers, rate=(1, 4))
    assert runs_until_sound((1, 4)) == 8
    [trial] = [trial for trial in cause.trials if trial.change.words == "with preload_app=True"]
    assert (trial.verdict, trial.rate) == (BROKEN, (1, 4))
    [trial] = [trial for trial in cause.trials if trial.change.words == "with thread=False"]
    assert (trial.verdict, trial.rate, trial.sure) == (HELD, (0, 8), True)


def test_the_budget_ends_it() -> None:
    runs = Runs(copied)
    no_setting = {other.digest for change, other in changes(WHAT, keep="a") if change.cost is not Cost.SETTING}
    cause = investigate(
        WHAT, {KEY: (5, 5)}, runs,
        can_run=lambda other: other.digest in no_setting, go_on=lambda: sum(runs.of.values()) < 4,
    )[KEY]  # fmt: skip
    assert cause.launched == 4
    assert cause.untried == len(no_setting) - 4
    assert f"{cause.untried} not tried: the budget was spent" in next(cause.lines())
    assert cause.cure is not None
    assert not cause.cure.sure
    assert list(cause.lines())[-1].endswith("(where the loop starts; held too seldom to be sure)")


def test_what_cannot_be_run_at_all_is_not_tried_for_ever() -> None:
    cause = investigate(WHAT, {KEY: (5, 5)}, lambda batch: ())[KEY]
    assert not cause.trials
    assert cause.untried > 40


def test_several_failures_share_their_runs() -> None:
    runs = Runs(lambda what: {KEY: copied(what)[KEY], OTHER: BROKEN if what.faults else HELD})
    causes = investigate(WHAT, {KEY: (5, 5), OTHER: (5, 5)}, runs)
    assert causes[KEY].launched == causes[OTHER].launched == sum(runs.of.values())
    assert words(causes[OTHER].of(HELD)) == {"without fault 'term'"}
    assert causes[OTHER].cure is None


def test_the_report() -> None:
    change = Change(("server", "preload"), True, False, "with preload_app=False", "preload_app=True", Cost.SETTING)
    plain = Cause([Trial(change, HELD, (0, 2), True)]).to_dict()
    assert plain["cause"] == [plain["cure"]]
    assert plain["cure"] == {
        "change": "with preload_app=False", "path": "server.preload", "from": True, "to": False, "cost": "setting",
        "verdict": "held", "rate": [0, 2], "sure": True, "how": "", "breaks": [], "why": "",
    }  # fmt: skip


def test_what_is_left_out_is_no_value() -> None:
    assert all(change.after is not DROP for change, _ in changes(WHAT, keep="a"))


def test_the_cause_that_the_page_shows() -> None:
    """Its 109 servers take two minutes: what each of them came to is pretended here."""
    key, beside = ("no_copied_thread", "listen"), ("quiet_runtime", None)

    def verdict(what: Scenario) -> Verdict:
        [loop] = what.loops
        sites = {patch.site.value for patch in what.patches}
        early = sites & {"interpreter_start", "config_first_line", "config_after_imports"}
        flags = {name: value for patch in what.patches for name, value in patch.flags.items()}
        if loop.start.value not in ("config_import", "on_starting", "when_ready", "pre_fork"):
            return NONE
        if loop.yields.call.value in ("none", "native_sleep") or not flags.get("time", True):
            return NONE
        if sites == {"in_thread"}:
            return UNKNOWN
        is_copied = loop.kind.value in ("thread", "greenlet", "executor", "timer")
        return BROKEN if early and is_copied and flags.get("thread", True) else HELD

    def answers(what: Scenario) -> dict[tuple[str, str | None], Verdict]:
        return {key: verdict(what), beside: BROKEN if what.loops[0].kind.value == "native_thread" else HELD}

    what = from_dict({**COPIES, "loops": [{**COPIES["loops"][0], "name": "listen"}], "faults": []})
    cause = investigate(what, {key: (5, 5)}, Runs(answers), held=[beside], jobs=2)[key]
    told = "\n".join(cause.lines())
    shown = block_of("docs/cli.md", "cause (").text
    assert first_missing(told, shown) == "", told
    assert {*re.findall(r"\d+ of \d+", shown)} <= {*re.findall(r"\d+ of \d+", told)}


@pytest.mark.fork
def test_the_cause_of_a_copied_thread(forkproof) -> None:  # type: ignore[no-untyped-def]
    """The same on real servers, for as many neighbours as are needed to tell the one from the other."""
    wanted = {
        "with thread=False",
        "when patched at post_fork",
        "with worker_class=gevent",
        "when 'a' has kind=greenlet",
    }
    some = {other.digest for change, other in changes(WHAT, keep="a") if change.words in wanted}

    def run_all(batch: Sequence[Scenario]) -> Iterator[RunReport]:
        for what in batch:
            yield forkproof.run(what).report

    cause = investigate(WHAT, {KEY: (5, 5)}, run_all, can_run=lambda other: other.digest in some)[KEY]
    assert words(cause.of(HELD)) == {"with thread=False", "when patched at post_fork"}
    assert words(cause.of(BROKEN)) == {"with worker_class=gevent", "when 'a' has kind=greenlet"}
    assert cause.cure is not None
    assert cause.cure.change.words == "with thread=False"
