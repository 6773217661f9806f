"""The arithmetic of `benchmarks/throughput.py`; it starts no server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import throughput
from throughput import Round

NAIVE = [Round(10, 40.0, 5.0), Round(10, 50.0, 6.0), Round(10, 40.0, 5.5, failed=1)]
FLOOR = {1: [Round(10, 10.0, 4.0)] * 3, 2: [Round(10, 5.0, 4.0), Round(10, 4.0, 4.0), Round(10, 5.0, 4.0)]}
OURS = {2: [Round(10, 10.0, 8.0)] * 3, 4: [Round(10, 8.0, 8.0)] * 3, 8: [Round(10, 9.0, 8.0)] * 3}


def test_the_best_of_each_are_compared_round_by_round() -> None:
    result = throughput.summary(NAIVE, FLOOR, OURS)
    assert result["best"] == {"floor": 2, "forkproof": 4}
    assert result["ratios"]["forkproof / naive"] == {"median": 5.0, "min": 5.0, "max": 6.25}
    assert result["ratios"]["forkproof / floor"] == {"median": 0.625, "min": 0.5, "max": 0.625}
    assert result["ratios"]["forkproof -j 8 / -j 2"]["median"] == pytest.approx(10 / 9, abs=0.001)
    assert result["naive"]["cpu_seconds_each"] == {"median": 0.55, "min": 0.5, "max": 0.6}
    assert result["naive"]["failed"] == 1
    assert result["forkproof"]["4"]["per_second"]["median"] == 1.25


def test_rounds_are_paired() -> None:
    with pytest.raises(ValueError, match="shorter"):
        throughput.summary(NAIVE[:2], FLOOR, OURS)


def test_the_page_names_each_way() -> None:
    told = throughput.page({**throughput.summary(NAIVE, FLOOR, OURS), "peak_mb": {"floor": throughput.spread([90.0])}})
    for name in ("naive", "floor -j 2", "forkproof -j 8", "forkproof / floor", "peak memory"):
        assert name in told


def test_what_lives_below_counts_as_used() -> None:
    before = throughput.cpu_seconds()
    sum(range(10**6))
    assert throughput.cpu_seconds() > before
