"""Scenarios on a Dask cluster's workers: the same verdicts, a lost worker's share done again, and clear refusals."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from distributed import Client, LocalCluster

from forkproof import cli, cluster, machines
from forkproof.cluster import Answer, Asked
from forkproof.errors import BrokerError, ClusterError, CouldNotDecide, MissingPackage, RunFolderError, UsageError
from forkproof.lanes import Shelf, load
from forkproof.matrix import judging
from forkproof.scenario import Scenario, from_dict
from forkproof.session import LocalSession, open_session
from forkproof.target import inspect

LATE = {"name": "a", "start": "post_worker_init"}
KILL = {"fault": "kill_worker", "slot": 0}
COPIED = {"name": "a", "start": "config_import", "policy": "once_per_worker"}
EARLY = {"patches": [{"site": "config_first_line"}], "server": {"worker_class": "gevent", "workers": 2}}
SOME = [
    from_dict({"loops": [LATE]}),
    from_dict({"loops": [{**LATE, "body": "listen"}], "faults": [KILL]}),
    from_dict({"loops": [COPIED], **EARLY}),
    from_dict({"loops": [{**LATE, "body": "sleep"}], "server": {"workers": 2}}),
]
CLAIMS = ("exactly_one_listener", "no_copied_thread", "server_answers", "workers_boot")
HERE = inspect(sys.executable)


def answer(**others: Any) -> Answer:
    return replace(Answer("tcp://a:1", HERE, judging(), "run", b""), **others)


@pytest.mark.parametrize("where", ["", "here", "tcp://host", "nonsense://host:1", "tcp://a b:1"])
def test_what_is_no_address_is_named(where: str) -> None:
    with pytest.raises(UsageError, match=r"is no address of a scheduler. Give such as tcp://host:8786"):
        cluster.connect(where).__enter__()


def test_a_scheduler_that_is_not_there_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT", 0.2)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        where = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ClusterError, match=rf"--dask {where}: no scheduler answers there .* `dask scheduler`"):
            cluster.connect(where).__enter__()


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "forkproof.cluster")
    monkeypatch.delattr("forkproof.cluster")
    wanted = machines.Wanted(None, "embedded", tmp_path)
    with pytest.raises(MissingPackage, match=r"pip install 'forkproof\[dask\]'"):
        machines.machines("tcp://a:1", wanted, load(), Shelf(tmp_path), print).__enter__()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (answer(problem="no gunicorn there", fatal=True), "the worker tcp://a:1: no gunicorn there"),
        (answer(judging="another"), "has another forkproof than this machine. Install the same one"),
        (answer(target=replace(HERE, python="3.9.1")), rf"has python 3.9.1 and not {HERE.python}. Install the same"),
    ],
)
def test_a_worker_that_is_not_like_the_others_is_named(other: Answer, told: str) -> None:
    assert cluster.require_same(answer(), HERE) == HERE
    with pytest.raises(ClusterError, match=told):
        cluster.require_same(other, HERE)


class Late:
    """What was asked of a worker that does not answer, or does."""

    def __init__(self, answer: Answer | None) -> None:
        self.answer = answer

    def result(self, timeout: float) -> Answer:
        if self.answer is None:
            raise cluster.LateError
        return self.answer


def test_a_worker_that_is_lost_before_it_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    known = iter([{"a": 1, "b": 1}, {"a": 1, "b": 1}, {"b": 1}])
    client = Slow({"a": 1, "b": 1})
    monkeypatch.setattr(client, "nthreads", lambda: next(known))
    told = {"a": Late(None), "b": Late(answer())}
    monkeypatch.setattr(client, "submit", lambda *words, workers, **others: told[workers[0]], raising=False)
    assert list(cluster._answers(cast(Client, client), "name")) == [answer()]


def test_a_worker_without_forkproof_is_told_and_nothing_is_left(short_folder: Path) -> None:
    class Refusing:
        scheduler = None
        left: ClassVar[list[str]] = []

        def register_plugin(self, plugin: object, name: str) -> None:
            self.left.append(name)
            raise Exception("No module named 'forkproof'")

        def unregister_worker_plugin(self, name: str) -> None:
            self.left.remove(name)

    with pytest.raises(
        ClusterError, match=r"has no forkproof that it can use \(No module.*pip install 'forkproof\[dask\]'"
    ):
        cluster.open_session(cast(Client, Refusing()), Asked(), out=short_folder).__enter__()
    assert Refusing.left == []


@pytest.mark.parametrize(
    ("error", "fatal"), [(BrokerError("late"), False), (CouldNotDecide("late"), False), (RunFolderError("full"), True)]
)
def test_what_keeps_one_scenario_from_a_verdict_ends_no_command(
    error: Exception, fatal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Path:
        raise error

    around = SimpleNamespace(target=HERE, broker=None, out=tmp_path)
    opened = LocalSession(cast(Any, around))
    host = cluster.Host(Asked())
    host._worker = "tcp://a:1"
    monkeypatch.setattr(host, "_open", lambda: nullcontext(opened))
    monkeypatch.setattr("forkproof.launch.launch", fail)
    told = host.run(SOME[0].to_json())
    assert (told.problem, told.fatal, told.target) == (str(error), fatal, HERE)


class Slow:
    """A client whose scheduler is asked, and answers as told."""

    def __init__(self, *told: dict[str, int] | Exception) -> None:
        self.told = list(told)
        self.scheduler = None

    def nthreads(self) -> dict[str, int]:
        what = self.told.pop(0) if len(self.told) > 1 else self.told[0]
        if isinstance(what, Exception):
            raise what
        return what


def test_a_scheduler_that_is_gone_is_told() -> None:
    with pytest.raises(ClusterError, match=r"the scheduler answers no more \(closed\)"):
        cluster.threads(cast(Client, Slow(OSError("closed"))))


@pytest.fixture(scope="module")
def tracker() -> None:
    """What multiprocessing starts once in a process, for all of its children."""
    resource_tracker.ensure_running()


@pytest.fixture
def some_machines(tracker: None) -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as local,
        cluster.connect(local.scheduler_address) as client,
    ):
        yield client


def left_behind(client: Client) -> list[str]:
    """What the workers keep of ours."""

    def look(dask_worker: Any) -> list[str]:
        ours = [name for name in dask_worker.plugins if name.startswith("forkproof")]
        return ours + [str(path) for path in Path(dask_worker.local_directory).glob("fp*")]

    return [one for found in client.run(look).values() for one in found]


@pytest.mark.fork
@pytest.mark.timeout(120)
def test_the_verdicts_are_those_of_this_machine_though_a_worker_is_lost(
    some_machines: Client, short_folder: Path
) -> None:
    client = some_machines
    pids = client.run(os.getpid)
    with (
        cluster.open_session(client, Asked(), out=short_folder / "there", claims=CLAIMS) as there,
        open_session(out=short_folder / "here", claims=CLAIMS) as here,
        ThreadPoolExecutor(2) as pool,
    ):
        running = [pool.submit(there.run, what) for what in SOME]
        end = time.monotonic() + 30
        while not (busy := [where for where, tasks in client.processing().items() if tasks]):
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(pids[busy[0]], signal.SIGKILL)
        for what, one in zip(SOME, running, strict=True):
            report, same = one.result(), here.run(what)
            assert report.folder.parent == short_folder / "there"
            assert (report.folder / "server.log").exists()
            assert [(j.key, j.finding.verdict) for j in report.judgements] == [
                (j.key, j.finding.verdict) for j in same.judgements
            ]
    assert left_behind(client) == []


@pytest.mark.fork
@pytest.mark.timeout(120)
def test_the_command_draws_the_same_scenarios(
    some_machines: Client, short_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[Scenario]] = {"here": [], "there": []}
    at = cluster.ClusterSession._start

    def start(self: Any, what: Scenario) -> Path:
        drawn["there"].append(what)
        return at(self, what)

    monkeypatch.setattr(cluster.ClusterSession, "_start", start)
    words = ["explore", "-n", "3", "--seed", "4", "--out", str(short_folder), "-q", "--claim", "workers_boot"]
    with pytest.raises(SystemExit) as left:
        cli.main([*words, "--dask", cluster.address(some_machines)])
    assert left.value.code == 0, capsys.readouterr().err
    with open_session(out=short_folder) as here:
        drawn["here"] = list(next(iter(cli._batches(3, 4, here, None))))
    assert {what.digest for what in drawn["there"]} >= {what.digest for what in drawn["here"]}
    assert left_behind(some_machines) == []


@pytest.mark.fork
def test_a_target_that_the_workers_lack_is_refused(some_machines: Client, short_folder: Path) -> None:
    with pytest.raises(ClusterError, match=r"the worker tcp://.*: /nowhere: there is no such file"):
        cluster.open_session(some_machines, Asked("/nowhere"), out=short_folder).__enter__()
    assert left_behind(some_machines) == []


@pytest.mark.fork
def test_what_is_stopped_is_not_waited_for(some_machines: Client, short_folder: Path) -> None:
    with cluster.open_session(some_machines, Asked(), out=short_folder) as there:
        timer = threading.Timer(0.3, there.stop.set)
        timer.start()
        with pytest.raises(CouldNotDecide, match="stopped"):
            there.run(from_dict({"loops": [LATE], "faults": [KILL]}))
        timer.join()
