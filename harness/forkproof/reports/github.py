"""What GitHub's Actions take: annotations among a step's output, and a summary of the job in Markdown."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path

from forkproof.reports.cases import FAILED, PASSED, SKIPPED, Case

MOST = 10
"""Annotations of one kind that GitHub shows for a step."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+|~@!:-])")


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


def summary(command: str, verdict: str, cases: list[Case]) -> str:
    r"""What the job's page shows, in Markdown.

    >>> summary("run", "held", []).splitlines()[0]
    '## forkproof run: held'
    """
    lines = [f"## forkproof {command}: {markdown(verdict)}", ""]
    counts = {name: sum(case.outcome == name for case in cases) for name in (FAILED, SKIPPED, PASSED)}
    lines += [f"{counts[FAILED]} failed, {counts[SKIPPED]} undecided or not applicable, {counts[PASSED]} passed", ""]
    failed = [case for case in cases if case.outcome == FAILED]
    if failed:
        lines += ["| claim | what | since | rate | again |", "|---|---|---|---|---|"]
    for case in failed[:100]:
        told = case.properties
        cells = (
            markdown(case.name), markdown(case.text.partition("\n")[0]), markdown(told.get("since", "")),
            markdown(told.get("rate", "")), f"<code>{markdown(case.replay)}</code>" if case.replay else "",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def markdown(text: str) -> str:
    r"""Text that is not ours, so that nothing in it is Markdown or HTML, on one line.

    >>> markdown("<b> a|b `c`\n*d*")
    '&lt;b&gt; a\\|b \\`c\\` \\*d\\*'
    """
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
