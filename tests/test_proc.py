"""What /proc tells from outside, of processes whose waits are known; and what it does not tell."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkproof import proc

PATIENCE = 10.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def inode(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


def by_recv(one: socket.socket) -> None:
    one.recv(1)


def by_timeout(one: socket.socket) -> None:
    one.settimeout(PATIENCE)  # CPython then polls before it receives
    one.recv(1)


def by_poll(one: socket.socket) -> None:
    poll = select.poll()
    poll.register(one, select.POLLIN)
    poll.poll(PATIENCE * 1000)


def by_select(one: socket.socket) -> None:
    select.select([one], [], [], PATIENCE)


def by_epoll(one: socket.socket) -> None:
    with select.epoll() as epoll:
        epoll.register(one, select.EPOLLIN)
        epoll.poll(PATIENCE)


@pytest.mark.parametrize("block", [by_recv, by_timeout, by_poll, by_select, by_epoll])
def test_a_task_that_waits_on_a_socket(
    block: Callable[[socket.socket], None], pair: tuple[socket.socket, socket.socket]
) -> None:
    task = threading.Thread(target=block, args=pair[:1])
    task.start()
    try:
        found = until(lambda: proc.waits(os.getpid()).get(task.native_id or 0))
    finally:
        pair[1].send(b"x")
        task.join()
    assert found == [inode(pair[0])]
    assert task.native_id not in proc.waits(os.getpid())


def test_what_an_epoll_set_has_while_nobody_waits_on_it(pair: tuple[socket.socket, socket.socket]) -> None:
    with select.epoll() as epoll:
        epoll.register(pair[0], select.EPOLLIN)
        found = proc.polled(os.getpid())
    assert inode(pair[0]) in found
    assert inode(pair[1]) not in found
    assert inode(pair[0]) not in proc.polled(os.getpid())


@pytest.mark.parametrize(
    ("code", "calls"),
    [
        ("import socket; one, other = socket.socketpair(); print(one.fileno()); one.recv(1)", {"recvfrom"}),
        ("import threading; print(-1); lock = threading.Lock(); lock.acquire(); lock.acquire()", {"futex"}),
        ("import time; print(-1); time.sleep(60)", {"clock_nanosleep", "select", "pselect6"}),  # by Python's version
    ],
)
def test_the_call_that_a_task_is_in(code: str, calls: set[str]) -> None:
    command = [sys.executable, "-I", "-u", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            descriptor = int(child.stdout.readline())
            until(lambda: proc.activity(child.pid, child.pid).call in calls)
            task = proc.activity(child.pid, child.pid)
        finally:
            child.kill()
    assert task.call in calls
    assert (task.name, task.state) == (Path(sys.executable).name[:15], "S")
    assert task.descriptor == (None if descriptor < 0 else descriptor)


def test_an_epoll_set_that_a_fork_shares_is_read_by_inode(pair: tuple[socket.socket, socket.socket]) -> None:
    """The numbers in the set are those of the process that filled it: here there is no such descriptor."""
    with select.epoll() as epoll:
        epoll.register(pair[0], select.EPOLLIN)
        code = f"import os, select; os.close(0); select.epoll.fromfd({epoll.fileno()}).poll(10)"
        child = subprocess.Popen([sys.executable, "-I", "-c", code], pass_fds=[epoll.fileno()])
        try:
            assert until(lambda: proc.waits(child.pid)) == {child.pid: [inode(pair[0])]}
        finally:
            child.kill()
            child.wait()


def until(look: Callable[[], object]) -> object:
    """What `look` gives once it gives anything."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return found


def test_what_a_process_has(pair: tuple[socket.socket, socket.socket]) -> None:
    before = proc.resources(os.getpid())
    with open(os.devnull), socket.socket() as third:
        more = proc.resources(os.getpid())
        assert more.sockets == {**before.sockets, third.fileno(): inode(third)}
    assert (more.fds, more.threads) == (before.fds + 2, before.threads)
    assert before.sockets[pair[0].fileno()] == inode(pair[0])


@pytest.mark.parametrize("borrows", [True, False], ids=["borrowed", "from the tables"])
def test_sockets_are_told_apart(
    borrows: bool, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not borrows:
        monkeypatch.setattr(proc, "_borrowed", refused)
    path = str(tmp_path / "named")
    with contextlib.ExitStack() as stack:
        server, left, datagrams, named = (
            stack.enter_context(one)
            for one in (
                socket.create_server(("127.0.0.1", 0)), socket.socket(), socket.socket(type=socket.SOCK_DGRAM),
                socket.socket(socket.AF_UNIX),
            )
        )  # fmt: skip
        named.bind(path)
        named.listen()
        left.connect(server.getsockname())
        server.accept()[0].close()
        client = stack.enter_context(socket.create_connection(server.getsockname()))
        left.recv(1)  # the end: it is known here by now
        some = (server, client, left, named, pair[0], datagrams)
        found = proc.describe({inode(one): (os.getpid(), one.fileno()) for one in some})
        there = address(server)
        expected = [
            (server, "tcp", "listening", there, ""),
            (client, "tcp", "connected", address(client), there),
            (left, "tcp", "other", address(left), there),
            (named, "unix", "listening", path, ""),
            (pair[0], "unix", "connected", "", ""),
        ]
        assert found == {inode(one): proc.Socket(inode(one), *told) for one, *told in expected}


def refused(*arguments: object) -> None:
    raise PermissionError


def address(one: socket.socket) -> str:
    return "{}:{}".format(*one.getsockname())


def test_a_process_that_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-I", "-c", ""])
    child.wait()
    for look in (proc.resources, proc.waits):
        with pytest.raises((FileNotFoundError, ProcessLookupError)):
            look(child.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("look", [proc.resources, proc.waits])
def test_where_one_may_not_look(look: Callable[[int], object]) -> None:
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            look(1)
    finally:
        os.seteuid(0)


def test_a_machine_whose_system_calls_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    proc._require_waits.cache_clear()
    monkeypatch.setattr(proc, "_calls", dict)
    try:
        with pytest.raises(NotImplementedError, match="the numbers of the system calls of"):
            proc.waits(os.getpid())
    finally:
        proc._require_waits.cache_clear()
