"""SIGTTIN to the master: one worker more."""

from __future__ import annotations

import signal

from forkproof.faults.base import Fault, FaultKind, to_arbiter
from forkproof.faults.life import MOST, Life


def _refuses(life: Life, fault: Fault) -> str:
    return f"there are {MOST} workers by then, which is the most" if len(life.slots) >= MOST else ""


FAULT = FaultKind(
    name="ttin", label="TTIN", inject=to_arbiter(signal.SIGTTIN), refuses=_refuses,
    effect=lambda life, fault: life.more(),
)  # fmt: skip
