"""What the probe costs a loop: the CPU time of its turns with and without a tick, in turn, in one run.

    python benchmarks/probe_cost.py [--rounds 15] [--json FILE]

What a loop loses of its rate is what a tick adds to a turn, of the turn's sleep and CPU time together. Not of the rate
as it is counted: where others use the machine, too, that differs by a third from round to round, and is told beside.
Runs in the interpreter that it is started with, which needs gevent. Exits 1 where a loop that yields 1 ms loses more
than 2 % (the median over the rounds).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PAYLOAD = Path(__file__).parent.parent / "harness" / "forkproof" / "payload"
ALLOWED = 0.02
TICKS = 200_000


@dataclass(frozen=True)
class Turn:
    """Seconds that a turn took: of CPU, and by the clock."""

    cpu: float
    wall: float


def turn(turns: int, give_way: Callable[[], object], tick: Callable[[], object]) -> Turn:
    """What a turn takes, of so many."""
    cpu, begun = time.process_time(), time.monotonic()
    for _ in range(turns):
        tick()
        give_way()
    return Turn((time.process_time() - cpu) / turns, (time.monotonic() - begun) / turns)


def nothing() -> None:
    """The loop without a probe still calls a function, as a body would."""


def spread(found: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": round(statistics.median(found), 4), "min": round(min(found), 4), "max": round(max(found), 4)}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    import gevent

    with tempfile.TemporaryDirectory(prefix="forkproof-") as folder:
        for name in ("history", "ticks"):
            (Path(folder) / name).mkdir()
        os.environ["FORKPROOF_RUN"] = folder
        sys.path.insert(0, str(PAYLOAD))
        from forkproof_payload import probe

        ticker = probe.Ticker("benchmark", "thread", "benchmark", "benchmark")
        ticker.tick()
        loops: dict[str, tuple[int, float, Callable[[], object]]] = {
            "time.sleep(0.001)": (300, 0.001, lambda: time.sleep(0.001)),
            "gevent.sleep(0.001)": (300, 0.001, lambda: gevent.sleep(0.001)),
            "gevent.sleep(0)": (10_000, 0.0, lambda: gevent.sleep(0)),
        }
        losses: dict[str, list[float]] = {name: [] for name in loops}
        counted: dict[str, list[float]] = {name: [] for name in loops}
        for number in range(arguments.rounds):
            for name, (turns, sleep, give_way) in loops.items():
                ticks = (ticker.tick, nothing) if number % 2 else (nothing, ticker.tick)
                found = {tick: turn(turns, give_way, tick) for tick in ticks}
                probed, bare = found[ticker.tick], found[nothing]
                losses[name].append((probed.cpu - bare.cpu) / (sleep + probed.cpu))
                counted[name].append(1 - bare.wall / probed.wall)
        cpu = time.process_time()
        for _ in range(TICKS):
            ticker.tick()
        tick_ns = (time.process_time() - cpu) / TICKS * 1e9
    result = {
        "tick_cpu_ns": round(tick_ns),
        "loss_of_rate": {name: spread(found) for name, found in losses.items()},
        "loss_as_counted": {name: spread(found) for name, found in counted.items()},
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    worst = max(statistics.median(losses[name]) for name in loops if name.endswith("(0.001)"))
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
