"""SIGUSR1 to the master: it and its workers open their log files again."""

from __future__ import annotations

import signal

from forkproof.faults.base import FaultKind, to_arbiter

FAULT = FaultKind(name="usr1", label="USR1", inject=to_arbiter(signal.SIGUSR1))
