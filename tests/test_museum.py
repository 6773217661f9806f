"""The lane of the original report's time: case zero runs there, and the line that the report names is looked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkproof import lanes, scenario
from forkproof.errors import LaneError
from forkproof.lanes import Shelf
from forkproof.original_report import AFTER_FORK
from forkproof.session import Session, open_session
from forkproof.verdict import Verdict

REPORT = Path(__file__).parents[1] / "examples" / "original-report"

# What Python 3.6 does after a fork where another module stands in the place of `threading`, as gevent 1.3's did.
FORKS = """
import os, sys, threading, types
thread = threading.Thread(target=int)  # before the first one Python has nothing to put right after a fork
thread.start()
thread.join()
real, sys.modules["threading"] = threading, types.ModuleType("gevent.threading")
child = os.fork()
if not child:
    sys.stderr.flush()  # before Python 3.9 it is buffered unless it is a terminal
    os._exit(0)
sys.modules["threading"] = real
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.fixture(scope="module")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session on the museum lane; skipped with the reason where it cannot be had."""
    try:
        python = Shelf(lanes.default_folder()).build(lanes.load().lane("museum"))
    except LaneError as error:
        pytest.skip(f"the museum lane cannot be had: {error}")
    with open_session(target_name=str(python), out=tmp_path_factory.mktemp("museum")) as session:
        yield session


@pytest.mark.fork
def test_it_is_the_stack_of_the_time(museum: Session) -> None:
    found = museum.target.to_dict()
    assert (str(found["python"])[:4], str(found["gevent"])[:4], str(found["gunicorn"])[:5]) == ("3.6.", "1.2.", "19.7.")
    assert str(found["gevent-websocket"]).startswith("0.10")


@pytest.mark.fork
@pytest.mark.parametrize("name", ["symptom-a-copy-config-import", "symptom-a-copy-preload"])
def test_case_zero_copies_the_loop(museum: Session, name: str) -> None:
    what = scenario.load(REPORT / f"{name}.json")
    report = museum.run(what)
    copied = report.judgement("no_copied_thread", "show_thread")
    assert copied is not None
    assert copied.finding.verdict is Verdict.BROKEN, copied
    patched = report.judgement("patch_is_what_was_asked", None)
    assert patched is not None
    assert patched.finding.verdict is Verdict.HELD, patched
    assert AFTER_FORK not in (report.folder / "server.log").read_text(errors="replace")


@pytest.mark.fork
def test_thread_false_leaves_no_copy_and_prints_no_line(museum: Session) -> None:
    report = museum.run(scenario.load(REPORT / "symptom-c-thread-false-config-import.json"))
    copied = report.judgement("no_copied_thread", "listen_redis")
    assert copied is not None
    assert copied.finding.verdict is Verdict.HELD, copied
    assert AFTER_FORK not in (report.folder / "server.log").read_text(errors="replace")


@pytest.mark.fork
def test_a_patch_at_interpreter_start_is_seen(museum: Session) -> None:
    loops = [{"name": "a", "start": "post_worker_init"}]
    report = museum.run(scenario.from_dict({"patches": [{"site": "interpreter_start"}], "loops": loops}))
    patched = report.judgement("patch_is_what_was_asked", None)
    assert patched is not None
    assert patched.finding.verdict is Verdict.HELD, patched


@pytest.mark.fork
def test_the_line_that_is_looked_for_is_the_one_that_python_prints(museum: Session) -> None:
    done = subprocess.run([museum.target.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert AFTER_FORK in done.stderr
    later = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert AFTER_FORK not in later.stderr, "from Python 3.7 on nothing is looked up by name"
