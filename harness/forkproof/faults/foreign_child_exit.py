"""A child of the arbiter that is no worker exits: it was there before gunicorn was, as an entry point's sidecar is."""

from __future__ import annotations

from typing import Any

from forkproof.faults.base import Facts, Fault, FaultKind, Option, Server
from forkproof.faults.life import Life


async def _inject(server: Server, fault: Fault) -> dict[str, Any]:
    code = FAULT.option(fault, "code")
    return {"target": server.end_foreign_child(code), "code": code, "arbiter": server.arbiter_pid}


async def _healed(server: Server, fault: Fault, facts: Facts) -> bool:
    await server.reaped(facts["target"])  # a zombie harms nobody, and its bound is in the history
    return await server.all_slots_answered()


def _refuses(life: Life, fault: Fault) -> str:
    return "" if life.foreign else "such a child is the first master's, and there is another one"


FAULT = FaultKind(
    name="foreign_child_exit", label="exit of a foreign child", inject=_inject, healed=_healed, refuses=_refuses,
    options={"code": Option(0, 0, 4, "exit code; 3 and 4 are what gunicorn's workers tell that they cannot boot")},
)  # fmt: skip
