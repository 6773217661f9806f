"""SIGHUP to the master: the configuration is read again and all workers are replaced."""

from __future__ import annotations

import signal
from typing import Any

from forkproof.faults.base import Facts, Fault, FaultKind, Option, Server


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    times = FAULT.option(fault, "times")
    for done in range(1, times + 1):
        old = server.workers()
        server.signal(server.arbiter_pid, signal.SIGHUP)
        if done == times or not await server.reloaded(old):
            break
    return {"target": server.arbiter_pid, "reloads": done, "old": old}


async def _healed(server: Server, fault: Fault, facts: Facts) -> bool:
    return await server.reloaded(facts["old"])


FAULT = FaultKind(
    name="hup", label="HUP", inject=_inject, healed=_healed,
    effect=lambda life, fault: life.reloaded(),
    weight=3,
    options={"times": Option(1, 1, 5, "reloads, one after another")},
)  # fmt: skip
