"""A server: gunicorn started by a script of one's own, as its documentation has it ("Custom Application")."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forkproof.servers import ServerKind, Start


def command(start: Start) -> list[str]:
    """The script, with the file of settings and the app."""
    return [*start.python, str(Path(__file__).with_name("inside") / "in_code.py"), start.config, start.app]


def refuses(scenario: Mapping[str, Any]) -> str:
    """What it cannot do: a re-exec leaves out how the interpreter was started."""
    usr2 = any(fault["fault"] == "usr2" for fault in scenario["faults"])
    early = any(patch["site"] == "interpreter_start" for patch in scenario["patches"])
    return "a re-exec would not patch at the interpreter's start" if usr2 and early else ""


IN_CODE = ServerKind(
    "in_code", "gunicorn, started by a script that sets its settings in code.", command, refuses, as_documented=True
)
