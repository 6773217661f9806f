"""Surprises that are upstream's: `known_issues.toml`, an entry each, with its versions, its claim and its link."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from forkproof import tables
from forkproof.scenario import Scenario, from_dict
from forkproof.scenario import load as load_scenario
from forkproof.verdict import Finding, Verdict

PATH = Path(__file__).parent / "known_issues.toml"


@dataclass(frozen=True)
class KnownIssue:
    """One upstream defect: which claims it breaks, on which versions, in which scenarios, and where it is discussed.

    `link` is a page on the web, or the README of a folder in `findings/` whose scenario.json shows it; where it is a
    page, `example` is a scenario that does. `rate` is how often that one broke of how many runs, as measured. `when`
    holds what a scenario must have, as {"server.preload": [true], "patches.site": [...], ...}: a path, and the values
    that will do; a path into a list is met by any of its members, or by the one whose number it has. `how` are the ways
    of breaking that are its doing; empty where any is.
    """

    id: str
    title: str
    link: str
    claims: tuple[str, ...]
    versions: Mapping[str, str]
    when: Mapping[str, Any]
    rate: tuple[int, int] = (1, 1)
    how: tuple[str, ...] = ()
    example: Mapping[str, Any] | None = None

    def shown_by(self) -> Scenario | None:
        """The scenario that shows it: the finding's, or the one that stands in the entry; None where there is none."""
        path = self.scenario
        if path is not None:
            return load_scenario(path)
        return from_dict(self.example, source=f"known issue {self.id}") if self.example is not None else None

    def is_shown(self, findings: Iterable[tuple[str, Verdict]]) -> bool | None:
        """Whether (claim, verdict) of its own scenario show it; None where they cannot tell."""
        told = {verdict for claim, verdict in findings if claim in self.claims}
        if Verdict.BROKEN in told:
            return True
        return False if Verdict.HELD in told else None

    @property
    def scenario(self) -> Path | None:
        """The file with the scenario that shows it; None where there is none."""
        here = Path(__file__).resolve().parent
        # An installed forkproof carries the findings in its package; a checkout has them at its top.
        paths = [(folder / self.link).with_name("scenario.json") for folder in (here, here.parents[1])]
        return next((path for path in paths if "://" not in self.link and path.is_file()), None)

    def affects(self, versions: Mapping[str, str | None]) -> bool:
        """Whether a target's versions are among the affected ones."""
        return all(
            version is not None and SpecifierSet(wanted).contains(version, prereleases=True)
            for version, wanted in ((versions.get(name), wanted) for name, wanted in self.versions.items())
        )

    def matches(self, scenario: Scenario, finding: Finding) -> bool:
        """Whether a finding can be this issue's doing: an issue says what it breaks, and explains nothing that held."""
        broken = finding.verdict is Verdict.BROKEN
        its_way = not self.how or finding.how in self.how
        return broken and finding.claim in self.claims and its_way and self.meets(scenario)

    def meets(self, scenario: Scenario) -> bool:
        """Whether a scenario has what it takes."""
        plain = scenario.to_dict()
        return all(any(value in wanted for value in _at(plain, path)) for path, wanted in self.when.items())


def _specifiers(versions: dict[str, str]) -> dict[str, str]:
    for name, wanted in versions.items():
        try:
            SpecifierSet(wanted)
        except InvalidSpecifier:
            raise ValueError(f"{name}: {wanted[:40]!r} is no version specifier") from None
    return versions


Specifiers = Annotated[dict[str, str], AfterValidator(_specifiers)]
"""Packages with the versions of them that are meant (PEP 440)."""


class _Entry(BaseModel):
    """An entry as it stands in the file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: str = Field(pattern="^[a-z0-9-]+$")
    title: str
    link: str = Field(pattern=r"^(https://\S+|findings/[a-z0-9-]+/README\.md)$")
    claims: list[str]
    versions: Specifiers
    when: dict[str, list[Any]] = {}
    rate: Annotated[list[int], Field(min_length=2, max_length=2)] = [1, 1]
    how: list[str] = []
    example: dict[str, Any] | None = None


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    issue: list[_Entry] = []


@functools.cache
def load() -> tuple[KnownIssue, ...]:
    """The entries of `known_issues.toml`."""
    return parse(PATH.read_bytes(), source=str(PATH))


def parse(content: bytes, *, source: str) -> tuple[KnownIssue, ...]:
    """The entries of a file; UsageError names the entry and the field that cannot be."""
    data = tables.parse(_File, content, source=source, then="Correct it there, or install forkproof again.")
    return tuple(
        KnownIssue(
            issue.id, issue.title, issue.link, tuple(issue.claims), issue.versions, issue.when,
            (issue.rate[0], issue.rate[1]), tuple(issue.how), issue.example,
        )
        for issue in data.issue
    )  # fmt: skip


def find(scenario: Scenario, finding: Finding, versions: Mapping[str, str | None]) -> KnownIssue | None:
    """The first known issue that a surprise can be put down to."""
    return next((issue for issue in load() if issue.affects(versions) and issue.matches(scenario, finding)), None)


def _at(data: Any, path: str) -> list[Any]:
    found = [data]
    for part in path.split("."):
        if part.isdecimal():
            found = [value[int(part)] for value in found if isinstance(value, list) and len(value) > int(part)]
            continue
        found = [member for value in found for member in (value if isinstance(value, list) else [value])]
        found = [value[part] for value in found if isinstance(value, dict) and part in value]
    return found
