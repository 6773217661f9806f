"""A Python program that uses the payload, without a server around it."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forkproof

PAYLOAD = Path(forkproof.__file__).parent / "payload"


class Probed:
    """A Python program that uses the probe; what it has written."""

    def __init__(self, python: str, folder: Path) -> None:
        self.python = python
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        for name in ("history", "ticks"):
            (folder / name).mkdir()

    def start(self, code: str) -> subprocess.Popen[bytes]:
        environment = {"FORKPROOF_RUN": str(self.folder), "PYTHONPATH": str(PAYLOAD), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["TMPDIR"] = (
            "/proc/self/cwd"  # a fork server's socket needs a short name, and stays when it is killed
        )
        program = "import os, signal, sys\nfrom forkproof_payload import probe\n" + textwrap.dedent(code)
        process = subprocess.Popen([self.python, "-W", "error", "-c", program], env=environment, cwd=self.folder)
        self.started.append(process)
        return process

    def run(self, code: str) -> int:
        return self.start(code).wait(timeout=60)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        found = []
        for path in sorted((self.folder / "history").iterdir()):
            # A write that goes on beside a read may be seen up to the end of a page.
            whole, _, unfinished = path.read_text().rpartition("\n")
            assert not unfinished or any(process.poll() is None for process in self.started)
            for line in whole.splitlines():
                event = json.loads(line)
                assert path.name == f"{event['pid']}-{event['start']}.jsonl"
                found.append(event)
        return sorted((event for event in found if kind in (None, event["event"])), key=lambda event: event["t"])

    def ticks(self) -> dict[int, int]:
        """The count in the first cell of each process, as a supervisor outside reads it."""
        counts = {}
        for path in (self.folder / "ticks").iterdir():
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as cells:
                counts[int(path.name.partition("-")[0])] = int.from_bytes(cells[:8], sys.byteorder)
        return counts

    def end(self) -> None:
        """Kill what is left of the programs."""
        for process in self.started:
            process.kill()
            process.wait()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
