"""The compatibility map: a page in Markdown, and one HTML file with a heat map that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from forkproof.claims.base import number
from forkproof.ledger import Row
from forkproof.matrix import Cell, Done, Named, cell, claims_of, links, replay
from forkproof.reports.pages import escape
from forkproof.target import describe

SIGNS = {"surprise": "**!**", "known": "k", "broken": "b", "unknown": "?", "held": "ok", "cannot": "-", "": ""}
MEANS = {
    "surprise": "broke where the documentation promises that it holds, or the other way round",
    "known": "a known issue of that version shows",
    "broken": "broke, as the documentation says or allows",
    "unknown": "could not be told",
    "held": "held wherever it was exercised",
    "cannot": "the lane lacks what it takes",
}

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --quiet: #5b636d; --rule: #d9dde2;
  --surprise: #d1242f; --known: #d4830b; --broken: #6d83b8; --unknown: #a3a9b1; --held: #217a3f; --on: #fff; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e8eb; --quiet: #9aa3ad;
  --rule: #333a42; --surprise: #f2555e; --known: #e0a03a; --broken: #7f95cc; --unknown: #6a727c; --held: #3aa862;
  --on: #101214; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 96rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.quiet { color: var(--quiet); } .wide { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 2px; font-size: 13px; }
th { text-align: left; font-weight: 500; white-space: nowrap; padding: 0 .6rem 0 0; }
thead th { text-align: center; vertical-align: bottom; padding: .3rem 0; }
thead th span { display: inline-block; writing-mode: vertical-rl; transform: rotate(180deg); }
th:first-child { position: sticky; left: 0; z-index: 1; text-align: left; background: var(--paper); }
@media (max-width: 40rem) { tbody th { font-size: 11px; } }
td { min-width: 2rem; text-align: center; padding: 0; border-radius: 3px; }
td a, .k { display: block; color: var(--on); text-decoration: none; padding: .15rem .3rem; border-radius: 3px; }
.surprise { background: var(--surprise); } .known { background: var(--known); } .broken { background: var(--broken); }
.unknown { background: var(--unknown); } .held { background: var(--held); } .cannot { color: var(--quiet); }
ul.key { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; list-style: none; padding: 0; }
ul.key .k { display: inline-block; min-width: 2rem; text-align: center; }
details { border-top: 1px solid var(--rule); padding: .4rem 0; } details:target { outline: 2px solid var(--broken); }
summary { cursor: pointer; } pre { overflow-x: auto; font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def page(done: Done) -> str:
    """The map as one HTML file; every cell leads to a scenario and to the command that runs it again."""
    return "\n".join(_page(done)) + "\n"


def _page(done: Done) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Compatibility map</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>"
    yield "<h1>Compatibility map</h1>"
    yield f"<p>{escape(_summary(done))}</p>"
    yield '<ul class="key">'
    for name, meaning in MEANS.items():
        yield f'<li><span class="k {name}">{escape(_plain(name))}</span> {escape(meaning)}</li>'
    yield "</ul>"
    for title, columns in (("Recipes", _recipes(done)), ("Claims", [(name, name) for name in claims_of(done)])):
        yield f'<h2>{title}</h2>\n<div class="wide" tabindex="0" role="region" aria-label="{title}"><table><thead><tr>'
        yield '<th scope="col">lane</th>'
        yield (
            "".join(f'<th scope="col"><span>{escape(shown)}</span></th>' for shown, _ in columns)
            + "</tr></thead><tbody>"
        )
        for lane in done.lanes:
            cells = (_cell(lane, found) for found in _line(done, lane, title, columns))
            yield f'<tr><th scope="row">{escape(lane)}</th>{"".join(cells)}</tr>'
        yield "</tbody></table></div>"
    yield "<h2>Lanes</h2>\n<ul>"
    for lane in done.lanes:
        yield f"<li>{escape(lane)}: {escape(describe(done.targets[lane]))}</li>"
    for lane, why in done.skipped.items():
        yield f"<li>{escape(lane)}: skipped: {escape(why)}</li>"
    yield "</ul>\n<h2>Runs</h2>"
    by_name = {one.name: one for one in done.scenarios}
    for (lane, name), row in done.rows.items():
        yield from _details(lane, row, by_name[name])
    yield "</main>\n</body>\n</html>"


def _line(done: Done, lane: str, title: str, columns: Sequence[tuple[str, str]]) -> Iterator[Cell]:
    rows = [row for (where, _), row in done.rows.items() if where == lane]
    for _, name in columns:
        if title == "Recipes":
            yield cell((row for row in rows if row["name"] == name), None)
        else:
            yield cell(rows, name)


def _recipes(done: Done) -> list[tuple[str, str]]:
    return [(one.about, one.name) for one in done.scenarios if one.kind == "recipe"]


def _plain(state: str) -> str:
    return SIGNS[state].strip("*")


def _cell(lane: str, found: Cell) -> str:
    if found.row is None:
        return "<td></td>"
    told = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    shown = _plain(found.state)
    title = f' title="{escape(told)}"' if told else ""
    return f'<td class="{found.state}"><a href="#{_anchor(lane, found.row["name"])}"{title}>{shown}</a></td>'


def _anchor(lane: str, name: str) -> str:
    return escape(f"{lane}.{name}".replace("/", "."))


def _details(lane: str, row: Row, one: Named) -> Iterator[str]:
    yield f'<details id="{_anchor(lane, row["name"])}"><summary>{escape(lane)}: {escape(row["name"])}</summary>'
    if row["cannot"] is not None:
        yield f"<p>Not run: {escape(row['cannot'])}</p>"
    told = [_said(claim) for claim in row["claims"] if claim["verdict"] != "held"]
    held = [_about(claim) for claim in row["claims"] if claim["verdict"] == "held"]
    if told or held:
        yield "<ul>" + "".join(f"<li>{line}</li>" for line in told)
        yield (f"<li>held: {escape(', '.join(held))}</li>" if held else "") + "</ul>"
    yield f"<pre>{escape(replay(lane, one.scenario))}</pre></details>"


def _about(claim: Mapping[str, Any]) -> str:
    return f"{claim['name']} ({claim['loop']})" if claim["loop"] else str(claim["name"])


def _said(claim: Mapping[str, Any]) -> str:
    expected = f", expected: {claim['expectation'].replace('_', ' ')}" if claim["expectation"] else ""
    rate = f" in {claim['rate'][0]} of {claim['rate'][1]}" if claim["rate"][1] else ""
    text = f"{escape(_about(claim))}: {escape(claim['verdict'])}{rate}{escape(expected)}"
    if claim["known_issue"]:
        text += f" ({_issue(claim['known_issue'])})"
    return f"{text}: {escape(claim['explanation'])}"


def _issue(name: str) -> str:
    link = links().get(name, "")
    shown = f"known issue {escape(name)}"
    return f'<a href="{escape(link)}">{shown}</a>' if link.startswith("https://") else f"{shown}, {escape(link)}"


def _summary(done: Done) -> str:
    servers = sum(row.get("runs", 0) for row in done.rows.values())
    seconds = sum(row["seconds"] for row in done.rows.values())
    told = (
        f"{len(done.lanes)} lanes, {len(done.scenarios)} scenarios, {len(done.rows)} cells, {servers} servers, "
        f"which took {seconds / 60:.0f} minutes one after the other, as they were timed"
    )
    if missing := done.missing():
        told += f". Not complete: {len(missing)} cells were not run"
    return f"{told}. Judged by version {next((row['judging'] for row in done.rows.values()), '')}."


# --- Markdown


def markdown(done: Done, html: str) -> str:
    """The map as a page of this repository; `html` is where the other one lies."""
    return "\n".join(_markdown(done, html)) + "\n"


def _markdown(done: Done, html: str) -> Iterator[str]:
    yield "# Compatibility map\n"
    yield "Made by `forkproof matrix`; see [lanes](lanes.md#the-map) for how. " + _summary(done)
    yield f"[As a page with every scenario and its replay command]({html}).\n"
    yield "| sign | meaning |\n|---|---|"
    for name, meaning in MEANS.items():
        yield f"| {SIGNS[name]} | {meaning} |"
    for title, columns in (("Recipes", _recipes(done)), ("Claims", [(name, name) for name in claims_of(done)])):
        yield f"\n## {title}\n"
        yield f"| lane | {' | '.join(_heading(title, shown) for shown, _ in columns)} |"
        yield f"|---|{'---|' * len(columns)}"
        for lane in done.lanes:
            signs = (SIGNS[found.state] for found in _line(done, lane, title, columns))
            yield f"| {lane} | {' | '.join(signs)} |"
    yield from _lists(done)
    if done.skipped:
        yield "\n## Lanes that could not be had\n\n| lane | why |\n|---|---|"
        for lane, why in done.skipped.items():
            yield f"| {lane} | {_in_cell(why)} |"


def _heading(title: str, shown: str) -> str:
    return f"[{shown}](claims/{shown}.md)" if title == "Claims" else shown


def _lists(done: Done) -> Iterator[str]:
    known: dict[str, set[str]] = {}
    for (lane, _), row in done.rows.items():
        for claim in row["claims"]:
            if claim["known_issue"]:
                known.setdefault(claim["known_issue"], set()).add(lane)
    if known:
        yield "\n## Known issues that showed\n\n| issue | on |\n|---|---|"
        for name, lanes in sorted(known.items()):
            link = links().get(name, "")
            link = link if link.startswith("https://") else f"../{link}"
            yield f"| [{name}]({link}) | {', '.join(sorted(lanes))} |"
    surprises: dict[tuple[str, str, str], list[tuple[Row, Mapping[str, Any]]]] = {}
    for row, claim in done.surprises():
        surprises.setdefault((row["name"], claim["name"], claim["how"]), []).append((row, claim))
    by_name = {one.name: one for one in done.scenarios}
    if surprises:
        yield "\n## What surprised, and is no known issue\n"
    for (name, claim_name, _), found in surprises.items():
        row, claim = found[0]
        told = ", ".join(f"{one['lane']} ({about['rate'][0]} of {about['rate'][1]})" for one, about in found)
        expected = str(claim["expectation"]).replace("_", " ")
        yield f"- `{claim_name}` in {name}: {claim['verdict']}, expected: {expected}; on {told}."
        yield f"  {_in_cell(claim['explanation'])[:300]}\n"
        yield f"      {replay(row['lane'], by_name[name].scenario)}\n"


def told(done: Done) -> list[str]:
    """What a person reads on the terminal; the last line sums it up."""
    surprises = list(done.surprises())
    lines = []
    for row, claim in surprises:
        how = f"{claim['verdict']}, expected {claim['expectation']}, {claim['rate'][0]} of {claim['rate'][1]}"
        lines.append(f"{row['lane']}, {row['name']}: {claim['name']}: {how}: {claim['explanation']}")
    for row in done.stale():
        lines.append(f"{row['lane']}: known issue {row['about']} did not show in {row['runs']} runs")
    lines += [f"not decided: {problem}" for problem in done.problems]
    lines += [f"{lane}: skipped: {why}" for lane, why in done.skipped.items()]
    return [
        *lines,
        f"{number(len(done.lanes), 'lane')}, {len(done.skipped)} skipped; {number(done.launched, 'server')} in "
        f"{done.seconds:.0f} s, {number(done.reused, 'cell')} as before; {number(len(surprises), 'surprise')}"
        + ("; not complete" if done.interrupted else ""),
    ]


def _in_cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def laid_out(plain: Mapping[str, Any]) -> str:
    """The rows beside the pages, one a line."""
    rows = ",\n".join(json.dumps(row) for row in plain["rows"])
    rest = {name: value for name, value in plain.items() if name != "rows"}
    return json.dumps(rest, indent=1)[:-2] + f',\n "rows": [\n{rows}\n ]\n}}\n'
