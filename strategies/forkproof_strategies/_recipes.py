"""Deployments that the documentation of gunicorn, gevent and redis-py recommends for background work.

Each recipe is for one declared policy, and no documentation speaks against it: what breaks in one is a finding.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hypothesis import strategies as st

from forkproof.faults import REGISTRY, Life
from forkproof.scenario import (
    Guard,
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
from forkproof_strategies._choices import BOOLEANS, integers, one_of
from forkproof_strategies._faults import faults

_PLAIN = (WorkerClass.SYNC, WorkerClass.GTHREAD)
_GREEN = (WorkerClass.GEVENT, WorkerClass.GEVENT_PYWSGI, WorkerClass.GEVENTWEBSOCKET)
_HOOKS = "https://docs.gunicorn.org/en/stable/settings.html#server-hooks"


@dataclass(frozen=True)
class Recipe:
    """One recommended way, and who recommends it.

    `preload` is None where either will do. `faults` names what it is to survive, beside a stop.
    """

    name: str
    source: str
    start: LoopStart
    policies: tuple[Policy, ...]
    worker_classes: tuple[WorkerClass, ...] = (*_PLAIN, *_GREEN)
    kind: LoopKind = LoopKind.THREAD
    bodies: tuple[LoopBody, ...] = (LoopBody.SLEEP, LoopBody.LISTEN, LoopBody.GET_MESSAGE)
    calls: tuple[YieldCall, ...] = (YieldCall.TIME_SLEEP,)
    guard: Guard = Guard.NONE
    patches: tuple[Patch, ...] = ()
    preload: bool | None = None
    faults: tuple[str, ...] = ("term", "kill_worker")

    @property
    def needs(self) -> set[str]:
        """The packages that a target must have for any of it, beside gunicorn and flask."""
        found = set()
        if self.guard is not Guard.NONE or self.kind in (LoopKind.RUN_IN_THREAD, LoopKind.SOCKETIO_TASK):
            found.add("redis")
        if self.kind is LoopKind.SOCKETIO_TASK:
            found.add("flask-socketio")
        if self.patches or self.kind is LoopKind.GREENLET:
            found.add("gevent")
        return found


RECIPES = (
    Recipe("thread_in_each_worker", _HOOKS, LoopStart.POST_WORKER_INIT, (Policy.ONCE_PER_WORKER,)),
    Recipe(
        "greenlet_in_each_worker",
        "https://www.gevent.org/api/gevent.html#gevent.spawn",
        LoopStart.POST_WORKER_INIT,
        (Policy.ONCE_PER_WORKER,),
        worker_classes=_GREEN,
        kind=LoopKind.GREENLET,
        calls=(YieldCall.GEVENT_SLEEP, YieldCall.TIME_SLEEP),
    ),
    Recipe(
        "redis_py_thread_in_each_worker",
        "https://redis.readthedocs.io/en/stable/advanced_features.html#publish-subscribe",
        LoopStart.POST_WORKER_INIT,
        (Policy.ONCE_PER_WORKER,),
        kind=LoopKind.RUN_IN_THREAD,
        bodies=(LoopBody.LISTEN,),
    ),
    Recipe(
        "socketio_task_in_each_worker",
        "https://flask-socketio.readthedocs.io/en/latest/deployment.html#gunicorn-web-server",
        LoopStart.APP_IMPORT,
        (Policy.ONCE_PER_WORKER,),
        worker_classes=(WorkerClass.GEVENT, WorkerClass.GEVENTWEBSOCKET),
        kind=LoopKind.SOCKETIO_TASK,
        bodies=(LoopBody.SLEEP,),
        patches=(Patch(site=PatchSite.CONFIG_FIRST_LINE),),  # a Redis message queue needs the sockets patched
        preload=False,
    ),
    Recipe(
        "lock_in_redis",
        "https://redis.readthedocs.io/en/stable/lock.html",
        LoopStart.POST_FORK,
        (Policy.ONCE_PER_SERVICE,),
        worker_classes=_PLAIN,
        guard=Guard.LOCK,
        faults=("term",),  # it has no timeout, so it dies with its holder
    ),
    Recipe(
        "leader_with_a_lease",
        "https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/",
        LoopStart.POST_WORKER_INIT,
        (Policy.ONCE_PER_SERVICE,),
        bodies=(LoopBody.SLEEP, LoopBody.GET_MESSAGE),  # one that waits for a message cannot renew
        guard=Guard.LEASE,
    ),
    Recipe("thread_in_the_arbiter", _HOOKS, LoopStart.ON_STARTING, (Policy.ARBITER_ONLY, Policy.ONCE_PER_SERVICE)),
    Recipe(
        "thread_false",
        "https://www.gevent.org/api/gevent.monkey.html#gevent.monkey.patch_all",
        LoopStart.APP_IMPORT,
        (Policy.ARBITER_ONLY, Policy.ONCE_PER_SERVICE),
        # A gevent worker class would patch threads after all.
        worker_classes=(WorkerClass.SYNC,),
        patches=(Patch(site=PatchSite.CONFIG_FIRST_LINE, flags={"thread": False}),),
        preload=True,
    ),
    Recipe(
        "one_process",
        "https://docs.python.org/3/library/multiprocessing.html#multiprocessing.Process",
        LoopStart.ON_STARTING,
        (Policy.ARBITER_ONLY, Policy.ONCE_PER_SERVICE),
        kind=LoopKind.PROCESS,
    ),
)
"""What is recommended, by whom."""


def recipes(
    *,
    only: Collection[str] = (),
    worker_classes: Collection[WorkerClass] = tuple(WorkerClass),
    lacks: Collection[str] = (),
    max_workers: int = 4,
) -> st.SearchStrategy[Scenario]:
    """Recommended deployments and what happens to them; `only` names some of `RECIPES`.

    A target that lacks worker classes or packages is told by `worker_classes` and `lacks`.
    """
    able = [
        recipe
        for recipe in RECIPES
        if (not only or recipe.name in only)
        and not recipe.needs & set(lacks)
        and any(one in worker_classes for one in recipe.worker_classes)
    ]
    return st.one_of(
        *(_cooked(recipe, tuple(worker_classes), "redis" not in lacks, max_workers=max_workers) for recipe in able)
    )


@st.composite
def _cooked(
    draw: st.DrawFn, recipe: Recipe, worker_classes: tuple[WorkerClass, ...], redis: bool, *, max_workers: int
) -> Scenario:
    workers = draw(integers(1, max_workers))
    worker_class = draw(one_of(*(one for one in recipe.worker_classes if one in worker_classes)))
    preload = draw(BOOLEANS) if recipe.preload is None else recipe.preload
    in_workers = recipe.policies == (Policy.ONCE_PER_WORKER,)
    server = Server(
        worker_class=worker_class,
        workers=workers,
        threads=draw(one_of(1, 2, 4)) if worker_class is WorkerClass.GTHREAD else 1,
        preload=preload,
    )
    life = Life.begin({"server": dict(server), "loops": ()})
    return Scenario(
        patches=recipe.patches,
        loops=(
            Loop(
                name="a",
                start=recipe.start,
                kind=recipe.kind,
                body=draw(one_of(*recipe.bodies)) if redis else LoopBody.SLEEP,
                yields=Yield(call=draw(one_of(*recipe.calls)), seconds=draw(one_of(0.01, 0.001, 0.05))),
                policy=draw(one_of(*recipe.policies)),
                guard=recipe.guard,
            ),
        ),
        server=server,
        faults=draw(faults(life=life, allow=set(recipe.faults) & REGISTRY.keys(), max_size=2, ticking=in_workers)),
    )
