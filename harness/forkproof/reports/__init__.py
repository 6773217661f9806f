"""What people and machines read. Reports only read verdicts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f]")


def printable(text: str) -> str:
    r"""Text with its control characters spelt out: a server may say anything, and a terminal obeys it.

    >>> printable("red \x1b[31m") == r"red \x1b[31m"
    True
    """
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def replay(folder: Path) -> str:
    """The command that runs the scenario of a run's folder again."""
    return f"forkproof replay {shlex.quote(str(folder))}"
