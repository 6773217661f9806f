"""For each claim: how soon a run catches the bug that is planted for it, and whether its control passes.

    python benchmarks/planted.py [--runs 5] [--target T] [--claim NAME]...

The deployments are those of `forkproof.planted`. Writes `docs/planted.md` and `docs/planted.json`; with `--claim` it
prints the table alone. Exits 1 where a bug was not caught or a control not held in every run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from planted import PLANTED, session_with_the_bug  # noqa: E402

from forkproof.claims import REGISTRY  # noqa: E402
from forkproof.errors import CouldNotDecide, ForkproofError  # noqa: E402
from forkproof.launch import remove_folder  # noqa: E402
from forkproof.scenario import Scenario  # noqa: E402
from forkproof.session import Session, open_session  # noqa: E402
from forkproof.target import describe  # noqa: E402
from forkproof.verdict import Verdict, merge  # noqa: E402

PAGE = ROOT / "docs" / "planted.md"


@dataclass(frozen=True)
class Row:
    """What came of one claim. `launches` and `seconds` until the bug was caught for the first time, 0 for never."""

    claim: str
    how: str
    launches: int
    seconds: float
    caught: int
    held: int
    runs: int
    planted: dict[str, Any]
    control: dict[str, Any]
    notes: Sequence[str] = ()

    @property
    def good(self) -> bool:
        """Caught every time, and held every time."""
        return self.caught == self.held == self.runs


def measure(session: Session, claim: str, runs: int) -> Row:
    """Run bug and control of one claim so many times."""
    planted, how, control = PLANTED[claim]
    begun = time.monotonic()
    launches, seconds, caught, held = 0, 0.0, 0, 0
    notes: Counter[str] = Counter()
    with session_with_the_bug(session, claim) as sick:
        for number in range(runs):
            ways = {finding_how for _, finding_how in found(sick, planted, claim)}
            if how in ways:
                caught += 1
                if not launches:
                    launches, seconds = number + 1, time.monotonic() - begun
            else:
                notes[f"the bug showed as {', '.join(sorted(map(repr, ways)))}"] += 1
    for _ in range(runs):
        verdict = merge(verdict for verdict, _ in found(session, control, claim))
        held += verdict is Verdict.HELD
        if verdict is not Verdict.HELD:
            notes[f"the control came to {verdict.value}"] += 1
    plain = [what.model_dump(mode="json", by_alias=True, exclude_defaults=True) for what in (planted, control)]
    told = [f"{what} in {times} of {runs} runs" for what, times in notes.items()]
    return Row(claim, how, launches, round(seconds, 1), caught, held, runs, plain[0], plain[1], told)


def found(session: Session, what: Scenario, claim: str) -> list[tuple[Verdict, str]]:
    """What one run came to for the claim."""
    try:
        report = session.run(what)
    except CouldNotDecide as error:
        return [(Verdict.UNKNOWN, str(error))]
    remove_folder(report.folder)
    return [(j.finding.verdict, j.finding.how) for j in report.judgements if j.finding.claim == claim]


def table(rows: Sequence[Row]) -> str:
    """One row for each claim, as Markdown."""
    lines = [
        "| claim | planted bug breaks as | launches | seconds | caught | control held |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        until = (str(row.launches), f"{row.seconds:.1f}") if row.launches else ("never", "")
        lines.append(
            f"| [`{row.claim}`](claims/{row.claim}.md) | {row.how} | {' | '.join(until)} "
            f"| {row.caught} of {row.runs} | {row.held} of {row.runs} |"
        )
    notes = [f"- `{row.claim}`: {note}" for row in rows for note in row.notes]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def page(rows: Sequence[Row], versions: dict[str, str | None]) -> str:
    """The whole page."""
    parts = [
        "# Does each claim catch what it is for?",
        f"Made by `python benchmarks/planted.py` on {describe(versions)}.",
        "For each claim a deployment has a bug planted, "
        "and its control is the same without it; both are run on real servers. *Launches* and *seconds* are what it "
        "took until the bug was caught for the first time.",
        table(rows),
        "## The deployments\n\nWhat is not said is at its default.",
    ]
    for row in rows:
        parts.append(
            f"**{row.claim}**\n\n    bug      {json.dumps(row.planted)}\n    control  {json.dumps(row.control)}"
        )
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Measure, write, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="how often each deployment is run")
    parser.add_argument("--target", help="the Python to test")
    parser.add_argument("--claim", action="append", choices=list(REGISTRY), help="this one alone; may be repeated")
    arguments = parser.parse_args()
    rows = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="fp-") as folder,
            open_session(target_name=arguments.target, out=Path(folder)) as session,
        ):
            for claim in arguments.claim or REGISTRY:
                rows.append(measure(session, claim, arguments.runs))
                print(table(rows[-1:]).splitlines()[2], *rows[-1].notes, sep="\n  ", flush=True)
            versions = session.target.to_dict()
    except ForkproofError as error:
        print(f"planted: {error}", file=sys.stderr)
        return error.exit_code
    if not arguments.claim:
        PAGE.write_text(page(rows, versions), encoding="utf-8")
        data = {"schema": 1, "target": versions, "claims": [asdict(row) for row in rows]}
        PAGE.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return int(not all(row.good for row in rows))


if __name__ == "__main__":
    sys.exit(main())
