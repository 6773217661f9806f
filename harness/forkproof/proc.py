"""What /proc tells of a process from outside: descriptors, tasks, sockets, and on which sockets its tasks wait.

Nothing in the process takes part, so it works on one that hangs. Who may look is the kernel's to say (ptrace(2),
"access mode checking"): descriptors and sockets need the same user; what a task waits on needs leave to attach, which
yama gives to an ancestor, as a supervisor is. Where it is refused, PermissionError is raised.

Does not see: which lock a task waits for, waits through io_uring; which of the descriptors of an epoll set a
reader is still interested in: libev leaves a stopped one in the set until it fires. Standard library only: the
supervisor imports this.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import re
import socket
import struct
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

_BY_DESCRIPTOR = "descriptor"
_POLL, _SELECT, _EPOLL = "poll", "select", "epoll"

_NAMES = {
    "x86_64": {
        0: "read", 1: "write", 7: "poll", 19: "readv", 20: "writev", 23: "select", 34: "pause", 35: "nanosleep",
        42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 61: "wait4",
        128: "rt_sigtimedwait", 130: "rt_sigsuspend", 202: "futex", 230: "clock_nanosleep", 232: "epoll_wait",
        247: "waitid", 270: "pselect6", 271: "ppoll", 281: "epoll_pwait", 288: "accept4", 441: "epoll_pwait2",
    },
    "aarch64": {
        22: "epoll_pwait", 63: "read", 64: "write", 65: "readv", 66: "writev", 72: "pselect6", 73: "ppoll",
        95: "waitid", 98: "futex", 101: "nanosleep", 115: "clock_nanosleep", 133: "rt_sigsuspend",
        137: "rt_sigtimedwait", 202: "accept", 203: "connect", 206: "sendto", 207: "recvfrom", 211: "sendmsg",
        212: "recvmsg", 242: "accept4", 260: "wait4", 441: "epoll_pwait2",
    },
}  # fmt: skip
"""System calls that block, by their numbers."""

_ARGUMENTS = {
    **dict.fromkeys(("read", "write", "readv", "writev", "connect", "accept", "accept4"), _BY_DESCRIPTOR),
    **dict.fromkeys(("sendto", "recvfrom", "sendmsg", "recvmsg"), _BY_DESCRIPTOR),
    **dict.fromkeys(("poll", "ppoll"), _POLL),
    **dict.fromkeys(("select", "pselect6"), _SELECT),
    **dict.fromkeys(("epoll_wait", "epoll_pwait", "epoll_pwait2"), _EPOLL),
}
"""Those that block on descriptors: how their arguments name these."""

_POLLFD = struct.Struct("=ihh")
_POLLED_MAX = 1024
_TARGET = re.compile(rb"^tfd:.*\bino:([0-9a-f]+)\s+sdev:([0-9a-f]+)", re.MULTILINE)


@dataclass(frozen=True)
class Socket:
    """One socket: `state` is "listening", "connected" or another; addresses as the kernel writes them to people."""

    inode: int
    family: str
    state: str
    local: str
    peer: str


@dataclass(frozen=True)
class Resources:
    """What a process has: counts of descriptors and tasks, and the inode of the socket under a descriptor."""

    fds: int
    threads: int
    sockets: dict[int, int]


def resources(pid: int) -> Resources:
    """What process `pid` has now; ProcessLookupError or FileNotFoundError where it is gone, PermissionError."""
    sockets: dict[int, int] = {}
    descriptors = os.listdir(f"/proc/{pid}/fd")
    for name in descriptors:
        inode = _socket_inode(pid, name)
        if inode is not None:
            sockets[int(name)] = inode
    return Resources(len(descriptors), len(os.listdir(f"/proc/{pid}/task")), sockets)


def _socket_inode(pid: int, descriptor: int | str) -> int | None:
    try:
        target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except FileNotFoundError:  # closed since it was listed
        return None
    return int(target[8:-1]) if target.startswith("socket:[") else None


def waits(pid: int) -> dict[int, list[int]]:
    """The inodes of the sockets on which each task of `pid` is blocked; tasks that wait on none are left out.

    Errors as `resources`; NotImplementedError where the machine tells nobody, or not in a way that is known here.
    """
    _require_waits()
    found: dict[int, list[int]] = {}
    for name in os.listdir(f"/proc/{pid}/task"):
        try:
            inodes = _task_waits(pid, int(name))
        except (FileNotFoundError, ProcessLookupError):  # a task that has ended
            continue
        if inodes:
            found[int(name)] = sorted(inodes)
    return found


def polled(pid: int) -> set[int]:
    """The inodes of the sockets in every epoll set of `pid`, whether a task waits on it or not. Errors as `waits`."""
    _require_waits()
    found: set[int] = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            if os.readlink(f"/proc/{pid}/fd/{name}") == "anon_inode:[eventpoll]":
                found |= _in_epoll_set(pid, int(name))
    return found


@dataclass(frozen=True)
class Task:
    """One task: its state as a letter, and for how many seconds it ran and waited for a processor so far."""

    state: str
    ran: float
    waited: float


def tasks(pid: int, root: str = "/proc") -> dict[int, Task]:
    """The tasks of `pid` that live, none where it is gone; NotImplementedError where this kernel does not tell.

    `root` is where the /proc is mounted that knows it by that pid.
    """
    _require_waiting_times()
    found = {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(f"{root}/{pid}/task"):
            state = _read(f"{root}/{pid}/task/{name}/stat").rpartition(b")")[2].split(None, 1)[0].decode()
            ran, waited = _read(f"{root}/{pid}/task/{name}/schedstat").split()[:2]
            if state not in "ZX":
                found[int(name)] = Task(state, int(ran) / 1e9, int(waited) / 1e9)
    return found


def is_stopped(pid: int, root: str = "/proc") -> bool:
    """Whether a signal has `pid` stand still; False where there is none. `root` as for `tasks`."""
    try:
        return _read(f"{root}/{pid}/stat").rpartition(b")")[2].split(None, 1)[0] == b"T"
    except OSError:
        return False


@functools.cache
def _require_waiting_times() -> None:
    with contextlib.suppress(FileNotFoundError):
        if int(_read("/proc/self/schedstat").split()[2]):  # all are 0 where nobody counts
            return
    raise NotImplementedError("this kernel does not tell how long a task waited for a processor")


_FUTEX = {"x86_64": "202", "aarch64": "98"}


def switches(pid: int) -> dict[int, int]:
    """How often each task of `pid` has given up the processor by itself: one that waits and wakes counts on."""
    found: dict[int, int] = {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                status = _read(f"/proc/{pid}/task/{name}/status")
                found[int(name)] = int(status.partition(b"\nvoluntary_ctxt_switches:")[2].split(None, 1)[0])
    return found


def blocked(pid: int) -> list[str]:
    """What each task of `pid` is in: `lock`, `other`, or `unknown` where one may not look; empty where it is gone.

    `lock` is a wait on a futex without an end, as for a lock. Python waits for its own big lock with an end, again and
    again, so that is `other`.
    """
    try:
        return [_blocked(pid, name) for name in os.listdir(f"/proc/{pid}/task")]
    except FileNotFoundError:
        return []


def locked(pid: int) -> list[int]:
    """The tasks of `pid` that wait on a futex without an end: nothing wakes them but whoever holds or fills it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(name) for name in os.listdir(f"/proc/{pid}/task") if _blocked(pid, name) == "lock"]
    return []


def _blocked(pid: int, task: str) -> str:
    try:
        words = _read(f"/proc/{pid}/task/{task}/syscall").split()
    except OSError:
        return "unknown"
    # futex(word, operation, value, timeout, ...); a task that runs has no call to show.
    endless = len(words) > 4 and int(words[4], 16) == 0
    return "lock" if endless and words[0].decode() == _FUTEX.get(os.uname().machine) else "other"


@dataclass(frozen=True)
class Activity:
    """What a task does now: its name and state as the kernel has them, and the system call that it is blocked in.

    `call` is "running" outside of any, empty where one may not look; `descriptor` is its first argument where that
    is one; `wchan` is where in the kernel it waits, empty where it does not or the kernel does not tell.
    """

    name: str
    state: str
    wchan: str
    call: str
    descriptor: int | None


def activity(pid: int, tid: int) -> Activity:
    """What task `tid` of `pid` does now; FileNotFoundError or ProcessLookupError where it is gone."""
    folder = f"/proc/{pid}/task/{tid}"
    name = _read(f"{folder}/comm").decode(errors="replace").rstrip("\n")
    state = _read(f"{folder}/stat").rpartition(b")")[2].split()[0].decode()
    call, descriptor = _call(folder)
    return Activity(name, state, _wchan(folder), call, descriptor)


def _call(folder: str) -> tuple[str, int | None]:
    try:
        words = _read(f"{folder}/syscall").split()
    except PermissionError:
        return "", None
    if len(words) < 9:
        return "running", None
    number = int(words[0])
    name = _NAMES.get(os.uname().machine, {}).get(number, f"system call {number}")
    first = int(words[1], 16)
    return name, first if _calls().get(number) in (_BY_DESCRIPTOR, _EPOLL) else None


def _wchan(folder: str) -> str:
    try:
        wchan = _read(f"{folder}/wchan").decode(errors="replace")
    except PermissionError:
        return ""
    return "" if wchan == "0" else wchan


def _task_waits(pid: int, tid: int) -> set[int]:
    path = f"/proc/{pid}/task/{tid}/syscall"
    before = _read(path)
    words = before.split()
    if len(words) < 9:  # it runs
        return set()
    how = _calls().get(int(words[0]))
    if how is None:
        return set()
    arguments = [int(word, 16) for word in words[1:7]]
    if how == _EPOLL:
        found = _in_epoll_set(pid, arguments[0])
    else:
        descriptors = [arguments[0]]
        if how == _POLL:
            descriptors = _polled(pid, *arguments[:2])
        elif how == _SELECT:
            descriptors = _selected(pid, arguments[0], arguments[1:4])
        found = {inode for fd in descriptors if (inode := _socket_inode(pid, fd)) is not None}
    # What was read in pieces may belong to two calls, unless the task has been in one all the while.
    return found if _read(path) == before else set()


@functools.cache
def _calls() -> dict[int, str]:
    names = _NAMES.get(os.uname().machine, {})
    return {number: _ARGUMENTS[name] for number, name in names.items() if name in _ARGUMENTS}


@functools.cache
def _require_waits() -> None:
    if not _calls():
        raise NotImplementedError(f"the numbers of the system calls of {os.uname().machine} are not known here")
    if not os.path.exists("/proc/self/syscall"):
        raise NotImplementedError("this kernel has no /proc/PID/syscall")


@functools.cache
def _socket_device() -> int:
    with socket.socket(socket.AF_UNIX) as one:
        return os.fstat(one.fileno()).st_dev


def _in_epoll_set(pid: int, descriptor: int) -> set[int]:
    # By inode, not by number: a set that a fork shares holds numbers of the process that filled it.
    device = _socket_device()
    targets = _TARGET.findall(_read(f"/proc/{pid}/fdinfo/{descriptor}"))
    return {int(inode, 16) for inode, sdev in targets if int(sdev, 16) == device}


def _polled(pid: int, address: int, count: int) -> list[int]:
    memory = _memory(pid, address, min(count, _POLLED_MAX) * _POLLFD.size)
    return [fd for fd, events, _ in _POLLFD.iter_unpack(memory) if fd >= 0 and events]


def _selected(pid: int, count: int, addresses: list[int]) -> list[int]:
    size = (min(count, _POLLED_MAX) + 63) // 64 * 8
    sets = [int.from_bytes(_memory(pid, address, size), "little") for address in addresses if address]
    return [fd for fd in range(min(count, _POLLED_MAX)) if any(one >> fd & 1 for one in sets)]


def _memory(pid: int, address: int, size: int) -> bytes:
    file = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(file, size, address)
    except OSError:  # unmapped: the task has gone on
        return b""
    finally:
        os.close(file)
    return data[: len(data) // _POLLFD.size * _POLLFD.size]


def describe(where: Mapping[int, tuple[int, int]]) -> dict[int, Socket]:
    """What the kernel says of these sockets, given by inode with a process and a descriptor that have it.

    Those of other families lack, and those that were closed.
    """
    found: dict[int, Socket] = {}
    refused: dict[int, int] = {}
    for inode, (pid, descriptor) in where.items():
        try:
            one = _borrowed(inode, pid, descriptor)
        except PermissionError:
            refused[inode] = pid
        except OSError:  # it has closed it, or it has ended
            continue
        else:
            if one is not None:
                found[inode] = one
    return found | listed(refused)


def listed(where: Mapping[int, int]) -> dict[int, Socket]:
    """The same, given by inode with a process that has it, as the kernel's tables have it: nothing is borrowed.

    The peer of a unix socket is not among it.
    """
    found: dict[int, Socket] = {}
    for pid in set(where.values()):
        found |= _from_tables({inode for inode, one in where.items() if one == pid}, pid)
    return found


_PIDFD_GETFD = 438
_FAMILIES = {socket.AF_INET: "tcp", socket.AF_INET6: "tcp6", socket.AF_UNIX: "unix"}


def _borrowed(inode: int, pid: int, descriptor: int) -> Socket | None:
    """Ask a socket itself, through a copy of the descriptor that is closed at once: microseconds.

    PermissionError where that is refused, by old kernels and by many containers as well; the tables are left then.
    """
    pidfd = os.pidfd_open(pid)
    try:
        copy = _libc().syscall(_PIDFD_GETFD, pidfd, descriptor, 0)
        number = ctypes.get_errno()
    finally:
        os.close(pidfd)
    if copy < 0:
        raise PermissionError if number in (errno.EPERM, errno.ENOSYS) else OSError(number, os.strerror(number))
    with socket.socket(fileno=copy) as one:
        family = _FAMILIES.get(one.family)
        if os.fstat(copy).st_ino != inode or family is None or one.type != socket.SOCK_STREAM:
            return None
        local = address_of(one.getsockname())
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return Socket(inode, family, "listening", local, "")
        try:
            peer = address_of(one.getpeername())
        except OSError:
            return Socket(inode, family, "other", local, "")
        # TCP has a peer as well while it is being connected to, and after it has gone.
        established = family == "unix" or one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_ESTABLISHED
        return Socket(inode, family, "connected" if established else "other", local, peer)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def address_of(address: Any) -> str:
    """An address of the socket module, as it is written for people."""
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    return address.decode(errors="replace") if isinstance(address, bytes) else str(address)


def _from_tables(wanted: Set[int], pid: int) -> dict[int, Socket]:
    """What the tables of a process's network say. The kernel walks all its connections for it, for 10 ms or more."""
    found: dict[int, Socket] = {}
    for family, read in (("tcp", _tcp), ("unix", _unix), ("tcp6", _tcp)):
        missing = wanted - found.keys()
        if missing:
            try:
                text = _read(f"/proc/{pid}/net/{family}")
            except (FileNotFoundError, ProcessLookupError, PermissionError):  # without that family, or gone
                continue
            rows = {inode: read(text, family, inode) for inode in missing}
            found |= {inode: one for inode, one in rows.items() if one is not None}
    return found


_TCP_ESTABLISHED = 1
_TCP_STATES = {b"01": "connected", b"0A": "listening"}
_UNIX_CONNECTED, _UNIX_ACCEPTS = b"03", 0x10000


def _tcp(text: bytes, family: str, inode: int) -> Socket | None:
    fields = _line_with(text, inode, 9)
    if fields is None:
        return None
    state = _TCP_STATES.get(fields[3], "other")
    return Socket(inode, family, state, _address(fields[1]), "" if state == "listening" else _address(fields[2]))


def _unix(text: bytes, family: str, inode: int) -> Socket | None:
    fields = _line_with(text, inode, 6)
    if fields is None:
        return None
    state = "connected" if fields[5] == _UNIX_CONNECTED else "other"
    if int(fields[3], 16) & _UNIX_ACCEPTS:
        state = "listening"
    return Socket(inode, family, state, b" ".join(fields[7:]).decode(errors="replace"), "")


def _line_with(text: bytes, inode: int, field: int) -> list[bytes] | None:
    """The fields of the line that has the inode in its place. Not line by line: there may be thousands of others."""
    digits, at = b" %d " % inode, 0
    text = text.replace(b"\n", b" \n")  # the inode may be the last of its line
    while (at := text.find(digits, at + 1)) >= 0:
        fields = text[text.rfind(b"\n", 0, at) + 1 : text.index(b"\n", at)].split()
        if len(fields) > field and fields[field] == digits.strip():
            return fields
    return None


def _address(text: bytes) -> str:
    """An address of /proc/net/tcp or tcp6, whose 32-bit words are in the machine's own order.

    >>> _address(b"0100007F:1F90")
    '127.0.0.1:8080'
    """
    host, _, port = text.partition(b":")
    raw = bytes.fromhex(host.decode())
    words = struct.pack(f"={len(raw) // 4}I", *struct.unpack(f">{len(raw) // 4}I", raw))
    return address_of((socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, words), int(port, 16)))


def _read(path: str) -> bytes:
    # Unbuffered: a buffered file costs three times as much, and these are read by the dozen.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(file, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(file)
