"""Runs recommended deployments on a machine that is left alone, crowded, short of disk and memory, or stopped.

    python benchmarks/soak.py [-n 2000] [-j 2] [--seed 1] [--rows FILE] [--pressure NAME]...

Nothing in a recipe may break, however little time its server gets: what is judged broken, and is no known defect of
`findings/`, is a false alarm. Each run is a line of JSON in FILE; what an earlier command did is not done again, so
that a campaign may be spread over nights; the folders of false alarms are kept beside it. Prints a table of all rows.
Exits 1 at a false alarm, or where more than 1 % of the verdicts of runs that were left alone, or 10 % of those under a
pressure, are unknown. A server that a known defect has hung is not led through the rest of its faults: what is
undecided for that reason alone is counted apart, as left out.

Pressures, with their share of the runs:
  none    40 %  the runs alone, `-j` at once
  hogs    50 %  eight processes that compute beside them
  disk     5 %  a process that writes and syncs, and one that holds and touches half of the free memory
  stops    5 %  every 0.2 to 1 s, everything, forkproof or any one process stands still for up to 2 s
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from test_recipes import is_a_finding  # noqa: E402

from forkproof import containment, explore  # noqa: E402
from forkproof.errors import CouldNotDecide  # noqa: E402
from forkproof.launch import remove_folder  # noqa: E402
from forkproof.scenario import Scenario  # noqa: E402
from forkproof.session import Session, open_session  # noqa: E402
from forkproof.verdict import Verdict  # noqa: E402
from forkproof_strategies import recipes  # noqa: E402

SHARES = {"none": 0.4, "hogs": 0.5, "disk": 0.05, "stops": 0.05}
UNKNOWN_AT_MOST = {"none": 0.01}
UNDER_PRESSURE = 0.1
HOGS = 8
BLOCK = 64 << 20
"""Bytes that are written before each sync."""

Row = dict[str, Any]


def hog(parent: int) -> None:
    """Compute until the parent is gone."""
    while os.getppid() == parent:
        sum(range(100_000))


def fill(parent: int, folder: str) -> None:
    """Write, sync, delete."""
    block = os.urandom(1 << 20)
    while os.getppid() == parent:
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(BLOCK // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())


def hoard(parent: int) -> None:
    """Hold half of the memory that is free, and touch it again and again."""
    free = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    held = bytearray(int(free.split()[1]) * 512)
    while os.getppid() == parent:
        for at in range(0, len(held), 4096):
            held[at] = 1


def stop(parent: int, folder: str, seed: str) -> None:
    """Let everything, forkproof itself or any one process stand still for a while, again and again."""
    chance = random.Random(seed)
    while os.getppid() == parent:
        time.sleep(chance.uniform(0.2, 1.0))
        ours = [stat.pid for stat in containment.carrying(folder) if stat.pid != os.getpid()]
        pids = chance.choice([[parent, *ours], [parent], [chance.choice([parent, *ours])]])
        try:
            _send(pids, signal.SIGSTOP)
            time.sleep(chance.uniform(0.05, 2.0))
        finally:
            _send(pids, signal.SIGCONT)


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.contextmanager
def pressure(name: str, out: Path, seed: str) -> Iterator[None]:
    """Keep the processes of a pressure beside what is run."""
    me = os.getpid()
    calls = {
        "none": [],
        "hogs": [f"hog({me})"] * HOGS,
        "disk": [f"fill({me}, {str(out)!r})", f"hoard({me})"],
        "stops": [f"stop({me}, {str(out)!r}, {seed!r})"],
    }[name]
    # Out of the runs' own folder and environment: what carries its name is taken for a part of it.
    code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}; import soak; soak."
    others = [subprocess.Popen([sys.executable, "-c", code + call]) for call in calls]
    try:
        yield
    finally:
        for process in others:
            process.terminate()
            process.wait()
        for stat in containment.carrying(str(out)) if name == "stops" else ():
            _send([stat.pid], signal.SIGCONT)


def one_run(session: Session, what: Scenario, under: str, kept: Path | None) -> Row:
    """Run a recipe once and count its verdicts; its folder is kept where something broke that should not."""
    begun = time.monotonic()
    row: Row = {"digest": what.digest, "pressure": under, "verdicts": {}, "false": [], "unknown": {}, "findings": 0}
    try:
        report = session.run(what)
    except CouldNotDecide as error:
        row["unknown"] = {"the run": str(error)[:300]}
        row["verdicts"] = {"unknown": 1}
        return row
    findings = [judgement.finding for judgement in report.judgements]
    row["verdicts"] = dict(Counter(found.verdict.value for found in findings))
    row["unknown"] = {found.claim: found.explanation[:300] for found in findings if found.verdict is Verdict.UNKNOWN}
    broken = [judgement for judgement in report.judgements if judgement.finding.verdict is Verdict.BROKEN]
    for judgement in broken:
        if judgement.known_issue or is_a_finding(judgement.finding, [one.finding for one in broken]):
            row["findings"] += 1
        else:
            row["false"].append(str(judgement.finding)[:500])
    if row["findings"]:
        row["ended"] = sum("ever landed" in told for told in row["unknown"].values())
    row["seconds"] = round(time.monotonic() - begun, 2)
    if row["false"]:
        row["scenario"] = what.to_dict()
        if kept:
            # Not the sockets: what is left of a server that was killed cannot be copied.
            shutil.copytree(report.folder, kept / report.folder.name, ignore=shutil.ignore_patterns("*.ctl"))
    remove_folder(report.folder)
    return row


def table(rows: list[Row]) -> tuple[str, bool]:
    """The rows by pressure, as Markdown, and whether they keep their bounds."""
    lines = [
        "| pressure | runs | verdicts | held | known defects | left out | unknown | share unknown | false broken |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    good = True
    for name in SHARES:
        some = [row for row in rows if row["pressure"] == name]
        counts: Counter[str] = Counter()
        for row in some:
            counts.update(row["verdicts"])
        ended = sum(row.get("ended", 0) for row in some)
        unknown = counts["unknown"] - ended
        decided = counts["held"] + counts["broken"] + unknown
        share = unknown / decided if decided else 0.0
        false = sum(len(row["false"]) for row in some)
        known = sum(row["findings"] for row in some)
        lines.append(
            f"| {name} | {len(some)} | {decided} | {counts['held']} | {known} | {ended} | {unknown} | {share:.2%} "
            f"| {false} |"
        )
        good &= not false and share <= UNKNOWN_AT_MOST.get(name, UNDER_PRESSURE)
    return "\n".join(lines), good


def read_rows(path: Path | None) -> list[Row]:
    """What earlier commands found; a line that was torn by their end is left out."""
    rows = []
    for line in path.read_text().splitlines() if path and path.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def main() -> int:
    """Run what is not yet in the rows, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=2000)
    parser.add_argument("-j", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--pressure", action="append", choices=sorted(SHARES))
    parser.add_argument("--target")
    options = parser.parse_args()
    rows = read_rows(options.rows)
    with contextlib.ExitStack() as stack:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fps-")))
        session = stack.enter_context(open_session(target_name=options.target, out=out / "o"))
        classes, lacks = explore.abilities(session.target)
        every = explore.drawn(options.n, options.seed, recipes(worker_classes=classes, lacks=lacks))
        random.Random(options.seed).shuffle(every)  # each pressure gets all recipes
        first = 0
        for name, share in SHARES.items():
            some = every[first : (first := first + round(share * len(every)))]
            done = {row["digest"] for row in rows if row["pressure"] == name}
            some = [what for what in some if what.digest not in done]
            if not some or (options.pressure and name not in options.pressure):
                continue

            def run(what: Scenario, name: str = name) -> Row:
                return one_run(session, what, name, options.rows and options.rows.with_suffix(".kept"))

            with pressure(name, out, f"{options.seed}"), ThreadPoolExecutor(options.j) as pool:
                for number, row in enumerate(pool.map(run, some), 1):
                    rows.append(row)
                    if options.rows:
                        with options.rows.open("a") as file:
                            file.write(json.dumps(row) + "\n")
                    if row["false"] or number % 20 == 0:
                        print(f"{name} {number}/{len(some)} {row['false'] or ''}", flush=True)
    text, good = table(rows)
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
