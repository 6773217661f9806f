"""`forkproof check` without a server: what it starts, what it is told, what it refuses."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from histories import ARBITER, WORKER, event, seen, server
from histories import history as made
from jsonschema import ValidationError
from rich.console import Console
from schema import validate
from test_cli import Run, run, tmp_path

from forkproof import baseline, check, containment
from forkproof.errors import UsageError
from forkproof.history import History
from forkproof.observed import Observed
from forkproof.plugin import CheckResult
from forkproof.reports import cases, checked
from forkproof.scenario import Policy
from forkproof.target import Target
from forkproof.verdict import Finding, Verdict

__all__ = ["run", "tmp_path"]


def found(gunicorn: str = "27.0.1") -> Target:
    return Target("/venv/bin/python", "3.11.7", {"gunicorn": gunicorn}, ())


def test_the_command_line_is_the_users_own_with_our_address() -> None:
    what = check.Deployment("app:app", "conf.py", options=("-k", "gevent"))
    words = check.command(what, found(), Path("/run"))
    assert words[0] == "/venv/bin/python"
    assert words[1].endswith("/payload/begin.py")
    tail = ["-m", "-c", "conf.py", "-k", "gevent", "-b", "127.0.0.1:0", "--control-socket", "/run/home/ctl"]
    assert words[6:] == [*tail, "-p", "/run/home/pid", "app:app"]


def test_the_address_may_stay_and_old_gunicorns_have_no_control_socket() -> None:
    words = check.command(check.Deployment("app:app", keep_bind=True), found("23.0.0"), Path("/run"))
    assert words[6:] == ["-m", "-p", "/run/home/pid", "app:app"]


def test_the_environment_is_the_users_without_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE", "db")
    monkeypatch.setenv("FORKPROOF_RUN", "/run")
    environment = check.environ(check.Deployment("app:app", environment={"EXTRA": "1"}))
    assert (environment["DATABASE"], environment["EXTRA"], environment["PYTHONDONTWRITEBYTECODE"]) == ("db", "1", "1")
    assert "FORKPROOF_RUN" not in environment


STARTS = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(os.environ["CHILD"], "w") as file:
    file.write(str(child.pid))

def app(environ, start_response):
    return []
"""


def test_what_an_import_starts_is_neither_waited_for_nor_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gunicorn")
    monkeypatch.setattr(check, "_IMPORT_SECONDS", 20.0)
    (tmp_path / "app.py").write_text(STARTS)
    what = check.Deployment("app:app", folder=tmp_path, environment={"CHILD": str(tmp_path / "child")})
    ours = replace(found(), executable=sys.executable)
    assert check._alone(what, ours, check._Settings("app:app", tmp_path, "")) == ""
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 20
    while (left := containment.read_stat(child)) and left.state != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left is None or left.state == "Z"


def test_a_server_that_died_of_an_error_is_judged_however_long_its_traceback_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_settings", lambda *_: check._Settings("app:app", tmp_path, ""))
    monkeypatch.setattr(check, "_alone", lambda *_: "")
    report = check.CheckReport(tmp_path, {}, Observed(made(server(0)), {}, {}), [], {})
    what = check.Deployment("app:app")
    frames = "".join(f'  File "/srv/deep.py", line {line}, in step\n' for line in range(80))
    (tmp_path / "server.log").write_text(f"Traceback (most recent call last):\n{frames}OSError: no room\n")
    check._refuse(what, found(), report)
    (tmp_path / "server.log").write_text("gunicorn: a word that it does not know\n")
    with pytest.raises(UsageError, match="gunicorn did not start: gunicorn: a word"):
        check._refuse(what, found(), report)


def test_the_active_environment_is_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    assert check.active() == str(python)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "gone"))
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    assert check.active() != str(python)


def test_where_settings_stand(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("workers = 2\npreload_app = True\n", encoding="utf-8")
    (tmp_path / "app.py").write_text("from gevent import monkey\n\nmonkey.patch_all()\n", encoding="utf-8")
    assert check.settings(check.Deployment("app:app", folder=tmp_path)) == {
        "workers": "gunicorn.conf.py:1",
        "preload_app": "gunicorn.conf.py:2",
        "patch_all": "app.py:3",
    }


def test_policies_of_the_command_line_come_before_those_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.forkproof.policies]\nlisten = "once_per_service"\n"*" = "best_effort"\n', encoding="utf-8"
    )
    assert check.policies({"listen": "once_per_worker"}, tmp_path) == {
        "listen": Policy.ONCE_PER_WORKER,
        "*": Policy.BEST_EFFORT,
    }
    with pytest.raises(UsageError, match="listen=twice: there is no such policy"):
        check.policies({"listen": "twice"}, tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tool = 3", "tool: Input should be a valid dictionary"),
        ("[tool]\nforkproof = []", "tool.forkproof: Input should be"),
        ("[tool.forkproof]\npolicy = {}", "tool.forkproof.policy: Extra inputs are not permitted"),
        ("[tool.forkproof.policies]\nlisten = [1]", "tool.forkproof.policies.listen: Input should be"),
        ("[tool.forkproof.policies]\nlisten = 'twice'", "tool.forkproof.policies.listen: .*once_per_service"),
        ("a = " + "[" * 5000, "is no TOML"),
        ("[tool", "is no TOML"),
    ],
)
def test_a_table_of_the_project_that_cannot_be(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=f"{path}: {told}"):
        check.policies({}, tmp_path)


def test_what_other_tools_have_in_the_project_is_theirs(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'a'\n[tool.ruff]\nselect = 3\n", encoding="utf-8")
    assert check.policies({}, tmp_path) == {}


def test_a_failure_has_a_name_that_stays() -> None:
    finding = Finding("no_dead_listener", Verdict.BROKEN, "listen@app.py:5", "in worker 0 (pid 12) ...", how="died")
    assert check.identity(finding) == "no_dead_listener:listen:died"


def test_what_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {
        "REDIS_URL": "redis://:secret@cache:6379/0",
        "HOME": "/root",
        "PIP_INDEX_URL": "https://pypi",
        "A": "x://[::1",
    }
    assert check.contacts(named) == {"REDIS_URL": "cache:6379"}


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("db", False),
    ],
)
def test_what_is_this_machine(host: str, local: bool) -> None:
    assert check.is_local(host) is local


def test_a_baseline_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "accepted.json"
    baseline.write(path, ["b:x", "a:x", "a:x"])
    assert baseline.read(path) == {"a:x", "b:x"}
    for text in ('{"schema": 1, "accepted": [1]}', '{"schema": 2, "accepted": []}', "[" * 100_000, "3", ""):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="is no baseline"):
            baseline.read(path)
    with pytest.raises(UsageError, match="there is no such file"):
        baseline.read(tmp_path / "none.json")


def rate_of(finding: Finding) -> tuple[int, int]:
    return check.RATES.get(finding.verdict, (0, 0))


def report(*findings: Finding, accepted: frozenset[str] = frozenset()) -> check.CheckReport:
    judgements = [check.Judgement(finding, None, "", rate=rate_of(finding)) for finding in findings]
    return check.CheckReport(
        Path(), {"python": "3.11.7"}, check.Observed(History([]), {}, {}), judgements, {}, (), accepted
    )


DIED = Finding("no_dead_listener", Verdict.BROKEN, "listen", "it died", how="died")
LIVES = Finding("no_dead_listener", Verdict.HELD, "listen", "it lives")


def test_what_the_baseline_has_is_no_failure_and_what_it_lacks_is() -> None:
    accepted = frozenset({"no_dead_listener:listen:died", "no_copied_thread:listen:copied"})
    one = report(DIED, Finding("server_answers", Verdict.HELD, None, "yes"), accepted=accepted)
    assert (one.verdict, one.exit_code) == (Verdict.HELD, 0)
    assert one.no_longer == ["no_copied_thread:listen:copied"]
    assert report(DIED, accepted=frozenset({"no_dead_listener:other:died"})).exit_code == 1


@pytest.mark.parametrize("verdict", [Verdict.UNKNOWN, Verdict.NOT_APPLICABLE])
def test_what_was_not_decided_does_not_pass(verdict: Verdict) -> None:
    assert report(LIVES).exit_code == 0
    assert report(replace(LIVES, verdict=verdict)).exit_code == 3


def test_runs_are_combined_with_rates() -> None:
    one = check.combine([report(LIVES), report(DIED), report(LIVES)])
    assert (one.verdict, one.runs, one.judgements[0].rate) == (Verdict.BROKEN, 3, (1, 3))
    assert check.combine([report(LIVES)] * 2).judgements[0].rate == (0, 2)


def test_what_is_accepted_hides_no_other_failure_of_another_run() -> None:
    other = replace(DIED, how="believed alive")
    accepted = frozenset([check.identity(DIED)])
    runs = [replace(report(finding), accepted=accepted) for finding in (DIED, other, LIVES)]
    one = check.combine(runs)
    assert (one.verdict, one.judgements[0].finding.how, one.judgements[0].rate) == (
        Verdict.BROKEN, "believed alive", (2, 3),
    )  # fmt: skip
    assert one.ids == {check.identity(DIED), check.identity(other)}
    assert one.no_longer == []
    assert check.combine(runs[::2]).verdict is not Verdict.BROKEN


def test_how_sure_it_is_that_something_held() -> None:
    def told(*findings: Finding, accepted: str = "", runs: int = 3) -> list[str]:
        made = check.combine([report(*findings)] * runs)
        return checked.sure(replace(made, accepted=frozenset([accepted])))

    assert told(LIVES)[1] == "3 runs without a failure: one that shows in 63% of runs is still possible"
    both = (DIED, replace(LIVES, claim="clean_shutdown"))
    assert told(*both)[1] == "of what held in 3 runs, a failure that shows in 63% of runs is still possible"
    assert told(*both, accepted=check.identity(DIED))[1].startswith("3 runs without a failure but the accepted: one")
    assert told(DIED) == []
    claims = check.combine([report(*both)] * 3).to_dict()["claims"]
    assert [claim["still_possible"] for claim in claims] == [None, 0.6316]


def test_a_report_keeps_to_the_published_schema() -> None:
    plain = json.loads(json.dumps(report(DIED, LIVES).to_dict()))
    validate(plain, "check")
    plain["claims"][0]["more"] = 1
    with pytest.raises(ValidationError):
        validate(plain, "check")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--faults", "hup,usr3"], "--faults usr3: there is no such fault here; there are: kill_worker, hup, term"),
        (["--policy", "listen"], "--policy listen: give NAME=VALUE"),
        (["--env", "=1"], "--env =1: give NAME=VALUE"),
        (["--policy", "listen=always"], "listen=always: there is no such policy"),
    ],
)
def test_what_is_refused(run: Run, words: list[str], said: str) -> None:
    code, out, err = run("check", "app:app", *words)
    assert (code, out) == (2, "")
    assert said in err


def test_answers_that_show_little_of_an_app_are_told() -> None:
    def told(*statuses: int, address: Sequence[object] = ("127.0.0.1", 80)) -> list[str]:
        settings = seen(0.4, "server", workers=1, worker_class="sync", preload=False, timeout=30, graceful_timeout=30,
                      address=list(address))  # fmt: skip
        answers = [
            one for number, status in enumerate(statuses)
            for one in seen(1.0, "request.ok", request=number, worker="3-3", slot=0, loops=[], status=status, path="/")
        ]  # fmt: skip
        return checked.unasked(Observed(made(settings, answers), {}, {}))

    assert told(404, 500) == [
        "every request to / came to 404, 500: that shows little of the app. Give a path that it has with --health, or "
        "with --request"
    ]
    assert told(404, 200) == told(302) == told() == []
    assert told(address=["['/run/app.sock']"]) == [
        "no request was sent: /run/app.sock is no TCP address. Leave --keep-bind out"
    ]


def test_a_boot_that_failed_has_the_loops_that_were_started() -> None:
    begun = {"site": "import of app.py", "defined_at": "/srv/app.py:5", "kind": "thread", "loop": "listen"}
    events = [event(0.3, pid, "loop.created", birth=str(pid), **begun) for pid in (ARBITER, WORKER)]
    one = Observed(made(server(1), events), {}, {})
    console = Console(width=120, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(checked.check(replace(report(DIED), observed=one)))
    told = capture.get()
    assert "loop    kind    started in, before the boot failed" in told
    assert f"listen  thread  arbiter (pid {ARBITER}) and worker 0 (pid {WORKER})" in told
    assert "app.py:5, started by import of app.py" in told


def test_a_failure_has_the_files_of_the_run_and_the_command_that_runs_it_again(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text("{}", encoding="utf-8")
    [case] = cases.of_check(replace(report(DIED), folder=tmp_path, again="forkproof check app:app"))
    assert case.attached == [tmp_path / "verdict.json"]
    assert case.again == "forkproof check app:app"


def test_a_failure_tells_since_when_and_how_to_see_it_again() -> None:
    judged = replace(report(DIED).judgements[0], since="+1.50s, loop.end in worker 0 (pid 4)")
    one = replace(report(DIED), judgements=[judged], again="forkproof check app:app -- --preload")
    console = Console(width=40, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(checked.check(one), crop=False)
    lines = capture.get().splitlines()
    assert "since: +1.50s, loop.end in worker 0 (pid 4)" in " ".join(" ".join(lines).split())
    assert "Reproduce with:  forkproof check app:app -- --preload" in lines
    with pytest.raises(AssertionError) as told:
        CheckResult(one).assert_held()
    assert str(told.value).endswith("Reproduce with:  forkproof check app:app -- --preload")
    assert "since: +1.50s" in str(told.value)


def test_the_command_that_checks_again_has_every_word_but_secrets() -> None:
    asked = {"given": ["--target", "/a venv/bin/python", "--redis", "embedded", "--offline"], "set": ["KEY"]}
    plan = check.Plan(
        app="app:app", config=None, cwd="/srv/my app", options=["-w", "2"], health="/", requests=["/a b"], events=[],
        faults=["term"], policies={"listen*": Policy.ARBITER_ONLY}, where={}, **asked,
    )  # fmt: skip
    assert plan.command == (
        "forkproof check app:app --chdir '/srv/my app' --target '/a venv/bin/python' --redis embedded --offline "
        "--faults term --request '/a b' --policy 'listen*=arbiter_only' --env KEY=\"$KEY\" -- -w 2"
    )
