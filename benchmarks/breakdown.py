"""Where the time of a verdict goes: wall clock by phase, CPU seconds by process.

    python benchmarks/breakdown.py [-n 20] [--seed 1] [--plain] [--warm] [--target T] [--json FILE]

One scenario after another, those that `forkproof explore --seed` draws, or with `--plain` those of them without faults
and parks. The phases are told by the supervisor's own events. `rest` is launching, what ended without being waited for,
the broker and the control process, whose counters have 10 ms steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from throughput import cpu_seconds

from forkproof import explore, launch
from forkproof.history import Event, History
from forkproof.judge import judge
from forkproof.scenario import Scenario
from forkproof.session import LocalSession, open_session
from forkproof.target import describe
from forkproof_strategies import scenarios

Seconds = dict[str, float]

_AFTER = {
    "launch": "boot",
    "window.open": "windows",
    "window.close": "next step",
    "signal.invoke": "arbiter's signal",
    "signal.ok": "next step",
    "signal.fail": "next step",
    "signal.info": "next step",
    "fault.invoke": "faults",
    "fault.healed": "next step",
    "stopped": "end",
    "left": "end",
    "killed": "end",
}
"""The phase that begins with an event; `next step` is what lies between: a fault's anchor, stacks, orphans."""


def phases(events: Iterable[Event], begun: float, ended: float) -> Seconds:
    """Wall seconds by phase, of a run that was asked for and over at these times."""
    found: Seconds = defaultdict(float)
    phase, since = "start", begun
    for event in events:
        if event.event in _AFTER:
            found[phase] += event.t - since
            phase, since = _AFTER[event.event], event.t
    found["end"] += ended - since
    return found


def broken_down(session: LocalSession, what: Scenario) -> tuple[Seconds, Seconds, Seconds]:
    """Wall seconds by phase, CPU seconds by process, and wall seconds of bounds that passed, of one verdict."""
    everything, begun = cpu_seconds(), time.monotonic()
    folder = launch.launch(what, session.around)
    ended, launched = time.monotonic(), time.process_time()
    judge(folder)
    judged, all_own = time.monotonic(), time.process_time()
    everything = cpu_seconds() - everything
    history = History.read(folder / "history")
    wall = phases(history, begun, ended)
    wall["judging"] = judged - ended
    usage = history.of("usage")[-1]
    cpu: Seconds = defaultdict(float)
    cpu.update({"server": usage["server"], "supervisor": usage["supervisor"], "judging": all_own - launched})
    cpu["rest"] = max(0.0, everything - sum(cpu.values()))
    bounds: Seconds = defaultdict(float)
    for event in history.of("bound"):
        bounds[event["what"]] += event["seconds"] * event.get("stretch", 1.0)
    launch.remove_folder(folder)
    return wall, cpu, bounds


def table(title: str, runs: Sequence[Seconds]) -> list[str]:
    """One row for each part: mean, share, median."""
    total = sum(sum(one.values()) for one in runs)
    lines = [f"{title:20}{'mean':>8}{'share':>8}{'median':>8}"]
    for name in dict.fromkeys(name for one in runs for name in one):
        values = [one[name] for one in runs]
        row = f"{statistics.mean(values):8.3f}{sum(values) / total:8.1%}{statistics.median(values):8.3f}"
        lines.append(f"  {name:18}{row}")
    whole = [sum(one.values()) for one in runs]
    return [*lines, f"  {'all':18}{statistics.mean(whole):8.3f}{1:8.1%}{statistics.median(whole):8.3f}"]


def main() -> int:
    """Run the scenarios one by one, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--warm", action="store_true", help="fork servers from nests")
    parser.add_argument("--target")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="fpb-") as folder,
        open_session(target_name=options.target, out=Path(folder), warm=options.warm) as session,
    ):

        def wanted(what: Scenario) -> bool:
            return session.can_run(what) and not (options.plain and (what.faults or what.parks))

        classes, lacks = explore.abilities(session.target)
        strategy = scenarios(worker_classes=classes, flags=session.target.patch_flags, without=lacks)
        every = explore.drawn(options.n, options.seed, strategy, wanted)
        runs = [broken_down(session, what) for what in every]
        versions = session.target.to_dict()
    parts = dict(zip(("wall, s", "CPU, s", "bounds passed, s"), zip(*runs, strict=True), strict=True))
    print(f"{len(every)} scenarios, {describe(versions)}")
    for title, found in parts.items():
        if any(found):
            print("\n".join(table(title, found)))
    if options.json:
        data: list[dict[str, Any]] = [
            {title: found[number] for title, found in parts.items()} for number in range(len(every))
        ]
        for one, what in zip(data, every, strict=True):
            one["scenario"] = what.to_dict()
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
