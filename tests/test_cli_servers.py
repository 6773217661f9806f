"""The command line with real servers: exit codes, what is printed, what is written, what a broken app says."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from schema import validate
from test_cli import Run, run, tmp_path
from test_target import site

from forkproof import target
from forkproof.scenario import from_dict

__all__ = ["run", "tmp_path"]
pytestmark = pytest.mark.fork

HEALTHY: dict[str, Any] = {"loops": [{"name": "listen"}]}
CASE_ZERO: dict[str, Any] = {
    "patches": [{"site": "config_first_line"}],
    "loops": [{"name": "listen", "policy": "once_per_service"}],
    "server": {"worker_class": "gevent", "preload": True},
}


@pytest.fixture(autouse=True)
def _stack() -> None:
    missing = {"gunicorn", "gevent", "flask"} - set(target.find(None).versions)
    if missing:
        pytest.skip(f"this Python has no {', '.join(sorted(missing))}")


def write(folder: Path, plain: dict[str, Any]) -> Path:
    path = folder / "given.json"
    path.write_text(from_dict(plain).to_json(), encoding="utf-8")
    return path


def test_a_healthy_deployment(run: Run, tmp_path: Path) -> None:
    code, out, err = run("run", write(tmp_path, HEALTHY), "--json", "report.json", "--junit", "report.xml")
    assert (code, err) == (0, "")
    assert re.search(r"^claim +loop +verdict +expected +rate", out, re.MULTILINE)
    assert re.search(r"^exactly_one_listener +listen +held +must hold +0/1", out, re.MULTILINE)
    assert out.rstrip().endswith("held  (1 launched)")
    report = json.loads((tmp_path / "report.json").read_bytes())
    validate(report, "run")
    assert report["verdict"] == "held"
    assert report["loops"][0]["defined_at"]
    folder = Path(report["run"])
    assert folder.parent == tmp_path / ".forkproof"
    assert json.loads((folder / "verdict.json").read_bytes()) == report
    assert list(folder.parent.iterdir()) == [folder]
    assert run("recheck", folder)[0] == 0


def test_case_zero(run: Run, tmp_path: Path) -> None:
    code, out, err = run("run", write(tmp_path, CASE_ZERO), "--json", "report.json")
    assert (code, err) == (1, "")
    (loop,) = json.loads((tmp_path / "report.json").read_bytes())["loops"]
    (birth,) = {row["birth"] for row in loop["processes"]}
    assert {(row["role"], row["slot"], row["copied"], row["alive"]) for row in loop["processes"]} == {
        ("arbiter", None, False, None),
        ("worker", 0, True, False),
    }
    told = re.search(r"^no_copied_thread \(listen\) BROKEN: (.*\n.*)", out, re.MULTILINE)
    assert told
    assert birth[:8] in told[1]
    for row in loop["processes"]:
        assert f"{row['role']}{'' if row['slot'] is None else ' 0'} (pid {row['pid']})" in " ".join(told[1].split())
    assert re.search(r"Reproduce with: +forkproof replay ", out)


def test_why(run: Run, tmp_path: Path) -> None:
    options = ("--why", "--repeat", 1, "--budget", 5, "-j", 2, "--claim", "no_copied_thread", "--json", "report.json")
    code, out, _ = run("run", write(tmp_path, CASE_ZERO), *options)
    assert code == 1
    assert re.search(r"^  cause \(\d+ changes, \d+ runs", out, re.MULTILINE)
    report = json.loads((tmp_path / "report.json").read_bytes())
    validate(report, "run")
    [claim] = report["claims"]
    assert claim["cause"]
    assert {trial["verdict"] for trial in claim["cause"]} <= {"held", "broken", "unknown", "not_applicable"}
    [kept] = (tmp_path / ".forkproof").iterdir()
    assert kept.name == Path(json.loads((tmp_path / "report.json").read_bytes())["run"]).name


def test_repeated_from_the_folder_of_a_run(run: Run, tmp_path: Path) -> None:
    assert run("run", write(tmp_path, HEALTHY), "-q")[:2] == (0, "held\n")
    (folder,) = (tmp_path / ".forkproof").iterdir()
    code, out, err = run("replay", folder, "--repeat", 2, "--json", "-")
    assert code == 0
    assert "run 1 of 2: held\nrun 2 of 2: held\n" in err
    assert "held  (2 launched)" in err
    rates = {tuple(claim["rate"]) for claim in json.loads(out)["claims"] if claim["verdict"] == "held"}
    assert rates == {(0, 2)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_was_found_is_told_when_it_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    words = ["run", str(write(tmp_path, HEALTHY)), "--repeat", "100", "--json", "report.json", "--out", "runs"]
    before = signal.signal(number, signal.SIG_DFL)  # what is ignored, as nohup has it, stays so in a child
    try:
        command = subprocess.Popen(
            [sys.executable, "-m", "forkproof", *words],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    finally:
        signal.signal(number, before)
    with command:
        assert command.stderr is not None
        assert command.stderr.readline() == "run 1 of 100: held\n"
        command.send_signal(number)
        out, err = command.communicate(timeout=60)
    assert (command.returncode, err.splitlines()[-1]) == (3, "forkproof: interrupted")
    assert re.search(r"^held  \(\d launched\)$", out, re.MULTILINE)
    assert json.loads((tmp_path / "report.json").read_bytes())["verdict"] == "held"
    assert not list((tmp_path / "runs").glob("campaign-*"))


def test_an_app_that_cannot_be_imported_is_heard(run: Run, tmp_path: Path) -> None:
    """A target in which flask is broken: nothing boots there, so nothing can be decided."""
    folder, packages = site(sys.executable, tmp_path / "venv")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (packages / "flask.py").write_text("raise RuntimeError('flask is broken here')\n", encoding="utf-8")
    code, _, err = run("run", write(tmp_path, HEALTHY), "--target", folder)
    assert code == 3
    assert err.startswith(f"forkproof: no server boots on {folder}/bin/python, not even a sync one without patches.")
    assert "RuntimeError: flask is broken here" in err
    assert f"{packages}/flask.py" in err
    assert "this is a defect of forkproof" not in err
