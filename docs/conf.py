"""The documentation as a site: `sphinx-build -W -c docs . site`, from the root of the repository."""

from __future__ import annotations

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
