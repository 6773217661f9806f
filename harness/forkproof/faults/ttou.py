"""SIGTTOU to the master: one worker less, the oldest."""

from __future__ import annotations

import signal

from forkproof.faults.base import Facts, Fault, FaultKind, Server, to_arbiter
from forkproof.faults.life import Life


async def _healed(server: Server, fault: Fault, facts: Facts) -> bool:
    return await server.thinned_out() and await server.all_slots_answered()


def _refuses(life: Life, fault: Fault) -> str:
    if len(life.slots) == 1:
        return "gunicorn keeps the last worker"
    return "" if life.in_order else "it ends the oldest worker, and after max_requests nobody knows which that is"


FAULT = FaultKind(
    name="ttou", label="TTOU", inject=to_arbiter(signal.SIGTTOU), healed=_healed, refuses=_refuses,
    effect=lambda life, fault: life.fewer(),
    weight=4,
)  # fmt: skip
