"""What others on the machine can reach, and what a run's folder tells of its user."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkproof import containment
from forkproof.scenario import from_dict
from forkproof.session import open_session
from forkproof.verdict import Verdict

pytestmark = pytest.mark.fork

VALUE = "value-of-the-users-own"
LISTENS = from_dict(
    {"loops": [{"name": "a", "start": "post_worker_init", "body": "listen", "policy": "once_per_worker"}]}
)
LOCAL = ("0100007F", "00000000000000000000000001000000")
"""127.0.0.1 and ::1, as the kernel writes them."""


def sockets(pid: int) -> Iterator[str]:
    """The inodes of a process's sockets."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    yield target[8:-1]


def listening() -> dict[str, tuple[str, str]]:
    """By inode: "tcp" and the address, or "unix" and the path, of everything that waits for connections."""
    found = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                found[words[9]] = ("tcp", words[1].partition(":")[0])
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[3] == "00010000":
            found[words[6]] = ("unix", words[7])
    return found


def is_safe(kind: str, where: str) -> bool:
    """Whether nobody else can connect: to this machine alone, or below a folder of the user's alone."""
    if kind == "tcp":
        return where in LOCAL
    return any(parent.stat().st_mode & 0o077 == 0 for parent in Path(where).parents if parent.exists())


@pytest.mark.parametrize("broker", ["embedded", "redis-server"])
def test_nobody_else_gets_in_and_nothing_gets_out(
    broker: str, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broker == "redis-server" and shutil.which(broker) is None:
        pytest.skip("there is no redis-server here")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", VALUE)
    seen: set[tuple[str, str]] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            everywhere = listening()
            for stat in containment.carrying(str(short_folder)):
                with contextlib.suppress(OSError):
                    here = os.readlink(f"/proc/{stat.pid}/cwd")  # a short name leaves room for the longest folder
                    found = [everywhere[inode] for inode in sockets(stat.pid) if inode in everywhere]
                    seen.update((kind, where if kind == "tcp" else os.path.join(here, where)) for kind, where in found)
            time.sleep(0.05)

    with open_session(broker_name=broker, out=short_folder) as session:
        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            report = session.run(LISTENS)
        finally:
            over.set()
            watcher.join()
    assert report.verdict is Verdict.HELD
    assert {kind for kind, _ in seen} == {"tcp", "unix"}
    assert [one for one in seen if not is_safe(*one)] == []
    files = [path for path in short_folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if VALUE.encode() in path.read_bytes()] == []
