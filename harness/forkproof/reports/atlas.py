"""The atlas as one HTML file: choose settings, read where the loop runs, what breaks, and what is near and holds."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forkproof.atlas import SCOPE, counts
from forkproof.reports.pages import escape
from forkproof.target import describe

_SCRIPT = Path(__file__).with_name("atlas.js").read_text(encoding="utf-8")

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --quiet: #5b636d; --rule: #d9dde2; --held: #1d7a3c;
  --broken: #c01f2a; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e8eb; --quiet: #9aa3ad;
  --rule: #333a42; --held: #4fc07a; --broken: #ff6b74; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 96rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.3rem; } .quiet, .unknown, .cannot-be, .not-run { color: var(--quiet); }
.held { color: var(--held); } .broken { color: var(--broken); }
form { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: 1rem 0; }
label { display: flex; flex-direction: column; font-size: 13px; color: var(--quiet); }
select, input { font: inherit; min-height: 2.2rem; background: var(--paper); color: var(--ink);
  border: 1px solid var(--quiet); border-radius: 4px; padding: 0 .4rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
summary { cursor: pointer; } .detail { max-width: 50rem; }
@media (max-width: 60rem) { td:nth-last-child(-n+2) { min-width: 14rem; } }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; }
"""

POLICIES = {
    "": "anything",
    "once_per_worker": "one in each worker, none elsewhere",
    "once_per_service": "exactly one place",
    "arbiter_only": "in the arbiter alone",
}


def page(found: Sequence[Mapping[str, Any]], versions: Mapping[str, str | None]) -> str:
    """The page; it asks for nothing and runs no script but its own."""
    return "\n".join(_page(found, versions)) + "\n"


def _page(found: Sequence[Mapping[str, Any]], versions: Mapping[str, str | None]) -> Iterator[str]:
    script = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'; base-uri 'none'"
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Atlas</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>"
    yield "<h1>Where a background loop runs</h1>"
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts(found).items()))
    yield f"<p>{len(found)} combinations: {escape(told)}. {escape(describe(versions))}.</p>"
    yield '<p class="quiet">Choose your own settings. A verdict is that of a run without faults, or of three where it '
    yield 'may go either way; threads "native" is patch_all(thread=False), patch "post_fork" is in the workers alone.'
    yield "</p>\n<form>"
    for name, values in SCOPE.items():
        shown = ["yes" if value is True else "no" if value is False else str(value) for value in values]
        yield _select(name, name.replace("_", " "), {"": "any", **{one: one for one in shown}})
    yield _select("verdict", "verdict", {"": "any", **{one: one for one in sorted(counts(found))}})
    yield _select("policy", "you want it to run", POLICIES)
    yield '<label for="query">search<input id="query" type="search" autocomplete="off"></label>\n</form>'
    yield '<p id="count" class="quiet" role="status"></p>'
    yield '<div class="wide" tabindex="0" role="region" aria-label="Combinations"><table><thead><tr>'
    heads = [*(name.replace("_", " ") for name in SCOPE), "verdict", "runs in", "breaks"]
    yield "".join(f'<th scope="col">{head}</th>' for head in heads)
    yield '</tr></thead><tbody id="rows"></tbody></table></div>\n</main>'
    # A closing tag in what a server said would end the script.
    plain = json.dumps(_data(found), separators=(",", ":")).replace("<", "\\u003c")
    yield f'<script type="application/json" id="data">{plain}</script>\n<script>{_SCRIPT}</script>\n</body>\n</html>'


def _select(name: str, label: str, options: Mapping[str, str]) -> str:
    inner = "".join(f'<option value="{escape(value)}">{escape(shown)}</option>' for value, shown in options.items())
    return f'<label for="{name}">{escape(label)}<select id="{name}">{inner}</select></label>'


def _data(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "scope": SCOPE,
        "rows": [
            [
                entry["id"],
                [list(values).index(entry[name]) for name, values in SCOPE.items()],
                entry["verdict"],
                entry["runs_in"],
                entry["breaks"],
                entry["reason"],
                entry["known_issues"],
                entry["replay"],
            ]
            for entry in found
        ],
    }
