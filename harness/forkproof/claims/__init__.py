"""Named statements about a run, each judged on its history: one file a family, one function a claim.

A check is a function of (scenario, history) and starts nothing, so an old history can be judged again. Checks run
behind a wrapper: one that raises, or answers what cannot be, is named and comes to unknown, never to a pass.
"""

from __future__ import annotations

import copy
import functools
import itertools
import traceback
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from forkproof import plugins
from forkproof.claims import (
    arbiter,
    connections,
    fork_phase,
    liveness,
    logs,
    messages,
    patches,
    placement,
    resources,
    server,
    succession,
)
from forkproof.claims.base import Claim
from forkproof.errors import UsageError
from forkproof.history import LEASE, Event, History
from forkproof.scenario import Guard, Scenario
from forkproof.verdict import Finding, Verdict

__all__ = ["REGISTRY", "Claim", "judge", "page"]

_FAMILIES = (
    placement,
    liveness,
    messages,
    connections,
    resources,
    server,
    fork_phase,
    logs,
    patches,
    arbiter,
    succession,
)
_BY_NAME = {claim.name: claim for family in _FAMILIES for claim in family.CLAIMS}
_ORDER = (
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
)


def _wrong(claim: Any) -> str:
    if not callable(claim.check) or not callable(claim.promised):
        return "its check and its promised must be functions"
    return "" if isinstance(claim.definition, str) and claim.definition.strip() else "it has no definition"


REGISTRY: dict[str, Claim] = {name: _BY_NAME[name] for name in _ORDER}
"""The claims by name, in the order in which they are reported; those of other packages come last."""


@functools.cache
def extend() -> None:
    """Take in the claims of other packages."""
    REGISTRY.update((claim.name, claim) for claim, _ in plugins.found("forkproof.claims", Claim, _ORDER, _wrong))


def judge(scenario: Scenario, history: History, names: Collection[str] | None = None) -> list[Finding]:
    """What each claim (or those in `names`) comes to, at least one finding a claim, in the registry's order."""
    for name in names or ():
        _known(name)
    findings: list[Finding] = []
    for claim in REGISTRY.values():
        if names is None or claim.name in names:
            findings += _run(claim, scenario, history)
    return findings


def page(name: str) -> str:
    """The documentation of a claim, as Markdown; its definition where it is another package's."""
    _known(name)
    if name not in _ORDER:
        return f"# {name}\n\n{REGISTRY[name].definition}\n"
    here = Path(__file__).resolve()
    # An installed forkproof carries the pages in its package; a checkout has them in docs.
    folders = (here.parent / "pages", here.parents[3] / "docs" / "claims")
    paths = [folder / f"{name}.md" for folder in folders]
    return next((path for path in paths if path.is_file()), paths[-1]).read_text(encoding="utf-8")


def _known(name: str) -> None:
    if name not in REGISTRY:
        raise UsageError(f"{name!r} is no claim; there are: {', '.join(REGISTRY)}")


def _run(claim: Claim, scenario: Scenario, history: History) -> list[Finding]:
    try:
        answer: Any = _answer(claim, scenario, history)
    except plugins.DoesNotEnd as error:
        _HANGS[claim.name] = str(error)
        return [_defect(claim, f"the check {error}")]
    except (Exception, SystemExit) as error:
        return [_defect(claim, f"the check raised {type(error).__name__}: {error}; {_place(error)}")]
    if not isinstance(answer, list):
        return [_defect(claim, f"the check returned {type(answer).__name__}, not a list of findings")]
    if not answer:
        return [_defect(claim, "the check returned no finding")]
    answer = [_cut_short(item, scenario, history) for item in answer]
    loops = {loop.name for loop in scenario.loops}
    good = [item for item in answer if not _defects(claim, item, loops)]
    defects = [defect for item in answer for defect in _defects(claim, item, loops)]
    return [*good, _defect(claim, f"the check returned {'; '.join(defects)}")] if defects else good


_HANGS: dict[str, str] = {}
"""Claims of other packages whose check did not come back once, and is not called again."""


def _answer(claim: Claim, scenario: Scenario, history: History) -> Any:
    if claim.name in _ORDER:
        return claim.check(scenario, history)
    if claim.name in _HANGS:
        raise plugins.DoesNotEnd(_HANGS[claim.name])
    # Of its own: what it changes there, others would be judged by.
    own = History([replace(event, fields=copy.deepcopy(event.fields)) for event in history.events], history.damage)
    return plugins.apart(lambda: claim.check(scenario, own))


def _cut_short(item: Any, scenario: Scenario, history: History) -> Any:
    """What held in a run that did not take its whole course has not been seen to hold through it.

    What broke in one whose processes were stopped from outside may be the doing of who stopped them; where everything
    stood still, clocks went on all the same, and a lease changed hands as it should. Where events are lost, nothing
    that was judged without them is known.
    """
    if not isinstance(item, Finding) or item.verdict not in (Verdict.HELD, Verdict.UNKNOWN, Verdict.BROKEN):
        return item
    if history.damage:
        return _undecided(item, f"the record is damaged: {history.damage}")
    for defect in history.of("plugin.defect"):
        return _undecided(item, f"{defect['plugin']} has a defect: {defect['error']}. {_CORRECT}", defect)
    if item.verdict is Verdict.UNKNOWN:
        return item
    if item.verdict is Verdict.BROKEN:
        for halted in history.of("halted"):
            who = halted.get("what") or f"process {halted['target']}"
            return _undecided(item, f"{who} was stopped by somebody else's signal", halted)
        if any(loop.name == item.loop and loop.guard is Guard.LEASE for loop in scenario.loops):
            for before, sample in itertools.pairwise(history.of("sample")):
                if sample.t - before.t > LEASE / 2:
                    told = f"the machine stood still for {sample.t - before.t:.1f} s, in which a lease may run out"
                    return _undecided(item, told, before, sample)
        return item
    for limit in history.of("limit"):
        if limit["what"] in _UNITS:
            told = f"the run was ended, since it had come to {limit['found']} {_UNITS[limit['what']]}"
            return _undecided(item, told, limit)
    landed = {event["index"] for event in history.of("fault.ok")}
    for index, fault in enumerate(scenario.faults):
        if index not in landed:
            failed = [event for event in history.of("fault.fail") if event["index"] == index]
            why = failed[0]["error"] if failed else "the run ended before it"
            return _undecided(item, f"the fault {fault.fault!r} never landed: {why}", *failed)
    return item


def _undecided(item: Finding, why: str, *seen: Event) -> Finding:
    told = f"{item.explanation}; but {why}"
    return replace(item, verdict=Verdict.UNKNOWN, explanation=told, evidence=(*item.evidence, *seen))


_UNITS = {"folder": "bytes in its folder", "processes": "processes"}


def _defects(claim: Claim, answer: object, loops: set[str]) -> list[str]:
    """Everything that is wrong with one finding."""
    if not isinstance(answer, Finding):
        return [f"{type(answer).__name__}, which is no finding"]
    item: Any = answer  # its types are what it says, no more
    wrong = []
    if item.claim != claim.name:
        wrong.append(f"a finding of {item.claim!r}")
    if item.loop is not None and item.loop not in loops:
        wrong.append(f"a finding for {item.loop!r}, which is no loop of the scenario")
    if not isinstance(item.verdict, Verdict):
        wrong.append(f"the verdict {item.verdict!r}")
    if not isinstance(item.explanation, str) or not item.explanation.strip():
        wrong.append("a finding without an explanation")
    if not isinstance(item.evidence, tuple) or not all(isinstance(event, Event) for event in item.evidence):
        wrong.append("evidence that is no tuple of events")
    elif item.verdict is Verdict.BROKEN and not item.evidence:
        wrong.append("broken without evidence")
    elif item.verdict is Verdict.HELD and not item.evidence and claim.name not in _ORDER:
        wrong.append("held without evidence")
    return wrong


def _defect(claim: Claim, what: str) -> Finding:
    told = f"{claim.name} could not be judged: {what}"
    return Finding(claim.name, Verdict.UNKNOWN, None, told if claim.name in _ORDER else f"{told}. {_CORRECT}")


_CORRECT = "Correct it in the package that adds it"


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = f"{Path(__file__).resolve().parents[1]}/"
    theirs = [frame for frame in frames if not frame.filename.startswith(ours)]  # where a plug-in went wrong, not we
    frame = (theirs or frames)[-1]
    return f"in {frame.name}, {frame.filename}, line {frame.lineno}"
