"""A body: writes a heartbeat, as for a watchdog that restarts whoever has not written one for a while."""

from __future__ import annotations

from pathlib import Path

from forkproof.bodies import Body

HEARTBEAT = Body(
    "heartbeat",
    "Replaces a file with the time.",
    file=str(Path(__file__).with_name("inside") / "heartbeat.py"),
    of="Heartbeat",
    like="sleep",
)
