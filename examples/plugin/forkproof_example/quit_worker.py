"""A fault: SIGQUIT to a worker, which then ends at once. The supervisor imports this: standard library only."""

from __future__ import annotations

import signal
from typing import Any

from forkproof.faults.base import Fault, FaultKind, Server, worker_in


async def inject(server: Server, fault: Fault) -> dict[str, Any]:
    """Send it to the worker in the slot."""
    pid = worker_in(server, fault["slot"])
    server.signal(pid, signal.SIGQUIT)
    return {"target": pid}


QUIT_WORKER = FaultKind(
    name="quit_worker", label="SIGQUIT to a worker", inject=inject, needs_slot=True,
    effect=lambda life, fault: life.respawned(fault["slot"]),
)  # fmt: skip
