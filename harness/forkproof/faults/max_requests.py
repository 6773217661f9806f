"""Requests until a worker has had `max_requests` of them and another one has its place."""

from __future__ import annotations

import errno
from typing import Any

from forkproof.faults.base import Facts, Fault, FaultKind, Server
from forkproof.faults.life import Life


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    old = server.workers()
    sent = await server.ask_until(lambda: len(server.leaving(old)) > 0)
    if sent is None:
        raise OSError(errno.ETIMEDOUT, "no worker came to an end by its requests")
    return {"requests": sent, "ended": server.leaving(old)}


async def _healed(server: Server, fault: Fault, facts: Facts) -> bool:
    return await server.gone(facts["ended"]) and await server.all_slots_answered()


def _refuses(life: Life, fault: Fault) -> str:
    if not life.counts_requests:
        return "gunicorn's pywsgi workers do not count their requests (gunicorn#2056)"
    return "" if life.max_requests else "server.max_requests is not set"


FAULT = FaultKind(
    name="max_requests", label="max_requests reached", inject=_inject, healed=_healed, refuses=_refuses,
    effect=lambda life, fault: life.shuffled(),
    weight=4,
    scene={"server": {"max_requests": 100}},
)  # fmt: skip
