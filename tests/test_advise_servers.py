"""`forkproof advise` with real servers: what it finds can be applied, and holds."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from schema import validate
from test_check_servers import APP, _stack, write
from test_cli import Run, run, tmp_path

__all__ = ["_stack", "run", "tmp_path"]
pytestmark = pytest.mark.fork

WORDS = ("advise", "app:app", "--repeat", "1", "--faults", "term", "--json", "advice.json", "--diff", "1.diff")


def contents(place: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in place.iterdir()}


def apply(place: Path, diff: Path) -> None:
    if shutil.which("patch") is None:
        pytest.skip("there is no patch")
    subprocess.run(["patch", "-p1", "-s"], cwd=place, input=diff.read_bytes(), check=True)


def test_a_thread_that_is_in_the_master_alone(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, APP, "workers = 1\nworker_class = 'gthread'\npreload_app = True\n")
    before = contents(place)
    code, out, err = run(*WORDS, "--chdir", place, "--policy", "listen=once_per_worker")
    assert code == 0, out + err
    assert "one at a time" in err  # what will be started and killed is told first
    assert contents(place) == before
    advice = json.loads((tmp_path / "advice.json").read_bytes())
    validate(advice, "advice")
    assert advice["base"]["wrong"] == ["exactly_one_listener:listen:zero"]
    (found,) = advice["found"]
    assert [change["what"] for change in found["changes"]] == ["preload_app"]
    apply(place, tmp_path / "1.diff")
    assert contents(place)["gunicorn.conf.py"].endswith("preload_app = False\n")
    assert run("check", "app:app", "--chdir", place, "--quick", "--policy", "listen=once_per_worker")[0] == 0


def test_a_start_is_moved_where_preload_has_to_stay(run: Run, tmp_path: Path) -> None:
    # Without preload it fails, so that the next cheapest is to start the thread in a hook.
    config = "import os\n\nworkers = 1\npreload_app = True\n"
    app = APP.replace("import threading, time", "import os, threading, time").replace(
        "threading.Thread(",
        "if os.getpid() != int(os.environ['MASTER']): raise OSError('not in the master')\nthreading.Thread(",
    )
    place = write(tmp_path, app, config + "os.environ['MASTER'] = str(os.getpid())\n")
    code, out, err = run(*WORDS, "--chdir", place, "--policy", "listen=once_per_worker")
    assert code == 0, out + err
    (found,) = json.loads((tmp_path / "advice.json").read_bytes())["found"]
    assert [change["after"] for change in found["changes"]] == ["post_worker_init"]
    apply(place, tmp_path / "1.diff")
    assert "def start_listen():" in contents(place)["app.py"]
    code, out, _ = run("check", "app:app", "--chdir", place, "--quick", "--policy", "listen=once_per_worker")
    assert code == 0
    assert "started by hook post_worker_init" in " ".join(out.split())


def test_where_there_is_none_that_is_said(run: Run, tmp_path: Path) -> None:
    app = APP.replace("time.sleep(0.02)", "raise OSError('no route')")
    place = write(tmp_path, app, "workers = 1\n")
    code, out, err = run(*WORDS, "--chdir", place, "--budget", "1")
    assert code == 3, out + err  # none was tried in a second
    assert "none of those that were tried holds" in out
    assert not (tmp_path / "1.diff").exists()
