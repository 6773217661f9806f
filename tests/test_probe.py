"""The probe in real processes that fork, are killed and are stopped; no server is started."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from probed import Probed, until


@pytest.fixture
def probed(python: str, tmp_path: Path) -> Iterator[Probed]:
    found = Probed(python, tmp_path)
    yield found
    found.end()


def test_a_forked_child_writes_to_a_file_of_its_own(probed: Probed) -> None:
    assert probed.run("""
        probe.event("before")
        child = os.fork()
        probe.event("after", child=child)
        if child:
            os.waitpid(child, 0)
        """) == 0  # fmt: skip
    parent = probed.events("before")[0]["pid"]
    child = next(event["child"] for event in probed.events("after") if event["pid"] == parent)
    assert [event["event"] for event in probed.events() if event["pid"] == parent] == ["process", "before", "after"]
    assert [event["event"] for event in probed.events() if event["pid"] == child] == ["process", "after"]
    assert [event["ppid"] for event in probed.events("process")] == [os.getpid(), parent]


def test_events_have_the_time_that_processes_share(probed: Probed) -> None:
    before = time.monotonic()
    assert probed.run('probe.event("now")') == 0
    assert before - 1e-5 <= probed.events("now")[0]["t"] <= time.monotonic()


def test_a_kill_9_loses_nothing(probed: Probed) -> None:
    status = probed.run("""
        ticker = probe.Ticker("a", "thread", "app_import", "x.py:1")
        for turn in range(1000):
            ticker.tick()
            ticker.event("handled", message=str(turn))
        os.kill(os.getpid(), signal.SIGKILL)
        """)
    assert status == -signal.SIGKILL
    assert [event["message"] for event in probed.events("handled")] == [str(turn) for turn in range(1000)]
    assert list(probed.ticks().values()) == [1000]


def test_what_is_no_unicode_does_not_damage_the_history(probed: Probed) -> None:
    assert probed.run("""
        probe.event("early.made", name="a\\udc80")
        """) == 0  # fmt: skip
    [made] = probed.events("early.made")
    assert made["name"] == "a?"


def test_parent_and_child_count_apart(probed: Probed) -> None:
    assert probed.run("""
        ticker = probe.Ticker("a", "greenlet", "app_import", "x.py:1")
        for _ in range(5):
            ticker.tick()
        child = os.fork()
        for _ in range(3 if child else 2):
            ticker.tick()
        if child:
            os.waitpid(child, 0)
        """) == 0  # fmt: skip
    created = probed.events("loop.created")
    begun = probed.events("loop.begin")
    assert len(created) == 1
    assert {event["birth"] for event in begun} == {created[0]["birth"]}
    parent, child = (event["pid"] for event in begun)
    assert parent == created[0]["pid"] != child
    assert probed.ticks() == {parent: 8, child: 2}


def test_a_stopped_process_can_be_read(probed: Probed) -> None:
    process = probed.start("""
        ticker = probe.Ticker("a", "thread", "app_import", "x.py:1")
        for _ in range(7):
            ticker.tick()
        os.kill(os.getpid(), signal.SIGSTOP)
        """)
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    assert probed.ticks() == {process.pid: 7}


def test_a_birth_id_is_made_at_creation_and_a_child_gets_cells_of_its_own(probed: Probed) -> None:
    assert probed.run("""
        first = probe.Ticker("a", "thread", "app_import", "x.py:1")
        first.tick()
        child = os.fork()
        if child == 0:
            second = probe.Ticker("a", "thread", "post_fork", "x.py:1")
            second.tick()
            second.tick()
            first.tick()
            os._exit(0)
        os.waitpid(child, 0)
        """) == 0  # fmt: skip
    births = [event["birth"] for event in probed.events("loop.created")]
    assert len(set(births)) == 2
    assert [(event["birth"], event["cell"]) for event in probed.events("loop.begin")] == [
        (births[0], 0), (births[1], 0), (births[0], 1),
    ]  # fmt: skip


SWITCHES = """
import functools, json
import gevent, gevent.event, gevent.queue, greenlet

class Nothing(object):
    def tick(self):
        pass
    def event(self, kind, **fields):
        pass

class GivesWay(Nothing):
    tick = lambda self: gevent.sleep(0)

def made(kind, name):
    if kind == "probe":
        return probe.Ticker(name, "greenlet", None, "order")
    return Nothing() if kind == "nothing" else GivesWay()

def order(kind):
    queue, evening, names, told = gevent.queue.Queue(2), gevent.event.Event(), {}, []

    def sleeper(ticker, turns):
        for turn in range(turns):
            ticker.tick()
            ticker.event("handled", message=str(turn))
            gevent.sleep(0)
        evening.set()

    def puts(ticker, turns):
        for turn in range(turns):
            ticker.tick()
            queue.put(turn)

    def gets(ticker, turns):
        for turn in range(turns):
            queue.get()
            ticker.tick()

    def waits(ticker, turns):
        evening.wait()
        sleeper(ticker, turns)

    bodies = [sleeper, sleeper, puts, gets, waits]
    started = []
    for number, body in enumerate(bodies):
        name = "%s %d" % (body.__name__, number)
        one = gevent.spawn(body, made(kind, name), 20)
        names[one] = name
        started.append(one)
    greenlet.settrace(lambda event, args: told.append([names.get(one, "hub or main") for one in args]))
    gevent.joinall(started)
    greenlet.settrace(None)
    assert all(one.successful() for one in started)
    return told

with open("order.json", "w") as file:
    json.dump({kind: order(kind) for kind in ("nothing", "probe", "gives way")}, file)
"""


def test_the_probe_does_not_change_the_order_of_greenlet_switches(tmp_path: Path) -> None:
    probed = Probed(sys.executable, tmp_path)
    assert probed.run(SWITCHES) == 0
    told = json.loads((tmp_path / "order.json").read_text())
    assert len(told["nothing"]) > 150
    assert told["probe"] == told["nothing"]
    assert told["gives way"] != told["nothing"]  # which such a probe would
    assert len(probed.events("handled")) == 60
