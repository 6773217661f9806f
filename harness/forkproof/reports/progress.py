"""How far a campaign is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from forkproof import explore
from forkproof.claims.base import number
from forkproof.errors import ForkproofError, LaneError
from forkproof.judge import Judgement, RunReport
from forkproof.reports.terminal import escape
from forkproof.verdict import Verdict

LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal; of a phase that takes long, one a minute."""

NARROW = 100
"""Columns below which there is no room for a bar beside the words, which are folded where they are many."""


class CampaignProgress(explore.Progress):
    """Shows phase, count, rate, what was found so far and the time left. Use as a context manager.

    `until` is the monotonic time from which on nothing new is begun, where that was asked for; `what` is looked for,
    where anything is.
    """

    def __init__(
        self, console: Console, *, quiet: bool = False, until: float | None = None, what: str = "surprise"
    ) -> None:
        self._what = what
        self._until = until
        self._console = console
        self._quiet = quiet
        # A dumb terminal cannot draw a bar over the last one, and rich draws none there.
        self._draws = console.is_terminal and not console.is_dumb_terminal
        words = TextColumn("{task.description}{task.fields[told]}", table_column=Column(overflow="fold"))
        wide = (SpinnerColumn(), BarColumn(bar_width=20), words, TimeElapsedColumn())
        self._bar = Progress(
            *(wide if console.width >= NARROW else (words,)),
            console=console, transient=True, disable=quiet or not self._draws,
        )  # fmt: skip
        self._task = self._bar.add_task("start", total=None, told="")
        self._name = "start"
        self._total: int | None = None
        self._ends: float | None = None
        self._begun = self._last_line = time.monotonic()
        self._runs = self._broken = self._unknown = self._looked_for = 0

    def __enter__(self) -> CampaignProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def phase(self, name: str, total: int | None) -> None:
        """A phase has begun."""
        self._name, self._total, self._ends = name, total, None
        self._begun, self._runs = time.monotonic(), 0
        self._bar.remove_task(self._task)  # rich's reset keeps the total of before where there is none now
        self._task = self._bar.add_task(escape(name), total=total, told=self._told())
        if not self._draws and not self._quiet:
            self._console.print(escape(name if total is None else f"{name}: {number(total, 'run')}"))

    def until(self, moment: float) -> None:
        """The phase begins nothing more after that monotonic time."""
        self._ends = moment

    def ran(self, report: RunReport) -> None:
        """A run was judged."""
        self._runs += 1
        self._broken += report.verdict is Verdict.BROKEN
        self._unknown += report.verdict is Verdict.UNKNOWN
        self._bar.update(self._task, advance=1, told=self._told())
        now = time.monotonic()
        if not self._draws and not self._quiet and now - self._last_line > self._pause(now):
            self._last_line = now
            self._console.print(escape(self._name) + self._told())

    def found(self, failure: Judgement, report: RunReport) -> None:
        """A surprise was seen for the first time: it is shown at once."""
        self._looked_for += 1
        self._bar.update(self._task, told=self._told())
        if not self._quiet:
            finding = failure.finding
            kind = f"known issue {failure.known_issue}" if failure.known_issue else self._what
            told = f"{kind}: {finding.claim} {finding.verdict.value}: {finding.explanation}"
            kept = f" ({report.folder})" if report.folder.exists() else ""
            self._console.print(escape(told + kept))

    def problem(self, error: ForkproofError) -> None:
        """A scenario could not be run."""
        if not self._quiet:
            kind = "skipped" if isinstance(error, LaneError) else "could not decide"
            self._console.print(f"{kind}: {escape(str(error))}")

    def _pause(self, now: float) -> float:
        return LINE_EVERY if now - self._begun < 12 * LINE_EVERY else 6 * LINE_EVERY

    def _told(self) -> str:
        if self._total is None and not self._runs:
            return ""
        of = f" of {self._total}" if self._total is not None else ""
        rate = self._runs / max(time.monotonic() - self._begun, 0.1)
        found = f"{number(self._looked_for, self._what)}, " if self._what else ""
        told = f": {self._runs}{of}, {rate:.1f}/s, {found}{self._broken} broken, {self._unknown} unknown"
        return told + self._left()

    def _left(self) -> str:
        """How long it takes yet, or the phase where there is no time to keep to; empty where nobody knows."""
        now = time.monotonic()
        if self._until is not None and now < self._until:
            return f", about {self._until - now:.0f} s left"
        if self._total is not None and self._runs:
            return f", about {(self._total - self._runs) * (now - self._begun) / self._runs:.0f} s left"
        if self._ends is not None and now < self._ends:
            return f", at most about {self._ends - now:.0f} s left"
        return ""

    def refresh(self) -> None:
        """Draw the bar now; it is drawn ten times a second anyway."""
        self._bar.refresh()
