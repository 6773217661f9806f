"""Whether `forkproof check` says of the apps in `examples/apps` what `examples/truth.toml` says that they do.

    python benchmarks/truth_of_check.py [--runs 1] [-j 2] [--app NAME]... [--deployment NAME]...

Runs `check` on each app in each deployment, gives it the work that `benchmarks/truth.py` gives it, and holds the answer
against what was counted at the other end without forkproof. Exits 1 where the two contradict each other.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import truth

from forkproof import broker, check
from forkproof.observed import Loop, State
from forkproof.verdict import Verdict

PHASES = {"boot": "boot", "kill_worker": "replaced", "hup": "reloaded"}
"""Windows of `check` by what they come after, and what the truth calls them."""
BY_REQUEST = {"executor", "queue-listener", "opentelemetry"}
"""Apps whose loops are given work by requests: no request ever comes to the arbiter."""
REQUESTS = {**dict.fromkeys(BY_REQUEST, "/orders/unit-1"), "socketio": "/socket.io/?EIO=4&transport=polling"}
_NO_BOOT = "workers_boot, and not for one that ended later"
_SHARED = {"no_socket_shared_across_fork", "no_copied_thread"}
_SILENT = {*_SHARED, "no_dead_listener", "no_starved_greenlet"}
"""What tells that work may not be done, of any loop: one hands its work to another."""
NAMES = {"_worker": "executor"}
"""Loops that `check` names after who made them: by their kind."""
_PUBLISH = """
import os, time, redis
store = redis.Redis.from_url(os.environ["REDIS_URL"])
for number in range(20):
    store.publish("orders", f"unit-{number}")
    time.sleep(0.03)
"""
_BROWSE = """
import http.client, os, urllib.parse
server = urllib.parse.urlsplit(os.environ["FORKPROOF_URL"]).netloc
for _ in range(4):
    one, path = http.client.HTTPConnection(server, timeout=1), "/socket.io/?EIO=4&transport=polling"
    for method, body in (("GET", None), ("POST", "40"), ("GET", None), ("GET", None)):
        try:
            one.request(method, path, body)
            said = one.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            break
        if said.startswith("0{"):
            path += "&sid=" + said.partition('"sid":"')[2].partition('"')[0]
    one.close()
"""
"""A browser that listens for a while, and goes: where nothing comes, its request is there until the server gives up."""
EVENTS = {
    **dict.fromkeys(("redis-listener", "redis-run-in-thread"), _PUBLISH), "socketio": _BROWSE,
}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What `check` said of one run, in the truth's terms."""

    works: dict[str, dict[str, set[str]]]
    """Loop, phase: the places where it says that the loop is, and finds nothing wrong."""
    bad: dict[str, set[str]]
    """Loop, or the empty word for the server: the claims that broke."""
    unknown: set[str]


def place(state: State) -> str:
    """A process, as the truth names it."""
    role = state.process.place.role
    return "child" if role == "child" else str(state.process.place)


def understood(app: str, report: check.CheckReport) -> Told:
    """What a report says of the loops that the truth knows."""
    observed = report.observed
    works: dict[str, dict[str, set[str]]] = {}
    bad: dict[str, set[str]] = {}
    unknown = {one.finding.claim for one in report.judgements if one.finding.verdict is Verdict.UNKNOWN}
    for judgement in report.broken:
        bad.setdefault(judgement.finding.loop or "", set()).add(judgement.finding.claim)
    if any(judgement.finding.how in ("never", "not back") for judgement in report.broken):
        bad.setdefault("", set()).add(_NO_BOOT)
    for name in truth.LOOPS[app]:
        loops = [loop for loop in observed.loops if _is(loop, name)]
        for index, window in enumerate(observed.history.windows):
            states = [state for loop in loops for state in observed.states(loop, index)]
            well = [one for one in states if one.units and not (one.starved or one.piled or one.lies)]
            works.setdefault(name, {})[PHASES[window.after]] = {place(state) for state in well}
        bad[name] = set().union(*(bad.get(loop.name, set()) for loop in loops))
    return Told(works, bad, unknown)


def _is(loop: Loop, name: str) -> bool:
    return loop.kind == NAMES[name] if name in NAMES else loop.name.partition("@")[0] == name


def contradictions(app: str, written: truth.Table, told: Told) -> list[str]:
    """What `check` says that cannot be, by the truth. What differs from run to run contradicts nothing."""
    found = []
    for name, loop in written["loops"].items():
        failures = set[str]().union(*told.bad.values())
        for phase in truth.PHASES:
            rates = {where: _share(rate) for where, rate in loop[phase]["works_in"].items()}
            seen = told.works.get(name, {}).get(phase)
            if seen is None:
                continue
            for where in sorted(seen | rates.keys()):
                rate = rates.get(where, 0.0)
                if rate == 1 and where not in seen and where != "former worker":
                    found.append(f"{name} {phase}: works in {where}, and is not said to be well there")
                if rate == 0 and where in seen and not _idle(app, where) and not failures & _SILENT:
                    found.append(f"{name} {phase}: does nothing in {where}, and is said to be well there")
            once = set(loop[phase]["times"]) == {"1"}
            many = [where for where, rate in rates.items() if rate == 1]
            if once and len(many) > 1 and app not in BY_REQUEST and not failures & _SHARED:
                found.append(f"{name} {phase}: {many} share what comes to them, and that is not told")
        if not any(_share(rate) for rate in loop["boot"]["works_in"].values()) and not failures:
            found.append(f"{name}: works nowhere, and nothing is said to be wrong")
    ends = written["term"]
    stopped = "clean_shutdown" in told.bad.get("", set())
    clean = set(ends) == {"in time"} and _share(written["left_processes"]) == 0
    # The truth is of workers that hang in no request: those it has killed before its TERM, as gunicorn does in the end.
    if clean and stopped and "server_answers" not in told.bad.get("", set()):
        found.append("it ends in time at TERM, and is said not to")
    if "in time" not in ends and not stopped and "clean_shutdown" not in told.unknown:
        found.append("it does not end in time at TERM, and that is not told")
    if all(_share(written[phase]) == 1 for phase in truth.PHASES) and _NO_BOOT in told.bad.get("", set()):
        found.append("its workers boot, and are said not to")
    return found


def _idle(app: str, where: str) -> bool:
    """Whether a place is given no work, so that a loop may be well there and do none."""
    return app in BY_REQUEST and where == "arbiter"


def _share(rate: str) -> float:
    seen, tried = map(int, rate.split("/"))
    return seen / tried if tried else 0.0


@contextlib.contextmanager
def deployment(app: str, name: str) -> Iterator[check.Deployment]:
    """An app of the examples with what it talks to, and what gives it work."""
    kind = "redis-server" if shutil.which("redis-server") else "embedded"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="truth-")))
        own = stack.enter_context(broker.start(broker.parse(kind), folder))
        collector = stack.enter_context(contextlib.closing(truth.Collector()))
        environment = {
            "REDIS_URL": f"redis://{own.host}:{own.port}/0",
            "REPORT": str(folder / "report.log"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "300",
        }
        yield check.Deployment(
            "app:app", config=str(truth.DEPLOYMENTS / f"{name}.conf.py"), folder=truth.APPS / app,
            environment=environment, requests=(REQUESTS[app],) if app in REQUESTS else (),
            events=(shlex.join([sys.executable, "-c", EVENTS[app]]),) if app in EVENTS else (),
        )  # fmt: skip


def compare(checker: check.Checker, app: str, name: str) -> tuple[list[str], check.CheckReport]:
    """Run `check` once; what it says that cannot be."""
    with deployment(app, name) as what:
        report = checker.check(what)
    return contradictions(app, truth.read()[app][name], understood(app, report)), report


def main() -> int:
    """Run them, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("-j", type=int, default=2)
    parser.add_argument("--app", action="append", choices=sorted(truth.LOOPS))
    parser.add_argument("--deployment", action="append", choices=truth.deployments())
    parser.add_argument("--out", type=Path, default=Path(".forkproof"))
    arguments = parser.parse_args()
    cells = [
        (app, name) for app in arguments.app or truth.LOOPS for name in arguments.deployment or truth.deployments()
    ]
    wrong = 0
    with check.open_checker(sys.executable, arguments.out) as checker, ThreadPoolExecutor(arguments.j) as pool:

        def one(cell: tuple[str, str]) -> tuple[list[str], Sequence[str], Path]:
            told, report = compare(checker, *cell)
            return told, [check.identity(judgement.finding) for judgement in report.broken], report.folder

        futures = [(cell, pool.submit(one, cell)) for cell in cells for _ in range(arguments.runs)]
        for cell, future in futures:
            told, ids, folder = future.result()
            wrong += bool(told)
            verdict = "CONTRADICTS" if told else "agrees"
            print(f"{' '.join(cell)}: {verdict}; says {', '.join(ids) or 'nothing'} ({folder})")
            for line in told:
                print(f"    {line}", flush=True)
    print(f"{len(futures) - wrong} of {len(futures)} agree with the truth")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
