"""Case zero: runs each scenario of the report that began the project, and writes docs/the-original-report.md.

    python -m forkproof.original_report [--target T] [--lane now|then] [--runs N] [--scenario NAME] [--check]

A lane is a stack on which the scenarios ran: `now`, the newest one, and `then`, one of the report's time. What the runs
gave is kept in docs/the-original-report.json, lane by lane; the page, and the same in Chinese, are made from that and
from the words of `original_report_english` and `original_report_chinese`. With --check nothing is written: exit 1 where
a verdict differs from the committed one, 3 where a run could not tell. It works in a checkout alone, where the
scenarios and the pages are.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from forkproof import scenario
from forkproof.errors import ForkproofError, UsageError
from forkproof.history import History
from forkproof.judge import RunReport
from forkproof.original_report_cases import SECTIONS, Case
from forkproof.original_report_chinese import CHINESE
from forkproof.original_report_english import ENGLISH
from forkproof.original_report_words import Words
from forkproof.scenario import Scenario
from forkproof.session import Session, open_session
from forkproof.target import describe

# A checkout is worked on in place: an installed forkproof has neither examples nor docs.
ROOT = Path.cwd()
SCENARIOS = ROOT / "examples" / "original-report"
DOCS = ROOT / "docs"
DATA = DOCS / "the-original-report.json"

LANGUAGES = (ENGLISH, CHINESE)

CASES: Mapping[str, Case] = {case.name: case for section in SECTIONS for case in section.cases}
"""The scenarios of the page, by the names of their files."""

AFTER_FORK = "no attribute '_after_fork'"
"""The end of the line that the report quotes."""

Result = dict[str, Any]
"""What the runs of one scenario gave, as plain data."""


def load(name: str) -> Scenario:
    """The scenario of a case."""
    return scenario.load(SCENARIOS / f"{name}.json")


def measure(session: Session, what: Scenario, runs: int) -> Result:
    """Run a scenario several times, and say what came of it."""
    return summarise(what, [session.run(what) for _ in range(runs)])


def summarise(what: Scenario, reports: Sequence[RunReport]) -> Result:
    """What came of several runs of a scenario."""
    histories = [History.read(report.folder / "history") for report in reports]
    return {
        "runs": len(reports),
        "claims": _claims(reports),
        "loops": _places(reports, histories),
        "messages": _messages(what, histories),
        "patches": _patches(histories),
        "lost_a_worker": sum(map(_lost_a_worker, histories)),
        "after_fork_lines": sum(AFTER_FORK in line["line"] for each in histories for line in each.of("log")),
    }


def _claims(reports: Sequence[RunReport]) -> list[dict[str, Any]]:
    """The verdicts of each claim and loop, counted."""
    counts: dict[tuple[str, str | None], Counter[str]] = {}
    for report in reports:
        for judgement in report.judgements:
            counts.setdefault(judgement.key, Counter())[judgement.finding.verdict.value] += 1
    return [{"claim": claim, "loop": loop, "verdicts": dict(seen)} for (claim, loop), seen in counts.items()]


def _places(reports: Sequence[RunReport], histories: Sequence[History]) -> list[dict[str, Any]]:
    """Where each loop was seen: in how many runs, and in how many of them it ticked in a window there."""
    seen: Counter[tuple[str, str, str | None, bool]] = Counter()
    ran: Counter[tuple[str, str, str | None, bool]] = Counter()
    for report, history in zip(reports, histories, strict=True):
        ticked = {
            (birth, process)
            for loop in report.loops
            for window in history.windows
            for birth, process in history.ticking(loop["name"], window)
        }
        rows: dict[tuple[str, str, str | None, bool], bool] = {}
        for loop in report.loops:
            for row in loop["processes"]:
                if loop["kind"] == "process" and row["thread"] is None:
                    continue  # its creator, in which it never runs
                place = row["role"] if row["slot"] is None else f"{row['role']} {row['slot']}"
                here = any(birth == row["birth"] and history.processes[key].pid == row["pid"] for birth, key in ticked)
                key = (loop["name"], place, row["thread"], row["copied"])
                rows[key] = rows.get(key, False) or here
        seen.update(rows)
        ran.update(key for key, here in rows.items() if here)
    return [
        {"loop": key[0], "place": key[1], "thread": key[2], "copied": key[3], "seen": count, "ran": ran[key]}
        for key, count in seen.items()
    ]


def _messages(what: Scenario, histories: Sequence[History]) -> list[dict[str, Any]]:
    """For each loop that hears Redis, what became of the last window's messages, all runs together."""
    found = []
    for loop in what.loops:
        if not loop.hears_redis:
            continue
        published, receivers, handlers = 0, set(), Counter[str]()
        for history in histories:
            sent = {
                event["message"]
                for window in history.windows[-1:]
                for event in history.between("publish.ok", window.opened, window.closed)
                if event["loop"] == loop.name
            }
            published += len(sent)
            receivers |= {event["receivers"] for event in history.of("publish.ok") if event["message"] in sent}
            for event in history.of("handled"):
                if event["message"] in sent:
                    handlers[str(history.processes[event.process].place)] += 1
        found.append(
            {
                "loop": loop.name,
                "published": published,
                "receivers": sorted(receivers),
                "handled": dict(sorted(handlers.items())),
            }
        )
    return found


def _lost_a_worker(history: History) -> bool:
    """Whether a worker ended before TERM that no fault had hit."""
    landed = history.of("fault.ok")
    term = min((event.t for event in landed if event["fault"] == "term"), default=float("inf"))
    hit = {event.get("target") for event in landed}
    end = min([term, *(event.t for event in history.of("killed"))])
    return any(
        process.place.role == "worker" and process.gone is not None and process.gone < end and process.pid not in hit
        for process in history.processes.values()
    )


def _patches(histories: Sequence[History]) -> list[dict[str, Any]]:
    """Each call of `patch_all` in the scenario, what was patched after it, and in how many runs."""
    calls: Counter[str] = Counter()
    for history in histories:
        for event in history.of("patch"):
            place = str(history.processes[event.process].place)
            calls[json.dumps([event["site"], event["flags"], place, event["saved"]])] += 1
    rows = []
    for call, count in calls.items():
        site, flags, place, saved = json.loads(call)
        rows.append({"site": site, "flags": flags, "place": place, "saved": saved, "runs": count})
    return rows


def word(verdicts: Mapping[str, int]) -> str:
    """One word for the verdicts of several runs; `varies` where both held and broken were seen.

    >>> word({"held": 2, "broken": 1})
    'varies'
    >>> word({"held": 2, "unknown": 1})
    'held'
    """
    told = [name for name in ("held", "broken") if verdicts.get(name)]
    if len(told) == 2:
        return "varies"
    return told[0] if told else ("unknown" if verdicts.get("unknown") else "not_applicable")


def differences(case: Case, committed: Result, found: Result) -> tuple[list[str], list[str]]:
    """Where verdicts differ from the committed ones, and where they could not be told.

    Declared races are left out, and so are claims that came after the page was made.
    """
    before = {(row["claim"], row["loop"]): word(row["verdicts"]) for row in committed["claims"]}
    after = {(row["claim"], row["loop"]): word(row["verdicts"]) for row in found["claims"]}
    differ: list[str] = []
    untold: list[str] = []
    known = {claim for claim, _ in before}
    for key in sorted(before.keys() | after.keys(), key=str):
        old, new = before.get(key, "absent"), after.get(key, "absent")
        if old == new or key[0] not in known or _may_differ(case, *key):
            continue
        line = f"{case.name}: {key[0]}{f' ({key[1]})' if key[1] else ''}: was {old}, is {new}"
        (untold if new == "unknown" else differ).append(line)
    return differ, untold


def _may_differ(case: Case, claim: str, loop: str | None) -> bool:
    if claim == "no_copied_thread" and loop is not None:
        return case.copy_may_be_lost and load(case.name).loop(loop).hears_redis
    return claim in case.races


def pages(data: Mapping[str, Any]) -> dict[Path, str]:
    """The page in each language, by its file."""
    return {DOCS / words.page: render(data, words) for words in LANGUAGES}


def render(data: Mapping[str, Any], words: Words) -> str:
    """The page."""
    lanes = {name: data["lanes"][name] for name in words.lanes if name in data["lanes"]}
    parts = [_filled(words.introduction), _stacks(lanes, words)]
    for section in SECTIONS:
        title, text = words.sections[section.name]
        parts += [f"## {title}", _filled(text)]
        if section.counts_after_fork:
            parts.append(_after_fork(lanes, words))
        for case in section.cases:
            parts += _case(case, lanes, words)
    return "\n\n".join(parts) + "\n"


def _filled(text: str) -> str:
    """Hand-written words, wrapped anew: the links that were put in have made their lines long."""
    blocks = []
    for block in text.strip().split("\n\n"):
        items = [_joined(item) for item in block.split("\n- ")]
        bullets = block.startswith("- ")
        lines = [item if index == 0 or not bullets else f"- {item}" for index, item in enumerate(items)]
        blocks.append("\n".join(_fill(line) for line in lines))
    return "\n\n".join(blocks)


_WIDE, _STOP = "[\u4e00-\u9fff]", "[\u3000-\u303f\uff00-\uff60]"
_NO_SPACE = re.compile(rf"(?<={_WIDE})\n *(?={_WIDE})|(?<={_STOP})\n *|\n *(?={_STOP})")
"""The end of a line that stands for no space: between Chinese characters, and beside their punctuation."""


def _joined(lines: str) -> str:
    return " ".join(_NO_SPACE.sub("", lines).split())


def _fill(line: str) -> str:
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table."""
    names = list(head)
    return "\n".join(["| " + " | ".join(names) + " |", "|" + "---|" * len(names), *map(_row, rows)])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _stacks(lanes: Mapping[str, Any], words: Words) -> str:
    rows = [
        (words.stack_of.format(lane=name, meaning=words.lanes[name]), describe(lane["target"]))
        for name, lane in lanes.items()
    ]
    return _rows(words.stacks_head, rows)


def _after_fork(lanes: Mapping[str, Any], words: Words) -> str:
    told = []
    for name, lane in lanes.items():
        of_all = lane["scenarios"].values()
        native = [result for case, result in lane["scenarios"].items() if _thread_false(load(case))]
        line = words.after_fork_lines.format(
            lane=name,
            lines=sum(result["after_fork_lines"] for result in of_all),
            runs=sum(result["runs"] for result in of_all),
            native=sum(result["runs"] for result in native),
        )
        told.append(f"- {line}")
    return f"{words.after_fork}\n\n" + "\n".join(told)


def _thread_false(what: Scenario) -> bool:
    return any(patch.flags.get("thread") is False for patch in what.patches)


def _case(case: Case, lanes: Mapping[str, Any], words: Words) -> list[str]:
    said, why = words.cases[case.name]
    results = {name: lane["scenarios"][case.name] for name, lane in lanes.items() if case.name in lane["scenarios"]}
    parts = [f"### {case.name}", f"*{said}*"]
    parts.append(words.deployment.format(deployment=deployment(load(case.name), words)))
    parts += [_claims_table(results, words), _places_table(results, words)]
    if any(result["lost_a_worker"] for result in results.values()):
        parts.append(_told_losses(results, words))
    if case.shows_messages:
        parts.append(_messages_table(results, words))
    if case.shows_patches:
        parts.append(_patches_table(results, words))
    parts += [_filled(why), f"    forkproof run examples/original-report/{case.name}.json"]
    return parts


def deployment(what: Scenario, words: Words) -> str:
    """A scenario in one line."""
    server = words.server.format(
        workers=what.server.workers,
        worker_class=what.server.worker_class,
        preload=words.preload[what.server.preload],
    )
    patches = [_patch(patch.flags, patch.site, words) for patch in what.patches]
    loops = [
        words.loop.format(
            name=loop.name,
            kind=words.spelt(str(loop.kind)),
            body=words.spelt(str(loop.body)),
            turn=_turn(loop.yields, words),
            start=words.spelt(str(loop.start)),
        )
        for loop in what.loops
    ]
    faults = [words.spelt(str(fault.fault)) for fault in what.faults]
    ends = [words.faults.format(faults=words.comma.join(faults))] if faults else []
    return words.semicolon.join([server, *patches, *loops, *ends])


def _patch(flags: Mapping[str, bool], site: object, words: Words) -> str:
    given = ", ".join(f"{name}={on}" for name, on in flags.items())
    return words.patch.format(call=f"`patch_all({given})`", site=words.spelt(str(site)))


def _turn(yields: scenario.Yield, words: Words) -> str:
    return words.no_yield if yields.call is scenario.YieldCall.NONE else f"`{yields.call}({yields.seconds:g})`"


def _claims_table(results: Mapping[str, Result], words: Words) -> str:
    rows = []
    keys = dict.fromkeys((row["claim"], row["loop"]) for result in results.values() for row in result["claims"])
    for claim, loop in keys:
        cells = [_cell((claim, loop), result, words) for result in results.values()]
        if any(cell != "-" for cell in cells):
            rows.append((f"`{claim}`", loop or "", *cells))
    return _rows([*words.claims_head, *results], rows)


def _cell(key: tuple[str, str | None], result: Result, words: Words) -> str:
    verdicts: Mapping[str, int] = next(
        (row["verdicts"] for row in result["claims"] if (row["claim"], row["loop"]) == key), {}
    )
    told = word(verdicts)
    broken, tried = verdicts.get("broken", 0), verdicts.get("broken", 0) + verdicts.get("held", 0)
    return {
        "held": f"{words.verdicts['held']} 0/{tried}",
        "broken": f"{words.verdicts['broken']} {broken}/{tried}",
        "varies": f"{words.verdicts['broken']} {broken}/{tried}",
        "unknown": words.verdicts["unknown"],
    }.get(told, "-")


def _places_table(results: Mapping[str, Result], words: Words) -> str:
    rows = []
    keys = dict.fromkeys(
        (row["loop"], row["place"], row["thread"], row["copied"])
        for result in results.values()
        for row in result["loops"]
    )
    for key in sorted(keys, key=lambda key: (key[0], key[1], str(key[2]))):
        loop, place, thread, copied = key
        kind = f"`{thread}`" if thread else words.no_turn
        cells = [_place_cell(key, result, words) for result in results.values()]
        rows.append((loop, place, words.copy.format(thread=kind) if copied else kind, *cells))
    return _rows([*words.places_head, *results], rows)


def _place_cell(key: tuple[str, str, str | None, bool], result: Result, words: Words) -> str:
    for row in result["loops"]:
        if (row["loop"], row["place"], row["thread"], row["copied"]) == key:
            return words.ran.format(ran=row["ran"], runs=result["runs"])
    return "-"


def _told_losses(results: Mapping[str, Result], words: Words) -> str:
    told = [
        words.losses_of.format(lane=name, lost=result["lost_a_worker"], runs=result["runs"])
        for name, result in results.items()
    ]
    return words.losses.format(each=words.comma.join(told))


def _messages_table(results: Mapping[str, Result], words: Words) -> str:
    rows = []
    for name, result in results.items():
        for row in result["messages"]:
            handled = ", ".join(f"{place}: {count}" for place, count in row["handled"].items()) or words.nobody
            rows.append((name, str(row["published"]), ", ".join(map(str, row["receivers"])), handled))
    return _rows(words.messages_head, rows)


def _patches_table(results: Mapping[str, Result], words: Words) -> str:
    rows = []
    for name, result in results.items():
        for row in result["patches"]:
            call = _patch(row["flags"], row["site"], words)
            rows.append((name, call, row["place"], ", ".join(row["saved"]), f"{row['runs']}/{result['runs']}"))
    return _rows(words.patches_head, rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; leaves by SystemExit with forkproof's exit codes."""
    arguments = _parser().parse_args(argv)
    try:
        sys.exit(_run(arguments))
    except ForkproofError as error:
        print(f"forkproof: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m forkproof.original_report",
        description="Runs the scenarios of the original report and writes its page, in each language.",
    )
    parser.add_argument("--target", metavar="T", help="the Python to test (default: the one forkproof runs in)")
    parser.add_argument("--lane", choices=list(ENGLISH.lanes), default="now", help="whose results these are")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="how often each scenario runs (default 3)")
    parser.add_argument("--scenario", action="append", metavar="NAME", choices=list(CASES), help="this one alone")
    parser.add_argument("--out", type=Path, default=Path(".forkproof"), metavar="DIR", help="where run folders go")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a verdict differs")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if not SCENARIOS.is_dir():
        raise UsageError(f"{SCENARIOS}: there is no such folder. Run it in a checkout of forkproof.")
    data: dict[str, Any] = json.loads(DATA.read_bytes()) if DATA.exists() else {"schema": 1, "lanes": {}}
    with open_session(target_name=arguments.target, out=arguments.out) as session:
        target = session.target.to_dict()
        found = _measured(session, arguments.scenario or CASES, arguments.runs)
    lane = data["lanes"].setdefault(arguments.lane, {"target": target, "scenarios": {}})
    if arguments.check:
        return _check(lane["scenarios"], found)
    lane["target"] = target
    lane["scenarios"].update(found)
    DATA.write_text(_dumped(data), encoding="utf-8")
    for page, text in pages(data).items():
        page.write_text(text, encoding="utf-8")
    return 0


def _dumped(data: Mapping[str, Any]) -> str:
    """The results as JSON, one scenario a line."""
    lanes = []
    for name, lane in data["lanes"].items():
        rows = ",\n".join(f"   {json.dumps(case)}: {json.dumps(found)}" for case, found in lane["scenarios"].items())
        lanes.append(f' {json.dumps(name)}: {{"target": {json.dumps(lane["target"])}, "scenarios": {{\n{rows}\n }}}}')
    return f'{{"schema": {data["schema"]}, "lanes": {{\n' + ",\n".join(lanes) + "\n}}\n"


def _measured(session: Session, names: Iterable[str], runs: int) -> dict[str, Result]:
    found = {}
    for name in names:
        found[name] = measure(session, load(name), runs * CASES[name].more_runs)
        broken = [row["claim"] for row in found[name]["claims"] if row["verdicts"].get("broken")]
        print(f"{name}: {', '.join(dict.fromkeys(broken)) or 'nothing'} broken", file=sys.stderr)
    return found


def _check(committed: Mapping[str, Result], found: Mapping[str, Result]) -> int:
    differ: list[str] = []
    untold: list[str] = []
    for name, result in found.items():
        if name not in committed:
            differ.append(f"{name}: is not in the committed page")
            continue
        more, unsure = differences(CASES[name], committed[name], result)
        differ += more
        untold += unsure
    print("\n".join([*differ, *untold]) or "every verdict is as in the committed page")
    return 1 if differ else 3 if untold else 0


if __name__ == "__main__":
    main()
