"""Every failure that is in this repository: the deployments of findings, examples and planted bugs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from forkproof.planted import PLANTED
from forkproof.scenario import Scenario, load

__all__ = ["DEPLOYMENTS", "Deployment"]
ROOT = Path(__file__).resolve().parents[1]
_STATED = re.compile(r"\[`(\w+)`\s+broken(?:\s+\([^)]*\))?\]\(\.\./examples/explained/([\w-]+)\.json\)")


@dataclass(frozen=True)
class Deployment:
    """A deployment, the claims that it is there to break, if that is said, and what is sound in its stead."""

    scenario: Scenario
    about: tuple[str, ...] = ()
    control: Scenario | None = None


def _deployments() -> Iterator[tuple[str, Deployment]]:
    stated = _STATED.findall((ROOT / "docs" / "fork-and-patching.md").read_text(encoding="utf-8"))
    for path in sorted((ROOT / "findings").glob("*/scenario.json")):
        yield f"findings/{path.parent.name}", Deployment(load(path))
    for path in sorted((ROOT / "examples").glob("*/*.json")):
        about = tuple(claim for claim, name in stated if path.parent.name == "explained" and name == path.stem)
        yield f"examples/{path.parent.name}/{path.stem}", Deployment(load(path), about)
    for claim, (planted, _, control) in PLANTED.items():
        yield f"planted/{claim}", Deployment(planted, (claim,), control)


DEPLOYMENTS = dict(_deployments())
"""By name: a folder of findings, a file of examples, a claim whose bug is planted."""
