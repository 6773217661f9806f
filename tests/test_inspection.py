"""What `forkproof inspect` tells of servers that run, and of what is none; it changes nothing in them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from schema import validate
from test_blocks import ROOT, block_of

from forkproof import broker
from forkproof.cli import main
from forkproof.errors import BrokerError, CouldNotDecide, UsageError
from forkproof.inspection import Connection, Inspection, Process, Thread, inspect
from forkproof.reports import inspection

PATIENCE = 60.0

THREAD = Thread(5, "python", "S", "do_epoll_wait", "epoll_wait", None, (70,))
ARBITER = Process(4, 1, "arbiter", None, "arbiter", (THREAD,))
WORKER = Process(6, 4, "worker", 0, "worker 0", (THREAD,))
HEARD = Connection(70, "tcp", "127.0.0.1:9", "127.0.0.1:6379", (4, 6), (6,), 1)


def seen(*connections: Connection, blind: str | None = None) -> Inspection:
    worker = Process(6, 4, "worker", 0, "worker 0", (THREAD,), blind)
    return Inspection(4, "gunicorn app:app", 1.0, (ARBITER, worker), connections, "redis://there", {"orders": 1})


def told(found: Inspection) -> str:
    console = Console(width=100, no_color=True, highlight=False)
    with console.capture() as captured:
        console.print(inspection.inspection(found))
    return captured.get()


def test_a_connection_that_one_process_waits_on_is_sound() -> None:
    found = seen(HEARD)
    assert (found.exit_code, found.contested, found.unheard) == (0, [], [])
    assert re.search(r"^127.0.0.1:9 -> 127.0.0.1:6379 +arbiter, worker 0 +worker 0 +1 *$", told(found), re.MULTILINE)
    assert "by chance" not in told(found)


def test_a_connection_that_two_processes_wait_on() -> None:
    found = seen(Connection(70, "tcp", "127.0.0.1:9", "127.0.0.1:6379", (4, 6), (4, 6), 1))
    assert (found.exit_code, [one.inode for one in found.contested]) == (1, [70])
    assert "127.0.0.1:9 -> 127.0.0.1:6379 is waited on by arbiter, worker 0: what comes" in told(found)
    assert found.to_dict()["contested"] == [70]


def test_a_subscription_that_nobody_hears() -> None:
    dead = Connection(70, "tcp", "127.0.0.1:9", "127.0.0.1:6379", (6,), (), 1)
    assert seen(dead).unheard == [dead]
    assert "nobody was seen waiting on it" in told(seen(dead))
    assert not seen(Connection(70, "tcp", "127.0.0.1:9", "127.0.0.1:6379", (6,), (), 0)).unheard


def test_what_was_not_seen_is_told_and_decides_nothing() -> None:
    found = seen(Connection(70, "tcp", "127.0.0.1:9", "127.0.0.1:6379", (6,), (), 1), blind="run it as root")
    assert (found.exit_code, found.unheard) == (3, [])
    assert "not seen: worker 0: run it as root" in told(found)


@pytest.mark.parametrize("url", ["localhost", "redis://:secret@there", "redis://", "redis://there:x", "rediss://there"])
def test_a_url_that_is_not_allowed(url: str) -> None:
    with pytest.raises(UsageError, match="give redis://host") as error:
        inspect(os.getpid(), redis=url)
    assert "secret" not in str(error.value)


@contextlib.contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_process_that_is_none() -> None:
    with child("") as gone:
        gone.wait()
    with pytest.raises(UsageError, match=f"^{gone.pid}: there is no such process"):
        inspect(gone.pid)


def test_a_process_that_is_no_gunicorn() -> None:
    with child("input()") as other, pytest.raises(UsageError, match=f"^{other.pid}: is no gunicorn master .*input"):
        inspect(other.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_process_of_somebody_else() -> None:
    with child("input()") as other:
        os.seteuid(65534)
        try:
            with pytest.raises(CouldNotDecide, match=r"does not let user nobody look .* belongs to root"):
                inspect(other.pid)
        finally:
            os.seteuid(0)


TREE = """
import os, tempfile, time

def beat():
    number, name = tempfile.mkstemp(prefix="wgunicorn-")
    os.unlink(name)
    return number

def fork(name, *then):
    if os.fork() == 0:
        for do in then:
            do()
        say(name)
        time.sleep(60)

def say(name):
    os.write(1, f"{name} {os.getpid()}\\n".encode())

say("master")
first = beat()
fork("worker", lambda: fork("child"))
second = beat()
fork("worker", lambda: os.close(first))
fork("child")
fork("new master", lambda: os.closerange(first, second + 1), beat, lambda: fork("new worker"))
time.sleep(60)
"""
"""Processes with files open as gunicorn's have them, that of USR2 and some that the app forks included."""


@pytest.fixture
def tree() -> Iterator[dict[str, list[int]]]:
    """The pids of such processes by their names."""
    command = [sys.executable, "-I", "-c", TREE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as top:
        try:
            assert top.stdout is not None
            pids: dict[str, list[int]] = {}
            for _ in range(7):
                name, _, pid = top.stdout.readline().rpartition(" ")
                pids.setdefault(name, []).append(int(pid))
            yield pids
        finally:
            os.killpg(top.pid, signal.SIGKILL)


def test_who_is_who(tree: dict[str, list[int]]) -> None:
    [master], [new], [new_worker] = tree["master"], tree["new master"], tree["new worker"]
    places = {one.pid: one.place for one in inspect(master, seconds=0.01).processes}
    assert [places[pid] for pid in (master, *sorted(tree["worker"]))] == ["arbiter", "worker 0", "worker 1"]
    assert {places[pid] for pid in tree["child"]} == {"child of arbiter", "child of worker 0"}
    assert (places[new], places[new_worker]) == ("child of arbiter", "child of child of arbiter")
    assert len(places) == 7

    found = inspect(new, seconds=0.01).processes
    assert [(one.pid, one.place) for one in found] == [(new, "arbiter"), (new_worker, "worker 0")]
    for pid in (*tree["worker"], *tree["child"]):
        with pytest.raises(UsageError, match=f"^{pid}: belongs to the gunicorn whose master is {master}"):
            inspect(pid)
    with pytest.raises(UsageError, match=f"^{new_worker}: belongs to the gunicorn whose master is {new}"):
        inspect(new_worker)
    with pytest.raises(UsageError, match=rf"Gunicorn masters here: .*\b{master}\b") as error:
        inspect(2**22 + 1)
    assert not any(f"{pid}," in str(error.value) for pid in tree["worker"])


APP = """
    import os, socket

    SUBSCRIBE = b"*2\\r\\n$9\\r\\nSUBSCRIBE\\r\\n$6\\r\\norders\\r\\n"

    def subscribe():
        connection = socket.create_connection(("127.0.0.1", int(os.environ["REDIS_PORT"])))
        connection.sendall(SUBSCRIBE)
        connection.recv(1000)
        return connection

    connection = subscribe() if "at import" in os.environ["PLAN"] else None

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"here"]
"""
CONF = """
    import os, threading
    bind, workers, preload_app, control_socket_disable = "127.0.0.1:0", 2, True, True

    def post_worker_init(worker):
        import app
        if "in worker" in os.environ["PLAN"]:
            app.connection = app.subscribe()
        if "listen" in os.environ["PLAN"]:
            threading.Thread(target=app.connection.recv, args=[1000], daemon=True).start()
        open("ready", "a").write("worker\\n")
"""


@contextlib.contextmanager
def gunicorn(folder: Path, plan: str, redis: broker.Broker) -> Iterator[subprocess.Popen[bytes]]:
    """A server that subscribes and listens where `plan` says, once both workers are there."""
    (folder / "app.py").write_text(textwrap.dedent(APP))
    (folder / "gunicorn.conf.py").write_text(textwrap.dedent(CONF))
    environment = {**os.environ, "REDIS_PORT": str(redis.port), "PLAN": plan, "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "app:app"], cwd=folder, env=environment, stdout=log, stderr=log
        )
    ready = folder / "ready"
    try:
        until(lambda: ready.exists() and len(ready.read_text().splitlines()) == 2, folder / "log")
        yield process
    finally:
        process.terminate()
        process.wait()


def until(reached: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


@pytest.fixture
def redis(short_folder: Path) -> Iterator[broker.Broker]:
    kind = "redis-server" if shutil.which("redis-server") else "embedded"
    with broker.start(broker.parse(kind), short_folder / "broker") as one:
        yield one


SHOWN = block_of("docs/inspect.md", "gunicorn master").text


def lines(text: str) -> list[str]:
    """Those of a page or of the output; what goes on in a next line is one."""
    return [
        " ".join(line.split()) for part in text.split("\n\n") for line in part.replace("\nmade", " made").splitlines()
    ]


def plain(line: str) -> str:
    """A line without what is different in each server: numbers, and which process it was."""
    line = re.sub(r"(?:127\.0\.0\.1:)?\d+", "~", line)
    return re.sub(r"(?:arbiter|worker ~)(?:, (?:arbiter|worker ~))*", "PLACES", line).replace("PLACES PLACES", "PLACES")


def test_what_the_page_shows_is_told_so() -> None:
    """Two workers that were forked from one listener; the first has made a connection of its own since."""
    on, lock = "127.0.0.1:7391", Thread(5219, "python", "S", "", "futex")
    connections = (
        Connection(1, "tcp", "127.0.0.1:39574", on, (5513,), (5513,), 1),
        Connection(2, "tcp", "127.0.0.1:39560", on, (5219, 5522), (5219, 5522), 1),
        Connection(3, "unix", "", "", (5219,), ()),
        Connection(4, "unix", "", "", (5219,), ()),
    )
    processes = [
        Process(pid, parent, role, slot, place, (Thread(pid, "python", "S", "", "epoll_wait", None, (inode,)), *more))
        for pid, parent, role, slot, place, inode, more in (
            (5219, 5215, "arbiter", None, "arbiter", 2, [lock]),
            (5513, 5219, "worker", 0, "worker 0", 1, []),
            (5522, 5219, "worker", 1, "worker 1", 2, []),
        )
    ]
    command = "python -m gunicorn -c ../../deployments/gevent_preload_patched.conf.py app:app"
    found = Inspection(5219, command, 1.0, tuple(processes), connections, f"redis://{on}", {"orders": 2})
    assert told(found).split() == SHOWN.split()


def test_the_exit_codes_of_the_page() -> None:
    rows = re.findall(r"^\| (\d) \| (.*) \|$", (ROOT / "docs" / "inspect.md").read_text(encoding="utf-8"), re.M)
    two = Connection(70, "tcp", "127.0.0.1:9", "127.0.0.1:6379", (4, 6), (4, 6), 1)
    assert UsageError.exit_code == BrokerError.exit_code
    assert [(int(code), when) for code, when in rows] == [
        (seen(HEARD).exit_code, "no connection is waited on by two processes"),
        (seen(two).exit_code, "one is"),
        (UsageError.exit_code, "PID is no master; that Redis does not answer"),
        (CouldNotDecide.exit_code, "one may not look, or not see what some process waits on: run it as root"),
    ]
    assert seen(HEARD, blind="why").exit_code == CouldNotDecide.exit_code


@pytest.mark.fork
@pytest.mark.parametrize(
    ("plan", "code", "contested", "unheard"),
    [("in worker, listen", 0, [], []), ("at import, listen", 1, [{0, 1}], []), ("in worker", 0, [], [{0}, {1}])],
    ids=["healthy", "shared", "dead"],
)
def test_a_server(
    plan: str, code: int, contested: list[set[int]], unheard: list[set[int]],
    redis: broker.Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "300")
    with gunicorn(tmp_path, plan, redis) as master:
        with pytest.raises(SystemExit) as left:
            main(["inspect", str(master.pid), "--redis", redis.url, "--json", "-"])
        found = json.loads(capsys.readouterr().out)
        validate(found, "inspection")
        if contested:
            with pytest.raises(SystemExit):
                main(["inspect", str(master.pid), "--redis", redis.url])
            printed = {*map(plain, lines(capsys.readouterr().out))}
            assert [line for line in lines(SHOWN)[1:] if plain(line) not in printed] == []
        worker = found["processes"][1]["pid"]
        with pytest.raises(UsageError, match=f"^{worker}: belongs to the gunicorn whose master is {master.pid}"):
            inspect(worker)
        with pytest.raises(UsageError, match=rf"^{os.getpid()}: is no gunicorn master; {master.pid}, below it, is"):
            inspect(os.getpid())
    assert left.value.code == code, found
    assert [(one["role"], one["slot"], one["parent"]) for one in found["processes"]] == [
        ("arbiter", None, os.getpid()), ("worker", 0, master.pid), ("worker", 1, master.pid),
    ]  # fmt: skip
    slots = {one["pid"]: one["slot"] for one in found["processes"]}
    connections = {one["inode"]: one for one in found["connections"]}
    waiting = [{slots[pid] for pid in connections[inode]["waited_on_by"]} for inode in found["contested"]]
    assert waiting == contested
    holding = [{slots[pid] for pid in connections[inode]["held_by"]} for inode in found["unheard"]]
    assert sorted(holding, key=str) == unheard
    assert found["channels"] == {"orders": 1 if "at import" in plan else 2}
    calls = [thread["call"] for thread in found["processes"][0]["threads"]]
    assert calls
    assert all(calls)


AUDITED = """
import sys
from forkproof.inspection import inspect

done = []
def hook(event, arguments):
    if event == "open" and not (str(arguments[0]).startswith("/proc/") and not arguments[2] & 3):
        done.append((event, *arguments))
    if event.startswith(("os.kill", "os.pidfd", "signal.", "ctypes.", "subprocess.", "os.set")):
        done.append((event, *arguments))

sys.addaudithook(hook)
found = inspect(int(sys.argv[1]), seconds=0.1)
print(len(found.processes), done)
"""


@pytest.mark.fork
def test_it_only_reads_proc(redis: broker.Broker, tmp_path: Path) -> None:
    with gunicorn(tmp_path, "in worker, listen", redis) as master:
        command = [sys.executable, "-c", AUDITED, str(master.pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("3 []\n", "")


@pytest.mark.fork
def test_a_redis_that_does_not_answer(redis: broker.Broker, tmp_path: Path) -> None:
    with gunicorn(tmp_path, "in worker, listen", redis) as master:
        redis.stop()
        with pytest.raises(BrokerError, match="Name one that answers CLIENT LIST without a password"):
            inspect(master.pid, seconds=0.1, redis=redis.url)
