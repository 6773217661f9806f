"""How far a campaign is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from forkproof import explore
from forkproof.errors import ForkproofError
from forkproof.judge import Judgement, RunReport
from forkproof.reports.terminal import escape
from forkproof.verdict import Verdict

LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal; of a phase that takes long, one a minute."""

NARROW = 100
"""Columns below which there is no room for a bar beside the words."""


class CampaignProgress(explore.Progress):
    """Shows phase, count, rate, what was found so far and the time left. Use as a context manager.

    `until` is the monotonic time at which a phase ends of which nobody knows how many runs it has.
    """

    def __init__(self, console: Console, *, quiet: bool = False, until: float | None = None) -> None:
        self._until = until
        self._console = console
        self._quiet = quiet
        words = TextColumn("{task.description}: {task.fields[told]}", table_column=Column(overflow="fold"))
        wide = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[found]}"), TimeElapsedColumn(),
        )  # fmt: skip
        self._bar = Progress(
            *(wide if console.width >= NARROW else (words,)),
            console=console, transient=True, disable=quiet or not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("start", total=None, found="", told="")
        self._name = "start"
        self._total: int | None = None
        self._begun = self._last_line = time.monotonic()
        self._runs = self._broken = self._unknown = self._surprises = 0

    def __enter__(self) -> CampaignProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def phase(self, name: str, total: int | None) -> None:
        """A phase has begun."""
        self._name, self._total = name, total
        self._begun, self._runs = time.monotonic(), 0
        self._bar.reset(self._task, total=total, description=name, found=self._found(), told=self._told())
        if not self._console.is_terminal and not self._quiet:
            self._console.print(f"{name}: {total if total is not None else 'some'} runs")

    def ran(self, report: RunReport) -> None:
        """A run was judged."""
        self._runs += 1
        self._broken += report.verdict is Verdict.BROKEN
        self._unknown += report.verdict is Verdict.UNKNOWN
        self._bar.update(self._task, advance=1, found=self._found(), told=self._told())
        now = time.monotonic()
        if not self._console.is_terminal and not self._quiet and now - self._last_line > self._pause(now):
            self._last_line = now
            self._console.print(f"{self._name}: {self._told()}")

    def found(self, failure: Judgement, report: RunReport) -> None:
        """A surprise was seen for the first time: it is shown at once."""
        self._surprises += 1
        if not self._quiet:
            finding = failure.finding
            kind = f"known issue {failure.known_issue}" if failure.known_issue else "surprise"
            told = f"{kind}: {finding.claim} {finding.verdict.value}: {finding.explanation} ({report.folder})"
            self._console.print(escape(told))

    def problem(self, error: ForkproofError) -> None:
        """A scenario could not be run."""
        if not self._quiet:
            self._console.print(f"could not decide: {escape(str(error))}")

    def _pause(self, now: float) -> float:
        return LINE_EVERY if now - self._begun < 12 * LINE_EVERY else 6 * LINE_EVERY

    def _told(self) -> str:
        of = f" of {self._total}" if self._total is not None else ""
        return f"{self._runs}{of}, {self._found()}"

    def _found(self) -> str:
        rate = self._runs / max(time.monotonic() - self._begun, 0.1)
        left = self._left()
        told = f"{rate:.1f}/s, {self._surprises} surprises, {self._broken} broken, {self._unknown} unknown"
        return told + (f", about {left:.0f} s left" if left is not None else "")

    def _left(self) -> float | None:
        """Seconds that the phase takes yet; None where nobody knows."""
        now = time.monotonic()
        if self._total is not None and self._runs:
            return (self._total - self._runs) * (now - self._begun) / self._runs
        if self._total is None and self._until is not None and now < self._until:
            return self._until - now
        return None

    def refresh(self) -> None:
        """Draw the bar now; it is drawn ten times a second anyway."""
        self._bar.refresh()
