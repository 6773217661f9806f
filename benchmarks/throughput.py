"""Verdicts per second, beside what a user would write and beside what booting the servers takes at the least.

    python benchmarks/throughput.py [-n 5] [--rounds 3] [-j 2 4] [--seed 1] [--warm]
        [--target T] [--memory N] [--json FILE]

Three ways with the same scenarios, those that `forkproof explore --seed` draws, in turn in each round:

- naive: start gunicorn, sleep 2 s, read its output, TERM, wait (10 s at most, then KILL); one at a time;
- floor: boot the same servers cold, send each one request, KILL them as soon as it is answered; no judging;
- forkproof: full verdicts, by `Session.run`; with `--warm` of servers that are forked from nests.

Floor and forkproof are run with each of the given -j, and the best of each is compared. CPU seconds are those of
everything below this process and of itself, the broker and the control process included. Memory is the proportional
set size (shared pages in shares) of everything that one server alone adds, `--memory` of them, sampled.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forkproof import containment, explore, launch
from forkproof.control import Budget, Gauge
from forkproof.crowd import Unhindered
from forkproof.errors import CouldNotDecide
from forkproof.scenario import Scenario
from forkproof.session import LocalSession, open_session
from forkproof.target import describe
from forkproof_strategies import scenarios

NAIVE_SLEEP = 2.0
NAIVE_WAIT = 10.0
POLL = 0.005
SAMPLE = 0.05
LOOK = 0.5

Way = Callable[[LocalSession, Scenario], bool]
"""Runs one scenario; whether it came to what that way wants of it."""


@dataclass(frozen=True)
class Round:
    """All scenarios once, in one way."""

    count: int
    seconds: float
    cpu: float
    failed: int = 0

    @property
    def rate(self) -> float:
        """Scenarios per second."""
        return self.count / self.seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {name: round(of(values), 3) for name, of in (("median", statistics.median), ("min", min), ("max", max))}


def summary(naive: Sequence[Round], floor: Mapping[int, Sequence[Round]], ours: Mapping[int, Sequence[Round]]) -> Any:
    """The rates of each way, by jobs, and the ratios of the best, round by round."""

    def told(rounds: Sequence[Round]) -> dict[str, Any]:
        return {
            "per_second": spread([one.rate for one in rounds]),
            "cpu_seconds_each": spread([one.cpu / one.count for one in rounds]),
            "failed": sum(one.failed for one in rounds),
        }

    def best(by_jobs: Mapping[int, Sequence[Round]]) -> int:
        return max(by_jobs, key=lambda jobs: statistics.median(one.rate for one in by_jobs[jobs]))

    def ratio(a: Sequence[Round], b: Sequence[Round]) -> dict[str, float]:
        return spread([one.rate / other.rate for one, other in zip(a, b, strict=True)])

    least, most = floor[best(floor)], ours[best(ours)]
    return {
        "naive": told(naive),
        "floor": {str(jobs): told(rounds) for jobs, rounds in floor.items()},
        "forkproof": {str(jobs): told(rounds) for jobs, rounds in ours.items()},
        "best": {"floor": best(floor), "forkproof": best(ours)},
        "ratios": {
            "forkproof / naive": ratio(most, naive),
            "forkproof / floor": ratio(most, least),
            **{
                f"forkproof -j {jobs} / -j {min(ours)}": ratio(ours[jobs], ours[min(ours)]) for jobs in sorted(ours)[1:]
            },
        },
    }


@contextlib.contextmanager
def started(session: LocalSession, what: Scenario) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The server of a scenario, in the folder of a run; killed with all that is in its process group."""
    folder = launch.new_folder(session.around.out, what)
    plan = launch.prepare(what, session.around, folder)
    try:
        with (folder / "server.log").open("wb") as log:
            server = subprocess.Popen(
                plan["command"], env=plan["environment"], cwd=folder / "work", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield server, folder
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            with contextlib.suppress(ChildProcessError):  # what it left is ours, as we are a subreaper
                while True:
                    os.waitpid(-server.pid, 0)
    finally:
        launch.remove_folder(folder)


def naive(session: LocalSession, what: Scenario) -> bool:
    """What a user would write."""
    with started(session, what) as (server, folder):
        time.sleep(NAIVE_SLEEP)
        said = (folder / "server.log").read_bytes()
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(NAIVE_WAIT)
        return b"Listening at" in said


def floor(session: LocalSession, what: Scenario) -> bool:
    """A cold boot up to the first answer; given up after the bound that `forkproof` has for it."""
    with started(session, what) as (server, folder):
        bound = launch.bounds(what)["boot"] + launch.BOUNDS["answer"]
        # Where it hangs asleep, it is given up as soon as forkproof does.
        unhindered = Unhindered(_Everybody(server.pid, session.around.broker.pid))
        budget = Budget(Gauge(session.around.control.path), bound, unhindered.seconds)
        while not budget.expired and server.poll() is None:
            address = _address(folder)
            if address is not None and _answers(*address, budget):
                return True
            time.sleep(POLL)
        return False


class _Everybody:
    """Whom the answer of a server may wait for; looked up now and then, as that takes some ms."""

    def __init__(self, server: int, broker: int | None) -> None:
        self._server = server
        self._others = [] if broker is None else [broker]  # not this process, whose other threads always wait
        self._found: list[tuple[int, str]] = []
        self._looked = float("-inf")

    def __call__(self) -> list[tuple[int, str]]:
        if time.monotonic() - self._looked > LOOK:
            below = [stat.pid for stat in containment.descendants(self._server)]
            self._found = [(pid, "/proc") for pid in (self._server, *below, *self._others)]
            self._looked = time.monotonic()
        return self._found


def _address(folder: Path) -> tuple[str, int] | None:
    for path in (folder / "history").glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            if b'"listening"' in line:
                host, port = json.loads(line)["address"]
                return host, port
    return None


def _answers(host: str, port: int, budget: Budget) -> bool:
    client = http.client.HTTPConnection(host, port, timeout=SAMPLE)
    with contextlib.closing(client), contextlib.suppress(OSError, http.client.HTTPException):
        client.request("GET", "/")
        # Not sent twice: a worker that is booting finds it when it accepts.
        while not budget.expired:
            with contextlib.suppress(socket.timeout):
                client.sock.recv(1, socket.MSG_PEEK)
                return client.getresponse().status == 200
    return False


def verdict(session: LocalSession, what: Scenario) -> bool:
    """A full verdict."""
    try:
        report = session.run(what)
    except CouldNotDecide:
        return False
    launch.remove_folder(report.folder)
    return True


def measure(way: Way, jobs: int, session: LocalSession, every: Sequence[Scenario]) -> Round:
    """All scenarios in one way, `jobs` at once."""
    cpu, begun = cpu_seconds(), time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        done = list(pool.map(lambda what: way(session, what), every))
    return Round(len(every), time.monotonic() - begun, cpu_seconds() - cpu, done.count(False))


def cpu_seconds() -> float:
    """What this process has used, what it has waited for, and what lives below it."""
    found = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    for stat in containment.descendants(os.getpid()):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{stat.pid}/stat").read_bytes().rpartition(b")")[2].split()
            found += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return found


def peak_memory(way: Way, session: LocalSession, what: Scenario) -> float:
    """MB that one scenario adds at most."""
    before, peak, over = memory(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(SAMPLE):
            peak = max(peak, memory() - before)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        way(session, what)
    finally:
        over.set()
        watching.join()
    return peak


def memory() -> float:
    """The proportional set size of everything below this process, in MB."""
    found = 0
    for stat in containment.descendants(os.getpid()):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{stat.pid}/smaps_rollup").read_bytes().splitlines():
                if line.startswith(b"Pss:"):
                    found += int(line.split()[1])
    return found / 1024


def page(result: Mapping[str, Any]) -> str:
    """What was measured, for people."""

    def words(one: Mapping[str, float]) -> str:
        return f"{one['median']:7.3f} ({one['min']:.3f} to {one['max']:.3f})"

    lines = [f"{'':22}{'per second':28}{'CPU seconds each':28}failed"]
    rows = [("naive", result["naive"])]
    rows += [(f"{name} -j {jobs}", one) for name in ("floor", "forkproof") for jobs, one in result[name].items()]
    for name, one in rows:
        lines.append(f"{name:22}{words(one['per_second']):28}{words(one['cpu_seconds_each']):28}{one['failed']}")
    lines += [f"{name:26} {words(one)}" for name, one in result["ratios"].items()]
    lines += [f"peak memory, MB, {name:10}{words(one)}" for name, one in result["peak_mb"].items()]
    return "\n".join(lines)


def main() -> int:
    """Measure the rounds, print and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=5, help="how many scenarios")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "-j", type=int, nargs="+", default=[2, 4], help="how many servers at once; several are compared"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--warm", action="store_true", help="fork servers of forkproof's from nests")
    parser.add_argument("--target")
    parser.add_argument("--memory", type=int, default=1, help="how many scenarios the memory of is measured")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    containment.become_subreaper()
    first: list[Round] = []
    by_jobs: dict[Way, dict[int, list[Round]]] = {way: {jobs: [] for jobs in options.j} for way in (floor, verdict)}
    with (
        tempfile.TemporaryDirectory(prefix="fpt-") as folder,
        open_session(target_name=options.target, out=Path(folder), warm=options.warm) as session,
    ):
        classes, lacks = explore.abilities(session.target)
        strategy = scenarios(worker_classes=classes, flags=session.target.patch_flags, without=lacks)
        every = explore.drawn(options.n, options.seed, strategy, session.can_run)
        todo: list[tuple[Way, int, list[Round]]] = [(naive, 1, first)]
        todo += [(way, jobs, by_jobs[way][jobs]) for jobs in options.j for way in (floor, verdict)]
        for number in range(options.rounds):
            shift = number % len(todo)  # so that none is always the first
            for way, jobs, rounds in todo[shift:] + todo[:shift]:
                rounds.append(measure(way, jobs, session, every))
                print(f"round {number + 1}: {way.__name__} -j {jobs}: {rounds[-1].seconds:.1f} s", flush=True)
        result = summary(first, by_jobs[floor], by_jobs[verdict])
        result["peak_mb"] = {
            way.__name__: spread([peak_memory(way, session, what) for what in every[: options.memory]])
            for way in ((floor, verdict) if options.memory else ())
        }
        versions = session.target.to_dict()
    print(f"{len(every)} scenarios, {options.rounds} rounds, {os.cpu_count()} cores, {describe(versions)}")
    print(page(result))
    if options.json:
        data = {"schema": 1, "n": len(every), "seed": options.seed, "rounds": options.rounds, "target": versions}
        data["warm"] = options.warm
        data |= {"cores": len(os.sched_getaffinity(0)), **result}
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
