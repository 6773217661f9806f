"""What becomes of connections: how many Redis counts, and who reads from one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from forkproof.claims.base import (
    Claim,
    Say,
    decides,
    fate,
    last_call,
    listing,
    no_window,
    number,
    sent_after_subscribing,
    span,
    too_few,
    traces,
    who,
    worst,
)
from forkproof.history import Event, History, Window
from forkproof.scenario import Loop, Policy, Scenario
from forkproof.verdict import Finding

# --- subscriptions_match


def subscriptions_match(scenario: Scenario, history: History) -> list[Finding]:
    """One finding per loop."""
    return [_subscriptions(scenario, history, loop) for loop in scenario.loops]


def _subscriptions(scenario: Scenario, history: History, loop: Loop) -> Finding:
    say = Say("subscriptions_match", loop.name)
    if not loop.subscribes:
        return say.not_applicable(f"the body {loop.body.value!r} subscribes to nothing")
    if loop.policy is Policy.BEST_EFFORT:
        return say.not_applicable("the policy best_effort is counted, never judged")
    if not history.windows:
        return say.unknown(no_window(history))
    return worst([_subscriptions_in(say, scenario, history, loop, window) for window in history.windows])


def _subscriptions_in(say: Say, scenario: Scenario, history: History, loop: Loop, window: Window) -> Finding:
    counts = [e for e in history.between("numsub.ok", window.opened, window.closed) if e["loop"] == loop.name]
    if not counts:
        failed = [e for e in history.between("numsub.info", window.opened, window.closed) if e["loop"] == loop.name]
        reason = failed[0]["error"] if failed else "it was not asked"
        return say.unknown(f"Redis gave no count {span(history, window)}: {reason}", failed)
    counted = counts[-1]
    workers = history.live_workers(window)
    if not workers and loop.policy is Policy.ONCE_PER_WORKER:
        return say.unknown(f"there is no worker {span(history, window)} that could subscribe", counts)
    least, most = _policy_count(loop, len(workers))
    told = f"Redis counts {number(counted['count'], 'subscription')}, and {_wish(loop, len(workers))}"
    if not least <= counted["count"] <= most:
        late = [who(history, process.key) for process in workers.values() if process.first > window.opened]
        if late and loop.policy is Policy.ONCE_PER_WORKER:
            return say.unknown(f"{told}, but {listing(late)} began only inside the window", counts)
        if not decides(scenario, window):
            return say.unknown(f"{told}, but {too_few(scenario, history, window)}", counts)
        births = [birth.birth for birth in history.births_of(loop.name) if birth.t <= counted.t]
        told += f" {span(history, window)}"
        if counted["count"] < least:
            told += f": {fate(history, loop, counted.t)}"
        how = "none" if counted["count"] == 0 else "too few" if counted["count"] < least else "too many"
        return say.broken(told, counts, traces(history, births), how=how)
    return _probe(say, scenario, history, loop, window, told, counted)


def _policy_count(loop: Loop, workers: int) -> tuple[int, float]:
    if loop.policy is Policy.ONCE_PER_WORKER:
        return workers, workers
    return 1, float("inf") if loop.policy is Policy.INHERIT_ALLOWED else 1


def _wish(loop: Loop, workers: int) -> str:
    wish = {
        Policy.ONCE_PER_WORKER: f"one for each of {number(workers, 'worker')}",
        Policy.INHERIT_ALLOWED: "at least 1",
    }
    return f"the policy {loop.policy.value} wants {wish.get(loop.policy, '1')}"


def _probe(
    say: Say, scenario: Scenario, history: History, loop: Loop, window: Window, told: str, counted: Event
) -> Finding:
    """Whether a message gets through where the count is right: a dead connection counts as well."""
    until = last_call(scenario, window)
    probes = [event for event in sent_after_subscribing(history, loop, window) if event.t <= until]
    if not probes:
        return say.unknown(f"{told}, but no message shows that they hear {span(history, window)}", [counted])
    names = {event["message"] for event in probes}
    arrived = [e for e in history.of("handled") if e["message"] in names and e.t <= window.closed]
    if arrived:
        return say.held(f"{told}; a message arrives", [counted], arrived[:1])
    told = f"{told}, but none of {number(len(probes), 'message')} arrives {span(history, window)}"
    if not decides(scenario, window):
        return say.unknown(f"{told}; {too_few(scenario, history, window)}", [counted])
    return say.broken(told, [counted], probes[:10], how="nothing arrives")


# --- no_socket_shared_across_fork


def no_socket_shared_across_fork(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("no_socket_shared_across_fork")
    if not history.windows:
        if not any(loop.needs_redis for loop in scenario.loops):
            return [say.not_applicable(_NONE)]
        return [say.unknown(no_window(history))]
    return [worst([_shared_in(say, scenario, history, window) for window in history.windows])]


_NONE = "no loop of it has a connection"


def _shared_in(say: Say, scenario: Scenario, history: History, window: Window) -> Finding:
    sockets = {e["inode"]: e for e in history.of("socket") if e.t <= window.closed}
    had = {e["target"]: e for e in history.between("resources", window.opened, window.closed)}
    looks = history.between("waits", window.opened, window.closed)
    blind = [e for e in had.values() if e.get("error")] + [e for e in looks if e["blind"]]
    holders, waiters = _holders(had.values()), _waiters(looks)
    live = [inode for inode in holders | waiters if _is_live(sockets.get(inode))]
    for inode in sorted(live):
        if len(waiters.get(inode, {})) > 1:
            return _waited_on_by_two(say, history, window, sockets[inode], looks, waiters[inode])
    if blind:
        return say.unknown(f"one may not look {span(history, window)}: {_why_blind(blind[0])}", blind)
    if not had or not looks:
        return say.unknown(f"nobody looked who waits on what {span(history, window)}")
    shared = sorted(inode for inode in live if len(holders.get(inode, ())) > 1)
    if shared:
        told, evidence = _inherited(history, holders, waiters, sockets, shared)
        if not decides(scenario, window):
            return say.unknown(f"{told}, but {too_few(scenario, history, window)}", evidence)
        return say.held(f"{told} {span(history, window)}: a descriptor alone does no harm", evidence)
    if not any(loop.needs_redis for loop in scenario.loops):
        return say.not_applicable(_NONE)
    if not live:
        return say.unknown(f"no process had a connection {span(history, window)}")
    return say.held(f"none of {number(len(live), 'connection')} is open in two processes", had.values())


def _is_live(socket: Event | None) -> bool:
    return socket is not None and socket["state"] == "connected"


def _holders(had: Iterable[Event]) -> dict[int, list[str]]:
    """The processes that have a descriptor of each socket."""
    found: dict[int, list[str]] = {}
    for event in had:
        for inode in sorted(set(event.get("sockets", {}).values())):
            found.setdefault(inode, []).append(event["target"])
    return found


def _waiters(looks: Iterable[Event]) -> dict[int, Counter[str]]:
    """In how many looks each process was blocked on each socket."""
    found: dict[int, Counter[str]] = {}
    for event in looks:
        for target, tasks in event["on"].items():
            for inode in {inode for inodes in tasks.values() for inode in inodes}:
                found.setdefault(inode, Counter())[target] += 1
    return found


def _waited_on_by_two(
    say: Say, history: History, window: Window, socket: Event, looks: Sequence[Event], waiters: Counter[str]
) -> Finding:
    who_waits = listing(f"{who(history, target)} in {times}" for target, times in waiters.items())
    told = f"{_name(socket)} is waited on by {number(len(waiters), 'process')}: {who_waits} of"
    told += f" {number(len(looks), 'look')} {span(history, window)}"
    seen = [e for e in looks if any(socket["inode"] in found for t in waiters for found in e["on"].get(t, {}).values())]
    return say.broken(told, seen[:6], [socket], how="waited on by two")


def _inherited(
    history: History,
    holders: Mapping[int, Sequence[str]],
    waiters: Mapping[int, Counter[str]],
    sockets: Mapping[int, Event],
    shared: Sequence[int],
) -> tuple[str, list[Event]]:
    """What to say of connections that are open in several processes, and waited on by one of them at most."""
    first = shared[0]
    one = listing(who(history, target) for target in waiters.get(first, ())) if waiters.get(first) else "nobody"
    where = listing(who(history, target) for target in holders[first])
    told = f"{_name(sockets[first])} is open in {where}, and {one} waits on it"
    if len(shared) > 1:
        told += f" ({len(shared) - 1} more like it)"
    return told, [sockets[inode] for inode in shared]


def _name(socket: Event) -> str:
    ends = f"{socket['local']} to {socket['peer']}" if socket["peer"] else socket["local"] or "unnamed"
    return f"the {socket['family']} connection {ends} (inode {socket['inode']})"


def _why_blind(event: Event) -> str:
    return str(event.get("error") or next(iter(event["blind"].values())))


CLAIMS = (
    Claim(
        "subscriptions_match",
        "Redis counts as many subscriptions to a loop's channel as the policy wants, and a message arrives.",
        subscriptions_match,
    ),
    Claim(
        "no_socket_shared_across_fork",
        "No live connection is waited on by two processes.",
        no_socket_shared_across_fork,
    ),
)
