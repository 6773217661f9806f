"""The apps of `examples/apps`, and a sample of what `examples/truth.toml` says of them against live servers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from test_cli import tmp_path

from forkproof import check

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))  # after ours: both have a planted.py

import truth
import truth_of_check
from truth import Run, Seen
from truth_of_check import Told

__all__ = ["tmp_path"]
NEEDS = {"apscheduler": "apscheduler", "opentelemetry": "opentelemetry.sdk"}
WRITTEN = truth.read()
BOTH = {"worker 0", "worker 1"}


@pytest.mark.parametrize("app", truth.LOOPS)
def test_an_app_is_what_a_user_would_write(app: str) -> None:
    folder = truth.APPS / app
    assert {path.name for path in folder.iterdir()} == {"app.py", "requirements.txt"}
    assert "forkproof" not in (folder / "app.py").read_text(encoding="utf-8")


def test_there_is_a_truth_for_each_app_loop_and_deployment() -> None:
    assert {path.name for path in truth.APPS.iterdir()} == set(truth.LOOPS) == set(WRITTEN)
    for app, by_deployment in WRITTEN.items():
        assert sorted(by_deployment) == truth.deployments()
        for one in by_deployment.values():
            assert list(one["loops"]) == list(truth.LOOPS[app])


def run(**changes: object) -> Run:
    """A healthy listener's run, with changes."""
    seen = {phase: Seen(set(BOTH), {2}) for phase in truth.PHASES}
    return Run({"listen": {**seen, **changes}}, dict.fromkeys(truth.PHASES, True), "in time")  # type: ignore[dict-item]


def test_what_runs_showed_is_written_and_read_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = truth.table("redis-listener", [run(), run(replaced=Seen({"worker 1"}, {0, 1}))])
    assert shown["loops"]["listen"] == {
        "survives": "1/2",
        "boot": {"works_in": {"worker 0": "2/2", "worker 1": "2/2"}, "times": {"2": "2/2"}},
        "replaced": {"works_in": {"worker 0": "1/2", "worker 1": "2/2"}, "times": {"0,1": "1/2", "2": "1/2"}},
        "reloaded": {"works_in": {"worker 0": "2/2", "worker 1": "2/2"}, "times": {"2": "2/2"}},
    }
    monkeypatch.setattr(truth, "TRUTH", tmp_path / "truth.toml")
    truth.TRUTH.write_text(truth.page({"python": "3"}, {"redis-listener": {"gthread": shown}}), encoding="utf-8")
    assert truth.read() == {"redis-listener": {"gthread": shown}}


def test_a_run_that_differs_is_told() -> None:
    healthy = truth.table("redis-listener", [run()] * 3)
    racy = truth.table("redis-listener", [run(), run(boot=Seen({"worker 1"}, {1}))])
    lost = truth.table("redis-listener", [run(boot=Seen({"worker 1"}, {1}))])
    assert not truth.differences(healthy, truth.table("redis-listener", [run()]))
    assert not truth.differences(racy, lost)
    assert truth.differences(healthy, lost, "gthread") == [
        "gthread.loops.listen.boot.works_in.worker 0: was 3/3, is 0/1",
        "gthread.loops.listen.boot.times.2: was 3/3, is 0/1",
        "gthread.loops.listen.boot.times.1: was 0/1, is 1/1",
    ]


@pytest.mark.fork
@pytest.mark.parametrize(
    ("app", "deployment"),
    [
        ("queue-listener", "gthread_preload"),
        ("executor", "gevent"),
        ("apscheduler", "gevent_preload_patched"),
        ("opentelemetry", "gthread_preload"),
    ],
)
def test_a_server_does_what_the_truth_says(app: str, deployment: str) -> None:
    package = NEEDS.get(app)
    if package and importlib.util.find_spec(package.partition(".")[0]) is None:
        pytest.skip(f"{package} is not installed: pip install '.[examples]'")
    assert not truth.differences(WRITTEN[app][deployment], truth.table(app, [truth.run(app, deployment)]))


def told(**changes: object) -> Told:
    """What `check` says of a healthy queue listener, with changes."""
    fields = {"works": {"QueueListener._monitor": dict.fromkeys(truth.PHASES, BOTH)}, "bad": {}, "unknown": set()}
    return Told(**{**fields, **changes})  # type: ignore[arg-type]


def test_what_check_says_is_held_against_the_truth() -> None:
    healthy = WRITTEN["queue-listener"]["gthread"]
    assert not truth_of_check.contradictions("queue-listener", healthy, told())
    nowhere = told(works={"QueueListener._monitor": {phase: set[str]() for phase in truth.PHASES}})
    assert len(truth_of_check.contradictions("queue-listener", healthy, nowhere)) == 6
    ends = told(bad={"": {"clean_shutdown"}})
    assert truth_of_check.contradictions("queue-listener", healthy, ends) == [
        "it ends in time at TERM, and is said not to"
    ]
    hangs = told(bad={"": {"clean_shutdown", "server_answers"}})  # in a request, at TERM too
    assert not truth_of_check.contradictions("queue-listener", healthy, hangs)
    dead = WRITTEN["queue-listener"]["gthread_preload"]
    told_well = truth_of_check.contradictions("queue-listener", dead, told())
    assert "QueueListener._monitor: works nowhere, and nothing is said to be wrong" in told_well
    assert not truth_of_check.contradictions("queue-listener", dead, told(bad={"": {"no_dead_listener"}}))


@pytest.mark.fork
@pytest.mark.parametrize(
    ("app", "deployment"),
    [
        ("queue-listener", "gthread_preload"),
        ("redis-listener", "gthread"),
        ("apscheduler", "gevent_preload_patched"),
        ("opentelemetry", "gevent_preload_patched_thread_false"),
    ],
)
def test_check_says_what_the_truth_says(app: str, deployment: str, tmp_path: Path) -> None:
    package = NEEDS.get(app)
    if package and importlib.util.find_spec(package.partition(".")[0]) is None:
        pytest.skip(f"{package} is not installed: pip install '.[examples]'")
    with check.open_checker(sys.executable, tmp_path) as checker:
        contradictions, _ = truth_of_check.compare(checker, app, deployment)
    assert not contradictions
