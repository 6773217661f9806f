"""CLIENT KILL to every connection of the server's: Redis goes on, and so does its data."""

from __future__ import annotations

from typing import Any

from forkproof.faults.base import REDIS, Fault, FaultKind, Server, needs_redis, reconnected


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    return {"clients": await server.kill_clients()}


FAULT = FaultKind(
    name="redis_kill_clients", label="Redis' clients killed", inject=_inject,
    healed=reconnected, refuses=needs_redis, needs_broker=True,
    scene=REDIS, weight=3,
)  # fmt: skip
