"""What GitHub's Actions take: annotations among a step's output, and a summary of the job in Markdown."""

from __future__ import annotations

import contextlib
import html
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from forkproof.reports import printable
from forkproof.reports.cases import FAILED, PASSED, SKIPPED, Case

MOST = 10
"""Annotations of one kind that GitHub shows for a step."""

LARGEST = 1 << 20
"""Bytes of the summary of a step, beyond which GitHub shows nothing of it."""

_AROUND = 1000
"""Bytes that the lines around a table's rows take at most."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+|~@!:-])")


class Orders:
    """While it is entered, GitHub takes no order from what is printed: a server may have said it.

    It takes `::order::` at the start of a line, which is where a folded line may have it, and `##[order]` anywhere.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self._stderr = stderr
        self._token = secrets.token_hex(16)

    def __enter__(self) -> Orders:
        self._say(f"::stop-commands::{self._token}")
        return self

    def __exit__(self, *why: object) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more
            self._say(f"::{self._token}::")

    def give(self, lines: Iterable[str]) -> None:
        """Print orders that are ours."""
        given = list(lines)
        if given:
            self._say(f"::{self._token}::", *given, f"::stop-commands::{self._token}")

    def _say(self, *lines: str) -> None:
        print(*lines, sep="\n", file=sys.stderr if self._stderr else sys.stdout, flush=True)


def annotated(command: str, cases: list[Case], workspace: Path) -> Iterator[str]:
    """A line for each failure, and for what was not decided where nothing failed.

    >>> [line] = annotated("run", [Case("workers_boot", "failure", "no: 100%", file="a,b.json", line=1)], Path("/"))
    >>> line.partition("title=")[2]
    'forkproof run%3A workers_boot::no: 100%25'
    """
    failed = [case for case in cases if case.outcome == FAILED]
    kind, shown = ("error", failed) if failed else ("warning", [case for case in cases if case.outcome == SKIPPED])
    if not failed and any(case.outcome == PASSED for case in cases):
        return
    for case in shown[:MOST]:
        place = {}
        file = within(case.file, workspace)
        if file:
            place = {"file": file, "line": str(case.line)}
        named = place | {"title": f"forkproof {command}: {case.name}"}
        told = ",".join(f"{name}={_property(value)}" for name, value in named.items())
        yield f"::{kind} {told}::{_data(case.text)}"
    if len(shown) > MOST:
        yield f"::notice title=forkproof {command}::{len(shown) - MOST} more of these are in the job's summary"


def within(file: str, workspace: Path) -> str:
    """A file as GitHub names it, from the repository's top on; empty where it is elsewhere."""
    if not file:
        return ""
    try:
        return str(Path(os.path.abspath(file)).relative_to(workspace.absolute()))
    except ValueError:
        return ""


def summary(command: str, verdict: str, cases: list[Case], room: int = LARGEST) -> str:
    r"""What the job's page shows, in Markdown; rows that go beyond `room` bytes are left out.

    >>> summary("run", "held", []).splitlines()[0]
    '## forkproof run: held'
    """
    lines = [f"## forkproof {command}: {markdown(verdict)}", ""]
    counts = {name: sum(case.outcome == name for case in cases) for name in (FAILED, SKIPPED, PASSED)}
    lines += [f"{counts[FAILED]} failed, {counts[SKIPPED]} undecided or not applicable, {counts[PASSED]} passed", ""]
    failed = [case for case in cases if case.outcome == FAILED]
    if failed:
        lines += ["| claim | what | since | rate | again |", "|---|---|---|---|---|"]
    for number, case in enumerate(failed):
        told = case.properties
        cells = (
            markdown(case.name), markdown(case.text.partition("\n")[0]), markdown(told.get("since", "")),
            markdown(told.get("rate", "")), f"<code>{markdown(case.again)}</code>" if case.again else "",
        )  # fmt: skip
        row = f"| {' | '.join(cells)} |"
        room -= len(row.encode(errors="replace")) + 1
        if room < _AROUND:
            lines += ["", f"{len(failed) - number} more are in what the step printed"]
            break
        lines.append(row)
    return "\n".join(lines) + "\n\n"


def markdown(text: str) -> str:
    r"""Text that is not ours, so that nothing in it is Markdown or HTML, on one line.

    >>> markdown("<b> a|b `c`\n*d*")
    '&lt;b&gt; a\\|b \\`c\\` \\*d\\*'
    """
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(printable(text).split()), quote=False))


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
