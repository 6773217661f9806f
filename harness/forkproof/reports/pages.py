"""HTML files that need nothing else: their head, their style, and text that is not ours in them."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

COLOURS = Path(__file__).with_name("colours.css").read_text(encoding="utf-8")
_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")

_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(text: str) -> str:
    """Text that is not ours, as it may stand in HTML, in XML, and in an attribute of either.

    >>> escape('<script>"&' + chr(0))
    '&lt;script&gt;&quot;&amp;\\ufffd'
    """
    return html.escape(_IN_XML.sub("\ufffd", text))


def document(title: str, body: Iterable[str], *, style: str = "", script: str = "") -> str:
    """A whole page. No script but this one runs in it, and it asks for nothing."""
    return "\n".join(_lines(title, body, style, script)) + "\n"


def policy(script: str = "") -> str:
    """What a page with this script may do, for the browser: the script itself, and styles within it."""
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{own}'; " if script else ""
    return f"default-src 'none'; style-src 'unsafe-inline'; {allowed}base-uri 'none'; form-action 'none'"


def _lines(title: str, body: Iterable[str], style: str, script: str) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy(script)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>{escape(title)}</title>"
    yield f"<style>\n{COLOURS}{style}{_STYLE}</style>\n</head>\n<body>"
    yield from body
    if script:
        yield f"<script>{script}</script>"
    yield "</body>\n</html>"
