"""A campaign as one HTML file that needs nothing else: surprises first, then what was exercised, and what it took."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from forkproof import known_issues
from forkproof.claims import REGISTRY
from forkproof.explore import Campaign
from forkproof.judge import Stands
from forkproof.reports import replay
from forkproof.reports.campaign.found import Counts, Failure, Found, Trial, read
from forkproof.reports.pages import document, escape

__all__ = ["Found", "beside", "document_of", "of_campaign", "page", "read"]

SCRIPT = Path(__file__).with_name("campaign.js").read_text(encoding="utf-8")
_STYLE = Path(__file__).with_name("campaign.css").read_text(encoding="utf-8")

ROWS = 12
"""How many values of one dimension have a row of their own; numbers can take any."""

LISTED = 100
"""How many gaps, unknowns and expected breaks are listed."""

Link = Callable[[str], str | None]
"""Where the timeline of a run is, given the folder that the report names; None where there is none."""


def of_campaign(campaign: Campaign) -> Found:
    """The report of a campaign that has just ended, as if read from its file."""
    return Found.model_validate_json(json.dumps(campaign.to_dict()))


def beside(html: Path) -> Link:
    """Links from a page to the timelines that lie in the runs' folders."""

    def link(run: str) -> str | None:
        path = Path(run) / "timeline.html"
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                return None
        except (OSError, ValueError):
            return None
        return "./" + quote(os.path.relpath(path.absolute(), html.absolute().parent))

    return link


def page(found: Found, link: Link) -> str:
    """The page; `link` finds the timelines."""
    return document(_title(found), document_of(found, link), style=_STYLE, script=SCRIPT)


def _title(found: Found) -> str:
    return f"Campaign of {found.drawn} scenarios: {_number(len(found.surprises), 'surprise')}"


def document_of(found: Found, link: Link) -> Iterator[str]:
    """What stands in the page's body."""
    versions = ", ".join(f"{name} {version}" for name, version in found.target.items() if version is not None)
    yield f"<header>\n<h1>{escape(_title(found))}</h1>"
    yield f'<p class="quiet">{escape(versions)}</p>\n</header>\n<main>'
    yield from _counts(found)
    yield "<h2>Surprises</h2>"
    if not found.surprises:
        yield "<p>None: nothing broke that by the documentation must hold, but for known issues.</p>"
    for number, failure in enumerate(found.surprises, 1):
        yield from _failure(failure, number, link)
    if found.known or found.stale_issues:
        yield "<h2>Known issues</h2>"
    for number, failure in enumerate(found.known, len(found.surprises) + 1):
        yield from _failure(failure, number, link)
    for stale in found.stale_issues:
        yield f'<article><h3><span class="bad">{escape(stale.id)} does not show</span></h3>'
        yield f"<p>{escape(stale.title)}: its scenario held in {stale.tried} of {stale.tried} runs.</p></article>"
    yield from _heat(found)
    yield from _expected(found, link)
    yield from _coverage(found)
    yield from _cost(found)
    yield "</main>"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _counts(found: Found) -> Iterator[str]:
    yield '<ul class="counts" aria-label="What it came to">'
    for count, one, many, bad in (
        (len(found.surprises), "surprise", "surprises", bool(found.surprises)),
        (len(found.known), "known issue", "known issues", False),
        (len(found.stale_issues), "known issue that does not show", "known issues that do not show", True),
        (len(found.expected_breaks), "expected way to break", "expected ways to break", False),
        (found.drawn, "scenario", "scenarios", False),
        (found.launched, "server", "servers", False),
        (round(found.seconds), "second", "seconds", False),
    ):
        yield f"<li><b{' class=bad' if bad and count else ''}>{count}</b> {one if count == 1 else many}</li>"
    yield "</ul>"
    if found.interrupted:
        yield '<p><span class="bad">Interrupted</span>: what was found was not confirmed or shrunk.</p>'
    for problem in found.problems[:LISTED]:
        yield f'<p><span class="bad">Could not decide</span>: {escape(problem)}</p>'


def _failure(failure: Failure, number: int, link: Link) -> Iterator[str]:
    loop = f" ({failure.loop})" if failure.loop else ""
    how = f": {failure.how}" if failure.how else ""
    yield f'<article id="failure-{number}" aria-labelledby="failure-{number}-name">'
    yield f'<h3 id="failure-{number}-name">{number}. {escape(failure.claim + loop + how)}</h3>'
    claim = REGISTRY.get(failure.claim)
    if claim is not None:
        yield f'<p class="quiet">{escape(claim.definition)}</p>'
    word = "Held where it must break" if failure.verdict == "held" else "Broken"
    failed, tried = failure.rate
    yield f'<p><span class="bad">{word}</span>: {escape(failure.explanation)}</p>'
    since = f"since {failure.since}; " if failure.since else ""
    yield f"<p>{escape(since)}fails in {failed} of {tried} runs; seen {_number(failure.seen, 'time')}</p>"
    if failure.known_issue is not None:
        yield f"<p>known issue {_issue(failure.known_issue)}</p>"
    for stands in failure.stacks:
        yield f"<p>{escape(str(Stands(stands.process, stands.file, stands.calls)))}</p>"
    yield from _cause(failure)
    yield '<p class="quiet">The smallest scenario that still fails:</p>'
    yield f'<pre tabindex="0" aria-label="Smallest scenario">{escape(json.dumps(failure.smallest, indent=1))}</pre>'
    yield '<p class="quiet">Reproduce with:</p>'
    command = replay(Path(failure.run))
    yield f'<pre class="command" tabindex="0" aria-label="Command">{escape(command)}</pre>'
    there = link(failure.run)
    if there is not None:
        yield f'<p><a href="{escape(there)}">Timeline of this run</a></p>'
    yield "</article>"


def _issue(name: str) -> str:
    link = next((issue.link for issue in known_issues.load() if issue.id == name), "")
    if link.startswith("https://"):
        return f'<a href="{escape(link)}" rel="noreferrer">{escape(name)}</a>'
    return escape(f"{name} ({link})" if link else name)


def _cause(failure: Failure) -> Iterator[str]:
    if failure.cause is None:
        return
    if failure.cure is not None:
        yield f"<p><b>Cure</b>: {escape(_tried(failure.cure))}</p>"
    held = [trial for trial in failure.cause if trial.verdict == "held"]
    told = f"{_number(len(failure.cause), 'change')} tried, {len(held)} of them make it hold"
    yield f"<details><summary>Cause, by experiment: {told}</summary>"
    yield '<div class="wide" tabindex="0" role="region" aria-label="Changes that were tried"><table><thead><tr>'
    yield '<th scope="col">change</th><th scope="col">then it is</th><th scope="col">broken in</th>'
    yield "</tr></thead><tbody>"
    for trial in sorted(failure.cause, key=lambda trial: trial.verdict != "held"):
        rate = f"{trial.rate[0]} of {trial.rate[1]}" if trial.rate[1] else ""
        cells = (trial.change, trial.verdict.replace("_", " "), rate)
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    yield "</tbody></table></div></details>"


def _tried(trial: Trial) -> str:
    return f"{trial.change} (held in {trial.rate[1] - trial.rate[0]} of {trial.rate[1]} runs)"


# --- claims by dimensions


def _heat(found: Found) -> Iterator[str]:
    by_value = found.coverage.by_value
    names = {claim for values in by_value.values() for claims in values.values() for claim in claims}
    claims = sorted(names, key=lambda name: (list(REGISTRY).index(name) if name in REGISTRY else len(REGISTRY), name))
    if not claims:
        return
    yield "<h2>Claims by dimensions</h2>"
    yield (
        "<p>For each value that came about, in how many judgements each claim broke, of those that were decided. What "
        "breaks by design is in it: surprises have a frame.</p>"
    )
    yield '<ul class="key" aria-label="Key">'
    for style, text, words in (
        ("held", "0/12", "held in all 12"),
        ("b3", "9/12", "broke in 9 of 12"),
        ("surprise", "3/12 !1", "one of them a surprise"),
        ("", "0/12 ?2", "and 2 undecided"),
        ("", "·", "never judged"),
    ):
        yield f'<li><span class="cell {style}">{text}</span> {words}</li>'
    yield "</ul>"
    yield (
        '<div class="bar"><button type="button" id="broken-only" aria-pressed="false">only what broke</button>'
        '<span id="rows" class="quiet" role="status"></span></div>'
    )
    yield '<div class="heat" tabindex="0" role="region" aria-label="Claims by dimensions"><table>'
    yield '<thead><tr><th scope="col">value</th>'
    yield "".join(f'<th scope="col"><span>{escape(claim)}</span></th>' for claim in claims) + "</tr></thead>"
    for dimension, values in by_value.items():
        yield f'<tbody><tr><th class="dimension" scope="rowgroup">{escape(dimension)}</th>'
        yield f'<td colspan="{len(claims)}"></td></tr>'
        for value, counts in _rows(values):
            broken = sum(one.get("broken", 0) for one in counts.values())
            yield f'<tr data-broken="{broken}"><th scope="row">{escape(value)}</th>'
            yield "".join(_cell(counts.get(claim, {})) for claim in claims) + "</tr>"
        yield "</tbody>"
    yield "</table></div>"


def _rows(values: Mapping[str, Mapping[str, Counts]]) -> Iterator[tuple[str, Mapping[str, Counts]]]:
    """The values with what came of them; of too many, those that broke least as one."""
    own, rest = list(values.items()), []
    if len(own) > ROWS:
        most = sorted(own, key=lambda item: sum(one.get("broken", 0) for one in item[1].values()), reverse=True)
        kept = {value for value, _ in most[: ROWS - 1]}
        rest = [counts for value, counts in own if value not in kept]
        own = [(value, counts) for value, counts in own if value in kept]
    yield from own
    if rest:
        together: dict[str, Counter[str]] = {}
        for counts in rest:
            for claim, one in counts.items():
                together.setdefault(claim, Counter()).update(one)
        yield f"{len(rest)} other values", together


def _cell(counts: Mapping[str, int]) -> str:
    held, broken, unknown = (counts.get(word, 0) for word in ("held", "broken", "unknown"))
    surprises, decided = counts.get("surprise", 0), held + broken
    if decided + unknown == 0:
        return '<td title="never judged">·</td>'
    share = broken / decided if decided else 0.0
    style = "b3" if share > 0.5 else "b2" if share > 0.2 else "b1" if broken else "held" if held else ""
    text = (f"{broken}/{decided}" if decided else "") + (f" !{surprises}" if surprises else "")
    words = f"{broken} broken, {held} held, {unknown} unknown, {surprises} surprises"
    return (
        f'<td class="{style}{" surprise" if surprises else ""}" title="{words}">'
        f"{text}{f' ?{unknown}' if unknown else ''}</td>"
    )


# --- what else there was


def _expected(found: Found, link: Link) -> Iterator[str]:
    if not found.expected_breaks:
        return
    yield "<h2>Expected ways to break</h2>"
    rows = []
    for failure in found.expected_breaks[:LISTED]:
        there = link(failure.run)
        name = escape(failure.claim + (f" ({failure.loop})" if failure.loop else ""))
        rows.append(
            (
                f'<a href="{escape(there)}">{name}</a>' if there is not None else name,
                escape(failure.how),
                escape((failure.expectation or "").replace("_", " ")),
                str(failure.seen),
                escape(failure.run),
            )
        )
    yield from _table("Expected ways to break", ("claim", "how", "documented", "seen", "example"), rows)


def _coverage(found: Found) -> Iterator[str]:
    coverage = found.coverage
    yield "<h2>Coverage</h2>"
    pairs = coverage.pairs
    yield (
        f"<p>{pairs.seen} of {pairs.possible} pairs of values met; {_number(len(coverage.vacuous.values), 'value')} "
        f"and {_number(len(coverage.vacuous.claims), 'claim')} were not exercised.</p>"
    )
    rows = [
        (escape(name), *(str(counts.get(word, 0)) for word in ("held", "broken", "unknown", "not_applicable")))
        for name, counts in coverage.claims.items()
    ]
    yield from _table("Judgements", ("claim", "held", "broken", "unknown", "not applicable"), rows)
    if coverage.vacuous.claims:
        yield "<h3>Claims that nothing decided</h3>"
        rows3 = [(escape(gap.claim), str(gap.judged), escape(gap.why)) for gap in coverage.vacuous.claims]
        yield from _table("Claims that nothing decided", ("claim", "judged", "most common reason"), rows3)
    if coverage.vacuous.values:
        yield "<h3>Values that were not exercised</h3>"
        by_why: dict[str, list[str]] = {}
        for gap in coverage.vacuous.values:
            by_why.setdefault(gap.why, []).append(f"{gap.dimension}={gap.value}")
        for why, gaps in by_why.items():
            yield f"<p>{escape(why)}: {escape(_some(gaps))}</p>"
    if pairs.missing:
        yield f"<details><summary>Pairs that were not met, the first {len(pairs.missing)}</summary><ul>"
        yield "".join(f"<li>{escape(' and '.join(pair))}</li>" for pair in pairs.missing[:LISTED])
        yield "</ul></details>"
    if found.unknown:
        yield "<details><summary>Why claims were not decided</summary>"
        most = sorted(found.unknown.items(), key=lambda item: -item[1])[:LISTED]
        yield from _table(
            "Why claims were not decided", ("times", "reason"), [(str(n), escape(why)) for why, n in most]
        )
        yield "</details>"


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - LISTED} more" if len(words) > LISTED else ""
    return ", ".join(words[:LISTED]) + more


def _cost(found: Found) -> Iterator[str]:
    yield "<h2>Time and cost</h2>"
    rate = found.launched / found.seconds if found.seconds else 0.0
    seed = f", seed {found.seed}" if found.seed is not None else ""
    yield (
        f"<p>{found.launched} servers in {found.seconds:.0f} s ({rate:.1f} a second) for {found.drawn} scenarios"
        f"{escape(seed)}.</p>"
    )
    if found.phases:
        rows = [(escape(phase.name), str(phase.launched), f"{phase.seconds:.1f}") for phase in found.phases]
        yield from _table("Time and cost", ("phase", "servers", "seconds"), rows)


def _table(name: str, titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """A table of cells that are HTML already; those that are numbers stand to the right."""
    yield f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}"><table><thead><tr>'
    yield "".join(f'<th scope="col">{escape(title)}</th>' for title in titles) + "</tr></thead><tbody>"
    for row in rows:
        numbers = [cell.replace(".", "", 1).isdigit() for cell in row]
        cells = zip(row, numbers, strict=True)
        yield "<tr>" + "".join(f"<td{' class=number' if right else ''}>{cell}</td>" for cell, right in cells) + "</tr>"
    yield "</tbody></table></div>"
