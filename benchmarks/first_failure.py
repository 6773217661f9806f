"""How soon an exploration comes to a first failure of each claim, and to that failure confirmed and shrunk.

    python benchmarks/first_failure.py [--claim NAME]... [-n 60] [-j 2] [--seed 1] [--target T] [--json FILE]

For each claim, scenarios that can exercise it are drawn and run until one breaks it; where the planted bug of
`tests/planted.py` is in the stack and not in the deployment, on a stack with that bug. The failure is then run again,
shrunk, and the smallest scenario run again, as `forkproof explore` does it. Exits 1 where the medians are beyond 10 and
60 seconds, or where no failure was found.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from planted import session_with_the_bug

from forkproof import explore
from forkproof.claims import REGISTRY
from forkproof.judge import Judgement, RunReport
from forkproof.session import Session, open_session
from forkproof.target import describe
from forkproof.verdict import Verdict

FIRST, SHRUNK = 10.0, 60.0


@dataclass(frozen=True)
class Row:
    """Launches and seconds up to a claim's first failure, and up to the end of shrinking; None where none was found."""

    claim: str
    how: str = ""
    launches: int | None = None
    seconds: float | None = None
    shrunk_launches: int | None = None
    shrunk_seconds: float | None = None
    size: tuple[int, int] | None = None
    """The length of what is not at its default, before and after."""
    rate: tuple[int, int] | None = None


def measure(session: Session, claim: str, n: int, jobs: int, seed: int) -> Row:
    """Explore until a claim breaks, confirm and shrink."""
    session.claims = [claim]
    explorer = explore.Explorer(session, jobs=jobs, find_causes=False)
    todo = explore.cheapest_first(explore.draw(n, seed, session.target, session.around.broker, [claim]))
    before, begun = session.launched, time.monotonic()
    reports = explorer.run_all(todo)
    # As it comes: what is under way then ends beside the confirming, which waits for its turn.
    found = next((pair for pair in map(broken, reports) if pair is not None), None)
    if found is None:
        return Row(claim)
    report, judgement = found
    first = session.launched - before, round(time.monotonic() - begun, 1)
    key = explore.key_of(judgement)
    failed, tried, _ = explorer.rate(report.scenario, key, explore.CONFIRM)
    steps = explorer.shrink(report.scenario, key, judgement.finding.loop, (max(1, failed), max(1, tried)))
    smallest = steps[-1][0].scenario if steps else report.scenario
    rate = explorer.rate(smallest, key, explore.CONFIRM)[:2]
    shrunk = session.launched - before, round(time.monotonic() - begun, 1)
    sizes = explore.size(report.scenario), explore.size(smallest)
    return Row(claim, judgement.finding.how, *first, *shrunk, sizes, rate)


def broken(report: RunReport) -> tuple[RunReport, Judgement] | None:
    """A run with the first that it broke; None where it broke nothing."""
    found = (judgement for judgement in report.judgements if judgement.finding.verdict is Verdict.BROKEN)
    judgement = next(found, None)
    return None if judgement is None else (report, judgement)


def line(row: Row) -> str:
    """One row, as Markdown."""
    if row.launches is None or row.size is None or row.rate is None:
        return f"| `{row.claim}` | never | | | | | | |"
    return (
        f"| `{row.claim}` | {row.how} | {row.launches} | {row.seconds} | {row.shrunk_launches} | {row.shrunk_seconds} "
        f"| {row.size[0]} to {row.size[1]} | {row.rate[0]} of {row.rate[1]} |"
    )


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claim", action="append", choices=list(REGISTRY), help="this one alone; may be repeated")
    parser.add_argument("-n", type=int, default=60, help="how many scenarios are drawn for a claim at most")
    parser.add_argument("-j", type=int, default=2, help="how many servers at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    print(
        "| claim | broke as | launches | s | launches, shrunk | s | size | fails |\n|---|---|---|---|---|---|---|---|"
    )
    with (
        tempfile.TemporaryDirectory(prefix="fpf-") as folder,
        open_session(target_name=options.target, out=Path(folder)) as session,
    ):
        for claim in options.claim or REGISTRY:
            with session_with_the_bug(session, claim) as sick:
                rows.append(measure(sick, claim, options.n, options.j, options.seed))
            print(line(rows[-1]), flush=True)
        versions = session.target.to_dict()
    found = [(row.seconds, row.shrunk_seconds) for row in rows if row.seconds is not None]
    medians = [statistics.median(times) for times in zip(*found, strict=True) if None not in times]
    print(f"\n{len(found)} of {len(rows)} found, medians {medians} s, {describe(versions)}")
    if options.json:
        data = {"schema": 1, "target": versions, "claims": [asdict(row) for row in rows], "medians": medians}
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return int(len(found) < len(rows) or medians[0] > FIRST or medians[1] > SHRUNK)


if __name__ == "__main__":
    sys.exit(main())
