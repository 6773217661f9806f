"""What a fault is made of."""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from forkproof.faults.life import Life


class Server(Protocol):
    """What a fault may do to, and ask of, the server under test. A process is named by its key, `pid-start`."""

    @property
    def arbiter_pid(self) -> int:
        """The pid of the running master."""

    def worker_pid(self, slot: int) -> int | None:
        """The pid of the newest live worker in `slot`."""

    def workers(self) -> list[str]:
        """Every live worker."""

    def signal(self, pid: int, number: int) -> None:
        """Send a signal; OSError where the process is gone."""

    async def wait(self, seconds: float) -> None:
        """Let so many seconds pass."""

    async def all_slots_answered(self) -> bool:
        """Ask until each slot's newest worker has answered, or the calibrated bound has passed."""

    async def answered_by_others_than(self, old: Collection[str]) -> bool:
        """Ask until workers other than `old` have answered in each slot, or the calibrated bound has passed."""

    async def gone(self, keys: Collection[str], pid: int | None = None) -> bool:
        """Whether these processes are gone within the bound of a graceful end."""

    def leaving(self, keys: Collection[str]) -> list[str]:
        """Those of these workers that are gone, or that have had their max_requests."""

    async def ask_until(self, condition: Callable[[], bool]) -> int | None:
        """Send requests until `condition()`; how many it took, None where the bound passed first."""

    async def block(self, slot: int, seconds: float) -> None:
        """Send requests until the worker in `slot` has taken one that blocks it; OSError where the bound passed."""

    def child_pid(self, slot: int | None) -> int | None:
        """The pid of the newest live child of the worker in `slot`, or of the arbiter: one that is no worker."""

    def end_foreign_child(self, code: int) -> int:
        """Make a child that was there before gunicorn exit with `code`; its pid."""

    async def reaped(self, pid: int) -> bool:
        """Whether a process that has exited was waited for, within the bound."""

    async def another_arbiter(self) -> int | None:
        """The pid of a master that was started by the running one, once it is there."""

    def follow(self, arbiter: int) -> None:
        """Take that master for the running one."""

    async def redis(self, what: str) -> None:
        """`stop`, `start` on the same port, `pause` or `resume` the run's own Redis; OSError where that fails."""

    async def kill_clients(self) -> int:
        """Have Redis close the connections of the server's; how many. OSError where Redis gives no answer."""

    async def clients(self) -> list[str]:
        """Redis' ids of the server's connections; OSError where it gives no answer."""

    async def connected(self, count: int) -> bool:
        """Whether Redis has so many connections of the server's again, within the bound."""

    async def replaced(self, old: Collection[str]) -> bool:
        """Whether workers other than `old` answer in each slot and those are gone, within the bounds."""

    async def reloaded(self, old: Collection[str]) -> bool:
        """Whether `old` were replaced by a reload; what the processes have then is recorded."""

    async def thinned_out(self) -> bool:
        """Whether no more workers are alive than there are slots, within the bound of a graceful end."""


Fault = Mapping[str, Any]
"""A fault as the scenario has it, in plain data."""
Facts = Mapping[str, Any]
"""What an injection tells of itself: goes into the history, and to the steps after it."""

Inject = Callable[[Server, Fault], Awaitable[dict[str, Any]]]
Heal = Callable[[Server, Fault, Facts], Awaitable[dict[str, Any]]]
Healed = Callable[[Server, Fault, Facts], Awaitable[bool]]


@dataclass(frozen=True)
class Option:
    """A number that a fault takes, and what it means; it is whole where its default is."""

    default: float
    least: float
    most: float
    meaning: str


async def _no_heal(server: Server, fault: Fault, facts: Facts) -> dict[str, Any]:
    return {}


async def answers(server: Server, fault: Fault, facts: Facts) -> bool:
    """A `healed` for faults after which the same slots answer as before."""
    return await server.all_slots_answered()


async def ends(server: Server, fault: Fault, facts: Facts) -> bool:
    """A `healed` for faults that end the server: the supervisor's own stop phase waits for the processes."""
    return True


@dataclass(frozen=True, eq=False, repr=False)
class FaultKind:
    """One kind of fault.

    `inject(server, fault)` does it and returns facts for the history; OSError means that it did not land.
    `heal(server, fault, facts)` takes it back where that is ours to do, and returns facts as well.
    `healed(server, fault, facts)` waits until the server has come through, or says False at its bound.
    `refuses(life, fault)` says why it cannot be done to such a server; empty where it can.
    `effect(life, fault)` is the server that is left.
    `scene` is what a scenario has to say beside it, where the plainest one will not do.
    `weight` says how often it is drawn, where others could be drawn too.
    """

    name: str
    label: str
    inject: Inject
    healed: Healed = answers
    heal: Heal = _no_heal
    refuses: Callable[[Life, Fault], str] = lambda life, fault: ""
    effect: Callable[[Life, Fault], Life] = lambda life, fault: life
    needs_slot: bool = False
    takes_slot: bool = False
    """Whether a slot may be named."""
    ends_the_run: bool = False
    needs_broker: bool = False
    """Whether it is done to Redis: the run then has one of its own."""
    orphans_workers: bool = False
    """Whether workers are left that have to find out by themselves."""
    scene: Mapping[str, Any] = field(default_factory=dict)
    weight: int = 1
    options: Mapping[str, Option] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name

    def option(self, fault: Fault, name: str) -> Any:
        """The value of an option in a fault."""
        return fault["options"].get(name, self.options[name].default)


class Defect(Exception):
    """A fault of another package has raised, or returned what cannot be."""


_OURS = frozenset({"t", "pid", "start", "event", "n", "fault", "index"})


LONGEST = 300.0
"""Seconds that a step of another package's fault may take."""


def guarded(kind: FaultKind, package: str) -> FaultKind:
    """The same fault, so that whatever is wrong with it is told in its name and comes to unknown.

    An OSError of `inject` goes on meaning that the fault did not land; any other exception, and any answer of another
    type, is a Defect. What is wrong with `refuses` or `effect` is a reason to refuse the fault.
    """

    def defect(step: str, what: object) -> Defect:
        told = f"raised {type(what).__name__}: {what}" if isinstance(what, BaseException) else f"returned {what!r:.80}"
        return Defect(f"{step} of {kind.name!r} ({package}) {told}")

    def plain(step: str, facts: object) -> dict[str, Any]:
        good = (str, int, float, bool, type(None))
        if not isinstance(facts, dict) or not all(isinstance(name, str) for name in facts):
            raise defect(step, facts)
        if facts.keys() & _OURS or not all(isinstance(value, good) for value in facts.values()):
            raise defect(step, facts)
        return facts

    async def bounded(step: str, call: Callable[[], Awaitable[Any]]) -> Any:
        async def tried() -> Any:
            try:
                return await call()
            except SystemExit as error:  # which would end asyncio's loop
                raise defect(step, error) from error

        def ring(number: int, frame: object) -> None:  # where it blocks the loop
            raise Defect(f"{step} of {kind.name!r} ({package}) has blocked for {LONGEST:g} s")

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, LONGEST + 1)
        try:
            task = asyncio.ensure_future(tried())
            await asyncio.wait({task}, timeout=LONGEST)
            if not task.done():
                task.cancel()
                raise Defect(f"{step} of {kind.name!r} ({package}) has not come back for {LONGEST:g} s")
            return task.result()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    async def inject(server: Server, fault: Fault) -> dict[str, Any]:
        try:
            facts: object = await bounded("inject", lambda: kind.inject(server, fault))
        except (OSError, Defect):
            raise
        except Exception as error:
            raise defect("inject", error) from error
        return plain("inject", facts)

    async def heal(server: Server, fault: Fault, facts: Facts) -> dict[str, Any]:
        try:
            undone: object = await bounded("heal", lambda: kind.heal(server, fault, facts))
        except Defect:
            raise
        except Exception as error:
            raise defect("heal", error) from error
        return plain("heal", undone)

    async def healed(server: Server, fault: Fault, facts: Facts) -> bool:
        try:
            answer: object = await bounded("healed", lambda: kind.healed(server, fault, facts))
        except Defect:
            raise
        except Exception as error:
            raise defect("healed", error) from error
        if not isinstance(answer, bool):
            raise defect("healed", answer)
        return answer

    def refuses(life: Life, fault: Fault) -> str:
        try:
            why: object = kind.refuses(life, fault)
            left: object = kind.effect(life, fault) if why == "" else life
        except (Exception, SystemExit) as error:
            return str(defect("refuses or effect", error))
        if not isinstance(why, str):
            return str(defect("refuses", why))
        return why if isinstance(left, Life) else str(defect("effect", left))

    return replace(kind, inject=inject, heal=heal, healed=healed, refuses=refuses)


def to_arbiter(number: int) -> Inject:
    """An `inject` that sends a signal to the master."""

    async def inject(server: Server, fault: Fault) -> dict[str, Any]:
        pid = server.arbiter_pid
        server.signal(pid, number)
        return {"target": pid}

    return inject


def worker_in(server: Server, slot: int) -> int:
    """The pid of the worker in a slot; OSError where none is alive."""
    pid = server.worker_pid(slot)
    if pid is None:
        raise OSError(errno.ESRCH, f"no live worker in slot {slot}")
    return pid


async def resume(server: Server, fault: Fault, facts: Facts) -> dict[str, Any]:
    """A `heal` for a stopped process: SIGCONT after `seconds`."""
    await server.wait(facts["seconds"])
    try:
        server.signal(facts["target"], signal.SIGCONT)
    except ProcessLookupError:  # the arbiter may have lost patience with its worker
        return {"continued": False}
    return {"continued": True}


REDIS: Mapping[str, Any] = {"loops": [{"name": "redis", "body": "listen"}]}
"""The scene of a fault that is done to Redis."""


async def reconnected(server: Server, fault: Fault, facts: Facts) -> bool:
    """A `healed` that gives the server's clients time to be back; what they do not do is left to the claims."""
    await server.connected(facts["clients"])
    return await server.all_slots_answered()


def needs_redis(life: Life, fault: Fault) -> str:
    """A `refuses` for faults that are done to Redis."""
    if not life.uses_redis:
        return "no loop talks to Redis"
    return "" if life.redis else "Redis is gone for good by then"
