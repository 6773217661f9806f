"""The table of events names everything that supervisor and probe write."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import forkproof
from forkproof import events

HARNESS = Path(forkproof.__file__).parent
WRITERS = [
    *(HARNESS / name for name in ("supervisor.py", "watcher.py", "outside.py")),
    *(HARNESS / "payload").rglob("*.py"),
]


def written() -> Iterator[str]:
    """The first argument of each call of `record`, `event`, or a name that ends so, where it is a word."""
    for path in WRITERS:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name.endswith(("record", "event")) and isinstance(node.args[0].value, str):
                    yield node.args[0].value


def test_every_event_that_is_written_is_in_the_table_and_no_other() -> None:
    assert set(written()) == events.NAMES
