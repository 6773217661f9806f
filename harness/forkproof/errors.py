"""What goes wrong on the user's side, with the exit code that it is answered with.

Every message names the thing, the cause and the next step. Anything else that is raised is a defect of forkproof
(exit code 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


class ForkproofError(Exception):
    """The base of all errors that a user can cause; `exit_code` as in docs/cli.md."""

    exit_code: ClassVar[int] = 2


class ScenarioError(ForkproofError):
    """A scenario that cannot be read or cannot exist."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        prefix = "" if source == "scenario" else f"{source}: "
        super().__init__("\n".join(f"{prefix}{problem}" for problem in problems))


class UsageError(ForkproofError):
    """Options or files that make no sense together."""


class HistoryError(ForkproofError):
    """A history that cannot be relied on: what the supervisor recorded is damaged."""


class TargetError(ForkproofError):
    """The interpreter to be tested is none, or is too old."""


class LaneError(ForkproofError):
    """A lane that cannot be had on this machine: no such Python, no wheel, or a build that failed."""

    exit_code = 3


class ClusterError(ForkproofError):
    """A Dask cluster that cannot be reached or used."""

    exit_code = 3


class MissingPackage(ForkproofError):
    """The target lacks a package that the scenario needs, so nothing can be decided."""

    exit_code = 3


class BrokerError(ForkproofError):
    """No Redis where one was asked for."""


class RunFolderError(ForkproofError):
    """The run folder cannot be written; the message carries the scenario, so that it is not lost."""


class CouldNotDecide(ForkproofError):
    """The machine, not the server, kept the run from giving an answer; `folder` is the run's, where there is one."""

    exit_code = 3

    def __init__(self, message: str, folder: Path | None = None) -> None:
        self.folder = folder
        super().__init__(message)


class NothingBoots(CouldNotDecide):
    """Not even the plainest server boots on the target."""
