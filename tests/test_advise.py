"""`forkproof advise` without a server: which deployments there are, their order, and which runs recommend none."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from histories import ARBITER, WORKER, Events, event, history, server
from schema import validate
from test_check import rate_of
from test_cli import Run, run, tmp_path
from test_observed import BOOTED, OTHER, birth, looks, opened, unit

from forkproof import advise, check
from forkproof.errors import UsageError
from forkproof.observed import Observed
from forkproof.scenario import Policy
from forkproof.verdict import Finding, Verdict

__all__ = ["run", "tmp_path"]

APP = "import threading\n\ndef listen():\n    pass\n\nthreading.Thread(target=listen).start()\n"
CONF = "workers = 2\npreload_app = True\n"
DIED = Finding("no_dead_listener", Verdict.BROKEN, "listen", "it died", how="died")
LIVES = Finding("no_dead_listener", Verdict.HELD, "listen", "it lives")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").write_text(APP, encoding="utf-8")
    (folder / "gunicorn.conf.py").write_text(CONF, encoding="utf-8")
    return folder


def report(
    folder: Path, *findings: Finding, preload: bool = True, kind: str = "gthread", workers: int = 2,
    site: str = "import of app.py", policy: str | None = None, daemon: bool = True,
) -> check.CheckReport:  # fmt: skip
    """A run of the app, with one loop that app.py:6 starts."""
    own = [f"{folder}/app.py:6"]
    given: dict[str, Any] = {"own": own, "site": site, "daemon": daemon}
    made: Events = [*birth(WORKER, "aa", **given), *birth(OTHER, "bb", **given)]
    told = event(
        0.5, ARBITER, "server", workers=workers, worker_class=kind, preload=preload, timeout=30, graceful_timeout=30,
        address=["127.0.0.1", 1], threads=1,
    )  # fmt: skip
    seen = history(server(2), BOOTED, opened(), made, looks(WORKER, unit("aa")), looks(OTHER, unit("bb")), [told])
    policies = {"listen": Policy(policy)} if policy else {}
    judgements = [check.Judgement(finding, None, "", rate=rate_of(finding)) for finding in findings]
    return check.CheckReport(Path("run"), {"python": "3.11.7"}, Observed(seen, policies, {}), judgements, {})


def changes(folder: Path, base: check.CheckReport, *, has_gevent: bool = True, **fields: Any) -> list[str]:
    found, _ = advise.candidates(deployment(folder, **fields), base, has_gevent=has_gevent)
    return [str(one) for one in found]


def deployment(folder: Path, **fields: Any) -> check.Deployment:
    return replace(check.Deployment("app:app", folder=folder), **fields)


def test_the_cheapest_change_comes_first(app: Path) -> None:
    found, stays = advise.candidates(deployment(app), report(app, DIED), has_gevent=True)
    assert [str(one) for one in found[:3]] == [
        "preload_app: True -> False",
        "start of listen: at import -> post_worker_init",
        "start of listen: at import -> post_fork",
    ]
    assert [one.cost for one in found] == sorted(one.cost for one in found)
    assert stays == []
    texts = [tuple(sorted(one.draft.texts.items())) for one in found]
    assert len(set(texts)) == len(texts)


def test_a_target_without_gevent_is_not_told_to_use_it(app: Path) -> None:
    assert any("gevent" in one for one in changes(app, report(app, DIED)))
    assert not any("gevent" in one for one in changes(app, report(app, DIED), has_gevent=False))


def test_a_loop_that_is_meant_once_is_started_in_the_arbiter(app: Path) -> None:
    found = changes(app, report(app, DIED, policy="once_per_service"))
    assert "start of listen: at import -> when_ready" in found
    assert not any("post_worker_init" in one for one in found)


HANGS = Finding("clean_shutdown", Verdict.BROKEN, None, "it hangs", how="killed")


def test_a_thread_that_keeps_a_process_from_ending_is_made_a_daemon(app: Path) -> None:
    found, _ = advise.candidates(deployment(app), report(app, HANGS, daemon=False), has_gevent=True)
    both = next(
        one for one in found if str(one) == "daemon of listen: False -> True; start of listen: at import -> post_fork"
    )
    assert (
        "def start_listen():\n    threading.Thread(target=listen, daemon=True).start()"
        in both.draft.texts[app / "app.py"]
    )
    assert [str(one) for one in found].index("daemon of listen: False -> True") == 1
    for base in (report(app, DIED, daemon=False), report(app, HANGS, daemon=True)):
        assert not any("daemon" in one for one in changes(app, base))


def test_what_cannot_be_moved_is_told(app: Path) -> None:
    (app / "app.py").write_text(APP.replace("threading.Thread", "app = threading.Thread"), encoding="utf-8")
    found, stays = advise.candidates(deployment(app), report(app, DIED), has_gevent=True)
    assert not any("start of" in str(one) for one in found)
    assert stays == [
        "listen is started by import of app.py at /srv/app.py:9, which cannot be moved without knowing the app"
    ]


def test_what_is_tried_is_what_the_diff_makes_and_the_users_files_stay(app: Path, tmp_path: Path) -> None:
    (app / "static").mkdir()
    (app / "__pycache__").mkdir()
    found, _ = advise.candidates(deployment(app), report(app, DIED), has_gevent=True)
    moved = next(one for one in found if str(one).startswith("start of") and len(one.changes) == 1)
    before = {path: path.read_bytes() for path in app.iterdir() if path.is_file()}
    what = advise._laid_out(deployment(app), moved.draft, tmp_path / "work", tmp_path / "out")
    assert what.folder == tmp_path / "work" / "app"
    assert "from app import start_listen" in (what.folder / "gunicorn.conf.py").read_text(encoding="utf-8")
    assert "def start_listen" in (what.folder / "app.py").read_text(encoding="utf-8")
    assert (what.folder / "static").is_symlink()
    assert not (what.folder / "__pycache__").exists()
    assert {path: path.read_bytes() for path in app.iterdir() if path.is_file()} == before
    diff = advise._diff(deployment(app), moved.draft)
    assert [line for line in diff.splitlines() if line.startswith("+++")] == ["+++ b/app.py", "+++ b/gunicorn.conf.py"]


def test_words_of_the_command_line_that_would_count_for_more_are_left_out(app: Path) -> None:
    options = ("-kgevent", "--preload", "-w", "4", "--worker-class=gevent", "--threads", "2")
    base = report(app, DIED, kind="gevent")
    found, _ = advise.candidates(deployment(app, options=options), base, has_gevent=True)
    by_name = {str(one): one.draft.options for one in found}
    assert by_name["preload_app: True -> False"] == tuple(word for word in options if word != "--preload")
    assert by_name["worker_class: 'gevent' -> 'gthread'"] == ("--preload", "-w", "4", "--threads", "2")


def test_a_module_is_no_file_to_change(app: Path) -> None:
    with pytest.raises(UsageError, match="advise changes a configuration file, and this is none"):
        advise._require_file(deployment(app, config="python:conf"))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ()),
        ({"preload": False}, ("not run as meant: preload_app is False, and not True: something else sets it",)),
        (
            {"site": "request"},
            (
                "not run as meant: listen is started by request at /srv/app.py:9, and not by import of app.py",
            ),
        ),
    ],
)  # fmt: skip
def test_a_run_that_is_not_what_was_meant_recommends_nothing(
    changed: dict[str, Any], told: tuple[str, ...], app: Path
) -> None:
    base = report(app, LIVES)
    found = advise.unfit(report(app, LIVES, **changed), base, {"preload": True}, {"listen": "import of app.py"})
    assert found == told


def test_a_loop_that_is_gone_is_not_cured(app: Path) -> None:
    gone = replace(report(app), observed=Observed(history(server(2), BOOTED, opened()), {}, {}))
    assert advise.unfit(gone, report(app, DIED), {}, {}) == ("listen is not started at all",)
    named = replace(report(app), observed=Observed(report(app).observed.history, {"listn": Policy.BEST_EFFORT}, {}))
    assert advise.unfit(named, report(app), {}, {}) == ("no loop is called listn",)


def test_what_is_undecided_recommends_nothing(app: Path) -> None:
    unknown = Finding("clean_shutdown", Verdict.UNKNOWN, None, "too slow")
    assert advise.unfit(report(app, unknown), report(app), {}, {}) == ("undecided: clean_shutdown",)


@dataclass
class Fake:
    """A checker that has each deployment's report from a function of its configuration and folder."""

    found: Callable[[str, Path], check.CheckReport]
    out: Path
    target: Any = None
    runs: int = 0

    def check(self, what: check.Deployment) -> check.CheckReport:
        self.runs += 1
        conf = (what.folder / (what.config or "gunicorn.conf.py")).read_text(encoding="utf-8")
        return self.found(conf, what.folder)


@pytest.fixture
def fakes(app: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[advise.Adviser, Fake]]]:
    def make(found: Callable[[str, Path], check.CheckReport], **fields: Any) -> tuple[advise.Adviser, Fake]:
        versions: Mapping[str, str] = {"gunicorn": "27.0.1"}
        fake = Fake(found, tmp_path / "out", check.Target("/python", "3.11.7", dict(versions), ()))
        return advise.Adviser(cast(check.Checker, fake), deployment(app), **fields), fake

    yield make
    assert not list((tmp_path / "out").glob("advise-*/*"))


def test_a_deployment_that_holds_is_found_with_its_diff(fakes: Any, app: Path) -> None:
    def found(conf: str, folder: Path) -> check.CheckReport:
        preload = "preload_app = True" in conf
        return report(folder, DIED if preload else LIVES, preload=preload)

    adviser, fake = fakes(found)
    advice = adviser.advise()
    assert (advice.verdict, advice.exit_code, fake.runs) == (Verdict.HELD, 0, 1 + 1 + 3)
    (trial,) = advice.found
    assert str(trial.candidate) == "preload_app: True -> False"
    assert (trial.runs, trial.why) == (3, ())
    assert "-preload_app = True\n+preload_app = False\n" in trial.diff
    plain = json.loads(json.dumps(advice.to_dict()))
    validate(plain, "advice")


def test_where_none_holds_that_is_said(fakes: Any, app: Path) -> None:
    def settings(conf: str) -> dict[str, Any]:
        kind = "gthread" if "'gthread'" in conf or "worker_class" not in conf else "gevent"
        return {"preload": "preload_app = True" in conf, "kind": kind, "workers": 1 if "workers = 1" in conf else 2}

    adviser, _ = fakes(lambda conf, folder: report(folder, DIED, **settings(conf)))
    advice = adviser.advise()
    assert (advice.verdict, advice.exit_code, advice.found, advice.left) == (Verdict.BROKEN, 1, [], 0)
    assert all(trial.verdict is Verdict.BROKEN and trial.diff for trial in advice.trials)


def test_a_run_that_loaded_the_users_own_files_recommends_nothing(fakes: Any, app: Path) -> None:
    def found(conf: str, _: Path) -> check.CheckReport:
        preload = "preload_app = True" in conf
        return report(app, DIED if preload else LIVES, preload=preload)

    adviser, _ = fakes(found)
    advice = adviser.advise()
    assert advice.found == []
    assert any("was loaded, and not the changed file" in why for trial in advice.trials for why in trial.why)


def test_what_time_did_not_allow_is_open(fakes: Any, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 6.0)
    monkeypatch.setattr(advise.time, "monotonic", lambda: next(clock))
    adviser, _ = fakes(
        lambda conf, folder: report(folder, DIED, preload="preload_app = True" in conf), budget_seconds=10.0
    )
    advice = adviser.advise()
    assert (advice.verdict, advice.exit_code) == (Verdict.UNKNOWN, 3)
    assert advice.left > 0


def test_one_that_holds_once_and_not_again_is_none(fakes: Any, app: Path) -> None:
    turn = itertools.count()

    def found(conf: str, folder: Path) -> check.CheckReport:
        if "preload_app = True" in conf:
            return report(folder, DIED)
        return report(folder, LIVES if next(turn) % 3 < 2 else DIED, preload=False)

    adviser, _ = fakes(found)
    assert not [trial for trial in adviser.advise().found if len(trial.candidate.changes) == 1]


def test_what_holds_already_is_left_alone(fakes: Any, app: Path) -> None:
    adviser, fake = fakes(lambda conf, folder: report(folder, LIVES))
    advice = adviser.advise()
    assert (advice.holds, advice.exit_code, fake.runs, advice.trials) == (True, 0, 3, [])
    validate(json.loads(json.dumps(advice.to_dict())), "advice")


def test_wrong_words(run: Run) -> None:
    code, out, err = run("advise", "app:app", "--policy", "listen=always")
    assert (code, out) == (2, "")
    assert "listen=always: there is no such policy" in err
