"""How far a campaign is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from forkproof import explore
from forkproof.errors import ForkproofError
from forkproof.judge import Judgement, RunReport
from forkproof.reports.terminal import escape
from forkproof.verdict import Verdict

LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal; of a phase that takes long, one a minute."""


class CampaignProgress(explore.Progress):
    """Shows phase, count, rate and what was found so far. Use as a context manager."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[found]}"), TimeElapsedColumn(),
            console=console, transient=True, disable=quiet or not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("start", total=None, found="")
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
        self._bar.reset(self._task, total=total, description=name, found=self._found())
        if not self._console.is_terminal and not self._quiet:
            self._console.print(f"{name}: {total if total is not None else 'some'} runs")

    def ran(self, report: RunReport) -> None:
        """A run was judged."""
        self._runs += 1
        self._broken += report.verdict is Verdict.BROKEN
        self._unknown += report.verdict is Verdict.UNKNOWN
        self._bar.update(self._task, advance=1, found=self._found())
        now = time.monotonic()
        if not self._console.is_terminal and not self._quiet and now - self._last_line > self._pause(now):
            self._last_line = now
            of = f" of {self._total}" if self._total is not None else ""
            self._console.print(f"{self._name}: {self._runs}{of}, {self._found()}")

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

    def _found(self) -> str:
        rate = self._runs / max(time.monotonic() - self._begun, 0.1)
        return f"{rate:.1f}/s, {self._surprises} surprises, {self._broken} broken, {self._unknown} unknown"
