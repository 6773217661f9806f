"""SIGSTOP to Redis, and SIGCONT some seconds later: it takes connections and answers none."""

from __future__ import annotations

from typing import Any

from forkproof.faults.base import REDIS, Facts, Fault, FaultKind, Option, Server, needs_redis, reconnected


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    clients = len(await server.clients())
    await server.redis("pause")
    return {"clients": clients, "seconds": FAULT.option(fault, "seconds")}


async def _heal(server: Server, fault: Fault, facts: Facts) -> dict[str, Any]:
    await server.wait(facts["seconds"])
    await server.redis("resume")
    return {}


FAULT = FaultKind(
    name="redis_pause", label="Redis paused", inject=_inject, heal=_heal,
    healed=reconnected, refuses=needs_redis, needs_broker=True,
    scene=REDIS, weight=3,
    options={"seconds": Option(0.5, 0.0, 5.0, "seconds between STOP and CONT")},
)  # fmt: skip
