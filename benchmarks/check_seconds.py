"""What `forkproof check` of a small healthy app takes: seconds by the clock, seconds of CPU, and where the first go.

    python benchmarks/check_seconds.py [--rounds 3] [--app NAME]... [--deployment NAME]... [--json FILE]

Runs the command on each app of `examples/apps` in each deployment, as it is and with `--quick`, in turn, and counts
those in which nothing is wrong. Exits 1 where the least of the rounds is above 10 s, or 4 s with `--quick`: on a
machine that others use too that is nearest to what it takes. Load averages are told beside.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import truth
import truth_of_check

ALLOWED = {"faults": 10.0, "quick": 4.0}
PHASES = ("boot", "windows", "faults", "stop", "around")


def measure(app: str, deployment: str, out: Path, *, quick: bool) -> dict[str, Any]:
    """One run of the command."""
    with truth_of_check.deployment(app, deployment) as what:
        words = [sys.executable, "-m", "forkproof", "check", str(what.app), "--chdir", str(what.folder)]
        words += ["-c", str(what.config), "--out", str(out), "-q", "--json", str(out / "report.json")]
        words += [f"--env={name}={value}" for name, value in what.environment.items()]
        words += [f"--request={path}" for path in what.requests] + [f"--event={command}" for command in what.events]
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        code = subprocess.run(words + ["--quick"] * quick, capture_output=True, check=False, timeout=600).returncode
        wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"code": code, "wall": round(wall, 2), "cpu": round(cpu, 2), "load": os.getloadavg()[0]}
    if code == 0:
        spent = phases(Path(json.loads((out / "report.json").read_bytes())["run"]) / "history" / "supervisor.jsonl")
        found |= spent | {"around": round(wall - sum(spent.values()), 2)}
    return found


def phases(path: Path) -> dict[str, float]:
    """Seconds of a run by what was going on."""
    spent = dict.fromkeys(PHASES[:-1], 0.0)
    last, phase = 0.0, "boot"
    then = {"window.open": "windows", "window.close": "faults"}
    for line in path.read_text().splitlines():
        event = json.loads(line)
        spent[phase] += event["t"] - last if last else 0.0
        last = event["t"]
        phase = "stop" if event["event"] == "fault.ok" and event["fault"] == "term" else then.get(event["event"], phase)
    return {name: round(seconds, 2) for name, seconds in spent.items()}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--app", action="append", choices=sorted(truth.LOOPS))
    parser.add_argument("--deployment", action="append", choices=truth.deployments())
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, slow = [], 0
    print("app deployment: kind, seconds (least to most), CPU seconds, of the least:", *PHASES, flush=True)
    for app in arguments.app or truth.LOOPS:
        for deployment in arguments.deployment or truth.deployments():
            for kind in ALLOWED:
                with tempfile.TemporaryDirectory(prefix="check-") as out:
                    runs = [measure(app, deployment, Path(out), quick=kind == "quick") for _ in range(arguments.rounds)]
                rows.append({"app": app, "deployment": deployment, "kind": kind, "runs": runs})
                well = [run for run in runs if run["code"] == 0]
                if not well:
                    print(f"{app} {deployment}: {kind}, not healthy (exit codes {[run['code'] for run in runs]})")
                    continue
                least = min(well, key=lambda run: float(run["wall"]))
                walls = [run["wall"] for run in well]
                slow += least["wall"] > ALLOWED[kind]
                told = " ".join(f"{least[name]:.2f}" for name in PHASES)
                print(
                    f"{app} {deployment}: {kind}, {min(walls):.1f} to {max(walls):.1f}, CPU {least['cpu']:.1f}, {told}"
                    f" (load {least['load']:.0f}){' TOO LONG' if least['wall'] > ALLOWED[kind] else ''}",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
