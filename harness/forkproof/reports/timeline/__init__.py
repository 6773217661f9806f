"""A run as a picture: one HTML file that needs nothing else, or the same picture as SVG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from forkproof import check, claims
from forkproof.claims.base import number
from forkproof.history import History
from forkproof.judge import assess
from forkproof.reports.pages import document, escape
from forkproof.reports.timeline.drawing import KEY, STYLE, svg
from forkproof.reports.timeline.picture import Break, Picture, of_check, of_run

__all__ = ["Picture", "page", "picture", "svg"]

SCRIPT = Path(__file__).with_name("timeline.js").read_text(encoding="utf-8")
_PAGE_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def picture(folder: Path) -> Picture:
    """What the timeline of a run, or of a check, shows; errors as `judge.assess`."""
    rules = {name: claim.definition for name, claim in claims.REGISTRY.items()}
    plan = check.planned(folder)
    if plan is not None:
        return of_check(check.assess(folder), plan.command, rules)
    return of_run(assess(folder), History.read(folder / "history"), rules)


def page(shown: Picture) -> str:
    """The timeline as one HTML file: no script but its own runs in it, and it asks for nothing."""
    return document(shown.title, _page(shown), style=STYLE + _PAGE_STYLE, script=SCRIPT)


def _page(shown: Picture) -> Iterator[str]:
    yield f"<header>\n<h1>{escape(shown.title)}</h1>"
    state = "bad" if shown.breaks else ""
    yield (
        f'<p><span class="{state}">{escape(shown.verdict)}</span>: {number(len(shown.breaks), "broken claim")}, '
        f"{number(len(shown.lanes) - 1, 'process')}, {number(shown.events, 'event')}, {shown.seconds:.2f} s</p>"
    )
    yield f'<p class="quiet">{escape(shown.versions)}</p>\n</header>\n<main>'
    yield f'<details><summary>the scenario</summary><pre tabindex="0">{escape(shown.scenario)}</pre></details>'
    yield from _bar()
    keys = "Timeline: plus and minus zoom, the arrows move, 0 shows all"
    yield f'<div id="plot" tabindex="0" role="region" aria-label="{keys}">'
    yield svg(shown, alone=False)
    yield "</div>"
    yield from _key()
    if shown.breaks:
        yield "<h2>Broken claims</h2>"
    for broken in shown.breaks:
        yield from _broken(broken)
    yield from _processes(shown)
    yield '</main>\n<div id="tip" role="status" hidden></div>'


def _bar() -> Iterator[str]:
    yield '<div class="bar">'
    for key, name in (
        ("+", "zoom in"),
        ("-", "zoom out"),
        ("ArrowLeft", "earlier"),
        ("ArrowRight", "later"),
        ("0", "all"),
    ):
        sign = {"ArrowLeft": "←", "ArrowRight": "→", "-": "&minus;", "0": "all"}.get(key, key)
        yield f'<button type="button" data-key="{key}" aria-label="{name}">{sign}</button>'
    yield '<span id="range" class="quiet" role="status"></span>'
    yield '<span class="quiet mouse">drag to move, Ctrl or Shift and the wheel to zoom</span>'
    yield '<span class="quiet touch">drag to move, two fingers to zoom</span>\n</div>'


def _key() -> Iterator[str]:
    yield '<ul class="key" aria-label="Key">'
    for name, shape in KEY.items():
        yield f'<li><svg width="14" height="14" viewBox="-7 -7 14 14" aria-hidden="true">{shape}</svg> {name}</li>'
    yield "</ul>"


def _broken(broken: Break) -> Iterator[str]:
    loop = f" ({broken.loop})" if broken.loop else ""
    yield f'<article id="broken-{broken.number}" tabindex="-1">'
    yield f"<h3>{broken.number}. {escape(broken.claim + loop)}</h3>"
    yield f'<p class="quiet">{escape(broken.rule)}</p>'
    word = "A surprise" if broken.surprise else "Broken"
    yield f'<p><span class="bad">{word}</span>: {escape(broken.explanation)}</p>'
    if broken.expected:
        yield f'<p class="quiet">By the documentation it {escape(broken.expected)}</p>'
    shows = f"show the first bad event, at {broken.t:+.3f} s"
    yield f'<p><button type="button" data-show="{broken.t:.6f}">{shows}</button></p>'
    yield f"<details><summary>{number(len(broken.evidence), 'event')} that it stands on</summary>"
    yield f'<pre tabindex="0">{escape(chr(10).join(broken.evidence))}</pre></details>'
    for who, calls in broken.stacks:
        yield f"<details><summary>stacks of {escape(who)}</summary>"
        yield f'<pre tabindex="0">{escape(chr(10).join(calls))}</pre></details>'
    yield "</article>"


def _processes(shown: Picture) -> Iterator[str]:
    """The lanes in words, and all that the marks in them say: without a mouse, nobody hovers."""
    if len(shown.lanes) == 1 and not any(row.marks or row.spans for row in shown.lanes[0].rows):
        return
    yield '<h2>Processes</h2>\n<div class="wide" tabindex="0" role="region" aria-label="Processes"><table>'
    titles = ("process", "forked by", "from", "to", "loops and their turns")
    yield f"<thead><tr>{''.join(f'<th scope=col>{title}</th>' for title in titles)}</tr></thead>\n<tbody>"
    names = {lane.key: lane.label for lane in shown.lanes[1:]}
    for lane in shown.lanes[1:]:
        loops = "; ".join(f"{row.label}: {sum(row.bins.values())}" for row in lane.rows if row.label not in _OWN)
        end = "the end" if lane.lives else f"{lane.end:+.3f} s"
        parent = names.get(lane.parent or "", "")
        cells = (escape(lane.label), escape(parent), f"{lane.begin:+.3f} s", end, escape(loops))
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</tbody></table></div>"
    yield "<h2>What happened, in words</h2>"
    for lane in shown.lanes:
        told = [(mark.t, mark.text) for row in lane.rows for mark in row.marks]
        bands = [] if lane.key else [*shown.windows, *shown.faults]
        told += [(span.t, span.text) for span in [*bands, *(span for row in lane.rows for span in row.spans)]]
        if told:
            lines = [text for _, text in sorted(told, key=lambda one: one[0])]
            yield f"<details><summary>{escape(lane.label)}: {number(len(lines), 'line')}</summary>"
            yield f'<pre tabindex="0">{escape(chr(10).join(lines))}</pre></details>'


_OWN = ("hooks", "requests")
