"""Known issues: the file itself, which versions an entry is about, which scenarios, which findings."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from forkproof import known_issues
from forkproof.claims import REGISTRY
from forkproof.known_issues import KnownIssue
from forkproof.scenario import Scenario, from_dict
from forkproof.target import PACKAGES
from forkproof.verdict import Finding, Verdict

ROOT = Path(__file__).resolve().parents[1]
ISSUES = known_issues.load()
BROKEN = Finding("workers_boot", Verdict.BROKEN, None, "no worker")


def issue(when: dict[str, Any] | None = None, **versions: str) -> KnownIssue:
    return KnownIssue("an-id", "a title", "https://example.org", ("workers_boot",), versions, when or {})


def scenario(**fields: Any) -> Scenario:
    return from_dict({"loops": [{"name": "a"}, {"name": "b", "kind": "greenlet"}], **fields})


def test_ids_differ() -> None:
    assert len({entry.id for entry in ISSUES}) == len(ISSUES) > 0


@pytest.mark.parametrize("entry", ISSUES, ids=lambda entry: entry.id)
def test_each_entry_says_what_it_is(entry: KnownIssue) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", entry.id)
    assert entry.title
    assert entry.link.startswith("https://") or (ROOT / entry.link).is_file()
    assert set(entry.claims) <= set(REGISTRY)
    assert entry.claims
    assert entry.versions
    assert set(entry.versions) <= {"python", *PACKAGES}
    for wanted in entry.versions.values():
        assert SpecifierSet(wanted)
    failed, tried = entry.rate
    assert 0 < failed <= tried
    assert (entry.scenario is None) == entry.link.startswith("https://")
    shown_by = entry.shown_by()
    assert shown_by is not None, "what cannot be run again cannot be noticed to be gone"
    assert entry.meets(shown_by)


@pytest.mark.parametrize("entry", ISSUES, ids=lambda entry: entry.id)
def test_each_condition_is_about_something_that_a_scenario_has(entry: KnownIssue) -> None:
    rich = scenario(
        patches=[{"site": "post_fork", "flags": {"thread": False}}, {"site": "app_first_line"}],
        server={"workers": 2},
        faults=[{"fault": "kill_worker", "slot": 1}],
    ).to_dict()
    for path, wanted in entry.when.items():
        assert isinstance(wanted, list)
        assert known_issues._at(rich, path) or path.startswith("patches.flags."), path


@pytest.mark.parametrize(
    ("wanted", "version", "affected"),
    [
        (">=24.0.0", "24.0.0", True),
        (">=24.0.0", "23.0.0", False),
        (">=24.0.0", "27.0.1", True),
        (">=24.0.0", "28.0.0.dev1", True),
        (">=24,<25.1", "25.1.0", False),
        ("==25.1.*", "25.1.3", True),
        (">=24.0.0", None, False),
    ],
)
def test_versions(wanted: str, version: str | None, affected: bool) -> None:
    assert issue(gunicorn=wanted).affects({"gunicorn": version}) is affected


def test_every_package_must_be_affected() -> None:
    both = issue(gunicorn=">=24", gevent="<25.8.1")
    assert both.affects({"gunicorn": "24.1.1", "gevent": "25.5.1"})
    assert not both.affects({"gunicorn": "24.1.1", "gevent": "26.9.0"})
    assert not both.affects({"gunicorn": "24.1.1"})


PATCHES = [{"site": "post_fork"}, {"site": "app_first_line", "flags": {"dns": False}}]


@pytest.mark.parametrize(
    ("when", "fields", "matches"),
    [
        ({}, {}, True),
        ({"server.preload": [True]}, {}, False),
        ({"server.preload": [True]}, {"server": {"preload": True}}, True),
        ({"server.worker_class": ["gevent", "sync"]}, {}, True),
        ({"patches.site": ["app_first_line"]}, {}, False),
        ({"patches.site": ["app_first_line"]}, {"patches": PATCHES}, True),
        ({"patches.site": ["in_thread"]}, {"patches": PATCHES}, False),
        ({"patches.1.site": ["app_first_line"]}, {"patches": PATCHES}, True),
        ({"patches.1.site": ["post_fork"]}, {"patches": PATCHES}, False),
        ({"patches.2.site": ["post_fork"]}, {"patches": PATCHES}, False),
        ({"patches.flags.dns": [False]}, {"patches": PATCHES}, True),
        ({"patches.flags.dns": [True]}, {"patches": PATCHES}, False),
        ({"loops.kind": ["greenlet"]}, {}, True),
        ({"loops.kind": ["process"]}, {}, False),
        ({"loops.kind": ["greenlet"], "server.preload": [True]}, {}, False),
        ({"faults.fault": ["term"]}, {"faults": [{"fault": "term"}]}, True),
        ({"loops.colour": ["red"]}, {}, False),
        ({"server.workers.many": [1]}, {}, False),
    ],
)
def test_when(when: dict[str, Any], fields: dict[str, Any], matches: bool) -> None:
    assert issue(when).matches(scenario(**fields), BROKEN) is matches


def test_another_claim_is_not_its_doing() -> None:
    assert not issue().matches(scenario(), dataclasses.replace(BROKEN, claim="clean_shutdown"))


def test_another_way_of_breaking_is_not_its_doing() -> None:
    own = dataclasses.replace(issue(), how=("no answer", "too late"))
    for how, matches in (("too late", True), ("another", False)):
        assert own.matches(scenario(), dataclasses.replace(BROKEN, how=how)) is matches


def test_an_issue_explains_nothing_that_held() -> None:
    assert not issue().matches(scenario(), dataclasses.replace(BROKEN, verdict=Verdict.HELD))


def test_the_first_that_matches_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    old = dataclasses.replace(issue(gunicorn="<24"), id="old")
    new = dataclasses.replace(issue(gunicorn=">=24"), id="new")
    monkeypatch.setattr(known_issues, "load", lambda: (old, new, dataclasses.replace(new, id="newer")))
    found = known_issues.find(scenario(), BROKEN, {"gunicorn": "27.0.1"})
    assert found is not None
    assert found.id == "new"
    assert known_issues.find(scenario(), BROKEN, {}) is None
