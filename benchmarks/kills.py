"""Ends forkproof at random moments, in every way, and looks at what is left: nothing may be.

    python benchmarks/kills.py [-n 200] [-j 4] [--seed 1] [--json FILE]

Each round starts an exploration, waits for a random moment of its life (before the first run has begun, or a while
after the n-th has), and ends it: SIGKILL, SIGTERM, SIGINT or SIGHUP
to the command, its terminal closed, or SIGKILL to one of its own processes (supervisor, namespace, nursery, Redis, its
keeper, control process). Then, once what is left has had its bound to go, the machine is searched for processes that
carry the round's folder in their command or environment, for the ports that its servers and its Redis listened on, and
for new entries in the folders for temporary files and in the home directory. Exits 1 where anything is left.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from forkproof import containment
from forkproof.control import Budget, Control, Gauge

RUNS = 3
"""Up to so many runs have begun when it ends; counted, since a busy machine takes its time to start."""
DELAY = 1.5
"""Up to so many seconds later: a boot, a window, a fault, a shutdown."""
SETTLE = 20.0
"""Seconds of an idle machine that what is left has to go, counted in turns of a control process."""
GOES_ON = 3.0
"""Such seconds in which a command that has lost one of its processes may go on with its work, until it is ended too."""
SIGNALS = ("KILL", "TERM", "INT", "HUP")
WAYS = (*SIGNALS, "terminal", "supervisor", "namespace", "nursery", "redis", "keeper", "control")
PLACES = (Path(tempfile.gettempdir()), Path("/dev/shm"), Path.home())


@dataclass
class Round:
    """How one round was ended, and what it left."""

    way: str
    runs: int
    delay: float
    landed: bool = False
    left: list[str] = field(default_factory=list)


def one_round(gauge: Gauge, way: str, runs: int, delay: float, seed: int) -> Round:
    """Start an exploration, end it in one `way` `delay` seconds after so many runs, and search for what is left."""
    result = Round(way, runs, delay)
    with tempfile.TemporaryDirectory(prefix="fpk-") as folder:
        out = Path(folder) / "o"
        command = [sys.executable, "-m", "forkproof", "explore", "-n", "20", "-j", "2"]
        command += ["--seed", str(seed), "--out", str(out)]
        terminal, inside = pty.openpty()
        with subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True, preexec_fn=_controlled
        ) as process:
            os.close(inside)
            while process.poll() is None and len(list(out.glob("*/launch.json"))) < runs:
                _drain(terminal, passed(0.01))
            _drain(terminal, passed(delay))
            result.landed = end(process, way, folder, terminal)
            if way != "terminal":
                _drain(terminal, spent(gauge, SETTLE if way in SIGNALS else GOES_ON), process)
                if way in SIGNALS and result.landed and process.poll() is None:
                    result.left.append(f"the command still runs {SETTLE:g} s later")
                os.close(terminal)
            over = spent(gauge, SETTLE)
            while process.poll() is None and not over():
                time.sleep(0.01)
            if process.poll() is None:
                result.left.append(f"the command still runs {SETTLE:g} s after its terminal was closed")
                process.kill()
        result.left += search(folder, _ports(out), spent(gauge, SETTLE))
    return result


def _controlled() -> None:
    """Make the terminal the controlling one, so that closing it hangs up, as a window that is closed does."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def passed(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed from now on."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


def spent(gauge: Gauge, seconds: float) -> Callable[[], bool]:
    """Whether so many seconds of an idle machine have passed from now on."""
    budget = Budget(gauge, seconds)
    return lambda: budget.expired


def _drain(terminal: int, over: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    """Read what is printed, up to a time or the end of the process: a full terminal would stop it."""
    os.set_blocking(terminal, False)
    while not over() and (process is None or process.poll() is None):
        with contextlib.suppress(OSError):
            while os.read(terminal, 65536):
                pass
        time.sleep(0.01)


def end(process: subprocess.Popen[bytes], way: str, folder: str, terminal: int) -> bool:
    """End it; whether there was anything to end."""
    if process.poll() is not None:
        return False
    if way == "terminal":
        os.close(terminal)
        return True
    if way in SIGNALS:
        process.send_signal(getattr(signal, f"SIG{way}"))
        return True
    marks = {
        "supervisor": "forkproof.nursery",
        "namespace": "forkproof.nursery",
        "nursery": "forkproof.nursery",
        "redis": "_broker_process",
        "keeper": "_broker_process",
        "control": "from forkproof.control",
    }
    found = [stat for stat in containment.carrying(folder) if marks[way] in containment.command_of(stat.pid)]
    if marks[way] == "forkproof.nursery":
        # They have one command line, and stand in different folders.
        stands = {"supervisor": "/work", "namespace": ""}
        found = [stat for stat in found if _stands_in(stat.pid, stands.get(way))]
    if way in ("redis", "keeper"):
        keepers = {stat.pid for stat in found if stat.ppid == process.pid}
        found = [stat for stat in found if (stat.pid in keepers) == (way == "keeper")]
    for stat in found[:1]:
        with contextlib.suppress(OSError):
            os.kill(stat.pid, signal.SIGKILL)
            return True
    return False


def _stands_in(pid: int, below: str | None) -> bool:
    """Whether a process stands in a run's folder, or just `below` it; None for in none."""
    with contextlib.suppress(OSError):
        found = re.fullmatch(r".*/[0-9a-f]{12}-[0-9a-f]{6}(/work)?", os.readlink(f"/proc/{pid}/cwd"))
        return (found and (found[1] or "")) == below
    return False


def search(folder: str, ports: set[int], over: Callable[[], bool]) -> list[str]:
    """Everything of a round that is still there once its bound has passed."""
    while True:
        left = [f"process {stat.pid}: {containment.command_of(stat.pid)}" for stat in containment.carrying(folder)]
        left += [f"port {port} is listened on" for port in sorted(ports & listening())]
        if not left or over():
            return left
        time.sleep(0.05)


def _ports(out: Path) -> set[int]:
    """The ports that a round's servers told of, and that of its Redis."""
    found: set[int] = set()
    for path in [*out.glob("*/history/*.jsonl"), *out.glob("*/launch.json")]:
        with contextlib.suppress(OSError):
            text = path.read_text(errors="replace")
            found |= {int(port) for port in re.findall(r'"address": \["127\.0\.0\.1", (\d+)\]', text)}
            found |= {int(port) for port in re.findall(r'"port": (\d+)', text)}
    return found


def listening() -> set[int]:
    """The TCP ports that anybody on this machine listens on."""
    found = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            rows = [line.split() for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
            found |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
    return found


def entries() -> set[Path]:
    """What lies in the folders that a careless program leaves things in."""
    return {path for place in PLACES if place.is_dir() for path in place.iterdir()}


def main() -> int:
    """Run the rounds, print what was left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("-j", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    plan = [
        (WAYS[number % len(WAYS)], chance.randint(0, RUNS), chance.uniform(0, DELAY), number)
        for number in range(options.n)
    ]
    begun = time.monotonic()
    rounds: list[Round] = []
    with (
        tempfile.TemporaryDirectory(prefix="fpk-") as folder,
        Control(Path(folder)) as control,
        concurrent.futures.ThreadPoolExecutor(options.j) as pool,
    ):
        gauge, before = Gauge(control.path), entries()
        try:
            for result in pool.map(lambda args: one_round(gauge, *args), plan):
                rounds.append(result)
                if result.left or len(rounds) % 10 == 0:
                    left = "; ".join(result.left) or "nothing"
                    print(f"{len(rounds)}/{options.n} {result.way} after {result.runs} runs left {left}", flush=True)
        except KeyboardInterrupt:
            print("ended early", flush=True)
            pool.shutdown(cancel_futures=True)
    strewn = sorted(str(path) for path in entries() - before)
    landed = Counter(result.way for result in rounds if result.landed)
    summary = {
        "rounds": len(rounds),
        "landed": dict(landed),
        "seconds": round(time.monotonic() - begun),
        "left": [vars(result) for result in rounds if result.left],
        "files": strewn,
    }
    print(json.dumps(summary, indent=1))
    if options.json:
        options.json.write_text(json.dumps(summary, indent=1) + "\n")
    return 1 if summary["left"] or strewn else 0


if __name__ == "__main__":
    sys.exit(main())
