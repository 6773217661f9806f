"""SIGKILL to the worker in a slot, as the kernel does when memory runs out."""

from __future__ import annotations

import signal
from typing import Any

from forkproof.faults.base import Fault, FaultKind, Server, worker_in


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    pid = worker_in(server, fault["slot"])
    server.signal(pid, signal.SIGKILL)
    return {"target": pid}


FAULT = FaultKind(
    name="kill_worker", label="kill -9 of a worker", inject=_inject, needs_slot=True,
    effect=lambda life, fault: life.respawned(fault["slot"]),
)  # fmt: skip
