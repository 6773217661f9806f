"""The JSON report of a campaign as its page reads it: checked, since a file may hold anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forkproof import files, tables
from forkproof.errors import ScenarioError, UsageError
from forkproof.scenario import from_dict

Count = Annotated[int, Field(ge=0)]
Rate = tuple[Count, Count]
Told = Literal["held", "unknown", "broken", "not_applicable"]
Counts = dict[str, Count]


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Trial(_Read):
    """A change that was tried, and what it came to."""

    change: str
    verdict: Told
    rate: Rate
    cost: str | None = None


class Stands(_Read):
    """Where a process stood that hung."""

    process: str
    file: str
    calls: list[str]


class Failure(_Read):
    """A way in which scenarios failed."""

    claim: str
    how: str
    loop: str | None
    verdict: Told
    explanation: str
    since: str = ""
    expectation: str | None = None
    scenario: dict[str, Any]
    rate: Rate
    seen: Count
    surprise: bool
    known_issue: str | None
    run: str
    stacks: list[Stands] = []
    cause: list[Trial] | None = None
    cure: Trial | None = None

    @property
    def smallest(self) -> dict[str, Any]:
        """The scenario without what is at its default; as it stands where it is none of this version's."""
        try:
            return from_dict(self.scenario).model_dump(mode="json", by_alias=True, exclude_defaults=True)
        except ScenarioError:
            return self.scenario


class Stale(_Read):
    """A known issue that did not show."""

    id: str
    title: str
    link: str
    tried: Count


class Phase(_Read):
    """A part of a campaign: how many servers it launched, and how many seconds it took."""

    name: str
    launched: Count
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ValueGap(_Read):
    """A value that was not exercised."""

    dimension: str
    value: str
    drawn: Count
    why: str


class ClaimGap(_Read):
    """A claim that nothing decided."""

    claim: str
    judged: Count
    why: str


class Vacuous(_Read):
    """What nothing was learnt about."""

    values: list[ValueGap]
    claims: list[ClaimGap]


class Pairs(_Read):
    """Pairs of values."""

    seen: Count
    possible: Count
    missing: list[tuple[str, str]]


class Coverage(_Read):
    """What was exercised."""

    claims: dict[str, Counts]
    values: dict[str, Counts]
    by_value: dict[str, dict[str, dict[str, Counts]]] = {}
    pairs: Pairs
    vacuous: Vacuous


class Found(_Read):
    """What an exploration came to."""

    schema_number: Annotated[Literal[1], Field(alias="schema")]
    drawn: Count
    launched: Count
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    interrupted: bool
    seed: int | None = None
    target: dict[str, str | None] = {}
    phases: list[Phase] = []
    failures: list[Failure]
    expected_breaks: list[Failure]
    problems: list[str]
    stale_issues: list[Stale]
    unknown: Counts
    coverage: Coverage

    @property
    def surprises(self) -> list[Failure]:
        """What contradicts the documentation, and nobody has told upstream of."""
        return [failure for failure in self.failures if failure.known_issue is None]

    @property
    def known(self) -> list[Failure]:
        """Surprises that are known issues."""
        return [failure for failure in self.failures if failure.known_issue is not None]


MOST = 64 << 20
"""Bytes of a campaign's report that are read."""


def read(path: Path) -> Found:
    """The report in a file; UsageError where it is none of a campaign."""
    try:
        return Found.model_validate_json(files.read(path, MOST))
    except ValidationError as error:
        why = tables.first_problem(error)
    except OSError as error:
        why = str(error.strerror)
    raise UsageError(f"{path}: is not the report of a campaign: {why}. Give a file that `explore --json` wrote.")
