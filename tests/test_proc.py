"""What /proc tells from outside, of processes whose waits are known; and what it does not tell."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

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


def test_sockets_are_told_apart(pair: tuple[socket.socket, socket.socket]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        found = proc.describe([inode(server), inode(client), inode(pair[0]), 1])
        here, there = (f"127.0.0.1:{one.getsockname()[1]}" for one in (client, server))
        assert found == {
            inode(server): proc.Socket(inode(server), "tcp", "listening", there, "0.0.0.0:0"),
            inode(client): proc.Socket(inode(client), "tcp", "connected", here, there),
            inode(pair[0]): proc.Socket(inode(pair[0]), "unix", "connected", "", ""),
        }


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
