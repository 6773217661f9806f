"""Surprises that are upstream's: `known_issues.toml`, an entry each, with its versions, its claim and its link."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from forkproof.scenario import Scenario
from forkproof.verdict import Finding

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class KnownIssue:
    """One upstream defect: which claims it breaks, on which versions, in which scenarios, and where it is discussed.

    `when` holds what a scenario must have, as {"server.preload": [true], "patches.site": [...], ...}: a path, and the
    values that will do; a path into a list is met by any of its members.
    """

    id: str
    title: str
    link: str
    claims: tuple[str, ...]
    versions: Mapping[str, str]
    when: Mapping[str, Any]

    def affects(self, versions: Mapping[str, str | None]) -> bool:
        """Whether a target's versions are among the affected ones."""
        return all(
            version is not None and SpecifierSet(wanted).contains(version, prereleases=True)
            for version, wanted in ((versions.get(name), wanted) for name, wanted in self.versions.items())
        )

    def matches(self, scenario: Scenario, finding: Finding) -> bool:
        """Whether a finding can be this issue's doing."""
        plain = scenario.to_dict()
        return finding.claim in self.claims and all(
            any(value in wanted for value in _at(plain, path)) for path, wanted in self.when.items()
        )


@functools.cache
def load() -> tuple[KnownIssue, ...]:
    """The entries of `known_issues.toml`."""
    with (Path(__file__).parent / "known_issues.toml").open("rb") as file:
        data = tomllib.load(file)
    return tuple(
        KnownIssue(
            issue["id"],
            issue["title"],
            issue["link"],
            tuple(issue["claims"]),
            issue["versions"],
            issue.get("when", {}),
        )
        for issue in data.get("issue", [])
    )


def find(scenario: Scenario, finding: Finding, versions: Mapping[str, str | None]) -> KnownIssue | None:
    """The first known issue that a surprise can be put down to."""
    return next((issue for issue in load() if issue.affects(versions) and issue.matches(scenario, finding)), None)


def _at(data: Any, path: str) -> list[Any]:
    found = [data]
    for part in path.split("."):
        found = [member for value in found for member in (value if isinstance(value, list) else [value])]
        found = [value[part] for value in found if isinstance(value, dict) and part in value]
    return found
