"""The registry, the wrapper around checks, and the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from histories import created, event, history, ran, request, scenario, seen, server, window

from forkproof import claims
from forkproof.claims import REGISTRY, Claim, judge, page
from forkproof.errors import UsageError
from forkproof.history import History
from forkproof.scenario import Scenario
from forkproof.verdict import Finding, Verdict, merge

NAMES = [
    "exactly_one_listener",
    "no_copied_thread",
    "no_dead_listener",
    "every_message_handled_once",
    "subscriptions_match",
    "no_starved_greenlet",
    "server_answers",
    "arbiter_responsive",
    "workers_boot",
    "clean_shutdown",
    "no_orphan_process",
    "handover_is_safe",
    "no_leak_on_reload",
    "no_socket_shared_across_fork",
    "no_lock_held_at_fork",
    "no_half_imported_module",
    "quiet_runtime",
    "patch_is_what_was_asked",
    "no_stale_original",
    "foreign_child_ignored",
]
BY_LOOP = {
    "exactly_one_listener",
    "no_copied_thread",
    "no_dead_listener",
    "every_message_handled_once",
    "subscriptions_match",
    "no_starved_greenlet",
    "handover_is_safe",
}
EVENTS = (event(1.0, 1, "log", line="x", stream="stderr"),)
EMPTY = History([])


@pytest.fixture
def lone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a check the only claim there is, under the name `lone`."""

    def install(answer: Any) -> list[Finding]:
        def check(scenario: Scenario, history: History) -> list[Finding]:
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[no-any-return]

        monkeypatch.setattr(claims, "REGISTRY", {"lone": Claim("lone", "It is alone.", check)})
        return judge(scenario(), EMPTY)

    return install


def test_the_registry() -> None:
    assert list(REGISTRY) == NAMES
    assert all(claim.name == name for name, claim in REGISTRY.items())


def test_a_claim_for_loops_has_a_finding_for_each() -> None:
    two = scenario(loops=[{"name": "other"}])
    loops = created("aa", 110) + ran("aa", 110)
    findings = judge(two, history(server(), window(), loops, request(aa=True)))
    by_claim = [(finding.claim, finding.loop) for finding in findings]
    assert by_claim == [
        (name, loop) for name in NAMES for loop in (("listen", "other") if name in BY_LOOP else (None,))
    ]


@pytest.mark.parametrize("recorded", [EMPTY, history(server()), history(window())])
def test_a_history_that_shows_nothing_is_never_a_pass(recorded: History) -> None:
    hears = scenario({"body": "listen"}, faults=[{"fault": "term"}])
    verdicts = {finding.claim: finding.verdict for finding in judge(hears, recorded)}
    assert list(verdicts) == NAMES
    verdicts.pop("quiet_runtime")  # nothing printed is what it wants
    assert Verdict.HELD not in verdicts.values()


def test_no_check_stumbles_over_a_bare_history() -> None:
    for recorded in (EMPTY, history(server()), history(window())):
        for finding in judge(scenario(), recorded):
            assert "could not be judged" not in finding.explanation


SOUND = (server(1), created("a", 110), ran("a", 110), request(a=True), window())


def test_what_held_in_part_of_a_run_is_undecided() -> None:
    what = scenario(faults=[{"fault": "kill_worker", "slot": 0}])
    failed = seen(2.5, "fault.fail", fault="kill_worker", index=0, error="no live worker in slot 0")
    [found] = judge(what, history(*SOUND, failed), ["exactly_one_listener"])
    assert found.verdict is Verdict.UNKNOWN
    assert "'kill_worker' never landed: no live worker" in found.explanation
    ended = seen(2.5, "limit", what="processes", limit=256, found=300)
    [found] = judge(scenario(), history(*SOUND, ended), ["exactly_one_listener"])
    assert found.verdict is Verdict.UNKNOWN
    assert "300 processes" in found.explanation
    cut = seen(2.5, "limit", what="log", limit=256, found=None)
    [found] = judge(scenario(), history(*SOUND, cut), ["exactly_one_listener"])
    assert found.verdict is Verdict.HELD


def test_what_broke_beside_somebody_elses_stop_is_undecided() -> None:
    [found] = judge(scenario(), history(server(1), window()), ["exactly_one_listener"])
    assert found.verdict is Verdict.BROKEN
    [found] = judge(scenario(), history(server(1), window(), seen(2.5, "halted", target=110)), ["exactly_one_listener"])
    assert found.verdict is Verdict.UNKNOWN
    assert "process 110 was stopped by somebody else's signal" in found.explanation
    [found] = judge(scenario(), history(*SOUND, seen(2.5, "halted", target=110)), ["exactly_one_listener"])
    assert found.verdict is Verdict.HELD


@pytest.mark.parametrize(("guard", "gap", "verdict"), [
    ("lease", 0.6, Verdict.UNKNOWN), ("lease", 0.4, Verdict.BROKEN), ("lock", 0.6, Verdict.BROKEN),
    ("none", 0.6, Verdict.BROKEN),
])  # fmt: skip
def test_a_lease_may_run_out_while_everything_stands_still(guard: str, gap: float, verdict: Verdict) -> None:
    what = scenario({"guard": guard, "policy": "once_per_service"})
    samples = [
        one for t in (2.1, 2.1 + gap) for one in seen(t, "sample", turn=1, control=1, granted=0.1, ticks={}, gone=[])
    ]
    [found] = judge(what, history(server(1), window(), samples), ["exactly_one_listener"])
    assert found.verdict is verdict
    assert (verdict is Verdict.BROKEN) != ("the machine stood still for 0.6 s" in found.explanation)


def test_some_claims_alone() -> None:
    findings = judge(scenario(), EMPTY, ["quiet_runtime", "workers_boot"])
    assert [finding.claim for finding in findings] == ["workers_boot", "quiet_runtime"]
    assert judge(scenario(), EMPTY, []) == []


def test_a_name_that_is_no_claim() -> None:
    with pytest.raises(UsageError, match=r"'exactly_two' is no claim; there are: exactly_one_listener, "):
        judge(scenario(), EMPTY, ["exactly_two"])


def test_a_check_that_raises_is_unknown_and_named(lone: Any) -> None:
    (finding,) = lone(ZeroDivisionError("by nothing"))
    assert (finding.claim, finding.verdict, finding.loop) == ("lone", Verdict.UNKNOWN, None)
    assert "raised ZeroDivisionError: by nothing; in check, " in finding.explanation
    assert re.search(r"test_claims\.py, line \d+\. Correct it in the package that adds it$", finding.explanation)


def finding(**changes: Any) -> Finding:
    good: dict[str, Any] = {
        "claim": "lone",
        "verdict": Verdict.BROKEN,
        "loop": "listen",
        "explanation": "2 of them",
        "evidence": EVENTS,
    }
    return Finding(**{**good, **changes})


def test_a_good_answer_is_left_as_it_is(lone: Any) -> None:
    answer = [finding(), finding(loop=None), finding(verdict=Verdict.HELD)]
    assert lone(answer) == answer


@pytest.mark.parametrize(
    ("answer", "defect"),
    [
        (None, "returned NoneType, not a list of findings"),
        ((finding(),), "returned tuple, not a list of findings"),
        ([], "returned no finding"),
        (["held"], "str, which is no finding"),
        ([finding(claim="other")], "a finding of 'other'"),
        ([finding(loop="talk")], "a finding for 'talk', which is no loop of the scenario"),
        ([finding(verdict="held")], "the verdict 'held'"),
        ([finding(explanation=" ")], "a finding without an explanation"),
        ([finding(explanation=None)], "a finding without an explanation"),
        ([finding(evidence=list(EVENTS))], "evidence that is no tuple of events"),
        ([finding(evidence=("log",))], "evidence that is no tuple of events"),
        ([finding(evidence=())], "broken without evidence"),
        ([finding(explanation="", evidence=())], "a finding without an explanation; broken without evidence"),
    ],
)
def test_a_bad_answer_is_unknown_and_its_defects_are_named(lone: Any, answer: Any, defect: str) -> None:
    (found,) = lone(answer)
    assert (found.claim, found.verdict) == ("lone", Verdict.UNKNOWN)
    assert found.explanation.startswith("lone could not be judged: the check ")
    assert defect in found.explanation


def test_a_bad_finding_hides_no_good_one(lone: Any) -> None:
    found = lone([finding(), "held"])
    assert [one.verdict for one in found] == [Verdict.BROKEN, Verdict.UNKNOWN]


@pytest.mark.parametrize(
    ("verdicts", "merged"),
    [
        ((), Verdict.NOT_APPLICABLE),
        ((Verdict.NOT_APPLICABLE, Verdict.HELD), Verdict.HELD),
        ((Verdict.HELD, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE), Verdict.UNKNOWN),
        ((Verdict.BROKEN, Verdict.UNKNOWN, Verdict.HELD), Verdict.BROKEN),
    ],
)
def test_merge(verdicts: tuple[Verdict, ...], merged: Verdict) -> None:
    assert merge(verdicts) is merged


@pytest.mark.parametrize("name", NAMES)
def test_each_claim_has_a_page(name: str) -> None:
    text = page(name)
    title, _, rest = text.partition("\n")
    assert title == f"# `{name}`"
    assert rest.strip().startswith(REGISTRY[name].definition)
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "How it is observed",
        "What it does not see",
        "The usual cause",
        "The usual cure",
        "Links",
    ]
    sections = re.split(r"^## .*$", text, flags=re.MULTILINE)
    assert all(len(section.split()) > 3 for section in sections)
    assert re.search(r"https://\S+", sections[-1])


def test_an_installed_page_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "a" / "b" / "claims"
    (package / "pages").mkdir(parents=True)
    (package / "pages" / "quiet_runtime.md").write_text("installed")
    monkeypatch.setattr(claims, "__file__", str(package / "__init__.py"))
    assert page("quiet_runtime") == "installed"


def test_a_page_of_no_claim() -> None:
    with pytest.raises(UsageError, match="'pages' is no claim"):
        page("pages")
