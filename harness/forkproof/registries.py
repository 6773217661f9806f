"""Every registry that other packages add to."""

from __future__ import annotations

from forkproof import bodies, claims, faults, plugins, servers


def require() -> None:
    """Take in what other packages add, once; UsageError names one that is bad."""
    plugins.require(faults.extend, claims.extend, bodies.extend, servers.extend)
