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

from forkproof import containment, proc
from forkproof.scenario import from_dict
from forkproof.session import open_session
from forkproof.verdict import Verdict

pytestmark = pytest.mark.fork

VALUE = "value-of-the-users-own"
LISTENS = from_dict(
    {"loops": [{"name": "a", "start": "post_worker_init", "body": "listen", "policy": "once_per_worker"}]}
)
LOCAL = ("127.0.0.1", "[::1]")


def listening(pid: int) -> Iterator[tuple[str, str]]:
    """The family and address, or path, of what a process waits for connections on."""
    with contextlib.suppress(OSError):
        here = os.readlink(f"/proc/{pid}/cwd")  # a short name leaves room for the longest folder
        where = {inode: (pid, descriptor) for descriptor, inode in proc.resources(pid).sockets.items()}
        for one in proc.describe(where).values():
            if one.state == "listening":
                yield one.family, os.path.join(here, one.local) if one.family == "unix" else one.local


def is_safe(kind: str, where: str) -> bool:
    """Whether nobody else can connect: to this machine alone, or below a folder of the user's alone."""
    if kind != "unix":
        return where.rpartition(":")[0] in LOCAL
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
            for stat in containment.carrying(str(short_folder)):
                seen.update(listening(stat.pid))
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
