"""What the probe costs a loop: its rate with and without a tick, in turn, in one run, and the CPU time of a tick.

    python benchmarks/probe_cost.py [--rounds 5] [--json FILE]

Runs in the interpreter that it is started with, which needs gevent. Exits 1 where a loop that yields 1 ms loses more
than 2 % of its rate (the median over the rounds).
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
from pathlib import Path

PAYLOAD = Path(__file__).parent.parent / "harness" / "forkproof" / "payload"
ALLOWED = 0.02
TICKS = 200_000


def rate(turns: int, give_way: Callable[[], object], tick: Callable[[], object]) -> float:
    """Turns a second."""
    begun = time.monotonic()
    for _ in range(turns):
        tick()
        give_way()
    return turns / (time.monotonic() - begun)


def nothing() -> None:
    """The loop without a probe still calls a function, as a body would."""


def spread(found: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": round(statistics.median(found), 4), "min": round(min(found), 4), "max": round(max(found), 4)}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
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
        loops: dict[str, tuple[int, Callable[[], object]]] = {
            "time.sleep(0.001)": (500, lambda: time.sleep(0.001)),
            "gevent.sleep(0.001)": (500, lambda: gevent.sleep(0.001)),
            "gevent.sleep(0)": (50_000, lambda: gevent.sleep(0)),
        }
        losses: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(arguments.rounds):
            for name, (turns, give_way) in loops.items():
                losses[name].append(1 - rate(turns, give_way, ticker.tick) / rate(turns, give_way, nothing))
        cpu = time.process_time()
        for _ in range(TICKS):
            ticker.tick()
        tick_ns = (time.process_time() - cpu) / TICKS * 1e9
    result = {
        "tick_cpu_ns": round(tick_ns),
        "loss_of_rate": {name: spread(found) for name, found in losses.items()},
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    worst = max(statistics.median(losses[name]) for name in loops if name.endswith("(0.001)"))
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
