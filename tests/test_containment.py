"""Whoever of us is killed, and however: no process, no port, nothing outside the run folder is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkproof import containment
from forkproof.containment import command_of
from forkproof.scenario import Loop, LoopStart, Policy, Scenario, Server
from forkproof.session import open_session
from forkproof.verdict import Verdict

pytestmark = pytest.mark.fork

LONG = Scenario(
    loops=(
        # A child that outlives its parent, and a thread that keeps the arbiter from ending by itself.
        Loop(name="child", kind="process", start=LoopStart.POST_WORKER_INIT, daemon=False, policy=Policy.BEST_EFFORT),
        Loop(name="stays", start=LoopStart.ON_STARTING, daemon=False, yields={"seconds": 0.5}),
    ),
    server=Server(workers=2),
)  # fmt: skip
RUN = "import sys; from forkproof.cli import main; main(sys.argv[1:])"
RUN_BARE = "from forkproof import launch; launch.namespace = lambda: (); " + RUN


def until(condition: Callable[[], object], seconds: float = 30) -> bool:
    """Whether it came true before the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def ours(mark: str) -> list[str]:
    """The processes, on the whole machine, that carry the run folder in their command or environment."""
    return [f"{stat.pid} {containment.command_of(stat.pid)}" for stat in containment.carrying(mark)]


def listens(port: int) -> bool:
    """Whether anybody on this machine listens on a TCP port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


@contextlib.contextmanager
def running(code: str, folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path, int]]:
    """A command in the middle of a run: its process, the run folder, the server's port."""
    scenario = folder / "scenario.json"
    scenario.write_text(LONG.to_json())
    out = folder / "out"
    command = [sys.executable, "-c", code, "run", str(scenario), "--out", str(out), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            histories: list[Path] = []

            def opened() -> bool:
                histories[:] = out.glob("*/history/supervisor.jsonl")
                return any('"window.open"' in history.read_text() for history in histories)

            assert until(opened), "the server did not boot"
            run = histories[0].parent.parent
            yield process, run, _port(run)
        finally:
            process.kill()


def stands_in(pid: int) -> Path | None:
    """The folder in which a process stands."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cwd").readlink()
    return None


def _port(run: Path) -> int:
    for history in (run / "history").glob("*.jsonl"):
        for line in history.read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "listening":
                return int(event["address"][1])
    raise AssertionError("the server never listened")


@pytest.mark.parametrize("code", [RUN, RUN_BARE], ids=["namespace", "bare"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_command_is_ended_in_the_middle_of_a_run(number: int, code: str, short_folder: Path) -> None:
    if code is RUN and not containment.namespace_prefix():
        pytest.skip("this machine allows no pid namespace")
    with running(code, short_folder) as (process, _, port):
        assert listens(port)
        process.send_signal(number)
        process.wait(timeout=30)
        assert until(lambda: not ours(str(short_folder))), ours(str(short_folder))
        assert not listens(port)


def test_the_supervisor_is_killed(short_folder: Path) -> None:
    if not containment.namespace_prefix():
        pytest.skip("this machine allows no pid namespace")
    with running(RUN, short_folder) as (process, run, port):
        supervisors = [stat.pid for stat in containment.carrying(str(run)) if stands_in(stat.pid) == run / "work"]
        supervisors = [pid for pid in supervisors if "forkproof.nursery" in containment.command_of(pid)]
        assert len(supervisors) == 1, supervisors
        os.kill(supervisors[0], signal.SIGKILL)
        assert process.wait(timeout=30) == 3
        assert until(lambda: not ours(str(short_folder))), ours(str(short_folder))
        assert not listens(port)


def nurseries() -> set[int]:
    return {stat.pid for stat in containment.descendants(os.getpid()) if "nursery" in command_of(stat.pid)}


def test_what_starts_the_supervisors_is_killed(short_folder: Path) -> None:
    plain = Scenario(loops=(Loop(name="a", start=LoopStart.POST_WORKER_INIT),))
    others = nurseries()  # those of other sessions of this process
    with open_session(out=short_folder) as session:
        assert session.run(plain).verdict is Verdict.HELD
        [nursery] = nurseries() - others
        os.kill(nursery, signal.SIGKILL)
        assert session.run(plain).verdict is Verdict.HELD
    assert not ours(str(short_folder))


def test_an_ordinary_run_leaves_its_folder_alone(short_folder: Path) -> None:
    before = set(Path("/tmp").iterdir()) | set(Path.home().iterdir())
    with running(RUN, short_folder) as (process, _, port):
        assert process.wait(timeout=60) in (0, 1)
    assert not ours(str(short_folder))
    assert not listens(port)
    after = set(Path("/tmp").iterdir()) | set(Path.home().iterdir())
    assert not [path for path in after - before if "gunicorn" in path.name or "forkproof" in path.name]


def test_a_disk_that_fills_up_costs_no_scenario(short_folder: Path) -> None:
    small = short_folder / "small"
    small.mkdir()
    scenario = short_folder / "scenario.json"
    scenario.write_text(LONG.to_json())
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "none", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        command = [sys.executable, "-m", "forkproof", "run", str(scenario), "--out", str(small)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert '"name": "stays"' in done.stderr
    assert "Traceback" not in done.stderr
