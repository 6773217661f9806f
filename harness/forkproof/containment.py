"""Keeping the processes of a run together, and ending all of them.

A supervisor is a subreaper in a session of its own: what its descendants leave behind becomes its child. Where the
machine allows one, it is also the first process of a pid namespace, and then the kernel ends everything in it when the
supervisor ends, whoever ended it. Standard library only: the supervisor imports this.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_LAST_THREADS = 1.0
"""Seconds to wait at most for what is a zombie already, but for threads of it that have yet to end."""
_NEW_MOUNTS, _NEW_USER, _NEW_PIDS = 0x20000, 0x10000000, 0x20000000
_NO_SUID, _NO_DEVICES, _NO_EXEC, _RECURSIVE, _PRIVATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 18


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat says of a process; `start` in clock ticks since boot."""

    pid: int
    ppid: int
    state: str
    start: int


def read_stat(pid: int) -> Stat | None:
    """The state of a process; None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Stat(pid, int(fields[1]), fields[0].decode(), int(fields[19]))


def command_of(pid: int) -> str:
    """A process's command line, for people."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    return "?"


def all_processes() -> Iterator[Stat]:
    """Every process that /proc shows."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = read_stat(int(name))
            if stat is not None:
                yield stat


def descendants(pid: int) -> list[Stat]:
    """The live processes below `pid`, zombies left out."""
    children: dict[int, list[Stat]] = {}
    for stat in all_processes():
        children.setdefault(stat.ppid, []).append(stat)
    found: list[Stat] = []
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        todo += [stat.pid for stat in below]
        found += [stat for stat in below if stat.state != "Z"]
    return found


def carrying(mark: str) -> list[Stat]:
    """The processes on the whole machine, save this one, with `mark` in their command, first environment or folder."""
    return [stat for stat in all_processes() if stat.pid != os.getpid() and _carries(stat.pid, mark)]


def _carries(pid: int, mark: str) -> bool:
    with contextlib.suppress(OSError):
        if mark in os.readlink(f"/proc/{pid}/cwd"):
            return True
        for name in ("cmdline", "environ"):
            with open(f"/proc/{pid}/{name}", "rb") as file:
                if os.fsencode(mark) in file.read():
                    return True
    return False


def become_subreaper() -> None:
    """Make this process the parent of what its descendants leave behind (prctl(2)); OSError where refused."""
    _call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def unshare(*, user: bool) -> None:
    """Put the next child into a pid namespace of its own, as unshare(1) does; `user` where that takes one of users too.

    That child is to call `begin_namespace`. OSError where it is refused.
    """
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", _NEW_PIDS | _NEW_MOUNTS | (_NEW_USER if user else 0))
    if user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _call("mount", b"none", b"/", None, ctypes.c_ulong(_RECURSIVE | _PRIVATE), None)


def begin_namespace() -> None:
    """As the first process of a pid namespace: end with the parent, and let /proc show what is in here."""
    _call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    _call("mount", b"proc", b"/proc", b"proc", ctypes.c_ulong(_NO_SUID | _NO_DEVICES | _NO_EXEC), None)


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name} is refused: {os.strerror(number)}")


def kill_descendants() -> list[Stat]:
    """SIGKILL to everything below this process, until nothing is left; what was found is returned."""
    found: dict[int, Stat] = {}
    while living := descendants(os.getpid()):
        for stat in living:
            found.setdefault(stat.pid, stat)
            with contextlib.suppress(OSError):
                os.kill(stat.pid, signal.SIGKILL)
        reap()
        time.sleep(0.001)  # between two looks at processes that the kernel is ending
    latest = time.monotonic() + _LAST_THREADS
    while _has_children() and time.monotonic() < latest:
        reap()
        time.sleep(0.001)
    return list(found.values())


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reap() -> list[tuple[int, int]]:
    """Collect the children that have ended, as (pid, exit code)."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append((found[0], os.waitstatus_to_exitcode(found[1])))
    return ended


@functools.cache
def namespace_prefix() -> tuple[str, ...]:
    """The command that puts what follows it into a pid namespace of its own; empty where the machine allows none."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    options = ("--pid", "--fork", "--mount-proc", "--kill-child")
    choices: list[tuple[str, ...]] = [(unshare, *options)] if os.geteuid() == 0 else []
    choices.append((unshare, "--user", "--map-current-user", *options))
    for prefix in choices:
        done = subprocess.run([*prefix, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30)
        if done.returncode == 0:
            return prefix
    return ()
