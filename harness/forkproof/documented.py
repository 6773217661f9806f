"""Changes between versions that their authors announced: `documented_changes.toml`, an entry each, with its changelog.

What `forkproof diff` finds and this list has is told as documented, and is no failure.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from forkproof import tables
from forkproof.known_issues import KnownIssue, Specifiers
from forkproof.scenario import Scenario
from forkproof.verdict import Finding

PATH = Path(__file__).parent / "documented_changes.toml"

Versions = Mapping[str, str | None]


@dataclass(frozen=True)
class Change:
    """One announced change. `breaks` is the side on which its claims break; `base` and `head` are versions."""

    id: str
    title: str
    link: str
    breaks: Literal["base", "head"]
    claims: tuple[str, ...]
    base: Mapping[str, str]
    head: Mapping[str, str]
    when: Mapping[str, Any]
    how: tuple[str, ...] = ()

    def explains(self, what: Scenario, finding: Finding, base: Versions, head: Versions, breaks: str) -> bool:
        """Whether a difference can be this change's doing."""
        if breaks != self.breaks:
            return False
        old, new = (
            KnownIssue(self.id, self.title, self.link, self.claims, versions, self.when, how=self.how)
            for versions in (self.base, self.head)
        )
        return old.affects(base) and new.affects(head) and old.matches(what, finding)

    def to_dict(self) -> dict[str, str]:
        """As in the JSON report, schema 1."""
        return {"id": self.id, "title": self.title, "link": self.link}


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    id: str = Field(pattern="^[a-z0-9-]+$")
    title: str
    link: str = Field(pattern=r"^https://\S+$")
    breaks: Literal["base", "head"]
    claims: list[str] = Field(min_length=1)
    base: Specifiers
    head: Specifiers
    when: dict[str, list[Any]] = {}
    how: list[str] = []


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    change: list[_Entry] = []


@functools.cache
def load() -> tuple[Change, ...]:
    """The entries of `documented_changes.toml`."""
    return parse(PATH.read_bytes(), source=str(PATH))


def parse(content: bytes, *, source: str) -> tuple[Change, ...]:
    """The entries of a file; UsageError names the entry and the field that cannot be."""
    data = tables.parse(_File, content, source=source, then="Correct it there, or install forkproof again.")
    return tuple(
        Change(one.id, one.title, one.link, one.breaks, tuple(one.claims), one.base, one.head, one.when, tuple(one.how))
        for one in data.change
    )


def find(what: Scenario, finding: Finding, base: Versions, head: Versions, breaks: str) -> Change | None:
    """The first documented change that a difference can be put down to."""
    return next((change for change in load() if change.explains(what, finding, base, head, breaks)), None)
