"""What a person reads: a table of claims, a table of loops, and for each failure what to do next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from rich import markup
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from forkproof.cause import Cause, Claimed
from forkproof.claims.base import number
from forkproof.compare import BASE, HEAD, LEVEL, Comparison, Difference
from forkproof.explore import Campaign, Failure, Stale
from forkproof.judge import Judgement, RunReport, server_log
from forkproof.reports import printable, replay
from forkproof.scenario import Scenario
from forkproof.target import describe
from forkproof.verdict import Verdict

_COLOURS = {Verdict.HELD: "green", Verdict.BROKEN: "red", Verdict.UNKNOWN: "yellow", Verdict.NOT_APPLICABLE: "dim"}


def escape(text: str) -> str:
    """Text that is not ours, so that neither rich nor the terminal takes anything in it for an order."""
    return markup.escape(printable(text))


NARROWEST = 20
"""Columns in which it can still be read."""


def console(*, stderr: bool = False) -> Console:
    """A console that is plain where there is no terminal.

    rich heeds COLUMNS, and NO_COLOR as https://no-color.org asks for it: no colours, and bold stays. In an id such as
    `claim:watch:how` it must not see an emoji.
    """
    made = Console(stderr=stderr, highlight=False, soft_wrap=False, emoji=False)
    if made.width < NARROWEST:  # as COLUMNS=0 has it, where rich would print nothing
        made.width = NARROWEST
    return made


def verdict_text(verdict: Verdict) -> str:
    """A verdict in its colour."""
    return f"[{_COLOURS[verdict]}]{verdict.value.replace('_', ' ')}[/]"


def last_words(folder: Path) -> str:
    """The end of what the server printed; no line of it stands at a line's start, where GitHub takes orders."""
    return "\n".join(f"| {escape(line)}" for line in server_log(folder).splitlines())


def whole(marked: str) -> Text:
    """A line that is not folded whatever the width is, so that a path or a command in it can be copied."""
    text = Text.from_markup(marked, emoji=False, overflow="ignore")
    text.no_wrap = True
    return text


def typed(title: str, command: str) -> Text:
    """A command."""
    return whole(escape(f"{title}  {command}"))


def again(command: str) -> Text:
    """The command that shows it once more."""
    return typed("Reproduce with:", command)


class Verbatim:
    """Lines of which none is folded and no tab is changed, whatever the width is: paths, and diffs to be copied."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines:
            yield Segment(f"{line}\n")


class Fitting:
    """A table that leaves out whole columns where the terminal is too narrow for it, and cuts no word of the others.

    `least` are the titles of those that go, the first one first; where there is no room for what is left either, the
    cells of a row stand below its first one, each with its title. The columns of `right` hold numbers.
    """

    def __init__(
        self,
        titles: Sequence[str],
        rows: Sequence[Sequence[str]],
        least: Collection[str] = (),
        right: Collection[str] = (),
    ) -> None:
        self.titles, self.rows, self.least, self.right = titles, rows, tuple(least), right

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for gone in range(len(self.least) + 1):
            table = self.table([title for title in self.titles if title not in self.least[:gone]])
            if Measurement.get(console, options.update(max_width=WIDEST), table).maximum <= options.max_width:
                yield table
                return
        for row in self.rows:
            cells = dict(zip(self.titles, row, strict=True))
            yield Text.from_markup(cells.pop(self.titles[0]), emoji=False, overflow="fold")
            line = Text("  ", overflow="fold")
            for title, cell in cells.items():
                told = Text.from_markup(f"{title}: {cell}" if title else cell, emoji=False)
                if cell and title not in self.least:
                    if len(line) > 2 and line.cell_len + told.cell_len + 2 > options.max_width:
                        yield line
                        line = Text("  ", overflow="fold")
                    line.append_text(Text(", ") if len(line) > 2 else Text()).append_text(told)
            yield line

    def table(self, titles: Sequence[str]) -> Table:
        """The table with these columns."""
        table = Table(box=None, pad_edge=False)
        for title in titles:
            table.add_column(title, no_wrap=True, justify="right" if title in self.right else "left")
        kept = [number for number, title in enumerate(self.titles) if title in titles]
        for row in self.rows:
            table.add_row(*(row[number] for number in kept))
        return table


WIDEST = 1000
"""Columns of a terminal that has room for everything."""


def claims_table(judgements: Sequence[Judgement]) -> Fitting:
    """One row for each claim and loop."""
    rows = []
    for judgement in judgements:
        finding = judgement.finding
        failed, tried = judgement.rate
        rows.append((
            finding.claim,
            finding.loop or "",
            verdict_text(finding.verdict) + (" [bold]surprise[/]" if judgement.surprise else ""),
            judgement.expectation.value.replace("_", " ") if judgement.expectation else "",
            f"{failed}/{tried}" if tried else "",
        ))  # fmt: skip
    return Fitting(("claim", "loop", "verdict", "expected", "rate"), rows, ("expected", "rate"))


def loops_table(report: RunReport) -> Fitting:
    """One row for each loop in each process."""
    rows = []
    for loop in report.loops:
        for row in loop["processes"]:
            place = row["role"] if row["slot"] is None else f"{row['role']} {row['slot']}"
            alive = "" if row["alive"] is None else str(row["alive"]).lower()
            rows.append((
                loop["name"], place, str(row["pid"]), row["birth"][:8], row["thread"] or "",
                alive, str(row["ticks"]), "copied" if row["copied"] else "",
            ))  # fmt: skip
    titles = ("loop", "process", "pid", "birth", "thread", "alive", "ticks", "copied")
    return Fitting(titles, rows, ("thread", "birth", "pid", "alive"))


def failure(judgement: Judgement, folder: Path, cause: Sequence[str] = ()) -> RenderableType:
    """What broke, where, since when, how often, why and what helps."""
    finding = judgement.finding
    where = f" ({finding.loop})" if finding.loop else ""
    failed, tried = judgement.rate
    lines = [f"[bold red]{finding.claim}{where} {finding.verdict.value.upper()}[/]: {escape(finding.explanation)}"]
    if judgement.since:
        lines.append(f"  since: {escape(judgement.since)}")
    if tried > 1:
        lines.append(f"  failed in {failed} of {tried} runs")
    if judgement.expectation is not None:
        surprise = "a surprise: " if judgement.surprise else "expected: "
        lines.append(f"  {surprise}{judgement.expectation.value.replace('_', ' ')}; {escape(judgement.reason)}")
    if judgement.known_issue:
        lines.append(f"  known issue: {judgement.known_issue}")
    lines += [f"  {escape(line)}" for line in cause]
    return Group("\n".join(lines), whole(f"  evidence: {escape(str(folder))}"))


def run(report: RunReport, *, causes: Mapping[Claimed, Cause] | None = None, verbosity: int = 0) -> RenderableType:
    """The whole report of one scenario, with the causes that were looked for."""
    parts: list[RenderableType] = [f"target: {describe(report.versions)}", claims_table(report.judgements)]
    if report.loops:
        parts += ["", loops_table(report)]
    told = _told_once(causes or {})
    for judgement in report.judgements:
        if judgement.finding.verdict in (Verdict.BROKEN, Verdict.UNKNOWN):
            parts += ["", failure(judgement, report.folder, told.get(judgement.key, ()))]
        elif judgement.finding.verdict is Verdict.NOT_APPLICABLE and verbosity > 0:
            parts.append(f"{judgement.finding.claim}: not applicable: {escape(judgement.finding.explanation)}")
    if report.verdict is not Verdict.HELD and report.stands:
        parts += ["", *(escape(str(stands)) for stands in report.stands)]
    if verbosity > 0 or any(j.finding.claim == "workers_boot" for j in report.broken):
        parts += ["", "the server's last words:", last_words(report.folder)]
    if report.verdict is not Verdict.HELD:
        parts += ["", again(replay(report.folder))]
    if report.broken and not causes:
        parts.append(typed("Cause and cure:", f"{replay(report.folder)} --why"))
    parts += ["", f"{verdict_text(report.verdict)}  ({len(report.folders) or 1} launched)"]
    return Group(*parts)


def _told_once(causes: Mapping[Claimed, Cause]) -> dict[Claimed, list[str]]:
    """The lines of each cause; those of one that is like another are not said again."""
    first: dict[str, str] = {}
    told = {}
    for (claim, loop), cause in causes.items():
        lines = list(cause.lines())
        name = first.setdefault("\n".join(lines), f"{claim} ({loop})" if loop else claim)
        same = name != (f"{claim} ({loop})" if loop else claim)
        told[claim, loop] = [f"cause and cure: those of {name}"] if same else lines
    return told


def campaign(found: Campaign, *, seed: int, verbosity: int = 0, quiet: bool = False) -> RenderableType:
    """What an exploration came to: counts by claim, then each surprise."""
    parts: list[RenderableType] = []
    if not quiet:
        parts += [counts_table(found), "", *coverage(found, verbosity=verbosity)]
        for problem in found.problems[:5]:
            parts += ["", f"[yellow]could not decide[/]: {escape(problem)}"]
        if verbosity > 0:
            parts += [
                "",
                *(f"unknown, {times} x: {escape(why)}" for why, times in found.coverage.unknown().most_common(10)),
            ]
            parts += ["", *(_expected(failed) for failed in found.expected_breaks if failed.cause is None)]
        explained = [failed for failed in found.expected_breaks if failed.cause is not None]
        for failed in [*explained, *found.failures]:
            parts += ["", surprise(failed)]
        parts += [line for stale in found.stale for line in ("", no_longer_shows(stale))]
        parts.append("")
    return Group(*parts, told(found, seed=seed))


def told(found: Campaign, *, seed: int) -> str:
    """What an exploration came to, in a line."""
    known = sum(failed.judgement.known_issue is not None for failed in found.failures)
    kept = f" and {found.kept} that surprised before" if found.kept else ""
    return (
        f"{number(found.drawn, 'scenario')} (seed {seed}){kept}, {number(found.launched, 'server')} in "
        f"{found.seconds:.0f} s: {number(len(found.failures), 'surprise')} ({number(known, 'known issue')}), "
        f"{number(len(found.expected_breaks), 'expected way')} to break"
        + (" - interrupted" if found.interrupted else "")
    )


def counts_table(found: Campaign) -> Fitting:
    """One row for each claim: in how many judgements it came to what."""
    counted = ("held", "broken", "unknown", "not applicable")
    rows = [
        (name, *(str(counts[verdict.replace(" ", "_")]) for verdict in counted))
        for name, counts in found.coverage.claims.items()
    ]
    return Fitting(("claim", *counted), rows, right=counted)


def coverage(found: Campaign, *, verbosity: int = 0) -> list[RenderableType]:
    """How much of what could be run was run, and what nothing was learnt about; all of it where that is asked for."""
    counts, universe = found.coverage, found.universe
    values, missing = counts.vacuous_values(universe), counts.missing_pairs(universe)
    parts: list[RenderableType] = [
        f"coverage: {len(universe.values) - len(values)} of {len(universe.values)} values, "
        f"{len(universe.pairs) - len(missing)} of {len(universe.pairs)} pairs of values"
    ]
    for why in sorted({gap.why for gap in values}):
        gaps = [str(gap) for gap in values if gap.why == why]
        parts.append(escape(f"  {why}: {_some(gaps, len(gaps) if verbosity else 8)}"))
    for gap in counts.vacuous_claims(found.judged):
        parts.append(escape(f"  vacuous: {gap.what[0]}, judged {gap.drawn} x: {gap.why}"))
    if verbosity > 0:
        pairs = [" and ".join("=".join(value) for value in pair) for pair in missing]
        parts.append(escape(f"  pairs not met: {_some(pairs, 20)}"))
        parts += ["", values_table(found)]
    return parts


def _some(words: Sequence[str], most: int) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def values_table(found: Campaign) -> Table:
    """One row for each dimension: how often each of its values was drawn."""
    table = Table(box=None, pad_edge=False)
    table.add_column("dimension", no_wrap=True)
    table.add_column("values drawn")
    for name, counts in found.coverage.values.items():
        table.add_row(name, escape(", ".join(f"{value} {times}" for value, times in counts.most_common())))
    return table


def surprise(failed: Failure) -> RenderableType:
    """One failure that was confirmed and shrunk, with its smallest scenario."""
    lines = list(failed.cause.lines()) if failed.cause is not None else []
    return Group(
        failure(failed.judgement, failed.folder, lines),
        *(f"  {escape(str(stands))}" for stands in failed.stands),
        f"  fails in {failed.rate[0]} of {failed.rate[1]} runs; seen {number(failed.seen, 'time')}; smallest scenario:",
        smallest(failed.scenario),
        again(replay(failed.folder)),
    )


def smallest(what: Scenario) -> Text:
    """A scenario on one line, without what is at its default, so that it can be copied into a file."""
    small = json.dumps(what.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    return whole(f"  {escape(small)}")


def comparison(found: Comparison, *, seed: int, verbosity: int = 0, quiet: bool = False) -> RenderableType:
    """What two targets came to: each difference with its rates, then what was left."""
    parts: list[RenderableType] = []
    groups = found.groups()
    if not quiet:
        parts += [f"base: {describe(found.versions[BASE])}", f"head: {describe(found.versions[HEAD])}"]
        for problem in found.problems[:5]:
            parts += ["", f"[yellow]could not decide[/]: {escape(problem)}"]
        for place, group in enumerate(groups, start=1):
            if len(group) > 1:
                parts += ["", f"{len(group)} differences that come with the same symptoms ({place}):"]
            for one in group:
                parts += ["", difference(one)]
        if found.left:
            parts += ["", "noticed, and not looked into, since the time was over:", *(f"  {one}" for one in found.left)]
        if verbosity > 0 and found.unconfirmed:
            parts += ["", "noticed, and no difference:", *(escape(f"  {one}") for one in found.unconfirmed)]
        parts.append("")
    names = [one.name for one in found.differences]
    counted = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    parts += [
        f"{number(found.drawn, 'scenario')} on both (seed {seed}), {number(found.launched, 'server')} in "
        f"{found.seconds:.0f} s: {number(len(names), 'difference')}{f' ({counted})' if names else ''}"
        + (f" of {number(len(groups), 'kind')}" if len(groups) < len(names) else "")
        + (" - interrupted" if found.interrupted else ""),
        f"The chance that this tells of a difference where there is none is below {LEVEL:.0%} "
        f"({number(found.tests, 'test')}).",
    ]
    return Group(*parts)


def difference(one: Difference) -> RenderableType:
    """One difference, with its rates and the smallest scenario that is known to show it."""
    finding = one.judgement.finding
    where = f" ({finding.loop})" if finding.loop else ""
    colour = {"regression": "bold red", "fixed": "bold green"}.get(one.name, "bold yellow")
    sides = (
        f"{side} {verdict.value.replace('_', ' ')}, broken so in {rate[0]} of {rate[1]}"
        for side, verdict, rate in zip(("base", "head"), one.verdicts, one.rates, strict=True)
    )
    lines = [f"[{colour}]{one.name}[/]: {finding.claim}{where}: {'; '.join(sides)}", f"  {escape(finding.explanation)}"]
    if one.change is not None:
        lines.append(f"  {escape(one.change.title)}: {one.change.link}")
    if one.judgement.known_issue:
        lines.append(f"  known issue: {one.judgement.known_issue}")
    if one.also:
        lines.append(f"  the same scenario also differs in {', '.join(one.also)}")
    size = "smallest scenario" if one.is_small else "a scenario, simpler ones were not tried"
    lines.append(f"  by chance alone: {one.chance:.1g}; seen in {number(one.seen, 'scenario')}; {size}:")
    return Group("\n".join(lines), smallest(one.scenario), again(replay(one.report.folder)))


def no_longer_shows(stale: Stale) -> RenderableType:
    """A known issue that its versions seem not to have any more."""
    issue = stale.issue
    where = ", ".join(f"{name} {versions}" for name, versions in issue.versions.items())
    return Group(
        f"[bold red]known issue {issue.id} does not show[/]: its scenario held in {stale.tried} of {stale.tried} runs\n"
        f"  {escape(issue.title)}\n  said to be in {escape(where)}; correct its versions in known_issues.toml",
        again(shlex.join(["forkproof", "run", str(issue.scenario), "--repeat", str(stale.tried)])),
    )


def _expected(failed: Failure) -> str:
    finding = failed.judgement.finding
    return f"expected, {failed.seen} x: {finding.claim} {finding.how}: {escape(failed.judgement.reason)}"
