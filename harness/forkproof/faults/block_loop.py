"""A request that holds the thread that serves it in a native sleep: under gevent that is the hub's."""

from __future__ import annotations

from typing import Any

from forkproof.faults.base import Facts, Fault, FaultKind, Option, Server, worker_in


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    pid = worker_in(server, fault["slot"])
    seconds = FAULT.option(fault, "seconds")
    await server.block(fault["slot"], seconds)
    return {"target": pid, "seconds": seconds}


async def _heal(server: Server, fault: Fault, facts: Facts) -> dict[str, Any]:
    await server.wait(facts["seconds"])
    return {}


FAULT = FaultKind(
    name="block_loop", label="a blocked worker", inject=_inject, heal=_heal, needs_slot=True,
    options={"seconds": Option(0.5, 0.0, 5.0, "seconds that the request takes")},
)  # fmt: skip
