"""What helps against a failure of the user's app, in the words of the user's own files."""

from __future__ import annotations

from pathlib import Path

from forkproof import tracebacks
from forkproof.claims.base import listing
from forkproof.history import Event
from forkproof.observed import Loop, Observed
from forkproof.scenario import Policy
from forkproof.verdict import Finding

_POST = (
    "Start it in the hook `post_worker_init` (once in each worker), or in a process of its own beside gunicorn "
    "(once per service)"
)
_MEANT: dict[Policy | None, str] = {
    Policy.ONCE_PER_SERVICE: (
        "Start it in a process of its own beside gunicorn, or in the one worker that gets a lock (of a file, of Redis) "
        "in the hook `post_worker_init`"
    ),
    Policy.ONCE_PER_WORKER: "Start it in the hook `post_worker_init`, which each worker runs once",
    Policy.ARBITER_ONLY: "Start it in the hook `when_ready`, which the master alone runs",
}
"""Where a loop is to be started, by what is meant."""


def cure(finding: Finding, observed: Observed, folder: Path) -> str:
    """Cause and cure of a failure; empty where nothing is known."""
    loop = next((loop for loop in observed.loops if loop.name == finding.loop), None)
    text = _of_loop(finding, loop, observed) if loop is not None else _of_server(finding, observed)
    if finding.claim == "workers_boot" and finding.how == "never":
        text = " ".join(filter(None, [_printed(observed, folder), text]))
    return text.replace(f"{folder}/", "")


def _of_loop(finding: Finding, loop: Loop, observed: Observed) -> str:
    told = f"`{loop.name}`, {loop.defined_at}, is started by {loop.started}"
    forked = _before_fork(loop, observed)
    if finding.claim == "no_copied_thread":
        return (
            f"{told}, before the workers are forked{_because(observed)}: threads are greenlets then, and a fork copies "
            f"greenlets. {_POST}, or say --policy '{loop.name}=inherit_allowed' if copies are meant."
        )
    if finding.claim == "no_dead_listener" and finding.how in ("believed alive", "dead in worker"):
        return (
            f"{told}, before the workers are forked{_because(observed)}: a native thread does not survive a fork, what "
            f"it works on does. {_POST}; or start it again in the child with os.register_at_fork."
        )
    if finding.how == "ended unnoticed":
        return (
            f"{told}: gevent has put another class in the place of `threading.Thread` after this one was imported"
            f"{_because(observed)}, and nobody tells such a thread's owner that it has ended. Whoever joins it, or "
            "starts it again once it is not alive, waits for good. Patch first, and everything: patch_all() in line 1 "
            "of the configuration, without thread=False."
        )
    if finding.how == "ended by another":
        return (
            f"{told}, before the workers are forked{_because(observed)}: each of them takes it for its own, and a "
            "worker that exits ends the daemon processes that it knows of, as multiprocessing does at exit. Start it "
            "as a service beside gunicorn, or as a program (`subprocess`), which no worker knows of."
        )
    if finding.how == "ran the worker's code":
        return (
            f"{told}: a fork copies the greenlets of a gevent worker, its own among them. Start it with "
            "`multiprocessing.get_context('spawn')`, or in the master, or as a service beside gunicorn."
        )
    if finding.claim == "no_dead_listener" and "LoopExit" in finding.explanation:
        return (
            f"{told}: it is a native thread, and waits with gevent's tools, which belong to another thread"
            f"{_because(observed)}. Patch threads too, and start it in `post_worker_init`."
        )
    if finding.how == "abandoned":
        return (
            f"{told}: its threads have ended, of an error that it only logs{_because(observed)}. See the server's "
            f"output; where that is LoopExit, patch threads too, or start it after the fork. {_POST}."
        )
    if finding.claim == "no_dead_listener" and "-packages/" in loop.defined_at:
        gevent = observed.server is not None and "gevent" in observed.server["worker_class"]
        instead = "a worker class without gevent (gthread), or " if gevent or "patch_all" in observed.where else ""
        return (
            f"{told}, and its code is a library's. Try {instead}another version of it; or start it again when it ends."
        )
    if finding.claim == "no_dead_listener":
        return f"{told}. Catch the error in its body and go on, or have it started again."
    if finding.claim == "no_starved_greenlet" and finding.how == "starved":
        where = " in the master, which waits natively and" if forked else " in a process whose main thread"
        return f"{told}: it is a greenlet{where} does not run gevent's loop. {_POST}."
    if finding.claim == "no_starved_greenlet":
        return (
            f"{told}, and waits on a queue that does not wake it: one that was made before gevent patched, or by "
            f"gevent for another thread{_because(observed)}. Patch first, and everything."
        )
    if finding.claim == "exactly_one_listener":
        return f"{told}{_because(observed) if forked else ''}. {_MEANT.get(loop.policy, _POST)}."
    if finding.claim == "handover_is_safe":
        return f"{told}, which does not happen again for a worker that replaces another. {_POST}."
    return ""


def _of_server(finding: Finding, observed: Observed) -> str:
    left = _left(observed) if finding.claim == "clean_shutdown" else set()
    children = _loops_of(left, observed)
    names = listing(f"`{loop.name}` ({loop.defined_at})" for loop in children)
    known = {process.pid: process.place.role for process in observed.history.processes.values()}
    if children and any(known.get(pid) == "child" for pid in left):
        return (
            f"{names}: a process that is forked takes over what gunicorn does at SIGTERM, and is not ended by it. "
            "Begin its body with `signal.signal(signal.SIGTERM, signal.SIG_DFL)`, or start it with "
            "`multiprocessing.get_context('spawn')`; and let it be a daemon."
        )
    if children or left - known.keys():
        return (
            f"{names if children else 'What is left'}: a program of its own, which nobody ends at TERM. End it, or "
            "shut down the pool that it is of, in the hook `worker_exit` (a worker's) or `on_exit` (the master's)."
        )
    if finding.claim == "clean_shutdown" or finding.how == "old workers stay":
        if observed.history.of("request.info") and {known.get(pid) for pid in left} <= {"worker"}:
            return "A request that never ends keeps its worker: see server_answers."
        return (
            "Make its threads daemons, or end them in the hook `worker_exit` (a worker's) or `on_exit` (the master's)."
        )
    if finding.claim == "no_socket_shared_across_fork":
        return (
            f"The connection was opened before the workers were forked{_because(observed)}. Connect after the fork: in "
            "`post_fork` or `post_worker_init`, or when it is first used."
        )
    begun = [event for event in observed.history.of("loop.created") if _is_masters(event, observed)]
    forked = any(process.place.role == "worker" for process in observed.history.processes.values())
    if finding.claim == "workers_boot" and begun and forked:
        names = listing(dict.fromkeys(f"`{e['loop']}` ({e.get('user') or e.get('defined_at')})" for e in begun))
        return (
            f"Started before the workers are forked{_because(observed)}: {names}. A fork catches a thread in whatever "
            f"it does, such as an import, or with a lock that nobody lets go of in the worker. {_POST}."
        )
    if finding.claim == "workers_boot" and finding.how == "never":
        return _what_was_started(observed)
    if finding.claim == "server_answers" and (alone := _left_in_master(observed)):
        names = listing(f"`{loop.name}` ({loop.defined_at})" for loop in alone)
        return (
            f"Started before the workers are forked{_because(observed)}, and left in the master alone: {names}. A "
            f"request that needs them fails, or waits for them. {_POST}."
        )
    return ""


def _printed(observed: Observed, folder: Path) -> str:
    """The last error that a worker has printed, or else the master."""
    by_whom: dict[str, list[str]] = {}
    for event in observed.history.of("log"):
        by_whom.setdefault(event.get("by", ""), []).append(event["line"])
    for whose in sorted(by_whom, key=lambda name: name == ""):
        error = tracebacks.last_error(by_whom[whose], lambda path: tracebacks.is_in(path, folder), folder)
        if error:
            return f"The last error that was printed: {error}."
    return ""


def _left(observed: Observed) -> set[int]:
    """The processes that were there when all should have ended."""
    return {process["pid"] for event in observed.history.of("left") for process in event["processes"]}


def _loops_of(pids: set[int], observed: Observed) -> list[Loop]:
    """The loops that these processes are."""
    births = {event["birth"] for event in observed.history.of("child") if event["child"] in pids}
    return [loop for loop in observed.loops if births & loop.births.keys()]


def _left_in_master(observed: Observed) -> list[Loop]:
    return [loop for loop in observed.loops if _before_fork(loop, observed) and _is_in_master_alone(loop, observed)]


def _is_in_master_alone(loop: Loop, observed: Observed) -> bool:
    return {state.process.place.role for state in observed.states(loop, 0) if state.units} == {"arbiter"}


def _what_was_started(observed: Observed) -> str:
    """Of an app that has not booted: the loops that it had started by then."""
    if not observed.loops:
        return ""
    names = listing(
        [f"`{loop.name}`, {loop.defined_at}, by {loop.first['site'] or 'unknown'}" for loop in observed.loops], 3
    )
    return (
        f"Until then it had started {names}. Where threads are greenlets, one that waits in a way that "
        "gevent does not patch (a pipe of multiprocessing, a lock or queue of C code) keeps its whole process. Where "
        "it stands in such a loop, have it wait otherwise, or have workers that leave threads native."
    )


def _before_fork(loop: Loop, observed: Observed) -> bool:
    return any(_is_masters(event, observed) for event in loop.births.values())


def _is_masters(event: Event, observed: Observed) -> bool:
    process = observed.history.processes.get(event.process)
    return process is not None and process.place.role == "arbiter"


def _because(observed: Observed) -> str:
    """The settings that make it so, with where they stand."""
    words = []
    if observed.server is not None and observed.server["preload"]:
        words.append(f"preload_app ({observed.where.get('preload_app', 'command line')})")
    if "patch_all" in observed.where:
        words.append(f"patch_all ({observed.where['patch_all']})")
    return f", with {' and '.join(words)}" if words else ""
