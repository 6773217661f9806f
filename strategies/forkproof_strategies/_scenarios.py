"""Deployments: what is patched, what is started where, by which server."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import strategies as st

from forkproof import bodies
from forkproof import servers as servers_of_others
from forkproof.faults import REGISTRY, Life
from forkproof.scenario import (
    CONTROL,
    CONTROL_POINTS,
    PATCH_FLAGS,
    BrokerAddress,
    EarlyImport,
    EarlyPlace,
    EarlyThing,
    ForkHooks,
    Guard,
    LogStream,
    Loop,
    LoopBody,
    LoopKind,
    LoopStart,
    OtherBody,
    Park,
    Patch,
    PatchSite,
    Policy,
    Requests,
    Scenario,
    Server,
    Surroundings,
    WorkerClass,
    Yield,
    YieldCall,
    points_of,
)
from forkproof.servers import GUNICORN
from forkproof_strategies._choices import BOOLEANS, integers, one_of
from forkproof_strategies._faults import faults

FEATURES = (
    "patches",
    "thread=False",
    "odd flags",
    "several patches",
    "several loops",
    "loops alike",
    "several workers",
    "preload",
    "reload",
    "no control socket",
    "faults",
    "redis faults",
    "short timeout",
    "max_requests",
    "redis",
    "shared",
    "cpu",
    "spinning",
    "greenlets",
    "socketio",
    "timers",
    "executors",
    "native threads",
    "processes",
    "new processes",
    "fork hooks",
    "gevent sleeps",
    "native sleeps",
    "requests one by one",
    "rare yields",
    "slow yields",
    "not daemon",
    "guards",
    "other addresses",
    "early imports",
    "simple queues",
    "hiredis",
    "hooks of the app",
    "foreign children",
    "slow log",
    "parks",
)
"""What a scenario may use beyond the plainest one. Drawing a subset first makes several meet often (swarm testing,
Groce et al., ISSTA 2012)."""


def features(*, without: Collection[str] = ()) -> st.SearchStrategy[frozenset[str]]:
    """A subset of `FEATURES` and what other packages add to them, each in or out with even chances."""
    names = [name for name in (*FEATURES, *features_of_others()) if name not in without]
    return st.tuples(*(BOOLEANS for _ in names)).map(
        lambda chosen: frozenset(name for name, on in zip(names, chosen, strict=True) if on)
    )


def features_of_others() -> dict[str, tuple[str, ...]]:
    """The features that are bodies and servers of other packages, with what each needs of the target."""
    found = {f"body {name}": body.needs for name, body in bodies.REGISTRY.items()}
    return found | {f"server {name}": kind.needs for name, kind in servers_of_others.REGISTRY.items()}


def patch_flags(
    *, allow: Collection[str] = PATCH_FLAGS, min_size: int = 0, max_size: int = 3
) -> st.SearchStrategy[dict[str, bool]]:
    """Keywords of `patch_all`, those in `allow`; what is drawn is what differs from the default."""
    return st.lists(st.sampled_from(list(allow)), unique=True, min_size=min_size, max_size=max_size).map(
        lambda names: {name: name == "sys" for name in names}
    )


@st.composite
def patches(
    draw: st.DrawFn, *, flags: Collection[str] = PATCH_FLAGS, using: Collection[str] = FEATURES, max_size: int = 3
) -> tuple[Patch, ...]:
    """A sequence of `patch_all` calls."""
    count = draw(integers(min(2, max_size), max_size)) if "several patches" in using else 1
    # A patch inside a thread at import ends most servers at once, so it is drawn where oddities are asked for.
    usual = [site for site in PatchSite if site is not PatchSite.IN_THREAD or "odd flags" in using]
    sites = draw(st.lists(one_of(*usual), min_size=count, max_size=count))
    found: list[Patch] = []
    for site in sites:
        if site is PatchSite.INTERPRETER_START and any(patch.site is site for patch in found):
            continue
        kept: dict[str, bool] = {}
        if "thread=False" in using and "thread" in flags and draw(BOOLEANS):
            kept["thread"] = False
        if "odd flags" in using and flags:
            kept |= draw(patch_flags(allow=flags, min_size=1, max_size=min(3, len(flags))))
        if site is PatchSite.INTERPRETER_START:
            kept.pop("sys", None)
        found.append(Patch(site=site, flags=kept))
    return tuple(found)


@st.composite
def yields(
    draw: st.DrawFn,
    *,
    using: Collection[str] = FEATURES,
    kind: LoopKind = LoopKind.THREAD,
    body: LoopBody | OtherBody = LoopBody.CPU,
) -> Yield:
    """How a loop of that kind and body gives way; one that waits for something may leave it at that."""
    calls = [YieldCall.TIME_SLEEP]
    if not kind.waits_by_itself:
        calls += [call for feature, call in _CALLS.items() if feature in using]
        if body.waits or (body is LoopBody.CPU and "spinning" in using):
            calls.append(YieldCall.NONE)
    seconds = [0.01, 0.001, 0.05]
    if "spinning" in using:
        seconds.append(0.0)
    if "slow yields" in using:
        seconds += [0.1, 0.5]
    return Yield(
        call=draw(one_of(*calls)),
        seconds=draw(one_of(*seconds)),
        every=draw(one_of(1, 2, 10, 100)) if "rare yields" in using and kind is not LoopKind.RUN_IN_THREAD else 1,
    )


_CALLS = {"gevent sleeps": YieldCall.GEVENT_SLEEP, "native sleeps": YieldCall.NATIVE_SLEEP}
_KINDS = {
    "greenlets": (LoopKind.GREENLET,),
    "timers": (LoopKind.TIMER,),
    "executors": (LoopKind.EXECUTOR,),
    "redis": (LoopKind.RUN_IN_THREAD,),
    "socketio": (LoopKind.SOCKETIO_TASK,),
    "native threads": (LoopKind.GEVENT_THREADPOOL, LoopKind.NATIVE_THREAD),
    "processes": (LoopKind.PROCESS,),
    "new processes": (LoopKind.PROCESS_SPAWN, LoopKind.PROCESS_FORKSERVER),
}
"""What each feature brings beside threads."""


@st.composite
def loops(
    draw: st.DrawFn,
    *,
    name: str = "a",
    using: Collection[str] = FEATURES,
    like: Loop | None = None,
    sites: Collection[LoopStart] = tuple(LoopStart),
) -> Loop:
    """One loop called `name`, started at one of `sites`.

    It is of the kind of another and started where that one is, if it is to be `like` it.
    """
    kind = draw(_kinds(using)) if like is None else like.kind
    starts = sorted(sites, key=lambda start: start is not LoopStart.APP_IMPORT)
    if "fork hooks" not in using or kind is LoopKind.PROCESS:
        starts = [start for start in starts if start is not LoopStart.FORK_HOOK]
    if kind is LoopKind.SOCKETIO_TASK:
        starts = [start for start in starts if Server(preload="preload" in using).has_app_at(start)]
    known: list[LoopBody | OtherBody] = [LoopBody.SLEEP]
    if "redis" in using:
        known += [LoopBody.LISTEN, LoopBody.GET_MESSAGE, LoopBody.BLPOP]
    if "shared" in using:
        known += [LoopBody.QUEUE_GET, LoopBody.LOCK, LoopBody.LOGGER]
    if "cpu" in using:
        known.append(LoopBody.CPU)
    known += [OtherBody(name) for name in bodies.REGISTRY if f"body {name}" in using]
    redis_own = kind is LoopKind.RUN_IN_THREAD
    body = LoopBody.LISTEN if redis_own else draw(one_of(*known))
    guarded = {"guards", "redis"} <= set(using) and not redis_own
    return Loop(
        name=name,
        start=draw(one_of(*starts)) if like is None else like.start,
        kind=kind,
        daemon=not ("not daemon" in using and kind.may_be_daemon and draw(BOOLEANS)),
        body=body,
        yields=draw(yields(using=using, kind=kind, body=body)),
        policy=draw(one_of(Policy.ONCE_PER_WORKER, *(p for p in Policy if p is not Policy.ONCE_PER_WORKER))),
        guard=draw(one_of(*Guard)) if guarded else Guard.NONE,
    )


def _kinds(using: Collection[str]) -> st.SearchStrategy[LoopKind]:
    more = (kind for feature, kinds in _KINDS.items() if feature in using for kind in kinds)
    return one_of(LoopKind.THREAD, *more)


@st.composite
def servers(
    draw: st.DrawFn,
    *,
    worker_classes: Collection[WorkerClass] = tuple(WorkerClass),
    max_workers: int = 4,
    using: Collection[str] = FEATURES,
) -> Server:
    """gunicorn's settings; graceful_timeout is 3 s. Where loops may spin, two workers are company enough."""
    most = min(max_workers, 2) if "spinning" in using else max_workers
    worker_class = draw(one_of(*worker_classes))
    return Server(
        worker_class=worker_class,
        workers=draw(integers(min(2, most), most)) if "several workers" in using else 1,
        threads=draw(one_of(1, 2, 4)) if worker_class is WorkerClass.GTHREAD else 1,
        preload="preload" in using,
        reload="reload" in using and "preload" not in using,
        control_socket="no control socket" not in using,
        timeout=6 if "short timeout" in using else 30,
        graceful_timeout=3,
        max_requests=draw(one_of(100, 200)) if "max_requests" in using else 0,
    )


@st.composite
def surroundings(draw: st.DrawFn, *, using: Collection[str] = FEATURES, needs_redis: bool = True) -> Surroundings:
    """What is there beside server and loops; how Redis is reached matters where a loop `needs_redis`."""
    addresses = list(BrokerAddress) if needs_redis and "other addresses" in using else [BrokerAddress.IP]
    styles = list(Requests) if "requests one by one" in using else [Requests.BURSTS]
    early = draw(early_imports(using=using)) if "early imports" in using else ()
    client = needs_redis or any(one.what.needs_redis for one in early)
    streams = list(LogStream) if "slow log" in using else [LogStream.FAST]
    return Surroundings(
        broker=draw(one_of(*addresses)),
        requests=draw(one_of(*styles)),
        log=draw(one_of(*streams)),
        early_imports=early,
        hiredis="hiredis" in using and client and draw(BOOLEANS),
        foreign_children=draw(integers(0, 2)) if "foreign children" in using else 0,
        fork_hooks=draw(one_of(*(ForkHooks if "hooks of the app" in using else [ForkHooks.NONE]))),
    )


@st.composite
def early_imports(draw: st.DrawFn, *, using: Collection[str] = FEATURES, max_size: int = 2) -> tuple[EarlyImport, ...]:
    """What modules import or make in their first lines."""
    things = [
        thing
        for thing in EarlyThing
        if ("redis" in using or not thing.needs_redis)
        and ("simple queues" in using or thing is not EarlyThing.SIMPLE_QUEUE)
    ]
    drawn = [
        EarlyImport(what=draw(one_of(*things)), where=draw(one_of(*EarlyPlace)))
        for _ in range(draw(integers(min(1, max_size), max_size)))
    ]
    return tuple(dict.fromkeys(drawn))


@st.composite
def parks(draw: st.DrawFn, *, loops: Collection[Loop], preload: bool, max_size: int = 2) -> tuple[Park, ...]:
    """Where units of the arbiter stand when it forks: loops that it starts, and gunicorn's control thread."""
    early = [loop for loop in loops if loop.start in _IN_ARBITER or (preload and loop.start is LoopStart.APP_IMPORT)]
    points = {loop.name: points_of(loop) for loop in early if points_of(loop)}
    names = draw(st.lists(one_of(*points), unique=True, min_size=1, max_size=max_size)) if points else []
    if len(names) < max_size and draw(integers(0, 3)) == 3:
        points[CONTROL] = CONTROL_POINTS
        names.append(CONTROL)
    return tuple(Park(who=name, at=draw(one_of(*points[name]))) for name in names)


_IN_ARBITER = (LoopStart.CONFIG_IMPORT, LoopStart.ON_STARTING, LoopStart.WHEN_READY, LoopStart.PRE_FORK)


@st.composite
def scenarios(
    draw: st.DrawFn,
    *,
    worker_classes: Collection[WorkerClass] = tuple(WorkerClass),
    flags: Collection[str] = PATCH_FLAGS,
    without: Collection[str] = (),
    max_workers: int = 4,
    max_loops: int = 3,
    max_faults: int = 3,
) -> Scenario:
    """A deployment with what happens to it.

    A target that lacks worker classes, keywords of `patch_all` or whole features (`FEATURES`) is told by
    `worker_classes`, `flags` and `without`.
    """
    using = draw(features(without=without))
    if {"parks", "faults"} <= using and draw(integers(0, 3)) < 3:
        using -= {"parks"}  # a worker that hangs since its fork comes to few faults
    server = draw(servers(worker_classes=worker_classes, max_workers=max_workers, using=using))
    count = draw(integers(min(2, max_loops), max_loops)) if "several loops" in using else 1
    # A loop that an arbiter has is what a fork can catch.
    sites = _IN_ARBITER if "parks" in using and "socketio" not in using else tuple(LoopStart)
    first = draw(loops(name="a", using=using, sites=sites))
    # Loops meet where they share a process, which they seldom do by chance.
    like = first if "loops alike" in using else None
    drawn = [first, *(draw(loops(name=name, using=using, like=like)) for name in "bc"[: count - 1])]
    allow = [name for name, kind in REGISTRY.items() if "redis faults" in using or not kind.needs_broker]
    life = Life.begin({"server": dict(server), "loops": [loop.seen() for loop in drawn]})
    found = Scenario(
        patches=draw(patches(flags=flags, using=using)) if "patches" in using else (),
        loops=tuple(drawn),
        server=server,
        parks=draw(parks(loops=drawn, preload=server.preload)) if "parks" in using else (),
        surroundings=draw(surroundings(using=using, needs_redis=any(loop.needs_redis for loop in drawn))),
        faults=draw(faults(life=life, allow=allow, max_size=max_faults, ticking=_in_every_worker(drawn, server)))
        if "faults" in using
        else (),
    )
    others = [name for name in servers_of_others.REGISTRY if f"server {name}" in using]
    able = [name for name in others if not servers_of_others.problem(name, found.to_dict())]
    by = draw(one_of(GUNICORN, *able)) if able else GUNICORN
    return found if by == GUNICORN else _started_by(found, by)


def _started_by(what: Scenario, name: str) -> Scenario:
    return what.model_copy(update={"server": what.server.model_copy(update={"started_by": name})})


def _in_every_worker(some: Collection[Loop], server: Server) -> bool:
    """Whether one of the loops is started in each worker, and waits for nobody."""
    sites = {LoopStart.POST_FORK, LoopStart.POST_WORKER_INIT, LoopStart.FIRST_REQUEST}
    if not server.preload:
        sites.add(LoopStart.APP_IMPORT)
    return any(loop.start in sites and loop.guard is Guard.NONE for loop in some)
