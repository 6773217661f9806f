"""Deployments that documentation recommends: nothing that is documented speaks against them."""

from __future__ import annotations

import pytest

from forkproof import expectation, explore, target
from forkproof.claims import REGISTRY
from forkproof.expectation import Expectation
from forkproof.scenario import WorkerClass
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
