"""The scenarios of the original report: what each must show on a current stack, and that the page tells of each.

Asserted is what does not hang on a race; the page has the rates of the rest.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forkproof import original_report
from forkproof.history import History
from forkproof.original_report import (
    CASES,
    CHINESE,
    DATA,
    DOCS,
    ENGLISH,
    LANGUAGES,
    SCENARIOS,
    differences,
    load,
    pages,
    render,
)
from forkproof.original_report_cases import SECTIONS
from forkproof.original_report_words import Words
from forkproof.plugin import Forkproof
from forkproof.scenario import Scenario
from forkproof.target import describe
from forkproof.verdict import Verdict

HELD, BROKEN, NOT_APPLICABLE = {Verdict.HELD}, {Verdict.BROKEN}, {Verdict.NOT_APPLICABLE}
NOT_BROKEN = {Verdict.HELD, Verdict.UNKNOWN}

Key = tuple[str, "str | None"]

_COPIED = {("no_copied_thread", "show_thread"): BROKEN, ("clean_shutdown", None): BROKEN}
_ONE_NATIVE = {
    # Undecided where the fork caught the thread in an import: the worker died or hung, and faults were left out.
    ("exactly_one_listener", "listen_redis"): NOT_BROKEN,
    ("no_copied_thread", "listen_redis"): NOT_BROKEN,
    ("every_message_handled_once", "listen_redis"): NOT_BROKEN,
    ("clean_shutdown", None): BROKEN,
}
_ONE_STANDS_STILL = {
    ("no_starved_greenlet", "listen_redis"): BROKEN,
    ("no_starved_greenlet", "work"): HELD,
    ("workers_boot", None): BROKEN,
    ("server_answers", None): BROKEN,
}
_ONE_PROCESS = {
    ("exactly_one_listener", "task"): HELD,
    ("no_copied_thread", "task"): HELD,
    ("clean_shutdown", None): BROKEN,
}

EXPECTED: Mapping[str, Mapping[Key, set[Verdict]]] = {
    "symptom-a-copy-preload": _COPIED,
    "symptom-a-copy-config-import": {**_COPIED, ("exactly_one_listener", "show_thread"): BROKEN},
    "symptom-a-copy-no-preload": {
        ("exactly_one_listener", "show_thread"): HELD,
        ("exactly_one_listener", "listen_redis"): HELD,
        ("no_copied_thread", "show_thread"): NOT_APPLICABLE,
        ("clean_shutdown", None): BROKEN,
    },
    "symptom-b-one-loop-stops-preload": _ONE_STANDS_STILL,
    "symptom-b-one-loop-stops-config-import": _ONE_STANDS_STILL,
    "symptom-b-one-loop-stops-no-preload": _ONE_STANDS_STILL,
    "symptom-b-copy-lost-in-lookup-preload": {("workers_boot", None): HELD, ("server_answers", None): HELD},
    # Whether the copy stands still is a race with the look-up; that there is one is none.
    "symptom-b-copy-lost-in-lookup-forced": {("no_copied_thread", "listen_redis"): BROKEN},
    "symptom-b-shared-connection-config-import": {("no_copied_thread", "listen_redis"): BROKEN},
    "symptom-c-thread-false-preload": _ONE_NATIVE,
    "symptom-c-thread-false-config-import": _ONE_NATIVE,
    "symptom-c-thread-false-many-boots": {("exactly_one_listener", "listen_redis"): HELD},
    "symptom-c-thread-false-no-preload": {
        ("exactly_one_listener", "listen_redis"): HELD,
        ("clean_shutdown", None): BROKEN,
    },
    "claim-union-of-flags-add": {("no_copied_thread", "work"): BROKEN},
    "claim-union-of-flags-remove": {("no_copied_thread", "work"): BROKEN},
    "claim-union-of-flags-worker-class": {("exactly_one_listener", "work"): HELD},
    "proposal-on-starting-no-preload": _ONE_NATIVE,
    "proposal-on-starting-many-boots": {("exactly_one_listener", "listen_redis"): HELD},
    "proposal-on-starting-preload": {("no_copied_thread", "show_thread"): BROKEN},
    "proposal-on-starting-config-import": _COPIED,
    "proposal-on-starting-thread-false-preload": _ONE_NATIVE,
    "proposal-gevent-sleep-no-preload": {
        ("exactly_one_listener", "listen_redis"): HELD,
        ("exactly_one_listener", "work"): HELD,
        ("no_starved_greenlet", "listen_redis"): HELD,
        ("server_answers", None): HELD,
    },
    "proposal-gevent-sleep-preload": {("no_copied_thread", "work"): BROKEN},
    "proposal-gevent-sleep-config-import": {
        ("no_copied_thread", "work"): BROKEN,
        ("exactly_one_listener", "work"): BROKEN,
    },
    "plan-1-thread-false-preload": {**_ONE_NATIVE, ("exactly_one_listener", "task"): NOT_BROKEN},
    "plan-1-thread-false-config-import": {**_ONE_NATIVE, ("exactly_one_listener", "task"): NOT_BROKEN},
    "plan-1-thread-false-no-preload": {
        ("no_starved_greenlet", "listen_redis"): BROKEN,
        ("server_answers", None): BROKEN,
        ("workers_boot", None): BROKEN,
    },
    "plan-2-process-no-preload": {("exactly_one_listener", "task"): BROKEN, ("clean_shutdown", None): BROKEN},
    "plan-2-process-preload": _ONE_PROCESS,
    "plan-2-process-config-import": {**_ONE_PROCESS, ("workers_boot", None): HELD},
}


@pytest.mark.fork
@pytest.mark.parametrize("name", EXPECTED)
def test_a_scenario_shows_what_the_page_says(name: str, forkproof: Forkproof) -> None:
    report = forkproof.run(load(name)).report
    found = {judgement.key: judgement.finding for judgement in report.judgements}
    wrong = [found[key] for key, allowed in EXPECTED[name].items() if found[key].verdict not in allowed]
    assert not wrong
    special = _SPECIAL.get(name)
    if special is not None:
        special(report.loops, History.read(report.folder / "history"))


def _copy_is_shown_as_dummy(loops: Any, history: History) -> None:
    rows = next(loop["processes"] for loop in loops if loop["name"] == "show_thread")
    shown = {(row["role"], row["slot"], row["thread"], row["copied"]) for row in rows}
    assert shown == {("arbiter", None, "Thread", False), ("worker", 0, "_DummyThread", True)}
    assert len({row["birth"] for row in rows}) == 1


def _one_connection_in_the_last_window(loops: Any, history: History) -> None:
    window = history.windows[-1]
    sent = history.between("publish.ok", window.opened, window.closed)
    assert {event["receivers"] for event in sent} == {1}
    ids = [event["message"] for event in sent]
    handled = [event["message"] for event in history.of("handled") if event["message"] in ids]
    assert sorted(handled) == sorted(set(ids))


def _threads_are_patched(*expected: tuple[str, bool]) -> Any:
    def check(loops: Any, history: History) -> None:
        calls = [
            (history.processes[event.process].place.role, "threading" in event["saved"])
            for event in history.of("patch")
            if event["site"] != "worker_class"
        ]
        assert calls == list(expected)

    return check


_SPECIAL = {
    "symptom-a-copy-preload": _copy_is_shown_as_dummy,
    "symptom-a-copy-config-import": _copy_is_shown_as_dummy,
    "symptom-b-shared-connection-config-import": _one_connection_in_the_last_window,
    "claim-union-of-flags-add": _threads_are_patched(("arbiter", False), ("arbiter", True)),
    "claim-union-of-flags-remove": _threads_are_patched(("arbiter", True), ("arbiter", True)),
    "claim-union-of-flags-worker-class": _threads_are_patched(("arbiter", False), ("worker", True)),
    # What thread=False asked for in the app, and what the worker class had done before.
    "symptom-c-thread-false-no-preload": _threads_are_patched(("worker", True), ("worker", True)),
}


FILES = sorted(path.stem for path in SCENARIOS.glob("*.json"))


def test_every_file_has_a_case_and_a_test() -> None:
    assert set(FILES) == set(CASES) == set(EXPECTED)


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_a_scenario_of_the_reported_server(name: str) -> None:
    what = load(name)
    assert isinstance(what, Scenario)
    assert (what.server.worker_class, what.server.workers) == ("geventwebsocket", 1)
    assert not any(loop.daemon for loop in what.loops)


@pytest.mark.parametrize("words", LANGUAGES, ids=lambda words: words.page)
def test_the_page_names_every_file(words: Words) -> None:
    page = (DOCS / words.page).read_text(encoding="utf-8")
    for name in FILES:
        assert f"### {name}\n" in page
        assert f"forkproof run examples/original-report/{name}.json" in page


def test_the_pages_are_made_from_the_committed_results() -> None:
    data = json.loads(DATA.read_bytes())
    for page, text in pages(data).items():
        assert page.read_text(encoding="utf-8") == text
    for lane in data["lanes"].values():
        assert set(lane["scenarios"]) == set(FILES)


@pytest.mark.parametrize("words", LANGUAGES, ids=lambda words: words.page)
def test_each_language_has_words_for_the_sections_and_scenarios_and_for_no_others(words: Words) -> None:
    assert set(words.sections) == {section.name for section in SECTIONS}
    assert set(words.cases) == set(CASES)


def parts(page: str) -> Iterator[tuple[str, str]]:
    """The level of each heading, with the title where that is a scenario; and what stands below it."""
    for part in re.split(r"^(?=#)", page, flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        yield title if title.startswith("### ") else title.split()[0], text


def cells(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]


def facts(text: str) -> tuple[list[str], Counter[str], list[str]]:
    """Where links lead, the numbers beside them, and the blocks."""
    links = [link for link in re.findall(r"\]\(([^)]*)\)", text) if link != ENGLISH.page]
    numbers = re.findall(r"\d+(?:\.\d+)*", re.sub(r"\]\([^)]*\)", "", text))
    return sorted(links), Counter(numbers), re.findall(r"^    .*", text, flags=re.MULTILINE)


def data_of(cell: str) -> tuple[list[str], list[str]]:
    return re.findall(r"`[^`]*`", cell), re.findall(r"\d+", cell)


def unlike(english: str, other: str) -> list[str]:
    """Where a page in another language tells anything else than the English one."""
    ours, theirs = list(parts(english)), list(parts(other))
    found = [f"heading {b}, not {a}" for (a, _), (b, _) in zip(ours, theirs, strict=False) if a != b]
    found += [f"{len(theirs)} headings, not {len(ours)}"] if len(ours) != len(theirs) else []
    found += [
        f"{a}: {facts(y)}, not {facts(x)}" for (a, x), (_, y) in zip(ours, theirs, strict=False) if facts(x) != facts(y)
    ]
    if [len(row) for row in cells(english)] != [len(row) for row in cells(other)]:
        return [*found, "other tables"]
    said: defaultdict[str, set[str]] = defaultdict(set)
    for row, its in zip(cells(english), cells(other), strict=True):
        found += [f"{b}, not {a}" for a, b in zip(row, its, strict=True) if data_of(a) != data_of(b)]
        for a, b in zip(row, its, strict=True):
            said[re.sub(r"`[^`]*`|\d+", "#", a)].add(re.sub(r"`[^`]*`|\d+", "#", b))
    found += [f"{a} is {sorted(b)}" for a, b in said.items() if len(b) > 1]
    of = Counter(b for each in said.values() for b in each)
    return found + [f"{b} stands for more than one" for b, count in of.items() if count > 1]


NAMES = {
    "gunicorn", "gevent", "greenlet", "Flask", "Redis", "Python", "dnspython", "pycryptodome", "forkproof", "WebSocket",
    "fork", "master", "worker", "thread", "_after_fork", "on_starting", "gevent.sleep", "now", "then",
    "gevent.monkey", "gevent.os", "os.register_at_fork", "patch_os", "threading", "multiprocessing",
    "arbiter.py", "threadpool.py", "ggevent.py", "ceval.c", "_patcher.py", "False",
}  # fmt: skip
"""What stays as it is in any language."""


def left_over(page: str, data: Mapping[str, Any]) -> list[str]:
    """English words between the others: not in code, addresses, titles that are names and terms in brackets."""
    prose = [line for line in page.splitlines() if not line.startswith(("    ", "### "))]
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|（[a-z ]+）", " ", "\n".join(prose))
    measured = " ".join(measured_words(data))
    return sorted(
        {*re.findall(r"[A-Za-z_][\w.]*[a-z]", text, re.ASCII)} - NAMES - {*re.findall(r"[A-Za-z_]\w+", measured)}
    )


def measured_words(data: Mapping[str, Any]) -> Iterator[str]:
    """What tables have from the runs."""
    for lane in data["lanes"].values():
        yield describe(lane["target"])
        for result in lane["scenarios"].values():
            yield from (f"{row['loop']} {row['place']}" for row in result["loops"])
            yield from (" ".join([row["place"], *row["saved"]]) for row in result["patches"])


def test_the_chinese_page_tells_what_the_english_one_does() -> None:
    english, chinese = ((DOCS / words.page).read_text(encoding="utf-8") for words in (ENGLISH, CHINESE))
    assert unlike(english, chinese) == []
    assert left_over(chinese, json.loads(DATA.read_bytes())) == []


def test_what_a_translation_lacks_is_found() -> None:
    data = json.loads(DATA.read_bytes())
    english, chinese = render(data, ENGLISH), render(data, CHINESE)
    for old, new in (
        ("\n### plan-2-process-preload\n", "\n"),
        ("成立 0/3", "成立 1/3"),
        ("成立 0/3", "属实 0/3"),
        ("| arbiter |", "| 主进程 |"),
        ("（未轮到）", "循环"),
        ("glossary.md", "index.md"),
        ("24.0.0", "24.0.1"),
        ("plan-1-thread-false-preload.json", "plan-1-thread-false.json"),
    ):
        assert old in chinese
        assert unlike(english, chinese.replace(old, new, 1)) != []
    untranslated = replace(CHINESE, cases={**CHINESE.cases, FILES[0]: ENGLISH.cases[FILES[0]]})
    assert left_over(render(data, untranslated), data) != []
    assert left_over(chinese.replace("成立 0/3", "held 0/3", 1), data) == ["held"]


def test_a_line_of_chinese_that_ends_is_no_space() -> None:
    written = replace(CHINESE, introduction="- 监听\n  循环\n  fork，\n  `a`\n  b\n- 副本")
    assert render({"lanes": {}}, written).startswith("- 监听循环 fork，`a` b\n- 副本\n")


def test_the_pages_have_no_path_of_the_machine_they_were_made_on() -> None:
    text = "".join((DOCS / words.page).read_text(encoding="utf-8") for words in LANGUAGES) + DATA.read_text("utf-8")
    assert not any(folder in text for folder in (tempfile.gettempdir(), str(Path.home()), str(Path.cwd())))


def _result(**verdicts: Mapping[str, int]) -> dict[str, Any]:
    return {"claims": [{"claim": claim, "loop": None, "verdicts": seen} for claim, seen in verdicts.items()]}


def test_a_changed_verdict_is_a_difference_unless_it_is_a_declared_race() -> None:
    case = CASES["symptom-b-one-loop-stops-preload"]
    old, new = _result(workers_boot={"broken": 3}), _result(workers_boot={"held": 3})
    assert differences(case, old, new) == (
        ["symptom-b-one-loop-stops-preload: workers_boot: was broken, is held"],
        [],
    )
    assert differences(case, old, old) == ([], [])
    assert differences(replace(case, races=frozenset({"workers_boot"})), old, new) == ([], [])


def test_a_claim_that_came_later_is_no_difference() -> None:
    case = CASES["symptom-b-one-loop-stops-preload"]
    old, new = _result(workers_boot={"held": 3}), _result(workers_boot={"held": 3}, no_leak_on_reload={"broken": 3})
    assert differences(case, old, new) == ([], [])
    assert differences(case, new, old)[0] == [f"{case.name}: no_leak_on_reload: was broken, is absent"]


def test_an_unknown_verdict_is_no_difference_but_is_told() -> None:
    case = CASES["symptom-b-one-loop-stops-preload"]
    differ, untold = differences(case, _result(workers_boot={"broken": 3}), _result(workers_boot={"unknown": 3}))
    assert (differ, len(untold)) == ([], 1)


def test_a_lost_copy_is_a_race_for_loops_that_hear_redis_only() -> None:
    case = CASES["symptom-a-copy-preload"]
    for loop, differs in (("listen_redis", False), ("show_thread", True)):
        old = {"claims": [{"claim": "no_copied_thread", "loop": loop, "verdicts": {"broken": 3}}]}
        new = {"claims": [{"claim": "no_copied_thread", "loop": loop, "verdicts": {"held": 3}}]}
        assert bool(differences(case, old, new)[0]) is differs


def test_the_deployment_in_one_line() -> None:
    line = original_report.deployment(load("symptom-c-thread-false-preload"), ENGLISH)
    assert line.startswith("1 `geventwebsocket` worker, preload; `patch_all(thread=False)` at app first line; ")
    assert line.endswith("; then kill worker, term")
