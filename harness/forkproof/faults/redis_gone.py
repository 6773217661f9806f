"""Redis is killed: connections are refused until it is started again, or for good."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from forkproof.faults.base import REDIS, Facts, Fault, FaultKind, Option, Server, answers, needs_redis, reconnected
from forkproof.faults.life import Life


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    for_good = bool(FAULT.option(fault, "for_good"))
    clients = 0 if for_good else len(await server.clients())
    await server.redis("stop")
    return {"clients": clients, "for_good": for_good}


async def _heal(server: Server, fault: Fault, facts: Facts) -> dict[str, Any]:
    if facts["for_good"]:
        return {}
    seconds = FAULT.option(fault, "seconds")
    await server.wait(seconds)
    await server.redis("start")
    return {"seconds": seconds}


async def _healed(server: Server, fault: Fault, facts: Facts) -> bool:
    return await (answers if facts["for_good"] else reconnected)(server, fault, facts)


def _effect(life: Life, fault: Fault) -> Life:
    return replace(life, redis=not FAULT.option(fault, "for_good"))


FAULT = FaultKind(
    name="redis_gone", label="Redis gone", inject=_inject, heal=_heal, healed=_healed,
    refuses=needs_redis, effect=_effect,
    needs_broker=True, scene=REDIS, weight=3,
    options={
        "seconds": Option(0.5, 0.0, 5.0, "seconds until it is started again"),
        "for_good": Option(0, 0, 1, "1: it is not"),
    },
)  # fmt: skip
