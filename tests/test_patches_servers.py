"""Patches on real servers: made in the order said, by whom it was said, and seen where they are."""

from __future__ import annotations

from typing import Any

import pytest

from forkproof.history import History
from forkproof.patching import calls
from forkproof.scenario import Scenario, from_dict

pytestmark = pytest.mark.fork

THREE = [
    {"site": "app_after_imports", "flags": {"dns": False}},
    {"site": "post_fork", "flags": {"thread": False}},
    {"site": "app_after_imports", "flags": {"time": False}},
]


def deployment(*patches: dict[str, Any], **server: Any) -> Scenario:
    return from_dict(
        {"loops": [{"name": "a", "start": "post_worker_init"}], "patches": patches, "server": {"workers": 2, **server}}
    )


@pytest.mark.parametrize(
    "what",
    [
        deployment(*THREE, worker_class="gevent", preload=True),
        deployment(*THREE, worker_class="geventwebsocket"),
        deployment({"site": "interpreter_start"}, {"site": "in_thread"}, {"site": "config_first_line"}),
    ],
    ids=["preload", "no preload", "sync"],
)
def test_patches_are_made_in_the_order_said(what: Scenario, forkproof: Any) -> None:
    recorded = History.read(forkproof.run(what).report.folder / "history")
    made: dict[str, list[tuple[str, Any]]] = {}
    for event in recorded.of("patch"):
        made.setdefault(event.process, []).append((event["site"], event["flags"]))
    assert recorded.arbiter is not None
    inherited = made.get(recorded.arbiter.key, [])
    assert inherited == [(call.site, call.flags) for call in calls(what, "arbiter")]
    workers = [process for process in recorded.processes.values() if process.place.role == "worker"]
    assert len(workers) == what.server.workers
    for worker in workers:
        assert inherited + made.get(worker.key, []) == [(call.site, call.flags) for call in calls(what, "worker")]
    assert {event.process for event in recorded.of("patched")} == {recorded.arbiter.key, *(one.key for one in workers)}
