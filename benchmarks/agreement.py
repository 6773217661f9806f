"""Runs fixed scenarios several times over, and tells how far the verdicts of the rounds agree.

    python benchmarks/agreement.py [-n 100] [--rounds 3] [-j 2] [--seed 1] [--boots] [--json FILE]

The scenarios are those that `forkproof explore --seed` draws. With `--boots` the first round starts every server cold,
the second one forks each from a nest, and so on in turn. What then differs is run again, three times either way: a
claim that comes to one verdict whenever it is started cold and to another whenever warm is the warm start's doing.

Two shares are told: of scenarios whose verdict, the worst of their claims, is the same in each round, and of single
claims. What differs is a race, or ours: each one is named, with how often it broke. Exits 1 where fewer than 99 % of
the scenarios agree, or a verdict is the warm start's doing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from forkproof import explore
from forkproof.errors import CouldNotDecide
from forkproof.launch import remove_folder
from forkproof.nest import Nests
from forkproof.scenario import Scenario, from_dict
from forkproof.session import LocalSession, Session, open_session
from forkproof_strategies import scenarios

AT_LEAST = 0.99
AGAIN = 3
WHOLE = "the scenario"

Verdicts = dict[str, str]


def verdicts_of(session: Session, what: Scenario) -> Verdicts:
    """The verdict of a run and of each claim in it."""
    try:
        report = session.run(what)
    except CouldNotDecide:
        return {WHOLE: "unknown"}
    found = [judgement.finding for judgement in report.judgements]
    remove_folder(report.folder)
    named = {f"{one.claim} of {one.loop}" if one.loop else one.claim: one.verdict.value for one in found}
    return {WHOLE: report.verdict.value, **named}


def compare(rounds: Sequence[Sequence[Verdicts]], every: Sequence[Scenario]) -> dict[str, Any]:
    """What agrees over the rounds, and what does not."""
    agree: Counter[bool] = Counter()
    claims: Counter[bool] = Counter()
    differ = []
    for what, results in zip(every, zip(*rounds, strict=True), strict=True):
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for result in results:
            for name, verdict in result.items():
                seen[name][verdict] += 1
        agree[len(seen.pop(WHOLE)) == 1] += 1
        apart = {name: dict(counts) for name, counts in seen.items() if len(counts) > 1}
        claims[True] += len(seen) - len(apart)
        claims[False] += len(apart)
        if apart:
            differ.append({"digest": what.digest, "claims": apart, "scenario": what.to_dict()})
    return {
        "rounds": len(rounds),
        "scenarios": {"same": agree[True], "of": agree.total()},
        "claims": {"same": claims[True], "of": claims.total()},
        "differ": differ,
    }


def one_round(session: LocalSession, every: Sequence[Scenario], jobs: int, nests: Nests | None) -> list[Verdicts]:
    """The verdicts of each scenario, with every server forked from these nests, or cold."""
    session.around = replace(session.around, nests=nests)
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda what: verdicts_of(session, what), every))


def by_the_start(cold: Sequence[Sequence[Verdicts]], warm: Sequence[Sequence[Verdicts]]) -> list[list[str]]:
    """For each scenario the names whose verdicts have none in common between the two; unknown is in common with all."""
    found = []
    for colds, warms in zip(zip(*cold, strict=True), zip(*warm, strict=True), strict=True):
        names = {name for one in (*colds, *warms) for name in one}
        ways = {name: [{one.get(name, "unknown") for one in each} for each in (colds, warms)] for name in names}
        found.append(sorted(name for name, (a, b) in ways.items() if not a & b and "unknown" not in a | b))
    return found


def main() -> int:
    """Run the rounds, print what agrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-j", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target")
    parser.add_argument("--boots", action="store_true", help="start cold and warm in turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="fpa-") as folder,
        open_session(target_name=options.target, out=Path(folder), warm=options.boots) as session,
    ):
        classes, lacks = explore.abilities(session.target)
        strategy = scenarios(worker_classes=classes, flags=session.target.patch_flags, without=lacks)
        every = explore.drawn(options.n, options.seed, strategy, session.can_run)
        nests = session.around.nests
        if options.boots:
            if nests is None:
                parser.error("every server is started cold here: see docs/speed.md")
            nests.eager = True
        rounds = []
        for number in range(options.rounds):
            rounds.append(one_round(session, every, options.j, nests if options.boots and number % 2 else None))
            print(f"round {number + 1} of {options.rounds}: {len(every)} scenarios", flush=True)
        result = compare(rounds, every)
        doing = {}
        if options.boots:
            apart = [from_dict(one["scenario"]) for one in result["differ"]]
            again = [[one_round(session, apart, options.j, way) for _ in range(AGAIN)] for way in (None, nests)]
            doing = dict(zip((one.digest for one in apart), by_the_start(*again), strict=True))
    for one in result["differ"]:
        print(one["digest"], "; ".join(f"{name}: {counts}" for name, counts in one["claims"].items()))
    for digest, names in doing.items():
        print(f"{digest} {AGAIN} times cold and warm: {', '.join(names) or 'no difference that keeps to the start'}")
    for name in ("scenarios", "claims"):
        same, of = result[name]["same"], result[name]["of"]
        print(f"{name}: {same} of {of} agree in {options.rounds} rounds ({same / max(of, 1):.1%})")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    agree = result["scenarios"]["same"] >= AT_LEAST * result["scenarios"]["of"]
    return 0 if agree and not any(doing.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
