"""Whether `forkproof advise` finds a deployment for each app of `examples/apps` that has one.

    python benchmarks/advised.py [--repeat 1] [--from gthread_preload] [--app NAME]... [--budget 900]

Starts from a deployment in which something is wrong, with the policy that each loop that the truth
knows is meant once in each worker. That
an app has one is known from `examples/truth.toml`: there it works in both workers in each phase, and ends in time at
TERM. Prints what was found, and exits 1 where an app has one and none was found.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import truth
import truth_of_check

from forkproof import check
from forkproof.advise import Adviser
from forkproof.scenario import Policy

_WORKERS = {"worker 0", "worker 1"}


def has_one(app: str) -> bool:
    """Whether the truth knows a deployment in which all of an app's loops do what they are for, once in each worker."""
    return any(_is_well(one) for one in truth.read()[app].values())


def _is_well(written: truth.Table) -> bool:
    phases = [loop[phase]["works_in"] for loop in written["loops"].values() for phase in truth.PHASES]
    everywhere = all({where for where, rate in rates.items() if _share(rate)} == _WORKERS for rates in phases)
    always = all(_share(rate) == 1 for rates in phases for rate in rates.values())
    return everywhere and always and set(written["term"]) == {"in time"}


def _share(rate: str) -> float:
    seen, tried = map(int, rate.split("/"))
    return seen / tried if tried else 0.0


def main() -> int:
    """Search, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--from", dest="start", default="gthread_preload", choices=truth.deployments())
    parser.add_argument("--app", action="append", choices=sorted(truth.LOOPS))
    parser.add_argument("--budget", type=float, default=900.0)
    parser.add_argument("--out", type=Path, default=Path(".forkproof"))
    arguments = parser.parse_args()
    missed = 0
    with check.open_checker(sys.executable, arguments.out) as checker:
        for app in arguments.app or truth.LOOPS:
            with truth_of_check.deployment(app, arguments.start) as what:
                names = ["ThreadPoolExecutor" if name == "_worker" else name for name in truth.LOOPS[app]]
                meant = replace(what, policies=dict.fromkeys(names, Policy.ONCE_PER_WORKER))
                adviser = Adviser(checker, meant, repeat=arguments.repeat, budget_seconds=arguments.budget)
                advice = adviser.advise()
            answers = [str(trial.candidate) for trial in advice.found] or (["as it is"] if advice.holds else [])
            found = ", ".join(answers) or f"none of {len(advice.trials)} that were tried, {advice.left} left"
            known = "has one" if has_one(app) else "none known"
            print(f"{app} ({known}): {found}; {advice.launched} servers in {advice.seconds:.0f} s", flush=True)
            for trial in [] if answers else advice.trials:
                print(f"    {trial.candidate}: {', '.join(trial.why)}", flush=True)
            missed += has_one(app) and not answers
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
