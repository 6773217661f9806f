"""What gevent has patched: whether it is what was asked for, and whether something escaped it."""

from __future__ import annotations

from collections.abc import Sequence

from forkproof.claims.base import Claim, Say, booted, clock, listing, no_window, who
from forkproof.history import Event, History
from forkproof.patching import KEYWORDS, OFF, Call, asked, calls
from forkproof.scenario import ForkHooks, LoopBody, Scenario
from forkproof.verdict import Finding

_TELLS = {
    "socket": ("socket.socket",),
    "dns": ("socket.getaddrinfo",),
    "time": ("time.sleep",),
    "select": ("select.select",),
    "aggressive": ("select.epoll",),
    "thread": ("_thread.start_new_thread", "threading.Lock"),
    "Event": ("threading.Event",),
    "os": ("os.fork",),
    "ssl": ("ssl.SSLContext",),
    "subprocess": ("subprocess.Popen",),
    "signal": ("signal.signal",),
    "queue": ("queue.SimpleQueue",),
}
"""The names that tell whether what a keyword stands for is patched."""


_SHARED = {LoopBody.LOCK: "lock", LoopBody.QUEUE_GET: "queue", LoopBody.LOGGER: "log"}
"""What loops share with requests."""


def patch_is_what_was_asked(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("patch_is_what_was_asked")
    seen = history.of("patched")
    problems = [problem for event in seen for problem in _problems(scenario, history, event)]
    if problems:
        hows = sorted({how for how, _, _ in problems})
        told = "; ".join(dict.fromkeys(told for _, told, _ in problems))
        events = [event for _, _, event in problems]
        return [say.broken(told, events, _patches_of(history, events), how=" and ".join(hows))]
    if not calls(scenario, "worker"):
        return [say.not_applicable("nothing is patched in this scenario")]
    there = {process.key for window in history.windows for process in history.live_workers(window).values()}
    missing = sorted({*booted(history), *there} - {event.process for event in seen})
    if missing:
        return [say.unknown(f"what is patched in {listing(who(history, key) for key in missing)} was not seen", seen)]
    workers = [key for key, process in history.processes.items() if process.place.role == "worker"]
    if not any(event.process in workers for event in seen):
        reason = "" if history.windows else f": {no_window(history)}"
        return [say.unknown(f"no worker came so far that it could be looked at{reason}", seen)]
    told = f"what is patched is what was asked for, in {listing(who(history, event.process) for event in seen)}"
    return [say.held(told, seen, _patches_of(history, seen))]


def _problems(scenario: Scenario, history: History, event: Event) -> list[tuple[str, str, Event]]:
    """(how, what, event) of every keyword that is not as it was asked for in one process."""
    process = history.processes.get(event.process)
    if process is None or process.place.role not in ("arbiter", "worker"):
        return []
    sequence = calls(scenario, process.place.role)
    found = []
    # A keyword that this gevent lacks is asked for by nobody.
    for keyword in (known for known in KEYWORDS if known in event["keywords"]):
        said = asked(sequence, keyword, {*OFF, *event.get("off", ())})
        states = {event["names"][name] for name in _TELLS[keyword] if name in event["names"]}
        patched = bool(states & {"patched", "removed"})
        where = f"in {who(history, event.process)}"
        if patched and said.refused_by:
            undone = said.wanted and said.by[-1] > said.refused_by[0]
            refused = _sites(sequence, said.refused_by)
            told = f"{keyword} is patched {where}, though {refused} said {keyword}=False"
            told += f": {_sites(sequence, said.by)} patched it" if said.wanted else ""
            found.append(("undone" if undone else "ignored", told, event))
        elif patched and not said.wanted:
            found.append(("unasked", f"{keyword} is patched {where}, and nobody had asked for it", event))
        elif said.wanted and "original" in states:
            told = f"{keyword} is not patched {where}, though {_sites(sequence, said.by)} asked for it"
            found.append(("not patched", told, event))
    return found


def no_stale_original(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("no_stale_original")
    names = early_names(scenario)
    if not names:
        return [say.not_applicable("the scenario shares no lock, queue or client between requests and loops")]
    if not calls(scenario, "worker"):
        return [say.not_applicable("nothing is patched in this scenario")]
    used = history.of("early.used")
    stale = [event for event in used if event["greenlet"] and event["native"]]
    if stale:
        kinds = sorted({kind for event in stale for _, kind in event["native"]})
        told = "; ".join(dict.fromkeys(_used(history, event) for event in stale[:3]))
        return [say.broken(told, stale, _made(history, stale), _patches_of(history, stale), how=" and ".join(kinds))]
    if not used:
        reason = "" if history.windows else f": {no_window(history)}"
        return [say.unknown(f"no use of {listing(names)} was seen{reason}")]
    by_greenlets = [event for event in used if event["greenlet"]]
    if not by_greenlets:
        users = listing(sorted({f"{event['user']} in {who(history, event.process)}" for event in used}))
        return [say.not_applicable(f"no greenlet used what the scenario makes early, only {users}")]
    told = f"what greenlets used had nothing native in it: {listing(sorted({e['name'] for e in by_greenlets}))}"
    return [say.held(told, by_greenlets, _made(history, by_greenlets))]


def early_names(scenario: Scenario) -> list[str]:
    """What the scenario makes in the first lines of its modules and uses afterwards."""
    around = scenario.surroundings
    names = [f"{one.where}.{one.what}" for one in around.early_imports if one.what.is_used]
    names += ["config.fork_hooks_lock"] if around.fork_hooks is ForkHooks.LOCK else []
    return names + [f"{loop.name}'s {_SHARED[loop.body.like]}" for loop in scenario.loops if loop.body.like in _SHARED]


def _used(history: History, event: Event) -> str:
    parts = listing((f"{event['name']}{path}, a native {kind}" for path, kind in event["native"]), most=2)
    user = "a request" if event["user"] == "request" else f"loop {event['user']!r}"
    told = f"{user} used, in a greenlet of {who(history, event.process)} at {clock(history, event.t)}, {parts}"
    made = [made for made in _made(history, [event]) if made.t <= event.t]
    patches = [patch for patch in _patches_of(history, [event]) if patch.t <= event.t]
    later = [patch for patch in patches if made and patch.t > made[-1].t]
    if later:
        told += f": it was made at {clock(history, made[-1].t)}, before the patch of {later[-1]['site']}"
    return told


def _made(history: History, events: Sequence[Event]) -> list[Event]:
    """When the things that some events are about were made, in their processes or in those before."""
    lineage = _lineage(history, events)
    names = {event["name"] for event in events}
    # What a loop shares is made with it.
    loops = {name.partition("'s ")[0] for name in names if "'s " in name}
    made = [event for event in history.of("early.made", "loop.created") if event.process in lineage]
    return [event for event in made if event.get("name") in names or event.get("loop") in loops]


def _sites(sequence: Sequence[Call], places: Sequence[int]) -> str:
    return listing(dict.fromkeys(sequence[place].site for place in places))


def _patches_of(history: History, events: Sequence[Event]) -> list[Event]:
    """The calls of `patch_all` in the processes of some events, and in those that they were forked from."""
    lineage = _lineage(history, events)
    return [event for event in history.of("patch") if event.process in lineage]


def _lineage(history: History, events: Sequence[Event]) -> set[str]:
    processes = history.processes
    by_pid = {process.pid: process for process in processes.values()}
    lineage: set[str] = set()
    for event in events:
        process = processes.get(event.process)
        while process is not None and process.key not in lineage:
            lineage.add(process.key)
            process = by_pid.get(process.ppid)
    return lineage


CLAIMS = (
    Claim(
        "patch_is_what_was_asked",
        "Once a process is ready, patched in it is what the deployment's calls to patch ask for, and nothing else.",
        patch_is_what_was_asked,
    ),
    Claim(
        "no_stale_original",
        "No lock, queue or socket that was made before a patch is used by a greenlet afterwards.",
        no_stale_original,
    ),
)
