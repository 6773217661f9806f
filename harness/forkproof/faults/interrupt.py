"""SIGINT to the master: the server is asked to stop at once."""

from __future__ import annotations

import signal

from forkproof.faults.base import FaultKind, ends, to_arbiter

FAULT = FaultKind(name="int", label="INT", inject=to_arbiter(signal.SIGINT), healed=ends, ends_the_run=True)
