"""The documentation builds without a warning, and no link on its pages leads nowhere."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


class Page(HTMLParser):
    """The anchors of a page, where its links lead, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.loads += [given["src"]] if "src" in given else []
        self.loads += [given["href"]] if tag == "link" and "href" in given else []


def leads_nowhere(root: Path) -> list[str]:
    """Every link within the site that has no page, file or anchor."""
    pages = {path.resolve(): Page(path) for path in root.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link in page.links:
            file, _, anchor = link.partition("#")
            to = (path.parent / file).resolve() if file else path
            if "://" in link or link.startswith("mailto:"):
                continue
            if not to.is_file() or (anchor and to in pages and anchor not in pages[to].anchors):
                found.append(f"{path.name}: {link}")
    return found


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html#y">b</a><a href="#x">x</a><a href="c.html">c</a>')
    (tmp_path / "b.html").write_text('<a href="a.html#x">a</a><a href="https://example.org/">e</a>')
    assert sorted(leads_nowhere(tmp_path)) == ["a.html: b.html#y", "a.html: c.html"]


def test_each_page_stands_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").split()
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"} <= set(index)


@pytest.mark.fork  # starts no server, but takes its time
def test_the_site(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="pip install '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-c", "docs", "-d", str(tmp_path / "d")]
    built = subprocess.run(
        [*command, ".", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert (built.returncode, built.stderr) == (0, "")
    assert len(list((tmp_path / "site").rglob("*.html"))) > 60
    assert leads_nowhere(tmp_path / "site") == []
    chinese = tmp_path / "site" / "docs" / "the-original-report.zh.html"
    assert '<html class="no-js" lang="zh-Hans"' in chinese.read_text(encoding="utf-8")
    loads = {one for path in (tmp_path / "site").rglob("*.html") for one in Page(path).loads}
    assert [one for one in loads if "://" in one] == []
