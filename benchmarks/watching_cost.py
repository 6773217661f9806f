"""What `forkproof check` takes from an app's own loops: their rates with and without watching, in turn, in one run.

    python benchmarks/watching_cost.py [--rounds 9] [--objects 200000] [--loop NAME]... [--json FILE]

An app counts the turns of one loop in a file that is read from outside. It is started by `check` as any app is, and by
its own gunicorn alone; what is compared is the rate over as long as a window of `check` is, looks and requests included
(the bare server is sent as many). The app also keeps so many objects: what looks at all of them takes longer the more
there are. Exits 1 where a loop loses more than 5 % of its rate, by the median over the rounds. The rate of a loop that
is never idle is in turns for each second of its process's CPU: by the clock it is what others leave, and told beside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe_cost import spread

from forkproof import check
from forkproof.history import History

ALLOWED = 0.05
SECONDS = 1.25
"""About what a window of `check` takes."""
EVERY = 0.005
_THREAD = "threading.Thread(target=turn, args=({},), daemon=True).start()"
LOOPS = {
    "thread, time.sleep(0.001)": ("gthread", _THREAD.format("lambda: time.sleep(0.001)")),
    "thread, computes": ("gthread", _THREAD.format("compute")),
    "greenlet, gevent.sleep(0.001)": ("gevent", "gevent.spawn(turn, lambda: gevent.sleep(0.001))"),
    "greenlet, gevent.sleep(0)": ("gevent", "gevent.spawn(turn, lambda: gevent.sleep(0))"),
    "greenlet, spawns another that sleeps 0.001": (
        "gevent",
        "gevent.spawn(turn, lambda: gevent.spawn(gevent.sleep, 0.001).join())",
    ),
}
NEVER_IDLE = {"thread, computes", "greenlet, gevent.sleep(0)"}
APP = """\
import mmap, os, threading, time
import flask

app = flask.Flask(__name__)
KEPT = [[number] for number in range({objects})]
with open(os.environ["SINK"], "r+b") as file:
    cells = memoryview(mmap.mmap(file.fileno(), 16)).cast("Q")


def compute():
    sum(range(20000))


def turn(give_way):
    while True:
        for _ in range(20):
            cells[0] += 1
            give_way()
        cells[1] = time.process_time_ns()


@app.route("/")
def index():
    return "well"
"""
CONF = """\
worker_class = "{worker_class}"


def post_worker_init(worker):
    import threading, time
    from app import compute, turn
    {more}
    {start}
"""


@dataclass(frozen=True)
class Rate:
    """Turns in a second, and in a second of CPU."""

    clock: float
    cpu: float


class Sink:
    """The count of an app's turns by the clock."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(16))
        with path.open("rb") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), 16, access=mmap.ACCESS_READ)).cast("Q")
        self._seen: list[tuple[float, int, int]] = []
        self._over = threading.Event()

    @contextlib.contextmanager
    def read(self) -> Iterator[Sink]:
        """Read it every few milliseconds meanwhile."""
        reader = threading.Thread(target=self._read)
        reader.start()
        try:
            yield self
        finally:
            self._over.set()
            reader.join()

    def _read(self) -> None:
        while not self._over.wait(EVERY):
            self._seen.append((time.monotonic(), self._cells[0], self._cells[1]))

    def rate(self, opened: float, closed: float) -> Rate:
        """Of the turns between two times."""
        inside = [seen for seen in self._seen if opened <= seen[0] <= closed]
        (first, before, cpu), (last, after, spent) = inside[0], inside[-1]
        return Rate((after - before) / (last - first), (after - before) / max(spent - cpu, 1) * 1e9)


def watched(checker: check.Checker, what: check.Deployment, sink: Path) -> Rate:
    """The rate in the window of a run of `check`."""
    with Sink(sink).read() as read:
        report = checker.check(what)
    (window,) = History.read(report.folder / "history").windows
    return read.rate(window.opened, window.closed)


def bare(what: check.Deployment, folder: Path, sink: Path) -> Rate:
    """The rate under gunicorn alone, which is sent what `check` sends."""
    environment = {**os.environ, **what.environment, "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-m", "gunicorn", "-c", str(what.config), "-b", "127.0.0.1:0", str(what.app)]
    log = folder / "bare.log"
    with Sink(sink).read() as read, log.open("wb") as file:
        server = subprocess.Popen(words, cwd=what.folder, env=environment, stderr=file, stdin=subprocess.DEVNULL)
        try:
            url = _wait_for(log)
            for _ in range(4):
                urllib.request.urlopen(url, timeout=30).read()
            opened = time.monotonic()
            for _ in range(4):
                urllib.request.urlopen(url, timeout=30).read()
            time.sleep(max(0.0, opened + SECONDS - time.monotonic()))
            closed = time.monotonic()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    return read.rate(opened, closed)


def _wait_for(log: Path) -> str:
    latest = time.monotonic() + 60
    while time.monotonic() < latest:
        said = log.read_text()
        if "Listening at: " in said:
            return said.partition("Listening at: ")[2].split()[0]
        time.sleep(0.01)
    raise RuntimeError(f"the server did not boot: {log.read_text()}")


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--loop", action="append", choices=sorted(LOOPS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    print(f"load average {os.getloadavg()[0]:.0f}; a loop: turns/s without and with watching, loss (least to most)")
    with tempfile.TemporaryDirectory(prefix="watching-") as place:
        folder = Path(place)
        sink = folder / "sink"
        (folder / "app.py").write_text(APP.format(objects=arguments.objects))
        with check.open_checker(sys.executable, folder / "runs") as checker:
            for name in arguments.loop or LOOPS:
                worker_class, start = LOOPS[name]
                more = "import gevent" if worker_class == "gevent" else ""
                (folder / "gunicorn.conf.py").write_text(CONF.format(worker_class=worker_class, more=more, start=start))
                what = check.Deployment(
                    "app:app", "gunicorn.conf.py", folder, environment={"SINK": str(sink)}, faults=check.QUICK
                )
                rates: dict[str, list[Rate]] = {"bare": [], "watched": []}
                for number in range(arguments.rounds):
                    for kind in ("bare", "watched") if number % 2 else ("watched", "bare"):
                        found = bare(what, folder, sink) if kind == "bare" else watched(checker, what, sink)
                        rates[kind].append(found)
                pairs = list(zip(rates["watched"], rates["bare"], strict=True))
                losses = {
                    "clock": [1 - one.clock / other.clock for one, other in pairs],
                    "cpu": [1 - one.cpu / other.cpu for one, other in pairs],
                }
                judged = "cpu" if name in NEVER_IDLE else "clock"
                results[name] = {
                    "judged_by": judged,
                    **{f"{kind}_turns": statistics.median(one.clock for one in found) for kind, found in rates.items()},
                    **{f"loss_by_{by}": spread(found) for by, found in losses.items()},
                }
                told = "; ".join(f"by {by} {_told(found)}" for by, found in losses.items())
                turns = [f"{results[name][f'{kind}_turns']:.0f}" for kind in rates]
                print(f"{name}: {', '.join(turns)}; {told}; judged by {judged}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(any(one[f"loss_by_{one['judged_by']}"]["median"] > ALLOWED for one in results.values()))


def _told(found: list[float]) -> str:
    return f"{statistics.median(found):.1%} ({min(found):.1%} to {max(found):.1%})"


if __name__ == "__main__":
    sys.exit(main())
