"""SIGSTOP to the master, and SIGCONT some seconds later."""

from __future__ import annotations

import signal
from typing import Any

from forkproof.faults.base import Fault, FaultKind, Option, Server, resume


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    pid = server.arbiter_pid
    server.signal(pid, signal.SIGSTOP)
    return {"target": pid, "seconds": FAULT.option(fault, "seconds")}


FAULT = FaultKind(
    name="stop_arbiter", label="STOP and CONT of the arbiter", inject=_inject, heal=resume,
    options={"seconds": Option(0.5, 0.0, 5.0, "seconds between STOP and CONT")},
)  # fmt: skip
