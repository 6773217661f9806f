"""Every fault lands on a real server, and a sound server comes through it."""

from __future__ import annotations

from typing import Any

import pytest

from forkproof.faults import REGISTRY
from forkproof.history import History
from forkproof.scenario import from_dict

pytestmark = pytest.mark.fork

INIT = {"name": "a", "start": "post_worker_init"}
TWO = {"workers": 2}
BACK = {"fault": "usr2", "options": {"rollback": 1}}
GONE = {"fault": "redis_gone", "options": {"seconds": 0.2}}


def at(slot: int, fault: str, **options: float) -> dict[str, Any]:
    return {"fault": fault, "slot": slot, "options": options}


LIVES: dict[str, tuple[dict[str, Any], dict[str, Any], list[Any]]] = {
    "slots": (INIT, TWO, ["ttin", "ttou", at(1, "kill_worker"), "usr1", "int"]),
    "masters": (
        INIT,
        {**TWO, "worker_class": "gevent"},
        [{"fault": "hup", "options": {"times": 2}}, BACK, "usr2", "term"],
    ),
    "pauses": (
        INIT,
        {"workers": 1, "worker_class": "gthread", "max_requests": 60},
        [at(0, "stop_worker", seconds=0.1), "stop_arbiter", at(0, "block_loop", seconds=0.1), "max_requests"],
    ),
    "children": (
        {**INIT, "kind": "process", "policy": "best_effort"},
        {"timeout": 2},
        [at(0, "kill_child"), {"fault": "foreign_child_exit", "options": {"code": 3}}, "kill_arbiter"],
    ),
    "redis": ({**INIT, "body": "listen"}, {}, ["redis_restart", GONE, "redis_pause", "redis_kill_clients"]),
}


def test_every_fault_is_here() -> None:
    named = {one if isinstance(one, str) else one["fault"] for _, _, faults in LIVES.values() for one in faults}
    assert named == set(REGISTRY)


@pytest.mark.parametrize("life", LIVES)
def test_a_sound_server_comes_through(life: str, forkproof) -> None:  # type: ignore[no-untyped-def]
    loop, server, faults = LIVES[life]
    named = [fault if isinstance(fault, dict) else {"fault": fault} for fault in faults]
    result = forkproof.run(from_dict({"loops": [loop], "server": server, "faults": named}))
    history = History.read(result.report.folder / "history")
    assert [event["fault"] for event in history.of("fault.ok")] == [fault["fault"] for fault in named]
    assert all(event["healed"] for event in history.of("fault.healed"))
    surprises = [judgement for judgement in result.report.judgements if judgement.surprise]
    assert not surprises
    broken = {judgement.finding.claim for judgement in result.report.broken}
    assert broken <= {"no_orphan_process"}, broken
