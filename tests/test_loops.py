"""The loops as users write them: on the oldest Python, without a server; and each kind in a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from probed import Probed

from forkproof.scenario import LoopKind, from_dict
from forkproof.verdict import Verdict

KINDS = [kind for kind in LoopKind if not kind.needs_gevent]

PROGRAM = """
    import multiprocessing, time
    from forkproof_payload.loops import Loop

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
    probe.event("told", answers=sorted(answers), ticks=ticks())
    for child in multiprocessing.active_children():
        child.terminate()
        child.join()
    probe.event("ended", alive=loop.alive())
    os._exit(0)
"""


@pytest.fixture
def probed(python: str, tmp_path: Path) -> Iterator[Probed]:
    found = Probed(python, tmp_path)
    yield found
    found.end()


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_ticks_and_its_owner_is_told_so(probed: Probed, kind: LoopKind) -> None:
    spec = {
        "name": "a",
        "kind": kind.value,
        "daemon": True,
        "body": "sleep",
        "guard": "none",
        "yields": {"call": "time.sleep", "seconds": 0.001, "every": 2},
    }
    assert probed.run(PROGRAM.format(spec=json.dumps(spec).replace("true", "True"))) == 0
    [told] = probed.events("told")
    assert told["ticks"] >= 20
    assert told["answers"] == [True]
    births = {event["birth"] for event in probed.events("loop.created")}
    [begun] = probed.events("loop.begin")
    assert births == {begun["birth"]}
    assert (begun["pid"] != told["pid"]) == kind.is_process
    [ended] = probed.events("ended")
    assert ended["alive"] is not kind.is_process


def loops(*kinds: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"name": name, "kind": kind, **fields} for name, kind in zip("abc", kinds, strict=False)]


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
    "a hook of os.fork runs in each worker": (
        {"loops": loops("thread", "timer", "native_thread", start="fork_hook"), "server": {"workers": 2}},
        {"worker 0", "worker 1"},
    ),
}


@pytest.mark.fork
@pytest.mark.parametrize("name", WHERE)
def test_each_kind_ticks_where_it_should(name: str, forkproof) -> None:  # type: ignore[no-untyped-def]
    deployment, places = WHERE[name]
    report = forkproof.run(from_dict(deployment)).report
    for loop in report.loops:
        ticked = {
            row["role"] if row["slot"] is None else f"{row['role']} {row['slot']}"
            for row in loop["processes"]
            if row["ticks"] > 5
        }
        assert ticked == places, loop
    assert not report.surprises
    assert Verdict.UNKNOWN not in {judgement.finding.verdict for judgement in report.judgements}
