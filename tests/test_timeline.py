"""Timelines: what is on them, that nothing in a history speaks for the page, that they stay small; and in a browser."""

from __future__ import annotations

import functools
import io
import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import browser as browsers
import pytest
from histories import (
    ARBITER,
    WORKER,
    Events,
    begin,
    created,
    ended,
    event,
    fault,
    gone,
    handled,
    history,
    hook,
    log,
    published,
    request,
    sample,
    seen,
    server,
    window,
    worker,
)
from test_cli import Run, run, tmp_path
from test_judge import CASE_ZERO, COPIED, VERSIONS, run_folder

from forkproof.claims import REGISTRY
from forkproof.judge import Judgement, RunReport
from forkproof.reports import timeline
from forkproof.reports.timeline.picture import ALL, BINS, MARKS, Lane, Picture, of_run
from forkproof.verdict import Finding, Verdict

__all__ = ["run", "tmp_path"]
BAD = "<script>document.title='pwned'</script>\"'><img src=x onerror=alert(1)>\x00\x1b[31m\ud800"
MANY = 100_000


def copied(tmp_path: Path, *more: Events) -> Path:
    """Case zero: a listener of the arbiter's that was copied into the worker."""
    answers = [*seen(1.3, "request.invoke", request=7), *request(1.5, aa=True)]
    return run_folder(
        tmp_path / "run", CASE_ZERO, server(1), window(), COPIED, hook("post_fork", WORKER), answers, *more
    )


def lane(shown: Picture, label: str) -> Lane:
    [found] = [lane for lane in shown.lanes if lane.label.startswith(label)]
    return found


def test_a_lane_for_each_process_and_a_row_for_each_loop(tmp_path: Path) -> None:
    shown = timeline.picture(copied(tmp_path, gone(WORKER, 2.5)))
    assert [lane.label for lane in shown.lanes] == ["from outside", "arbiter · pid 100", "worker 0 · pid 110"]
    arbiter, child = lane(shown, "arbiter"), lane(shown, "worker 0")
    assert child.parent == arbiter.key
    assert (arbiter.lives, child.lives, round(child.end, 3)) == (True, False, 2.5)
    [own] = [row for row in arbiter.rows if row.label == "listen · aa"]
    [copy] = [row for row in child.rows if row.label == "listen · aa · copied by the fork"]
    assert (own.copied, copy.copied) == (False, True)
    assert [mark.kind for mark in own.marks] == ["created", "begun"]
    assert sum(own.bins.values()) == sum(copy.bins.values()) == 50
    assert [mark.text for row in child.rows if row.label == "hooks" for mark in row.marks] == [
        "+0.400 s hook post_fork"
    ]


def test_each_broken_claim_is_marked_at_its_first_bad_event(tmp_path: Path) -> None:
    stack = seen(2.1, "stack", target=f"{WORKER}-{WORKER}", file="stacks/110-110.txt", threads=[["a.py:1 in listen"]])
    shown = timeline.picture(copied(tmp_path, stack))
    first = {broken.claim: broken for broken in shown.breaks}
    assert [broken.number for broken in shown.breaks] == [*range(1, len(shown.breaks) + 1)]
    copy = first["no_copied_thread"]
    assert (copy.t, copy.lanes, copy.row) == (0.6, (f"{WORKER}-{WORKER}",), "listen")
    assert (
        copy.rule
        == "No birth id ticks in a process other than the one that it was created in, unless the policy allows it."
    )
    assert any("loop.begin" in told for told in copy.evidence)
    assert copy.stacks == [("worker 0 (pid 110) at +2.10s, stacks/110-110.txt", ["a.py:1 in listen", ""])]
    page = timeline.page(shown)
    assert f'href="#broken-{copy.number}"' in page
    assert f'id="broken-{copy.number}"' in page


PLACES: list[tuple[Events, list[str], str]] = [
    (request(1.5, aa=True), ["worker 0"], "listen"),
    (
        seen(1.5, "left", processes=[{"pid": pid, "start": pid} for pid in (ARBITER, WORKER)]),
        ["arbiter", "worker 0"],
        "listen",
    ),
    (
        seen(1.5, "orphans", index=0, ended=[], below=[], left=[{"pid": WORKER, "start": WORKER}], seconds=1.0),
        ["worker 0"],
        "listen",
    ),
    (seen(1.5, "resources", target=f"{WORKER}-{WORKER}", fds=9, threads=1, sockets={}), ["worker 0"], "listen"),
    (seen(1.5, "exit", child=WORKER, status=9), ["worker 0"], "listen"),
    (fault("kill_worker", 1.5, target=WORKER), ["worker 0"], "listen"),
    (log(1.5, "what nobody expects"), ["from outside"], "bad lines of the log"),
    (seen(1.5, "request.info", request=9, error="no answer"), ["from outside"], "requests without an answer"),
    (seen(1.5, "numsub.ok", loop="listen", count=2), ["from outside"], ""),
    (window()[-1:] + begin("aa", WORKER), ["worker 0"], "listen"),
    (window()[-1:] + created("gone", 999), ["from outside"], ""),
]


@pytest.mark.parametrize(("evidence", "lanes", "row"), PLACES, ids=lambda one: str(one)[:30])
def test_the_ring_is_where_the_first_bad_event_is(evidence: Events, lanes: list[str], row: str) -> None:
    broken = Finding("no_copied_thread", Verdict.BROKEN, "listen", "so", tuple(evidence), "copied")
    report = RunReport(CASE_ZERO, Path("run"), VERSIONS, [Judgement(broken, None, "")])
    shown = of_run(report, history(server(1), window(), COPIED, evidence), {})
    [found] = shown.breaks
    names = {lane.key: lane.label.partition(" · ")[0] for lane in shown.lanes}
    assert ([names[key] for key in found.lanes], found.row) == (lanes, row)
    drawn = timeline.svg(shown, alone=False)
    assert drawn.count('<circle class="ring"') == len(lanes)
    if row and row != "listen":
        assert f">{row}</text>" in drawn


def test_a_shared_connection_has_a_ring_in_each_process_that_waits() -> None:
    keys = [f"{pid}-{pid}" for pid in (ARBITER, WORKER)]
    waits = seen(1.5, "waits", on={key: {"1": [77]} for key in keys} | {"99-99": {"1": [78]}}, blind={})
    socket = seen(1.2, "socket", inode=77, state="connected")
    broken = Finding("no_socket_shared_across_fork", Verdict.BROKEN, None, "so", (*waits, *socket), "so")
    report = RunReport(CASE_ZERO, Path("run"), VERSIONS, [Judgement(broken, None, "")])
    assert list(of_run(report, history(server(1), window(), waits, socket), {}).breaks[0].lanes) == keys


def test_the_stacks_are_those_of_the_process_that_broke_it(tmp_path: Path) -> None:
    def asked(pid: int) -> Events:
        where = {"target": f"{pid}-{pid}", "file": f"stacks/{pid}-{pid}.txt"}
        return seen(2.1, "stack", **where, threads=[[f"{pid}.py:1 in run"]])

    shown = timeline.picture(copied(tmp_path, asked(ARBITER), asked(WORKER)))
    [copy] = [broken for broken in shown.breaks if broken.claim == "no_copied_thread"]
    assert [calls[0] for _, calls in copy.stacks] == [f"{WORKER}.py:1 in run"]


def test_what_one_hovers_for_stands_there_in_words(tmp_path: Path) -> None:
    page = timeline.page(timeline.picture(copied(tmp_path, log(2.3, "[110] [ERROR] so"), published(1.2, "listen-1"))))
    shown, words = page.split("What happened, in words")
    for text in ("hook post_fork", "listen created as", "takes its first turn", "answered after",
                 "published listen-1", "[ERROR] so", "window 0 after boot"):  # fmt: skip
        assert text in words, text
    assert "<td>worker 0 · pid 110</td><td>arbiter · pid 100</td>" in shown


def test_what_was_found_patched(tmp_path: Path) -> None:
    def found(pid: int, *names: str) -> Events:
        return [event(0.9, pid, "patched", when="look", keywords=["socket", "sys", *names], off=["sys"], names={})]

    nothing = event(0.9, ARBITER, "patched", when="look", keywords=[], off=[], names={})
    shown = timeline.picture(copied(tmp_path, found(WORKER, "thread"), [nothing]))
    told = {
        one.label: [mark.text for row in one.rows for mark in row.marks if mark.kind == "patch"] for one in shown.lanes
    }
    assert told["worker 0 · pid 110"] == ["+0.900 s found patched: socket, thread"]
    assert told["arbiter · pid 100"] == []


def test_the_svg_tells_what_broke_where_nobody_can_hover(tmp_path: Path) -> None:
    shown = timeline.picture(copied(tmp_path))
    drawn = ElementTree.fromstring(timeline.svg(shown, alone=True))
    assert (drawn.get("width"), float(drawn.get("height") or 0) > 300) == ("1000", True)
    told = "\n".join("".join(text.itertext()) for text in drawn.iter("{http://www.w3.org/2000/svg}text"))
    for broken in shown.breaks:
        assert f"{broken.number}. {broken.claim}" in told
        assert broken.rule[:100] in told
        assert broken.explanation[:60] in told
    for word in ("Timeline of Run run: broken", "gunicorn", "turns of a copied loop", "its first bad event"):
        assert word in told
    bottoms = [float(text.get("y") or 0) for text in drawn.findall("{http://www.w3.org/2000/svg}text")]
    assert max(bottoms) < float(drawn.get("height") or 0)


def test_what_is_long_is_cut_and_told_whole_below() -> None:
    long, wide = "n" * 300, "監" * 400
    events = history(server(1), window(), created("bb", WORKER, loop=long), begin("bb", WORKER, loop=long))
    broken = [Finding("no_copied_thread", Verdict.BROKEN, long, wide, tuple(COPIED[-1:]), "so") for _ in range(30)]
    shown = of_run(
        RunReport(CASE_ZERO, Path("run"), VERSIONS, [Judgement(one, None, "") for one in broken]), events, {}
    )
    assert long in timeline.page(shown)
    drawn = ElementTree.fromstring(timeline.svg(shown, alone=True))
    texts = ["".join(text.itertext()) for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "and 10 broken claims more" in texts
    assert [text for text in texts if text.startswith("監") and len(text) > 80] == []


def test_names_of_windows_and_faults_stand_apart_and_inside() -> None:
    many_windows = [one for n in range(9) for one in (
        *seen(1 + n / 100, "window.open", window=n, after="kill -9 of a worker", healed=True),
        *seen(1.005 + n / 100, "window.close", window=n, turns=60, control=60),
    )]  # fmt: skip
    report = RunReport(CASE_ZERO, Path("run"), VERSIONS, [])
    text = timeline.svg(of_run(report, history(server(1), many_windows), {}), alone=True)
    places = [(float(x), name) for x, name in re.findall(r'class="band"[^>]* x="([\d.]+)" y="27">([^<]*)<', text)]
    assert len(places) == 1
    assert all(x + 6 * len(name) < 1000 for x, name in places)


def test_what_is_done_and_what_comes_of_it(tmp_path: Path) -> None:
    done = [
        *seen(2.1, "fault.invoke", fault="kill_worker", index=0),
        *fault("kill_worker", 2.12, target=WORKER),
        *seen(2.9, "fault.healed", fault="kill_worker", index=0, healed=True),
        *worker(0, pid=120, t=2.4),
        *seen(2.2, "request.invoke", request=900),
        *seen(2.6, "request.info", request=900, error="no answer within 0.4 s"),
        *published(1.2, "listen-1"),
        *handled(1.25, "listen-1", "aa", WORKER),
        *ended("aa", WORKER, 2.12, error="KeyError()"),
        *log(2.3, "[110] [ERROR] so"),
        *log(2.3, "[110] [INFO] so"),
    ]
    shown = timeline.picture(copied(tmp_path, done, window(1)))
    [band] = shown.faults
    assert (round(band.t, 3), round(band.end, 3)) == (2.1, 2.9)
    assert [(round(span.t), round(span.end)) for span in shown.windows] == [(1, 2), (3, 4)]
    outside = {row.label: row for row in lane(shown, "from outside").rows}
    assert [span.kind for span in outside["requests without an answer"].spans] == ["unanswered"]
    assert [mark.text for mark in outside["bad lines of the log"].marks] == ["+2.300 s [110] [ERROR] so"]
    assert "+1.200 s published listen-1, 1 receivers" in [mark.text for mark in outside["messages and signals"].marks]
    kinds = [mark.kind for row in lane(shown, "worker 0 · pid 110").rows for mark in row.marks]
    assert {"message", "ended"} <= set(kinds)
    [answered] = [span for row in lane(shown, "worker 0 · pid 110").rows for span in row.spans]
    assert answered.kind == "request"


def hostile(tmp_path: Path) -> Path:
    bad = BAD.replace("\ud800", "")  # which a history does not have
    return copied(
        tmp_path,
        hook(bad, WORKER),
        log(1.4, f"[ERROR] {bad}"),
        created("bb", WORKER, loop=bad),
        begin("bb", WORKER, loop=bad),
        seen(1.6, "request.info", request=901, error=bad),
        seen(1.7, "fault.invoke", fault=bad, index=0),
        [event(0.4, WORKER, "patch", site=bad, flags={bad: True})],
    )


def test_nothing_in_a_history_speaks_for_the_page(tmp_path: Path) -> None:
    shown = timeline.picture(hostile(tmp_path))
    texts = (timeline.page(shown), timeline.svg(shown, alone=True))
    for text in texts:
        assert "document.title=&#x27;pwned&#x27;" in text
        assert "<img" not in text
        assert "<script>document" not in text
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", text)
    ElementTree.fromstring(texts[1])
    assert timeline.svg(shown, alone=True).count("<script") == 0
    assert texts[0].count("<script") == 1
    assert texts[0].replace("http://www.w3.org/2000/svg", "").count("://") == 0
    assert "default-src 'none'" in texts[0]
    with pytest.raises(ElementTree.ParseError):  # the check can fail
        ElementTree.fromstring(f"<svg>{BAD[:-1]}</svg>")


@functools.cache
def many() -> Picture:
    """A run of a hundred thousand events; what to judge it takes is another matter."""
    groups: list[Events] = [server(1), window(), COPIED]
    for number in range(MANY // 5):
        t = 1 + number * 0.001
        groups.append(published(t, f"listen-{number}"))
        groups.append(handled(t + 0.0002, f"listen-{number}", "aa", WORKER))
        groups.append(sample(t + 0.0003, WORKER, aa=50 + number))
        groups.append(seen(t + 0.0004, "request.invoke", request=number))
        answer = request(t + 0.0006, aa=False)[0]
        groups.append([event(answer.t, answer.pid, "request.ok", **{**answer.fields, "request": number})])
    broken = Finding("no_copied_thread", Verdict.BROKEN, "listen", "so", tuple(COPIED[-1:]), "copied")
    report = RunReport(CASE_ZERO, Path("run"), VERSIONS, [Judgement(broken, None, "")])
    return of_run(report, history(*groups), {})


def test_a_long_history_is_a_small_page() -> None:
    shown = many()
    assert shown.events > MANY
    for row in [row for lane in shown.lanes for row in lane.rows]:
        assert len(row.marks) <= 4 * MARKS[0]
        assert len(row.spans) <= 3 * MARKS[0]
        assert len(row.bins) <= BINS
    assert sum(sum(row.bins.values()) for row in lane(shown, "worker 0").rows) == 50 + MANY // 5 - 1
    assert len(timeline.page(shown)) < 5_000_000
    assert len(timeline.svg(shown, alone=True)) < 5_000_000


def test_many_rows_share_what_a_browser_can_draw() -> None:
    groups: list[Events] = [server(8), window()]
    births = [(f"{slot * 16 + n + 1:x}", WORKER + slot) for slot in range(8) for n in range(6)]
    for birth, pid in births:
        groups += [created(birth, pid, loop=f"loop_{birth}"), begin(birth, pid, loop=f"loop_{birth}")]
    for turn in range(1000):
        groups += [handled(1 + turn / 1000, f"m-{turn}", birth, pid) for birth, pid in births]
    shown = of_run(RunReport(CASE_ZERO, Path("run"), VERSIONS, []), history(*groups), {})
    rows = [row for one in shown.lanes for row in one.rows if row.label.startswith("loop_")]
    assert len(rows) == len(births)
    assert sum(len(row.marks) for row in rows) <= ALL
    for row in rows:
        assert sum(1 + int((re.findall(r"and (\d+) more", mark.text) or [0])[0]) for mark in row.marks) == 1002
        assert [mark.t for mark in row.marks] == sorted(mark.t for mark in row.marks)
    assert len(timeline.page(shown)) < 5_000_000


def crowded() -> Picture:
    """A run in which every claim broke at one moment."""
    broken = [Finding(claim, Verdict.BROKEN, None, "so", tuple(COPIED[-1:]), "so") for claim in REGISTRY]
    report = RunReport(CASE_ZERO, Path("run"), VERSIONS, [Judgement(one, None, "") for one in broken])
    return of_run(report, history(server(1), window(), COPIED), {})


def test_no_number_hides_another_and_no_line_crosses_out_a_name() -> None:
    text = timeline.svg(crowded(), alone=True)
    places = re.findall(r'class="flag" transform="translate\((-?[\d.]+) ([\d.]+)\)', text)
    assert len(set(places)) == len(REGISTRY)
    for one, other in itertools.combinations([(float(x), float(y)) for x, y in places], 2):
        assert max(abs(one[0] - other[0]), abs(one[1] - other[1])) >= 18
    assert text.rindex('class="line"') < text.index('class="flag" transform')
    assert text.rindex('class="line"') < text.index('<text class="process"')


def test_the_command(run: Run, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    assert run("timeline", folder) == (0, f"{folder}/timeline.html\n", "")
    page = (folder / "timeline.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert run("timeline", folder, "--svg", "a.svg") == (0, "a.svg\n", "")
    ElementTree.parse(tmp_path / "a.svg")
    code, out, err = run("timeline", folder, "--html", "a.html", "--svg", "-")
    assert (code, err) == (0, "a.html\n")
    ElementTree.parse(io.StringIO(out))
    assert run("timeline", tmp_path)[0] == 2
    assert run("timeline", folder, "--html", "nowhere/a.html")[0] == 2
    (folder / "timeline.html").unlink()
    (tmp_path / "kept").write_text("mine", encoding="utf-8")
    (folder / "timeline.html").symlink_to(tmp_path / "kept")
    assert run("timeline", folder)[0] == 0
    assert (tmp_path / "kept").read_text(encoding="utf-8") == "mine"


def test_a_run_that_never_booted_has_one_too(tmp_path: Path) -> None:
    shown = timeline.picture(run_folder(tmp_path / "run", CASE_ZERO, seen(0.0, "launch", command=[], arbiter=1)))
    assert [lane.label for lane in shown.lanes] == ["from outside"]
    ElementTree.fromstring(timeline.svg(shown, alone=True))
    assert "in words" not in timeline.page(shown)


def test_no_time_of_the_axis_is_cut(tmp_path: Path) -> None:
    for until in (2.0, 2.01, 2.5):
        end = seen(until, "sample", turn=0, control=0, ticks={}, gone=[])
        text = timeline.svg(
            of_run(RunReport(CASE_ZERO, Path("run"), VERSIONS, []), history(server(1), end), {}), alone=True
        )
        times = re.findall(r'<text x="([\d.]+)" y="11">([^<]*)</text>', text)
        assert len(times) > 2
        assert max(float(x) + 6 * len(told) for x, told in times) < 1000, times


# --- in a browser

in_a_browser = [
    pytest.mark.fork,
    pytest.mark.skipif(browsers.BINARY is None, reason="there is no Chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Browser]:
    with browsers.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def opened(chromium: browsers.Browser, tmp_path: Path, shown: Path | Picture) -> float:
    path = tmp_path / "timeline.html"
    found = shown if isinstance(shown, Picture) else timeline.picture(shown)
    path.write_text(timeline.page(found), encoding="utf-8")
    chromium.said.clear()
    chromium.asked.clear()
    chromium.size(1200, 900)
    return chromium.open(path)


def quiet(chromium: browsers.Browser, tmp_path: Path) -> None:
    """Nothing was said on the console, and nothing asked for but the file itself."""
    chromium.frame()
    assert chromium.said == []
    assert set(chromium.asked) == {(tmp_path / "timeline.html").as_uri()}


FIRST_MARK = "JSON.stringify(document.querySelector('.mark.hook').getBoundingClientRect())"
TIP = "(() => { const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent; })()"
RANGE = "document.getElementById('range').textContent"


class TestInABrowser:
    pytestmark = in_a_browser

    def test_it_is_drawn_zoomed_and_moved_by_keys(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        opened(chromium, tmp_path, copied(tmp_path))
        before, all_of_it = json.loads(chromium.js(FIRST_MARK)), chromium.js(RANGE)
        assert before["width"] > 3
        chromium.js("document.getElementById('plot').focus()")
        chromium.key("+")
        assert chromium.js(RANGE) != all_of_it
        zoomed = chromium.js(RANGE)
        chromium.key("ArrowLeft")
        assert chromium.js(RANGE) != zoomed
        chromium.key("0")
        assert chromium.js(RANGE) == all_of_it
        assert json.loads(chromium.js(FIRST_MARK)) == before
        chromium.js("document.querySelector('button[data-key=\"+\"]').click()")
        chromium.frame()
        assert chromium.js(RANGE) == zoomed
        chromium.js("document.querySelector('[data-show]').click()")
        chromium.frame()
        assert chromium.js(RANGE) not in (zoomed, all_of_it)
        quiet(chromium, tmp_path)

    def test_it_tells_what_a_mark_is(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        opened(chromium, tmp_path, copied(tmp_path))
        place = json.loads(chromium.js(FIRST_MARK))
        chromium.mouse(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        assert chromium.js(TIP) == "+0.400 s hook post_fork"
        chromium.mouse(5, 5)
        assert chromium.js(TIP) == ""
        chromium.js("document.querySelector('a.break').focus()")
        assert "broken, first bad event at" in chromium.js(TIP)
        chromium.key("Escape")
        assert chromium.js(TIP) == ""

    def test_a_finger_is_told_what_a_mark_is(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        opened(chromium, tmp_path, copied(tmp_path))
        chromium.size(375, 800)
        chromium.call("Emulation.setTouchEmulationEnabled", enabled=True)
        try:
            chromium.js("document.querySelector('.mark.hook').scrollIntoView({block: 'center'})")
            place = json.loads(chromium.js(FIRST_MARK))
            for aside in (0, 8):  # a finger is broader than a mark
                at = {"x": place["x"] + place["width"] / 2 - aside, "y": place["y"] + place["height"] / 2}
                chromium.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[at])
                chromium.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
                chromium.frame()
                assert chromium.js(TIP) == "+0.400 s hook post_fork", aside
                chromium.key("Escape")
                assert chromium.js(TIP) == ""
        finally:
            chromium.call("Emulation.setTouchEmulationEnabled", enabled=False)

    def test_the_first_bad_event_is_shown_however_long_the_page(
        self, chromium: browsers.Browser, tmp_path: Path
    ) -> None:
        others = [one for n in range(30) for one in created(f"{n:x}", ARBITER, loop=f"other_{n}")]
        opened(chromium, tmp_path, copied(tmp_path, others))
        chromium.size(1200, 400)
        count = chromium.js("document.querySelectorAll('[data-show]').length")
        assert count > 1
        for index in range(count):
            chromium.js(f"document.querySelectorAll('[data-show]')[{index}].click()")
            chromium.frame()
            ring = f"document.querySelector('[data-line=\"{index + 1}\"] circle').getBoundingClientRect()"
            place = json.loads(chromium.js(f"JSON.stringify({ring})"))
            assert 0 <= place["y"] <= 390
            assert 0 <= place["x"] <= 1200
        assert chromium.js("document.activeElement.id") == "plot"

    def test_no_name_of_a_window_or_fault_or_time_is_cut(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        late = [
            *seen(2.9, "fault.invoke", fault="kill_worker", index=0),
            *seen(3.0, "sample", turn=0, control=0, ticks={}, gone=[]),
        ]
        opened(chromium, tmp_path, copied(tmp_path, late))
        shown = "[...document.querySelectorAll('#plot text.band')].filter((one) => one.style.display === '')"
        for width in (375, 1200):
            chromium.size(width, 800)
            ends = chromium.js(f"{shown}.map((one) => one.getBoundingClientRect().right)")
            assert len(ends) > 1
            assert max(ends) <= width
            box = chromium.js("document.getElementById('plot').getBoundingClientRect().right")
            times = chromium.js(
                "[...document.querySelectorAll('.axis text')].map((one) => one.getBoundingClientRect().right)"
            )
            assert max(times) <= box

    def test_it_is_printed_on_white(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        opened(chromium, tmp_path, copied(tmp_path))
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        chromium.call("Emulation.setEmulatedMedia", media="print", features=dark)
        try:
            assert chromium.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert chromium.js("document.querySelector('details pre').checkVisibility({contentVisibilityAuto: true})")
        finally:
            chromium.call("Emulation.setEmulatedMedia", media="", features=[])

    def test_it_fits_a_phone_and_both_schemes(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        opened(chromium, tmp_path, copied(tmp_path))
        colours = []
        for scheme in ("light", "dark"):
            chromium.scheme(scheme)
            colours.append(chromium.js("getComputedStyle(document.body).backgroundColor"))
            for words in (".quiet", "p .bad", "h1", "button"):
                assert chromium.js(CONTRAST % words) >= 4.5, (scheme, words)
        assert len(set(colours)) == 2
        assert chromium.js(CONTRAST.replace("fore = ", "fore = back || ") % "h1") == 1  # the check can fail
        for width in (320, 390, 1200):
            chromium.size(width, 800)
            assert chromium.js("document.documentElement.scrollWidth") <= width
            assert chromium.js("document.querySelector('#plot svg').viewBox.baseVal.width") <= width
            assert chromium.js("Math.min(...[...document.querySelectorAll('#plot text.row')]"
                               ".map((text) => text.getBoundingClientRect().height))") >= 9  # fmt: skip
        for button in chromium.js("[...document.querySelectorAll('button')].map((one) => one.offsetHeight)"):
            assert button >= 24
        quiet(chromium, tmp_path)

    def test_numbers_of_claims_that_broke_at_once_stand_apart(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        opened(chromium, tmp_path, crowded())
        for width in (375, 1200):
            chromium.size(width, 800)
            boxes = json.loads(chromium.js("JSON.stringify([...document.querySelectorAll('#plot circle.flag')]"
                                           ".map((one) => one.getBoundingClientRect()))"))  # fmt: skip
            assert len(boxes) == len(REGISTRY)
            for one, other in itertools.combinations(boxes, 2):
                assert max(abs(one["x"] - other["x"]), abs(one["y"] - other["y"])) > 16, width
            assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes), width
        quiet(chromium, tmp_path)

    def test_a_screen_reader_is_told(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        opened(chromium, tmp_path, copied(tmp_path))
        nodes = chromium.nodes()
        nameless = [node for node in nodes if node["focusable"] and not node["name"] and node["role"] in NAMED]
        assert not nameless
        assert sum(node["role"] == "button" and node["focusable"] for node in nodes) > 5
        links = [node["name"] for node in nodes if node["role"] == "link"]
        assert any(
            re.match(r"\d+: no_copied_thread \(listen\) broken, first bad event at \+0.600 s", link) for link in links
        )
        assert {"main", "table", "banner"} <= {node["role"] for node in nodes}
        assert chromium.js("document.documentElement.lang") == "en"
        levels = chromium.js("[...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]))")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert not chromium.js("[...document.querySelectorAll('[id]')].map((one) => one.id)"
                               ".filter((id, index, all) => all.indexOf(id) !== index)")  # fmt: skip

    def test_no_script_of_a_history_runs(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        opened(chromium, tmp_path, hostile(tmp_path))
        assert chromium.js("document.title") == "Run run"
        assert chromium.js("document.querySelectorAll('img').length") == 0
        assert chromium.js("document.querySelectorAll('script').length") == 1
        quiet(chromium, tmp_path)

    def test_a_hundred_thousand_events_open_soon(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        small = opened(chromium, tmp_path, copied(tmp_path / "small"))
        large = opened(chromium, tmp_path, many())
        # Two seconds on an idle machine, of which the small page is the measure.
        assert large < 2 + 5 * small
        begun = time.monotonic()
        chromium.js("document.getElementById('plot').focus()")
        for key in ("+", "+", "ArrowRight", "-"):
            chromium.key(key)
        assert time.monotonic() - begun < 2 + 5 * small
        quiet(chromium, tmp_path)

    def test_the_svg_shows_by_itself(self, chromium: browsers.Browser, tmp_path: Path) -> None:
        path = tmp_path / "timeline.svg"
        path.write_text(timeline.svg(timeline.picture(copied(tmp_path)), alone=True), encoding="utf-8")
        chromium.said.clear()
        chromium.open(path)
        assert chromium.js("document.querySelectorAll('.mark').length") > 2
        assert chromium.js("document.querySelector('.break title').textContent").startswith("1: ")
        assert chromium.said == []


NAMED = ("button", "link", "region", "image", "img")

CONTRAST = """(() => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255)
    .map((one) => one <= .03928 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4)
    .reduce((sum, one, index) => sum + one * [.2126, .7152, .0722][index], 0);
  const one = document.querySelector("%s");
  let under = one;
  const clear = (one) => getComputedStyle(one).backgroundColor === "rgba(0, 0, 0, 0)";
  while (under.parentElement && clear(under)) under = under.parentElement;
  const back = getComputedStyle(under).backgroundColor, fore = getComputedStyle(one).color;
  const [a, b] = [light(back), light(fore)];
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
})()"""
"""The contrast of the text of an element with what is under it, by WCAG 2."""
