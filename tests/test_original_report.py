"""The scenarios of the original report: what each must show on a current stack, and that the page tells of each.

Asserted is what does not hang on a race; the page has the rates of the rest.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forkproof import original_report
from forkproof.history import History
from forkproof.original_report import CASES, DATA, PAGE, SCENARIOS, differences, load, render
from forkproof.plugin import Forkproof
from forkproof.scenario import Scenario
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


@pytest.mark.parametrize("name", FILES)
def test_the_page_names_every_file(name: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"### {name}\n" in page
    assert f"forkproof run examples/original-report/{name}.json" in page


def test_the_page_is_made_from_the_committed_results() -> None:
    data = json.loads(DATA.read_bytes())
    assert PAGE.read_text(encoding="utf-8") == render(data)
    for lane in data["lanes"].values():
        assert set(lane["scenarios"]) == set(FILES)


def test_the_page_has_no_path_of_the_machine_it_was_made_on() -> None:
    text = PAGE.read_text(encoding="utf-8") + DATA.read_text(encoding="utf-8")
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
    line = original_report.deployment(load("symptom-c-thread-false-preload"))
    assert line.startswith("1 `geventwebsocket` worker, preload; `patch_all(thread=False)` at app first line; ")
    assert line.endswith("; then kill worker, term")
