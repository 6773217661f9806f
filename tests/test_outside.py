"""What the supervisor sees of a real server from outside, and how it asks."""

from __future__ import annotations

import pytest

from forkproof.history import History
from forkproof.scenario import from_dict

# Started after the fork: a fork beside a thread that talks may hang a worker.
LISTENER = {"name": "a", "body": "listen", "start": "post_worker_init"}
WHAT = {"loops": [LISTENER], "server": {"workers": 2}, "surroundings": {"requests": "one_by_one"}}


@pytest.mark.fork
def test_a_server_seen_from_outside(forkproof) -> None:  # type: ignore[no-untyped-def]
    history = History.read(forkproof.run(from_dict(WHAT)).report.folder / "history")
    (window,) = history.windows
    assert history.arbiter is not None
    workers = {worker.key for worker in history.live_workers(window).values()}

    had = {event["target"]: event for event in history.between("resources", window.opened, window.closed)}
    assert had.keys() == {history.arbiter.key, *workers}
    assert all(event["threads"] > 1 for key, event in had.items() if key in workers)
    clients = {event["inode"] for event in history.of("socket") if event["peer"] and event["state"] == "connected"}
    connections = {key: clients & set(had[key]["sockets"].values()) for key in workers}
    assert sorted(map(len, connections.values())) == [1, 1]

    looks = history.between("waits", window.opened, window.closed)
    assert not any(event["blind"] for event in looks)
    for key, inodes in connections.items():
        assert any(list(inodes) in event["on"][key].values() for event in looks)

    assert [event["count"] for event in history.of("numsub.ok")] == [2]

    asked = [event.event for event in history if event.event.startswith("request.")]
    assert len(asked) > 2
    assert asked == ["request.invoke", "request.ok"] * (len(asked) // 2)
