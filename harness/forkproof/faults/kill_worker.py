"""SIGKILL to the worker in a slot, as the kernel does when memory runs out."""

from __future__ import annotations

import errno
import signal
from collections.abc import Mapping
from typing import Any

from forkproof.faults.base import FaultKind, Server


async def _inject(server: Server, fault: Mapping[str, Any]) -> dict[str, Any]:
    pid = server.worker_pid(fault["slot"])
    if pid is None:
        raise OSError(errno.ESRCH, f"no live worker in slot {fault['slot']}")
    server.signal(pid, signal.SIGKILL)
    return {"target": pid}


async def _healed(server: Server, fault: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    return await server.all_slots_answered()


FAULT = FaultKind(name="kill_worker", label="kill -9 of a worker", inject=_inject, healed=_healed, needs_slot=True)
