"""The fork phase: what stands where at a fork, and what that leaves in the child."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from probed import Probed

from forkproof import containment, proc
from forkproof.errors import ScenarioError
from forkproof.scenario import ParkPoint, from_dict

HANGS = ["lock", "queue_mutex", "import", "log_record"]
"""Points at which a child waits for ever, on every Python."""

PROGRAM = """
    from forkproof_payload import forks, parking
    from forkproof_payload.loops import Loop

    class Worker(object):
        pid = "[booting]"

    probe.event("python", version=sys.version_info[:2])
    points = {points}
    parking.set_up([{{"who": point, "at": point}} for point in points], {{}})
    for point in points:
        spec = {{"name": point, "kind": "thread", "daemon": True, "body": "sleep", "guard": "none",
                "yields": {{"call": "time.sleep", "seconds": 0.001, "every": 1}}}}
        Loop(spec, "config_import", {{}}, "channel").start()
    parking.before_fork(Worker, 30)
    parked = list(parking.parks)
    for park in parked:
        forks.look_around()
        pid = os.fork()
        if not pid:
            Worker.pid = os.getpid()
            forks.take_stock()
            parking.parks[:] = [park]
            parking.use()
            os._exit(0)
    Worker.pid = 1
    signal.pause()
"""


@pytest.fixture
def probed(python: str, tmp_path: Path) -> Iterator[Probed]:
    found = Probed(python, tmp_path)
    yield found
    for event in found.events("process"):
        stat = containment.read_stat(event["pid"])
        if stat is not None and stat.start == event["start"]:
            os.kill(event["pid"], signal.SIGKILL)
    found.end()


def test_what_is_parked_stands_there_at_the_fork_and_the_child_finds_it_so(probed: Probed) -> None:
    points = [*HANGS, "log_handler_lock", "getaddrinfo"]
    program = probed.start(PROGRAM.format(points=points))
    hung = {}
    deadline = time.monotonic() + 60
    while len(hung) < len(points) and time.monotonic() < deadline:
        assert program.poll() is None
        used = {event["at"]: event["error"] for event in probed.events("park.used")}
        hung.update(dict.fromkeys(used, False))
        for event in probed.events("park.use"):
            if event["at"] not in used and proc.blocked(event["pid"]) == ["lock"]:
                hung[event["at"]] = True
    # Since 3.7 logging renews its handlers' locks in a child.
    old = probed.events("python")[0]["version"] < [3, 7]
    assert hung == {**dict.fromkeys(HANGS, True), "log_handler_lock": old, "getaddrinfo": False}
    assert [event["at"] for event in probed.events("park.reached") if not event["native"]] == []
    forks = probed.events("fork")
    assert len(forks) == len(points)
    assert all({one["thread"] for one in event["beside"]} == set(points) for event in forks)
    assert all(event["imports"] == ["forkproof_parked_0"] for event in forks)
    held = {f"forkproof_payload.parking.{name}" for name in ("lock_lock", "queue_mutex_queue_mutex")}
    assert all(held <= set(event["locks"]) for event in forks)
    assert {event["at"] for event in probed.events("park.released")} == set(points)


def test_a_fork_beside_no_thread_leaves_nothing(probed: Probed) -> None:
    probed.run("""
        from forkproof_payload import forks
        forks.look_around()
        if not os.fork():
            forks.take_stock()
            os._exit(0)
        os.wait()
        """)
    [fork] = probed.events("fork")
    assert fork["beside"] == fork["imports"] == fork["locks"] == []


def test_what_another_thread_uses_is_not_kept_alive(probed: Probed) -> None:
    # redis-py's client closes the connections that its pubsub uses, in whichever thread lets go of it last.
    probed.run("""
        import threading
        from forkproof_payload import forks

        class Thing(object):
            def __del__(self):
                if threading.current_thread() is not thread:
                    elsewhere.append(1)

        def use():
            thing = Thing()
            for _ in range(20):
                pass

        def go():
            while going:
                use()

        sys.setswitchinterval(1e-6)
        elsewhere, going = [], [1]
        thread = threading.Thread(target=go)
        thread.start()
        for _ in range(3000):
            forks.look_around()
        del going[:]
        thread.join()
        probe.event("python", version=[len(elsewhere), len(forks._beside)])
        """)
    assert [event["version"] for event in probed.events("python")] == [[0, 1]]


def park(who: str = "a", at: str = "lock", **loop: Any) -> dict[str, Any]:
    return {"loops": [{"name": "a", **loop}], "parks": [{"who": who, "at": at}]}


@pytest.mark.parametrize("point", ParkPoint)
def test_a_loop_can_be_parked_anywhere(point: ParkPoint) -> None:
    assert from_dict(park(at=point.value, body="get_message")).parks[0].at is point


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (park(who="b"), "parks.0: 'b' is no loop; allowed: a, gunicorn_control"),
        (park(at="recv"), "parks.0: 'a' does not come by 'recv'; it comes by lock, queue_mutex, import"),
        (park(body="listen"), "parks.0: 'a' does not come by 'lock'; it comes by recv"),
        (park(at="recv", body="get_message", kind="timer"), "parks.0: 'a' does not come by 'recv'; it comes by lock,"),
        (park(kind="process"), "parks.0: 'a' is no unit of the arbiter that comes by a point"),
        (park(body="listen", kind="timer"), "parks.0: 'a' is no unit of the arbiter that comes by a point"),
        (park(who="gunicorn_control"), "parks.0: 'gunicorn_control' does not come by 'lock'; it comes by log_record"),
        ({"loops": [{"name": "gunicorn_control"}]}, "loops: 'gunicorn_control' is the name of gunicorn's own thread"),
        ({**park(), "parks": [{"who": "a"}, {"who": "a", "at": "import"}]}, "parks: one stands at one point only"),
    ],
)
def test_what_cannot_be_parked(data: dict[str, Any], problem: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        from_dict(data)
    assert problem in str(raised.value)
