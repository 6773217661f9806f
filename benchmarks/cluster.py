"""Runs the same seed here and on a Dask cluster of three workers, one of which is killed half way, and compares.

    python benchmarks/cluster.py [-n 60] [--seed 1] [--target T] [--json FILE]

The workers are processes of this machine that share no folder: a run's files come back over the network. What differs
is run again, three times either way, and eleven where a claim then still came to one verdict here and to another there
each time: of races that are equally likely either way, less than one in 100,000 is told apart by that. Exits 1 where
the scenarios are not the same ones, or a claim is so told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distributed import LocalCluster

sys.path.insert(0, str(Path(__file__).parent))
from agreement import AGAIN, WHOLE, Verdicts, by_the_start, compare, verdicts_of

from forkproof import cluster, explore
from forkproof.scenario import Scenario, from_dict
from forkproof.session import Session, open_session

WORKERS = 3

MORE = 8
"""How often what three runs tell apart is run again: among the races of 60 scenarios some are, by chance."""


def one_round(session: Session, every: Sequence[Scenario], half: threading.Event | None = None) -> list[Verdicts]:
    """The verdicts of each scenario; `half` is set when half of them are there."""
    found: dict[int, Verdicts] = {}

    def one(number: int) -> None:
        found[number] = verdicts_of(session, every[number])
        if half is not None and 2 * len(found) >= len(every):
            half.set()

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(one, range(len(every))))
    return [found[number] for number in range(len(every))]


def keeps_to_the_machine(ways: tuple[Session, Session], apart: Sequence[Scenario]) -> list[list[str]]:
    """For each scenario the claims that come to one verdict in one way and to another in the other, each time."""
    runs = [[one_round(way, apart) for _ in range(AGAIN)] for way in ways]
    found = by_the_start(*runs)
    still = [number for number, names in enumerate(found) if names]
    again = [[one_round(way, [apart[number] for number in still]) for _ in range(MORE)] for way in ways]
    every = [[[one[number] for number in still] for one in few] + more for few, more in zip(runs, again, strict=True)]
    for number, names in zip(still, by_the_start(*every), strict=True):
        found[number] = names
    return found


def main() -> int:
    """Run both, print what is the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    half = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="fpa-") as folder,
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0", local_directory=folder
        ) as machines,
        cluster.connect(machines.scheduler_address) as client,
        open_session(target_name=options.target, out=Path(folder, "a")) as here,
        cluster.open_session(client, cluster.Asked(options.target), out=Path(folder, "b")) as there,
    ):
        every, same = [explore.draw(options.n, options.seed, one.target, one.broker) for one in (here, there)]
        pids: dict[str, int] = client.run(os.getpid)
        victim = min(pids)

        def kill() -> None:
            half.wait()
            os.kill(pids[victim], signal.SIGKILL)
            print(f"worker {victim} killed half way", flush=True)

        killer = threading.Thread(target=kill)
        killer.start()
        rounds = [one_round(there, every, half), one_round(here, every)]
        killer.join()
        result = compare(rounds, every)
        apart = [from_dict(one["scenario"]) for one in result["differ"]]
        doing = keeps_to_the_machine((here, there), apart)
    for one, names in zip(result["differ"], doing, strict=True):
        print(f"{one['digest']} differs in {', '.join(one['claims'])}: {', '.join(names) or 'a race'}")
    unknown = sum(verdicts[WHOLE] == "unknown" for verdicts in rounds[0])
    print(f"{'the same' if every == same else 'other'} {len(every)} scenarios; {unknown} undecided on the cluster")
    for name in ("scenarios", "claims"):
        print(f"{name}: {result[name]['same']} of {result[name]['of']} agree")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if every == same and not any(doing) else 1


if __name__ == "__main__":
    sys.exit(main())
