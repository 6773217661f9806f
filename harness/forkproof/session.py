"""What the runs of one command share, and how one scenario becomes a judged report."""

from __future__ import annotations

import abc
import contextlib
import sys
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from forkproof import broker, launch, registries, scenario, target
from forkproof.broker import Broker
from forkproof.control import Control
from forkproof.errors import BrokerError, CouldNotDecide, ForkproofError, HistoryError, NothingBoots, UsageError
from forkproof.history import History
from forkproof.judge import RunReport, judge, launched, server_log
from forkproof.launch import Shared
from forkproof.nest import Nests
from forkproof.nursery import Nursery
from forkproof.scenario import Loop, LoopStart, Policy, Scenario, Server
from forkproof.storage import Pruner
from forkproof.target import Target


class Session(abc.ABC):
    """Runs scenarios on one target. Safe to use from several threads; `stop` ends what is under way."""

    def __init__(self, target: Target, broker: Broker, out: Path, claims: Collection[str] | None = None) -> None:
        self.target = target
        self.broker = broker
        self.claims = claims
        self.launched = 0
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._control_boots = False
        self._pruner = Pruner(out)

    @abc.abstractmethod
    def _start(self, what: Scenario) -> Path:
        """Run a scenario and return the folder of the run; raises as `launch.launch` does."""

    def can_run(self, what: Scenario) -> bool:
        """Whether target and broker have what a scenario needs."""
        try:
            launch.require(what, self.target, self.broker)
        except ForkproofError:
            return False
        return True

    def run(self, what: Scenario, *, every_claim: bool = False) -> RunReport:
        """Launch a scenario once and judge it, by the claims that were asked for or by all.

        Raises MissingPackage or TargetError where the target cannot run it, and CouldNotDecide where the server did not
        boot and the plainest one does not boot either, where the run was stopped, or where its record is damaged.
        """
        folder = self.launch(what)
        try:
            report = judge(folder, None if every_claim else self.claims)
            boots = report.booted or self._plainest_boots()
        except HistoryError as error:  # a server's doing, as it runs under the same user
            raise CouldNotDecide(str(error), folder) from None
        if not boots:
            raise NothingBoots(
                f"no server boots on {self.target.executable}, not even a sync one without patches. It said:\n"
                f"{server_log(report.folder)}\nSee {report.folder}/server.log, and `forkproof doctor`.",
                report.folder,
            )
        return report

    def launch(self, what: Scenario) -> Path:
        """Launch a scenario once and return the folder of the run; CouldNotDecide where that was stopped."""
        with self._lock:
            self.launched += 1
        self._pruner.ran()
        try:
            folder = self._start(what)
        except BrokerError as error:  # the session's own Redis has answered, so it is the machine that is late now
            raise CouldNotDecide(str(error)) from None
        if self.stop.is_set():
            raise CouldNotDecide("stopped", folder)
        return folder

    def _plainest_boots(self) -> bool:
        """Whether a control boot works: sync, no patch, no preload. Asked until it has worked once."""
        with self._lock:
            known = self._control_boots
        if not known:
            control = self.launch(PLAINEST)
            known = bool(History.read(control / "history").windows)
            launch.remove_folder(control)
            with self._lock:
                self._control_boots |= known
        return known


class LocalSession(Session):
    """Runs them on this machine."""

    def __init__(self, around: Shared, claims: Collection[str] | None = None) -> None:
        super().__init__(around.target, around.broker, around.out, claims)
        self.around = around

    def _start(self, what: Scenario) -> Path:
        return launch.launch(what, self.around, self.stop)


PLAINEST = Scenario(
    loops=(Loop(name="control", start=LoopStart.POST_WORKER_INIT, policy=Policy.BEST_EFFORT),), server=Server()
)
"""The control boot: what fails in it is the target's fault, not the deployment's."""


@contextlib.contextmanager
def open_session(
    *,
    target_name: str | None = None,
    broker_name: str = "embedded",
    out: Path,
    claims: Collection[str] | None = None,
    warm: bool = False,
) -> Iterator[LocalSession]:
    """A session with its broker and control process running; both end with it, or with this process.

    `warm` has servers forked from nests, where the machine and the target allow it; else each is started anew.
    """
    registries.require()
    chosen = target.find(target_name)
    spec = broker.parse(broker_name)
    folder = launch.campaign_folder(out)
    try:
        with (
            broker.start(spec, folder) as redis,
            Control(folder) as control,
            Nursery(folder, launch.namespace()) as nursery,
            Nests(folder, launch.environment) as nests,
        ):
            asked = {"target": chosen.executable, "broker": str(spec)}
            used = nests if warm and launch.may_fork_from_nests() else None
            yield LocalSession(Shared(chosen, redis, control, out, nursery, asked, used), claims)
    finally:
        launch.remove_folder(folder)


def load(path: Path) -> Scenario:
    """A scenario from its file, from standard input for "-", or from the folder of a run."""
    if str(path) == "-":
        path = Path("/dev/stdin")
    return scenario.of_run(path) if path.is_dir() else scenario.load(path)


def asked_for(folder: Path) -> dict[str, str]:
    """The target and broker that a run was launched with; empty for what is no folder of a run.

    UsageError where its launch.json cannot be relied on: to run on another target than it says would tell nothing. A
    folder that was not made where it lies may be anybody's: no program that it names is started.
    """
    if not (folder / "launch.json").exists():
        return {}
    run = launched(folder)
    target_name, broker_name = run.asked.get("target", sys.executable), run.asked.get("broker", "embedded")
    if run.lies_at(folder) or (target_name == sys.executable and not broker_name.startswith("redis-server:")):
        return run.asked
    raise UsageError(
        f"{folder}: was not made there, so the programs that its launch.json names are not started. "
        f"Give --target (it ran on {target_name}) and --broker (it had {broker_name})."
    )
