"""What a person reads of `forkproof advise`: what is wrong as it is, what was tried, and what holds."""

from __future__ import annotations

from rich.console import Group, RenderableType

from forkproof.advise import Advice, Trial
from forkproof.check import Deployment, still_possible
from forkproof.reports.checked import brief
from forkproof.reports.terminal import Verbatim, escape, verdict_text, whole
from forkproof.target import describe


def announcement(what: Deployment, budget_seconds: float) -> str:
    """What is going to be started and killed."""
    doings = {"kill_worker": "kills one of its workers with SIGKILL", "hup": "reloads it", "term": "stops it"}
    done = ", ".join(doings[fault] for fault in what.faults)
    return (
        f"advise starts {what.app or 'the app'} again and again, one at a time, for {budget_seconds:.0f} s or so, "
        f"from links to your files, with others in place of those that it changes. In each it {done}. Yours stay as "
        "they are; what the app does to its databases at a start, it does at each of these"
    )


def advice(found: Advice) -> RenderableType:
    """The whole answer, the diffs at its end."""
    parts: list[RenderableType] = [f"target: {describe(found.base.versions)}", ""]
    if found.holds:
        parts.append(escape(f"as it is: everything held in {_runs(found.base.runs)}. Nothing need be changed"))
        return Group(*parts, _sure(found.base.runs), "", verdict_text(found.verdict))
    parts.append("as it is:")
    parts += [f"  {escape(one)}" for one in found.wrong]
    parts += ["", f"other deployments that were tried: {len(found.trials)}, with {found.launched} servers in "
              f"{found.seconds:.0f} s; that were not: {found.left}"]  # fmt: skip
    for trial in found.trials:
        if trial not in found.found:
            parts += [escape(f"  {trial.candidate}"), *(escape(f"      {one}") for one in trial.why)]
    parts += [escape(f"  {one}") for one in found.stays]
    for number, trial in enumerate(found.found, 1):
        parts += ["", *_answer(number, trial)]
    if not found.found:
        none = (
            "none of them holds" if not found.left else "none of those that were tried holds; --budget gives more time"
        )
        parts += ["", none]
    diffs = [Verbatim(trial.diff.splitlines()) for trial in found.found]
    return Group(*parts, "", verdict_text(found.verdict), *diffs)


def _answer(number: int, trial: Trial) -> list[RenderableType]:
    assert trial.report is not None
    parts: list[RenderableType] = [
        escape(f"{number}. {trial.candidate}"),
        whole(escape(f"   everything held in {_runs(trial.runs)} (evidence: {trial.report.folder})")),
        f"   {_sure(trial.runs)}",
    ]
    for loop in trial.report.observed.loops:
        places = [f"{state.process.place} ({state.word})" for state in trial.report.observed.states(loop, 0)]
        parts.append(escape(f"   {loop.name}: {', '.join(places) or 'nowhere'}, started by {brief(loop.started)}"))
    options = trial.candidate.draft.options
    if options:
        parts.append(escape(f"   with these words for gunicorn, and no others: {' '.join(options)}"))
    return parts


def _sure(runs: int) -> str:
    return f"a failure that shows in {still_possible(runs):.0%} of runs is still possible"


def _runs(runs: int) -> str:
    return f"{runs} run{'s' if runs > 1 else ''}"
