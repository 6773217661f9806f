"""The command line: what it says of wrong words, its exit codes, and what it leaves standing when nobody reads on."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from histories import created, ran, request, scenario, server, window
from test_judge import run_folder
from test_target import site

from forkproof import __version__, cli
from forkproof.claims import REGISTRY

PLAIN = scenario()
RUN = "scenario.json"
PYTHON = "Give --target the path of a Python"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short one: the path of a server's socket takes 107 bytes."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in an empty folder with a scenario in it; gives exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / RUN).write_text(PLAIN.to_json(), encoding="utf-8")

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


WRONG: list[tuple[str, str]] = [
    ("", "the following arguments are required: COMMAND"),
    ("nope", "invalid choice: 'nope'"),
    ("explore --nope", "unrecognized arguments: --nope"),
    ("run", "the following arguments are required: SCENARIO.json"),
    ("recheck", "the following arguments are required: RUN"),
    ("explore -n 0", "argument -n: '0' is not allowed: give a whole number from 1 on"),
    ("explore -n x", "argument -n: 'x' is not allowed: give a whole number from 1 on"),
    ("explore -j -1", "argument -j: '-1' is not allowed: give a whole number from 1 on"),
    ("explore --time -1", "argument --time: '-1' is not allowed: give seconds above 0"),
    ("explore --time nan", "argument --time: 'nan' is not allowed: give seconds above 0"),
    ("explore --time x", "argument --time: 'x' is not allowed: give seconds above 0"),
    ("explore -n 1 --time 1", "argument --time: not allowed with argument -n"),
    (f"run {RUN} --repeat 0", "argument --repeat: '0' is not allowed: give a whole number from 1 on"),
    (f"run {RUN} --json nowhere/x", "argument --json: 'nowhere/x' is not allowed: there is no folder nowhere"),
    (f"run {RUN} --junit .", "argument --junit: '.' is not allowed: is a folder"),
    (f"run {RUN} --claim nope", f"--claim nope: there is no such claim; there are: {', '.join(REGISTRY)}"),
    ("explore --claim nope", "--claim nope: there is no such claim; there are: exactly_one_listener"),
    ("recheck . --claim nope", "--claim nope: there is no such claim; there are: exactly_one_listener"),
    ("claims nope", "nope: there is no such claim; there are: exactly_one_listener"),
    ("run missing.json", "missing.json: cannot be read: No such file or directory. Give the file of a scenario"),
    ("run words", "words: is not JSON: Expecting value: line 1 column 1"),
    ("run impossible.json", "impossible.json: server.workers: 9 is not allowed: input should be less"),
    ("recheck .", "WHERE: is not the folder of a run: launch.json: No such file or directory"),
    ("recheck missing", "missing: is not the folder of a run: launch.json: No such file or directory"),
    ("replay empty", "empty/scenario.json: cannot be read: No such file or directory"),
    (f"run {RUN} --target missing", f"missing: there is no such file. {PYTHON}"),
    (f"run {RUN} --target empty", f"empty: is a folder without bin/python. {PYTHON}"),
    (f"run {RUN} --target words", "words: cannot be run as a Python: [Errno 13] Permission denied: 'WHERE/words'"),
    ("explore --target /bin/true", f"/bin/true: is no Python that forkproof can test: it printed nothing. {PYTHON}"),
    ("diff --base missing --head python", "missing: there is no such file. Give --base the path of a Python"),
    ("check app:app --redis nonsense", "--redis 'nonsense': unknown kind of Redis; allowed are \"embedded\""),
    (f"run {RUN} --broker nonsense", "--broker 'nonsense': unknown kind of Redis; allowed are \"embedded\""),
    (f"run {RUN} --broker redis://127.0.0.1:1", "no Redis answers at redis://127.0.0.1:1/0: [Errno 111] Connection"),
    ("doctor --broker nonsense", "--broker 'nonsense': unknown kind of Redis; allowed are \"embedded\""),
    ("run twice.json", "twice.json: 'workers' stands twice in one object: 1 and 2"),
    (f"explore --out {'x' * 60}", "which leaves no room for the server's sockets: give a shorter --out"),
    ("explore --out words", "WHERE/words/campaign-"),
    ("explore --out /proc/x", "/proc/x/campaign-"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[words or "nothing" for words, _ in WRONG])
def test_wrong_usage(run: Run, tmp_path: Path, words: str, message: str) -> None:
    (tmp_path / "words").write_text("words", encoding="utf-8")
    (tmp_path / "impossible.json").write_text(json.dumps({"loops": [{"name": "a"}], "server": {"workers": 9}}))
    (tmp_path / "twice.json").write_text('{"loops": [{"name": "a"}], "server": {"workers": 1, "workers": 2}}')
    (tmp_path / "empty").mkdir()
    begun = time.monotonic()
    code, out, err = run(*words.split())
    assert code == 2
    assert not out
    assert message.replace("WHERE", str(tmp_path)) in err
    assert err.startswith("forkproof: ")
    assert err.count("\n") == 1
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("out", ["words", "/proc/x"])
def test_the_scenario_is_not_lost_where_no_folder_can_be_made(run: Run, tmp_path: Path, out: str) -> None:
    (tmp_path / "words").write_text("words", encoding="utf-8")
    code, _, err = run("run", RUN, "--out", out)
    assert code == 2
    assert "cannot be made: " in err
    assert "Give another --out. The scenario was:\n" + PLAIN.to_json() in err


@pytest.mark.fork
def test_a_target_without_a_server(run: Run, tmp_path: Path) -> None:
    folder, _ = site(sys.executable, tmp_path / "venv")
    code, _, err = run("run", RUN, "--target", folder)
    assert code == 3
    told = f"forkproof: {folder}/bin/python: has no gunicorn, which every scenario needs. Install it there"
    assert told in err
    # Not even a broker is started for a campaign of which nothing could come.
    code, _, err = run("explore", "--target", folder, "--out", "made")
    assert (code, told in err, (tmp_path / "made").exists()) == (3, True, False)


def test_a_defect_of_ours(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(arguments: Any) -> int:
        raise ValueError("never thought of")

    monkeypatch.setattr(cli, "_claims", defect)
    code, _, err = run("claims")
    assert code == 4
    assert "ValueError: never thought of" in err
    assert f"forkproof: this is a defect of forkproof {__version__}; please report it" in err


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_claims", interrupted)
    assert run("claims") == (3, "", "forkproof: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["collector", "weak reference", "finalizer"])
def test_no_ctrl_c_is_lost_where_python_drops_what_is_raised(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, where: str
) -> None:
    asked = [number]

    def callback(*arguments: object) -> None:
        if asked:
            signal.raise_signal(asked.pop())

    class Finalized:
        def __del__(self) -> None:
            if where == "finalizer":
                callback()

    def work(arguments: object) -> int:
        one = Finalized()
        kept = weakref.ref(one, callback) if where == "weak reference" else None
        if where == "collector":
            gc.callbacks.append(callback)
            gc.collect()
        del one
        time.sleep(30)
        return 0 if kept is None else 1

    monkeypatch.setattr(cli, "_claims", work)
    try:
        assert run("claims") == (3, "", "forkproof: interrupted\n")
        assert not asked
    finally:
        if callback in gc.callbacks:
            gc.callbacks.remove(callback)


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"forkproof {__version__}\n", "")


def test_claims_are_listed_and_explained(run: Run) -> None:
    code, out, _ = run("claims")
    assert code == 0
    for name in REGISTRY:
        assert f"{name}\n    " in out
    assert run("claims", "no_copied_thread")[1].startswith("# ")


@pytest.mark.fork
@pytest.mark.parametrize(
    ("words", "code"), [((), 0), (("--target", "/bin/true"), 3), (("--broker", "redis://127.0.0.1:1"), 3)]
)
def test_doctor(run: Run, words: tuple[str, ...], code: int) -> None:
    got, out, err = run("doctor", "--json", "-", *words)
    assert got == code
    answers = json.loads(out)["answers"]
    assert {answer["subject"] for answer in answers} >= {"machine", "containment", "target", "broker"}
    # What a target may do without is told as well.
    assert any(answer["needed"] and not answer["good"] for answer in answers) == bool(code)
    assert err.count("NO  ") == sum(not answer["good"] for answer in answers)


# A run that is there already


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    loop = created("aa", 100, t=0.15) + ran("aa", 100) + ran("aa", 110)
    return run_folder(tmp_path / "run", scenario({"policy": "once_per_service"}), server(1), window(), loop, request())


def test_recheck(run: Run, folder: Path, tmp_path: Path) -> None:
    files = ("--json", "report.json", "--junit", "report.xml", "--observations", "lines.jsonl")
    code, out, err = run("recheck", folder, *files)
    assert (code, err) == (1, "")
    [line] = (tmp_path / "lines.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["property"] == "forkproof recheck"
    assert json.loads(line)["metadata"]["run"] == str(folder)
    assert f"forkproof replay {folder}" in out.replace("\n", " ")
    assert json.loads((tmp_path / "report.json").read_bytes())["verdict"] == "broken"
    assert b"<failure" in (tmp_path / "report.xml").read_bytes()


def test_a_folder_is_named_so_that_it_is_found_from_elsewhere(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "a place"
    folder.rename(there)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    _, out, _ = run("recheck", "a place", "--github", "--junit", "report.xml", "--json", "report.json")
    again = f"forkproof replay '{there}'"
    assert f"Reproduce with:  {again}\n" in out
    assert f"%0A{again}\n" in out
    assert f"\n{again}<" in (tmp_path / "report.xml").read_text(encoding="utf-8")
    assert json.loads((there / "verdict.json").read_bytes())["run"] == str(there)


def test_an_option_that_is_for_scenarios_is_refused_for_a_check(run: Run, folder: Path) -> None:
    plan = {"app": "app:app", "config": None, "cwd": "/srv", "health": "/", "policies": {}, "where": {}}
    plan |= {name: [] for name in ("options", "requests", "events", "faults")}
    (folder / "check.json").write_text(json.dumps(plan), encoding="utf-8")
    code, _, err = run("recheck", folder, "--observations", "lines.jsonl")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("forkproof: --observations: ")


def test_json_alone_goes_to_standard_output(run: Run, folder: Path) -> None:
    code, out, err = run("recheck", folder, "--json", "-", "-q", "--claim", "no_copied_thread")
    assert (code, err) == (1, "broken\n")
    assert [claim["name"] for claim in json.loads(out)["claims"]] == ["no_copied_thread"]


@pytest.mark.parametrize("option", ["--json", "--junit", "--observations"])
def test_a_report_that_cannot_be_written(run: Run, folder: Path, option: str) -> None:
    code, out, err = run("recheck", folder, option, "/dev/full")
    assert code == 2
    assert "no_copied_thread" in out
    assert err == "forkproof: /dev/full: cannot be written: No space left on device. Give another file.\n"


def test_what_cannot_be_written_keeps_nothing_else_from_it(run: Run, folder: Path, tmp_path: Path) -> None:
    code, out, err = run("recheck", folder, "--json", "/dev/full", "--junit", "report.xml", "--github")
    assert (code, err.count("\n")) == (2, 1)
    assert "/dev/full: cannot be written" in err
    assert b"<failure" in (tmp_path / "report.xml").read_bytes()
    assert "::error " in out


def test_annotations_and_a_summary_for_github(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "::error" not in run("recheck", folder)[1]
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    (tmp_path / "summary.md").write_text("before\n", encoding="utf-8")
    code, out, _ = run("recheck", folder, "-q")
    assert code == 1
    [line] = [line for line in out.splitlines() if "no_copied_thread" in line]
    assert line.startswith("::error title=forkproof recheck%3A no_copied_thread[listen]::")
    assert line.endswith(f"%0Aforkproof replay {folder}")
    told = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert told.startswith("before\n## forkproof recheck: broken\n")
    assert "| no\\_copied\\_thread\\[listen\\] | " in told
    code, out, err = run("recheck", folder, "--json", "-")
    assert json.loads(out)
    assert "::error " in err


def test_nobody_is_left_to_be_told(folder: Path) -> None:
    words = [sys.executable, "-m", "forkproof", "recheck", str(folder)]
    with open("/dev/full", "wb") as full:
        assert subprocess.run(words, stdout=full, stderr=full, check=False, timeout=60).returncode == 3


@pytest.mark.fork
@pytest.mark.parametrize("file", ["pipe", "/dev/full"])
def test_output_that_nobody_takes(file: str) -> None:
    with subprocess.Popen(["sh", "-c", "true"], stdin=subprocess.PIPE) as reader:
        reader.wait()
        assert reader.stdin is not None
        out: Any = reader.stdin if file == "pipe" else open(file, "wb")  # noqa: SIM115
        done = subprocess.run(
            [sys.executable, "-m", "forkproof", "claims"], stdout=out, stderr=subprocess.PIPE, check=False
        )
    out.close()
    assert done.returncode == 3
    assert done.stderr.startswith(b"forkproof: the output was cut short: ")


def test_a_folder_that_was_moved_names_no_program_to_start(run: Run, folder: Path, tmp_path: Path) -> None:
    asked = {"target": str(tmp_path / "python"), "broker": "embedded"}
    launched = json.loads((folder / "launch.json").read_bytes())
    launched |= {"asked": asked, "environment": {"FORKPROOF_RUN": str(tmp_path / "elsewhere")}}
    (folder / "launch.json").write_text(json.dumps(launched))
    code, _, err = run("replay", folder)
    assert code == 2
    assert "was not made there, so the programs that its launch.json names are not started. Give --target (it" in err
    launched["environment"]["FORKPROOF_RUN"] = str(folder)
    (folder / "launch.json").write_text(json.dumps(launched))
    assert f"{tmp_path}/python: there is no such file" in run("replay", folder)[2]
