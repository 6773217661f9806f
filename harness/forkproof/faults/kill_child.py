"""SIGKILL to a process that a loop runs in: a child of the arbiter, or of the worker in a slot."""

from __future__ import annotations

import errno
import signal
from dataclasses import replace
from typing import Any

from forkproof.faults.base import Fault, FaultKind, Server
from forkproof.faults.life import Life


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    pid = server.child_pid(fault["slot"])
    if pid is None:
        where = "the arbiter" if fault["slot"] is None else f"the worker in slot {fault['slot']}"
        raise OSError(errno.ESRCH, f"{where} has no live child that is no worker")
    server.signal(pid, signal.SIGKILL)
    return {"target": pid}


def _refuses(life: Life, fault: Fault) -> str:
    creator = "arbiter" if fault["slot"] is None else "worker"
    if creator not in life.children:
        return f"no loop is a process that the {creator} starts"
    return "such a child was killed before" if fault["slot"] in life.bereft else ""


def _effect(life: Life, fault: Fault) -> Life:
    return replace(life, bereft=life.bereft | {fault["slot"]})


FAULT = FaultKind(
    name="kill_child", label="kill -9 of a child", inject=_inject, refuses=_refuses, effect=_effect,
    takes_slot=True,
    weight=4,
    scene={"loops": [
        {"name": "c", "kind": "process", "start": "post_worker_init"},
        {"name": "d", "kind": "process", "start": "on_starting"},
    ]},
)  # fmt: skip
