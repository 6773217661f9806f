"""Coverage: what was exercised, in pairs too, what a target could have run, and what was vacuous."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from few import FEW
from histories import created, fault, history
from hypothesis import given

from forkproof.coverage import Coverage, Universe, reason, universe, values_of
from forkproof.dimensions import dimensions
from forkproof.errors import ForkproofError
from forkproof.judge import Judgement, RunReport, missed
from forkproof.scenario import Scenario, from_dict
from forkproof.target import PACKAGES, Target
from forkproof.verdict import Finding, Verdict
from forkproof_strategies import scenarios

ALL = Target("python", "3.11.7", dict.fromkeys(PACKAGES, "99"), ("thread", "sys"))
BARE = Target("python", "3.11.7", {"gunicorn": "99", "flask": "99"}, ())
HELD, UNKNOWN, NONE = Verdict.HELD, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE
BOTH = {"patches": [{"site": "post_fork"}], "loops": [{"name": "a"}, {"name": "b", "kind": "process"}]}


def report(plain: dict[str, Any] | None = None, *, missed: tuple[str, ...] = (), **verdicts: Verdict) -> RunReport:
    judgements = [
        Judgement(Finding(claim, verdict, None, f"it is {1.5}s"), None, "") for claim, verdict in verdicts.items()
    ]
    what = from_dict(plain or {"loops": [{"name": "a"}]})
    return RunReport(what, Path("run"), {"python": "3.11.7"}, judgements, missed=missed)


def able(target: Target) -> Callable[[Scenario], bool]:
    def can_run(what: Scenario) -> bool:
        try:
            target.require(what)
        except ForkproofError:
            return False
        return True

    return can_run


def counted(*reports: RunReport) -> Coverage:
    coverage = Coverage()
    for one in reports:
        coverage.add(one)
    return coverage


@pytest.fixture(scope="module")
def everything() -> Universe:
    return universe(able(ALL))


def test_values_and_pairs_of_one_run() -> None:
    found = counted(report(BOTH, workers_boot=HELD))
    assert found.values["loop.kind"] == {"thread": 1, "process": 1}
    assert found.values["preload"] == {"false": 1}
    assert found.values["fault"] == {"none": 1}
    assert (("loop.kind", "process"), ("patch.site", "post_fork")) in found.pairs
    assert (("loop.daemon", "true"), ("loop.kind", "process")) in found.pairs
    assert not any(one[0] == other[0] for one, other in found.pairs)


def test_a_pair_is_of_one_loop() -> None:
    of_two = {"loops": [{"name": "a", "body": "cpu"}, {"name": "b", "kind": "process"}]}
    pairs = counted(report(of_two, workers_boot=HELD)).pairs
    assert (("loop.body", "cpu"), ("loop.kind", "thread")) in pairs
    assert (("loop.body", "cpu"), ("loop.kind", "process")) not in pairs


def test_what_never_came_about_is_drawn_and_not_exercised() -> None:
    found = counted(report(BOTH, missed=("loops.1",), workers_boot=HELD))
    assert found.values["loop.kind"]["process"] == 1
    assert ("loop.kind", "process") not in found.exercised
    assert ("loop.kind", "thread") in found.exercised


def test_a_run_that_decided_nothing_exercised_nothing(everything: Universe) -> None:
    found = counted(report(workers_boot=UNKNOWN, clean_shutdown=NONE))
    assert not found.exercised
    told = {gap.what: gap.why for gap in found.vacuous_values(everything)}
    assert told["loop.kind", "thread"] == "drawn, but never came about in a run that decided anything"
    assert told["loop.kind", "process"] == "never drawn"


def test_vacuous_claims_have_the_most_common_reason() -> None:
    found = counted(
        report(workers_boot=NONE), report(workers_boot=NONE, quiet_runtime=HELD), report(workers_boot=UNKNOWN)
    )
    gaps = found.vacuous_claims(["workers_boot", "quiet_runtime", "clean_shutdown"])
    assert [(gap.what[0], gap.drawn, gap.why) for gap in gaps] == [
        ("workers_boot", 3, "not applicable: it is Ns"),
        ("clean_shutdown", 0, "never judged"),
    ]


def test_reasons_do_not_grow_without_end() -> None:
    found = Coverage()
    for word in range(1000):
        found._reason(("a", UNKNOWN), "x" * word)
    assert len(found.reasons["a", UNKNOWN]) <= 201
    assert sum(found.reasons["a", UNKNOWN].values()) == 1000


def test_numbers_and_births_are_left_out_of_reasons() -> None:
    assert (
        reason("birth 9f3a11c0 in worker 0 (pid 12) at +1.25s, decided")
        == "birth N in worker N (pid N) at +Ns, decided"
    )


def test_what_a_target_lacks_is_not_possible(everything: Universe) -> None:
    bare = universe(able(BARE))
    assert ("worker_class", "gevent") in everything.values
    assert not {value for value in bare.values if value[0].startswith("patch.flag") or value[1] == "gevent"}
    assert ("patch.flag", "dns=False") not in everything.values
    assert bare.pairs < everything.pairs


def test_what_cannot_be_is_not_possible(everything: Universe) -> None:
    assert (("fault.slot", "3"), ("workers", "2")) in everything.pairs
    assert (("fault", "term"), ("fault.slot", "0")) not in everything.pairs
    assert (("fault", "none"), ("fault.slot", "0")) not in everything.pairs
    assert (("fault", "ttin"), ("workers", "4")) in everything.pairs  # once there is one fewer
    assert (("loop.yield", "gevent.sleep"), ("preload", "true")) in everything.pairs
    assert (("loop.kind", "socketio_task"), ("loop.start", "post_fork")) in everything.pairs
    assert (("loop.kind", "socketio_task"), ("loop.start", "config_import")) not in everything.pairs


@FEW
@given(what=scenarios(flags=ALL.patch_flags))
def test_every_pair_that_is_drawn_was_possible(what: Scenario, everything: Universe) -> None:
    listed = {dimension.name for dimension in dimensions() if dimension.values}
    found = counted(report(what.to_dict(), workers_boot=HELD))
    known = {pair for pair in found.pairs if {value[0] for value in pair} <= listed}
    assert known <= everything.pairs
    assert {value for value, _ in values_of(what) if value[0] in listed} <= set(everything.values)


def test_the_report(everything: Universe) -> None:
    plain = counted(report(BOTH, workers_boot=HELD)).to_dict(everything, ["workers_boot", "quiet_runtime"])
    assert plain["claims"] == {"workers_boot": {"held": 1}}
    assert plain["pairs"]["possible"] == len(everything.pairs)
    assert 0 < plain["pairs"]["seen"] < 300
    assert len(plain["pairs"]["missing"]) == 20
    assert {"claim": "quiet_runtime", "judged": 0, "why": "never judged"} in plain["vacuous"]["claims"]
    assert {"dimension": "preload", "value": "true", "drawn": 0, "why": "never drawn"} in plain["vacuous"]["values"]


def test_what_a_run_did_not_come_to(tmp_path: Path) -> None:
    what = from_dict({**BOTH, "faults": [{"fault": "kill_worker", "slot": 0}, {"fault": "term"}]})
    seen = history(created("aa", 110, loop="a"), fault("kill_worker", 2.0))
    assert missed(what, seen) == {"patches.0", "loops.1", "faults.1"}
