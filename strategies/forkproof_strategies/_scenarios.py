"""Deployments: what is patched, what is started where, by which server."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import strategies as st

from forkproof.scenario import (
    PATCH_FLAGS,
    Loop,
    LoopBody,
    LoopKind,
    LoopStart,
    Patch,
    PatchSite,
    Policy,
    Scenario,
    Server,
    WorkerClass,
    Yield,
    YieldCall,
)
from forkproof_strategies._faults import faults

FEATURES = (
    "patches",
    "thread=False",
    "odd flags",
    "several patches",
    "several loops",
    "several workers",
    "preload",
    "faults",
    "redis",
    "cpu",
    "greenlets",
    "processes",
    "gevent sleeps",
    "native sleeps",
    "rare yields",
    "slow yields",
    "not daemon",
)
"""What a scenario may use beyond the plainest one. Drawing a subset first makes several meet often (swarm testing,
Groce et al., ISSTA 2012)."""


def features(*, without: Collection[str] = ()) -> st.SearchStrategy[frozenset[str]]:
    """A subset of `FEATURES`, each in or out with even chances."""
    names = [name for name in FEATURES if name not in without]
    return st.tuples(*(st.booleans() for _ in names)).map(
        lambda chosen: frozenset(name for name, on in zip(names, chosen, strict=True) if on)
    )


def patch_flags(*, allow: Collection[str] = PATCH_FLAGS, max_size: int = 3) -> st.SearchStrategy[dict[str, bool]]:
    """Keywords of `patch_all`, those in `allow`; what is drawn is what differs from the default."""
    return st.lists(st.sampled_from(list(allow)), unique=True, max_size=max_size).map(
        lambda names: {name: name == "sys" for name in names}
    )


@st.composite
def patches(
    draw: st.DrawFn, *, flags: Collection[str] = PATCH_FLAGS, using: Collection[str] = FEATURES, max_size: int = 3
) -> tuple[Patch, ...]:
    """A sequence of `patch_all` calls."""
    count = draw(st.integers(1, max_size)) if "several patches" in using else 1
    sites = draw(st.lists(st.sampled_from(PatchSite), min_size=count, max_size=count))
    found: list[Patch] = []
    for site in sites:
        if site is PatchSite.INTERPRETER_START and any(patch.site is site for patch in found):
            continue
        kept: dict[str, bool] = {}
        if "thread=False" in using and "thread" in flags and draw(st.booleans()):
            kept["thread"] = False
        if "odd flags" in using:
            kept |= draw(patch_flags(allow=flags))
        if site is PatchSite.INTERPRETER_START:
            kept.pop("sys", None)
        found.append(Patch(site=site, flags=kept))
    return tuple(found)


@st.composite
def yields(draw: st.DrawFn, *, using: Collection[str] = FEATURES, may_spin: bool = True) -> Yield:
    """How a loop gives way; with `may_spin` also never."""
    calls = [YieldCall.TIME_SLEEP]
    if "gevent sleeps" in using:
        calls.append(YieldCall.GEVENT_SLEEP)
    if "native sleeps" in using:
        calls.append(YieldCall.NATIVE_SLEEP)
    if may_spin:
        calls.append(YieldCall.NONE)
    return Yield(
        call=draw(st.sampled_from(calls)),
        seconds=draw(st.sampled_from([0.01, 0.0, 0.001, 0.05, *([0.1, 0.5] if "slow yields" in using else [])])),
        every=draw(st.sampled_from([1, 2, 10, 100])) if "rare yields" in using else 1,
    )


@st.composite
def loops(draw: st.DrawFn, *, name: str = "a", using: Collection[str] = FEATURES) -> Loop:
    """One loop called `name`."""
    kinds = [LoopKind.THREAD]
    if "greenlets" in using:
        kinds.append(LoopKind.GREENLET)
    if "processes" in using:
        kinds.append(LoopKind.PROCESS)
    bodies = [LoopBody.SLEEP]
    if "redis" in using:
        bodies += [LoopBody.LISTEN, LoopBody.GET_MESSAGE]
    if "cpu" in using:
        bodies.append(LoopBody.CPU)
    body = draw(st.sampled_from(bodies))
    return Loop(
        name=name,
        start=draw(st.sampled_from([LoopStart.APP_IMPORT, *(s for s in LoopStart if s is not LoopStart.APP_IMPORT)])),
        kind=draw(st.sampled_from(kinds)),
        daemon=not ("not daemon" in using and draw(st.booleans())),
        body=body,
        yields=draw(yields(using=using, may_spin=body is not LoopBody.SLEEP)),
        policy=draw(st.sampled_from([Policy.ONCE_PER_WORKER, *(p for p in Policy if p is not Policy.ONCE_PER_WORKER)])),
    )


@st.composite
def servers(
    draw: st.DrawFn,
    *,
    worker_classes: Collection[WorkerClass] = tuple(WorkerClass),
    max_workers: int = 4,
    using: Collection[str] = FEATURES,
) -> Server:
    """gunicorn's settings; graceful_timeout is 3 s."""
    worker_class = draw(st.sampled_from(list(worker_classes)))
    return Server(
        worker_class=worker_class,
        workers=draw(st.integers(1, max_workers)) if "several workers" in using else 1,
        threads=draw(st.sampled_from([1, 2, 4])) if worker_class is WorkerClass.GTHREAD else 1,
        preload="preload" in using,
        graceful_timeout=3,
    )


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
    server = draw(servers(worker_classes=worker_classes, max_workers=max_workers, using=using))
    count = draw(st.integers(1, max_loops)) if "several loops" in using else 1
    return Scenario(
        patches=draw(patches(flags=flags, using=using)) if "patches" in using else (),
        loops=tuple(draw(loops(name=name, using=using)) for name in "abc"[:count]),
        server=server,
        faults=draw(faults(workers=server.workers, max_size=max_faults)) if "faults" in using else (),
    )
