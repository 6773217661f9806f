"""Servers of other packages: other ways to start a deployment than the command `gunicorn`.

The seam is the configuration file. It is gunicorn's, and by its settings and hooks a run learns what it has to: the
process that reads it is the master, `when_ready` tells the address, `pre_fork` and `post_fork` which process is the
worker in which slot. So a server has to read that file, keep to its settings and call its hooks as gunicorn does; be
the process that its command starts, or become it by exec; and act on gunicorn's signals.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from forkproof import plugins
from forkproof.errors import UsageError

GUNICORN = "gunicorn"


@dataclass(frozen=True)
class Start:
    """What a command line is made of.

    `python` is the target's interpreter, with `-m gevent.monkey` and its options where the scenario patches at its
    start. `gunicorn` is the whole command that would be used, for one that only puts something before it.
    """

    python: tuple[str, ...]
    config: str
    app: str
    gunicorn: tuple[str, ...]


@dataclass(frozen=True)
class ServerKind:
    """Another way to start a deployment.

    `command(start)` is its command line. `refuses(scenario)` says, from a scenario's plain data, why it cannot be
    started so; empty where it can. `as_documented`: what gunicorn's documentation promises is promised of it, too; else
    nothing is. `needs` are the packages that the target must have for it.
    """

    name: str
    definition: str
    command: Callable[[Start], Sequence[str]]
    refuses: Callable[[Mapping[str, Any]], str] = lambda scenario: ""
    as_documented: bool = False
    needs: tuple[str, ...] = (GUNICORN,)
    package: str = ""
    """Whose it is, which is found out."""

    @property
    def plugin(self) -> str:
        """Its name for people."""
        return f"the server {self.name!r} ({self.package})"


REGISTRY: dict[str, ServerKind] = {}
"""The servers of other packages by name."""


def _wrong(kind: Any) -> str:
    if not callable(kind.command) or not callable(kind.refuses):
        return "its command and its refuses must be functions"
    if not isinstance(kind.needs, tuple) or not all(isinstance(one, str) for one in kind.needs):
        return "its needs must be a tuple of the names of packages"
    return "" if isinstance(kind.definition, str) and kind.definition.strip() else "it has no definition"


@functools.cache
def extend() -> None:
    """Take in the servers of other packages."""
    for kind, package in plugins.found("forkproof.servers", ServerKind, (GUNICORN,), _wrong):
        REGISTRY[kind.name] = replace(kind, package=package)


def command(name: str, start: Start) -> list[str]:
    """The command line of a server; UsageError, which names it, where it gives none."""
    if name == GUNICORN:
        return list(start.gunicorn)
    kind = REGISTRY[name]
    try:
        words: Any = plugins.apart(lambda: kind.command(start))
    except plugins.DoesNotEnd as error:
        raise UsageError(f"command of {kind.plugin} {error}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"command of {kind.plugin} raised {type(error).__name__}: {error}") from error
    if not isinstance(words, (list, tuple)) or not words or not all(isinstance(word, str) for word in words):
        raise UsageError(f"command of {kind.plugin} returned {words!r:.80}, which is no list of words")
    if not words[0].startswith("/"):
        raise UsageError(f"command of {kind.plugin} begins with {words[0]!r:.80}, which is no whole path of a program")
    return list(words)


def problem(name: str, scenario: Mapping[str, Any]) -> str:
    """Why a server cannot be started as a scenario says; empty where it can."""
    if name == GUNICORN:
        return ""
    kind = REGISTRY[name]
    try:
        why: Any = kind.refuses(scenario)
    except (Exception, SystemExit) as error:
        return f"refuses of {kind.plugin} raised {type(error).__name__}: {error}"
    return why if isinstance(why, str) else f"refuses of {kind.plugin} returned {why!r:.80}"
