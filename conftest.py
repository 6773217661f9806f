"""What every test shares. It imports neither gevent nor gunicorn nor an app: what is patched, and when, is measured."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from forkproof import containment
from forkproof.nest import Nests

pytest_plugins = ["pytester"]

SETTLE_SECONDS = 1.0


def pytest_configure() -> None:
    """What a shell runs in its background ignores SIGINT, and so would all that tests start and end by it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process or an open file; the session that fork tests share comes up before we look."""
    nests = None
    if "forkproof" in request.fixturenames:
        nests = request.getfixturevalue("forkproof").session.around.nests
    processes, files, begun = _processes(), _files(), _ticks()
    yield
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := _left(processes, files, begun, nests)) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    if left:
        pytest.fail("the test left behind:\n" + "\n".join(left), pytrace=False)


def _left(processes: set[tuple[int, int]], files: dict[int, str], begun: int, nests: Nests | None) -> list[str]:
    # The kernel's list of children may miss one that is there, so what is older than the test is not the test's.
    new = {pid for pid, start in _processes() - processes if start >= begun}
    now = _files()
    if nests is not None:  # the session's, which makes them when it needs them
        for pid in nests.pids:
            new -= {pid, *(below.pid for below in containment.descendants(pid))}
        now = {number: name for number, name in now.items() if number not in nests.descriptors}
    left = [f"process {pid}: {containment.command_of(pid)}" for pid in new]
    if len(now) > len(files):
        left += [f"descriptor {number}: {name}" for number, name in now.items() if files.get(number) != name]
    return left


def _ticks() -> int:
    """Now, as proc(5) counts when a process started."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def _processes() -> set[tuple[int, int]]:
    if not _has_children():
        return set()
    return {(stat.pid, stat.start) for stat in containment.descendants(os.getpid())}


def _has_children() -> bool:
    try:
        return any(path.read_bytes() for path in Path("/proc/self/task").glob("*/children"))
    except OSError:  # A thread has ended, or the kernel has no such file: then all of /proc is read.
        return True


def _files() -> dict[int, str]:
    found = {}
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one that listed them
            continue
    return found


def _interpreters() -> dict[tuple[int, int], str]:
    """Pythons that a target may have: one of each version that is here, the oldest first, and our own."""
    found: dict[tuple[int, int], str] = {}
    for minor in range(6, 10):
        path = shutil.which(f"python3.{minor}")
        if path is not None and "shims" not in Path(path).parts:  # pyenv's, for versions that may not be on
            found[3, minor] = path
    for folder in (Path.home() / ".pyenv" / "versions").glob("3.*"):
        version = re.match(r"3\.(\d+)\.\d+$", folder.name)
        if version and int(version[1]) >= 6 and (folder / "bin" / "python").exists():
            found[3, int(version[1])] = str(folder / "bin" / "python")
    found[sys.version_info[:2]] = sys.executable
    return dict(sorted(found.items()))


INTERPRETERS = _interpreters()


def _oldest_and_own() -> Iterator[ParameterSet]:
    oldest = min(INTERPRETERS)
    reason = "no Python 3.6 to 3.9 on PATH or under pyenv"
    yield pytest.param(
        INTERPRETERS[oldest], id="oldest", marks=[pytest.mark.skip(reason=reason)] if oldest > (3, 9) else []
    )
    yield pytest.param(sys.executable, id="own")


@pytest.fixture(params=_oldest_and_own())
def python(request: pytest.FixtureRequest) -> str:
    """The oldest interpreter that is here, and our own: what the payload must run on."""
    return str(request.param)


@pytest.fixture(params=INTERPRETERS.values(), ids=["{}.{}".format(*version) for version in INTERPRETERS])
def each_python(request: pytest.FixtureRequest) -> str:
    """Every interpreter that is here."""
    return str(request.param)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for the sockets below it, which `tmp_path` does not (107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        yield Path(folder)
