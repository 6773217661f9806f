"""What a claim is, and what the claims share: words for times and places, and what a window may be concluded from."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from forkproof.history import (
    CONTROL_TURN,
    Birth,
    Event,
    History,
    Process,
    Window,
    decisive_turns,
    message_gap,
    runs_in_child,
)
from forkproof.scenario import Guard, Loop, Policy, Scenario
from forkproof.verdict import Finding, Verdict, merge

EVIDENCE_MAX = 20

Check = Callable[[Scenario, History], list[Finding]]
Promised = Callable[[Scenario], str]


def _nothing_promised(scenario: Scenario) -> str:
    return ""


@dataclass(frozen=True)
class Claim:
    """Something that ought to be true of a run. `check` looks at the history alone and starts nothing.

    `promised` is for claims of other packages: why it must hold of such a deployment, empty where it may break. What
    breaks though it was promised is a surprise of `explore`.
    """

    name: str
    definition: str
    check: Check
    promised: Promised = _nothing_promised


@dataclass(frozen=True)
class Say:
    """Findings of one claim, for one loop or for the server.

    >>> Say("server_answers").held("every slot answered").verdict
    <Verdict.HELD: 'held'>
    """

    claim: str
    loop: str | None = None

    def held(self, explanation: str, *evidence: Iterable[Event]) -> Finding:
        """It was exercised, and held."""
        return self._finding(Verdict.HELD, explanation, evidence)

    def unknown(self, explanation: str, *evidence: Iterable[Event]) -> Finding:
        """It could not be decided."""
        return self._finding(Verdict.UNKNOWN, explanation, evidence)

    def broken(self, explanation: str, *evidence: Iterable[Event], how: str) -> Finding:
        """A counterexample of the kind `how`; the first event of the evidence is the first bad one."""
        return self._finding(Verdict.BROKEN, explanation, evidence, how)

    def not_applicable(self, explanation: str) -> Finding:
        """The scenario cannot exercise it."""
        return self._finding(Verdict.NOT_APPLICABLE, explanation, ())

    def _finding(self, verdict: Verdict, explanation: str, groups: Iterable[Iterable[Event]], how: str = "") -> Finding:
        distinct = {id(event): event for group in groups for event in group}
        return Finding(self.claim, verdict, self.loop, explanation, tuple(distinct.values())[:EVIDENCE_MAX], how)


def worst(findings: Sequence[Finding]) -> Finding:
    """The first of those whose verdict wins."""
    verdict = merge(finding.verdict for finding in findings)
    return next(finding for finding in findings if finding.verdict is verdict)


# --- words


def clock(history: History, t: float) -> str:
    """A time as seconds since the launch, or since the first event where no launch was recorded."""
    first = (history.of("launch") or history.events)[0]
    return f"{t - first.t:+.2f}s"


def span(history: History, window: Window) -> str:
    """When a window was open."""
    return f"from {clock(history, window.opened)} to {clock(history, window.closed)}"


def who(history: History, key: str) -> str:
    """A process by its place and pid."""
    process = history.processes.get(key)
    place = _program(history, key) if process is None else str(process.place)
    return f"{place} (pid {key.partition('-')[0]})"


def _program(history: History, key: str) -> str:
    """The name of a program that has told nothing of itself, where somebody saw it."""
    seen = [one for event in history.of("left") + history.of("killed") for one in event["processes"]]
    named = [one.get("command") for one in seen if f"{one['pid']}-{one['start']}" == key]
    return repr(named[0]) if named and named[0] else "unknown process"


def listing(words: Iterable[str], most: int = 6) -> str:
    """Words as a sentence has them.

    >>> listing(["arbiter", "worker 0", "worker 1"])
    'arbiter, worker 0 and worker 1'
    """
    all_of_them = list(words) or ["nothing"]
    if len(all_of_them) > most:
        all_of_them = [*all_of_them[:most], f"{len(all_of_them) - most} more"]
    *head, last = all_of_them
    return f"{', '.join(head)} and {last}" if head else last


def number(count: int, noun: str) -> str:
    """A count with its noun.

    >>> number(1, "listener"), number(2, "listener"), number(3, "process")
    ('1 listener', '2 listeners', '3 processes')
    """
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count} {noun if count == 1 else plural}"


def quoted(event: Event) -> str:
    """A line of the log, cut to what one can read at a glance."""
    line = str(event["line"]).strip()
    return repr(line if len(line) <= 160 else line[:157] + "...")


# --- windows


def decides(scenario: Scenario, window: Window) -> bool:
    """Whether absence may be concluded from a window."""
    return window.control >= decisive_turns(scenario)


def too_few(scenario: Scenario, history: History, window: Window) -> str:
    """Why nothing may be concluded from absence in a window that is not decisive."""
    turns = f"{window.control} of {decisive_turns(scenario)} turns"
    return f"the control process made only {turns} {span(history, window)}"


def no_window(history: History) -> str:
    """Why there is nothing to judge, in a history without windows."""
    for event in arbiter_exits(history):
        return f"no window was opened: the arbiter ended at {clock(history, event.t)} with status {event['status']}"
    for event in history.of("limit"):
        if event["what"] != "log":
            return f"no window was opened: the run came to more {event['what']} than it may, and was ended"
    for event in history.of("bound"):
        bound = f"the bound for {event['what']!r} ({event['seconds']:.1f}s) had passed at {clock(history, event.t)}"
        return f"no window was opened: {bound}"
    return "no window was opened, and the history does not tell why"


def edges(history: History, window: Window) -> list[Event]:
    """The two events that a window stands on, its end first: absence is seen at the end."""
    return [event for event in history.of("window.open", "window.close") if event["window"] == window.index][::-1]


def published(history: History, loop: Loop, window: Window) -> list[Event]:
    """The messages for a loop that Redis took during a window."""
    sent = history.between("publish.ok", window.opened, window.closed)
    return [event for event in sent if event["loop"] == loop.name]


def sent_after_subscribing(history: History, loop: Loop, window: Window) -> list[Event]:
    """Of those messages, the ones that were surely sent after the loop's last subscription, if it ever had one."""
    heard = [event.t for event in history.of("loop.subscribed") if event["loop"] == loop.name]
    last = max((t for t in heard if t <= window.closed), default=-math.inf)
    # Redis took a message some time between invoke and ok, so only one invoked later was sent after it.
    invoked = {event["message"]: event.t for event in history.of("publish.invoke")}
    return [event for event in published(history, loop, window) if invoked.get(event["message"], event.t) > last]


def last_call(scenario: Scenario, window: Window) -> float:
    """Up to when a message must have come to be handled in a window: a later one may be under way still."""
    slowness = (window.closed - window.opened) / (max(window.control, 1) * CONTROL_TURN)
    return window.closed - message_gap(scenario) * max(1.0, slowness)


def idle(history: History, loop: Loop, window: Window) -> str:
    """Why a healthy loop may stand still in a window, though it runs: empty where it may not."""
    if loop.hears_redis and not published(history, loop, window):
        return f"no message was published for it {span(history, window)}"
    if loop.guard is not Guard.NONE and history.ticking(loop.name, window):
        return f"it waits for its {loop.guard.value}, which another one holds {span(history, window)}"
    return ""


# --- processes


def arbiter_exits(history: History) -> list[Event]:
    """The `exit` of the arbiter; by the launch's pid where the arbiter died before it named itself."""
    pids = {event.get("arbiter") for event in history.of("launch")}
    if history.arbiter is not None:
        pids.add(history.arbiter.pid)
    return [event for event in history.of("exit") if event["child"] in pids]


def booted(history: History) -> dict[str, Event]:
    """`post_worker_init` of every worker process that came so far."""
    hooks = (event for event in history.of("hook") if event["name"] == "post_worker_init")
    return {event.process: event for event in hooks if _role(history, event) == "worker"}


def _role(history: History, event: Event) -> str | None:
    process = history.processes.get(event.process)
    return None if process is None else process.place.role


def targets(history: History, until: float = math.inf) -> set[int]:
    """The pids that faults had been aimed at; not the arbiter's, which stands in every line that it prints."""
    arbiter = None if history.arbiter is None else history.arbiter.pid
    aimed = {event.get("target") for event in history.of("fault.ok") if event.t <= until}
    return {pid for pid in aimed if pid is not None and pid != arbiter}


def tells_of_fault(history: History, line: Event) -> bool:
    """Whether a line of the log is about a process that a fault had hit: no wonder, then."""
    return bool(pids_in(line) & targets(history, line.t))


def pids_in(line: Event) -> set[int]:
    """The processes that a line of gunicorn's log names: who wrote it, `[12]`, and of whom, `pid: 34`."""
    return {int(one or other) for one, other in re.findall(r"\[(\d+)\]|\bpid[: ]{1,2}(\d+)\b", line["line"])}


# --- loops and where they tick


@dataclass(frozen=True)
class Listener:
    """A loop that ticked in one process during a window."""

    birth: str
    process: Process


def listeners(history: History, loop: Loop, window: Window) -> list[Listener]:
    """Where a loop ticked in a window.

    A process that ended inside the window counts, except where its successor in the same place began to tick only
    after it was gone: those two were never alive together.
    """
    found = [Listener(birth, history.processes[key]) for birth, key in history.ticking(loop.name, window)]
    found = [one for one in found if one.process.gone is None or one.process.gone > window.opened]
    succeeds = _succeeds if loop.guard is Guard.NONE else _takes_over
    return [one for one in found if not any(succeeds(history, other, one, window) for other in found)]


def _succeeds(history: History, new: Listener, old: Listener, window: Window) -> bool:
    gone = old.process.gone
    if gone is None or gone > window.closed or new.process.place != old.process.place:
        return False
    return history.ticks(new.birth, new.process.key, window.opened, gone) == 0


def _takes_over(history: History, new: Listener, old: Listener, window: Window) -> bool:
    """Whether a loop with a guard had done its last turn in one place before its first in another."""
    last = [t for t, _ in history.changes(old.birth, old.process.key) if t <= window.closed]
    first = [t for t, _ in history.changes(new.birth, new.process.key)]
    return bool(last and first) and last[-1] < first[0]


def meant(loop: Loop, process: Process) -> bool:
    """Whether the policy wants the loop in a process. The body of a process loop runs in a child of that place."""
    place = process.place
    if loop.policy is Policy.ONCE_PER_WORKER:
        return place.role == ("child" if runs_in_child(loop) else "worker") and place.slot is not None
    if loop.policy is Policy.ARBITER_ONLY:
        return place.role == ("child" if runs_in_child(loop) else "arbiter") and place.slot is None
    return True


@dataclass(frozen=True)
class Absence:
    """The places of a window that ought to have a listener and have none; `doubt` says why that may mean nothing.

    `processes` are those of the places that are a process.
    """

    places: tuple[str, ...] = ()
    doubt: str = ""
    processes: tuple[str, ...] = ()


def absence(scenario: Scenario, history: History, loop: Loop, window: Window) -> Absence:
    """Which of the policy's places are silent in a window, and whether that may be concluded from it."""
    heard = [one.process for one in listeners(history, loop, window) if meant(loop, one.process)]
    late: list[str] = []
    processes: list[str] = []
    if loop.policy is Policy.ONCE_PER_WORKER:
        slots = {process.place.slot for process in heard}
        silent = [p for slot, p in sorted(history.live_workers(window).items()) if slot not in slots]
        processes = [process.key for process in silent if process.first <= window.opened]
        places = [who(history, key) for key in processes]
        late = [who(history, process.key) for process in silent if process.first > window.opened]
    elif heard:
        places = []
    elif loop.policy is Policy.ARBITER_ONLY:
        arbiter = history.arbiter_in(window)
        processes = [arbiter.key] if arbiter else []
        places = [who(history, arbiter.key) if arbiter else "the arbiter"]
    else:
        places = ["any process"]
    if not places and not late:
        return Absence()
    if not decides(scenario, window):
        return Absence((*places, *late), too_few(scenario, history, window))
    if reason := idle(history, loop, window):
        return Absence((*places, *late), reason)
    if not places:
        return Absence(tuple(late), f"{listing(late)} began only inside the window {span(history, window)}")
    return Absence(tuple(places), processes=tuple(processes))


def traces(history: History, births: Iterable[str]) -> list[Event]:
    """What the probes wrote of some births: created, begun, subscribed, ended."""
    wanted = set(births)
    kinds = ("loop.created", "loop.begin", "loop.subscribed", "loop.end")
    return [event for event in history.of(*kinds) if event["birth"] in wanted]


def silence(history: History, births: Iterable[str], processes: Collection[str]) -> list[Event]:
    """What tells of births that are silent in some processes, what these wrote first: if nothing, that they are there.

    After the edges of a window the first of them tells in which process something was missing.
    """
    found = traces(history, births)
    inside = [event for event in found if event.process in processes]
    inside = inside or [event for event in history.of("role") if event.process in processes]
    return [*inside, *(event for event in found if event.process not in processes)]


def fate(history: History, loop: Loop, t: float) -> str:
    """What had become of a loop by `t`, for a reader who asks why it is silent."""
    births = [birth for birth in history.births_of(loop.name) if birth.t <= t]
    if not births:
        return "it was never created"
    told = f"it was created in {who(history, births[-1].process)} as {short(births[-1])}"
    ends = [event for event in history.of("loop.end") if event["loop"] == loop.name and event.t <= t]
    if ends:
        reason = f" with {ends[-1]['error']}" if ends[-1]["error"] else ""
        told += f" and ended in {who(history, ends[-1].process)} at {clock(history, ends[-1].t)}{reason}"
    elif not any(event["loop"] == loop.name and event.t <= t for event in history.of("loop.begin")):
        told += " and never began"
    return told


def still_copies(history: History, birth: str) -> dict[str, Event]:
    """Workers in which a copied greenlet of a loop lives and never had a turn, with an answer that tells so."""
    begun = {event.process for event in history.of("loop.begin") if event["birth"] == birth}
    return {
        answer["worker"]: answer
        for answer in history.of("request.ok")
        for seen in answer.get("loops", ())
        if seen["birth"] == birth and seen.get("copied") and answer["worker"] not in begun
    }


def short(birth: Birth | str) -> str:
    """The first eight characters of a birth id."""
    return (birth.birth if isinstance(birth, Birth) else birth)[:8]
