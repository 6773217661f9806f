"""Scenarios that run on the workers of a Dask cluster, and are judged here.

A scenario travels one way and the files of its run the other, so no file system need be shared. What a lost worker had
not answered, Dask gives to another one. Source: https://distributed.dask.org/en/stable/resilience.html.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import json
import re
import secrets
import threading
import time
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client, KilledWorker, Worker, WorkerPlugin, get_worker
from distributed import TimeoutError as LateError  # asyncio's, which Python 3.10 does not take for its own

from forkproof import broker, lanes, launch, registries, scenario, session
from forkproof.errors import ClusterError, CouldNotDecide, ForkproofError, UsageError
from forkproof.lanes import Lane
from forkproof.matrix import judging
from forkproof.scenario import Scenario
from forkproof.session import LocalSession, Session
from forkproof.target import Target

CONNECT = 10.0
"""Seconds in which a scheduler has to answer."""

ALONE = 60.0
"""Seconds without any worker after which a command gives up; a nanny starts its worker again within some 5."""

IDLE = 60.0
"""Seconds after which a worker that nobody asks ends its session, lest a command that was killed leave it behind."""

LOOK = 1.0
"""Seconds between two looks at the cluster while an answer is waited for."""


@dataclass(frozen=True)
class Asked:
    """What a worker opens its session with. `target` is a path there; a lane is built there."""

    target: str | None = None
    lane: Lane | None = None
    broker: str = "embedded"
    warm: bool = False


@dataclass(frozen=True)
class Answer:
    """What came of a scenario: its run's files as a zip, or a problem, `fatal` where others have it too."""

    worker: str
    target: Target | None = None
    judging: str = ""
    name: str = ""
    files: bytes = field(default=b"", repr=False)
    problem: str = ""
    fatal: bool = False


class Host(WorkerPlugin):
    """Keeps a worker's session: opened at the first scenario, ended with the command or when nobody asks any more."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def setup(self, worker: Worker) -> None:
        """Called by Dask on each worker, also on those that come later."""
        self._worker = worker.address
        # Beside what Dask keeps for the worker, so that it goes when a nanny clears up after one that was killed.
        self._out = Path(worker.local_directory) / "fp"
        self._stack = contextlib.ExitStack()
        self._session: LocalSession | None = None
        self._running = 0
        self._changed = threading.Condition()
        self._timer: threading.Timer | None = None

    def teardown(self, worker: Worker) -> None:
        """Called by Dask when the command is over, or the worker leaves."""
        with self._changed:
            if self._session is not None:
                self._session.stop.set()
            self._changed.wait_for(lambda: not self._running, timeout=IDLE)
            self._close()

    def run(self, text: str | None) -> Answer:
        """Run a scenario, or only tell what the target is."""
        about: dict[str, Any] = {"worker": self._worker, "judging": judging()}
        try:
            with self._open() as opened:
                about["target"] = opened.target
                if text is None:
                    return Answer(**about)
                folder = opened.launch(scenario.from_dict(json.loads(text)))
                return Answer(**about, name=folder.name, files=_packed(folder))
        except CouldNotDecide as error:
            if error.folder is not None:
                about |= {"name": error.folder.name, "files": _packed(error.folder)}
            return Answer(**about, problem=str(error))
        except ForkproofError as error:
            return Answer(**about, problem=str(error), fatal=True)

    @contextlib.contextmanager
    def _open(self) -> Iterator[LocalSession]:
        with self._changed:
            if self._timer is not None:
                self._timer.cancel()
            if self._session is None:
                self._session = self._stack.enter_context(self._opened())
            self._running += 1
        try:
            yield self._session
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
                self._timer = threading.Timer(IDLE, self._close_if_idle)
                self._timer.daemon = True
                self._timer.start()

    def _opened(self) -> contextlib.AbstractContextManager[LocalSession]:
        asked = self._asked
        target = asked.target if asked.lane is None else str(lanes.Shelf(lanes.default_folder()).build(asked.lane))
        return session.open_session(target_name=target, broker_name=asked.broker, out=self._out, warm=asked.warm)

    def _close_if_idle(self) -> None:
        with self._changed:
            if not self._running:
                self._close()

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stack.close()
        self._session = None
        launch.remove_folder(self._out)


def _packed(folder: Path) -> bytes:
    """The files of a run, which is removed."""
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_dir() or (path.is_file() and not path.is_symlink()):  # and neither pipes nor sockets
                packed.write(path, path.relative_to(folder))
    launch.remove_folder(folder)
    return text.getvalue()


def _run(name: str, text: str | None) -> Answer:
    """The task that Dask runs on a worker."""
    host = get_worker().plugins[name]
    assert isinstance(host, Host)
    return host.run(text)


class ClusterSession(Session):
    """Runs scenarios on a cluster's workers, and fetches what the runs left."""

    def __init__(
        self, client: Client, plugin: str, target: Target, spec: broker.BrokerSpec, out: Path,
        claims: Collection[str] | None,
    ) -> None:  # fmt: skip
        super().__init__(target, broker.elsewhere(spec), out, claims)
        self._client = client
        self._plugin = plugin
        self._out = out
        self._executor = client.get_executor(pure=False)
        self._seen = time.monotonic()

    def _start(self, what: Scenario) -> Path:
        launch.require(what, self.target, self.broker)
        answer = self._waited_for(self._executor.submit(_run, self._plugin, what.to_json()))
        require_same(answer, self.target)
        folder = self._unpacked(answer) if answer.name else None
        if answer.problem or folder is None:
            raise CouldNotDecide(f"{answer.worker}: {answer.problem}", folder)
        return folder

    def _unpacked(self, answer: Answer) -> Path:
        folder = self._out.absolute() / answer.name
        try:
            folder.mkdir(parents=True, mode=0o700)
            with zipfile.ZipFile(io.BytesIO(answer.files)) as packed:
                packed.extractall(folder)
        except OSError as error:
            raise CouldNotDecide(f"{folder}: cannot be written: {error.strerror}") from None
        return folder

    def _waited_for(self, future: concurrent.futures.Future[Answer]) -> Answer:
        while not concurrent.futures.wait([future], timeout=LOOK).done:
            if self.stop.is_set():
                future.cancel()
                raise CouldNotDecide("stopped")
            self._require_workers()
        try:
            return future.result()
        except KilledWorker as error:
            raise CouldNotDecide(f"the workers that ran it were lost: {error}") from None
        except concurrent.futures.CancelledError:
            raise ClusterError(
                f"{address(self._client)}: the scheduler was lost. Start it, and run this again."
            ) from None

    def _require_workers(self) -> None:
        if threads(self._client):
            self._seen = time.monotonic()
        elif time.monotonic() > self._seen + ALONE:
            raise ClusterError(f"{address(self._client)}: has had no worker for {ALONE:.0f} s. Start some.")


class _Client(Client):
    """A client that ends its thread too where its scheduler does not answer."""

    def start(self, **others: Any) -> None:
        try:
            super().start(**others)  # type: ignore[no-untyped-call]
        except BaseException:
            self._loop_runner.stop()
            raise


def address(client: Client) -> str:
    """Where a client's scheduler is."""
    return str(client.scheduler.address) if client.scheduler is not None else "the cluster"


def workers(client: Client) -> dict[str, int]:
    """The workers with the threads of each; ClusterError where the scheduler is gone."""
    try:
        return dict(client.nthreads())
    except (OSError, LateError, RuntimeError) as error:
        raise ClusterError(
            f"{address(client)}: the scheduler answers no more ({error}). Start it, and run this again."
        ) from None


def threads(client: Client) -> int:
    """How many scenarios a cluster runs at once."""
    return sum(workers(client).values())


def require_same(answer: Answer, target: Target | None) -> Target:
    """A worker's target; ClusterError where all scenarios would have a problem there, or it is not like the others."""
    if answer.fatal or answer.target is None or target is None:
        raise ClusterError(f"the worker {answer.worker}: {answer.problem}")
    if answer.judging != judging():
        raise ClusterError(
            f"the worker {answer.worker}: has another forkproof than this machine. Install the same one."
        )
    mine, its = target.to_dict(), answer.target.to_dict()
    if mine != its:
        differ = ", ".join(f"{name} {its[name]} and not {mine[name]}" for name in mine if mine[name] != its[name])
        raise ClusterError(f"the worker {answer.worker}: has {differ}. Install the same versions, or use a lane.")
    return target


@contextlib.contextmanager
def connect(where: str) -> Iterator[Client]:
    """A client of the scheduler at such as tcp://host:8786; ClusterError where none answers or it has no
    workers, UsageError where that is no address.
    """
    # The client of a wrong address is not there to be closed, and complains when it is collected.
    if not re.fullmatch(r"(tcp|tls|ws|wss)://[^\s/]+:\d+", where):
        raise UsageError(f"--dask {where}: is no address of a scheduler. Give such as tcp://host:8786.")
    try:
        client = _Client(where, timeout=CONNECT, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, LateError, ValueError) as error:
        raise ClusterError(
            f"--dask {where}: no scheduler answers there ({error}). Start one with `dask scheduler`."
        ) from None
    with client:
        if not threads(client):
            raise ClusterError(f"--dask {where}: the cluster has no workers. Start some with `dask worker {where}`.")
        yield client


@contextlib.contextmanager
def open_session(
    client: Client, asked: Asked, *, out: Path, claims: Collection[str] | None = None
) -> Iterator[ClusterSession]:
    """A session on a cluster; all workers have to have the same versions, and this machine's forkproof."""
    registries.require()
    plugin = f"forkproof-{secrets.token_hex(4)}"
    try:
        _register(client, plugin, asked)
        answers = list(_answers(client, plugin))
        if not answers:
            raise ClusterError(f"{address(client)}: the workers were lost. Start some, and run this again.")
        for answer in answers:
            first = require_same(answer, answers[0].target)
        yield ClusterSession(client, plugin, first, broker.parse(asked.broker), out, claims)
    finally:
        with contextlib.suppress(OSError, LateError, RuntimeError):  # the scheduler may be gone
            client.unregister_worker_plugin(plugin)


def _register(client: Client, plugin: str, asked: Asked) -> None:
    try:
        client.register_plugin(Host(asked), name=plugin)
    except Exception as error:  # whatever a worker raises that cannot take it in
        raise ClusterError(
            f"{address(client)}: a worker has no forkproof that it can use ({error}). "
            "Run `pip install 'forkproof[dask]'` in the environment of each worker."
        ) from None


def _answers(client: Client, plugin: str) -> Iterator[Answer]:
    """What each worker that is there tells of its target; one that is lost meanwhile is not waited for."""
    asked = {
        worker: client.submit(_run, plugin, None, workers=[worker], allow_other_workers=False, pure=False)
        for worker in workers(client)
    }
    for worker, future in asked.items():
        while True:
            try:
                yield future.result(timeout=LOOK)
                break
            except LateError:
                # Dask would wait for a worker of that address for ever.
                if worker not in workers(client):
                    break
