"""The pytest plug-in: its options, its fixture, the evidence that it shows, and what it does not import."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from forkproof import lanes, plugin
from forkproof.errors import ScenarioError

HEAVY = ("gevent", "gunicorn", "flask", "greenlet", "hypothesis", "pydantic", "rich", "redis", "fakeredis")

WITHOUT_HYPOTHESIS = ("-p", "no:hypothesispytest")  # its plug-in imports it at the end of every run.

HOLDS = {"loops": [{"name": "listen"}]}
BREAKS = {"loops": [{"name": "listen", "policy": "once_per_service"}], "server": {"workers": 2}}

IN_SUITE = """
import sys

def test_it(request):
    assert not [name for name in {heavy!r} if name in sys.modules]
    assert request.config.getoption("fork_examples") == 25
"""

ONE_OF_EACH = f"""
import pytest

@pytest.mark.fork
def test_holds(forkproof):
    result = forkproof.run({HOLDS!r})
    result.assert_held()
    result.assert_held("workers_boot", "exactly_one_listener")
    assert result.broken == set()

@pytest.mark.fork
def test_breaks(forkproof):
    result = forkproof.run({BREAKS!r})
    assert result.broken == {{"exactly_one_listener"}}
    result.assert_held("workers_boot")
    with pytest.raises(AssertionError, match="NOT APPLICABLE"):
        result.assert_held("every_message_handled_once")
    result.assert_held("exactly_one_listener")
"""


@pytest.fixture
def short_temp(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the runs of inner sessions, so that we see what they leave; pytester's own is too long a path."""
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def fresh(code: str) -> list[str]:
    """Which heavy modules a fresh interpreter has after `code`."""
    program = f"{code}\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()[-1].split()


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    assert fresh("import forkproof.plugin") == []


@pytest.mark.fork
def test_starting_pytest_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    assert fresh("import pytest; pytest.main(['--version'])") == []
    pytester.makepyfile(IN_SUITE.format(heavy=HEAVY))
    pytester.runpytest_subprocess(*WITHOUT_HYPOTHESIS).assert_outcomes(passed=1)


@pytest.mark.fork
def test_the_options_are_listed(pytester: pytest.Pytester) -> None:
    shown = pytester.runpytest("--help").stdout.str()
    for option in ("target=T", "examples=N", "seed=N", "broker=B", "out=DIR", "warm"):
        assert f"--fork-{option}" in shown
    pytester.runpytest("--markers").stdout.fnmatch_lines(["@pytest.mark.fork: starts real servers"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--fork-examples=0", "*--fork-examples: 0 is not allowed: give a whole number from 1 on*"),
        ("--fork-seed=x", "*--fork-seed: invalid int value: 'x'*"),
        ("--fork-target=/no/such/python", "*/no/such/python: there is no such file. Give --fork-target the path of *"),
        ("--fork-target=/bin/true", "*/bin/true: is no Python that forkproof can test*"),
        ("--fork-database=redis://h:0", "*--fork-database redis://h:0: 0 is no port; give a folder, or redis://*"),
        ("--fork-broker=memcached", "*--fork-broker 'memcached': unknown kind of Redis*"),
        ("--fork-what=1", "*unrecognized arguments: --fork-what=1*"),
    ],
)
@pytest.mark.fork
def test_a_bad_option_is_one_clear_error(pytester: pytest.Pytester, option: str, message: str) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    shown = result.stderr.str() + result.stdout.str()
    pytest.LineMatcher(shown.splitlines()).fnmatch_lines([message])
    assert "Traceback" not in shown
    assert "INTERNALERROR" not in shown


@pytest.mark.fork
def test_the_command_of_a_failure_can_be_typed(request: pytest.FixtureRequest) -> None:
    words = shlex.split(plugin.shared(request.config).command(Path("/srv/my runs/0123")))
    assert words[:3] == ["forkproof", "replay", "/srv/my runs/0123"]


def test_what_uses_the_fixture_is_marked(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_server(forkproof): forkproof.run({})\ndef test_other(): pass")
    result = pytester.runpytest("-m", "not fork", "--strict-markers", *WITHOUT_HYPOTHESIS)
    result.assert_outcomes(passed=1, deselected=1)


@pytest.mark.fork
def test_a_target_without_the_package_skips(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, short_temp: Path
) -> None:
    pytester.makeconftest("""
        import dataclasses, pytest
        from forkproof import target

        @pytest.fixture(autouse=True)
        def poor(monkeypatch):
            found = target.find(None)
            monkeypatch.setattr(target, "find", lambda name: dataclasses.replace(found, versions={"gunicorn": "27"}))
        """)
    pytester.makepyfile(f"def test_it(forkproof): forkproof.run({HOLDS!r})")
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*has no flask, which every scenario needs*choose another --fork-target*"])
    assert not list(short_temp.iterdir())


@pytest.mark.parametrize(("scenario", "message"), [({"loops": 1}, "loops: 1 is not"), ("no_such.json", "no_such.json")])
def test_a_bad_scenario_is_the_callers_error(request: pytest.FixtureRequest, scenario: Any, message: str) -> None:
    unstarted = plugin.Forkproof(plugin.shared(request.config))
    with pytest.raises(ScenarioError, match=message) as caught:
        unstarted.run(scenario)
    assert "forkproof/plugin.py" not in str(caught.getrepr(style="short"))
    assert not unstarted.attempted


@pytest.mark.fork
def test_a_failure_shows_the_evidence(pytester: pytest.Pytester, short_temp: Path) -> None:
    pytester.makepyfile(ONE_OF_EACH)
    result = pytester.runpytest_subprocess("--junitxml=junit.xml")
    result.assert_outcomes(passed=1, failed=1)
    [folder] = [path for path in short_temp.glob("fp-*/*") if path.is_dir()]
    result.stdout.fnmatch_lines(
        [
            "E *exactly_one_listener (listen) BROKEN: *",
            f"E *Reproduce with:  forkproof replay {folder}",
            "*- forkproof: run -*",
            str(folder),
            "*- forkproof: claims -*",
            "Python 3.*gunicorn *",
            "exactly_one_listener *broken*",
            "*- forkproof: loops -*",
            "listen *worker 0*",
            "*- forkproof: server log -*",
            "*Booting worker*",
            "*- forkproof: scenario -*",
            '*"policy": "once_per_service"*',
            "*forkproof: evidence kept*",
            f"*::test_breaks: {folder}",
        ]
    )
    assert json.loads((folder / "verdict.json").read_bytes())["verdict"] == "broken"
    assert f'name="{plugin.PROPERTY}" value="{folder}"' in (pytester.path / "junit.xml").read_text()


@pytest.mark.fork
def test_nothing_is_left_of_what_held(pytester: pytest.Pytester, short_temp: Path) -> None:
    path = pytester.path / "scenario.json"
    path.write_text(json.dumps(HOLDS))
    pytester.makepyfile(f"def test_it(forkproof): forkproof.run({str(path)!r}).assert_held()")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    assert not list(short_temp.iterdir())


@pytest.mark.fork
def test_a_folder_of_ones_own_keeps_every_run(pytester: pytest.Pytester, short_temp: Path) -> None:
    pytester.makepyfile(f"def test_it(forkproof): forkproof.run({HOLDS!r}).assert_held()")
    pytester.runpytest_subprocess(f"--fork-out={short_temp}/kept").assert_outcomes(passed=1)
    assert [(folder / "verdict.json").exists() for folder in (short_temp / "kept").iterdir()] == [True]
    assert [path.name for path in short_temp.iterdir()] == ["kept"]


@pytest.mark.fork
def test_undecided_is_no_pass(pytester: pytest.Pytester, short_temp: Path) -> None:
    pytester.makeconftest("""
        import dataclasses, pytest
        from forkproof import judge, session
        from forkproof.verdict import Verdict

        @pytest.fixture(autouse=True)
        def undecided(monkeypatch):
            def blind(folder, names):
                report = judge.judge(folder, names)
                finding = dataclasses.replace(
                    report.judgements[0].finding, verdict=Verdict.UNKNOWN, explanation="the machine stood still"
                )
                return dataclasses.replace(
                    report, judgements=[dataclasses.replace(report.judgements[0], finding=finding)]
                )

            monkeypatch.setattr(session, "judge", blind)
        """)
    pytester.makepyfile(f"def test_it(forkproof): forkproof.run({HOLDS!r}).assert_held()")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *exactly_one_listener (listen) UNKNOWN: the machine stood still"])


@pytest.mark.fork
def test_xdist_workers_have_sessions_of_their_own(pytester: pytest.Pytester, short_temp: Path) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(
        f"""
        import os, pytest

        @pytest.mark.parametrize("scenario", [{HOLDS!r}, {BREAKS!r}])
        def test_it(forkproof, scenario, record_property):
            print("broker", forkproof.session.around.broker.pid, "worker", os.environ["PYTEST_XDIST_WORKER"])
            forkproof.run(scenario).assert_held()
        """
    )
    result = pytester.runpytest_subprocess("-n", "2", "-rP")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*- forkproof: claims -*", "exactly_one_listener *broken*", "*forkproof: evidence kept*", "*::test_it*/fp-*"]
    )
    told = {line for line in result.outlines if line.startswith("broker ")}
    assert len({line.split()[1] for line in told}) == len({line.split()[3] for line in told}) == 2
    assert len(list(short_temp.glob("fp-*"))) == 1


@pytest.mark.fork
def test_a_leak_fails_the_test_that_made_it(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> None:
    ours = (request.config.rootpath / "conftest.py").read_text()
    pytester.makeconftest(ours.replace("SETTLE_SECONDS = 1.0", "SETTLE_SECONDS = 0.0"))
    pytester.makepyfile("""
        import os, subprocess, pytest

        left = []

        def test_clean():
            with open(os.devnull) as file:
                subprocess.run(["true"], stdin=file)

        def test_process():
            left.append(subprocess.Popen(["sleep", "60"]))

        def test_file():
            left.append(open(os.devnull))

        def test_end():
            process, file = left
            process.kill()
            process.wait()
            file.close()
        """)
    result = pytester.runpytest(*WITHOUT_HYPOTHESIS)
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(["process *: sleep 60", "descriptor *: /dev/null"])


@pytest.mark.parametrize("words", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_a_lane_is_a_target_in_one_process_and_in_several(
    words: Sequence[str], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    if words:
        pytest.importorskip("xdist")
    monkeypatch.setattr(lanes, "resolve", lambda name, *rest: sys.executable if name == "museum" else name)
    pytester.makepyfile(
        """
        import sys
        from forkproof.plugin import shared

        def test_it(request):
            assert shared(request.config)._target == sys.executable
        """
    )
    pytester.runpytest_inprocess("--fork-target=museum", *words).assert_outcomes(passed=1)
