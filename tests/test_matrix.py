"""The matrix on pretended servers: what is run once and not again, what a cell says, and the pages that tell it."""

from __future__ import annotations

import contextlib
import html.parser
import json
import platform
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forkproof import known_issues, matrix
from forkproof.errors import CouldNotDecide, ForkproofError, LaneError, UsageError
from forkproof.expectation import Expectation
from forkproof.explore import Progress
from forkproof.judge import Judgement, RunReport
from forkproof.lanes import Lane, Shelf
from forkproof.ledger import Ledger
from forkproof.matrix import Done, Matrix, Named
from forkproof.reports import compatibility
from forkproof.scenario import Scenario, from_dict
from forkproof.target import inspect
from forkproof.verdict import Finding, Verdict

LANES = [Lane("one", platform.python_version()), Lane("two", platform.python_version(), ("a==1",))]
HELD, BROKEN = Verdict.HELD, Verdict.BROKEN

Answer = Callable[[Scenario], tuple[Verdict, Expectation]]


def named(kind: str, about: str, **server: Any) -> Named:
    return Named(kind, about, from_dict({"loops": [{"name": "a"}], "server": server}))


LIST = [named("recipe", "thread", workers=2), named("planted", "quiet_runtime", preload=True), named("control", "c")]


@dataclass
class Pretended:
    """Stands for a Session; an environment variable of a run's folder is of no matter here."""

    answer: Answer
    folder: Path
    launched: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    broker = SimpleNamespace(socket="x")

    @property
    def target(self) -> Any:
        return inspect(sys.executable)

    def run(self, what: Scenario) -> RunReport:
        with self._lock:
            self.launched += 1
            run = self.folder / str(self.launched)
        run.mkdir()
        verdict, expected = self.answer(what)
        finding = Finding("quiet_runtime", verdict, None, f"it said so in {self.folder}/x <b>", (), "a way")
        quiet = Judgement(finding, expected, "", rate=(int(verdict is BROKEN), 1))
        return RunReport(what, run, self.target.to_dict(), [quiet], (), (run,))


class Shelved(Shelf):
    """Every lane is there already, and is this Python."""

    def python(self, lane: Lane) -> Path | None:
        return Path(sys.executable)

    def build(self, lane: Lane, *, anew: bool = False) -> Path:
        return Path(sys.executable)


@pytest.fixture(autouse=True)
def launches(monkeypatch: pytest.MonkeyPatch) -> None:
    def require(what: Scenario, *_: object) -> None:
        if what.server.workers == 3:
            raise UsageError(f"{sys.executable}: has no third worker. Take another.")

    monkeypatch.setattr(matrix.launch, "require", require)


def run(
    folder: Path,
    answer: Answer,
    what: list[Named] = LIST,
    lanes: list[Lane] = LANES,
    progress: Progress | None = None,
) -> Done:
    out = folder / "out"
    out.mkdir(exist_ok=True)

    @contextlib.contextmanager
    def opened(lane: Lane, python: str) -> Iterator[Pretended]:
        with_own = out / str(len(list(out.iterdir())))
        with_own.mkdir()
        yield Pretended(answer, with_own)

    ledger = Ledger(folder / "rows.jsonl")
    return Matrix(Shelved(folder), ledger, out=out, jobs=2, progress=progress, opened=opened).run(lanes, what)


def good(what: Scenario) -> tuple[Verdict, Expectation]:
    return (BROKEN, Expectation.MUST_BREAK) if what.server.preload else (HELD, Expectation.MUST_HOLD)


def bad(what: Scenario) -> tuple[Verdict, Expectation]:
    return (BROKEN, Expectation.MUST_HOLD) if what.server.workers == 2 else good(what)


def test_the_list_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "RECIPES", matrix.RECIPES[:2])  # to draw one of each takes a while
    listed = matrix.fixed()
    names = [one.name for one in listed]
    assert len(names) == len(set(names)) >= 2 + 2 * 20
    assert listed == matrix.fixed()


def test_a_second_run_does_only_what_changed(tmp_path: Path) -> None:
    first = run(tmp_path, good)
    assert (first.launched, first.reused, first.exit_code) == (6, 0, 0)
    again = run(tmp_path, good)
    assert (again.launched, again.reused) == (0, 6)
    assert again.rows == first.rows
    more = run(tmp_path, good, [*LIST, named("drawn", "x", workers=4)])
    assert (more.launched, more.reused) == (2, 6)
    changed = run(tmp_path, good, lanes=[LANES[0], Lane("two", platform.python_version(), ("a==2",))])
    assert (changed.launched, changed.reused) == (3, 3)


def test_what_judges_it_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, good)
    monkeypatch.setattr(matrix, "judging", lambda: "other")
    assert run(tmp_path, good).launched == 6


def test_a_surprise_is_run_again_and_fails(tmp_path: Path) -> None:
    done = run(tmp_path, bad, lanes=LANES[:1])
    assert done.launched == 3 + matrix.AGAIN
    [(row, claim)] = done.surprises()
    assert (row["name"], claim["rate"]) == ("recipe/thread", [3, 3])
    assert done.exit_code == 1


class Heard(Progress):
    """What a report is told while it runs."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def phase(self, name: str, total: int | None) -> None:
        self.told.append(f"{name}: {total}")

    def ran(self, report: RunReport) -> None:
        self.told.append(report.verdict.value)

    def found(self, failure: Judgement, report: RunReport) -> None:
        self.told.append(f"surprise: {failure.finding.claim}")

    def problem(self, error: ForkproofError) -> None:
        self.told.append(str(error))


def test_what_runs_is_told_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    run(tmp_path, bad, [LIST[0], LIST[2], named("recipe", "three", workers=3)], LANES[:1], heard)
    assert (heard.told[0], sorted(heard.told[1:])) == ("one: 2", ["broken", "held", "surprise: quiet_runtime"])

    def undecided(what: Scenario) -> tuple[Verdict, Expectation]:
        raise CouldNotDecide("no server boots")

    run(tmp_path, undecided, [named("drawn", "x", workers=4)], LANES[:1], heard := Heard())
    assert heard.told == ["one: 1", "one, drawn/x: no server boots"]

    def build(self: Shelf, lane: Lane, *, anew: bool = False) -> Path:
        raise LaneError("no such Python")

    monkeypatch.setattr(Shelved, "python", lambda self, lane: None)
    monkeypatch.setattr(Shelved, "build", build)
    done = run(tmp_path, good, progress=(heard := Heard()))
    assert heard.told[:2] == ["building one, lane 1 of 2: None", "one: no such Python"]
    assert "one: skipped: no such Python" in compatibility.told(done)


def test_a_known_issue_is_none_and_is_asked_anew_for_old_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, bad, lanes=LANES[:1])
    issue = known_issues.KnownIssue("an-id", "a title", "https://example.org/1", ("quiet_runtime",), {}, {})
    monkeypatch.setattr(known_issues, "load", lambda: (issue,))
    done = run(tmp_path, bad, lanes=LANES[:1])
    assert (done.launched, done.exit_code, list(done.surprises())) == (0, 0, [])
    assert matrix.cell(done.rows.values(), "quiet_runtime").state == "known"
    assert '<a href="https://example.org/1">known issue an-id</a>' in compatibility.page(done)
    assert "[an-id](https://example.org/1)" in compatibility.markdown(done, "x.html")


def test_what_a_lane_lacks_is_told_without_its_folder(tmp_path: Path) -> None:
    done = run(tmp_path, good, [named("recipe", "three", workers=3)])
    assert {row["cannot"] for row in done.rows.values()} == {"has no third worker"}
    assert matrix.cell(done.rows.values(), None).state == "cannot"
    assert done.exit_code == 3, "nothing was decided"


def test_a_run_that_could_not_be_judged_is_done_again(tmp_path: Path) -> None:
    def nothing(what: Scenario) -> tuple[Verdict, Expectation]:
        raise CouldNotDecide("no server boots")

    done = run(tmp_path, nothing)
    assert (done.exit_code, len(done.problems), done.rows) == (3, 6, {})
    assert run(tmp_path, good).launched == 6


def test_ctrl_c_keeps_what_was_run(tmp_path: Path) -> None:
    def interrupted(what: Scenario) -> tuple[Verdict, Expectation]:
        if what.server.preload:
            raise KeyboardInterrupt
        return HELD, Expectation.MUST_HOLD

    done = run(tmp_path, interrupted, [LIST[0], LIST[2], LIST[1]])
    assert done.interrupted
    assert done.exit_code == 3
    again = run(tmp_path, good)
    assert 0 < again.reused + again.launched == 6
    assert again.reused >= 1


def test_a_known_issue_must_show_on_a_lane_that_is_said_to_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = {"loops": [{"name": "a"}], "server": {"workers": 4}}
    issue = known_issues.KnownIssue("an-id", "t", "https://x", ("quiet_runtime",), {}, {}, (1, 1), (), example)
    other = known_issues.KnownIssue(
        "other", "t", "https://x", ("quiet_runtime",), {"python": "<3"}, {}, example=example
    )
    monkeypatch.setattr(known_issues, "load", lambda: (issue, other))
    listed = matrix.shown()
    assert [one.name for one in listed] == ["known/an-id", "known/other"]

    def shows(what: Scenario) -> tuple[Verdict, Expectation]:
        return BROKEN, Expectation.MUST_HOLD

    showed = run(tmp_path, shows, listed, LANES[:1])
    assert (list(showed.rows), showed.launched) == ([("one", "known/an-id")], 1)
    assert (list(showed.stale()), showed.exit_code) == ([], 0)
    assert not showed.missing(), "the other issue is none of this lane's"
    assert "Not complete" not in compatibility.markdown(showed, "x")
    showed.rows.clear()
    showed.rows["one", "other"] = {"judging": "", "seconds": 0.0, "kind": "recipe", "claims": [], "cannot": None}
    assert showed.missing() == [("one", "known/an-id")]
    (tmp_path / "rows.jsonl").unlink()
    gone = run(tmp_path, good, listed, LANES[:1])
    assert [row["about"] for row in gone.stale()] == ["an-id"]
    assert gone.exit_code == 1
    assert gone.launched == matrix.runs_until_sound((1, 1)) > 1, "so often that chance is an unlikely reason"


def claim(verdict: str, **rest: Any) -> dict[str, Any]:
    return {"name": "c", "verdict": verdict, "surprise": False, "known_issue": None, **rest}


def test_the_worst_of_a_cell_is_shown() -> None:
    assert matrix.state(claim("broken"), "planted") == "broken"
    assert matrix.state(claim("broken"), "recipe") == "surprise", "a recipe breaks nothing"
    assert matrix.state(claim("held", surprise=True), "planted") == "surprise"
    assert matrix.state(claim("broken", surprise=True, known_issue="x"), "recipe") == "known"
    rows = [{"kind": "drawn", "cannot": None, "claims": [claim(verdict)]} for verdict in ("held", "broken", "unknown")]
    assert matrix.cell(rows, "c").state == "broken"
    assert matrix.cell(rows, "other").row is None


class Page(html.parser.HTMLParser):
    """The links of a page, and what they can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.foreign: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "href" and value and value.startswith("#"):
                self.links.append(value[1:])
            if name == "id" and value:
                self.ids.append(value)
            if name == "src" or tag in ("link", "script", "img"):
                self.foreign.append(tag)


def test_every_cell_leads_to_a_scenario_and_a_command(tmp_path: Path) -> None:
    done = run(tmp_path, bad)
    text = compatibility.page(done)
    page = Page(text)
    assert page.links
    assert set(page.links) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids)) == 6
    assert not page.foreign
    assert "<b>" not in text
    assert str(tmp_path) not in text + compatibility.markdown(done, "x") + compatibility.laid_out(done.to_dict())
    command = matrix.replay("one", LIST[0].scenario)
    assert command in re.sub("&quot;", '"', re.sub("&#x27;", "'", re.sub("&lt;", "<", text)))
    *words, _, scenario = shlex.split(command)
    assert words == ["forkproof", "run", "-", "--target", "one"]
    assert from_dict(json.loads(scenario)) == LIST[0].scenario
    told = compatibility.markdown(done, "x.html")
    assert "| one | **!** |" in told
    assert "`quiet_runtime` in recipe/thread: broken, expected: must hold; on one (3 of 3), two (3 of 3)" in told


MAP = Path(__file__).parents[1] / "docs" / "compatibility.json"


def test_the_committed_map_is_made_from_the_committed_rows() -> None:
    data = json.loads(MAP.read_text(encoding="utf-8"))
    done = Done.from_dict(data)
    assert len(done.lanes) >= 20
    assert not done.missing(), "every cell was run"
    assert not list(done.stale()), "what is said to be there shows"
    told = MAP.with_suffix(".md").read_text(encoding="utf-8")
    assert told == compatibility.markdown(done, "compatibility.html")
    assert MAP.with_suffix(".html").read_text(encoding="utf-8") == compatibility.page(done)
    for row, claim in done.surprises():
        assert f"`{claim['name']}` in {row['name']}" in told, "what is red is named"
    assert not re.search(r"/(tmp|root|home|work)/", MAP.read_text(encoding="utf-8"))


def test_a_report_is_read_back(tmp_path: Path) -> None:
    done = run(tmp_path, bad)
    assert Done.from_dict(json.loads(compatibility.laid_out(done.to_dict()))).rows == done.rows


# --- rows


def test_a_row_that_was_cut_off_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    Ledger(path).add({"key": "a", "x": 1})
    with path.open("a") as file:
        file.write('{"key": "b", "x"')
    ledger = Ledger(path)
    assert [row["key"] for row in ledger] == ["a"]
    ledger.add({"key": "c"})
    ledger.add({"key": "a", "x": 2})
    again = Ledger(path)
    assert {row["key"]: row.get("x") for row in again} == {"a": 2, "c": None}


@pytest.mark.parametrize("line", ["x", "[]", '{"key": 1}', "{}"])
def test_a_line_that_is_no_row_is_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"key": "a"}}\n{line}\n')
    with pytest.raises(UsageError, match=r"line 2 is no row of ours\. Give --rows another file"):
        Ledger(path)
