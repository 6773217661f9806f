"""Servers that do their worst: each costs its bound, and gets a verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkproof import launch, supervisor
from forkproof.history import History
from forkproof.judge import RunReport
from forkproof.plugin import Forkproof
from forkproof.scenario import Loop, Scenario
from forkproof.verdict import Verdict

pytestmark = pytest.mark.fork

WORSE = """
import os, sys, threading, time
sys.path.insert(0, {payload!r})
RUN = os.environ["FORKPROOF_RUN"]
{worse}
exec(compile(open({serve!r}).read(), {serve!r}, "exec"))
"""
FLOOD = """
def flood():
    line = b"the same again " * 60 + b"\\n"
    for _ in range(20000):
        os.write(2, line * 64)
threading.Thread(target=flood, daemon=True).start()
"""
NO_LINE = "os.write(2, b'x' * (40 << 20))"
FILL = """
with open(os.path.join(RUN, "work", "big"), "wb") as file:
    for _ in range(300):
        file.write(bytes(1 << 20))
"""
BOMB = """
if True:
    if os.fork() == 0:
        while True:
            if os.fork() == 0:
                time.sleep(3600)
time.sleep(0.5)
"""
GARBAGE = """
from forkproof_payload import probe
process = probe.here()
os.write(process.events, bytes(range(256)) * 4000 + b"\\n{}\\n[1]\\n{\\"event\\": 7}\\n" + b"{" * 100000)
for name in os.listdir(RUN + "/ticks"):
    os.truncate(RUN + "/ticks/" + name, 0)
os.mkdir(RUN + "/history/folder.jsonl")
os.symlink("/dev/zero", RUN + "/history/zero.jsonl")
"""
HANG = "time.sleep(3600)"
STOPPED = """
import signal
if os.fork() == 0:
    history = RUN + "/history/supervisor.jsonl"
    while b"window.open" not in open(history, "rb").read():
        time.sleep(0.005)
    for name in filter(str.isdigit, os.listdir("/proc")):
        parent = open("/proc/" + name + "/stat").read().rpartition(")")[2].split()[1]
        if parent == str(os.getppid()) and name != str(os.getpid()):
            os.kill(int(name), signal.SIGSTOP)
    time.sleep(3600)
"""


@pytest.fixture
def worse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, forkproof: Forkproof) -> Callable[[str], RunReport]:
    """Runs a plain scenario whose server does something else beside; the control boot is left alone."""
    usual = launch.command
    what = Scenario(loops=(Loop(name="a"),))

    def command(scenario: Scenario, *others: Any) -> list[str]:
        words = usual(scenario, *others)
        return words if scenario != what else [words[0], str(tmp_path / "worse.py"), *words[2:]]

    def run(code: str) -> RunReport:
        serve = str(launch.PAYLOAD / "serve.py")
        text = WORSE.format(payload=str(launch.PAYLOAD), serve=serve, worse=code)
        (tmp_path / "worse.py").write_text(text)
        monkeypatch.setattr(launch, "command", command)
        # A nest forks the server itself and would run no command.
        monkeypatch.setattr(launch, "nest_for", lambda *_: None)
        return forkproof.run(what).report

    return run


def verdict_of(report: RunReport, claim: str) -> Verdict:
    [found] = [j.finding.verdict for j in report.judgements if j.finding.claim == claim]
    return found


def limits(report: RunReport) -> list[str]:
    return [event["what"] for event in History.read(report.folder / "history").of("limit")]


@pytest.mark.parametrize("code", [FLOOD, NO_LINE], ids=["lines", "one line"])
def test_output_without_end_is_cut(worse: Callable[[str], RunReport], code: str) -> None:
    report = worse(code)
    assert verdict_of(report, "server_answers") is Verdict.HELD
    assert (report.folder / "server.log").stat().st_size <= 2 * supervisor.LIMITS["log"]
    assert limits(report) == ["log"]
    assert (report.folder / "history" / "supervisor.jsonl").stat().st_size < 20 << 20


@pytest.mark.parametrize(("code", "what"), [(FILL, "folder"), (BOMB, "processes")])
def test_a_run_that_takes_too_much_is_ended(worse: Callable[[str], RunReport], code: str, what: str) -> None:
    report = worse(code)
    assert limits(report) == [what]
    assert Verdict.HELD not in {judgement.finding.verdict for judgement in report.judgements}


def test_what_a_damaged_history_tells_is_not_known(worse: Callable[[str], RunReport]) -> None:
    report = worse(GARBAGE)
    assert {judgement.finding.verdict for judgement in report.judgements} == {Verdict.UNKNOWN, Verdict.NOT_APPLICABLE}
    [told] = [j.finding.explanation for j in report.judgements if j.finding.claim == "server_answers"]
    assert told.startswith("every slot of 1 worker answered in 1 window; but the record is damaged: history/")


def test_a_server_that_hangs_in_boot_is_told(worse: Callable[[str], RunReport]) -> None:
    assert verdict_of(worse(HANG), "workers_boot") is Verdict.BROKEN


def test_who_is_stopped_from_outside_breaks_nothing(worse: Callable[[str], RunReport]) -> None:
    report = worse(STOPPED)
    history = History.read(report.folder / "history")
    [worker] = [process.pid for process in history.processes.values() if process.place.role == "worker"]
    assert [event["target"] for event in history.of("halted")] == [worker]
    assert Verdict.BROKEN not in {judgement.finding.verdict for judgement in report.judgements}
    assert verdict_of(report, "server_answers") is Verdict.UNKNOWN
