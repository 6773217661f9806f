"""Every kind of page as axe-core sees it, in light and dark, on a phone and on a desk: it finds nothing.

Which axe-core: the file that `FORKPROOF_AXE` names (such as that of npm's newest), or the one in axe-core-python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import browser as browsers
import pytest
from histories import server as processes
from histories import window
from test_atlas import SMALL, VERSIONS, row
from test_campaign_page import ended, written
from test_judge import CASE_ZERO, COPIED, run_folder
from test_timeline import copied, in_a_browser, many

from forkproof import atlas
from forkproof.judge import judge
from forkproof.reports import serve, timeline
from forkproof.reports.atlas import page as atlas_page

ROOT = Path(__file__).parent.parent
SITE = ("README", "docs/index", "docs/dimensions", "docs/tutorial", "docs/compatibility", "docs/claims/server_answers",
        "docs/the-original-report.zh", "findings/README")  # fmt: skip
"""Pages of the site: one of each kind."""
NOT_OURS = ("#furo-sidebar-ad-placement", ".sidebar-drawer", ".toc-drawer", ".mobile-header", ".content-icon-container")
"""What the site's theme puts around them."""


def axe() -> Path | None:
    """The file with axe-core; None where there is none."""
    if named := os.environ.get("FORKPROOF_AXE"):
        return Path(named)
    found = find_spec("axe_core_python")
    places = [*(found.submodule_search_locations or ())] if found else []
    return next((path for place in places if (path := Path(place) / "axe.min.js").is_file()), None)


pytestmark = [
    *in_a_browser,
    pytest.mark.skipif(axe() is None, reason="there is no axe-core here: pip install axe-core-python"),
]

RUN_AXE = """
axe.run({exclude: %s}, {preload: false, resultTypes: ["violations"]}).then((found) => JSON.stringify(
  found.violations.flatMap((one) => one.nodes.slice(0, 5).map((node) =>
    [one.id, one.help, node.target.join(" "), ...node.any.concat(node.all).map((why) => why.message)].join(": ")))))
"""


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[browsers.Browser]:
    """One for each test: it starts processes for each origin, which are no test's then."""
    folder = tmp_path / "chromium"
    folder.mkdir()
    with browsers.browser(folder) as found:
        yield found


def seen(chromium: browsers.Browser, exclude: tuple[str, ...] = ()) -> list[str]:
    """What axe finds on the page that is open."""
    library = axe()
    assert library is not None
    chromium.js(library.read_text(encoding="utf-8") + "; 0")
    there = [name for name in exclude if chromium.js(f"document.querySelector({name!r}) !== null")]
    found: list[str] = json.loads(chromium.js(RUN_AXE % json.dumps([[name] for name in there])))
    return found


def look(chromium: browsers.Browser, address: str, exclude: tuple[str, ...] = ()) -> list[str]:
    """What is wrong with a page, at two sizes and in two schemes."""
    wrong = []
    for width in (375, 1280):
        for scheme in ("light", "dark"):
            chromium.size(width, 800)
            chromium.scheme(scheme)
            chromium.said.clear()
            chromium.asked.clear()
            chromium.open_at(address)
            chromium.frame()
            at = f"{address.rpartition('/')[2]}, {width} px, {scheme}: "
            wrong += [at + one for one in seen(chromium, exclude)]
            wrong += [at + f"said {one}" for one in chromium.said]
            wrong += [at + f"asked {one}" for one in chromium.asked if not one.startswith((address[:20], "data:"))]
            if chromium.js("document.documentElement.scrollWidth") > width:
                wrong.append(at + "it is wider than the screen")
    return wrong


def test_what_is_wrong_is_found(chromium: browsers.Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    bad = '<p style="color: #ccc">hard to read<img src="data:,"><div style="width: 2000px">x'
    path.write_text(f"<!DOCTYPE html><title>x</title>{bad}", encoding="utf-8")
    found = "\n".join(look(chromium, path.as_uri()))
    for name in ("image-alt", "color-contrast", "html-has-lang", "it is wider than the screen"):
        assert name in found


def kept(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return path.as_uri()


def test_a_timeline(chromium: browsers.Browser, tmp_path: Path) -> None:
    assert look(chromium, kept(tmp_path / "a.html", timeline.page(timeline.picture(copied(tmp_path))))) == []
    assert look(chromium, kept(tmp_path / "b.html", timeline.page(many()))) == []


def test_a_campaign(chromium: browsers.Browser, tmp_path: Path) -> None:
    assert look(chromium, written(tmp_path).as_uri()) == []


def test_the_compatibility_map(chromium: browsers.Browser) -> None:
    assert look(chromium, (ROOT / "docs" / "compatibility.html").as_uri()) == []


HEADS = """
(() => {
  const table = document.querySelector("table"), box = (cell) => cell.getBoundingClientRect();
  document.querySelector(".wide").scrollLeft = 80;
  const [heads, row] = [...table.rows].map((one) => [...one.cells]);
  const middle = (cell) => (box(cell).left + box(cell).right) / 2;
  const words = heads.slice(1).map((cell) => cell.querySelector("span"));
  const [word, beside] = [heads[0], row[0]].map((cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return range.getBoundingClientRect();
  });
  return JSON.stringify({
    lies: word.width > word.height, left: word.left - beside.left, stays: box(row[0]).left - box(table.parentNode).left,
    aside: Math.max(...words.map((one, at) => Math.abs(middle(one) - middle(row[at + 1])))),
    stand: words.every((one) => box(one).height > box(one).width),
  });
})()
"""


@pytest.mark.parametrize("width", [375, 1280])
def test_headings_of_the_map_stand_above_their_columns_and_lanes_stay(chromium: browsers.Browser, width: int) -> None:
    chromium.size(width, 800)
    chromium.open(ROOT / "docs" / "compatibility.html")
    found = json.loads(chromium.js(HEADS))
    assert (found["lies"], found["stand"]) == (True, True)
    assert max(abs(found["left"]), abs(found["stays"]), found["aside"]) <= 2, found


def test_the_atlas(chromium: browsers.Browser, tmp_path: Path) -> None:
    found = atlas.entries(SMALL, {one.id: row(one, "workers_boot") for one in SMALL[:3]}, "lane")
    assert look(chromium, kept(tmp_path / "atlas.html", atlas_page(found, VERSIONS))) == []


def test_a_folder_of_runs(chromium: browsers.Browser, tmp_path: Path) -> None:
    out = tmp_path / "out"
    judge(run_folder(out / "0123456789ab-000001", CASE_ZERO, processes(1), window(), COPIED))
    run_folder(out / "0123456789ab-000002", CASE_ZERO, processes(1))
    (out / "last-campaign.json").write_text(json.dumps(ended(Path("gone")).to_dict()), encoding="utf-8")
    with serve.Server(serve.Folder(out)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            for path in ("", "run/0123456789ab-000001", "campaign/last-campaign.json", "nowhere"):
                wrong = look(chromium, f"http://127.0.0.1:{server.server_port}/{path}")
                assert [one for one in wrong if "404" not in one] == []
        finally:
            server.shutdown()
            thread.join()


def test_the_site(chromium: browsers.Browser, tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="pip install '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-c", "docs", "-d", str(tmp_path / "d")]
    subprocess.run([*command, ".", str(tmp_path / "site")], cwd=ROOT, check=True, timeout=300)
    for name in SITE:
        assert look(chromium, (tmp_path / "site" / f"{name}.html").as_uri(), NOT_OURS) == []
