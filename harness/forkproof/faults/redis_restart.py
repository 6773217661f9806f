"""Redis is killed and started again on the same port: connections and data are gone."""

from __future__ import annotations

from typing import Any

from forkproof.faults.base import REDIS, Fault, FaultKind, Server, needs_redis, reconnected


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    clients = len(await server.clients())
    await server.redis("stop")
    await server.redis("start")
    return {"clients": clients}


FAULT = FaultKind(
    name="redis_restart", label="Redis restarted", inject=_inject,
    healed=reconnected, refuses=needs_redis, needs_broker=True,
    scene=REDIS, weight=3,
)  # fmt: skip
