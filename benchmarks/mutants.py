"""Is the judge honest? Plants one defect at a time in a copy of forkproof, and runs the tests against it.

    python benchmarks/mutants.py [-k TEXT | --missing] [-j N] [--json FILE]

The defects are those of `benchmarks/defects.py`. Each must make the suite red, a claim that comes to unknown where it
was held or broken included; one that leaves it green is a survivor. The quick tests that concern the file come first,
then, where a defect names them, tests with real servers. The copy without a defect must be green, or everything would
be "caught".

Exits 1 where a defect survived, 2 where one cannot be planted, 4 where the tests themselves do not work. A whole run
writes the section "The judge itself" of `docs/trust.md`; `--missing` runs those that have no row there, and adds it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from defects import AREAS, DEFECTS, TESTS, Defect

from forkproof import containment

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path("docs", "trust.md")
HEADING = "## The judge itself"
COPIED = (
    "harness", "strategies", "tests", "benchmarks", "docs", "examples", "findings", ".ci",
    "conftest.py", "pyproject.toml", "README.md", "CHANGELOG.md", "tox.ini", "LICENSE",
)  # fmt: skip
LONGEST = {"not fork": 180.0, "fork": 420.0}
"""Seconds after which tests that do not end are taken for red."""


class Unfit(Exception):
    """A defect that cannot be planted, or tests that show nothing; `code` is the exit code."""

    def __init__(self, told: str, code: int) -> None:
        super().__init__(told)
        self.code = code


@dataclass(frozen=True)
class Ran:
    """What some tests came to: the first that failed and why, how many passed, or that they did not end."""

    failed: str = ""
    why: str = ""
    passed: int = 0
    late: bool = False


@dataclass(frozen=True)
class Row:
    """What became of one defect. `caught_by` is the first test that failed, empty for a survivor."""

    name: str
    tells: str
    file: str
    caught_by: str
    why: str
    servers: bool
    seconds: float


def problem(defect: Defect, root: Path) -> str:
    """Why a defect cannot be planted; empty where it can."""
    told = misplaced(defect, root)
    if told or not defect.file.endswith(".py"):
        return told
    try:
        compile((root / defect.file).read_text(encoding="utf-8").replace(defect.old, defect.new), defect.file, "exec")
    except SyntaxError as error:
        return f"{defect.name}: {defect.file} would be no Python: {error.msg}, line {error.lineno}"
    return ""


def misplaced(defect: Defect, root: Path) -> str:
    """Why the text of a defect, or its tests, are not there; empty where they are."""
    try:
        text = _text(root / defect.file)
    except OSError as error:
        return f"{defect.name}: {defect.file}: {error.strerror}"
    times = text.count(defect.old)
    if times != 1:
        return (
            f"{defect.name}: its text stands {times} times in {defect.file}, and must stand there once: {defect.old!r}"
        )
    if defect.old == defect.new:
        return f"{defect.name}: it changes nothing"
    missing = [test for test in tests_of(defect) if not (root / test.partition("::")[0]).is_file()]
    if missing or not tests_of(defect):
        return f"{defect.name}: no such test: {', '.join(missing) or 'none is named'}"
    return ""


@functools.cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def tests_of(defect: Defect) -> tuple[str, ...]:
    """All tests that a defect is put to."""
    return quick_of(defect) + defect.servers


def quick_of(defect: Defect) -> tuple[str, ...]:
    """The quick tests that concern a defect: those that it names, or those of its file."""
    return defect.quick or TESTS.get(defect.file, ())


def copied(root: Path, to: Path) -> Path:
    """A copy of everything that the tests need."""
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif (root / name).is_file():
            shutil.copy(root / name, to / name)
    return to


def plant(defect: Defect, root: Path) -> None:
    """Put a defect into a copy; Unfit where that cannot be."""
    told = problem(defect, root)
    if told:
        raise Unfit(told, 2)
    path = root / defect.file
    path.write_text(path.read_text(encoding="utf-8").replace(defect.old, defect.new), encoding="utf-8")


# Runs pytest there, and tells what came of it and what was imported: an installed forkproof must not be what is tested.
_INSIDE = """
import json, pathlib, sys
import pytest

class Listener:
    def __init__(self):
        self.told = {"failed": "", "why": "", "passed": 0, "broken": "", "imported": {}}

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.told["failed"]:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.told["failed"] = report.nodeid
            self.told["why"] = (crash.message if crash else str(report.longrepr))[:2000]
        self.told["passed"] += report.passed and report.when == "call"

    def pytest_collectreport(self, report):
        if report.failed and not self.told["broken"]:
            self.told["broken"] = str(report.longrepr)[-2000:]

listener = Listener()
code = pytest.main(sys.argv[2:], plugins=[listener])
listener.told["code"] = int(code)
for name in ("forkproof", "forkproof_strategies"):
    if name in sys.modules:
        listener.told["imported"][name] = sys.modules[name].__file__
pathlib.Path(sys.argv[1]).write_text(json.dumps(listener.told))
"""


def run_tests(copy: Path, tests: Sequence[str], marked: str) -> Ran:
    """Run tests of a copy until one fails; Unfit where they do not work, or are not the copy's."""
    told_in = copy / "told.json"
    told_in.unlink(missing_ok=True)
    words = [sys.executable, "-c", _INSIDE, str(told_in), "-x", "-q", "-p", "no:cacheprovider", "-m", marked]
    path = os.pathsep.join([str(copy / "harness"), str(copy / "strategies")])
    with (copy / "output").open("wb") as output:
        process = subprocess.Popen(
            [*words, f"--basetemp={copy / 't'}", *tests],
            cwd=copy, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(timeout=LONGEST[marked])
        except subprocess.TimeoutExpired:
            return Ran(f"{tests[0]} and others", f"the tests did not end within {LONGEST[marked]:.0f} s", late=True)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for stat in containment.carrying(str(copy)):  # what a defect has left behind
                with contextlib.suppress(ProcessLookupError):
                    os.kill(stat.pid, signal.SIGKILL)
    said = (copy / "output").read_text(errors="replace")[-2000:]
    if not told_in.exists():
        raise Unfit(f"pytest did not come to its end:\n{said}", 4)
    told = json.loads(told_in.read_bytes())
    if told["broken"] or told["code"] not in (0, 1, 5):
        raise Unfit(f"pytest could not run {' '.join(tests)}:\n{told['broken'] or said}", 4)
    elsewhere = {name: where for name, where in told["imported"].items() if not Path(where).is_relative_to(copy)}
    if elsewhere or "forkproof" not in told["imported"]:
        raise Unfit(f"what was tested is not the copy in {copy}: {elsewhere or 'forkproof was not imported'}", 4)
    if not told["failed"] and not told["passed"]:
        raise Unfit(f"none of these tests ran: {' '.join(tests)}\n{said}", 4)
    return Ran(told["failed"], told["why"], told["passed"])


Run = Callable[[Path, Sequence[str], str], Ran]


def put_to_the_test(defect: Defect | None, root: Path, run: Run, quick: Sequence[str], servers: Sequence[str]) -> Row:
    """Copy, plant, run the quick tests, and those with servers where the quick ones are green."""
    begun = time.monotonic()
    ran, by_servers = Ran(), False
    with tempfile.TemporaryDirectory(prefix="fp-m-") as folder:
        copy = copied(root, Path(folder))
        if defect is not None:
            plant(defect, copy)
        if quick:
            ran = run(copy, quick, "not fork")
            # A crowded machine can make any test late: that counts when it comes again.
            ran = run(copy, quick, "not fork") if ran.late else ran
        if servers and not ran.failed:
            by_servers = True
            # A crowded machine can make a test with servers red: a red counts when it comes again.
            ran = run(copy, servers, "fork")
            ran = run(copy, servers, "fork") if ran.failed else ran
    seconds = round(time.monotonic() - begun, 1)
    name, tells, file = ("", "", "") if defect is None else (defect.name, defect.tells, defect.file)
    return Row(name, tells, file, ran.failed, ran.why, by_servers, seconds)


def check(defects: Sequence[Defect], root: Path, run: Run = run_tests, jobs: int = 1) -> Iterator[Row]:
    """The rows of all defects, after the copy without one was green; Unfit where that cannot be had."""
    if not defects:
        raise Unfit("there is no such defect", 2)
    problems = [told for told in (problem(defect, root) for defect in defects) if told]
    if problems:
        raise Unfit("\n".join(problems), 2)
    quick = sorted({test for defect in defects for test in quick_of(defect)})
    servers = sorted({test for defect in defects for test in defect.servers})
    sound = put_to_the_test(None, root, run, quick, servers)
    if sound.caught_by:
        raise Unfit(f"{sound.caught_by} fails without any defect: {sound.why}", 4)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda one: put_to_the_test(one, root, run, quick_of(one), one.servers), defects)


def short(path: str) -> str:
    """A file or test without the folders that all of them have."""
    return re.sub(r"^(harness/forkproof/|strategies/|tests/)", "", path).removeprefix("payload/forkproof_payload/")


def line(row: Row) -> str:
    """One row of the table."""
    by = f"`{short(row.caught_by).partition(' ')[0].partition('|')[0]}`" if row.caught_by else "**survived**"
    return f"| {row.tells} | `{short(row.file)}` | {by} | {row.seconds:.1f} |"


def outcome(row: Row) -> str:
    """What became of a defect, in a line."""
    why = row.why.removeprefix("AssertionError: ").strip().partition("\n")[0]
    return f"{row.caught_by}: {why}"[:200] if row.caught_by else "SURVIVED"


def table(rows: Sequence[Row]) -> str:
    """All rows, as Markdown."""
    return "\n".join(["| planted defect | in | caught by | seconds |", "|---|---|---|---|", *map(line, rows)])


def figures(rows: Sequence[Row]) -> str:
    """How many of each area were caught, as Markdown."""
    names = {defect.name: area for area, defects in AREAS.items() for defect in defects}
    lines = ["| planted in | defects | by a quick test | on a real server | survived |", "|---|---|---|---|---|"]
    for area in [*AREAS, "all"]:
        here = [row for row in rows if area in (names.get(row.name), "all")]
        quick = sum(bool(row.caught_by) and not row.servers for row in here)
        servers = sum(bool(row.caught_by) and row.servers for row in here)
        lines.append(f"| {area} | {len(here)} | {quick} | {servers} | {len(here) - quick - servers} |")
    return "\n".join(lines)


def section(rows: Sequence[Row]) -> str:
    """The section of the page."""
    return f"""{HEADING}

Made by `python benchmarks/mutants.py` (`--missing` for defects that have no row yet): each defect is planted in a copy
of forkproof's own source, and must make the suite red, which a claim that comes to unknown where it was decided does
too. The copy without a defect is green.

{figures(rows)}

Each of them, with the first test that failed:

{table(rows)}
"""


def with_section(page: str, new: str) -> str:
    """A page whose section of that heading is replaced, or added at its end."""
    before, found, rest = page.partition(f"{HEADING}\n")
    if not found:
        return f"{page.rstrip()}\n\n{new}"
    after = re.search(r"^## ", rest, re.MULTILINE)
    return before + new + (f"\n{rest[after.start() :]}" if after else "")


def rows_on(page: str, defects: Sequence[Defect]) -> list[Row]:
    """The rows that a page has of these defects, read back."""
    told = {tells: (by, seconds) for tells, by, seconds in _ROW.findall(page.partition(f"{HEADING}\n")[2])}
    return [_read_back(defect, *told[defect.tells]) for defect in defects if defect.tells in told]


_ROW = re.compile(r"^\| (.*) \| `[^|]*` \| (?:\*\*survived\*\*|`([^|]*)`) \| ([\d.]+) \|$", re.MULTILINE)


def _read_back(defect: Defect, by: str, seconds: str) -> Row:
    servers = any(by.startswith(short(test)) for test in defect.servers)
    return Row(defect.name, defect.tells, defect.file, by, "", servers, float(seconds))


def main(words: Sequence[str], root: Path = ROOT, defects: Sequence[Defect] = DEFECTS, run: Run = run_tests) -> int:
    """Plant, run, tell; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    some = parser.add_mutually_exclusive_group()
    some.add_argument("-k", metavar="TEXT", help="only defects whose name or file has this in it")
    some.add_argument("--missing", action="store_true", help="only defects that have no row yet, and add it")
    parser.add_argument("-j", metavar="N", type=int, default=1, help="so many at once (1)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there as well")
    given = parser.parse_args(words)
    path = root / PAGE
    page = path.read_text(encoding="utf-8") if path.exists() else "# Why trust a verdict\n"
    kept = rows_on(page, defects) if given.missing else []
    chosen = [one for one in defects if given.k is None or given.k in one.name or given.k in one.file]
    chosen = [one for one in chosen if one.name not in {row.name for row in kept}]
    rows = []
    try:
        with tempfile.TemporaryDirectory(prefix="fp-m-") as folder:  # so that one may go on working meanwhile
            for row in check(chosen, copied(root, Path(folder)), run, given.j):
                rows.append(row)
                print(f"{row.seconds:6.1f} s  {row.name}: {outcome(row)}", flush=True)
    except Unfit as error:
        print(f"mutants: {error}", file=sys.stderr)
        return error.code
    survivors = [row for row in rows if not row.caught_by]
    print(f"{len(rows) - len(survivors)} of {len(rows)} caught")
    for row in survivors:
        print(f"survived: {row.name}: {row.tells} ({row.file})")
    if given.json:
        told = {"schema": 1, "defects": [{**asdict(row), "survived": not row.caught_by} for row in rows]}
        given.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if given.k is None:
        made = {row.name: row for row in [*kept, *rows]}
        in_order = [made[defect.name] for defect in defects]
        path.write_text(with_section(page, section(in_order)), encoding="utf-8")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
