"""Bodies of other packages: what a loop does in one turn, as a class in a file that the target's interpreter reads.

The file is never imported here. How such a class is used inside the server: `forkproof_payload.bodies.Other`.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forkproof import files, plugins

LONGEST = 1 << 20
"""Bytes that such a file may have."""
OURS = ("sleep", "listen", "get_message", "blpop", "queue_get", "lock", "logger", "cpu")
LIKES = ("", "sleep", "cpu", "listen", "get_message", "blpop")
"""What a body may be like; those that share something with requests are like no other."""


@dataclass(frozen=True)
class Body:
    """A body of another package: the class `of` in `file`.

    `like` is the body of ours whose promises hold for it too; one that hears Redis is like one that does. Without it a
    turn hears nothing, and of what becomes of the loop nothing is promised. `needs` are packages of the target.
    """

    name: str
    definition: str
    file: str
    of: str
    like: str = ""
    needs: tuple[str, ...] = ()
    package: str = ""
    """Whose it is, which is found out."""

    def to_dict(self) -> dict[str, str]:
        """What the server is told of it."""
        return {
            "file": self.file,
            "of": self.of,
            "like": self.like or "sleep",
            "plugin": f"the body {self.name!r} ({self.package})",
        }


REGISTRY: dict[str, Body] = {}
"""The bodies of other packages by name."""


def _wrong(body: Any) -> str:
    if not isinstance(body.definition, str) or not body.definition.strip():
        return "it has no definition"
    if body.like not in LIKES:
        return f"it is like {body.like!r}; allowed: {', '.join(map(repr, LIKES))}"
    if not isinstance(body.needs, tuple) or not all(isinstance(one, str) for one in body.needs):
        return "its needs must be a tuple of the names of packages"
    try:
        # The oldest target's syntax, as far as the parser tells.
        tree = ast.parse(files.beginning(Path(body.file), LONGEST), feature_version=(3, 6))
    except (OSError, TypeError, ValueError) as error:
        return f"its file cannot be read: {error}"
    except SyntaxError as error:
        return f"its file is no Python 3.6: line {error.lineno}: {error.msg}"
    of = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == body.of]
    if not of:
        return f"its file has no class {body.of!r} at its top"
    turns = [node for node in of[-1].body if isinstance(node, ast.FunctionDef) and node.name == "turn"]
    return "" if turns else f"its class {body.of} has no turn, which must be a plain function"


@functools.cache
def extend() -> None:
    """Take in the bodies of other packages."""
    for body, package in plugins.found("forkproof.bodies", Body, OURS, _wrong):
        REGISTRY[body.name] = replace(body, package=package)
