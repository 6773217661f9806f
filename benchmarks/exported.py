"""Whether each failure that is in this repository can be exported, and what each exported folder comes to on its own.

    python benchmarks/exported.py [-j 2] [--runs 3] [--tries 3] [--rows FILE] [--only GLOB]... [--every-claim]

For each deployment of the findings, of the examples and of the planted bugs: run it until something breaks, export that
as `forkproof export` does, run the folder as a stranger would, with a new environment from its own requirements, and
once more with a cure: the planted bug's control, or a change with which it is promised, or found by forkproof, to hold.
The folder must exit 1, and 0 when cured. Writes `docs/exported.md` and `docs/exported.json` when all were done;
`--rows` keeps what was done, and goes on from there. Exits 1 where something did not show or not pass.

    python benchmarks/exported.py --again [-j 2] [--rows FILE] [--only GLOB]...

Runs each folder as it would be written now once more, and with its cure, and compares: writes no page.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fnmatch
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from exportable import DEPLOYMENTS, Deployment  # noqa: E402

from forkproof.cause import changes  # noqa: E402
from forkproof.errors import CouldNotDecide, ForkproofError, UsageError  # noqa: E402
from forkproof.expectation import Expectation, expect  # noqa: E402
from forkproof.judge import Judgement, RunReport, assess  # noqa: E402
from forkproof.launch import remove_folder  # noqa: E402
from forkproof.ledger import Ledger, Row  # noqa: E402
from forkproof.reproducer import (  # noqa: E402
    Broken,
    NoProgramError,
    Reproducer,
    options,
    programs,
    reproducer,
    trial,
    write,
)
from forkproof.scenario import Scenario  # noqa: E402
from forkproof.session import Session, open_session  # noqa: E402
from forkproof.simplify import changed, neighbours  # noqa: E402
from forkproof.target import describe, inspect  # noqa: E402
from forkproof.verdict import Verdict  # noqa: E402

PAGE = ROOT / "docs" / "exported.md"

BROADER = ("no_socket_shared_across_fork",)
"""Claims that hold in more than their programs call sound, as docs/export.md says: a cure is what both call so."""

CURES = 8
"""Changes that are run at most to find a cure, and pairs of them."""

UNTOLD = 3
"""How often at most a try is made that ends with 2, since a machine was too busy for the server to boot."""

Candidate = tuple[str, Scenario, int]
"""A change in words, what it makes, and how late it is tried."""

GIVEN = 2
"""How late a change is tried of what is given: what a loop does, and what is done to the server."""

MORE = 10
"""Tries beside the first ones of what shows in some of them."""

CONFIRMED = 3
"""In how many calls of its script a race must not show to be cured: one of 100 that does nothing passes one."""

PATIENCE = 120
"""Seconds in which as many more are begun, as long as it shows in none: what is quick to try may be a rarer race."""

BUG, SOUND, NO_ANSWER, NO_END = 1, 0, 2, -1
"""What a script exits with, or does not."""


class Environments:
    """One environment for each requirements.txt, made with nothing of ours in it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._made: dict[str, Path] = {}

    def python(self, requirements: str) -> Path:
        """The Python that has these installed."""
        with self._lock:
            if requirements not in self._made:
                folder = self._root / f"e{len(self._made)}"
                (folder / "made").mkdir(parents=True)
                listed = folder / "requirements.txt"
                listed.write_text(requirements, encoding="utf-8")
                subprocess.run([sys.executable, "-m", "venv", str(folder / "made")], check=True)
                python = folder / "made" / "bin" / "python"
                subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(listed)], check=True)
                self._made[requirements] = python
            return self._made[requirements]


class Bench:
    """Everything that the deployments share."""

    def __init__(self, session: Session, root: Path, kept: Path, runs: int, tries: int) -> None:
        self.session = session
        self.root = root
        self.kept = kept
        self.runs = runs
        self.tries = tries
        self.environments = Environments(root)
        self._judged: dict[str, RunReport | None] = {}

    def rows(
        self,
        name: str,
        deployment: Deployment,
        before: Mapping[str, Row],
        may_run: Callable[[], bool],
        *,
        every_claim: bool,
    ) -> Iterator[Row]:
        """What came of a deployment: a row for each broken claim and loop, of which the first, or each, is exported.

        `before` has rows of earlier, by their key; `may_run` tells whether there is time for one more.
        """
        if f"{name}#" in before:
            return
        if not self._kept(name).is_dir() and not may_run():
            if not any(key.startswith(f"{name}#") for key in before):
                yield {"key": f"{name}#", "deployment": name, "came": "not run"}
            return
        report = self._broken(name, deployment)
        if report is None:
            yield {"key": f"{name}#", "deployment": name, "came": "nothing broke", "runs": self.runs}
            return
        broken = sorted(report.broken, key=lambda one: (one.finding.claim not in deployment.about, not one.surprise))
        found: list[Row] = []
        for judgement in broken:
            finding = judgement.finding
            row: Row = {
                "key": f"{name}#{finding.claim}#{finding.loop or ''}", "deployment": name,
                "claim": finding.claim, "loop": finding.loop, "how": finding.how,
            }  # fmt: skip
            if row["key"] in before:
                found.append(before[row["key"]])
                continue
            try:
                choices = options(report, finding.claim, finding.loop)
            except UsageError as error:
                yield row | {"came": "refused", "why": str(error).partition("\n")[2].partition(": ")[2]}
                continue
            enough = not every_claim and any(one["came"] == "exported" for one in found)
            if enough or not may_run():
                first = choices[0]
                yield row | {"came": "text", "lines": first.lines_of_python, "left_out": list(first.left_out)}
                continue
            cures = [one["cure"] for one in [*found, *before.values()] if one.get("cured") == SOUND]
            found.append(row | self._exported(choices, judgement, deployment, cures))
            yield found[-1]

    def again(self, deployment: Deployment, row: Row) -> dict[str, tuple[int, int]]:
        """What its script exits with as it would be written now, and with its cure, beside what it is to exit with."""
        versions = self.session.target.to_dict() | _versions(row)
        broken = Broken(row["claim"], row["loop"], row["how"])
        choices = programs(deployment.scenario, broken, versions)
        made = next((one for one in choices if list(one.left_out) == row["left_out"]), choices[0])
        if row["came"] == "cannot tell":
            return {"alone": (self._once(made), NO_ANSWER)}
        shown, tried = row["rate"]
        codes = {"alone": (self._alone(made.with_rate(shown, tried)), BUG)}
        if "cure" in row:
            sound = self._cure(made, deployment, row["cure"])
            codes["cured"] = (self._alone(sound.with_rate(shown, tried)), SOUND)
        return codes

    def _cure(self, made: Reproducer, deployment: Deployment, words: str) -> Reproducer:
        """The program with the cure that these words, of a row, tell."""
        given = self._given(made, deployment)
        if given is not None:
            return given[1]
        candidates = itertools.chain(self._candidates(made), self._in_two(made, [words.partition(" and ")[0]]))
        other = next(other for told, other, _ in candidates if told == words)
        return reproducer(other, made.broken, self.session.target.to_dict())

    def _given(self, made: Reproducer, deployment: Deployment) -> tuple[str, Reproducer] | None:
        """The cure that a planted bug comes with, in words and as a program."""
        if deployment.control == deployment.scenario:  # a bug of gunicorn itself
            ours = inspect(sys.executable).to_dict()
            return f"gunicorn {ours['gunicorn']}", reproducer(made.scenario, made.broken, ours)
        if deployment.control is not None and made.broken.claim in deployment.about:
            return "the control", reproducer(deployment.control, made.broken, self.session.target.to_dict())
        return None

    def _kept(self, name: str) -> Path:
        return self.kept / name.replace("/", "-")

    def _broken(self, name: str, deployment: Deployment) -> RunReport | None:
        """A run in which what it is about broke, or else anything; None where nothing does."""
        kept = self._kept(name)
        if kept.is_dir():
            return assess(kept)
        other = None
        for _ in range(self.runs):
            try:
                report = self.session.run(deployment.scenario)
            except CouldNotDecide:
                continue
            claims = {judgement.finding.claim for judgement in report.broken}
            if claims and (not deployment.about or claims & set(deployment.about)):
                other = report
                break
            other = other or (report if claims else None)
        if other is None:
            return None
        shutil.move(other.folder, kept)
        return assess(kept)

    def _exported(
        self, choices: Sequence[Reproducer], judgement: Judgement, deployment: Deployment, cures: Sequence[str] = ()
    ) -> Row:
        """What its folder comes to; `cures` were some of other claims of the deployment."""
        shown, tried, most, made = 0, 0, 0, choices[0]
        for made in choices[: trial.MOST]:
            codes = self._codes(made, is_whole=made is choices[0])
            if set(codes) == {NO_ANSWER}:  # nothing is looked at where no worker boots: that is workers_boot's
                told = f"exits 2 in {len(codes)} of {len(codes)}: its server does not boot"
                return {"came": "cannot tell", "lines": made.lines_of_python, "left_out": [], "told": told}
            if not {BUG, SOUND}.issuperset(codes):
                return {"came": "wrong", "lines": made.lines_of_python, "left_out": list(made.left_out), "codes": codes}
            shown, tried = codes.count(BUG), len(codes)
            most = max(most, tried)
            if shown:
                break
        else:
            made, rate = choices[0], [0, most]
            return {
                "came": "did not show",
                "lines": made.lines_of_python,
                "left_out": list(made.left_out),
                "rate": rate,
            }
        found: Row = {
            "came": "exported", "lines": made.lines_of_python, "left_out": list(made.left_out),
            "rate": [shown, tried],
            "alone": BUG if shown == tried else self._alone(made.with_rate(shown, tried)),
        }  # fmt: skip
        found |= self._cured(made, (shown, tried), judgement, deployment, cures)
        good = found["alone"] == BUG and found.get("cured") == SOUND
        return found | ({} if good else {"came": "wrong" if "cured" in found or found["alone"] != BUG else "no cure"})

    def _codes(self, made: Reproducer, *, is_whole: bool) -> list[int]:
        """What the tries come to; more of them where some show, or none though nothing was left out: it is a race."""
        codes = [self._alone(made) for _ in range(self.tries)]
        until = time.monotonic() + PATIENCE
        if set(codes) == {BUG, SOUND} or (is_whole and set(codes) == {SOUND}):
            codes += [self._alone(made) for _ in range(MORE)]
        while is_whole and set(codes) == {SOUND} and time.monotonic() < until:
            codes += [self._alone(made) for _ in range(MORE)]
        return codes

    def _alone(self, made: Reproducer) -> int:
        """The exit code of its script, run as whoever gets the folder would; again where that could not tell."""
        code = NO_END
        for _ in range(UNTOLD):
            code = self._once(made)
            if code in (BUG, SOUND):
                break
        return code

    def _once(self, made: Reproducer) -> int:
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            python = self.environments.python(made.files["requirements.txt"])
            write(made, Path(folder) / "it")
            environment = {"PATH": os.environ["PATH"], "HOME": folder, "PYTHON": str(python)}
            try:
                code, said = trial.run(Path(folder) / "it", environment, made.tries)
            except CouldNotDecide as error:
                code, said = NO_END, str(error)
            if code not in (BUG, SOUND):
                print(f"{made.broken}: exits {code}: {said}", file=sys.stderr, flush=True)
            return code

    def _cured(
        self,
        made: Reproducer,
        rate: tuple[int, int],
        judgement: Judgement,
        deployment: Deployment,
        cures: Sequence[str],
    ) -> Row:
        """What the program of a scenario in which it holds comes to, and what that does differently.

        Sound is the control, what the documentation promises to hold, or what forkproof finds to hold. What was a cure
        of another claim of the deployment is tried first, then what is simpler: of a failure that was made as small as
        can be, whatever is left out makes it hold. Two changes are tried where no one is a cure. What
        is sound is tried as often as shows the bug, and again where that is a race, of which forkproof's one run says
        nothing.
        """
        broken = made.broken
        given = self._given(made, deployment)
        if given is not None:
            return {"cure": given[0], "cured": self._cure_alone(given[1], rate)}
        trusted = judgement.expectation is not Expectation.MUST_HOLD
        tried = 0
        for candidates in (self._candidates(made), self._in_two(made, cures)):
            for is_open, words, sound in itertools.islice(self._sound(candidates, broken, cures, trusted), CURES):
                tried += 1
                if trusted and not is_open and self._cure_alone(sound, rate) == SOUND:
                    return {"cure": words, "cured": SOUND}
                if self._holds(sound):
                    code = self._cure_alone(sound, rate)
                    if code == SOUND or (rate[0] == rate[1] and broken.claim not in BROADER):
                        return {"cure": words, "cured": code}
        return {"tried": tried}

    def _cure_alone(self, sound: Reproducer, rate: tuple[int, int]) -> int:
        """What the script of a cure comes to, in each of its calls or else in the first that differs."""
        code = SOUND
        for _ in range(CONFIRMED if rate[0] < rate[1] else 1):
            code = self._alone(sound.with_rate(*rate))
            if code != SOUND:
                break
        return code

    def _sound(
        self, candidates: Iterable[Candidate], broken: Broken, cures: Sequence[str], trusted: bool
    ) -> Iterator[tuple[bool, str, Reproducer]]:
        """The programs of what may be sound, the likeliest first, and whether the documentation leaves that open.

        Of what broke though it was promised to hold, a promise makes no change likelier.
        """
        versions = self.session.target.to_dict()
        found: list[tuple[bool, Candidate]] = []
        for one in candidates:
            promise = expect(one[1], broken.claim, broken.loop, versions, broken.how)[0]
            if promise is not Expectation.MUST_BREAK:
                found.append((promise is Expectation.MAY_BREAK, one))
        found.sort(key=lambda one: (one[1][2] == GIVEN, trusted and one[0], one[1][0] not in cures, one[1][2]))
        for is_open, (words, other, _) in found:
            try:
                sound = reproducer(other, broken, versions)
            except NoProgramError:
                continue
            yield is_open, words, sound

    def _holds(self, sound: Reproducer) -> bool:
        """Whether the claim holds there; it is run once for all claims."""
        what = sound.scenario
        if what.digest not in self._judged:
            self._judged[what.digest] = None
            with contextlib.suppress(CouldNotDecide):
                report = self._judged[what.digest] = self.session.run(what)
                remove_folder(report.folder)
        judged = self._judged[what.digest]
        told = judged and judged.judgement(sound.broken.claim, sound.broken.loop)
        return told is not None and told.finding.verdict is Verdict.HELD

    def _in_two(self, made: Reproducer, cures: Sequence[str]) -> Iterator[Candidate]:
        """What is simpler in two things; before that, in one beside what was a cure of another claim."""
        seen = set()
        for words, other, late in sorted(self._candidates(made), key=lambda one: one[0] not in cures):
            if late == 0 or words in cures:
                for more, both, later in self._candidates(dataclasses.replace(made, scenario=other)):
                    if later == 0 and both.digest not in seen:
                        seen.add(both.digest)
                        yield f"{words} and {more}", both, 0

    def _candidates(self, made: Reproducer) -> Iterator[Candidate]:
        """What differs in one thing, the cheapest changes first, and how late it is to be tried.

        Before that comes what differs in one thing of each of several loops. What is no cure, as it takes away what is
        wanted, is the last.
        """
        whole = made.scenario
        simpler = {one.digest for one in neighbours(whole)}
        told: list[Candidate] = []
        singly: list[Candidate] = []
        for change, other in changes(whole, keep={loop.name for loop in whole.loops}):
            late = GIVEN if change.cost is None else int(other.digest not in simpler)
            singly.append((change.words, other, late))
            if change.path[0] == "loops" and change.path[1] == 0 and len(whole.loops) > 1:
                each: Scenario | None = whole
                for index in range(len(whole.loops)):
                    each = each and changed(each, ("loops", index, *change.path[2:]), change.after)
                if each is not None:
                    told.append((change.words.replace(f"'{whole.loops[0].name}'", "each loop"), each, late))
        for words, other, late in [*told, *singly]:
            if len(other.faults) == len(whole.faults):
                with contextlib.suppress(ForkproofError):
                    self.session.target.require(other)
                    yield words, other, late


HOLDING = (
    "examples/fork-phase/half-imported-module-cured",
    "examples/original-report/proposal-gevent-sleep-no-preload",
)
"""What is there to be compared with what breaks."""

RARE = {
    "findings/greenlet-lock-held-at-fork": "it takes some hundred workers, as its own reproduce.sh ends",
    "examples/fork-phase/boot-deadlock": "gunicorn stops its control thread before a fork, from 25.2.0 on",
    "examples/original-report/proposal-on-starting-many-boots": "a race, of one in some fifteen boots",
    "examples/original-report/symptom-c-thread-false-many-boots": "a race, of one in some forty boots",
}
"""Why something does not break in a few runs that may break."""


def _why_nothing_broke(name: str) -> str:
    explained = name.startswith("examples/explained/") and not DEPLOYMENTS[name].about
    return RARE.get(name, "it is there to hold" if explained or name in HOLDING else "")


def page(rows: Sequence[Row], versions: dict[str, str | None], command: str) -> str:
    """The whole page."""
    counts = Counter(row["came"] for row in rows)
    if "text" in counts:
        counts["exported and not run"] = counts.pop("text")
    lines = [
        "# What is exported, run on its own",
        "",
        f"Made by `{command}` on {describe(versions)}.",
        "",
        "Each deployment of the findings, the examples and the planted bugs was run until something broke, and that",
        "was exported, for each claim that broke. The folder was run in a new environment, one for each",
        "requirements.txt that there is: it must exit 1. Then with a cure: the planted bug's control, or one change",
        "(two where no one is enough) with which the claim is promised, or found by forkproof, to hold. It must exit",
        "0. *showed* is in how many tries it showed: of those that `--tries` says, and of ten more where only some of",
        "them, or none, did, and again of ten in the first two minutes as long as none did; then `reproduce.sh` has",
        "as many tries as show it in 99 of 100 calls, and passes three calls with the cure. A try that could not tell",
        "(exit code 2: no server within 30 s, on a busy machine) is none. What shows in no try is written by no",
        "`forkproof export`. The command was started several times, and went on from the rows that it had;",
        "what would be another program now was run once more, with its cure (`--again`).",
        *_elsewhere(rows, versions),
        "",
        "; ".join(f"{what}: {count}" for what, count in counts.most_common()),
        "",
        "| deployment | claim | lines | left out | showed | alone | cure | cured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        claim = f"`{row['claim']}`" + (f" ({row['loop']})" if row["loop"] else "") if "claim" in row else row["came"]
        made = [str(row.get("lines", "")), ", ".join(row.get("left_out", ()))]
        told = "{} of {}".format(*row["rate"]) if "rate" in row else ""
        if row["came"] in ("text", "cannot tell"):
            cells = [*made, row.get("told", "not run"), "", "", ""]
        elif row["came"] == "refused":
            cells = [*made, f"refused: {row['why']}", "", "", ""]
        elif "alone" in row:
            none = f"none of {row['tried']} changes is one" if "tried" in row else "none was found"
            cured = f"exits {row['cured']}" if "cured" in row else ""
            cells = [*made, told, f"exits {row['alone']}", row.get("cure", none), cured]
        elif "claim" in row:
            why = RARE.get(row["deployment"], "")
            cells = [*made, told, f"exits 0{': ' if why else ''}{why}", "", ""]
        else:
            why = _why_nothing_broke(row["deployment"])
            cells = [*made, f"in {row['runs']} runs{': ' if why else ''}{why}" if "runs" in row else "", "", "", ""]
        other = _differs(row, versions)
        lines.append(f"| {row['deployment']}{f' ({other})' if other else ''} | {claim} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _elsewhere(rows: Sequence[Row], versions: dict[str, str | None]) -> list[str]:
    others = [row for row in rows if _differs(row, versions)]
    return ["A deployment that says so was run on another version, which has its bug."] if others else []


def _versions(row: Row) -> dict[str, str]:
    """The versions that a row was made with."""
    parts = [part.partition(" ") for part in row.get("on", "").split(", ") if part]
    return {name.lower(): version for name, _, version in parts}


def _again(bench: Bench, chosen: Mapping[str, Deployment], rows: Iterable[Row], pool: Executor) -> int:
    """Run what these rows tell once more; the exit code."""
    rows = [
        row for row in rows if row["deployment"] in chosen and row["came"] in ("exported", "no cure", "cannot tell")
    ]

    def once(row: Row) -> bool:
        codes = bench.again(chosen[row["deployment"]], row)
        print(f"{row['key']}: {codes}", flush=True)
        return all(code == meant for code, meant in codes.values())

    same = list(pool.map(once, rows))
    print(f"{sum(same)} of {len(same)} as they were told")
    return int(not all(same))


def _differs(row: Row, versions: dict[str, str | None]) -> str:
    """The versions that a row was made with, where the page's are others."""
    here = describe(versions).split(", ")
    return ", ".join(part for part in row.get("on", "").split(", ") if part and part not in here)


def main() -> int:
    """Run, write, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-j", type=int, default=2, help="deployments at once")
    parser.add_argument("--runs", type=int, default=3, help="how often one is run until something breaks")
    parser.add_argument("--tries", type=int, default=3, help="how often each folder is tried")
    parser.add_argument("--target", help="the Python to test")
    parser.add_argument("--rows", type=Path, help="what was done, and is not done again")
    parser.add_argument("--kept", type=Path, metavar="DIR", help="broken runs, which are not run again")
    parser.add_argument("--time", type=float, default=None, metavar="S", help="run nothing more after S seconds")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="these deployments alone")
    parser.add_argument("--again", action="store_true", help="run what was done once more as it is now")
    parser.add_argument("--every-claim", action="store_true", help="export each claim that broke, not the first alone")
    arguments = parser.parse_args()
    chosen = {
        name: what
        for name, what in DEPLOYMENTS.items()
        if not arguments.only or any(fnmatch.fnmatch(name, pattern) for pattern in arguments.only)
    }
    try:
        with tempfile.TemporaryDirectory(prefix="fp-") as folder:
            ledger = Ledger(arguments.rows or Path(folder) / "rows.jsonl")
            lock, left = threading.Lock(), list[Row]()
            until = math.inf if arguments.time is None else time.monotonic() + arguments.time
            with (
                open_session(target_name=arguments.target, out=Path(folder) / "r") as session,
                ThreadPoolExecutor(arguments.j) as pool,
            ):
                kept = arguments.kept or Path(folder) / "kept"
                kept.mkdir(exist_ok=True)
                bench = Bench(session, Path(folder), kept, arguments.runs, arguments.tries)
                if arguments.again:
                    return _again(bench, chosen, ledger, pool)

                def work(name: str) -> None:
                    begun = time.monotonic()
                    before = {row["key"]: row for row in ledger if row["deployment"] == name}
                    found = bench.rows(
                        name,
                        chosen[name],
                        before,
                        lambda: time.monotonic() < until,
                        every_claim=arguments.every_claim,
                    )
                    for row in found:
                        with lock:
                            if row["came"] in ("text", "not run"):
                                left.append(row)
                                continue
                            ledger.add(row | {"on": describe(session.target.to_dict())})
                        told = {key: value for key, value in row.items() if key not in ("key", "deployment")}
                        print(f"{name} ({time.monotonic() - begun:.0f} s): {json.dumps(told)}", flush=True)

                for done in [pool.submit(work, name) for name in chosen]:
                    done.result()
                versions = session.target.to_dict()
            order = {name: number for number, name in enumerate(DEPLOYMENTS)}
            rows = sorted(
                (row for row in [*ledger, *left] if row["deployment"] in chosen),
                key=lambda row: order[row["deployment"]],
            )
    except ForkproofError as error:
        print(f"exported: {error}", file=sys.stderr)
        return error.exit_code
    print(dict(Counter(row["came"] for row in rows)))
    if not arguments.only:
        command = f"python benchmarks/exported.py --tries {arguments.tries}"
        command += " --every-claim" if arguments.every_claim else ""
        PAGE.write_text(page(rows, versions, command), encoding="utf-8")
        data: dict[str, Any] = {"schema": 1, "target": versions, "rows": [_told(row, versions) for row in rows]}
        PAGE.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return int(any(row["came"] in ("did not show", "wrong") for row in rows))


def _told(row: Row, versions: dict[str, str | None]) -> Row:
    """A row without its key, and without the versions where they are the page's."""
    hidden = ("key",) if _differs(row, versions) else ("key", "on")
    return {name: value for name, value in row.items() if name not in hidden}


if __name__ == "__main__":
    sys.exit(main())
