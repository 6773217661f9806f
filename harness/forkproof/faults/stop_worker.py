"""SIGSTOP to the worker in a slot, and SIGCONT some seconds later, as a debugger or a frozen cgroup does."""

from __future__ import annotations

import signal
from typing import Any

from forkproof.faults.base import Fault, FaultKind, Option, Server, resume, worker_in


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    pid = worker_in(server, fault["slot"])
    server.signal(pid, signal.SIGSTOP)
    return {"target": pid, "seconds": FAULT.option(fault, "seconds")}


FAULT = FaultKind(
    name="stop_worker", label="STOP and CONT of a worker", inject=_inject, heal=resume, needs_slot=True,
    options={"seconds": Option(0.5, 0.0, 5.0, "seconds between STOP and CONT")},
)  # fmt: skip
