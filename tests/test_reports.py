"""Reports: several runs as one, exit codes, JUnit that any reader takes, tables with whatever a server says."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis.internal.observability import TestCaseObservation
from rich.console import Console, Group

from forkproof import files, known_issues
from forkproof.claims import REGISTRY
from forkproof.errors import ForkproofError, LaneError, RunFolderError
from forkproof.expectation import Expectation
from forkproof.explore import Campaign, Failure, Stale
from forkproof.history import Event
from forkproof.judge import Judgement, RunReport, combine
from forkproof.reports import github, junit, terminal
from forkproof.reports.cases import Case, of_campaign, of_run
from forkproof.reports.handlers import Annotations, Json, Observations, Outcome, Stream, Summary, Terminal, Text
from forkproof.reports.observations import observation
from forkproof.reports.progress import CampaignProgress
from forkproof.scenario import from_dict
from forkproof.verdict import Finding, Verdict

PLAIN = from_dict({"loops": [{"name": "a"}]})
VERSIONS = {"python": "3.11.7", "gunicorn": "27.0.1"}
HELD, BROKEN, UNKNOWN, NONE = Verdict.HELD, Verdict.BROKEN, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE
RATE = {HELD: (0, 1), BROKEN: (1, 1), UNKNOWN: (0, 0), NONE: (0, 0)}


def report(*verdicts: Verdict, folder: str = "run", said: str = "so") -> RunReport:
    found = [
        Judgement(Finding(claim, verdict, None, said), Expectation.MUST_HOLD, "", rate=RATE[verdict])
        for claim, verdict in zip(REGISTRY, verdicts, strict=False)
    ]
    return RunReport(PLAIN, Path(folder), VERSIONS, found)


@pytest.mark.parametrize(
    ("verdicts", "worst", "rate"),
    [
        ([HELD], HELD, (0, 1)),
        ([HELD, HELD], HELD, (0, 2)),
        ([HELD, BROKEN, HELD], BROKEN, (1, 3)),
        ([UNKNOWN, HELD], UNKNOWN, (0, 1)),
        ([UNKNOWN, BROKEN], BROKEN, (1, 1)),
        ([NONE, HELD], HELD, (0, 1)),
        ([NONE, NONE], NONE, (0, 0)),
    ],
)
def test_rates(verdicts: list[Verdict], worst: Verdict, rate: tuple[int, int]) -> None:
    combined = combine([report(verdict) for verdict in verdicts])
    assert (combined.judgements[0].finding.verdict, combined.judgements[0].rate) == (worst, rate)
    assert len(combined.folders) == len(verdicts)


def test_the_folder_is_that_of_the_first_broken_run() -> None:
    assert combine([report(HELD), report(BROKEN, folder="b"), report(BROKEN)]).folder == Path("b")


CODES = [([HELD, NONE], 0), ([HELD, BROKEN, UNKNOWN], 1), ([UNKNOWN, HELD], 3), ([NONE], 3)]


@pytest.mark.parametrize(("verdicts", "code"), CODES)
def test_exit_codes(verdicts: list[Verdict], code: int) -> None:
    assert report(*verdicts).exit_code == code


# Narrow terminals


def printed(what: object, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(what)
    return out.getvalue()


def told() -> RunReport:
    """A report with a loop of a long name, and where it ran."""
    rows = [
        {"role": "worker", "slot": 0, "pid": 4123, "birth": "161a6d32ffff", "thread": "_DummyThread", "alive": False,
         "ticks": 1234, "copied": True},
    ]  # fmt: skip
    found = Judgement(Finding("no_socket_shared_across_fork", NONE, "a_listener", "so"), Expectation.MUST_HOLD, "")
    return dataclasses.replace(report(), judgements=[found], loops=[{"name": "a_listener", "processes": rows}])


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_narrow_terminal_has_fewer_columns_and_every_word(width: int) -> None:
    claims, loops = (
        printed(terminal.claims_table(told().judgements), width),
        printed(terminal.loops_table(told()), width),
    )
    for text in (claims, loops):
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
    kept = [["claim", "loop", "verdict"], ["loop", "process", "ticks", "copied"]]
    assert width < 60 or claims.split()[:3] == kept[0]
    assert ("expected" in claims, "rate" in claims) == (width >= 80, width >= 80)
    assert [word for word in kept[1] if word not in loops.splitlines()[0]] == []
    assert ("thread" in loops, "birth" in loops) == (width >= 80, width >= 60)
    assert {"a_listener", "worker", "1234", "copied"} <= set(loops.split())
    if width >= 60:
        assert "no_socket_shared_across_fork  a_listener  not applicable" in claims
    else:  # what a row has stands below each other, and no word is cut
        below = ["no_socket_shared_across_fork", "  loop: a_listener", "  verdict: not applicable"]
        assert claims.splitlines() == below


def test_a_path_is_not_folded_and_no_word_between_colons_is_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout", into := io.StringIO())
    folder = f"/tmp/{'x' * 60}"
    terminal.console().print(terminal.run(report(BROKEN, folder=folder, said="a :watch: b")), crop=False)
    terminal.console().print(terminal.Fitting(("id", "what"), [("a:watch:b", "c" * 30), ("d", ":key:")]))
    text = into.getvalue()
    assert f"  evidence: {folder}\n" in text
    assert [word for word in (":watch:", "a:watch:b", "what: :key:") if word not in text] == []


# What a server says is not ours

ODD = "said \x1b[31m[/red] [bold] <b> & \x00 \ufffe \ud800 \u2028 \U0001f600 ]]>"


def test_junit_is_xml_whatever_a_server_said(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text(junit.text("run", of_run(report(HELD, BROKEN, UNKNOWN, said=ODD)), 86400.0, 1.5), encoding="utf-8")
    suite = ElementTree.parse(path).getroot()[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["3", "1", "0", "1"]
    assert (suite.get("timestamp"), suite.get("time")) == ("1970-01-02T00:00:00", "1.500")
    tags = [["properties"], ["properties", "failure"], ["properties", "skipped"]]
    assert [[child.tag for child in case] for case in suite] == tags
    told = suite[1][1].text or ""
    assert "[/red] [bold] <b> &" in told
    assert "forkproof replay run" in told


def test_junit_names_claim_and_loop() -> None:
    found = Judgement(Finding("workers_boot", HELD, "a", "so"), None, "")
    [case] = of_run(RunReport(PLAIN, Path("run"), VERSIONS, [found]))
    assert (case.name, case.outcome) == ("workers_boot[a]", "passed")


def test_junit_has_the_evidence_and_the_files_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "verdict.json").write_text("{}", encoding="utf-8")
    (folder / "server.log").symlink_to("/etc/passwd")
    event = Event(1.5, 7, 7, "log", {"line": ODD.replace("\ud800", "")})
    finding = Finding("workers_boot", BROKEN, None, "so", (event,), "the arbiter ended")
    found = Judgement(finding, Expectation.MUST_HOLD, "", rate=(2, 3), since="+1.50s, log")
    [case] = ElementTree.fromstring(junit.text("run", of_run(RunReport(PLAIN, folder, VERSIONS, [found])), 0, 0))[0]
    told = {one.get("name"): one.get("value") or "" for one in case[0]}
    assert (told["rate"], told["since"], told["surprise"], told["run"]) == ("2/3", "+1.50s, log", "true", str(folder))
    assert '"event": "log"' in told["evidence"]
    assert [child.tag for child in case] == ["properties", "failure", "system-out"]
    assert case[2].text == f"[[ATTACHMENT|{folder}/verdict.json]]"


def test_a_command_in_a_report_can_be_typed() -> None:
    one = report(BROKEN, folder="/srv/a run")
    campaign = Campaign(failures=[Failure(one.judgements[0], PLAIN, one.folder, (3, 5))])
    for case in (*of_run(one), *of_campaign(campaign)):
        assert shlex.split(case.again) == ["forkproof", "replay", "/srv/a run"]
        assert case.text.endswith(f"\n{case.again}")


def test_a_claim_of_a_campaign_passes_or_fails_by_its_surprises(tmp_path: Path) -> None:
    one, other = report(BROKEN, HELD), report(HELD, BROKEN)
    campaign = Campaign()
    campaign.coverage.add(one)
    campaign.coverage.add(other)
    campaign.failures = [Failure(one.judgements[0], PLAIN, Path("run"), (3, 5))]
    names = list(REGISTRY)
    assert [(case.name, case.outcome) for case in of_campaign(campaign)] == [
        (names[0], "failure"),
        (names[1], "passed"),
    ]
    [failed, _] = of_campaign(campaign)
    assert (failed.properties["rate"], failed.again) == ("3/5", "forkproof replay run")


def test_annotations_say_one_thing_a_line_whatever_a_server_said(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    bad = "so\n::set-output name=a::b\r\n%0A::add-mask::c"
    cases = [
        Case("a,b:c", "failure", bad, file=str(file), line=3),
        Case("d", "failure", "so", file="/etc/passwd", line=1),
    ]
    first, second = github.annotated("check", [*cases, Case("e", "skipped", "so")], tmp_path)
    assert first.startswith("::error file=app.py,line=3,title=forkproof check%3A a%2Cb%3Ac::so%0A::set-output")
    assert "\n" not in first
    assert "\r" not in first
    assert "%250A::add-mask" in first
    assert second == "::error title=forkproof check%3A d::so"
    assert len(list(github.annotated("check", cases * 20, tmp_path))) == github.MOST + 1
    undecided = [Case("e", "skipped", "so")]
    assert [line[:9] for line in github.annotated("run", undecided, tmp_path)] == ["::warning"]
    assert not list(github.annotated("run", [*undecided, Case("f", "passed", "so")], tmp_path))


def test_a_summary_is_one_table_whatever_a_server_said() -> None:
    bad = Case(
        "a",
        "failure",
        "x | y\n<script> [l](javascript:1) `c` \x1b[2J",
        {"rate": "1/2"},
        again="forkproof replay 'a run'",
    )
    rows = [line for line in github.summary("run", "broken", [bad]).splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert rows[2].count(" | ") == 4
    assert "x \\| y" in rows[2]
    assert "<script" not in rows[2]
    assert "\x1b" not in rows[2]
    assert "forkproof replay 'a run'" in rows[2]


def test_a_summary_is_no_longer_than_github_shows(tmp_path: Path) -> None:
    cases = [Case(f"claim {n}", "failure", "<" * 5000) for n in range(100)]
    told = github.summary("run", "broken", cases)
    assert len(told.encode()) < 2**20
    rows = told.count("| claim ")
    assert f"\n\n{100 - rows + 1} more are in what the step printed" in told  # the head of the table is a row, too
    assert "more are" not in github.summary("run", "broken", [Case("a", "failure", "so")] * 300)
    before = tmp_path / "summary.md"
    before.write_text("x" * (2**20 - 3000), encoding="utf-8")
    Summary(before).done(Outcome("run", "broken", "", "", {}, [Case("a", "failure", "so " * 200)] * 100))
    assert before.stat().st_size < 2**20


def obeyed(lines: list[str]) -> list[str]:
    """The lines that GitHub's runner takes for orders: at a line's start, or, as of old, anywhere in it."""
    orders, until = [], ""
    for line in lines:
        found = re.match(r"\s*::([\w-]+)(?: [^:]*)?::(.*)", line) or re.search(r"##\[([\w-]+)[^]]*\](.*)", line)
        if found and until:
            until = "" if found[1] == until else until
        elif found and found[1] == "stop-commands":
            until = found[2]
        elif found:
            orders.append(line)
    assert not until
    return orders


def test_a_server_gives_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    said = f"{'x' * 70} ::error::bad ##[error]worse"
    outcome = Outcome("run", "broken", said, "", {}, [Case("a", "failure", said)])
    assert len(obeyed(["", *said.split(), f"| {said}"])) == 3
    with github.Orders() as orders:
        Stream("run", [Terminal(Console(width=80)), Annotations(Path(), orders)]).done(outcome)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("::error::bad") for line in lines)
    [ours] = obeyed(lines)
    assert ours.startswith("::error title=forkproof run%3A a::")


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o640)
    with pytest.raises(UnicodeEncodeError):
        files.put(path, "x" * 100_000 + "\ud800")
    assert path.read_text(encoding="utf-8") == "old"
    files.put(path, "new")
    assert (path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777) == ("new", 0o640)
    (tmp_path / "link").symlink_to(path)
    files.put(tmp_path / "link", "other")
    assert path.read_text(encoding="utf-8") == "other"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "report.json"]


def test_what_is_observed_fails_where_the_command_does(tmp_path: Path) -> None:
    expected = report(BROKEN)
    expected = dataclasses.replace(
        expected, judgements=[dataclasses.replace(expected.judgements[0], expectation=Expectation.MUST_BREAK)]
    )
    told = {command: observation(command, expected, 0, 0)["status"] for command in ("run", "recheck", "explore")}
    assert told == {"run": "failed", "recheck": "failed", "explore": "passed"}


def test_a_line_of_observations_for_each_run(tmp_path: Path) -> None:
    path = tmp_path / "observed.jsonl"
    handler = Observations(path, "explore")
    for verdict in (HELD, BROKEN, UNKNOWN):
        handler.ran(report(verdict, said=ODD.replace("\ud800", "")))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["status"] for line in lines] == ["passed", "failed", "gave_up"]
    assert len({line["run_start"] for line in lines}) == 1
    assert lines[0]["features"]["worker_class"] == "sync"
    # What Hypothesis itself writes has these, and nothing else: what reads its files reads ours.
    wanted = {one.name for one in dataclasses.fields(TestCaseObservation)}
    assert all(set(line) == wanted for line in lines)


@pytest.mark.parametrize("width", [40, 80])
def test_a_failure_is_plain_and_whole_at_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = io.StringIO()
    said = "a long tale of what went wrong in the server " * 3
    folder = Path("a folder of runs with a name beyond all widths") / "0123456789ab-000001"
    judged = Judgement(
        Finding("exactly_one_listener", BROKEN, None, said), Expectation.MUST_HOLD, "", None, (3, 5), "+1.50s, log"
    )
    found = RunReport(PLAIN, folder, VERSIONS, [judged])
    outcome = Outcome("run", "broken", terminal.run(found), "", {}, [])
    Terminal(Console(file=shown, width=width)).done(outcome)
    lines = shown.getvalue().splitlines()
    assert "\x1b" not in shown.getvalue()
    # Commands and paths are whole on their lines, and nothing that is said is cut.
    commands = [f"Reproduce with:  forkproof replay '{folder}'", f"Cause and cure:  forkproof replay '{folder}' --why"]
    assert [line for line in lines if line.startswith(("Reproduce", "Cause"))] == commands
    assert f"  evidence: {folder}" in lines
    assert max(len(line) for line in lines if line not in (*commands, f"  evidence: {folder}")) <= width
    assert said.replace(" ", "") in "".join("".join(lines).split())
    for told in ("since: +1.50s, log", "failed in 3 of 5 runs", "a surprise: must hold"):
        assert told in " ".join(" ".join(lines).split())
    assert "exactly_one_listener" in shown.getvalue()


def test_what_is_to_be_copied_is_printed_as_it_is() -> None:
    shown = io.StringIO()
    lines = ["-\tvalue = [1, 2]  ", "+" + "x" * 100]
    outcome = Outcome("advise", "held", Group("a word", terminal.Verbatim(lines)), "", {})
    Terminal(Console(file=shown, width=20)).done(outcome)
    assert shown.getvalue() == "\n".join(["a word", *lines, ""])


def test_a_file_that_cannot_be_written_keeps_no_other_from_it(tmp_path: Path) -> None:
    gone, there = tmp_path / "gone" / "map.md", tmp_path / "map.json"
    outcome = Outcome("matrix", "1 lane", "", "", {"rows": [1]}, laid_out=str)
    with pytest.raises(RunFolderError, match="gone"):
        Stream("matrix", [Text(gone, lambda: "text"), Json(there)]).done(outcome)
    assert there.read_text(encoding="utf-8") == "{'rows': [1]}"


@pytest.mark.parametrize("verbosity", [0, 1])
def test_a_report_is_printed_whatever_a_server_said(verbosity: int) -> None:
    shown = io.StringIO()
    Console(file=shown, width=100).print(
        terminal.run(report(HELD, BROKEN, UNKNOWN, NONE, said=ODD), verbosity=verbosity)
    )
    text = shown.getvalue()
    assert "[/red] [bold]" in text
    assert "\x1b" not in text
    assert r"said \x1b[31m" in text
    assert "Reproduce with:  forkproof replay run" in text
    assert "broken  (1 launched)" in text
    assert ("no_dead_listener: not applicable" in text) is False
    assert ("every_message_handled_once: not applicable" in text) == bool(verbosity)


def shown(campaign: Campaign, verbosity: int = 0) -> str:
    into = io.StringIO()
    Console(file=into, width=120).print(terminal.campaign(campaign, seed=1, verbosity=verbosity), crop=False)
    return into.getvalue()


def test_a_known_issue_that_does_not_show_is_named() -> None:
    [issue, *_] = known_issues.load()
    text = shown(Campaign(stale=[Stale(issue, 7)]))
    assert f"known issue {issue.id} does not show: its scenario held in 7 of 7 runs" in text
    assert f"forkproof run {issue.scenario} --repeat 7\n" in text


@pytest.mark.parametrize(
    ("until", "total", "told"),
    [(None, 30, "about 20 s left"), (160.0, None, "about 50 s left"), (160.0, 30, "about 50 s left")],
)
def test_progress_tells_rate_what_was_found_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, until: float | None, total: int | None, told: str
) -> None:
    now = [100.0]
    monkeypatch.setattr("forkproof.reports.progress.time.monotonic", lambda: now[0])
    into = io.StringIO()
    with CampaignProgress(Console(file=into, width=200), until=until) as progress:
        progress.phase("explore", total)
        for _ in range(10):
            now[0] += 1.01
            progress.ran(report(BROKEN))
        progress.found(report(BROKEN).judgements[0], report(BROKEN, folder=str(tmp_path)))
        progress.found(report(BROKEN).judgements[0], report(BROKEN, folder="removed"))
        now[0] += 9.9
        progress.ran(report(UNKNOWN))
    lines = into.getvalue().splitlines()
    assert lines[0] == ("explore: 30 runs" if total else "explore")
    assert lines[1].endswith(f"1.0/s, 0 surprises, 10 broken, 0 unknown, {told}")
    assert lines[2] == f"surprise: exactly_one_listener broken: so ({tmp_path})"
    assert lines[3] == "surprise: exactly_one_listener broken: so"


def test_a_phase_that_ends_by_its_budget_tells_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("forkproof.reports.progress.time.monotonic", lambda: now[0])
    into = io.StringIO()
    with CampaignProgress(Console(file=into, width=200), what="") as progress:
        stream = Stream("run", [progress])
        for name in ("confirm and shrink it", "cause of it"):
            stream.phase(name, None)
            if name == "cause of it":
                stream.until(200.0)
            now[0] += 20.0
            stream.ran(report(BROKEN))
    told = ["confirm and shrink it: 1, 0.1/s, 1 broken, 0 unknown", "cause of it: 1, 0.1/s, 2 broken, 0 unknown"]
    assert into.getvalue().splitlines()[1::2] == [told[0], f"{told[1]}, at most about 60 s left"]


def test_a_terminal_of_no_width_is_written_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    Terminal(terminal.console()).done(Outcome("run", "held", "held", "", {}))
    assert capsys.readouterr().out == "held\n"


def test_a_phase_of_unknown_length_has_no_bar_of_the_one_before() -> None:
    into = io.StringIO()
    shown = Console(file=into, width=200, force_terminal=True, color_system=None, legacy_windows=False)
    with CampaignProgress(shown, what="difference") as progress:
        progress.phase("compare", 2)
        progress.ran(report(BROKEN))
        progress.phase("look into it", None)
        progress.ran(report(BROKEN))
        progress.found(report(BROKEN).judgements[0], report(BROKEN))
        progress.refresh()
    assert "difference: exactly_one_listener broken: so" in into.getvalue()
    drawn = re.search(r"(━*) look into it: 1, [\d.]+/s, 1 difference, 2 broken", into.getvalue())
    assert drawn is not None
    assert len(drawn[1]) == 20  # a bar that moves, and does not fill


def test_a_dumb_terminal_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    into = io.StringIO()
    with CampaignProgress(Console(file=into, width=80, force_terminal=True)) as progress:
        progress.phase("explore", 1)
        progress.problem(LaneError("one: no such Python"))
    assert into.getvalue() == "explore: 1 run\nskipped: one: no such Python\n"


@pytest.mark.parametrize("phase", ["explore", "a simpler scenario for no_socket_shared_across_fork on head"])
@pytest.mark.parametrize("width", [40, 100, 120, 200])
def test_the_bar_fits_a_terminal(width: int, phase: str) -> None:
    into = io.StringIO()
    shown = Console(file=into, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with CampaignProgress(shown) as progress:
        progress.phase(phase, 30)
        progress.ran(report(BROKEN))
        progress.refresh()
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "\n", into.getvalue())
    drawn = [line.rstrip() for line in text.replace("\r", "\n").splitlines()]
    assert max(map(len, drawn)) <= width
    words = [*phase.split(), "1 of 30", "0 surprises", "1 broken", "0 unknown", "about", "left"]
    assert [word for word in words if word not in " ".join(" ".join(drawn).split())] == []
    assert ("━" in into.getvalue()) == (width >= 100)


def test_no_color_takes_colours_away_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout", into := Screen())
    terminal.console().print(terminal.run(report(HELD, BROKEN, UNKNOWN, NONE)))
    codes = {code for part in re.findall(r"\x1b\[([\d;]*)m", into.getvalue()) for code in part.split(";")}
    assert codes == {"0", "1", "2"}  # bold and dim, and their end


class Screen(io.StringIO):
    """A terminal to print to."""

    def isatty(self) -> bool:
        return True


def test_what_is_left_for_quiet_is_the_last_paragraph() -> None:
    text = printed(terminal.campaign(Campaign(), seed=1, quiet=True), 80)
    assert text.startswith("0 scenarios (seed 1)")


def test_quiet_progress_says_nothing() -> None:
    into = io.StringIO()
    with CampaignProgress(Console(file=into, width=80), quiet=True) as progress:
        progress.phase("explore", 30)
        progress.found(report(BROKEN).judgements[0], report(BROKEN))
        progress.problem(ForkproofError("so"))
    assert into.getvalue() == ""
