"""What the supervisor does and writes, step by step; no server is started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkproof import containment, supervisor
from forkproof.containment import Stat
from forkproof.faults.base import FaultKind
from forkproof.scenario import from_dict
from forkproof.supervisor import MOST_FAILURES, SAMPLE_EVERY, Supervisor, _Process

TWO = {"loops": [{"name": "a", "body": "listen"}], "server": {"workers": 2}}
BOUNDS = {"boot": 3.0, "answer": 1.0, "orphans": 2.0, "stop_slack": 1.5, "window": 60.0}


class Rig(Supervisor):
    """A supervisor of a server that is not there; `steps` are what it was made to do."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.steps: list[str] = []
        self.anchored = True
        self.living: list[Stat] = []
        self.bounds: list[float] = []
        with (folder / "control").open("r+b") as file:
            self._control = memoryview(mmap.mmap(file.fileno(), 24)).cast("Q")

    def turns(self, count: int) -> None:
        """Let the control process make turns."""
        self._control[0] += count

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        lines = (self.folder / "history" / "supervisor.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] in kinds]

    async def _anchor(self, after: Any) -> bool:
        self.steps.append(f"anchor {after['event']}")
        return self.anchored

    async def window(self, index: int, after: str, healed: bool) -> None:
        self.steps.append(f"window {index} after {after}")

    async def ask_arbiter(self) -> None:
        self.steps.append("ask")

    async def until(self, condition: Any, seconds: float, what: str) -> bool:
        self.bounds.append(seconds)
        return bool(condition())

    async def collect_stacks(self, processes: Any) -> None:
        self.steps += [f"stacks of {process.key}" for process in processes]

    def _living(self) -> list[Stat]:
        return self.living

    def worker(self, slot: int) -> _Process:
        """A live worker that has answered nothing yet."""
        process = _Process(f"{110 + slot}-1", 110 + slot, 1, 1.0 + slot, 100, role="worker", slot=slot)
        self.processes[process.key] = process
        return process


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    for name in ("history", "ticks", "stacks", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "control").write_bytes(bytes(24))
    (tmp_path / "scenario.json").write_text(from_dict(TWO).to_json())
    launch = {
        "control": str(tmp_path / "control"), "token": "ours", "bounds": BOUNDS, "decisive_turns": 3, "foreign": [],
        "command": ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], "environment": {}, "message_gap": 0.02,
    }  # fmt: skip
    (tmp_path / "launch.json").write_text(json.dumps(launch))
    found = Rig(tmp_path)
    yield found
    for descriptor in (found._history, *(tail._descriptor for tail in found._logs.values())):
        if descriptor is not None:
            os.close(descriptor)
    vars(found).clear()  # what it maps is closed with that


def test_an_anchor_that_is_never_seen_ends_whoever_swallows_a_cancellation(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def publish(going_on: Any) -> None:
        nonlocal asked
        while going_on():
            asked += 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    async def until(condition: Any, seconds: float, what: str) -> bool:
        await asyncio.sleep(0.05)
        return bool(condition())

    monkeypatch.setattr(rig, "_publish", publish)
    monkeypatch.setattr(rig, "until", until)
    after = {"event": "tick", "slot": None, "delay": 0}
    assert asyncio.run(asyncio.wait_for(Supervisor._anchor(rig, after), 10)) is False
    assert asked > 0


# What it writes


def test_a_redis_that_somebody_stops_is_told(rig: Rig) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        rig._host, rig.launch["broker_pid"] = os.open("/proc", os.O_RDONLY), sleeper.pid
        try:
            rig._look_for_halted()
            assert rig.events("halted") == []
            sleeper.send_signal(signal.SIGSTOP)
            os.waitpid(sleeper.pid, os.WUNTRACED)
            rig._look_for_halted()
            rig._look_for_halted()
            assert [(event["target"], event["what"]) for event in rig.events("halted")] == [(sleeper.pid, "Redis")]
        finally:
            os.close(rig._host)
            sleeper.kill()


def test_a_redis_that_a_fault_stops_is_not_told(rig: Rig) -> None:
    rig.scenario["faults"] = [{"fault": "redis_pause"}]
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        rig._host, rig.launch["broker_pid"] = os.open("/proc", os.O_RDONLY), sleeper.pid
        try:
            sleeper.send_signal(signal.SIGSTOP)
            os.waitpid(sleeper.pid, os.WUNTRACED)
            rig._look_for_halted()
            assert rig.events("halted") == []
        finally:
            os.close(rig._host)
            sleeper.kill()


def test_an_event_has_the_time_of_day_that_processes_share(rig: Rig) -> None:
    before = time.monotonic()
    rig.record("sample")
    [event] = rig.events("sample")
    assert before - 1e-5 <= event["t"] <= time.monotonic()
    assert event["pid"] == os.getpid()


def test_every_turn_and_every_end_is_sampled(rig: Rig) -> None:
    process = rig.worker(0)
    process.counts[2] = 0
    path = rig.folder / "ticks" / process.key
    path.write_bytes(bytes(64))
    with path.open("r+b") as file:
        cells = memoryview(mmap.mmap(file.fileno(), 64)).cast("Q")
    for count in (0, 1, 1, 2):
        cells[2] = count
        rig.turns(3)
        rig.sample()
    rig._mark_gone(process)
    rig._mark_gone(process)
    rig.sample()
    rig.sample()
    assert process.ticks is not None
    process.ticks._file.close()
    samples = rig.events("sample")
    assert [sample["ticks"].get(process.key) for sample in samples] == [None, {"2": 1}, None, {"2": 2}, None, None]
    assert [sample["gone"] for sample in samples] == [[], [], [], [], [process.key], []]
    assert [sample["control"] for sample in samples] == [3, 6, 9, 12, 12, 12]


def test_every_line_is_kept_and_the_arbiters_response_is_heard(rig: Rig) -> None:
    lines = [f"line {number}" for number in range(20)]
    (rig.folder / "server.log").write_text("\n".join([*lines, "[7] [INFO] Handling signal: winch", ""]))
    rig.observe()
    assert [event["line"] for event in rig.events("log")][:20] == lines
    assert rig._heard == 1


def test_an_exit_is_told_with_its_status(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.arbiter_pid = 100
    monkeypatch.setattr(containment, "reap", lambda: [(110, -9), (100, 3)])
    rig._reap()
    assert [(event["child"], event["status"]) for event in rig.events("exit")] == [(110, -9), (100, 3)]
    assert rig.arbiter_ended


def test_what_the_server_prints_is_kept(rig: Rig) -> None:
    rig._spawn()
    assert os.waitstatus_to_exitcode(os.waitpid(rig.arbiter_pid, 0)[1]) == 3
    assert (rig.folder / "server.log").read_text() == "out\nerr\n"


def test_it_watches_until_the_run_takes_too_much(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "SAMPLE_EVERY", 0)
    monkeypatch.setattr(rig, "_within_limits", lambda: rig.turn < 150)
    asyncio.run(rig._sampling())
    assert rig.turn == 150
    assert len(rig.events("sample")) == 150


@pytest.mark.parametrize("what", ["folder", "processes"])
def test_a_run_that_takes_too_much(rig: Rig, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    assert rig._within_limits()
    monkeypatch.setitem(supervisor.LIMITS, what, -1)
    assert not rig._within_limits()
    assert [event["what"] for event in rig.events("limit")] == [what]


# Faults


class Pretended:
    """A fault that is done to nobody."""

    def __init__(self, rig: Rig, error: str = "") -> None:
        self.rig = rig
        self.error = error
        self.kind = FaultKind("pretended", "a pretence", self.inject, self.healed, self.heal)

    async def inject(self, server: Any, fault: Any) -> dict[str, Any]:
        self.rig.steps.append("inject")
        if self.error:
            raise OSError(self.error)
        return {"target": 7}

    async def heal(self, server: Any, fault: Any, facts: Any) -> dict[str, Any]:
        self.rig.steps.append(f"heal {facts['target']}")
        return {"continued": True}

    async def healed(self, server: Any, fault: Any, facts: Any) -> bool:
        self.rig.steps.append("wait")
        return True


PRETENDED = {"fault": "pretended", "slot": None, "after": {"event": "tick", "slot": None, "delay": 0.02}, "options": {}}


def test_a_fault_comes_once_after_its_event_and_its_delay(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "REGISTRY", {"pretended": Pretended(rig).kind})
    begun = time.monotonic()
    assert asyncio.run(rig._fault(0, PRETENDED))
    assert rig.steps == ["anchor tick", "inject", "heal 7", "wait", "window 1 after a pretence", "ask"]
    told = rig.events("fault.invoke", "fault.ok", "fault.heal", "fault.healed", "fault.fail")
    assert [event["event"] for event in told] == ["fault.invoke", "fault.ok", "fault.heal", "fault.healed"]
    assert told[0]["t"] >= begun + 0.02


def test_a_fault_whose_event_never_came(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "REGISTRY", {"pretended": Pretended(rig).kind})
    rig.anchored = False
    asyncio.run(rig._fault(0, PRETENDED))
    assert rig.steps == ["anchor tick"]
    [event] = rig.events("fault.invoke", "fault.ok", "fault.fail")
    assert (event["event"], event["error"]) == ("fault.fail", "never saw 'tick'")


def test_a_fault_that_cannot_be_injected_has_not_landed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "REGISTRY", {"pretended": Pretended(rig, "no such worker").kind})
    asyncio.run(rig._fault(0, PRETENDED))
    told = [event["event"] for event in rig.events("fault.invoke", "fault.ok", "fault.fail")]
    assert told == ["fault.invoke", "fault.fail"]


def test_after_a_fault_that_the_server_did_not_come_through_nothing_is_done_to_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answered() -> bool:
        return True

    async def wreck(index: int, fault: Any) -> bool:
        rig.steps.append(f"fault {index}")
        return False

    rig.scenario["faults"] = [PRETENDED, PRETENDED]
    monkeypatch.setattr(supervisor, "REGISTRY", {"pretended": Pretended(rig).kind})
    monkeypatch.setattr(containment, "kill_descendants", list)
    for name, done in {"all_slots_answered": answered, "_fault": wreck, "_spawn": lambda: None}.items():
        monkeypatch.setattr(rig, name, done)
    monkeypatch.chdir(rig.folder)
    asyncio.run(rig.run())
    assert rig.steps == ["window 0 after boot", "ask", "fault 0"]
    assert [event["index"] for event in rig.events("fault.fail")] == [1]


# Windows


def test_a_window_is_as_long_as_the_control_says(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.address = None

    async def nothing(*args: Any) -> bool:
        return True

    async def ask() -> bool:
        rig.sample()
        rig.turns(7)
        return True

    for name in ("_publish", "_look", "_turns", "_count_subscriptions", "_new_interpreters_begun", "collect_stacks"):
        monkeypatch.setattr(rig, name, nothing)
    monkeypatch.setattr(rig, "ask_every_slot", ask)
    asyncio.run(Supervisor.window(rig, 4, "boot", True))
    [opened] = rig.events("window.open")
    [closed] = rig.events("window.close")
    assert (opened["window"], opened["slots"], opened["healed"]) == (4, [0, 1], True)
    assert (closed["window"], closed["turns"], closed["control"]) == (4, 2, 7)


def test_it_waits_for_the_turns_of_a_window(rig: Rig) -> None:
    left = iter(range(100))
    asyncio.run(rig._turns(lambda: next(left), 3))
    assert next(left) == 4


def test_what_is_counted_and_published(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(*words: str) -> Any:
        rig.steps.append(" ".join(words))
        return ["forkproof:ours:a", 2] if words[0] == "PUBSUB" else 2

    monkeypatch.setattr(rig, "_ask_redis", ask)
    asyncio.run(rig._count_subscriptions())
    asyncio.run(rig._publish_one("a", "PUBLISH"))
    assert rig.steps == ["PUBSUB NUMSUB forkproof:ours:a", "PUBLISH forkproof:ours:a a-1"]
    assert [event["count"] for event in rig.events("numsub.ok")] == [2]
    assert [(event["message"], event["receivers"]) for event in rig.events("publish.ok")] == [("a-1", 2)]


def test_every_client_is_killed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(*words: str) -> Any:
        rig.steps.append(" ".join(words))
        return {"ID": 9, "LIST": "id=7 name=\nid=8 name=\nid=9 name=\nid=10 name="}.get(words[1])

    monkeypatch.setattr(rig, "_ask_redis", ask)
    assert asyncio.run(rig.kill_clients()) == 3
    assert rig.steps[2:] == ["CLIENT KILL ID 7", "CLIENT KILL ID 8", "CLIENT KILL ID 10"]


# Requests


async def answer_with(rig: Rig, status: int, **body: Any) -> list[dict[str, Any]]:
    """What becomes of a request that is answered so; without a status it is not answered."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if status:
            answer = {"token": "ours", "worker": "110-1", "slot": 0, "loops": [], "threads": [], **body}
            writer.write(f"HTTP/1.1 {status} So\r\n\r\n{json.dumps(answer)}".encode())
        else:
            rig.arbiter_ended = True
            await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        rig.address = server.sockets[0].getsockname()
        await rig._request("/")
    return rig.events("request.ok", "request.fail", "request.info")


@pytest.mark.parametrize(
    ("status", "body", "outcome", "error"),
    [
        (200, {}, "request.ok", ""),
        (200, {"token": "theirs"}, "request.fail", "the answer lacks this run's token"),
        (500, {}, "request.fail", "HTTP status 500"),
        (0, {}, "request.info", "no answer within"),
    ],
)
def test_a_request(rig: Rig, status: int, body: dict[str, Any], outcome: str, error: str) -> None:
    [event] = asyncio.run(answer_with(rig, status, **body))
    assert event["event"] == outcome
    assert error in event.get("error", "")
    assert rig._answered == ({"110-1"} if outcome == "request.ok" else set())


def test_the_longer_requests_fail_the_longer_one_waits_before_the_next(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", slept)
    for status in (500, 500, 500, 200, 500):
        asyncio.run(answer_with(rig, status))
    assert waits == pytest.approx([SAMPLE_EVERY, 2 * SAMPLE_EVERY, 3 * SAMPLE_EVERY, SAMPLE_EVERY])
    waits.clear()
    for _ in range(2 * MOST_FAILURES):
        asyncio.run(answer_with(rig, 500))
    assert waits[-1] == pytest.approx(MOST_FAILURES * SAMPLE_EVERY)


def test_every_slot_has_to_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = rig.worker(0), rig.worker(1)

    async def ask(condition: Any, bound: float) -> bool:
        rig._answered |= answering
        return bool(condition())

    monkeypatch.setattr(rig, "_ask", ask)
    answering = {first.key}
    assert not asyncio.run(rig.ask_every_slot())
    answering = {first.key, second.key}
    assert asyncio.run(rig.ask_every_slot())


@pytest.mark.parametrize(("bound", "answered", "sent"), [(1.0, False, 4), (1.0, True, 8), (5.0, False, 8)])
def test_after_a_burst_without_an_answer_no_other_one_is_sent_in_the_same_bound(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, bound: float, answered: bool, sent: int
) -> None:
    paths: list[str] = []

    async def request(path: str) -> bool:
        paths.append(path)
        return answered

    class Five:
        stretch = 1.0

        @property
        def expired(self) -> bool:
            return len(paths) >= 5

    monkeypatch.setattr(rig, "_request", request)
    monkeypatch.setattr(rig, "_budget", lambda seconds: Five())
    assert not asyncio.run(rig._ask(lambda: False, bound))
    assert len(paths) == sent
    assert len(rig.events("bound")) == 1


@pytest.mark.parametrize(
    ("pid", "fault", "body", "broker", "sees"),
    [
        (1, None, "sleep", None, True),
        (2, None, "sleep", 7, False),  # in no namespace: others of the server's may not be known
        (1, None, "listen", 7, True),
        (1, None, "listen", None, False),  # somebody else's Redis
        (1, "redis_restart", "listen", 7, False),  # another process afterwards
        (1, "hup", "listen", 7, True),
    ],
)
def test_time_counts_in_full_only_where_all_are_seen_that_the_server_may_wait_for(
    tmp_path: Path, rig: Rig, pid: int, fault: str | None, body: str, broker: int | None, sees: bool
) -> None:
    faults = [{"fault": fault}] if fault else []
    (tmp_path / "scenario.json").write_text(
        from_dict({"loops": [{"name": "a", "body": body}], "faults": faults}).to_json()
    )
    again = Rig(tmp_path)
    again._host, again.launch["broker_pid"] = 5, broker
    again._start = Stat(pid, 0, "S", 1)
    assert again._sees_all is sees
    budget = again._budget(1.0)
    assert (budget._unhindered == again._crowd.seconds) is sees
    assert ((7, "/proc/self/fd/5") in again._everybody()) is (body == "listen" and broker == 7)
    os.close(again._history)


# The end


@pytest.mark.parametrize(("orphans", "bound"), [(False, 4.5), (True, 19.5)])
def test_what_is_left_at_the_bound_is_told(rig: Rig, orphans: bool, bound: float) -> None:
    rig.living = [Stat(1 << 30, 100, "S", 5)]
    asyncio.run(rig._stop(orphans))
    assert rig.bounds == [bound, bound - 1.5]
    assert [event["processes"][0]["pid"] for event in rig.events("left")] == [1 << 30]
    assert not rig.events("stopped")
    rig.living, rig.arbiter_ended = [], True
    asyncio.run(rig._stop(orphans))
    assert len(rig.events("stopped")) == 1


def test_what_has_not_ended_half_way_to_its_kill_is_asked_where_it_stands(rig: Rig) -> None:
    hangs = rig.worker(0)
    rig.living = [Stat(hangs.pid, 100, "S", 1)]
    asyncio.run(rig._stop(False))
    assert rig.steps[0] == "stacks of 110-1"
    rig.living, rig.arbiter_ended, rig.steps = [], True, []
    asyncio.run(rig._stop(False))
    assert rig.steps == []


def test_who_cannot_tell_where_it_stands_is_looked_at_from_outside(rig: Rig) -> None:
    rig.launch["stack_signal"] = signal.SIGRTMIN + 5
    with subprocess.Popen(["sleep", "60"]) as process:
        asleep = _Process(f"{process.pid}-1", process.pid, 1, 1.0, os.getpid())
        asyncio.run(Supervisor.collect_stacks(rig, [asleep]))
        process.kill()
    assert [(event["target"], event["waits"]) for event in rig.events("deaf")] == [(asleep.key, ["other"])]
    assert not rig.events("stack")


def test_what_outlives_its_parent_is_told(rig: Rig) -> None:
    worker, child = Stat(110, 100, "S", 1), Stat(111, 110, "S", 2)
    rig.living = [worker, child]
    families = rig._families()
    rig.living = [Stat(111, 1, "S", 2)]
    asyncio.run(rig._look_for_orphans(0, families))
    [event] = rig.events("orphans")
    assert (event["ended"], event["below"]) == (["110-1"], ["111-2"])
    assert [process["pid"] for process in event["left"]] == [111]
