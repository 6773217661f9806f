"""Every failure of this repository's findings, examples and planted bugs has a program, which is sound as text.

`benchmarks/exported.py` runs them; its rows say what broke in which deployment.
"""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from exportable import DEPLOYMENTS

from forkproof.claims import REGISTRY
from forkproof.reproducer import LONGEST, Broken, programs

DATA = json.loads((Path(__file__).parents[1] / "docs" / "exported.json").read_text(encoding="utf-8"))
BROKEN: list[dict[str, Any]] = [row for row in DATA["rows"] if "claim" in row]


def test_every_deployment_was_looked_at() -> None:
    assert {row["deployment"] for row in DATA["rows"]} == DEPLOYMENTS.keys()
    assert {row["claim"] for row in BROKEN} == REGISTRY.keys() - {"foreign_child_ignored"}  # a bug of gunicorn 26.0
    assert not [row for row in BROKEN if row["came"] in ("wrong", "refused")]
    shown = {row["deployment"] for row in BROKEN if row.get("alone") == 1}
    assert shown >= {row["deployment"] for row in BROKEN if row["deployment"].startswith("findings/")}


@pytest.mark.parametrize("row", BROKEN, ids=lambda row: f"{row['deployment']}-{row['claim']}-{row['loop']}")
def test_what_broke_has_a_program(row: dict[str, Any]) -> None:
    what = DEPLOYMENTS[row["deployment"]].scenario
    broken = Broken(row["claim"], row["loop"], row["how"])
    made = programs(what, broken, DATA["target"])[0]
    assert made.lines_of_python <= LONGEST
    for name, text in made.files.items():
        assert "forkproof" not in text, name
        if name.endswith(".py"):
            ast.parse(text, name, feature_version=(3, 7))
            compile(text, name, "exec")
    assert subprocess.run(["sh", "-n"], input=made.files["reproduce.sh"], text=True).returncode == 0
    assert (what == made.scenario) == (not made.left_out)
