"""Three answers, with unknown between held and broken, and broken winning.

>>> merge([Verdict.HELD, Verdict.UNKNOWN])
<Verdict.UNKNOWN: 'unknown'>
>>> merge([Verdict.HELD, Verdict.BROKEN, Verdict.UNKNOWN])
<Verdict.BROKEN: 'broken'>
>>> merge([])
<Verdict.NOT_APPLICABLE: 'not_applicable'>
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from forkproof.history import Event


class Verdict(enum.Enum):
    """What a claim came to in one run."""

    HELD = "held"
    """It was exercised, and held."""
    UNKNOWN = "unknown"
    """It could not be decided; the explanation says why."""
    BROKEN = "broken"
    """The history holds a counterexample."""
    NOT_APPLICABLE = "not_applicable"
    """The scenario cannot exercise it: listed, not counted."""


_RANK = (Verdict.NOT_APPLICABLE, Verdict.HELD, Verdict.UNKNOWN, Verdict.BROKEN)


def merge(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict over several: broken before unknown before held; not applicable where nothing else is."""
    return max(verdicts, key=_RANK.index, default=Verdict.NOT_APPLICABLE)


@dataclass(frozen=True)
class Finding:
    """One claim, for one loop or for the whole server (`loop` None), in one run.

    `explanation` is a sentence a user can act on, and `evidence` the events that it stands on, the first bad one first.
    `how` is a word for the way in which a claim broke, such as "zero" or "double": failures that differ in it are
    different failures.
    """

    claim: str
    verdict: Verdict
    loop: str | None
    explanation: str
    evidence: tuple[Event, ...] = ()
    how: str = ""
