"""The documentation as a site: `sphinx-build -W -c docs . site`, from the root of the repository."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

project = "forkproof"
author = "forkproof's maintainers"
extensions = ["myst_parser"]
# Of the whole repository, so that links between README, docs, findings and examples are the same here and there.
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "docs/**.md",
    "findings/README.md",
    "findings/*/README.md",
    "examples/README.md",
]
root_doc = "docs/index"
html_theme = "furo"
html_title = "forkproof"
html_static_path: list[str] = []
myst_heading_anchors = 4
# Links to code and scenarios lead to files of the repository, which are no pages; a test looks that they exist.
suppress_warnings = ["myst.xref_missing"]


def setup(app: Sphinx) -> None:
    """What the theme leaves out: by the keyboard one has to come to whatever scrolls, and a heading has a level."""
    app.connect("html-page-context", _reachable)


def _reachable(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: object) -> None:
    if page.endswith(".zh"):
        context["language"] = "zh-Hans"  # a browser picks the characters' shapes by it, and a screen reader its voice
    for old, new in (
        ("<pre>", '<pre tabindex="0">'),
        ('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
        ('role="heading">', 'role="heading" aria-level="2">'),
    ):
        context["body"] = context.get("body", "").replace(old, new)
