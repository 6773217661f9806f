"""Things done to a server while it runs: one file a fault, one line here.

A fault's module holds `FAULT`: what it is called, what it takes, to which servers it can be done, how it is injected
and healed and how one sees that the server has come through it. The supervisor imports these modules, so they use the
standard library alone. Other packages add theirs by entry points, which are guarded.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

from forkproof import plugins
from forkproof.faults import (
    block_loop,
    foreign_child_exit,
    hup,
    interrupt,
    kill_arbiter,
    kill_child,
    kill_worker,
    max_requests,
    redis_gone,
    redis_kill_clients,
    redis_pause,
    redis_restart,
    stop_arbiter,
    stop_worker,
    term,
    ttin,
    ttou,
    usr1,
    usr2,
)
from forkproof.faults.base import Defect, Fault, FaultKind, Option, guarded
from forkproof.faults.life import Life

__all__ = ["REGISTRY", "Defect", "FaultKind", "Life", "Option", "problem", "walk"]

REGISTRY: dict[str, FaultKind] = {
    kind.name: kind
    for kind in (
        term.FAULT,
        interrupt.FAULT,
        kill_worker.FAULT,
        hup.FAULT,
        ttin.FAULT,
        ttou.FAULT,
        usr1.FAULT,
        usr2.FAULT,
        max_requests.FAULT,
        kill_child.FAULT,
        block_loop.FAULT,
        foreign_child_exit.FAULT,
        redis_restart.FAULT,
        redis_gone.FAULT,
        redis_pause.FAULT,
        redis_kill_clients.FAULT,
        stop_worker.FAULT,
        stop_arbiter.FAULT,
        kill_arbiter.FAULT,
    )
}
"""The kinds of faults by name; those of other packages come last."""


def _wrong(kind: Any) -> str:
    steps = (kind.inject, kind.heal, kind.healed, kind.refuses, kind.effect)
    if not all(map(callable, steps)):
        return "its inject, heal, healed, refuses and effect must be functions"
    if not isinstance(kind.label, str) or not kind.label.strip():
        return "it has no label"
    good = all(isinstance(one, Option) and one.least <= one.default <= one.most for one in kind.options.values())
    return "" if good else "its options must be Options whose default is allowed"


@functools.cache
def extend() -> None:
    """Take in the faults of other packages."""
    for kind, package in plugins.found("forkproof.faults", FaultKind, tuple(REGISTRY), _wrong):
        REGISTRY[kind.name] = guarded(kind, package)


def problem(life: Life, fault: Fault) -> str:
    """Why a fault cannot be done to such a server; empty where it can."""
    if life.ended_by:
        return f"comes after {life.ended_by!r}, which ends the server"
    for slot in (fault["slot"], fault["after"]["slot"]):
        if slot is not None and slot not in life.slots:
            slots = ", ".join(map(str, sorted(life.slots)))
            return f"slot {slot} is not allowed: there are {len(life.slots)} workers by then, in slots {slots}"
    kind = REGISTRY[fault["fault"]]
    why = "it names no slot" if kind.needs_slot and fault["slot"] is None else kind.refuses(life, fault)
    return f"{fault['fault']!r} is not possible here: {why}" if why else ""


def walk(life: Life, faults: Iterable[Fault]) -> Iterator[tuple[str, Life]]:
    """For each fault in turn its problem, if any, and the server that it leaves."""
    for fault in faults:
        found = problem(life, fault)
        kind = REGISTRY[fault["fault"]]
        if not found:
            life = kind.effect(life, fault)
            if kind.ends_the_run:
                life = life.ended(kind.name)
        yield found, life
