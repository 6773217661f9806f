"""Whether two rates differ, and how sure that is over many questions.

A race that broke on one side by chance is no difference. So each difference is put to a test on runs of its own, made
after it was noticed, and the chance of a mistake that is allowed is shared out over all tests of a command.

>>> round(fisher((5, 5), (0, 5)), 4)
0.004
>>> spent = Spending(0.05)
>>> [round(spent.next(), 4) for _ in range(3)]
[0.025, 0.0083, 0.0042]
"""

from __future__ import annotations

import math

Rate = tuple[int, int]
"""How many runs show something, of how many that could tell."""


def fisher(more: Rate, less: Rate) -> float:
    """How likely so great a difference, or a greater one, is where both have one rate (Fisher's exact test, one-sided).

    >>> fisher((0, 0), (0, 5)), fisher((2, 5), (2, 5)) > 0.5
    (1.0, True)
    """
    (shown, tried), (other_shown, other_tried) = more, less
    total, both = tried + other_tried, shown + other_shown
    ways = sum(
        math.comb(both, k) * math.comb(total - both, tried - k)
        for k in range(shown, min(both, tried) + 1)
        if tried - k <= total - both
    )
    return ways / math.comb(total, tried)


def enough(level: float, most: int = 12) -> int:
    """Runs on each side with which a difference that always shows passes a test at a level, at most `most`.

    >>> enough(0.0125), enough(0.0021), enough(1e-9)
    (5, 6, 12)
    """
    return next((n for n in range(2, most) if fisher((n, n), (0, n)) <= level), most)


class Spending:
    """The levels of a series of tests whose number nobody knows beforehand: together they never exceed `total`."""

    def __init__(self, total: float) -> None:
        self.total = total
        self.tests = 0

    def next(self) -> float:
        """The level of the next test."""
        self.tests += 1
        return self.total / (self.tests * (self.tests + 1))
