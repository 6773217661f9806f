"""How many examples, and how patiently: a machine that is crowded is no failure."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
