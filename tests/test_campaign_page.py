"""The page of a campaign: what stands on it, that nothing in a report speaks for it, and how it is in a browser."""

from __future__ import annotations

import copy
import html
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser as browsers
import pytest
from test_cli import Run, run, tmp_path
from test_judge import VERSIONS
from test_timeline import BAD, CONTRAST, NAMED, copied, in_a_browser

from forkproof import known_issues
from forkproof.cause import Cause, Change, Cost, Trial
from forkproof.claims import REGISTRY
from forkproof.expectation import Expectation
from forkproof.explore import Campaign, Failure, Part, Stale
from forkproof.judge import Judgement, RunReport, Stands
from forkproof.reports import campaign as pages
from forkproof.scenario import Scenario, from_dict
from forkproof.verdict import Finding, Verdict

__all__ = ["run", "tmp_path"]
HELD, BROKEN, UNKNOWN = Verdict.HELD, Verdict.BROKEN, Verdict.UNKNOWN
SMALL = {"loops": [{"name": "a", "kind": "greenlet"}], "server": {"preload": True}}


def judged(what: Scenario, claim: str, verdict: Verdict, *, loop: str | None = None, must: str = "must_hold",
           how: str = "", said: str = "so", issue: str | None = None) -> RunReport:  # fmt: skip
    found = Judgement(Finding(claim, verdict, loop, said, (), how), Expectation(must), "", issue, (1, 1), "+1.00s")
    return RunReport(what, Path("run"), VERSIONS, [found])


def failed(report: RunReport, folder: Path, **more: Any) -> Failure:
    return Failure(report.judgements[0], report.scenario, folder, (3, 5), 2, **more)


def ended(folder: Path, word: str = "no answer") -> Campaign:
    """A campaign with one of everything; `word` is said wherever a server or a user can say anything."""
    what = from_dict(SMALL)
    found = Campaign(drawn=40, launched=90, seconds=61.4, problems=[word], seed=7, versions=VERSIONS)
    found.judged = list(REGISTRY)
    found.phases = [Part("explore", 40, 30.0), Part(f"cause of {word}", 50, 31.4)]
    for verdict in (HELD, HELD, BROKEN, UNKNOWN):
        found.coverage.add(judged(what, "server_answers", verdict, said=word))
    for _ in range(30):
        found.coverage.add(judged(from_dict({"loops": [{"name": "a"}]}), "workers_boot", HELD))
    change = Change(
        ("server", "preload"), True, False, f"with preload_app=False {word}", "preload_app=True", Cost.SETTING
    )
    cause = Cause([Trial(change, HELD, (0, 3), True)], 3)
    stands = [Stands(f"worker 0 {word}", "stacks/1-1.txt", [f"a.py:1 {word}", "b.py:2 run"])]
    surprise = judged(what, "server_answers", BROKEN, how=word, said=word, loop=word)
    found.failures = [
        failed(surprise, folder, cause=cause, stands=stands),
        failed(judged(what, "workers_boot", BROKEN, issue=known_issues.load()[0].id), Path("other")),
    ]
    found.expected_breaks = [failed(judged(what, "quiet_runtime", BROKEN, must="must_break", how=word), Path("third"))]
    found.stale = [Stale(known_issues.load()[0], 9)]
    return found


def written(tmp_path: Path, word: str = "no answer") -> Path:
    """The page, beside the run that its surprise names, which has a timeline."""
    folder = tmp_path / "runs" / "a run"
    folder.mkdir(parents=True)
    (folder / "timeline.html").write_text("<!DOCTYPE html><title>that one</title>", encoding="utf-8")
    path = tmp_path / "campaign.html"
    found = pages.of_campaign(ended(folder, word))
    path.write_text(pages.page(found, pages.beside(path)), encoding="utf-8")
    return path


def test_surprises_stand_first_with_what_is_known_of_them(tmp_path: Path) -> None:
    text = written(tmp_path).read_text(encoding="utf-8")
    order = [text.index(word) for word in (
        "<h2>Surprises", "1. server_answers (no answer): no answer", "<h2>Known issues", "2. workers_boot",
        "<h2>Claims by dimensions", "<h2>Expected ways", "<h2>Coverage", "<h2>Time and cost",
    )]  # fmt: skip
    assert order == sorted(order)
    assert html.escape(REGISTRY["server_answers"].definition) in text
    assert "fails in 3 of 5 runs; seen 2 times" in text
    assert "&quot;preload&quot;: true" in text
    assert "&quot;workers&quot;" not in text, "what is at its default tells nothing"
    assert f"forkproof replay &#x27;{tmp_path}/runs/a run&#x27;" in text
    assert text.count('href="./runs/a%20run/timeline.html"') == 1
    assert "with preload_app=False no answer (held in 3 of 3 runs)" in text
    assert "90 servers in 61 s (1.5 a second) for 40 scenarios, seed 7" in text


def test_the_heat_map_counts_what_came_of_each_value(tmp_path: Path) -> None:
    found = pages.of_campaign(ended(tmp_path))
    by_value = found.coverage.by_value
    assert by_value["preload"]["true"] == {"server_answers": {"held": 2, "broken": 1, "unknown": 1, "surprise": 1}}
    assert by_value["preload"]["false"] == {"workers_boot": {"held": 30}}
    assert list(by_value["loop.kind"]) == ["greenlet", "thread"]
    text = "\n".join(pages.document_of(found, lambda run: None))
    assert '<td class="b2 surprise" title="1 broken, 2 held, 1 unknown, 1 surprises">1/3 !1 ?1</td>' in text
    assert '<td class="held" title="0 broken, 30 held, 0 unknown, 0 surprises">0/30</td>' in text


def test_what_is_judged_for_a_loop_counts_for_its_own_values() -> None:
    what = from_dict({"loops": [{"name": "a", "kind": "greenlet"}, {"name": "b"}]})
    found = Campaign()
    found.coverage.add(judged(what, "no_copied_thread", BROKEN, loop="a"))
    kinds = found.coverage.to_dict(found.universe, [])["by_value"]["loop.kind"]
    assert kinds == {"greenlet": {"no_copied_thread": {"broken": 1, "surprise": 1}}}


def test_values_beyond_a_dozen_share_a_row() -> None:
    many = {str(number): {"server_answers": {"held": 1, "broken": int(number == 40)}} for number in range(50)}
    rows = dict(pages._rows(many))
    assert len(rows) == pages.ROWS
    assert "40" in rows
    assert rows["39 other values"] == {"server_answers": {"held": 39, "broken": 0}}


def test_no_timeline_is_linked_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "timeline.html").symlink_to("/etc/passwd")
    link = pages.beside(tmp_path / "campaign.html")
    for bad in (tmp_path / "run", tmp_path / "none", "a\0b", "javascript:alert(1)"):
        assert link(str(bad)) is None


def test_nothing_in_a_report_speaks_for_the_page(tmp_path: Path) -> None:
    bad = BAD.replace("\ud800", "")
    text = written(tmp_path, bad).read_text(encoding="utf-8")
    assert "document.title=&#x27;pwned&#x27;" in text
    assert "<img" not in text
    assert text.count("<script") == 1
    assert "default-src 'none'" in text


def test_the_same_page_from_the_saved_report(run: Run, tmp_path: Path) -> None:
    found = ended(tmp_path / "run")
    (tmp_path / "report.json").write_text(json.dumps(found.to_dict()), encoding="utf-8")
    assert run("campaign", "report.json") == (0, "report.html\n", "")
    there = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert there == pages.page(pages.of_campaign(found), lambda run: None)
    code, out, err = run("campaign", "report.json", "--html", "-")
    assert (code, out, err) == (0, there, "")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": 2}, "schema: Input should be 1"),
        ({"drawn": -1}, "drawn: Input should be greater than or equal to 0"),
        ({"failures": [{}]}, "failures.0.claim: Field required"),
        ({"coverage": None}, "coverage: Input should be an object"),
        ({"seconds": "1"}, "seconds: Input should be a valid number"),
    ],
)
def test_what_is_no_report_is_refused(run: Run, tmp_path: Path, change: dict[str, Any], why: str) -> None:
    plain = {**copy.deepcopy(ended(tmp_path).to_dict()), **change}
    (tmp_path / "report.json").write_text(json.dumps(plain), encoding="utf-8")
    code, out, err = run("campaign", "report.json")
    assert (code, out) == (2, "")
    assert err.startswith(f"forkproof: report.json: is not the report of a campaign: {why}")
    assert err.count("\n") == 1
    assert run("campaign", "missing.json")[2].startswith(
        "forkproof: missing.json: is not the report of a campaign: No s"
    )


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Browser]:
    with browsers.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


class TestInABrowser:
    pytestmark = in_a_browser

    @pytest.fixture
    def opened(self, chromium: browsers.Browser, tmp_path: Path) -> Path:
        path = written(tmp_path)
        chromium.said.clear()
        chromium.asked.clear()
        chromium.size(1200, 900)
        chromium.open(path)
        return path

    def test_it_asks_for_nothing_and_says_nothing(self, chromium: browsers.Browser, opened: Path) -> None:
        chromium.frame()
        assert chromium.said == []
        assert set(chromium.asked) == {opened.as_uri()}
        chromium.js("document.querySelector('a[href*=timeline]').click()")
        until = time.monotonic() + 60
        while chromium.js("document.title") != "that one":
            assert time.monotonic() < until
            time.sleep(0.05)

    def test_it_shows_only_what_broke_where_that_is_asked_for(self, chromium: browsers.Browser, opened: Path) -> None:
        rows = "[...document.querySelectorAll('tr[data-broken]')].filter((row) => row.offsetHeight > 0).length"
        every = chromium.js(rows)
        told = "document.getElementById('rows').textContent"
        assert chromium.js(told) == f"{every} of {every} values shown"
        chromium.js("document.getElementById('broken-only').focus()")
        chromium.key(" ")
        fewer = chromium.js(rows)
        assert 0 < fewer < every
        assert chromium.js(told) == f"{fewer} of {every} values shown"
        assert chromium.js("document.getElementById('broken-only').getAttribute('aria-pressed')") == "true"

    def test_it_fits_a_phone_and_both_schemes(self, chromium: browsers.Browser, opened: Path) -> None:
        colours = []
        for scheme in ("light", "dark"):
            chromium.scheme(scheme)
            colours.append(chromium.js("getComputedStyle(document.body).backgroundColor"))
            for words in (".quiet", "p .bad", "h1", "button", ".heat td.b2", ".heat td.held", ".key .b3", "a", "pre"):
                assert chromium.js(CONTRAST % words) >= 4.5, (scheme, words)
        assert len(set(colours)) == 2
        for width in (320, 390, 1200):
            chromium.size(width, 800)
            assert chromium.js("document.documentElement.scrollWidth") <= width
        assert chromium.js("document.getElementById('broken-only').offsetHeight") >= 24

    def test_a_screen_reader_is_told(self, chromium: browsers.Browser, opened: Path) -> None:
        nodes = chromium.nodes()
        assert not [node for node in nodes if node["focusable"] and not node["name"] and node["role"] in NAMED]
        assert {"main", "table", "banner", "article", "rowheader", "columnheader"} <= {node["role"] for node in nodes}
        names = {node["name"] for node in nodes if node["role"] in ("article", "region", "link")}
        assert {"1. server_answers (no answer): no answer", "Claims by dimensions", "Timeline of this run"} <= names
        levels = chromium.js("[...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]))")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert not chromium.js("[...document.querySelectorAll('[id]')].map((one) => one.id)"
                               ".filter((id, index, all) => all.indexOf(id) !== index)")  # fmt: skip
        # What scrolls can be reached by keys.
        for each in chromium.js("[...document.querySelectorAll('.wide, .heat, pre')].map((one) => one.tabIndex)"):
            assert each == 0

    def test_no_script_of_a_report_runs(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        chromium.open(written(tmp_path, BAD.replace("\ud800", "")))
        assert chromium.js("document.title") == "Campaign of 40 scenarios: 1 surprise"
        assert chromium.js("document.querySelectorAll('img').length") == 0
        assert chromium.js("document.querySelectorAll('script').length") == 1


def test_a_real_surprise_has_its_timeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from forkproof.cli import _campaign_page

    folder = copied(tmp_path)
    found = ended(folder)
    expected = copied(tmp_path / "expected")
    found.expected_breaks[0] = replace(found.expected_breaks[0], folder=expected)
    _campaign_page(found, tmp_path / "campaign.html")
    text = (tmp_path / "campaign.html").read_text(encoding="utf-8")
    assert 'href="./run/timeline.html">Timeline of this run</a>' in text
    assert 'href="./expected/run/timeline.html">quiet_runtime</a>' in text
    assert (expected / "timeline.html").is_file()
    assert "<td class=number>31.4</td>" in text
    assert "<h3>1. " in (folder / "timeline.html").read_text(encoding="utf-8")
    assert "forkproof: other: no timeline was written: other: is not the folder of a run" in capsys.readouterr().err
