"""Hypothesis strategies that draw deployments, and start nothing.

Everything is keyword-only and shrinks towards one worker, no fault, one daemon thread, no patch, defaults.

>>> from hypothesis import find
>>> find(servers(), lambda server: server.workers > 1).workers
2
"""

from forkproof_strategies._faults import afters, faults
from forkproof_strategies._recipes import RECIPES, Recipe, recipes
from forkproof_strategies._scenarios import (
    early_imports,
    features,
    features_of_others,
    loops,
    parks,
    patch_flags,
    patches,
    scenarios,
    servers,
    surroundings,
    yields,
)

__all__ = [
    "RECIPES",
    "Recipe",
    "afters",
    "early_imports",
    "faults",
    "features",
    "features_of_others",
    "loops",
    "parks",
    "patch_flags",
    "patches",
    "recipes",
    "scenarios",
    "servers",
    "surroundings",
    "yields",
]
