"""Faults: what each may be done to, what it leaves, and that drawn sequences can be and stay so when they shrink."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Collection
from typing import Any

import pytest
from few import FEW
from hypothesis import given

from forkproof.errors import ScenarioError
from forkproof.faults import REGISTRY, Life
from forkproof.scenario import from_dict
from forkproof.simplify import changed
from forkproof_strategies import faults

TWO = Life(
    workers=2, timeout=30, slots=(0, 1), max_requests=100, uses_redis=True, children=frozenset({"arbiter", "worker"})
)


def outcome(*some: Any, workers: int = 2) -> list[tuple[int, ...]]:
    """The slots that each of these faults leaves, the oldest worker's first."""
    named = [fault if isinstance(fault, dict) else {"fault": fault} for fault in some]
    server = {"workers": workers, "max_requests": 100}
    what = from_dict({"loops": PROCESSES, "server": server, "faults": named})
    return [life.slots for _, life in what.lives()]


PROCESSES = [
    {"name": "a", "kind": "process", "body": "listen"},
    {"name": "b", "kind": "process", "start": "on_starting"},
]
BACK = {"fault": "usr2", "options": {"rollback": 1}}
KILL_0 = {"fault": "kill_worker", "slot": 0}


def test_ttou_ends_the_oldest_worker() -> None:
    assert outcome("ttou") == [(1,)]
    assert outcome(KILL_0, "ttou") == [(1, 0), (0,)]
    assert outcome("ttin", "ttou", "ttou", "ttin") == [(0, 1, 2), (1, 2), (2,), (2, 0)]


def test_a_reload_goes_back_to_what_is_configured() -> None:
    assert outcome("ttin", "ttin", "hup") == [(0, 1, 2), (0, 1, 2, 3), (0, 1)]
    assert outcome("ttou", "hup", {"fault": "kill_worker", "slot": 0}) == [(1,), (0, 1), (1, 0)]


def test_a_new_master_has_as_many_workers_as_are_configured() -> None:
    assert outcome("ttin", BACK, "usr2") == [(0, 1, 2), (0, 1, 2), (0, 1)]


STOP_1 = {"fault": "stop_worker", "slot": 1, "options": {"seconds": 1}}
CHILD_1 = {"fault": "kill_child", "slot": 1}
BLOCK_0 = {"fault": "block_loop", "slot": 0}
OTHERS = ["usr1", STOP_1, "stop_arbiter", "kill_child", CHILD_1, BLOCK_0, "max_requests", "kill_arbiter"]


@pytest.mark.parametrize("fault", OTHERS, ids=str)
def test_what_leaves_the_slots_alone(fault: Any) -> None:
    assert outcome(fault) == [(0, 1)]


@pytest.mark.parametrize(
    ("some", "problem"),
    [
        (["ttou", KILL_0], "faults.1: slot 0 is not allowed: there are 1 workers by then, in slots 1"),
        (["ttou", "ttou"], "faults.1: 'ttou' is not possible here: gunicorn keeps the last worker"),
        (["ttin", "ttin", "ttin"], "faults.2: 'ttin' is not possible here: there are 4 workers by then"),
        (["max_requests", "ttou"], "faults.1: 'ttou' is not possible here: it ends the oldest worker, and after"),
        (["usr2", "foreign_child_exit"], "faults.1: 'foreign_child_exit' is not possible here: such a child is the"),
        ([{"fault": "kill_child", "slot": 2}], "faults.0: slot 2 is not allowed: there are 2 workers by then"),
        (
            [{"fault": "redis_gone", "options": {"for_good": 1}}, "redis_pause"],
            "faults.1: 'redis_pause' is not possible here",
        ),
        (["int", "usr1"], "faults.1: comes after 'int', which ends the server"),
        ([{"fault": "hup", "options": {"times": 6}}], "options.times: 6 is not allowed: a whole number from 1 to 5 is"),
        ([{"fault": "hup", "options": {"times": 1.5}}], "options.times: 1.5 is not allowed: a whole number from 1"),
        ([{"fault": "stop_arbiter", "options": {"seconds": -1}}], "options.seconds: -1 is not allowed: a number from"),
        ([{"fault": "stop_arbiter", "options": {"times": 2}}], "has no option 'times'; allowed: seconds"),
    ],
)
def test_what_cannot_be_done(some: list[Any], problem: str) -> None:
    with pytest.raises(ScenarioError) as told:
        outcome(*some)
    assert problem in str(told.value)


def test_what_a_fault_needs_of_the_scenario() -> None:
    for fault, missing in (
        ("redis_gone", "no loop talks to Redis"),
        ("max_requests", "server.max_requests is not set"),
        ("kill_child", "no loop is a process that the arbiter starts"),
    ):
        plain = {"loops": [{"name": "a"}], "faults": [{"fault": fault}]}
        with pytest.raises(ScenarioError, match=missing):
            from_dict(plain)
        scene = REGISTRY[fault].scene
        from_dict({**plain, "loops": [*plain["loops"], *scene.get("loops", ())], "server": scene.get("server", {})})


def test_every_kind_says_what_it_is() -> None:
    for name, kind in REGISTRY.items():
        assert kind.name == name
        assert kind.label
        for option in kind.options.values():
            assert option.least <= option.default <= option.most
            assert option.meaning


class Pretended:
    """A server that does what it is told: a worker of pid 200 + its slot; what was done to it."""

    arbiter_pid = 100

    def __init__(self) -> None:
        self.done: list[Any] = []

    def worker_pid(self, slot: int) -> int:
        return 200 + slot

    def child_pid(self, slot: int | None) -> int:
        return 300 + (9 if slot is None else slot)

    def workers(self) -> list[str]:
        return ["200-1", "201-1"]

    def signal(self, pid: int, number: int) -> None:
        self.done.append((pid, signal.Signals(number).name))

    def end_foreign_child(self, code: int) -> int:
        self.done.append(f"exit {code}")
        return 400

    async def wait(self, seconds: float) -> None:
        self.done.append(f"wait {seconds}")

    async def reloaded(self, old: Collection[str]) -> bool:
        self.done.append("reloaded")
        return True

    async def block(self, slot: int, seconds: float) -> None:
        self.done.append(f"block {slot} for {seconds}")

    async def redis(self, what: str) -> None:
        self.done.append(what)

    async def clients(self) -> list[str]:
        return ["1", "2"]

    async def kill_clients(self) -> int:
        self.done.append("kill clients")
        return 2


@pytest.mark.parametrize(
    ("name", "fault", "done"),
    [
        ("term", {}, [(100, "SIGTERM")]),
        ("int", {}, [(100, "SIGINT")]),
        ("usr1", {}, [(100, "SIGUSR1")]),
        ("ttin", {}, [(100, "SIGTTIN")]),
        ("ttou", {}, [(100, "SIGTTOU")]),
        ("hup", {"times": 3}, [(100, "SIGHUP"), "reloaded", (100, "SIGHUP"), "reloaded", (100, "SIGHUP")]),
        ("kill_worker", {}, [(201, "SIGKILL")]),
        ("kill_child", {}, [(301, "SIGKILL")]),
        ("kill_arbiter", {}, [(100, "SIGKILL")]),
        ("stop_worker", {"seconds": 0.25}, [(201, "SIGSTOP"), "wait 0.25", (201, "SIGCONT")]),
        ("stop_arbiter", {"seconds": 0.25}, [(100, "SIGSTOP"), "wait 0.25", (100, "SIGCONT")]),
        ("block_loop", {"seconds": 0.25}, ["block 1 for 0.25", "wait 0.25"]),
        ("foreign_child_exit", {"code": 3}, ["exit 3"]),
        ("redis_gone", {"seconds": 0.25}, ["stop", "wait 0.25", "start"]),
        ("redis_restart", {}, ["stop", "start"]),
        ("redis_pause", {"seconds": 0.25}, ["pause", "wait 0.25", "resume"]),
        ("redis_kill_clients", {}, ["kill clients"]),
    ],
)
def test_what_is_done_to_the_server(name: str, fault: dict[str, Any], done: list[Any]) -> None:
    server: Any = Pretended()
    plain = {"fault": name, "slot": 1, "options": fault}

    async def suffer() -> None:
        facts = await REGISTRY[name].inject(server, plain)
        await REGISTRY[name].heal(server, plain, facts)

    asyncio.run(suffer())
    assert server.done == done


@FEW
@given(faults(life=TWO, max_size=5))
def test_drawn_sequences_can_be(some: tuple[Any, ...]) -> None:
    outcome(*(fault.model_dump(mode="json") for fault in some))


def test_a_sequence_stays_possible_without_one_of_its_faults() -> None:
    some = ["ttin", {"fault": "kill_worker", "slot": 2}, "ttou", {"fault": "stop_worker", "slot": 2}, "term"]
    named = [fault if isinstance(fault, dict) else {"fault": fault} for fault in some]
    what = from_dict({"loops": [{"name": "a"}], "server": {"workers": 2}, "faults": named})
    shorter = changed(what, ("faults",), [fault.model_dump(mode="json") for fault in what.faults[1:]])
    assert shorter is not None
    assert [(fault.fault, fault.slot) for fault in shorter.faults] == [
        ("kill_worker", 1), ("ttou", None), ("stop_worker", 1), ("term", None),
    ]  # fmt: skip
    fewer = changed(what, ("server", "workers"), 1)
    assert fewer is not None
    assert len(fewer.faults) == 5
