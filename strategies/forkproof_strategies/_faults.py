"""What happens to a server while it runs."""

from __future__ import annotations

from hypothesis import strategies as st

from forkproof.faults import REGISTRY
from forkproof.faults.base import FaultKind
from forkproof.scenario import After, AnchorEvent, Fault


def afters(*, workers: int = 1) -> st.SearchStrategy[After]:
    """When a fault lands: after an observed event, in any slot or in one of `workers`, and up to 0.2 s later."""
    return st.builds(
        After,
        event=st.sampled_from(AnchorEvent),
        slot=st.none() | st.integers(0, workers - 1),
        delay=st.sampled_from([0.0, 0.05, 0.2]),
    )


@st.composite
def faults(
    draw: st.DrawFn, *, workers: int = 1, allow: frozenset[str] = frozenset(REGISTRY), max_size: int = 3
) -> tuple[Fault, ...]:
    """A sequence of faults of the kinds in `allow`; one that ends the server comes last."""
    lasting = [kind for kind in REGISTRY.values() if kind.name in allow and not kind.ends_the_run]
    ending = [kind for kind in REGISTRY.values() if kind.name in allow and kind.ends_the_run]
    chosen: list[FaultKind] = []
    if lasting:
        chosen = draw(st.lists(st.sampled_from(lasting), max_size=max_size - bool(ending)))
    stops = draw(st.booleans())
    if ending and stops:
        chosen.append(draw(st.sampled_from(ending)))
    return tuple(
        Fault(
            fault=kind.name,
            slot=draw(st.integers(0, workers - 1)) if kind.needs_slot else None,
            after=draw(afters(workers=workers)),
        )
        for kind in chosen
    )
