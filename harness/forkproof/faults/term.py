"""SIGTERM to the master: the server is asked to stop gracefully."""

from __future__ import annotations

import signal

from forkproof.faults.base import FaultKind, ends, to_arbiter

FAULT = FaultKind(name="term", label="TERM", inject=to_arbiter(signal.SIGTERM), healed=ends, ends_the_run=True)
