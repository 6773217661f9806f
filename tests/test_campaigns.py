"""What the long campaigns conclude from their runs: they can fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from forkproof.scenario import Scenario, from_dict

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import agreement
import soak


def row(pressure: str = "none", *, false: list[str] | None = None, **verdicts: int) -> dict[str, Any]:
    return {"pressure": pressure, "verdicts": verdicts, "false": false or [], "findings": 0}


@pytest.mark.parametrize(
    ("rows", "good"),
    [
        ([row(held=99, unknown=1)], True),
        ([row(held=98, unknown=2)], False),
        ([row("hogs", held=90, unknown=10)], True),
        ([row("hogs", held=89, unknown=11)], False),
        ([row("hogs", held=99), row("hogs", held=9, broken=1, false=["a"])], False),
        ([row("stops", held=9, broken=1)], True),  # of a known defect
    ],
)
def test_a_soak_keeps_its_bounds_or_not(rows: list[dict[str, Any]], good: bool) -> None:
    assert soak.table(rows)[1] is good


def test_a_soak_goes_on_where_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text(json.dumps(row(held=1)) + "\n" + '{"pressure": "no')
    assert soak.read_rows(path) == [row(held=1)]
    assert soak.read_rows(tmp_path / "nothing") == soak.read_rows(None) == []


def test_rounds_agree_or_are_named() -> None:
    every = [Scenario(loops=from_dict({"loops": [{"name": name}]}).loops) for name in "ab"]
    first = [{"the scenario": "broken", "x": "held"}, {"the scenario": "held", "x": "held"}]
    second = [{"the scenario": "broken", "x": "unknown"}, {"the scenario": "broken", "x": "broken"}]
    result = agreement.compare([first, second], every)
    assert result["scenarios"] == {"same": 1, "of": 2}
    assert result["claims"] == {"same": 0, "of": 2}
    assert [one["claims"]["x"] for one in result["differ"]] == [{"held": 1, "unknown": 1}, {"held": 1, "broken": 1}]
    same = agreement.compare([first, first], every)
    assert same["differ"] == []
    assert same["scenarios"] == {"same": 2, "of": 2}
