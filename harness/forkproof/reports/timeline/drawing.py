"""The picture as SVG: the same in the page, where a script lays it out anew for its width and zoom, and in a file."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from forkproof.claims.base import number
from forkproof.reports.pages import COLOURS, escape
from forkproof.reports.timeline.picture import BINS, Break, Lane, Mark, Picture, Row, Span

STYLE = Path(__file__).with_name("timeline.css").read_text(encoding="utf-8")
"""What the picture looks like, but for its colours."""

WIDTH = 1000
LEFT = 8
"""Empty on both sides."""
TOP = 50
"""Above the lanes: times, windows, faults; then the rows of the numbers of broken claims."""
FLAG, FLAGS = 18, 6
"""The height of such a row, and how many there are at most; numbers that would touch stand in different ones, and
where there are more of them, beside each other."""
HEAD, ROW, GAP = 20, 30, 8

SHAPES = {
    "hook": "M-3.5-3.5h7v7h-7z",
    "patch": "M0-5L5 0L0 5L-5 0z",
    "fork": "M-4 4L0-4L4 4z",
    "created": "M-1-5h2v4h4v2h-4v4h-2v-4h-4v-2h4z",
    "begun": "M-3-4.5L4.5 0L-3 4.5z",
    "ended": "M-4-5L0-1L4-5L5-4L1 0L5 4L4 5L0 1L-4 5L-5 4L-1 0L-5-4z",
    "message": "M0-2.5A2.5 2.5 0 1 0 0 2.5A2.5 2.5 0 1 0 0-2.5z",
    "signal": "M-1-5h2v10h-2z",
    "log": "M-5 4.5L0-5L5 4.5zM-.8-1v3h1.6v-3z",
    "stack": "M-4.5-4h9v2h-9zM-4.5-.9h9v2h-9zM-4.5 2.2h9v2h-9z",
}
"""A look for each kind of mark: told by its shape, not by colour alone."""

KINDS = {
    "hook": "a hook", "patch": "patch_all, patched", "fork": "a fork, a park", "created": "created",
    "begun": "first turn",
    "ended": "ended", "message": "a message", "signal": "a signal", "log": "something bad", "stack": "stacks taken",
}  # fmt: skip

KEY = {
    **{name: f'<path class="mark {kind}" d="{SHAPES[kind]}"/>' for kind, name in KINDS.items()},
    "turns of a loop": '<path class="turns" d="M-7 5v-6h4v6zM-2 5v-10h4v10zM3 5v-4h4v4z"/>',
    "turns of a copied loop": '<path class="turns copied" d="M-6 5v-6h4v6zM-1 5v-10h4v10z"/>',
    "an answered request": '<rect class="request" x="-7" y="-4" width="14" height="8"/>',
    "one that failed": '<rect class="failed" x="-7" y="-4" width="14" height="8"/>',
    "one without an answer": '<rect class="unanswered" x="-6" y="-4" width="12" height="8"/>',
    "a fault": '<rect class="fault" x="-6" y="-6" width="12" height="12"/>',
    "a window": '<rect class="window" x="-7" y="-7" width="14" height="14"/>',
    "a broken claim, with its number": '<circle class="flag" r="6"/>',
    "its first bad event": '<circle class="ring" r="5.5"/>',
}
"""What each mark means, and the mark."""


LETTER = 6.2
"""The usual width of a letter: nobody tells here how wide a text is."""

LINE = 16
"""The height of a line of text above and below the picture, where that stands alone."""

TOLD = 20
"""How many broken claims are told of below a picture that stands alone."""


def svg(picture: Picture, *, alone: bool) -> str:
    """The drawing.

    `alone` brings its own style, says on hovering what a mark is without a script, and tells what broke and what the
    marks mean below: in an issue it is an image, in which nothing can be hovered on.
    """
    return "\n".join(_Drawing(picture, alone=alone).lines())


def _free(x: float, rows: list[list[float]]) -> tuple[int, int]:
    """The row of a number at x, and how far beside x it stands where all rows are taken there."""
    for step in range(2 * WIDTH // FLAG):
        aside = (step + 1) // 2 * FLAG * (1 if step % 2 else -1)
        if aside and not LEFT + FLAG / 2 <= x + aside <= WIDTH - LEFT - FLAG / 2:
            continue
        for row, taken in enumerate(rows):
            if all(abs(x + aside - other) >= FLAG for other in taken):
                return row, aside
    return 0, 0


NAMED = 44
"""Letters of a loop's name that the picture shows: it has to be read on a phone; the words below have all of it."""


def _cut(text: str, most: int) -> str:
    """A text of at most so many letters, without its middle."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]}…{text[len(text) - most // 3 + 1 :]}"


def wrapped(text: str, most: int) -> list[str]:
    """A text in lines that are as wide as the picture, at most so many.

    >>> wrapped("a b", 1), [len(line) for line in wrapped("word " * 99, 2)]
    (['a b'], [149, 151])
    """
    wide = any(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    lines = textwrap.wrap(text, 75 if wide else 150)
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1]} …"]


def _said(broken: Break) -> str:
    where = f" ({broken.loop})" if broken.loop else ""
    return f"{broken.number}: {broken.claim}{where} broken, first bad event at {broken.t:+.3f} s"


class _Drawing:
    def __init__(self, picture: Picture, *, alone: bool) -> None:
        self.picture = picture
        self.alone = alone
        self.tops: dict[str, float] = {}
        y = float(TOP + FLAG * min(len(picture.breaks), FLAGS))
        for lane in picture.lanes:
            self.tops[lane.key] = y
            y += HEAD + ROW * len(lane.rows) + GAP
        self.height = y

    def x(self, t: float) -> float:
        return round(LEFT + t / self.picture.seconds * (WIDTH - 2 * LEFT), 2)

    def lines(self) -> Iterator[str]:
        picture = self.picture
        count = len(picture.breaks)
        told = (
            f"Timeline of {picture.title}: {picture.verdict}, {number(count, 'broken claim')}, "
            f"{number(len(picture.lanes) - 1, 'process')}"
        )
        if self.alone:
            yield from self.alone_lines(told)
            return
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" width="100%" '
            f'role="group" aria-label="{escape(told)}" '
            f'data-seconds="{picture.seconds:.6f}" data-bins="{BINS}" data-left="{LEFT}" data-height="{self.height:g}" '
            f'data-flag="{FLAG}" data-flags="{FLAGS}" data-top="{TOP}" data-letter="{LETTER}">'
        )
        yield from self.drawn()
        yield "</svg>"

    def alone_lines(self, told: str) -> Iterator[str]:
        """The picture between its heading and what is told of it."""
        picture = self.picture
        head = 3.5 * LINE
        below = list(self.below(head + self.height + LINE))
        height = head + self.height + LINE + sum(size for size, _ in below)
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" '
            f'viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(told)}">'
        )
        yield f"<title>{escape(told)}</title><style>{COLOURS}{STYLE}</style>"
        yield f'<rect class="paper" width="{WIDTH}" height="{height:g}"/>'
        yield f'<text class="head" x="{LEFT + 4}" y="{1.4 * LINE:g}">{escape(_cut(told, 120))}</text>'
        yield f'<text x="{LEFT + 4}" y="{2.6 * LINE:g}">{escape(_cut(picture.versions, 150))}</text>'
        yield f'<g transform="translate(0 {head:g})">'
        yield from self.drawn()
        yield "</g>"
        for _, line in below:
            yield line
        yield "</svg>"

    def below(self, y: float) -> Iterator[tuple[float, str]]:
        """The broken claims, and what the marks mean: the height of each line, and the line."""
        for broken in self.picture.breaks[:TOLD]:
            where = f" ({broken.loop})" if broken.loop else ""
            words = [("head", f"{broken.number}. {broken.claim}{where}, from {broken.t:+.3f} s on")]
            words += [("", line) for line in wrapped(broken.rule, 2)]
            words += [("told", line) for line in wrapped(broken.explanation, 4)]
            for style, line in words:
                y += LINE
                yield LINE, f'<text class="{style}" x="{LEFT + 4}" y="{y:g}">{escape(line)}</text>'
            y += LINE / 2
            yield LINE / 2, ""
        if len(self.picture.breaks) > TOLD:
            y += LINE
            more = number(len(self.picture.breaks) - TOLD, "broken claim")
            yield LINE, f'<text x="{LEFT + 4}" y="{y:g}">and {more} more</text>'
        x = LEFT + 4.0
        y += LINE
        yield LINE, ""
        for name, shape in KEY.items():
            width = 26 + LETTER * len(name)
            if x + width > WIDTH - LEFT:
                x, y = LEFT + 4.0, y + 1.2 * LINE
                yield 1.2 * LINE, ""
            yield 0, f'<g transform="translate({x + 7:g} {y - 4:g})">{shape}</g>'
            yield 0, f'<text x="{x + 18:g}" y="{y:g}">{escape(name)}</text>'
            x += width
        yield LINE, ""

    def drawn(self) -> Iterator[str]:
        """The picture itself."""
        picture = self.picture
        yield (
            '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><path class="hatch" d="M0 0v6"/></pattern></defs>'
        )
        yield "<g class='axis'>"
        yield from self.axis()
        yield "</g>"
        for span in picture.windows:
            yield self.span(span, 16, self.height - 16)
        for span in picture.faults:
            yield self.span(span, 16, self.height - 16)
        for lane in picture.lanes:
            yield from self.lane(lane)
        for lane in picture.lanes:
            if lane.parent in self.tops:
                yield self.branch(lane, self.tops[lane.parent])
        breaks = sorted(picture.breaks, key=lambda broken: broken.t)
        for broken in breaks:
            yield self.line(broken)
        rows: list[list[float]] = [[] for _ in range(FLAGS)]
        for broken in breaks:
            row, aside = _free(self.x(broken.t), rows)
            rows[row].append(self.x(broken.t) + aside)
            yield self.flag(broken, row, aside)
        for lane in picture.lanes:  # last, so that no line crosses out a name
            yield from self.names(lane)
        yield from self.bands()

    def bands(self) -> Iterator[str]:
        """The names of windows and faults, those that do not stand in the way of another one; the page's script too."""
        free = {27: 0.0, 41: 0.0}
        for span in sorted([*self.picture.windows, *self.picture.faults], key=lambda span: span.t):
            name = span.text.partition(",")[0].partition(" from")[0]
            y = 27 if span.kind == "window" else 41
            x = max(min(self.x(span.t) + 3, WIDTH - LEFT - LETTER * len(name)), LEFT)
            if self.alone and x < free[y]:
                continue
            free[y] = x + LETTER * len(name)
            yield f'<text class="band" data-t="{span.t:.6f}" x="{x:g}" y="{y}">{escape(name)}</text>'

    def axis(self) -> Iterator[str]:
        """The times; the page's script makes them anew."""
        step = next(
            s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300, 3600) if self.picture.seconds / s <= 12 or s == 3600
        )
        for count in range(int(self.picture.seconds / step) + 1):
            x = self.x(count * step)
            yield f'<path class="grid" d="M{x:g} 14V{self.height:g}"/>'
            told = f"{count * step:g} s"
            left = x + 2 if x + 2 + LETTER * len(told) < WIDTH else x - 2 - LETTER * len(told)
            yield f'<text x="{left:g}" y="11">{told}</text>'

    def span(self, span: Span, y: float, height: float) -> str:
        x, width = self.x(span.t), max(self.x(span.end) - self.x(span.t), 2)
        focus = ' tabindex="0" role="img"' if span.kind == "fault" and not self.alone else ""
        return (
            f'<rect class="{span.kind}"{self.tip(span.text, bool(focus))}{focus} data-t="{span.t:.6f}" '
            f'data-e="{span.end:.6f}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
            + self.closing("rect", span.text)
        )

    def lane(self, lane: Lane) -> Iterator[str]:
        y = self.tops[lane.key]
        height = HEAD + ROW * len(lane.rows)
        yield (
            f'<rect class="life" data-t="{lane.begin:.6f}" data-e="{lane.end:.6f}" x="{self.x(lane.begin):g}" '
            f'y="{y:g}" width="{max(self.x(lane.end) - self.x(lane.begin), 2):g}" height="{height}"/>'
        )
        for index, row in enumerate(lane.rows):
            yield from self.row(row, y + HEAD + index * ROW)

    def names(self, lane: Lane) -> Iterator[str]:
        y = self.tops[lane.key]
        text = f"{lane.label}, from {lane.begin:+.2f} s {'on' if lane.lives else f'to {lane.end:+.2f} s'}"
        yield f'<text class="process" x="{LEFT + 4}" y="{y + 14:g}">{escape(text)}</text>'
        for index, row in enumerate(lane.rows):
            label = escape(_cut(row.label, NAMED))
            yield f'<text class="row" x="{LEFT + 4}" y="{y + HEAD + index * ROW + 9:g}">{label}</text>'

    def branch(self, lane: Lane, parent: float) -> str:
        """A fork: from the parent's lane to this one, at the time of its birth."""
        y = self.tops[lane.key] + HEAD / 2
        place = f'data-t="{lane.begin:.6f}" data-y="0" transform="translate({self.x(lane.begin):g} 0)"'
        return f'<path class="branch" {place} d="M0 {parent + HEAD / 2:g}V{y - 4:g}m-3.5 0l3.5 7l3.5-7z"/>'

    def row(self, row: Row, y: float) -> Iterator[str]:
        base = y + ROW - 4
        if row.bins:
            most = max(row.bins.values()) or 1
            bins = {place: max(1.5, 13 * count / most) for place, count in row.bins.items() if count}
            text = (
                f"{row.label}: {sum(row.bins.values())} turns, at most {most} in {self.picture.bin_width * 1000:.0f} ms"
            )
            data = " ".join(f"{place}:{height:.1f}" for place, height in sorted(bins.items()))
            yield (
                f'<path class="turns{" copied" if row.copied else ""}"{self.tip(text)} data-turns="{data}" '
                f'data-y="{base:g}" d="{self.turns(bins, base)}"' + self.closing("path", text)
            )
        for span in row.spans:
            yield self.span(span, base - 9, 9)
        for mark in row.marks:
            yield self.mark(mark, base - 5)

    def turns(self, bins: dict[int, float], base: float) -> str:
        width = (WIDTH - 2 * LEFT) / BINS
        return "".join(
            f"M{LEFT + place * width:.1f} {base:g}v-{height:.1f}h{width:.1f}v{height:.1f}z"
            for place, height in sorted(bins.items())
        )

    def mark(self, mark: Mark, y: float) -> str:
        return (
            f'<path class="mark {mark.kind}"{self.tip(mark.text)} data-t="{mark.t:.6f}" data-y="{y:g}" '
            f'transform="translate({self.x(mark.t):g} {y:g})" d="{SHAPES[mark.kind]}"' + self.closing("path", mark.text)
        )

    def line(self, broken: Break) -> str:
        """A dashed line through all lanes, and a ring where its first bad event is."""
        inside = f'<path class="line" d="M0 16V{self.height:g}"/>'
        for lane in self.picture.lanes:
            if lane.key in broken.lanes:
                place = f'class="ring" cy="{self.ring(lane, broken.row):g}" r="7"'
                inside += f"<circle {place}{self.tip(_said(broken))}" + self.closing("circle", _said(broken))
        place = f'data-t="{broken.t:.6f}" data-y="0" transform="translate({self.x(broken.t):g} 0)"'
        return f'<g data-line="{broken.number}" {place}>{inside}</g>'

    def flag(self, broken: Break, row: int, aside: float) -> str:
        """A number, in that row and so far from its line, that leads to what is told of it."""
        text = _said(broken)
        down = TOP + FLAG * row + FLAG / 2
        inside = (
            f'<g class="flag" transform="translate({aside:g} {down:g})"><circle class="flag" r="8"/>'
            f'<text class="flag" y="4">{broken.number}</text></g>'
        )
        place = f'data-t="{broken.t:.6f}" data-y="0" transform="translate({self.x(broken.t):g} 0)"'
        if self.alone:
            return f'<g class="break" {place}><title>{escape(text)}</title>{inside}</g>'
        return f'<a class="break" href="#broken-{broken.number}"{self.tip(text, named=True)} {place}>{inside}</a>'

    def ring(self, lane: Lane, name: str) -> float:
        """Where in a lane the first bad event is: in the row of that name, or at its head."""
        rows = [index for index, row in enumerate(lane.rows) if row.label.partition(" · ")[0] == name]
        return self.tops[lane.key] + (HEAD + ROW * rows[0] + ROW - 9 if rows else HEAD / 2)

    def tip(self, text: str, named: bool = False) -> str:
        if self.alone:
            return ""
        return f' data-tip="{escape(text)}"' + (f' aria-label="{escape(text)}"' if named else "")

    def closing(self, name: str, text: str) -> str:
        return f"><title>{escape(text)}</title></{name}>" if self.alone else "/>"
