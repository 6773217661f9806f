"""SIGKILL to the master: what remains has to find out by itself."""

from __future__ import annotations

import signal

from forkproof.faults.base import FaultKind, ends, to_arbiter

FAULT = FaultKind(
    name="kill_arbiter", label="kill -9 of the arbiter", inject=to_arbiter(signal.SIGKILL), healed=ends,
    ends_the_run=True, orphans_workers=True,
)  # fmt: skip
