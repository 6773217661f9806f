"""What other packages add: found, guarded, and named where it is bad; and the example, installed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
import venv
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from histories import event, history, server, window

from forkproof import claims, plugins
from forkproof.claims import Claim
from forkproof.claims.base import Say
from forkproof.errors import UsageError
from forkproof.faults import base as faults
from forkproof.faults.base import Defect, FaultKind, guarded
from forkproof.faults.life import Life
from forkproof.scenario import Loop, Scenario
from forkproof.verdict import Verdict

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"
GROUP = "forkproof.claims"
GOOD = """
from forkproof.claims import Claim
from forkproof.claims.base import Say
from forkproof.claims.base import Say
def check(scenario, history):
    return [Say("mine").held("yes")]
MINE = Claim("mine", "It is mine.", check)
OTHER = Claim("other", "It is mine.", check)
EMPTY = Claim("empty", " ", check)
THREE = 3
"""


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a package that is installed, of one module and some entry points."""
    monkeypatch.setattr(plugins, "PROBLEMS", [])
    monkeypatch.syspath_prepend(tmp_path)

    def made(module: str, text: str, /, **points: str) -> None:
        (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
        folder = tmp_path / f"{module}-1.5.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.5\n", encoding="utf-8")
        lines = [f"[{GROUP}]", *(f"{name} = {module}:{value}" for name, value in points.items())]
        (folder / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")

    return made


def names(taken: tuple[str, ...] = ()) -> list[str]:
    return [claim.name for claim, _ in plugins.found(GROUP, Claim, taken, claims._wrong)]


def test_a_good_one_is_found_with_its_package(install: Install) -> None:
    install("good_plugin", GOOD, mine="MINE")
    ((claim, package),) = plugins.found(GROUP, Claim, (), claims._wrong)
    assert (claim.name, package) == ("mine", "good_plugin 1.5")
    plugins.require()


@pytest.mark.parametrize(
    ("text", "points", "why"),
    [
        ("1 / 0", {"mine": "MINE"}, "cannot be imported: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", {"mine": "MINE"}, "cannot be imported: SystemExit: 3"),
        ("import time; time.sleep(600)", {"mine": "MINE"}, "cannot be imported: it has not come back for 0.2 s"),
        (GOOD, {"mine": "NOTHING"}, "cannot be imported: AttributeError"),
        (GOOD, {"mine": "THREE"}, "is int, and must be Claim"),
        (GOOD, {"mine": "OTHER"}, "its name is 'other'"),
        (GOOD, {"empty": "EMPTY"}, "it has no definition"),
        (GOOD, {"taken": "MINE"}, "there is another of that name"),
    ],
)
def test_a_bad_one_is_named_with_cause_and_next_step(
    install: Install, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
    text: str, points: dict[str, str], why: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(plugins, "PATIENCE", 0.2 if "sleep" in text else 60)
    module = f"bad_plugin_{abs(hash(request.node.name))}"  # what was imported once stays so
    install(module, text, **points)
    assert names(taken=("taken",)) == []
    with pytest.raises(UsageError) as refused:
        plugins.require()
    told = str(refused.value)
    assert told.startswith(f"plug-in {next(iter(points))!r} of {module} 1.5 (entry point {GROUP}, {module}:")
    assert why in told
    assert told.endswith(f"pip uninstall {module}")


def test_of_two_with_one_name_neither_hides_the_other(install: Install) -> None:
    install("first_plugin", GOOD, mine="MINE")
    install("second_plugin", GOOD, mine="MINE")
    assert names() == ["mine"]
    with pytest.raises(UsageError, match=r"second_plugin 1.5 .* there is another of that name"):
        plugins.require()


# A claim behind its guard


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any, Any], Any]], str]:
    """Judges by a claim of another package and one of ours, and tells what came of the first; the second held."""

    def judge(check: Callable[[Any, Any], Any]) -> str:
        monkeypatch.setitem(claims.REGISTRY, "mine", Claim("mine", "It is mine.", check))
        record = history(server(1), window())
        before = [one.to_dict() for one in record]
        found = claims.judge(Scenario(loops=[Loop(name="a")]), record, ["mine", "quiet_runtime"])
        assert [one.to_dict() for one in record] == before
        [mine] = [one for one in found if one.claim == "mine"]
        assert [one.verdict for one in found if one is not mine] == [Verdict.HELD]
        return f"{mine.verdict.value}: {mine.explanation}"

    monkeypatch.setattr(claims, "_HANGS", {})
    return judge


def test_a_check_that_does_not_come_back_is_left_behind_once(judged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "PATIENCE", 0.1)
    calls = []

    def hangs(scenario: Any, history: Any) -> Any:
        calls.append(1)
        time.sleep(600)

    wanted = "unknown: mine could not be judged: the check has not come back for 0.1 s. Correct it in the package"
    assert judged(hangs).startswith(wanted)
    assert judged(hangs).startswith(wanted)
    assert calls == [1]


def test_a_check_that_exits_ends_nothing(judged: Any) -> None:
    assert judged(lambda scenario, history: sys.exit(0)).startswith(
        f"unknown: mine could not be judged: the check raised SystemExit: 0; in <lambda>, {__file__}, line "
    )


def test_a_check_is_told_by_its_own_line(judged: Any) -> None:
    told = judged(lambda scenario, history: history.events[0]["no such field"])
    assert f"the check raised KeyError: 'no such field'; in <lambda>, {__file__}" in told


def test_a_check_that_changes_what_it_is_given_changes_nothing(judged: Any) -> None:
    def changes(scenario: Any, history: Any) -> Any:
        evidence = history.of("ready") or history.events[:1]
        for one in history.events:
            one.fields.clear()
        history.events.clear()
        return [Say("mine").held("yes", evidence)]

    assert judged(changes) == "held: yes"


def test_what_a_check_prints_does_not_come_into_a_report(
    judged: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "_ASIDE", weakref.WeakSet())  # other tests have left threads behind

    def prints(scenario: Any, history: Any) -> Any:
        print("aside")
        return [Say("mine").held("yes", history.events[:1])]

    before = sys.stdout
    assert judged(prints) == "held: yes"
    assert sys.stdout is before
    assert capsys.readouterr() == ("", "aside\n")


def test_what_held_without_evidence_was_not_seen_to_hold(judged: Any) -> None:
    assert "the check returned held without evidence" in judged(lambda scenario, history: [Say("mine").held("yes")])


# A fault behind its guard


async def lands(server: Any, fault: Any) -> dict[str, Any]:
    return {"target": 3}


def answering(answer: Any) -> Any:
    async def step(*rest: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return step


def kind(**fields: Any) -> FaultKind:
    return guarded(FaultKind(**{"name": "mine", "label": "mine", "inject": lands, **fields}), "a 1.5")


FAULT = {"fault": "mine", "slot": None, "options": {}}
LIFE = Life(workers=1, timeout=30, slots=(0,))


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("inject", ValueError("no")), ("inject", None), ("inject", {"t": 1}), ("inject", {"a": []}), ("inject", {1: 2}),
        ("heal", OSError("no")), ("heal", 3), ("healed", "yes"), ("healed", KeyError("no")),
    ],
)  # fmt: skip
def test_what_a_fault_may_not_do_is_a_defect_in_its_name(step: str, answer: Any) -> None:
    one = kind(**{step: answering(answer)})
    arguments = (None, FAULT) if step == "inject" else (None, FAULT, {})
    with pytest.raises(Defect, match=rf"{step} of 'mine' \(a 1.5\) (raised|returned) "):
        asyncio.run(getattr(one, step)(*arguments))


@pytest.mark.parametrize(
    ("inject", "told"),
    [
        (lambda server, fault: asyncio.sleep(600), "has not come back for 0.2 s"),
        (lambda server, fault: block(), "has blocked for 0.2 s"),
        (lambda server, fault: leave(), "raised SystemExit: 0"),
    ],
)
def test_a_fault_that_does_not_come_back_is_a_defect(
    monkeypatch: pytest.MonkeyPatch, inject: Callable[[Any, Any], Any], told: str
) -> None:
    monkeypatch.setattr(faults, "LONGEST", 0.2)
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(Defect, match=rf"^inject of 'mine' \(a 1.5\) {told}$"):
        asyncio.run(kind(inject=inject).inject(None, FAULT))  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGALRM) is before


async def block() -> None:
    time.sleep(600)


async def leave() -> None:
    sys.exit(0)


def test_what_a_fault_may_do() -> None:
    one = kind(healed=answering(True), heal=answering({}))
    assert asyncio.run(one.inject(None, FAULT)) == {"target": 3}  # type: ignore[arg-type]
    assert asyncio.run(one.healed(None, FAULT, {})) is True  # type: ignore[arg-type]
    with pytest.raises(ProcessLookupError):  # it did not land
        asyncio.run(kind(inject=answering(ProcessLookupError())).inject(None, FAULT))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, ""),
        ({"refuses": lambda life, fault: "not here"}, "not here"),
        ({"refuses": lambda life, fault: None}, "refuses of 'mine' (a 1.5) returned None"),
        ({"refuses": lambda life, fault: 1 / 0}, "refuses or effect of 'mine' (a 1.5) raised ZeroDivisionError"),
        ({"effect": lambda life, fault: None}, "effect of 'mine' (a 1.5) returned None"),
    ],
)
def test_a_fault_that_cannot_say_what_it_leaves_is_refused(fields: dict[str, Any], why: str) -> None:
    assert kind(**fields).refuses(LIFE, FAULT).startswith(why)
    assert bool(why) or kind(**fields).refuses(LIFE, FAULT) == ""


def test_after_a_defect_nothing_is_known() -> None:
    defect = [event(1.5, 1, "plugin.defect", plugin="the fault 'mine'", error="healed of 'mine' (a 1.5) returned 3")]
    what = Scenario(loops=[Loop(name="a")])
    sound = claims.judge(what, history(server(1), window()), ["quiet_runtime"])
    judged = claims.judge(what, history(server(1), window(), defect), ["quiet_runtime"])
    assert [found.verdict for found in sound] == [Verdict.HELD]
    assert [found.verdict for found in judged] == [Verdict.UNKNOWN]
    assert "healed of 'mine' (a 1.5) returned 3" in judged[0].explanation


# The example, installed


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python of its own that sees what this one has, and the example."""
    folder = tmp_path_factory.mktemp("plugin") / "v"
    venv.create(folder, with_pip=False, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if Path(path).is_dir()]
    (packages / "outer.pth").write_text("\n".join(seen), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    subprocess.run([*command, "--target", str(packages), str(EXAMPLE)], check=True, timeout=300)
    return folder / "bin" / "python"


def run(python: Path, what: Path, *words: str) -> dict[str, Any]:
    command = [str(python), "-m", "forkproof", "run", str(what), "--target", sys.executable, "--json", "-", *words]
    with tempfile.TemporaryDirectory(prefix="fp-") as out:  # shorter than pytest's: sockets have to fit in
        command += ["--out", out]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.fork
@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ([], "held"),
        ([{"fault": "quit_worker", "slot": 0}], "held"),
        ([{"fault": "kill_worker", "slot": 0}], "broken"),  # gunicorn logs that somebody has killed its worker
    ],
)
def test_the_examples_claim_and_fault(python: Path, tmp_path: Path, fault: list[Any], verdict: str) -> None:
    what = tmp_path / "scenario.json"
    what.write_text(json.dumps({"loops": [{"name": "a"}], "faults": fault}), encoding="utf-8")
    report = run(python, what, "--claim", "no_error_logged", "--claim", "workers_boot")
    found = {claim["name"]: claim for claim in report["claims"]}
    assert found["no_error_logged"]["verdict"] == verdict, report
    assert found["no_error_logged"]["expectation"] == ("may_break" if fault else "must_hold")
    assert found["workers_boot"]["verdict"] == "held", report


@pytest.mark.fork
@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ({"workers": 2}, "held"),
        ({"workers": 2, "started_by": "in_code"}, "held"),
        ({"started_by": "in_code", "preload": True}, "broken"),  # its thread stays in the master, as anybody's
    ],
)
def test_the_examples_body_and_server(python: Path, tmp_path: Path, server: dict[str, Any], expected: str) -> None:
    what = tmp_path / "scenario.json"
    scenario = {"loops": [{"name": "a", "body": "heartbeat"}], "server": server, "faults": [{"fault": "hup"}]}
    what.write_text(json.dumps(scenario), encoding="utf-8")
    found = {claim["name"]: claim for claim in run(python, what)["claims"]}
    one = found["exactly_one_listener"]
    assert (one["verdict"], one["expectation"]) == (expected, "must_hold" if expected == "held" else "must_break")
    assert not one["surprise"]
    for claim in ("workers_boot", "server_answers", "quiet_runtime"):
        assert found[claim]["verdict"] == "held", found
    assert found["every_message_handled_once"]["verdict"] == "not_applicable"


@pytest.mark.fork
def test_explore_draws_what_the_example_adds(python: Path) -> None:
    code = """
from forkproof import registries
from forkproof.dimensions import dimensions
from forkproof.explore import drawn
from forkproof_strategies import scenarios
registries.require()
many = drawn(200, 1, scenarios())
print(any(fault.fault == "quit_worker" for what in many for fault in what.faults))
print(any(loop.body == "heartbeat" for what in many for loop in what.loops))
print(any(what.server.started_by == "in_code" for what in many))
named = {dimension.name: dimension.values for dimension in dimensions()}
print("heartbeat" in named["loop.body"], named["started_by"])
"""
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "True\nTrue\nTrue\nTrue ('gunicorn', 'in_code')\n"
