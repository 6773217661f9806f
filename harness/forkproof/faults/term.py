"""SIGTERM to the master: the server is asked to stop gracefully."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from forkproof.faults.base import FaultKind, Server


async def _inject(server: Server, fault: Mapping[str, Any]) -> dict[str, Any]:
    pid = server.arbiter_pid
    server.signal(pid, signal.SIGTERM)
    return {"target": pid}


async def _healed(server: Server, fault: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    return True  # the supervisor's own stop phase waits for the processes


FAULT = FaultKind(name="term", label="TERM", inject=_inject, healed=_healed, ends_the_run=True)
