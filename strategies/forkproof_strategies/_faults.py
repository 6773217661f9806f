"""What happens to a server while it runs, as a state machine whose rules are drawn first, as data.

Each rule is a kind of fault with its precondition on a model of the server (`forkproof.faults.life`). A subset of the
kinds is drawn before the sequence (swarm testing), so that long runs of a few kinds are met as well.
"""

from __future__ import annotations

import functools
from collections.abc import Collection

from hypothesis import strategies as st

from forkproof.faults import REGISTRY, FaultKind, Life, Option, problem, walk
from forkproof.scenario import After, AnchorEvent, Fault
from forkproof_strategies._choices import BOOLEANS, integers, one_of

PATIENT = 8
"""With a longer timeout the workers of a killed arbiter are not waited for: sync ones look every timeout / 2."""


@functools.cache
def afters(*, slots: tuple[int, ...] = (0,), ticking: bool = True) -> st.SearchStrategy[After]:
    """When a fault lands: after an observed event, in any slot or in one of `slots`, and up to 0.2 s later.

    `ticking` says whether a loop can be waited for in each slot.
    """
    events = [event for event in AnchorEvent if ticking or event is not AnchorEvent.TICK]
    delays = one_of(0.0, 0.05, 0.2)
    in_any = st.builds(After, event=one_of(*AnchorEvent), delay=delays)
    return in_any | st.builds(After, event=one_of(*events), slot=one_of(*slots), delay=delays)


ONE_WORKER = Life(workers=1, timeout=30, slots=(0,))


@st.composite
def faults(
    draw: st.DrawFn,
    *,
    life: Life = ONE_WORKER,
    allow: Collection[str] | None = None,
    max_size: int = 3,
    ticking: bool = True,
) -> tuple[Fault, ...]:
    """What may happen to a server, of the kinds in `allow` (all); one that ends it comes last.

    `ticking` says whether some loop is started in every worker.
    """
    kinds = [kind for name, kind in REGISTRY.items() if allow is None or name in allow]
    # TTIN and TTOU may make possible what is not so at first.
    lives = (life, life.more(), life.fewer())
    lasting = [kind for kind in kinds if not kind.ends_the_run and any(_can_be(one, kind) for one in lives)]
    count = draw(integers(0, max_size)) if lasting else 0
    favourites = draw(st.lists(one_of(*_weighed(lasting)), min_size=1, max_size=4, unique=True)) if count else []
    found: list[Fault] = []
    while len(found) < count and (possible := _possible(life, favourites) or _possible(life, lasting)):
        found.append(draw(_faults_of(draw(one_of(*_weighed(possible))), life, ticking)))
        life = _after(life, found[-1])
    ending = _possible(life, [kind for kind in kinds if kind.ends_the_run])
    stops = draw(BOOLEANS)
    if ending and stops and len(found) < max_size:
        found.append(draw(_faults_of(draw(one_of(*ending)), life, ticking)))
    return tuple(found)


def _weighed(kinds: Collection[FaultKind]) -> list[FaultKind]:
    return [*kinds, *(kind for kind in kinds for _ in range(kind.weight - 1))]


def _possible(life: Life, kinds: Collection[FaultKind]) -> list[FaultKind]:
    return [kind for kind in kinds if _can_be(life, kind)]


@functools.cache
def _can_be(life: Life, kind: FaultKind) -> bool:
    if kind.orphans_workers and life.timeout > PATIENT:
        return False
    return bool(_slots(kind, life))


def _after(life: Life, fault: Fault) -> Life:
    ((_, after),) = walk(life, [fault.model_dump(mode="json")])
    return after


@functools.cache
def _faults_of(kind: FaultKind, life: Life, ticking: bool) -> st.SearchStrategy[Fault]:
    slots = tuple(sorted(life.slots))
    return st.builds(
        Fault,
        fault=st.just(kind.name),
        slot=one_of(*_slots(kind, life)),
        after=afters(slots=slots, ticking=ticking),
        options=st.fixed_dictionaries({name: _values(option) for name, option in kind.options.items()}).map(
            lambda options: {name: value for name, value in options.items() if value != kind.options[name].default}
        ),
    )


def _slots(kind: FaultKind, life: Life) -> list[int | None]:
    """The slots that the plainest fault of a kind may name; None for none."""
    slots: list[int | None] = [] if kind.needs_slot else [None]
    if kind.needs_slot or kind.takes_slot:
        slots += sorted(life.slots)
    plain = Fault(fault="term").model_dump(mode="json")
    return [slot for slot in slots if not problem(life, {**plain, "fault": kind.name, "slot": slot})]


def _values(option: Option) -> st.SearchStrategy[float]:
    if isinstance(option.default, int):
        return integers(int(option.least), int(option.most))
    return one_of(option.default, option.default / 2, option.default * 2)
