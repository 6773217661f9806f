"""Things done to a server while it runs: one file a fault, one line here.

A fault's module holds `FAULT`: what it is called, whether it names a worker slot, how it is injected and how one sees
that the server has come through it. The supervisor imports these modules, so they use the standard library alone.
"""

from __future__ import annotations

from forkproof.faults import kill_worker, term
from forkproof.faults.base import FaultKind

REGISTRY: dict[str, FaultKind] = {kind.name: kind for kind in (term.FAULT, kill_worker.FAULT)}
