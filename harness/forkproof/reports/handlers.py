"""Who writes down what a command does: handlers of one stream of events, of which each takes what it needs.

A command tells the stream of each run as it is judged, and at last what it came to (`Outcome`). A handler that cannot
write keeps no other one from writing: what went wrong is told when all have had their turn.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from forkproof import files
from forkproof.errors import ForkproofError, RunFolderError
from forkproof.explore import Progress
from forkproof.judge import Judgement, RunReport
from forkproof.reports import github, junit, printable
from forkproof.reports.cases import Case
from forkproof.reports.observations import observation


@dataclass(frozen=True)
class Outcome:
    """What a command came to. `brief` is what `-q` leaves of `shown`; `plain` is the JSON report, schema 1.

    `page` writes a page of it, and what that leads to; `laid_out` is how the JSON report is written.
    """

    command: str
    verdict: str
    shown: RenderableType
    brief: RenderableType
    plain: Mapping[str, Any]
    cases: Sequence[Case] = ()
    page: Callable[[Path], None] | None = None
    laid_out: Callable[[Mapping[str, Any]], str] = lambda plain: json.dumps(plain, indent=1) + "\n"


class Handler(Progress):
    """One that listens; each method does nothing here."""

    def done(self, outcome: Outcome) -> None:
        """The command has ended; ForkproofError where the report cannot be written."""


class Stream(Handler):
    """Tells every handler, in order."""

    def __init__(self, command: str, handlers: Sequence[Progress]) -> None:
        self.command = command
        self.handlers = handlers

    def phase(self, name: str, total: int | None) -> None:
        """A phase has begun."""
        for handler in self.handlers:
            handler.phase(name, total)

    def until(self, moment: float) -> None:
        """The phase begins nothing more after that monotonic time."""
        for handler in self.handlers:
            handler.until(moment)

    def ran(self, report: RunReport) -> None:
        """A run was judged."""
        for handler in self.handlers:
            handler.ran(report)

    def found(self, failure: Judgement, report: RunReport) -> None:
        """A surprise was seen for the first time."""
        for handler in self.handlers:
            handler.found(failure, report)

    def problem(self, error: ForkproofError) -> None:
        """A scenario could not be run."""
        for handler in self.handlers:
            handler.problem(error)

    def done(self, outcome: Outcome) -> None:
        """The command has ended; the first error of a handler is raised once all were told."""
        errors = []
        for handler in self.handlers:
            if isinstance(handler, Handler):
                try:
                    handler.done(outcome)
                except ForkproofError as error:
                    errors.append(error)
        if errors:
            raise errors[0]


class Terminal(Handler):
    """What a person reads."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet

    def done(self, outcome: Outcome) -> None:
        """Print it."""
        # Commands are to be copied, and are not cut where the line ends.
        self._console.print(outcome.brief if self._quiet else outcome.shown, crop=False)


class Page(Handler):
    """A page, and what it leads to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def done(self, outcome: Outcome) -> None:
        """Write it."""
        if outcome.page is not None:
            outcome.page(self._path)


class Json(Handler):
    """The JSON report; `-` is standard output."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def done(self, outcome: Outcome) -> None:
        """Write it."""
        put(self._path, outcome.laid_out(outcome.plain))


class Text(Handler):
    """Another file that a command was asked for; `-` is standard output."""

    def __init__(self, path: Path, text: Callable[[], str]) -> None:
        self._path = path
        self._text = text

    def done(self, outcome: Outcome) -> None:
        """Write it."""
        put(self._path, self._text())


class Junit(Handler):
    """JUnit XML; `-` is standard output."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = time.time()
        self._clock = time.monotonic()

    def done(self, outcome: Outcome) -> None:
        """Write it."""
        put(self._path, junit.text(outcome.command, outcome.cases, self._begun, time.monotonic() - self._clock))


class Annotations(Handler):
    """GitHub's annotations, among what the step prints."""

    def __init__(self, workspace: Path, orders: github.Orders) -> None:
        self._workspace = workspace
        self._orders = orders

    def done(self, outcome: Outcome) -> None:
        """Print them."""
        lines = github.annotated(outcome.command, list(outcome.cases), self._workspace)
        self._orders.give(map(printable, lines))


class Summary(Handler):
    """The summary of a job, appended to the file that GitHub names."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def done(self, outcome: Outcome) -> None:
        """Append it."""

        def append() -> None:
            room = github.LARGEST - (self._path.stat().st_size if self._path.exists() else 0)
            _append(self._path, github.summary(outcome.command, outcome.verdict, list(outcome.cases), room))

        writing(self._path, append)


class Observations(Handler):
    """A line for each run, as Hypothesis writes them, appended as it is judged."""

    def __init__(self, path: Path, command: str) -> None:
        self._path = path
        self._command = command
        self._begun = time.time()
        self._last = time.monotonic()
        self._error: ForkproofError | None = None

    def ran(self, report: RunReport) -> None:
        """Append its line; a campaign does not end where that fails."""
        now = time.monotonic()
        line = json.dumps(observation(self._command, report, self._begun, now - self._last))
        self._last = now
        try:
            writing(self._path, lambda: _append(self._path, line + "\n"))
        except RunFolderError as error:
            self._error = error

    def done(self, outcome: Outcome) -> None:
        """Tell what could not be written."""
        if self._error is not None:
            raise self._error


def put(path: Path, text: str) -> None:
    """Write a report where the user wants it; `-` is standard output. RunFolderError where it cannot be written."""
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        writing(path, lambda: files.put(path, text))


def writing(path: Path, write: Callable[[], object]) -> None:
    """Call `write`; RunFolderError with the next step where the file cannot be written."""
    try:
        write()
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written: {error.strerror}. Give another file.") from None


def _append(path: Path, text: str) -> None:
    with path.open("ab", buffering=0) as file:  # at once, so that no line of another process comes into one
        file.write(text.encode())
