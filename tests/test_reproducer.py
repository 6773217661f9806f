"""Reproducers: what is written, what is refused, and that each shows its bug, and nothing where that is cured."""

from __future__ import annotations

import ast
import builtins
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted import IN_GUNICORN, PLANTED, session_with_the_bug
from test_cli import Run, run, tmp_path

from forkproof.claims import REGISTRY
from forkproof.errors import CouldNotDecide, UsageError
from forkproof.expectation import Expectation
from forkproof.faults import REGISTRY as FAULTS
from forkproof.history import Event
from forkproof.judge import Judgement, RunReport
from forkproof.reproducer import (
    LONGEST,
    Broken,
    NoProgramError,
    Reproducer,
    around,
    checks,
    options,
    programs,
    reproducer,
    require_empty,
    trial,
    write,
)
from forkproof.scenario import Scenario, from_dict, load
from forkproof.target import brought_along, inspect
from forkproof.verdict import Finding, Verdict
from forkproof_strategies import scenarios

__all__ = ["run", "tmp_path"]
VERSIONS = {"python": "3.11.7", "gunicorn": "27.0.1", "gevent": "26.9.0", "greenlet": "3.5.6", "redis": "8.1.0"}
OF_SERVER = {
    "server_answers", "arbiter_responsive", "workers_boot", "clean_shutdown", "no_orphan_process", "no_leak_on_reload",
    "no_socket_shared_across_fork", "quiet_runtime", "patch_is_what_was_asked", "foreign_child_ignored",
    "no_lock_held_at_fork", "no_half_imported_module", "no_stale_original",
}  # fmt: skip
ROOT = Path(__file__).parent.parent
FINDINGS = ROOT / "findings"
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
TWICE = from_dict({"loops": [{"name": "a", "policy": "once_per_service"}], "server": {"workers": 2}})


def of(claim: str, scenario: Scenario, how: str = "how") -> Reproducer:
    return reproducer(scenario, Broken(claim, None if claim in OF_SERVER else scenario.loops[0].name, how), VERSIONS)


def report(*findings: Finding, scenario: Scenario = TWICE) -> RunReport:
    judged = [Judgement(finding, Expectation.MUST_BREAK, "") for finding in findings]
    return RunReport(scenario, Path("run"), VERSIONS, judged)


def finding(claim: str, verdict: Verdict = Verdict.BROKEN, loop: str | None = "a", *evidence: Event) -> Finding:
    return Finding(claim, verdict, loop, "told", evidence, "double" if verdict is Verdict.BROKEN else "")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios(), st.sampled_from(sorted(REGISTRY)))
def test_any_scenario_gives_a_sound_program_or_a_reason(scenario: Scenario, claim: str) -> None:
    plain = scenario.model_copy(update={"parks": (), "surroundings": type(scenario.surroundings)()})
    for one in (scenario, plain, plain.model_copy(update={"loops": scenario.loops[:1], "faults": ()})):
        made = why = None
        try:
            made = of(claim, one)
        except NoProgramError as error:
            why = str(error)
        if made is None:
            assert len(str(why)) > 20
            continue
        assert made.lines_of_python <= LONGEST
        for name, text in made.files.items():
            assert "forkproof" not in text
            if name.endswith(".py"):
                ast.parse(text, name, feature_version=(3, 7))
                assert not re.search(r"[ \t]$|\n\n\n", text, re.MULTILINE), text
        assert subprocess.run(["sh", "-n"], input=made.files["reproduce.sh"], text=True).returncode == 0


LOOPS: list[dict[str, object]] = [
    {"body": "listen", "kind": "executor", "start": "config_import", "yields": {"every": 3}},
    {"body": "lock", "kind": "greenlet", "start": "first_request"},
    {"body": "get_message", "kind": "timer", "start": "when_ready", "yields": {"every": 2}},
    {"body": "blpop", "kind": "gevent_threadpool", "start": "fork_hook", "guard": "lock"},
    {"body": "queue_get", "kind": "native_thread", "start": "pre_fork", "yields": {"call": "native_sleep"}},
    {"body": "logger", "kind": "process_spawn", "start": "post_fork", "yields": {"call": "gevent.sleep", "every": 5}},
    {"body": "cpu", "kind": "thread", "start": "app_import", "yields": {"call": "none"}},
    {"body": "listen", "kind": "run_in_thread", "start": "on_starting"},
    {"body": "get_message", "kind": "socketio_task", "start": "app_import", "guard": "lease"},
]

AROUND: list[dict[str, object]] = [
    {"surroundings": {"log": "slow", "fork_hooks": "lock", "early_imports": [{"what": "redis_client"}]}},
    {"surroundings": {"log": "yielding", "fork_hooks": "log", "foreign_children": 2, "hiredis": True}},
    {"surroundings": {"early_imports": [{"what": "queue"}, {"what": "simple_queue", "where": "config"}]}},
    {"surroundings": {"early_imports": [{"what": "import_redis"}, {"what": "from_threading_import_lock"}]}},
    *({"parks": [{"who": "a", "at": point.value}]} for point in around.POINTS),
    {"loops": [{"name": "a", "body": "listen"}], "parks": [{"who": "a", "at": "recv"}]},
]


def assert_names_are_there(made: Reproducer) -> None:
    for name in (name for name in made.files if name.endswith(".py")):
        tree = ast.parse(made.files[name])
        defined = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        defined |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        defined |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                defined |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert used <= defined | set(dir(builtins)), name
        if name == "background.py":  # a loop of such a name would take its place
            of_loops = {form.format(loop.name) for loop in made.scenario.loops for form in around.BESIDE}
            starters = {f"start_in_{loop.start.value}" for loop in made.scenario.loops}
            could_be = {name for name in defined | used if re.fullmatch("[a-z][a-z0-9_]*", name)}
            assert could_be <= around.TAKEN | of_loops | starters


@pytest.mark.parametrize(
    "name", ["tick", "start", "handled", "redis", "import", "birth", "pubsub", "start_in_app_import"]
)
@pytest.mark.parametrize("kind", ["thread", "timer", "run_in_thread"])
def test_a_loop_may_be_called_anything(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forkproof.reproducer.LONGEST", 100)
    loops: list[dict[str, object]] = [{"name": name, "kind": kind, "body": "listen" if kind != "timer" else "blpop"}]
    loops.append({"name": f"{name}_lock", "start": "post_fork"})
    for claim in ("exactly_one_listener", "no_dead_listener", "every_message_handled_once"):
        made = of(claim, from_dict({"loops": loops}), "silent")
        tree = ast.parse(made.files["background.py"])
        bound = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        bound += [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
        assert len(bound) == len(set(bound)), bound
        [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == f"{name}_loop"]
        inside = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)} | {
            argument.arg for argument in function.args.args
        }
        assert f"{name}_loop" not in inside
        assert f'"{name}"' in made.files["check.py"]


def test_what_stands_beside_a_loop_is_not_another_loop() -> None:
    both = from_dict({"loops": [{"name": "a_lock"}, {"name": "a", "body": "lock"}]})
    made = of("exactly_one_listener", both)
    assert "def a_lock(birth):" in made.files["background.py"]
    assert "a_loop_lock = threading.Lock()" in made.files["background.py"]
    assert "with background.a_loop_lock:" in made.files["app.py"]


def test_what_a_timer_uses_lasts_from_one_to_the_next() -> None:
    one = from_dict({"loops": [{"name": "a", "kind": "timer", "body": "get_message", "yields": {"every": 2}}]})
    text = of("every_message_handled_once", one).files["background.py"]
    assert text.index("pubsub.subscribe") < text.index("while True:") < text.index("get_message") < text.index("yield")
    assert "set_a(a())" in text
    plain = from_dict({"loops": [{"name": "a", "kind": "timer"}]})
    assert "yield" not in of("exactly_one_listener", plain).files["background.py"]


@pytest.mark.parametrize("rest", AROUND, ids=str)
@pytest.mark.parametrize("claim", ["server_answers", "no_stale_original", "quiet_runtime"])
def test_what_is_around_is_there(rest: dict[str, object], claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forkproof.reproducer.LONGEST", 100)
    scenario = from_dict({"loops": [{"name": "a"}], "patches": [{"site": "post_fork"}], **rest})
    if claim == "no_stale_original" and not around.locks(scenario):
        with pytest.raises(NoProgramError, match="nothing that requests use has a lock"):
            of(claim, scenario)
    else:
        assert_names_are_there(of(claim, scenario))


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: f"{loop['body']}-{loop['kind']}")
def test_a_program_names_what_it_imports(loop: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forkproof.reproducer.LONGEST", 100)
    scenario = from_dict(
        {
            "loops": [{"name": "a", **loop}],
            "patches": [{"site": "config_after_imports", "flags": {"thread": False}}, {"site": "in_thread"}],
        }
    )
    made = of("exactly_one_listener", scenario)
    assert_names_are_there(made)
    assert (
        made.files["requirements.txt"].splitlines()[:4]
        == [
            "gunicorn[gevent]==27.0.1",
            "gevent==26.9.0",
            "greenlet==3.5.6",
            "redis==8.1.0" if scenario.loops[0].needs_redis else None,
        ][: 4 if scenario.loops[0].needs_redis else 3]
    )
    conf = made.files["gunicorn.conf.py"]
    assert conf.index("import ssl") < conf.index("monkey.patch_all(thread=False)") < conf.index("bind =")


def test_every_claim_is_shown() -> None:
    assert checks.PLANS.keys() == REGISTRY.keys()


def test_every_fault_is_done_or_refused_on_the_page() -> None:
    refused = []
    for name, kind in FAULTS.items():
        fault = {"fault": name} | ({"slot": 0} if kind.needs_slot else {})
        loop = {"name": "a", "body": "listen", "kind": "process", "start": "config_import"}
        server = {"workers": 2, "max_requests": 5 if name == "max_requests" else 0}
        try:
            of("server_answers", from_dict({"loops": [loop], "server": server, "faults": [fault]}))
        except NoProgramError as error:
            refused.append(name if f"the fault {name!r} " in str(error) else str(error))
    [told] = re.findall(r"Faults that are refused: (.*)\.$", PAGE, re.MULTILINE)
    assert told == ", ".join(f"`{name}`" for name in refused)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("parks", [{"who": "a", "at": "mid_reply"}]),
        ("parks", [{"who": "gunicorn_control", "at": "log_record"}]),
        ("surroundings", {"broker": "unix_socket"}),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_to_do(field: str, value: object) -> None:
    scenario = from_dict({"loops": [{"name": "a"}], field: value})
    with pytest.raises(NoProgramError, match=rf"^{field}.* is more than a few lines can have; run it "):
        of("server_answers", scenario)


def test_what_is_left_out_is_told() -> None:
    crowded = from_dict(
        {
            "loops": [{"name": "a", "policy": "once_per_service"}, {"name": "b", "body": "queue_get"}],
            "surroundings": {"broker": "unix_socket", "log": "slow"},
            "server": {"workers": 2},
        }
    )
    made, *_ = options(report(finding("exactly_one_listener"), scenario=crowded))
    assert "surroundings.broker unix_socket" in made.left_out
    assert f"without: {', '.join(made.left_out)}." in made.files["README.md"]
    [whole] = options(report(finding("exactly_one_listener")))
    assert not whole.left_out
    assert "Left out" not in whole.files["README.md"]


def test_as_little_is_left_out_as_need_be() -> None:
    many = from_dict(
        {
            "loops": [
                {"name": name, "kind": "executor", "body": body, "start": start, "policy": "once_per_service"}
                for name, body, start in (("a", "lock", "app_import"), ("b", "listen", "first_request"))
            ],
            "surroundings": {"early_imports": [{"what": "queue"}], "fork_hooks": "lock"},
            "server": {"workers": 2, "preload": True},
            "faults": [{"fault": "block_loop", "slot": 0}, {"fault": "hup"}],
        }
    )
    with pytest.raises(NoProgramError):
        reproducer(many, Broken("exactly_one_listener", "a", "double"), VERSIONS)
    found = programs(many, Broken("exactly_one_listener", "a", "double"), VERSIONS)
    assert found
    for made in found:
        assert made.lines_of_python <= LONGEST
        assert made.scenario.loop("a").policy == many.loops[0].policy
        assert made.scenario != many
    with pytest.raises(NoProgramError):  # a control is of all that it is the control of
        programs(many, Broken("exactly_one_listener", "a"), VERSIONS)


def test_a_surprise_comes_first_and_a_control_when_asked_for() -> None:
    double, dead = finding("exactly_one_listener"), finding("no_dead_listener")
    found = report(double, dead)
    found = replace(
        found, judgements=[found.judgements[0], replace(found.judgements[1], expectation=Expectation.MUST_HOLD)]
    )
    assert [made.broken.claim for made in options(found)] == ["no_dead_listener", "exactly_one_listener"]
    assert [made.broken.claim for made in options(found, "exactly_one_listener")] == ["exactly_one_listener"]
    held = report(finding("exactly_one_listener", Verdict.HELD))
    with pytest.raises(UsageError, match="no claim broke in this run"):
        options(held)
    [control] = options(held, "exactly_one_listener")
    assert not control.shows
    with pytest.raises(UsageError, match="workers_boot neither broke nor held in this run"):
        options(held, "workers_boot")
    with pytest.raises(UsageError, match=r"cannot be exported:\nno_stale_original: nothing that requests use"):
        options(report(finding("no_stale_original", Verdict.BROKEN, None)))


def test_faults_after_the_first_bad_window_are_left_out() -> None:
    kills = from_dict({**TWICE.to_dict(), "faults": [{"fault": "hup"}, {"fault": "kill_worker", "slot": 0}]})
    for window, faults in ((0, 0), (1, 1), (2, 2)):
        close = Event(9.0, 1, 1, "window.close", {"window": window, "turns": 9, "control": 9})
        [made] = options(report(finding("exactly_one_listener", Verdict.BROKEN, "a", close), scenario=kills))
        script = made.files["reproduce.sh"]
        assert ("kill -HUP" in script) + ('kill -9 "$old"' in script) == faults


def test_a_busy_machine_does_not_seem_to_take_all_of_the_time_to_stop() -> None:
    for asked, had in ((2, 10), (30, 30)):
        stops = from_dict({**TWICE.to_dict(), "faults": [{"fault": "term"}], "server": {"graceful_timeout": asked}})
        made = of("clean_shutdown", stops)
        assert f"graceful_timeout = {had}\n" in made.files["gunicorn.conf.py"]
        assert f"-lt {100 * had} ]" in made.files["reproduce.sh"]
        assert made.scenario == stops
        assert f"graceful_timeout = {asked}\n" in of("quiet_runtime", stops).files["gunicorn.conf.py"]


@pytest.mark.parametrize("fault", [name for name, kind in FAULTS.items() if kind.ends_the_run])
def test_nothing_is_looked_for_in_a_server_that_has_ended(fault: str) -> None:
    killed = {"fault": "kill_worker", "slot": 0}
    over = from_dict({**TWICE.to_dict(), "faults": [killed, {"fault": fault}]})
    lasting = from_dict({**TWICE.to_dict(), "faults": [killed]})
    for claim in ("workers_boot", "handover_is_safe", "server_answers", "exactly_one_listener"):
        made = of(claim, over, "no holder")
        assert made.files["reproduce.sh"] == of(claim, lasting, "no holder").files["reproduce.sh"]
    ends = 'kill -9 "$master"' if fault == "kill_arbiter" else f'kill -{fault.upper()} "$master"'
    assert ends in of("quiet_runtime", over, "").files["reproduce.sh"]


@pytest.mark.parametrize("name", ["a", "task", "server"])
def test_what_requests_start_is_looked_for_after_them(name: str) -> None:
    """Whatever words of the check, as `task` and `server.log`, have `ask` and `serve` in them."""
    on_request = from_dict({"loops": [{"name": name, "start": "first_request"}]})
    check = of("no_dead_listener", on_request, "silent without a sign").files["check.py"]
    asked, waited, looked = (check.index(words) for words in ("pool.map(ask", "time.sleep(2)  # ", "before = "))
    assert asked < waited < looked
    one_by_one = from_dict({**on_request.to_dict(), "surroundings": {"requests": "one_by_one"}})
    check = of("no_dead_listener", one_by_one, "silent without a sign").files["check.py"]
    assert "pool" not in check
    assert check.index("ask(0)") < check.index("before = ")


def test_only_the_loop_whose_handle_is_asked_leaves_ticks() -> None:
    """So there is room for two that listen."""
    listening = [{"name": name, "body": "listen", "start": "on_starting"} for name in ("a", "b")]
    both = from_dict({"loops": listening})
    made = of("no_dead_listener", both, "dead but ticking")
    assert made.files["background.py"].count("tick(") == 2  # where it is defined, and in `a`
    assert 'tick("a", birth)' in made.files["background.py"]
    assert made.files["check.py"].count("publish") == 1
    made = of("exactly_one_listener", both, "double")
    assert 'tick("b", birth)' in made.files["background.py"]
    assert made.files["check.py"].count("publish") == 2


def test_the_master_is_seen_by_its_signals_or_by_its_loops() -> None:
    early = from_dict({"loops": [{"name": "a", "start": "config_import"}]})
    signals, ticks = (of("arbiter_responsive", early, how) for how in ("does not act", "nothing enters the hub"))
    assert "kill -WINCH" in signals.files["reproduce.sh"]
    assert "check.py" not in signals.files
    assert "kill -WINCH" not in ticks.files["reproduce.sh"]
    assert "if pid == master and file not in moved" in ticks.files["check.py"]
    assert ticks.files["background.py"].count('tick("a", birth)') == 2  # once created, and in each turn


def test_an_answer_tells_what_is_half_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    native = {"loops": [{"name": "a", "start": "config_import"}], "server": {"preload": True}}
    made = of("no_half_imported_module", from_dict(native), "left half imported")
    app: dict[str, Any] = {}
    exec(made.files["app.py"], app)
    monkeypatch.setitem(sys.modules, "half", half := ModuleType("half"))
    half.__spec__ = ModuleSpec("half", None)
    # A plug-in of another test may hang in its import for as long as these tests run.
    [pid, *others] = app["app"]({}, lambda *_: None)[0].split()
    assert (int(pid), b"half" in others) == (os.getpid(), False)
    half.__spec__._initializing = True  # type: ignore[attr-defined]
    assert set(app["app"]({}, lambda *_: None)[0].split()) == {pid, b"half", *others}
    assert "pid, *half = answer.split()" in made.files["check.py"]
    assert "half" not in of("no_half_imported_module", from_dict(native), "blocks on an import").files["app.py"]


def test_the_rate_decides_how_often_it_is_tried() -> None:
    made = of("exactly_one_listener", TWICE)
    assert '"${TRIES:-1}"' in made.files["reproduce.sh"]
    assert "Seen: not tried when this was made" in made.files["README.md"]
    rare = made.with_rate(1, 4)
    assert '"${TRIES:-17}"' in rare.files["reproduce.sh"]  # 0.75 ** 17 < 0.01
    assert (made.tries, rare.tries) == (1, 17)
    assert "Seen: in 1 of 4 tries when this was made" in rare.files["README.md"]
    assert '"${TRIES:-1}"' in made.with_rate(4, 4).files["reproduce.sh"]
    assert "Seen: nothing, in 3 tries" in made.with_rate(0, 3).files["README.md"]


def test_the_page_tells_what_was_seen_and_on_what() -> None:
    made = of("exactly_one_listener", TWICE).with_rate(2, 3, "BUG: a\nb\nc\nd\ne\nf\n", "Python 3.8.1")
    page = made.files["README.md"]
    assert "Expected: `a` is to run in one process, and there once.\n" in page
    said = "\n".join(f"    {line}" for line in ("BUG: a", "b", "c", "d", "e", "..."))
    assert f"Seen: in 2 of 3 tries when this was made, on Python 3.8.1\n\n{said}\n\n" in page


@pytest.mark.parametrize("claim", checks.PLANS)
def test_what_is_expected_is_told_in_words_of_everybody(claim: str) -> None:
    told = checks.expected(TWICE, Broken(claim, "a", "how"))
    assert not re.search("window|birth|policy|claim|tick|None", told)


def test_what_two_packages_cannot_share_is_in_two_environments() -> None:
    heard = from_dict({"loops": [{"name": "a", "body": "listen", "policy": "once_per_service"}]})
    old = {"python": "3.6.15", "gunicorn": "19.7.1", "redis": "2.10.6"}
    for versions, apart in ((old, True), ({**VERSIONS, "redis": "3.5.3"}, True), (VERSIONS, False)):
        made = reproducer(heard, Broken("exactly_one_listener", "a", "double"), versions)
        assert ("fakeredis==" in made.files["requirements.txt"]) != apart
        assert ("-m pip install -q fakeredis==" in made.files["reproduce.sh"]) == apart
        assert subprocess.run(["sh", "-n"], input=made.files["reproduce.sh"], text=True).returncode == 0
    made = reproducer(heard, Broken("exactly_one_listener", "a", "double"), old)
    assert '"$PYTHON" -m gunicorn.app.wsgiapp -c' in made.files["reproduce.sh"]
    assert "python3.6 -m venv .venv" in made.files["reproduce.sh"]


def test_what_decides_without_being_imported_is_pinned_too() -> None:
    """Flask-SocketIO runs its tasks as greenlets where it finds gevent."""
    pushed = from_dict({"loops": [{"name": "a", "kind": "socketio_task"}]})
    versions = {**VERSIONS, "flask": "3.1.3", "flask-socketio": "5.7.0", "gevent-websocket": "0.10.1"}
    made = reproducer(pushed, Broken("exactly_one_listener", "a", "double"), versions)
    assert {"gevent", "greenlet", "gevent-websocket"} <= made.pinned.keys()
    installed = {**made.pinned, "zope-event": "5.0", "pip": "23.0"}
    lines = made.with_pins(installed).files["requirements.txt"].splitlines()
    assert lines == [*made.files["requirements.txt"].splitlines(), "zope-event==5.0"]
    assert made.with_pins({**installed, "gevent": "1.0"}) == made  # what is installed is not what the run had


def test_what_packages_require_is_asked_of_their_python() -> None:
    assert brought_along("/nowhere/python", ["pytest"]) == {}
    found = brought_along(sys.executable, ["pytest", "not-there"])
    assert {"pytest", "pluggy"} <= found.keys()
    assert found["pluggy"] == version("pluggy")


def test_what_is_done_to_a_server_decides_what_it_is_to_be() -> None:
    less = from_dict({"loops": [{"name": "a"}], "server": {"workers": 2}, "faults": [{"fault": "ttou"}]})
    script = of("workers_boot", less).files["reproduce.sh"]
    assert re.findall(r"^    count=(\d)$|^    (check)$", script, re.MULTILINE) == [
        ("2", ""), ("", "check"), ("1", ""), ("", "check"),
    ]  # fmt: skip
    for told, ended in (({}, 'kill -QUIT "$master"'), ({"rollback": 1}, 'kill -TERM "$(parent ')):
        again = from_dict({"loops": [{"name": "a"}], "faults": [{"fault": "usr2", "options": told}]})
        script = of("server_answers", again).files["reproduce.sh"]
        assert ended in script
        assert '"$PYTHON" serve.py -c gunicorn.conf.py' in script
        assert ('    master="$(parent "$(ready | tail -n 1)")"' in script) == (not told)


@pytest.mark.parametrize(
    ("policy", "body", "condition", "told"),
    [
        ("arbiter_only", "listen", "len(pids) != 1", "handled once."),
        ("once_per_service", "listen", "len(pids) != 1", "handled once."),
        ("once_per_worker", "listen", "sorted(pids) != sorted(workers)", "handled once in each worker."),
        ("once_per_worker", "blpop", "len(pids) != 1", "handled once, by any worker."),
        ("inherit_allowed", "listen", "not pids", "handled at least once."),
    ],
)
def test_a_message_is_counted_as_its_claim_counts_it(policy: str, body: str, condition: str, told: str) -> None:
    """Where it is handled is asked of what each worker is to have alone."""
    made = of("every_message_handled_once", from_dict({"loops": [{"name": "a", "body": body, "policy": policy}]}))
    assert f"    if {condition}:\n" in made.files["check.py"]
    assert told in made.files["README.md"]


def test_a_server_that_never_listened_is_not_asked() -> None:
    """It has not booted, which is what is to be told of it."""
    asking = from_dict({"loops": [{"name": "a", "start": "first_request"}]})
    for claim, asks in (("workers_boot", '    [ -z "$URL" ] || look\n'), ("exactly_one_listener", "{\n    look\n")):
        assert asks in of(claim, asking, "").files["reproduce.sh"]


def test_reloads_are_counted_together_and_an_end_leaves_nothing() -> None:
    twice = from_dict({**TWICE.to_dict(), "faults": [{"fault": "hup", "options": {"times": 2}}, {"fault": "hup"}]})
    assert "in $(seq 3); do" in of("no_leak_on_reload", twice, "grows").files["reproduce.sh"]
    ended = from_dict({**TWICE.to_dict(), "faults": [{"fault": "int"}]})
    assert "|| bug 'not all of the server was gone" in of("no_orphan_process", ended, "left").files["reproduce.sh"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    made = of("exactly_one_listener", TWICE)
    write(made, tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == made.files.keys()
    for wrong in (tmp_path / "new", tmp_path / "new" / "app.py"):
        with pytest.raises(UsageError):
            require_empty(wrong)
        with pytest.raises(UsageError):
            write(made, wrong)


def test_what_cannot_be_written_is_told_before_the_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UsageError, match=f"nothing can be written to {tmp_path}. Give another folder"):
        require_empty(tmp_path / "new" / "one")


def test_a_program_that_cannot_tell_is_not_written(tmp_path: Path) -> None:
    broken = replace(
        of("server_answers", TWICE),
        files={"reproduce.sh": "#!/bin/sh\necho no server\nexit 2\n", "requirements.txt": ""},
    )
    with pytest.raises(CouldNotDecide, match=r"exited with 2:\nno server"):
        trial.rate(broken, inspect(sys.executable), 1)
    python = inspect(sys.executable)
    never, always = (
        replace(broken, files={"reproduce.sh": f"#!/bin/sh\nexit {code}\n", "README.md": "", "requirements.txt": ""})
        for code in (0, 1)
    )
    assert trial.rate(always, python, 2) == trial.Rate(2, 2)
    made, found = trial.first_that_shows([never, always], python, 1)
    assert (made.files["reproduce.sh"], str(found)) == (always.files["reproduce.sh"], "in 1 of 1 tries")
    with pytest.raises(CouldNotDecide, match="no program did what the run did in 1 tries: server_answers"):
        trial.first_that_shows([never], python, 1)
    held = Broken("server_answers")  # of a cure the program must show nothing
    with pytest.raises(CouldNotDecide, match="no program did what the run did"):
        trial.first_that_shows([replace(always, broken=held)], python, 1)
    assert trial.first_that_shows([replace(never, broken=held)], python, 1)[1] == trial.Rate(0, 1)


def test_nothing_of_a_try_lives_on_where_the_machine_has_no_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forkproof.containment.namespace_prefix", lambda: ())
    script = '#!/bin/sh\nRUN="$PWD" setsid sleep 60 >/dev/null 2>&1 & echo $!\n'
    write(replace(of("server_answers", TWICE), files={"reproduce.sh": script}), tmp_path / "it")
    code, said = trial.run(tmp_path / "it", {"PATH": "/usr/bin:/bin"})
    assert code == 0
    assert ends(said.strip())


def test_a_script_of_several_tries_has_the_time_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_LONGEST", 0.5)
    write(replace(of("server_answers", TWICE), files={"reproduce.sh": "#!/bin/sh\nsleep 1\n"}), tmp_path / "it")
    with pytest.raises(CouldNotDecide, match=r"did not end within 0\.5 s"):
        trial.run(tmp_path / "it", {"PATH": "/usr/bin:/bin"})
    assert trial.run(tmp_path / "it", {"PATH": "/usr/bin:/bin"}, 20) == (0, "")


FAKE = """#!/bin/sh
# Stands in for a Python: a server that says it is ready, and a look that finds something so many times.
alone=$([ "$(ls ticks | wc -l)" -gt 1 ] || echo alone)
touch "ticks/$$"
cd "$(dirname "$0")" || exit
case "$*" in
*gunicorn*)
    echo $$ >>servers
    echo "Listening at: http://127.0.0.1:9" >&2
    [ -e no-boot ] || echo "ready: $$" >&2
    [ -e no-boot ] || exec sleep 60
    ;;
*)
    echo "x $alone" >>looks
    [ "$(wc -l <looks)" -gt "$(cat bad)" ] || echo "a runs in nobody"
    ;;
esac
"""


@pytest.mark.parametrize(("bad", "code", "looks"), [(0, 0, 1), (1, 0, 2), (9, 1, 2)], ids=["sound", "late once", "bug"])
def test_the_script_tells_a_bug_from_a_late_look_and_leaves_no_server(
    bad: int, code: int, looks: int, tmp_path: Path
) -> None:
    assert run_with_fake(tmp_path, bad=bad) == code
    assert len((tmp_path / "it" / "looks").read_text().splitlines()) == looks


def test_a_script_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
        it = tmp_path / number.name
        started = subprocess.Popen(
            ["sh", str(faked(it, bad=9) / "reproduce.sh")],
            cwd="/", env=of_fake(it), stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + 20
        while not (it / "looks").exists() and time.monotonic() < until:
            time.sleep(0.01)
        os.killpg(started.pid, number)
        started.wait(20)
        until = time.monotonic() + 5
        while list((it / "tmp").iterdir()) and time.monotonic() < until:
            time.sleep(0.01)
        assert not list((it / "tmp").iterdir())
        assert [pid for pid in (it / "servers").read_text().split() if not ends(pid)] == []


def test_two_at_once_do_not_see_each_other(tmp_path: Path) -> None:
    """Each has a folder of its own, in which a file is that only one has made."""
    it = faked(tmp_path / "with a space", bad=0)
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda _: run_fake(it), range(2)))
    assert codes == [0, 0]
    assert not list((it / "tmp").iterdir())
    assert {line.partition(" ")[2] for line in (it / "looks").read_text().splitlines()} == {"alone"}


def test_a_server_that_does_not_boot_is_no_bug_and_no_pass(tmp_path: Path) -> None:
    assert run_with_fake(tmp_path, bad=9, boots=False) == 2
    assert not (tmp_path / "it" / "looks").exists()


def ends(pid: str) -> bool:
    """Whether a process that was killed is gone, for which the kernel needs a moment."""
    until = time.monotonic() + 5
    while (there := Path("/proc", pid, "exe").exists()) and time.monotonic() < until:
        time.sleep(0.01)
    return not there


def faked(it: Path, bad: int) -> Path:
    """A folder whose server and look are not real."""
    one = TWICE.model_copy(update={"server": TWICE.server.model_copy(update={"workers": 1})})
    write(of("exactly_one_listener", one), it)
    (it / "fake").write_text(FAKE)
    (it / "fake").chmod(0o755)
    (it / "bad").write_text(str(bad))
    (it / "tmp").mkdir()
    return it


def of_fake(it: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "PYTHON": str(it / "fake"), "TMPDIR": str(it / "tmp")}


def run_fake(it: Path) -> int:
    done = subprocess.run([it / "reproduce.sh"], cwd="/", env=of_fake(it), capture_output=True, check=False)
    assert not done.stderr, "it complains of what is not there yet"
    return done.returncode


def run_with_fake(folder: Path, bad: int, boots: bool = True) -> int:
    """The exit code of a script whose server and look are not real; none of its servers must live on."""
    it = faked(folder / "it", bad)
    if not boots:
        (it / "no-boot").touch()
        script = (it / "reproduce.sh").read_text()
        assert script.count("wait_for 30 there 1") == 1
        (it / "reproduce.sh").write_text(script.replace("wait_for 30 there 1", "wait_for 1 there 1"))
    code = run_fake(it)
    assert not list((it / "tmp").iterdir())
    servers = (it / "servers").read_text().split()
    assert servers
    left = [pid for pid in servers if not ends(pid)]
    assert not left, f"servers live on: {left}"
    return code


HEARS = {"name": "a", "kind": "timer", "body": "get_message", "start": "post_fork"}
IN_MASTER = {"name": "a", "start": "on_starting", "policy": "arbiter_only"}
LEADER = {"name": "a", "start": "post_worker_init", "policy": "once_per_service", "guard": "lock"}
SOUND: list[tuple[str, dict[str, Any]]] = [
    ("every_message_handled_once", {"loops": [HEARS]}),
    ("every_message_handled_once", {"loops": [{**HEARS, "policy": "arbiter_only"}]}),
    ("workers_boot", {"server": {"workers": 2}, "faults": [{"fault": "ttou"}, {"fault": "ttin"}, {"fault": "ttou"}]}),
    ("exactly_one_listener", {"loops": [IN_MASTER], "faults": [{"fault": "usr2"}, {"fault": "hup"}]}),
    ("server_answers", {"faults": [{"fault": "usr2", "options": {"rollback": 1}}]}),
    ("server_answers", {"server": {"worker_class": "gevent_pywsgi"}, "faults": [{"fault": "usr2"}]}),
    ("exactly_one_listener", {"loops": [{"name": "tick"}]}),
    ("exactly_one_listener", {"loops": [LEADER | {"guard": "lease", "body": "listen"}], "server": {"workers": 2}}),
    ("no_starved_greenlet", {"loops": [LEADER], "server": {"workers": 2}}),
    ("no_dead_listener", {"loops": [LEADER], "server": {"workers": 2}}),
]


@pytest.mark.fork
@pytest.mark.parametrize(("claim", "what"), SOUND, ids=lambda one: one if isinstance(one, str) else "")
def test_what_is_sound_shows_nothing(claim: str, what: dict[str, Any], forkproof) -> None:  # type: ignore[no-untyped-def]
    sound = from_dict({"loops": [{"name": "a"}], **what})
    made = reproducer(sound, Broken(claim, None if claim in OF_SERVER else sound.loops[0].name, ""), VERSIONS)
    assert trial.rate(made, forkproof.session.target, 1).shown == 0


def test_in_the_master_too_who_waits_for_a_guard_is_not_starved() -> None:
    plain = {"name": "b", "start": "on_starting"}
    what = from_dict({"loops": [LEADER, plain]})
    made = reproducer(what, Broken("arbiter_responsive", None, "nothing enters the hub"), VERSIONS)
    [line] = re.findall("file not in moved(.*):", made.files["check.py"])
    assert [eval(f"True{line}", {"loop": loop, "ticking": [("a", "", "")]}) for loop in "ab"] == [False, True]
    assert eval(f"True{line}", {"loop": "a", "ticking": [("b", "", "")]})


@pytest.mark.fork
@pytest.mark.parametrize("claim", checks.PLANS)
def test_it_shows_the_planted_bug_and_not_the_control(claim: str, forkproof) -> None:  # type: ignore[no-untyped-def]
    planted, how, control = PLANTED[claim]
    versions = forkproof.session.target.to_dict()
    loop = None if claim in OF_SERVER else planted.loops[0].name
    bad = reproducer(planted, Broken(claim, loop, how), versions)
    good = reproducer(control, Broken(claim, None if loop is None else control.loops[0].name), versions)
    if claim in IN_GUNICORN:
        with session_with_the_bug(forkproof.session, claim) as session:
            assert trial.rate(bad, session.target, 1).shown == 1
    else:
        assert trial.rate(bad, forkproof.session.target, 1).shown == 1
    assert trial.rate(good, forkproof.session.target, 1).shown == 0


@pytest.mark.fork
def test_a_master_that_starts_itself_anew_is_there_twice(forkproof) -> None:  # type: ignore[no-untyped-def]
    """With what gunicorn imports for gevent, too."""
    twice = from_dict(
        {
            "loops": [{"name": "a", "start": "config_import", "policy": "once_per_service"}],
            "server": {"worker_class": "gevent_pywsgi"},
            "faults": [{"fault": "usr2", "options": {"rollback": 1}}],
        }
    )
    assert trial.rate(of("handover_is_safe", twice, "two holders"), forkproof.session.target, 1).shown == 1


OTHERS = [("quiet_runtime", "no_dead_listener", "silent without a sign"),
          ("quiet_runtime", "exactly_one_listener", "zero"),
          ("no_stale_original", "exactly_one_listener", "zero"),
          ("no_socket_shared_across_fork", "no_dead_listener", "dead but ticking")]  # fmt: skip


@pytest.mark.fork
@pytest.mark.parametrize(("bug", "claim", "how"), OTHERS, ids=lambda word: word.replace(" ", "-"))
def test_it_shows_what_else_a_planted_bug_breaks(bug: str, claim: str, how: str, forkproof) -> None:  # type: ignore[no-untyped-def]
    planted, _, control = PLANTED[bug]
    versions = forkproof.session.target.to_dict()
    loop = planted.loops[0].name
    bad, *others = programs(planted, Broken(claim, loop, how), versions)
    assert not others
    assert not bad.left_out
    assert trial.rate(bad, forkproof.session.target, 1).shown == 1
    good = reproducer(control, Broken(claim, loop, how), versions)
    assert trial.rate(good, forkproof.session.target, 1).shown == 0


@pytest.mark.fork
def test_a_loop_that_stands_still_in_the_master_is_seen(forkproof) -> None:  # type: ignore[no-untyped-def]
    starved = load(FINDINGS / "late-patch-starved-master" / "scenario.json")
    cured = from_dict({**starved.to_dict(), "patches": [{"site": "config_first_line"}]})
    for what, shown in ((starved, 1), (cured, 0)):
        made = of("arbiter_responsive", what, "nothing enters the hub")
        assert trial.rate(made, forkproof.session.target, 1).shown == shown


@pytest.mark.fork
def test_export_of_a_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2-8c1f")
    (tmp_path / "given.json").write_text(TWICE.to_json(), encoding="utf-8")
    assert run("run", "given.json", "-q")[0] == 1
    [folder] = (tmp_path / ".forkproof").iterdir()
    code, out, err = run("export", folder, "out", "--tries", 1)
    assert (code, err) == (0, "")
    assert re.match(r"out: exactly_one_listener \(a\); \d+ lines of Python; it showed in 1 of 1 tries\n", out)
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").iterdir()}
    assert files.keys() == {
        "README.md",
        "app.py",
        "background.py",
        "check.py",
        "gunicorn.conf.py",
        "reproduce.sh",
        "requirements.txt",
    }
    for text in files.values():
        assert not re.search(
            rf"forkproof|hunter2|SECRET_TOKEN|{re.escape(str(tmp_path))}|{re.escape(sys.prefix)}", text
        )
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}
    alone = subprocess.run(["./reproduce.sh"], cwd=tmp_path / "out", env=environment, capture_output=True, text=True)
    assert alone.returncode == 1, alone.stderr
    said = r"BUG: a is to run in one process, and runs in \['\d+', '\d+'\]; the master is"
    assert re.match(said, alone.stdout)
    assert re.search(rf"Seen: in 1 of 1 tries when this was made\n\n    {said}", files["README.md"])
    assert run("export", folder, "out")[0] == 2
    assert "Run it with:  'one more/reproduce.sh'" in run("export", folder, "one more", "--no-try")[1]
    code, _, err = run("export", folder, "held", "--claim", "no_lock_held_at_fork")
    assert code == 2
    assert "neither broke nor held" in err or "cannot be exported" in err


@pytest.mark.fork
def test_a_folder_makes_its_own_environment(run: Run, tmp_path: Path) -> None:
    sound = TWICE.model_copy(update={"server": TWICE.server.model_copy(update={"workers": 1})})
    for scenario, name, code, claim in (
        (TWICE, "bug", 1, ()),
        (sound, "sound", 0, ("--claim", "exactly_one_listener")),
    ):
        (tmp_path / "given.json").write_text(scenario.to_json(), encoding="utf-8")
        assert run("run", "given.json", "-q", "--out", f"of-{name}")[0] == code
        [made] = (tmp_path / f"of-{name}").iterdir()
        assert run("export", made, name, "--no-try", *claim)[0] == 0
        # What a stranger has: a Python on the path, and where pip finds packages.
        environment = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        environment |= {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
        alone = subprocess.run(["./reproduce.sh"], cwd=tmp_path / name, env=environment, capture_output=True, text=True)
        assert alone.returncode == code, alone.stdout + alone.stderr
        [packages] = (tmp_path / name / ".venv").glob("lib/python*/site-packages")
        assert (packages / "gunicorn").is_dir()
        assert not list(packages.glob("*forkproof*"))


@pytest.mark.parametrize(("then", "code"), [(":", 1), ("echo 8", 0)])
def test_a_worker_that_ends_while_it_is_looked_for_is_not_yet_replaced(then: str, code: int, tmp_path: Path) -> None:
    """It was among the ready ones, and then it was not."""
    killed = from_dict({**TWICE.to_dict(), "faults": [{"fault": "kill_worker", "slot": 0}]})
    script = of("workers_boot", killed).files["reproduce.sh"]
    [replaced] = re.findall(r"^replaced\(\) \{.*?^\}$", script, re.MULTILINE | re.DOTALL)
    ready = f"ready() {{ [ -e ended ] && {then} || echo 7; : >ended; }}"
    asked = [ready, replaced, "old=7", *(["replaced 1"] if code == 0 else []), "replaced 1"]
    assert subprocess.run(["sh", "-c", "\n".join(asked)], cwd=tmp_path, check=False).returncode == code
