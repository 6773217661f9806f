"""SIGUSR2 to the master: another master with workers of its own takes its place, or is taken back."""

from __future__ import annotations

import signal
from typing import Any

from forkproof.faults.base import Facts, Fault, FaultKind, Option, Server
from forkproof.faults.life import Life


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    before, old = server.arbiter_pid, server.workers()
    server.signal(before, signal.SIGUSR2)
    new = await server.another_arbiter()
    if new is None:
        return {"target": before, "new": None, "ended": [], "ready": False}
    ready = await server.answered_by_others_than(old)
    if ready and not FAULT.option(fault, "rollback"):
        server.follow(new)
        server.signal(before, signal.SIGQUIT)
        return {"target": before, "new": new, "ended": old, "ended_arbiter": before, "ready": True}
    ended = [key for key in server.workers() if key not in old]
    server.signal(new, signal.SIGTERM)
    return {"target": before, "new": new, "ended": ended, "ended_arbiter": new, "ready": ready}


async def _healed(server: Server, fault: Fault, facts: Facts) -> bool:
    gone = facts["new"] is not None and await server.gone(facts["ended"], facts["ended_arbiter"])
    return await server.all_slots_answered() and gone and facts["ready"]


def _effect(life: Life, fault: Fault) -> Life:
    return life if FAULT.option(fault, "rollback") else life.reexecuted()


FAULT = FaultKind(
    name="usr2", label="USR2", inject=_inject, healed=_healed, effect=_effect,
    options={"rollback": Option(0, 0, 1, "once the new workers answer: 0 QUIT to the old master, 1 TERM to the new")},
)  # fmt: skip
