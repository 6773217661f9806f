"""What a person reads of `forkproof check`: loops by processes, then each failure with cause and cure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType

from forkproof import subscribers
from forkproof.check import CheckReport, identity, still_possible
from forkproof.claims.base import listing, who
from forkproof.claims.logs import RAISED
from forkproof.history import Event
from forkproof.judge import Judgement
from forkproof.observed import Loop, Observed
from forkproof.reports.terminal import Fitting, again, escape, last_words, verdict_text, whole
from forkproof.subscribers import Holder, Told
from forkproof.target import describe
from forkproof.verdict import Verdict


def check(report: CheckReport, *, verbosity: int = 0) -> RenderableType:
    """The whole report."""
    observed = report.observed
    parts: list[RenderableType] = [f"target: {describe(report.versions)}"]
    if observed.server is not None:
        parts.append(escape(_deployment(observed)))
    parts += ["", loops_table(observed), ""] if observed.loops else ["", "no background loop was found"]
    for loop in observed.loops:
        parts.append(escape(f"{loop.name}: {brief(loop.defined_at)}, started by {brief(loop.started)}"))
    redis = subscribers.told(observed.history)
    if redis:
        parts += ["", redis_table(redis), ""]
    for judgement in report.judgements:
        finding = judgement.finding
        if report.is_accepted(finding):
            parts += ["", f"accepted: {escape(identity(finding))}"]
        elif finding.verdict in (Verdict.BROKEN, Verdict.UNKNOWN):
            rate = judgement.rate if report.runs > 1 else (0, 0)
            parts += ["", failure(judgement, report.cures.get(judgement.key, ""), rate)]
        elif verbosity > 0:
            words = finding.verdict.value.replace("_", " ")
            about = f" ({finding.loop})" if finding.loop else ""
            how_sure = f" ({_possible(judgement.rate[1])})" if finding.verdict is Verdict.HELD else ""
            parts.append(escape(f"{finding.claim}{about}: {words}: {finding.explanation}{how_sure}"))
    if report.verdict is not Verdict.HELD and report.stands:
        parts += ["", *(escape(str(one)) for one in report.stands)]
    if verbosity > 0 or any(found.finding.claim == "workers_boot" for found in report.broken):
        parts += ["", "the server's last words:", last_words(report.folder)]
    parts += [f"[yellow]{escape(one)}[/]" for one in (*unasked(observed), *_ignored(observed))]
    parts += [escape(f"in the baseline, and not seen: {name}") for name in report.no_longer]
    if report.left_loopback:
        parts += ["", escape(f"connections that leave this machine: {', '.join(report.left_loopback)}")]
    parts += sure(report)
    if report.verdict is not Verdict.HELD and report.again:
        parts += ["", again(report.again)]
    parts += ["", whole(f"{verdict_text(report.verdict)}  (evidence: {escape(str(report.folder))})")]
    return Group(*parts)


def sure(report: CheckReport) -> list[str]:
    """How much what held says."""
    if not any(judgement.finding.verdict is Verdict.HELD for judgement in report.judgements):
        return []
    runs = f"{report.runs} run{'s' if report.runs > 1 else ''}"
    if report.verdict is not Verdict.HELD:
        return ["", f"of what held in {runs}, {_possible(report.runs)}"]
    another = " but the accepted" if any(report.is_accepted(one.finding) for one in report.judgements) else ""
    return ["", f"{runs} without a failure{another}: {_possible(report.runs, 'one')}"]


def _possible(runs: int, failure: str = "a failure") -> str:
    return f"{failure} that shows in {still_possible(runs):.0%} of runs is still possible"


def _deployment(observed: Observed) -> str:
    server = observed.server
    assert server is not None
    words = f"{server['workers']} {server['worker_class']} worker{'s' if server['workers'] != 1 else ''}"
    return f"server: {words}{', preload' if server['preload'] else ''}"


def loops_table(observed: Observed) -> Fitting:
    """One row for each loop, one column for each process after the boot, and what each fault changed."""
    windows = observed.history.windows
    if not windows:
        return _begun_table(observed)
    states = {id(loop): [_cells(observed, loop, index) for index in range(len(windows))] for loop in observed.loops}
    places = ["arbiter", *(f"worker {slot}" for slot in windows[0].slots or ())]
    for found in states.values():
        for cells in found[:1]:
            places += [place for place in cells if place not in places]
    rows = []
    for loop in observed.loops:
        first, *later = states[id(loop)]
        rows.append([
            escape(loop.name), loop.kind,
            *(first.get(place, "-") for place in places),
            *(_difference(first, cells) for cells in later),
        ])  # fmt: skip
    return Fitting(("loop", "kind", *places, *(f"after {one.after}" for one in windows[1:])), rows)


def _begun_table(observed: Observed) -> Fitting:
    """The same for a server that has not booted: in which processes each was started."""
    rows = []
    for loop in observed.loops:
        begun = dict.fromkeys(who(observed.history, event.process) for event in loop.births.values())
        rows.append((escape(loop.name), loop.kind, escape(listing(begun))))
    return Fitting(("loop", "kind", "started in, before the boot failed"), rows)


def unasked(observed: Observed) -> list[str]:
    """What of the app no request has come to, although it looks as if."""
    if observed.server is not None and len(observed.server["address"]) < 2 and not observed.history.of("request.ok"):
        address = str(observed.server["address"][0]).strip("[]'")  # a list, as the arbiter has it
        return [f"no request was sent: {address} is no TCP address. Leave --keep-bind out"]
    statuses: dict[str, set[int]] = {}
    for event in observed.history.of("request.ok"):
        statuses.setdefault(event.get("path", "?"), set()).add(event.get("status", 200))
    return [
        f"every request to {path} came to {', '.join(map(str, sorted(found)))}: that shows little of the app. Give a "
        "path that it has with --health, or with --request"
        for path, found in statuses.items()
        if min(found) >= _REFUSED
    ]


_REFUSED = 400


def _ignored(observed: Observed) -> list[str]:
    """What was printed of exceptions by which nothing has ended."""
    told = dict.fromkeys(f"{block[0]['line']} {_raised(block)}" for block in observed.ignored)
    return [f"printed, and no failure: {one}" for one in told]


def _raised(block: list[Event]) -> str:
    return next((event["line"] for event in reversed(block) if RAISED.match(event["line"])), "")


def redis_table(answers: Sequence[Told]) -> Fitting:
    """For each Redis the app's connections by process, and the subscribers of each channel, window by window."""
    afters = list(dict.fromkeys(one.after for one in answers))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for one in answers:
        cells = {str(holder.process.place): _connections(holder) for holder in one.holders}
        cells |= {f"channel {name}": f"{count} subscribed" for name, count in one.channels.items()}
        cells = cells or {"": "no connection of the app's"}
        for what, cell in (cells if one.error is None else {"": f"no answer: {one.error}"}).items():
            rows.setdefault((one.address, what), {})[one.after] = cell
    told = [
        (address, escape(what), *(escape(cells.get(after, "-")) for after in afters))
        for (address, what), cells in rows.items()
    ]
    return Fitting(("redis", "", *(f"after {after}" for after in afters)), told)


def _connections(holder: Holder) -> str:
    told = f"{holder.connections} connection{'s' if holder.connections > 1 else ''}"
    return f"{told}, {holder.subscriptions} subscribed" if holder.subscriptions else told


def brief(text: str) -> str:
    """A path, or what is told to be at one, without the folders that say nothing.

    >>> brief("/srv/my app/app.py:3"), brief("import of app.py at /srv/my app/app.py:8")
    ('app.py:3', 'import of app.py at app.py:8')
    >>> brief("/srv/shop/__init__.py:7")
    'shop/__init__.py:7'
    """
    told, at, path = text.rpartition(" at /")
    if at:
        return f"{told} at {_last(f'/{path}')}"
    return text.rpartition("-packages/")[2] if "-packages/" in text else _last(text)


def _last(path: str) -> str:
    """Its file; a package's own is told with its folder."""
    return "/".join(path.split("/")[-2 if path.rpartition("/")[2].startswith("__") else -1 :])


def _cells(observed: Observed, loop: Loop, index: int) -> dict[str, str]:
    return {str(state.process.place): state.word for state in observed.states(loop, index)}


def _difference(before: dict[str, str], after: dict[str, str]) -> str:
    changed = [place for place in {**before, **after} if before.get(place, "-") != after.get(place, "-")]
    return ", ".join(f"{place}: {after.get(place, '-')}" for place in changed) or "same"


def failure(judgement: Judgement, cured: str, rate: tuple[int, int] = (0, 0)) -> str:
    """What broke, since when, why, and what helps."""
    finding = judgement.finding
    colour = "bold red" if finding.verdict is Verdict.BROKEN else "yellow"
    loop = f" ({escape(finding.loop)})" if finding.loop else ""
    lines = [f"[{colour}]{finding.claim}{loop} {finding.verdict.value.upper()}[/]: {escape(finding.explanation)}"]
    if judgement.since:
        lines.append(f"  since: {escape(judgement.since)}")
    if rate[1]:
        lines.append(f"  failed in {rate[0]} of {rate[1]} runs")
    if cured:
        lines.append(f"  {escape(cured)}")
    if finding.verdict is Verdict.BROKEN:
        lines.append(f"  id: {escape(identity(finding))}")
    return "\n".join(lines)
