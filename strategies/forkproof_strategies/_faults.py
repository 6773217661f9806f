"""What happens to a server while it runs."""

from __future__ import annotations

import functools
from collections.abc import Collection

from hypothesis import strategies as st

from forkproof.faults import REGISTRY
from forkproof.scenario import After, AnchorEvent, Fault
from forkproof_strategies._choices import BOOLEANS, integers, one_of


@functools.cache
def afters(*, workers: int = 1) -> st.SearchStrategy[After]:
    """When a fault lands: after an observed event, in any slot or in one of `workers`, and up to 0.2 s later."""
    return st.builds(
        After,
        event=one_of(*AnchorEvent),
        slot=one_of(None, *range(workers)),
        delay=one_of(0.0, 0.05, 0.2),
    )


@st.composite
def faults(
    draw: st.DrawFn, *, workers: int = 1, allow: Collection[str] = frozenset(REGISTRY), max_size: int = 3
) -> tuple[Fault, ...]:
    """A sequence of faults of the kinds in `allow`; one that ends the server comes last."""
    lasting = [name for name, kind in REGISTRY.items() if name in allow and not kind.ends_the_run]
    ending = [name for name, kind in REGISTRY.items() if name in allow and kind.ends_the_run]
    count = draw(integers(0, max_size)) if lasting else 0
    chosen = [draw(one_of(*lasting)) for _ in range(count)]
    stops = draw(BOOLEANS)
    if ending and stops and len(chosen) < max_size:
        chosen.append(draw(one_of(*ending)))
    return tuple(
        Fault(
            fault=name,
            slot=draw(integers(0, workers - 1)) if REGISTRY[name].needs_slot else None,
            after=draw(afters(workers=workers)),
        )
        for name in chosen
    )
