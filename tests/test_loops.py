"""The loops as users write them: on the oldest Python, without a server; and each kind in a real one."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from probed import Probed

from forkproof.plugin import Forkproof
from forkproof.scenario import LoopKind, WorkerClass, from_dict
from forkproof.verdict import Verdict

PROGRAM = """
    import multiprocessing, time
    from forkproof_payload.loops import Loop

    {before}
    loop = Loop({spec}, "app_import", None, None)
    assert loop.alive() is None
    loop.start()
    folder = os.path.join(os.environ["FORKPROOF_RUN"], "ticks")

    def ticks():
        counts = []
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "rb") as file:
                counts.append(int.from_bytes(file.read(8), sys.byteorder))
        return sum(counts)

    answers = {{loop.alive()}}
    deadline = time.time() + 30
    while ticks() < 20 and time.time() < deadline:
        answers.add(loop.alive())
        loop.body.use()
    probe.event("told", answers=sorted(answers), ticks=ticks())
    for child in multiprocessing.active_children():
        child.terminate()
        child.join()
    probe.event("ended", alive=loop.alive())
    os._exit(0)
"""


ALONE = [k.value for k in LoopKind if not k.needs_gevent and k not in (LoopKind.RUN_IN_THREAD, LoopKind.SOCKETIO_TASK)]
"""Kinds that need nothing but Python."""


@pytest.fixture
def probed(python: str, tmp_path: Path) -> Iterator[Probed]:
    found = Probed(python, tmp_path)
    yield found
    found.end()


def run(probed: Probed, before: str = "pass", **fields: object) -> dict[str, Any]:
    """Run a loop until it has ticked; what the program says of it then."""
    yields = {"call": "time.sleep", "seconds": 0.001, "every": 2}
    spec = {"name": "a", "kind": "thread", "daemon": True, "body": "sleep", "yields": yields, "guard": "none", **fields}
    assert probed.run(PROGRAM.format(before=before, spec=repr(spec))) == 0
    [told] = probed.events("told")
    assert told["ticks"] >= 20
    assert told["answers"] == [True]
    return told


@pytest.mark.parametrize("kind", ALONE)
def test_a_loop_ticks_and_its_owner_is_told_so(probed: Probed, kind: str) -> None:
    told = run(probed, kind=kind)
    births = {event["birth"] for event in probed.events("loop.created")}
    [begun] = probed.events("loop.begin")
    assert births == {begun["birth"]}
    in_child = LoopKind(kind).is_process
    assert (begun["pid"] != told["pid"]) == in_child
    [ended] = probed.events("ended")
    assert ended["alive"] is not in_child


def test_a_loop_that_raises_has_ended(probed: Probed) -> None:
    probed.run("""
        from forkproof_payload.loops import Loop
        yields = {"call": "none", "seconds": 0, "every": 1}
        spec = {"name": "a", "kind": "thread", "daemon": True, "body": "sleep", "yields": yields, "guard": "none"}
        loop = Loop(spec, "app_import", None, None)
        loop.body.turn = lambda: sys.exit(3)
        loop.start()
        while loop.alive():
            pass
        """)
    [ended] = probed.events("loop.end")
    assert ended["error"].startswith("SystemExit(3")


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
def test_a_greenlet_that_a_fork_has_copied_is_told_from_the_original(tmp_path: Path) -> None:
    probed = Probed(sys.executable, tmp_path)
    assert probed.run("""
        import gevent
        from forkproof_payload.loops import Loop
        yields = {"call": "gevent.sleep", "seconds": 0.001, "every": 1}
        spec = {"name": "a", "kind": "greenlet", "daemon": True, "body": "sleep", "yields": yields, "guard": "none"}
        loop = Loop(spec, "app_import", None, None)
        loop.start()
        gevent.sleep(0.01)
        child = os.fork()
        probe.event("told", copied=loop.copied(), child=child)
        if child:
            os.waitpid(child, 0)
        os._exit(0)
        """) == 0  # fmt: skip
    assert {event["copied"]: event["child"] != 0 for event in probed.events("told")} == {False: True, True: False}


@pytest.mark.parametrize("body", ["cpu", "queue_get", "lock", "logger"])
def test_a_body_shares_what_it_uses_with_requests(probed: Probed, body: str) -> None:
    run(probed, body=body)
    assert not probed.events("loop.end")


def test_a_loop_may_begin_while_another_thread_imports_greenlet(probed: Probed) -> None:
    before = 'import types; sys.modules["greenlet"] = types.ModuleType("greenlet")'
    run(probed, before)
    assert not probed.events("loop.end")


def loops(*kinds: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"name": name, "kind": kind, **fields} for name, kind in zip("abc", kinds, strict=False)]


def bodies(*bodies: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"name": name, "body": body, **fields} for name, body in zip("abc", bodies, strict=True)]


EARLY = [{"site": "config_first_line"}]
INIT = {"start": "post_worker_init"}
SERVICE = {"policy": "once_per_service"}

WHERE: dict[str, tuple[dict[str, Any], set[str]]] = {
    # deployment, and the places of each of its loops
    "threads of all kinds, in a plain worker": (
        {"loops": loops("timer", "executor", "native_thread")},
        {"worker 0"},
    ),
    "threads of all kinds, in a gevent worker": (
        {"loops": loops("timer", "executor", "gevent_threadpool", **INIT), "server": {"worker_class": "gevent"}},
        {"worker 0"},
    ),
    "green threads are copied": (
        {"loops": loops("thread", "timer", "executor", **SERVICE), "patches": EARLY, "server": {"preload": True}},
        {"arbiter", "worker 0"},
    ),
    "native threads are not, whatever is patched": (
        {
            "loops": loops("gevent_threadpool", "native_thread", **SERVICE),
            "patches": EARLY,
            "server": {"preload": True},
        },
        {"arbiter"},
    ),
    "processes of all kinds": (
        {"loops": loops("process", "process_spawn", "process_forkserver"), "server": {"worker_class": "gthread"}},
        {"child 0"},
    ),
    "processes of all kinds, below a patched arbiter": (
        {
            "loops": loops("process", "process_spawn", "process_forkserver", start="when_ready", policy="arbiter_only"),
            "server": {"worker_class": "gevent"},
            "patches": [{"site": "interpreter_start"}],
        },
        {"child"},
    ),
    "threads of libraries": (
        {
            "loops": [{"name": "a", "kind": "run_in_thread", "body": "listen"}, {"name": "b", "kind": "socketio_task"}],
            "server": {"worker_class": "geventwebsocket"},
            "patches": EARLY,
        },
        {"worker 0"},
    ),
    "what is shared with requests": (
        {"loops": bodies("queue_get", "lock", "logger")},
        {"worker 0"},
    ),
    "what is shared with requests, among greenlets": (
        {
            "loops": bodies("queue_get", "lock", "logger", kind="greenlet"),
            "server": {"worker_class": "gevent"},
            "patches": EARLY,
        },
        {"worker 0"},
    ),
    "settings of gunicorn's, and tornado": (
        {
            "loops": loops("thread", "timer"),
            "server": {"worker_class": "tornado", "reload": True, "control_socket": False},
        },
        {"worker 0"},
    ),
    "what waits for Redis": (
        {"loops": bodies("listen", "get_message", "blpop"), "server": {"worker_class": "gthread", "workers": 2}},
        {"worker 0", "worker 1"},
    ),
    "a hook of os.fork runs in each worker": (
        {"loops": loops("thread", "timer", "native_thread", start="fork_hook"), "server": {"workers": 2}},
        {"worker 0", "worker 1"},
    ),
}


@pytest.mark.fork
@pytest.mark.parametrize("name", WHERE)
def test_each_kind_ticks_where_it_should(name: str, forkproof: Forkproof) -> None:
    deployment, places = WHERE[name]
    what = from_dict(deployment)
    if "tornado" in name and not forkproof.session.target.has_worker_class(WorkerClass.TORNADO):
        pytest.skip("the target has no tornado")
    report = forkproof.run(what).report
    for loop in report.loops:
        ticked = {
            row["role"] if row["slot"] is None else f"{row['role']} {row['slot']}"
            for row in loop["processes"]
            if row["ticks"] > 2
        }
        assert ticked == places, loop
    assert not report.surprises
    assert Verdict.UNKNOWN not in {judgement.finding.verdict for judgement in report.judgements}
