"""What this machine and this target allow, and what is then not covered."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forkproof import broker, containment, proc, target
from forkproof.errors import ForkproofError


@dataclass(frozen=True)
class Answer:
    """One thing that was looked at; `needed` where nothing works without it."""

    subject: str
    good: bool
    text: str
    needed: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def examine(target_name: str | None, broker_name: str) -> list[Answer]:
    """Look at everything; nothing is raised for what is missing."""
    return [*_machine(), _containment(), _sight(), _inspection(), *_target(target_name), _broker(broker_name)]


def _machine() -> Iterator[Answer]:
    cores = len(os.sched_getaffinity(0))
    yield Answer("machine", True, f"Linux {platform.release()}, {cores} cores, Python {platform.python_version()}")
    pidfd = hasattr(os, "pidfd_open")
    yield Answer("pidfd", pidfd, "the end of a process is seen at once" if pidfd else "needs Linux 5.3 or later")


def _containment() -> Answer:
    prefix = containment.namespace_prefix()
    if prefix:
        return Answer("containment", True, "each run has a pid namespace: its processes end with it, even by kill -9")
    return Answer(
        "containment", False, "no pid namespace can be had (unshare is missing or forbidden): a supervisor that is "
        "itself killed with SIGKILL may leave processes behind", needed=False,
    )  # fmt: skip


def _sight() -> Answer:
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL) as child:
        try:
            proc.waits(child.pid)
        except (OSError, NotImplementedError) as error:
            told = f"what a process waits on is hidden ({error}): no_socket_shared_across_fork will be unknown"
            return Answer("sight", False, told, needed=False)
        finally:
            child.kill()
    return Answer("sight", True, "what a process waits on is seen from outside")


def _inspection() -> Answer:
    """Whether what servers wait on that we did not start can be seen: yama may keep it to ancestors and root."""
    try:
        scope = int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text())
    except OSError:  # no yama
        scope = 0
    if scope == 0 or os.geteuid() == 0:
        return Answer("inspect", True, "what this user's servers wait on is seen")
    told = f"what a server waits on is hidden (kernel.yama.ptrace_scope is {scope}): run `forkproof inspect` as root"
    return Answer("inspect", False, told, needed=False)


def _target(name: str | None) -> Iterator[Answer]:
    try:
        found = target.find(name)
    except ForkproofError as error:
        yield Answer("target", False, str(error))
        return
    yield Answer("target", True, f"{found.executable}: {target.describe(found.to_dict())}")
    for package in ("gunicorn", "flask"):
        if package not in found.versions:
            yield Answer(
                package, False, f"is not in the target: every run needs it. "
                f"Install it: {found.executable} -m pip install {package}",
            )  # fmt: skip
    for package, what in (
        ("gevent", "no patch, no greenlet, no gevent worker"),
        ("redis", "no loop that listens to Redis"),
        ("gevent-websocket", "no GeventWebSocketWorker"),
        ("hiredis", "no redis-py with hiredis"),
    ):
        if package not in found.versions:
            yield Answer(package, False, f"is not in the target: {what} will be drawn", needed=False)


def _broker(name: str) -> Answer:
    try:
        with (
            tempfile.TemporaryDirectory(prefix="forkproof-") as folder,
            broker.start(broker.parse(name), Path(folder)) as redis,
        ):
            return Answer("broker", True, redis.description)
    except ForkproofError as error:
        return Answer("broker", False, str(error))
