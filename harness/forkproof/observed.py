"""What a run of the user's own app shows: which loops there are, where each lives, and what is wrong with them.

A function of a history, as claims are; it starts nothing. Policies are the user's: without one a loop's count is a fact
and no failure. What no policy allows is a failure by itself.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
import signal
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from forkproof.claims.base import clock, listing, number, pids_in, quoted, who
from forkproof.claims.connections import no_socket_shared_across_fork
from forkproof.claims.logs import RAISED, ignored, quiet_runtime
from forkproof.claims.server import ENOUGH, clean_shutdown
from forkproof.history import Event, History, Place, Process, Window
from forkproof.scenario import Loop as ScenarioLoop
from forkproof.scenario import Policy, Scenario, Server, from_dict
from forkproof.verdict import Finding, Verdict

_PLAIN = Scenario(loops=(ScenarioLoop(name="app"),), server=Server())
"""What claims that look at a server alone are given for a scenario."""


def _stopping(graceful_timeout: int) -> Scenario:
    """The same with a TERM, and as long as the app's server has for it."""
    patience = min(max(graceful_timeout, 1), LONGEST_STOP)
    return from_dict(
        {"loops": [{"name": "app"}], "server": {"graceful_timeout": patience}, "faults": [{"fault": "term"}]}
    )


LONGEST_STOP = 60
"""Seconds of gunicorn's graceful_timeout that a run waits for at most."""
_STILL = 3
"""Looks in a row in which something must stand still before it is said to."""
_AGAIN = 2
"""Times that a request that meets no other must leave something in a queue: the first may make what is used again."""
_EARLIER = 0.01
"""Seconds: /proc is read when looks have been asked for, and these come a little later."""
_ROUNDS = 5.0
"""Rounds of gevent's loop in a second; one that nobody runs makes fewer, one that is idle has control instead."""
_ERROR = 500
"""The least status of an answer that tells of an error of the server's."""
_LATE = 0.5
"""Seconds by which what is printed is read later than the answer that it belongs to, or earlier."""
_SPENT = "Autorestarting worker after current request"
_TIMEOUT = "WORKER TIMEOUT"
_TROUBLE = re.compile(r"\[(?:ERROR|CRITICAL)\]")
"""What gunicorn logs as more than news."""
_IN_CHILD = ("process", "fork")
_RUNNERS = ("executor",)


@dataclass(frozen=True)
class State:
    """How a loop fares in one process during one window.

    `units` are its threads, greenlets or processes that run there; `moves` how often these were seen to move.
    """

    process: Process
    units: int
    moves: int
    copied: int = 0
    lies: tuple[Event, ...] = ()
    """Looks at the end of the window in which it counts as alive and nothing runs it."""
    starved: str = ""
    piled: str = ""

    @property
    def word(self) -> str:
        """In a table."""
        words = [f"runs x{self.units}" if self.units > 1 else "runs"] if self.units else []
        for bad, word in (
            (self.copied, "copied"),
            (self.starved, "starved"),
            (self.lies, "dead"),
            (self.piled, "stuck"),
        ):
            if bad:
                words = [word]
        return " ".join(words) or "-"


@dataclass
class Loop:
    """One background loop of the app, under all births that it had."""

    name: str
    kind: str
    defined_at: str
    births: dict[str, Event] = field(default_factory=dict)
    policy: Policy | None = None

    @property
    def first(self) -> Event:
        """Its first creation."""
        return next(iter(self.births.values()))

    @property
    def started(self) -> str:
        """Where it is started, for people."""
        first = self.first
        at = f" at {first['user']}" if first.get("user") else ""
        return f"{first['site'] or 'unknown'}{at}"

    def matches(self, pattern: str) -> bool:
        """Whether a user's name or glob means it: its body's name, its thread's, or file:line."""
        threads = {str(event.get("thread")) for event in self.births.values() if event.get("thread")}
        names = {self.name, self.name.rpartition(".")[2], self.defined_at, self.defined_at.rpartition("/")[2], *threads}
        return any(fnmatch.fnmatchcase(name, pattern) for name in names)


class Observed:
    """A run of an app, understood."""

    def __init__(self, history: History, policies: Mapping[str, Policy], where: Mapping[str, str]) -> None:
        """`where` says where in the user's files a setting stands: {"preload_app": "gunicorn.conf.py:2"}."""
        self.history = history
        self.where = where
        self.policies = policies
        self.server: Event | None = next(iter(history.of("server")[-1:]), None)
        self.loops = self._loops()
        self._states: dict[tuple[int, int], list[State]] = {}
        self.unmatched = [
            pattern for pattern in policies if pattern != "*" and not any(loop.matches(pattern) for loop in self.loops)
        ]

    # What there is

    def _loops(self) -> list[Loop]:
        found: dict[tuple[str, str, str], Loop] = {}
        jobs = self._jobs
        for event in self.history.of("loop.created"):
            name, kind, at = _body(event)
            if event["birth"] in jobs:
                at, _, name = jobs[event["birth"]].rpartition(" in ")
                kind = "job"
                at = next((one.defined_at for key, one in found.items() if _same_job(key, name, at)), at)
            elif not (self._lasts(event) if self.history.windows else self._may_run(event)):
                continue
            loop = found.setdefault((name, kind, at), Loop(name, kind, at))
            loop.births[event["birth"]] = event
        loops = list(found.values())
        names = Counter(loop.name for loop in loops)
        for loop in loops:
            if names[loop.name] > 1:
                loop.name = f"{loop.name}@{loop.defined_at.rpartition('/')[2]}"
            for pattern, policy in self.policies.items():
                if loop.policy is None and loop.matches(pattern):
                    loop.policy = policy
        return loops

    @cached_property
    def _jobs(self) -> dict[str, str]:
        """The job that a thread of an executor was in at every look of some window: a loop by itself.

        Not one that a thread was seen to be done with: that is work, however long the machine takes for it.
        """
        found, ended = {}, set()
        before: dict[str, str | None] = {}
        for inside in self._all_looks():
            rows: dict[str, list[str | None]] = {}
            for look in inside:
                for unit in look["units"]:
                    job, last = unit.get("job") if unit["running"] else None, before.get(unit["birth"])
                    rows.setdefault(unit["birth"], []).append(job)
                    if last and unit["running"] and _unnumbered(job) != _unnumbered(last):
                        ended.add(_unnumbered(last))
                    before[unit["birth"]] = job
            for birth, words in rows.items():
                jobs = {_unnumbered(word) for word in words}
                if len(words) >= _STILL and words[0] and len(jobs) == 1:
                    found[birth] = words[0]
        return {birth: job for birth, job in found.items() if _unnumbered(job) not in ended}

    def _lasts(self, event: Event) -> bool:
        """Whether it was seen alive, died, or is a process: what ends between two looks is no loop."""
        birth = event["birth"]
        if event["kind"] not in _IN_CHILD and _body(event) in self._chains:
            return True
        if any(end["birth"] == birth and end["error"] for end in self.history.of("loop.end")):
            return True
        if event["kind"] in _IN_CHILD:
            lived = any(self._child_alive(birth, index) for index in range(len(self.history.windows)))
            return lived or bool(self._astray(birth))
        if event["kind"] in _RUNNERS and any(self._abandoned(birth, inside) for inside in self._all_looks()):
            return True
        return any(
            unit["birth"] == birth and (unit["running"] or unit["alive"])
            for looks in self._looks.values()
            for inside in looks.values()
            for look in inside[-1:]
            for unit in look["units"]
        )

    def _may_run(self, event: Event) -> bool:
        """Of a server that has not booted: whether it was not seen to have ended by then."""
        last = [look for look in self.history.of("look") if look.process == event.process][-1:]
        units = [unit for look in last for unit in look["units"] if unit["birth"] == event["birth"]]
        return event["kind"] in _IN_CHILD or not last or any(unit["running"] or unit["alive"] for unit in units)

    @cached_property
    def _chains(self) -> set[tuple[str, str, str]]:
        """The bodies of which look after look saw another thread or greenlet: loops that start themselves again."""
        bodies = self._bodies
        found = set()
        for inside in self._all_looks():
            known: set[str] = set()
            fresh: Counter[tuple[str, str, str]] = Counter()
            for look in inside:
                births = {unit["birth"] for unit in look["units"] if unit["running"]} & bodies.keys() - known
                fresh.update({bodies[birth] for birth in births})
                known |= births
            found |= {body for body, looks in fresh.items() if looks >= _STILL}
        return found

    def _all_looks(self) -> Iterable[Sequence[Event]]:
        return (inside for looks in self._looks.values() for inside in looks.values())

    def _abandoned(self, birth: str, looks: Sequence[Event]) -> bool:
        """Whether work waits for a thread of an executor that has ended: it does not do so by itself."""
        units = [unit for look in looks for unit in look["units"] if unit["birth"] == birth]
        if len(units) < _STILL or any(unit["running"] or not unit["sizes"] for unit in units):
            return False
        grown = max(units[-1]["sizes"]) > max(units[0]["sizes"])
        return grown or (_is_left(units) and not self._pool_runs(birth, looks[-1]))

    def _pool_runs(self, birth: str, look: Event) -> bool:
        """Whether an executor has another thread that runs."""
        body = self._bodies.get(birth)
        return any(unit["running"] and self._bodies.get(unit["birth"]) == body for unit in look["units"])

    @cached_property
    def _bodies(self) -> dict[str, tuple[str, str, str]]:
        return {event["birth"]: _body(event) for event in self.history.of("loop.created")}

    @cached_property
    def _looks(self) -> dict[str, dict[int, list[Event]]]:
        """The looks of each process in each window."""
        found: dict[str, dict[int, list[Event]]] = {}
        for index, window in enumerate(self.history.windows):
            for look in self.history.between("look", window.opened, window.closed):
                found.setdefault(look.process, {}).setdefault(index, []).append(look)
        return found

    def _astray(self, birth: str) -> list[Event]:
        """What the process of a loop printed when gunicorn's own code ran in it and saw another parent than it knew."""
        pids = {event["child"] for event in self.history.of("child") if event["birth"] == birth}
        return [e for e in self.history.of("log") if "Parent changed" in e["line"] and pids & pids_in(e)]

    def _child_alive(self, birth: str, index: int) -> bool:
        """Whether the process that a loop is lived at the end of a window."""
        window = self.history.windows[index]
        pids = {event["child"] for event in self.history.of("child") if event["birth"] == birth}
        last = self.history.between("tasks", window.opened, window.closed)[-1:]
        return any(int(key.partition("-")[0]) in pids for event in last for key in event["tasks"])

    # How it fares

    def states(self, loop: Loop, index: int) -> list[State]:
        """Where a loop is, in one window."""
        key = id(loop), index
        if key not in self._states:
            self._states[key] = self._find_states(loop, index)
        return self._states[key]

    def _find_states(self, loop: Loop, index: int) -> list[State]:
        window = self.history.windows[index]
        if loop.kind in _IN_CHILD:
            return self._of_children(loop, index)
        found = []
        for process in self.history.processes.values():
            looks = self._looks.get(process.key, {}).get(index, [])
            if looks and process.alive_at(window.closed):
                state = self._state(loop, process, looks)
                if state.units or state.lies or state.piled:
                    found.append(state)
        return sorted(found, key=lambda state: _order(state.process.place))

    def _of_children(self, loop: Loop, index: int) -> list[State]:
        found: Counter[str] = Counter()
        for birth, event in loop.births.items():
            if self._child_alive(birth, index):
                found[event.process] += 1
        states = []
        for key, units in found.items():
            parent = self.history.processes[key]
            slot = parent.place.slot if parent.place.role != "arbiter" else None
            child = Process(key, parent.pid, parent.ppid, Place("child", slot), parent.first, None)
            states.append(State(child, units, 0))
        return states

    def _state(self, loop: Loop, process: Process, looks: Sequence[Event]) -> State:
        rows = [(look, [unit for unit in look["units"] if unit["birth"] in loop.births]) for look in looks]
        births = {unit["birth"] for _, units in rows for unit in units}
        last = rows[-1][1]
        if not last and len(births) >= _STILL:  # each turn of it is another thread, and one looked between two of them
            last = next((units for _, units in reversed(rows[-_STILL:]) if units), [])
        running = [unit for unit in last if unit["running"]]
        copied = sum(self._is_copy(loop.births[unit["birth"]], process) for unit in running)
        lying = [look for look, units in rows if any(unit["alive"] and not unit["running"] for unit in units)]
        lies = tuple(lying[-2:]) if len(lying) >= 2 and lying[-1] is rows[-1][0] else ()
        prints: dict[str, list[Any]] = {unit["birth"]: [] for unit in running if unit["print"] is not None}
        for _, units in rows:
            for unit in units:
                prints.get(unit["birth"], []).append(unit["print"])
        moves = sum(self._wakes(process, looks, unit) for unit in running if unit["print"] is None)
        moves += sum(a != b for found in prints.values() for a, b in itertools.pairwise(found))
        moves += max(0, len(births) - 1)
        starved = self._starved(looks) if any(unit["print"] is not None for unit in running) else ""
        return State(process, len(running), moves, copied, lies, starved, self._piled(loop, process, rows))

    @staticmethod
    def _is_copy(born: Event, process: Process) -> bool:
        """Whether a fork has put it there: it, or the one that it was started by in turn."""
        return born.process != process.key or bool(born.get("copy_of"))

    def course(self, loop: Loop, process: Process) -> list[tuple[float, int]]:
        """When one looked and the loop ran there, and how often it had moved since the look before."""
        found = []
        looks = [look for looks in self._looks.get(process.key, {}).values() for look in looks]
        before: dict[str, Any] = {}
        woken: dict[str, int] = {}
        for look in sorted(looks, key=lambda look: look.t):
            units = [unit for unit in look["units"] if unit["birth"] in loop.births and unit["running"]]
            told = self.history.between("tasks", process.first, look.t)[-1:]
            tasks = told[0]["tasks"].get(process.key, {}) if told else {}
            moved = 0
            for unit in units:
                birth, wakes = unit["birth"], tasks.get(str(unit["tid"]), 0)
                if unit["print"] is None:
                    moved += max(0, wakes - woken.get(birth, wakes))
                else:
                    moved += birth in before and before[birth] != unit["print"]
                before[birth], woken[birth] = unit["print"], wakes
            if units:
                found.append((look.t, moved))
        return found

    def _wakes(self, process: Process, looks: Sequence[Event], unit: Mapping[str, Any]) -> int:
        """How often a native thread has woken up."""
        told = [
            event["tasks"].get(process.key, {}).get(str(unit["tid"]))
            for event in self.history.between("tasks", looks[0].t - 1, looks[-1].t)
        ]
        counts = [count for count in told if count is not None]
        return counts[-1] - counts[0] if counts else 0

    def _starved(self, looks: Sequence[Event]) -> str:
        """Where the main thread stands while gevent's loop is not run; empty where it is."""
        known = [look for look in looks if look["inside"] is not None]
        if len(known) < _STILL or any(look["inside"] for look in known):
            return ""
        rounds = (known[-1]["iteration"] or 0) - (known[0]["iteration"] or 0)
        if rounds >= _ROUNDS * (known[-1].t - known[0].t):
            return ""
        # One that is in another place each time does something else first, such as to boot on a crowded machine.
        places = {_unnumbered(look["at"][0]) if look["at"] else None for look in known}
        if len(places) > 1:
            return ""
        return str(known[-1]["at"][0]) if known[-1]["at"] else "native code"

    def _piled(self, loop: Loop, process: Process, rows: Sequence[tuple[Event, Sequence[Mapping[str, Any]]]]) -> str:
        """What says that a queue of the loop fills here while nobody takes."""
        if len(rows) < _STILL:
            return ""
        for birth in loop.births:
            units = [unit for _, found in rows for unit in found if unit["birth"] == birth]
            if not _STILL <= len(units) <= len(rows):
                continue
            far = self._far_queue(loop, process, rows, birth)
            if far:
                return far
            if not units[-1]["sizes"]:
                continue
            sizes = [max(unit["sizes"], default=0) for unit in units]
            if sizes[-1] == 0 or any(unit["job"] for unit in units):
                continue
            grown = sizes == sorted(sizes) and sizes[-1] > sizes[0]
            stands = min(sizes[-_STILL:]) >= sizes[-1] and len({tuple(unit["at"]) for unit in units[-_STILL:]}) == 1
            if (
                stands
                and _takes(units[-1])
                and self._waits_without_end(process, [look for look, _ in rows[-_STILL:]], units[-_STILL:])
            ):
                return f"{number(sizes[-1], 'thing')} wait in its queue, and it takes none"
            if any(unit["running"] for unit in units) or self._taken(loop, birth, rows):
                continue
            if grown:
                return f"its queue has grown from {sizes[0]} to {sizes[-1]}, and nobody is there who takes"
            if _is_left(units):
                return f"{number(sizes[-1], 'thing')} in its queue, and nobody is there who takes"
        return ""

    def _far_queue(
        self, loop: Loop, process: Process, rows: Sequence[tuple[Event, Sequence[Mapping[str, Any]]]], birth: str
    ) -> str:
        """What says that a queue that a loop gets at through other objects fills where a fork has left it no thread.

        A store of things that are used again may grow, too, but not with each request that meets no other.
        """
        if any(unit["running"] for unit in rows[-1][1]) or not self._runs_at_home(loop.births[birth], process):
            return ""
        told = [(look, unit.get("far", [])) for look, units in rows for unit in units if unit["birth"] == birth]
        for place in range(len(told[-1][1])):  # some are found later than others
            known = [(look, far[place]) for look, far in told if place < len(far)]
            steps = [(one, other) for one, other in itertools.pairwise(known) if self._alone(process, one[0], other[0])]
            first, last = known[0][1], known[-1][1]
            if sum(other[1] > one[1] for one, other in steps) >= _AGAIN and last > first:
                return f"a queue of it has grown from {first} to {last}, and nobody is there who takes"
        return ""

    def _runs_at_home(self, born: Event, process: Process) -> bool:
        """Whether a loop of another process runs there, while this one has a copy of what it left."""
        looks = [look for found in self._looks.get(born.process, {}).values() for look in found]
        return born.process != process.key and any(
            unit["birth"] == born["birth"] and unit["running"] for look in looks for unit in look["units"]
        )

    def _alone(self, process: Process, before: Event, after: Event) -> bool:
        """Whether requests were answered in a process between two looks, no two of them at a time."""
        ended = {event["request"]: event for event in self.history.between("request.ok", before.t, after.t)}
        asked = {event["request"]: event.t for event in self.history.of("request.invoke") if event["request"] in ended}
        turns = sorted(
            (asked[number], end.t) for number, end in ended.items()
            if number in asked and end["worker"] in ("", process.key)
        )  # fmt: skip
        mine = any(end["worker"] == process.key for end in ended.values())
        return mine and before.t <= turns[0][0] and all(one[1] <= other[0] for one, other in itertools.pairwise(turns))

    def _waits_without_end(self, process: Process, looks: Sequence[Event], units: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a native thread stands in a wait without end: one that has an end may be there to collect."""
        if not all(unit["running"] and unit["print"] is None for unit in units) or self._wakes(
            process, looks, units[-1]
        ):
            return False
        told = self.history.between("tasks", looks[0].t - _EARLIER, looks[-1].t)
        return bool(told) and all(units[-1]["tid"] in event.get("locked", {}).get(process.key, ()) for event in told)

    def _taken(self, loop: Loop, birth: str, rows: Sequence[tuple[Event, Sequence[Mapping[str, Any]]]]) -> bool:
        """Whether another thread of the loop is there that takes from the same queue: as much is in it at each look.

        Those of an executor have one queue.
        """
        running = {unit["birth"] for unit in rows[-1][1] if unit["running"]}
        if loop.kind in _RUNNERS:
            return bool(running)
        looks = [{unit["birth"]: unit["sizes"] for unit in units} for _, units in rows]
        both = {other: [(one[birth], one[other]) for one in looks if {birth, other} <= one.keys()] for other in running}
        return any(pairs and all(one == other for one, other in pairs) for pairs in both.values())

    # What is wrong

    def findings(self) -> list[Finding]:
        """Every claim that such a run can tell of, the loops' first."""
        found = [*self._boots()]
        if not self.history.windows:
            return found
        for loop in self.loops:
            found += [self._placement(loop), self._copies(loop), self._dead(loop), self._hungry(loop), self._back(loop)]
        found += [self._unmet(pattern) for pattern in self.unmatched]
        found += [self._answers(), self._hears(), *self._outlived(), self._stop(), self._shared(), self._quiet()]
        return found

    def _windows(self) -> Iterable[tuple[int, Window]]:
        return enumerate(self.history.windows)

    def _boots(self) -> list[Finding]:
        claim = "workers_boot"
        bad = [event for event in self.history.of("bound") if event["what"] == "boot"]
        if not self.history.of("booted") and not self.history.windows:
            last = self.history.of("log")[-20:]
            within = f" within {bad[0]['seconds']:g} s: --boot S gives it more" if bad else ""
            lost = [f": {event['workers']} workers ended before one had booted" for event in self.history.of("lost")]
            told = f"the app did not boot{within}" + "".join(lost) + self._asked_at_boot()
            first = [*self.history.of("lost"), *bad][:1] or [line for line in last if _TROUBLE.search(line["line"])][:1]
            seen = (*first, *(line for line in last if line not in first))
            return [Finding(claim, Verdict.BROKEN, None, told, seen, how="never")]
        unhealed = [e for e in self.history.of("fault.healed") if not e["healed"]]
        if unhealed:
            told = f"after {unhealed[0]['fault']} not every worker was there and answered again"
            return [Finding(claim, Verdict.BROKEN, None, told, (*unhealed, *bad), how="not back")]
        crashed = self._crashes()
        if crashed:
            return crashed
        told = "every worker booted and answered"
        return [Finding(claim, Verdict.HELD, None, told, tuple(self.history.of("booted")))]

    def _asked_at_boot(self) -> str:
        asked = self.history.of("request.invoke")
        if not asked:
            return ""
        path, answered = asked[0]["path"], len(self.history.of("request.ok"))
        return f"; of {len(asked)} requests for {path} {answered} were answered: --health PATH asks for another"

    def _crashes(self) -> list[Finding]:
        """Workers that ended where nobody had them end. One that stays after a reload was told to, however it ends."""
        told_to = {key for event in self.history.of("outlived") for key in event["processes"]}
        found = []
        for _, window in self._windows():
            for process in self.history.processes.values():
                gone = process.gone
                if process.place.role != "worker" or process.key in told_to or gone is None:
                    continue
                if window.opened < gone < window.closed and not self._is_spent(process):
                    lines = self._last_lines(process, gone)
                    told = f"{who(self.history, process.key)} ended by itself at {clock(self.history, gone)}"
                    told += f", after {quoted(lines[-1])}" if lines else ""
                    given_up = any(_TIMEOUT in line["line"] and process.pid in pids_in(line) for line in lines)
                    granted = self._granted_of_timeout(gone) if given_up else ""
                    verdict = Verdict.UNKNOWN if granted else Verdict.BROKEN
                    found.append(Finding("workers_boot", verdict, None, told + granted, tuple(lines[-5:]), "crash"))
        return sorted(found, key=lambda one: one.verdict is not Verdict.BROKEN)[:1]

    def _is_spent(self, process: Process) -> bool:
        """Whether a worker has had as many requests as max_requests lets it have, or says that it has."""
        most = self.server.get("max_requests", 0) if self.server is not None else 0
        answered = sum(event.get("worker") == process.key for event in self.history.of("request.ok"))
        said = any(event.get("by") == process.key and _SPENT in event["line"] for event in self.history.of("log"))
        return most > 0 and (said or answered >= most)

    def _granted_of_timeout(self, gone: float) -> str:
        """Of a worker that gunicorn has given up: that the machine gave it too little time to tell that it lives."""
        timeout = self.server["timeout"] if self.server is not None else 0
        granted = self.history.granted(gone - timeout, gone)
        enough = granted is None or granted >= ENOUGH * timeout
        return "" if enough else f"; but the machine gave it only {granted:.2f} s of {timeout} s"

    def _last_lines(self, process: Process, gone: float) -> list[Event]:
        """What was printed when a worker ended; if that is told, the trouble that gunicorn had with it."""
        told = self.history.between("log", process.first, gone + _LATE)
        trouble = [line for line in told if process.pid in pids_in(line) and _TROUBLE.search(line["line"])]
        return trouble or [line for line in told if line.t >= gone - 1]

    def _placement(self, loop: Loop) -> Finding:
        claim = "exactly_one_listener"
        if loop.policy is None:
            places = [f"{state.process.place} ({state.word})" for state in self.states(loop, 0)]
            told = f"no policy says where it is meant to be; it is in {listing(places) if places else 'no process'}"
            return Finding(claim, Verdict.NOT_APPLICABLE, loop.name, told)
        if loop.policy is Policy.BEST_EFFORT:
            return Finding(claim, Verdict.NOT_APPLICABLE, loop.name, "the policy best_effort is counted, never judged")
        for index, window in self._windows():
            wrong, how, where = self._misplaced(loop, index, window)
            if wrong:
                told = f"after {window.after}: {wrong}; the policy is {loop.policy.value}"
                seen = self._evidence(loop, index, where, since=window)
                return Finding(claim, Verdict.BROKEN, loop.name, told, seen, how)
        windows = number(len(self.history.windows), "window")
        told = f"it was where {loop.policy.value} says in each of {windows}"
        return Finding(claim, Verdict.HELD, loop.name, told, self._evidence(loop, 0))

    def _unmet(self, pattern: str) -> Finding:
        """A policy for what was not there: where it is meant to run cannot be said to have been seen."""
        claim = "exactly_one_listener"
        if self.policies[pattern] is Policy.BEST_EFFORT:
            return Finding(claim, Verdict.NOT_APPLICABLE, pattern, "no loop is called so")
        told = "no loop is called so: it never ran, or nothing gave it work, or it has another name"
        return Finding(claim, Verdict.UNKNOWN, pattern, told)

    def _misplaced(self, loop: Loop, index: int, window: Window) -> tuple[str, str, Sequence[str]]:
        """What is wrong with where a loop is, in which way, and the processes that tell; empty where nothing is."""
        states = [state for state in self.states(loop, index) if state.units]
        useful = [state for state in states if not state.starved and not state.piled]
        counts = Counter(str(state.process.place) for state in states)
        for state in states:
            if loop.kind not in _RUNNERS:
                counts[str(state.process.place)] += state.units - 1
        total = sum(counts.values())
        where = listing(f"{place}{f' x{count}' if count > 1 else ''}" for place, count in counts.items())
        if not useful:
            stand = [state.process.key for state in states]
            return f"it runs in no process{f' ({where} stand still)' if states else ''}", "zero", stand
        # Where it was first is as good a place as any; what came after is too much.
        later = [state.process.key for state in sorted(states, key=lambda state: state.process.first)][1:]
        if loop.policy is Policy.ONCE_PER_SERVICE and total > 1:
            return f"it runs {total} times: in {where}", "double", later
        if loop.policy is Policy.ARBITER_ONLY:
            outside = [s for s in states if s.process.place.slot is not None or s.process.place.role == "worker"]
            if outside or total > 1:
                return f"it runs in {where}", "double", [state.process.key for state in outside] or later
        if loop.policy is Policy.ONCE_PER_WORKER:
            wanted = set(window.slots or ())
            missing = sorted(wanted - {state.process.place.slot for state in useful})
            extra = [s for s in states if s.process.place.slot is None]
            if missing:
                told = f"it does not run in {listing(f'worker {slot}' for slot in missing)}"
                silent = [p.key for p in self.history.live_workers(window).values() if p.place.slot in missing]
                return told, "zero", silent
            if extra or total > len(wanted):
                told = f"it runs {total} times for {number(len(wanted), 'worker')}: in {where}"
                return told, "double", [state.process.key for state in extra] or later
        return "", "", ()

    def _copies(self, loop: Loop) -> Finding:
        claim = "no_copied_thread"
        if loop.policy in (Policy.INHERIT_ALLOWED, Policy.BEST_EFFORT):
            told = f"the policy {loop.policy.value} allows copies"
            return Finding(claim, Verdict.NOT_APPLICABLE, loop.name, told)
        for index, window in self._windows():
            copies = [state for state in self.states(loop, index) if state.copied]
            if copies:
                places = listing(who(self.history, state.process.key) for state in copies)
                seen = self._evidence(loop, index, [state.process.key for state in copies], there=True)
                creators = listing({who(self.history, event.process) for event in loop.births.values()}, 2)
                told = f"created in {creators}, and also alive in {places}: copied by a fork (after {window.after})"
                return Finding(claim, Verdict.BROKEN, loop.name, told, seen, "copied")
        return Finding(claim, Verdict.HELD, loop.name, "it lives nowhere but where it was created")

    def _dead(self, loop: Loop) -> Finding:
        claim = "no_dead_listener"
        died = [e for e in self.history.of("loop.end") if e["birth"] in loop.births and e["error"]]
        died = [event for event in died if event.t < self._term]
        if died:
            told = f"it died in {who(self.history, died[0].process)} of {died[0]['error']}"
            at = died[0].get("at")
            told += f", raised at {at[-1]}" if at else ""
            return Finding(claim, Verdict.BROKEN, loop.name, told, tuple(died), "died")
        strays = [line for birth in loop.births for line in self._astray(birth) if line.t < self._term]
        if strays:
            told = f"its process ended: it ran the code of the worker that forked it, {quoted(strays[0])}"
            return Finding(claim, Verdict.BROKEN, loop.name, told, tuple(strays), "ran the worker's code")
        ended = self._ended_by_another(loop)
        if ended is not None:
            return ended
        for index, window in self._windows():
            for state in self.states(loop, index):
                place = who(self.history, state.process.key)
                if state.lies:
                    told, how = f"in {place} its owner sees it alive, and nothing runs it there", "believed alive"
                    if self._born_here(loop, state):
                        told, how = f"in {place} it has ended, and counts as alive for good", "ended unnoticed"
                    told += f" (after {window.after})"
                    return Finding(claim, Verdict.BROKEN, loop.name, told, state.lies, how)
                if state.piled and not state.units:
                    told = f"in {place} {state.piled} (after {window.after})"
                    here = any(event.process == state.process.key for event in loop.births.values())
                    how = "abandoned" if here else "dead in worker"
                    seen = self._evidence(loop, index, [state.process.key])
                    return Finding(claim, Verdict.BROKEN, loop.name, told, seen, how)
        return Finding(claim, Verdict.HELD, loop.name, "nothing takes it for alive where nothing runs it")

    def _ended_by_another(self, loop: Loop) -> Finding | None:
        """Of a process: that one which had inherited it has ended it, and that there is no other in its place."""
        for event in self.history.of("ended"):
            if event["birth"] not in loop.births or event.t > self._term:
                continue
            owner = loop.births[event["birth"]].process
            for index, window in self._windows():
                living = any(
                    self._child_alive(birth, index) for birth, born in loop.births.items() if born.process == owner
                )
                if window.opened > event.t and self.history.processes[owner].alive_at(window.closed) and not living:
                    told = f"{who(self.history, event.process)} has ended its process (pid {event['child']}), which "
                    told += f"{who(self.history, owner)} has started and does not start again (after {window.after})"
                    return Finding("no_dead_listener", Verdict.BROKEN, loop.name, told, (event,), "ended by another")
        return None

    @staticmethod
    def _born_here(loop: Loop, state: State) -> bool:
        """Whether what counts as alive was started in that process itself."""
        units = [unit for unit in state.lies[-1]["units"] if unit["alive"] and not unit["running"]]
        return any(
            unit["birth"] in loop.births and loop.births[unit["birth"]].process == state.process.key for unit in units
        )

    def _hungry(self, loop: Loop) -> Finding:
        claim = "no_starved_greenlet"
        for index, window in self._windows():
            for state in self.states(loop, index):
                place = who(self.history, state.process.key)
                if not state.units or not (state.starved or state.piled):
                    continue
                told, how = f"in {place} {state.piled}", "stuck"
                if state.starved:
                    told = f"in {place} gevent's loop is not run, so it has no turns: the main thread stands in "
                    told, how = f"{told}{state.starved}", "starved"
                seen = self._evidence(loop, index, [state.process.key])
                return Finding(claim, Verdict.BROKEN, loop.name, f"{told} (after {window.after})", seen, how)
        return Finding(claim, Verdict.HELD, loop.name, "wherever it is, it can have its turns")

    def _back(self, loop: Loop) -> Finding:
        claim = "handover_is_safe"
        before = {state.process.place for state in self.states(loop, 0) if state.units and _in_worker(state)}
        windows = list(self._windows())
        if len(windows) < 2:
            return Finding(claim, Verdict.NOT_APPLICABLE, loop.name, "no worker was replaced")
        slots = self.history.windows[0].slots or ()
        everywhere = {place.slot for place in before} >= set(slots)
        for index, window in windows[1:]:
            after = {state.process.place for state in self.states(loop, index) if state.units and _in_worker(state)}
            missing = sorted(str(place) for place in before - after - self._begun(loop, window))
            if missing and everywhere and loop.policy is not Policy.BEST_EFFORT:
                told = f"it ran in every worker, and after {window.after} it does not come back in {listing(missing)}"
                fresh = [p.key for p in self.history.live_workers(window).values() if str(p.place) in missing]
                seen = self._evidence(loop, index, fresh, since=window)
                return Finding(claim, Verdict.BROKEN, loop.name, told, seen, "not back")
        return Finding(claim, Verdict.HELD, loop.name, "it is again where it was once workers were replaced")

    def _begun(self, loop: Loop, window: Window) -> set[Place]:
        """The workers in which it was started again: where it is not there, it has ended, as work does when it is done.

        Nobody tells of what a greenlet has ended, so one counts in new workers alone.
        """
        old = {key for key, one in self.history.processes.items() if one.alive_at(self.history.windows[0].closed)}
        bodies = {_body(event) for event in loop.births.values()}
        created = (one for one in self.history.of("loop.created") if one.t <= window.closed and _body(one) in bodies)
        made = {event.process for event in created}
        made -= old if loop.kind == "greenlet" else set()
        workers = (one for key, one in self.history.processes.items() if key in made and one.alive_at(window.closed))
        return {one.place for one in workers if one.place.slot is not None}

    def _evidence(
        self, loop: Loop, index: int, where: Sequence[str] = (), *, since: Window | None = None, there: bool = False
    ) -> tuple[Event, ...]:
        """The last looks of a window, first those into the processes that tell; and where it was created.

        What is there and must not be was so from the first look that saw it; of what was so all along, `since` is the
        window.
        """
        last = {key: found[index][-1] for key, found in self._looks.items() if found.get(index)}
        bad = [last[key] for key in where if key in last][:6]
        bad = bad or [event for event in self.history.of("role") if event.process in where][:6]
        if there:
            inside = [look for key in where for look in self._looks.get(key, {}).get(index, ())]
            runs = (one for one in inside if any(u["birth"] in loop.births and u["running"] for u in one["units"]))
            first = sorted(runs, key=lambda look: look.t)[:1]
            bad = [*first, *(look for look in bad if look not in first)]
        looks = [one for one in last.values() if any(unit["birth"] in loop.births for unit in one["units"])]
        looks = [look for look in looks if look not in bad][:6]
        opened = [one for one in self.history.of("window.open") if since is not None and one["window"] == since.index]
        return (*opened, *bad, *list(loop.births.values())[:4], *looks)

    # The server

    @cached_property
    def _term(self) -> float:
        ended = [event.t for event in self.history.of("fault.ok") if event["fault"] == "term"]
        return min([*ended, *(event.t for event in self.history.of("killed"))], default=float("inf"))

    def _answers(self) -> Finding:
        claim = "server_answers"
        silent, asked = [], 0
        for _, window in self._windows():
            numbers = {e["request"] for e in self.history.between("request.invoke", window.opened, window.closed)}
            asked += len(numbers)
            silent += [e for e in self.history.of("request.info", "request.fail") if e["request"] in numbers]
        if silent:
            told = f"{len(silent)} of {number(asked, 'request')} got no answer: {silent[0]['error']}"
            return Finding(claim, Verdict.BROKEN, None, told, tuple(silent[:6]), "no answer")
        if not asked:
            return Finding(claim, Verdict.NOT_APPLICABLE, None, "no request was sent")
        return self._errors() or Finding(claim, Verdict.HELD, None, f"each of {number(asked, 'request')} was answered")

    def _errors(self) -> Finding | None:
        """Answers that tell of an error, to what the user has asked for, or to what was answered without one, too."""
        work = {event["path"] for event in self.history.of("request.invoke") if event.get("work")}
        answers: dict[str, list[Event]] = {}
        for _, window in self._windows():
            for event in self.history.between("request.ok", window.opened, window.closed):
                answers.setdefault(str(event.get("path")), []).append(event)
        for path, told in answers.items():
            bad = [event for event in told if event.get("status", 0) >= _ERROR]
            if bad and (path in work or len(bad) < len(told)):
                places = listing(dict.fromkeys(str(Place("worker", event["slot"])) for event in bad), 4)
                said = f"{len(bad)} of {number(len(told), 'request')} to {path} came to {bad[0]['status']}, in {places}"
                lines = self.history.between("log", bad[0].t - _LATE, bad[0].t + _LATE)
                raised = next((line for line in lines if RAISED.match(line["line"])), None)
                said += f": {quoted(raised)}" if raised else ""
                return Finding("server_answers", Verdict.BROKEN, None, said, (*bad[:6], *lines[-20:]), "error")
        return None

    def _hears(self) -> Finding:
        """Whether every process could be looked into: a main thread that runs no Python code hears nothing."""
        claim = "no_starved_greenlet"
        for _, window in self._windows():
            asked = self.history.between("look.asked", window.opened, window.closed)
            deaf = Counter(key for event in asked for key in event["deaf"])
            for key, times in deaf.items():
                if times >= _STILL:
                    told = f"the main thread of {who(self.history, key)} ran no Python code in {times} of {len(asked)}"
                    return Finding(claim, Verdict.UNKNOWN, None, f"{told} looks (after {window.after})", tuple(asked))
        return Finding(claim, Verdict.NOT_APPLICABLE, None, "every process could be looked into")

    def _outlived(self) -> list[Finding]:
        """Workers of before a reload that go on beside those that have taken their places."""
        bound = self._patience
        for event in self.history.of("outlived"):
            names = [who(self.history, key) for key in event["processes"]]
            living = self._living_in(event["processes"], event.t)
            told = (
                f"{event['seconds']:.1f} s after {event['fault']}, {listing(names)} of before still ran beside the new"
            )
            told += f" ones: gunicorn waits graceful_timeout ({bound} s) for them, and then lets them go on{living}"
            granted = self.history.granted(event.t - event["seconds"], event.t)
            if granted is not None and granted < ENOUGH * bound:
                told += f"; but the machine gave it only {granted:.2f} s"
                return [Finding("handover_is_safe", Verdict.UNKNOWN, None, told, (event,), "old workers stay")]
            found = Finding("handover_is_safe", Verdict.BROKEN, None, told, (event,), "old workers stay")
            return [self._as_far_as_waited(found)]
        return []

    def _living_in(self, keys: Iterable[str], t: float) -> str:
        """The loops that run in some processes, as last seen by a time."""
        found = []
        for key in keys:
            for look in [one for one in self.history.of("look") if one.process == key and one.t <= t][-1:]:
                found += [
                    loop.name for unit in look["units"] for loop in self.loops
                    if unit["running"] and unit["birth"] in loop.births
                ]  # fmt: skip
        return f"; in them: {listing(dict.fromkeys(found))}" if found else ""

    @property
    def _patience(self) -> int:
        """gunicorn's graceful_timeout."""
        return int(self.server["graceful_timeout"]) if self.server else 30

    def _stop(self) -> Finding:
        bound = self._patience
        (found,) = clean_shutdown(_stopping(bound), self.history)
        if found.verdict is Verdict.HELD:
            found = self._killed(bound) or found
        if found.verdict is Verdict.BROKEN:
            found = replace(found, explanation=found.explanation + self._what_keeps())
        masters = {one.pid for one in self.history.processes.values() if one.place.role == "arbiter"}
        left = {process["pid"] for event in self.history.of("left") for process in event["processes"]}
        return self._as_far_as_waited(found) if masters & left else found

    def _as_far_as_waited(self, found: Finding) -> Finding:
        """Of what had not ended when one waited no longer: open where it might have more of graceful_timeout left."""
        if self._patience <= LONGEST_STOP:
            return found
        told = f"; of graceful_timeout ({self._patience} s) a check waits for {LONGEST_STOP} s at most: to have it "
        told += f"decided, add `-- --graceful-timeout {LONGEST_STOP // 2}`"
        return replace(found, verdict=Verdict.UNKNOWN, explanation=found.explanation + told)

    def _killed(self, bound: int) -> Finding | None:
        """A worker that was killed when graceful_timeout was used up, and that was left to the supervisor to reap."""
        workers = {one.pid: key for key, one in self.history.processes.items() if one.place.role == "worker"}
        for event in self.history.of("exit"):
            if event.t > self._term and event["child"] in workers and event["status"] == -signal.SIGKILL:
                granted = self.history.granted(self._term, event.t)
                told = (
                    f"{who(self.history, workers[event['child']])} was killed {event.t - self._term:.1f} s after TERM: "
                )
                told += f"graceful_timeout ({bound} s) was used up"
                if granted is not None and granted < ENOUGH * bound:
                    told += f"; but the machine gave it only {granted:.2f} s of these"
                    return Finding("clean_shutdown", Verdict.UNKNOWN, None, told, (event,))
                return Finding("clean_shutdown", Verdict.BROKEN, None, told, (event,), "killed")
        return None

    def _what_keeps(self) -> str:
        """The loops that still ran when it should have stopped."""
        looks = [look for look in self.history.of("look") if look.t > self._term]
        living = [
            f"{loop.name} in {who(self.history, look.process)}"
            for look in looks
            for unit in look["units"]
            for loop in self.loops
            if unit["running"] and unit["birth"] in loop.births and loop.births[unit["birth"]].get("daemon") is False
        ]
        return f"; not a daemon, and still running: {listing(dict.fromkeys(living))}" if living else ""

    def _shared(self) -> Finding:
        return no_socket_shared_across_fork(_PLAIN, self.history)[0]

    def _quiet(self) -> Finding:
        """Exceptions by which something has ended; those that Python has ignored are told, and no failure."""
        passed = {id(event) for block in self.ignored for event in block}
        printed = {id(event) for lines in self._printed.values() for event in lines} - passed
        before = [
            event for event in self.history.events
            if event.t < self._term and (event.event != "log" or id(event) in printed)
        ]  # fmt: skip
        found = quiet_runtime(_PLAIN, History(before, self.history.damage))[0]
        told = f"; {number(len(self.ignored), 'exception')} that Python has ignored" if self.ignored else ""
        return replace(found, explanation=found.explanation + told)

    @cached_property
    def ignored(self) -> list[list[Event]]:
        """What was printed of exceptions that Python has ignored."""
        return [block for lines in self._printed.values() for block in ignored(lines)]

    @cached_property
    def _printed(self) -> dict[str | None, list[Event]]:
        """The lines of the master, None, and of each worker; none of one that has said that it ends, or after TERM."""
        found: dict[str | None, list[Event]] = {}
        ended = set()
        for line in self.history.of("log"):
            by = line.get("by")
            if line.t < self._term and by not in ended:
                found.setdefault(by, []).append(line)
            if by is not None and "Worker exiting" in line["line"]:
                ended.add(by)
        return found


def _body(event: Event) -> tuple[str, str, str]:
    """What a loop is told by: its name, its kind, where it is defined."""
    return event["loop"], event["kind"], event.get("defined_at") or event.get("user") or "?"


def _takes(unit: Mapping[str, Any]) -> bool:
    """Whether a thread stands where something is taken from a queue, and each queue that it has holds something.

    One that has a queue for what it makes, or a deque to remember by, may wait for something else.
    """
    calls = [call.rpartition(" in ")[2] for call in unit["at"][:4]]
    pooled = calls[:1] == ["_worker"] and "concurrent/futures/" in unit["at"][0]  # C code takes there
    return ("get" in calls or pooled) and min(unit.get("waiting") or [0]) > 0


def _is_left(units: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is always something in the queue of an executor that is open, in the process that has made it.

    One that is shut down keeps a mark in its queue.
    """
    mine = all(unit.get("open") and not unit.get("inherited") for unit in units)
    return mine and min(max(unit["sizes"], default=0) for unit in units) > 0


def _unnumbered(job: str | None) -> tuple[str, str] | None:
    """The file and function of a job, whatever line it is in."""
    if job is None:
        return None
    place, _, name = job.rpartition(" in ")
    return place.rpartition(":")[0], name


def _same_job(key: tuple[str, str, str], name: str, at: str) -> bool:
    return key[:2] == (name, "job") and key[2].rpartition(":")[0] == at.rpartition(":")[0]


def _in_worker(state: State) -> bool:
    return state.process.place.slot is not None


def _order(place: Place) -> tuple[int, int]:
    return ("arbiter", "worker", "child").index(place.role), -1 if place.slot is None else place.slot
