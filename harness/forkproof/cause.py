"""Why a scenario fails, by experiment: its neighbours in one dimension are run, and what makes it hold is the cause."""

from __future__ import annotations

import math

DOUBT = 0.05
"""How likely it may be that what held so often still fails at the rate that was seen."""

MOST_RUNS = 12
"""Rarer races are left with more doubt than that."""


def runs_until_sound(rate: tuple[int, int]) -> int:
    """How often something must hold before it counts as sound, where `rate` (failed, tried) was seen before.

    >>> runs_until_sound((5, 5)), runs_until_sound((1, 2)), runs_until_sound((1, 20))
    (2, 5, 12)
    """
    failed, tried = rate
    # Laplace's rule: five failures of five do not say that it always fails.
    likely = (failed + 1) / (tried + 2)
    return min(MOST_RUNS, math.ceil(math.log(DOUBT) / math.log(1 - likely)))
