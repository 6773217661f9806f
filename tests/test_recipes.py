"""Deployments that documentation recommends break nothing on a real server, save what `findings/` tells of them."""

from __future__ import annotations

import json

import pytest

from forkproof import expectation, explore, target
from forkproof.claims import REGISTRY
from forkproof.expectation import Expectation
from forkproof.plugin import Forkproof
from forkproof.scenario import WorkerClass
from forkproof.verdict import Finding, Verdict
from forkproof_strategies import RECIPES, recipes

VERSIONS = {"gunicorn": "27.0.1", "gevent": "26.9.0"}
NAMES = [recipe.name for recipe in RECIPES]


@pytest.mark.parametrize("name", NAMES)
def test_the_documentation_rules_out_no_recipe(name: str) -> None:
    for what in explore.drawn(10, 1, recipes(only=[name])):
        for claim in REGISTRY:
            answer, why = expectation.expect(what, claim, "a", VERSIONS)
            assert answer is not Expectation.MUST_BREAK, (claim, why, what)


def test_what_a_target_lacks_is_left_out() -> None:
    plain = [WorkerClass.SYNC, WorkerClass.GTHREAD]
    for what in explore.drawn(20, 1, recipes(worker_classes=plain, lacks=["gevent", "redis"])):
        assert target.needs(what).keys() == {"gunicorn", "flask"}


def test_a_target_may_lack_what_a_recipe_is_about() -> None:
    assert recipes(only=["leader_with_a_lease"], lacks=["redis"]).is_empty


EACH = 3

HALF_IMPORTED = {"no_half_imported_module", "workers_boot", "server_answers", "clean_shutdown"}
"""What a fork beside a thread that imports breaks: findings/half-imported-module."""


def is_a_finding(found: Finding, everything: list[Finding]) -> bool:
    """Whether something that broke is what a folder in `findings/` tells of, as the run itself shows."""
    half_imported = any(one.claim == "no_half_imported_module" for one in everything)
    if found.claim == "quiet_runtime":
        if "_exit_function" in found.explanation:  # findings/worker-exit-ends-masters-process
            return "can only join a child process" in found.explanation
        return half_imported and "Exception in worker process" in found.explanation
    if "C code waited for a lock" in found.explanation:  # findings/greenlet-lock-held-at-fork
        return True
    return half_imported and found.claim in HALF_IMPORTED


@pytest.mark.fork
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_breaks_nothing(name: str, forkproof: Forkproof, request: pytest.FixtureRequest) -> None:
    classes, _ = explore.abilities(forkproof.session.target)
    lacks = {"gevent", "redis", "flask-socketio"} - forkproof.session.target.versions.keys()
    strategy = recipes(only=[name], worker_classes=classes, lacks=lacks)
    if strategy.is_empty:
        pytest.skip(f"{forkproof.session.target.executable}: lacks what {name} needs")
    held = 0
    for what in explore.drawn(EACH, request.config.getoption("fork_seed"), strategy):
        findings = [judgement.finding for judgement in forkproof.run(what).report.judgements]
        held += sum(found.verdict is Verdict.HELD for found in findings)
        broken = [found for found in findings if found.verdict is Verdict.BROKEN]
        for found in broken:
            assert is_a_finding(found, broken), f"{found}\n{json.dumps(what.to_dict())}"
    assert held
