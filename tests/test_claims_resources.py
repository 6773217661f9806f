"""What is left after reloads, on histories of a few events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from histories import ARBITER, WORKER, Events, has, judged, key, process, scenario, seen, server, window

from forkproof.verdict import Verdict

LEAK = "no_leak_on_reload"
FOUR = scenario(faults=[{"fault": "hup", "options": {"times": 4}}])


def after_reloads(
    fds: Sequence[int] = (), threads: Sequence[int] = (), sockets: Sequence[int] = (), *, pid: int = ARBITER
) -> Events:
    """What a process has after each of as many reloads as there are numbers."""
    count = max(map(len, (fds, threads, sockets)))
    events: Events = []
    for n in range(count):
        inodes = range(100, 100 + (sockets[n] if sockets else 2))
        more = {"fds": fds[n] if fds else 12, "threads": threads[n] if threads else 1}
        events += has(pid, *inodes, t=2.1 + n / 10, reload=n + 1, **more)
    return events


@pytest.mark.parametrize(
    "counts",
    [
        {"fds": (12, 12, 12, 12)},
        {"fds": (14, 12, 13, 12), "threads": (2, 1, 1, 1)},
        {"threads": (1, 2, 2, 2)},
        {"fds": (12, 14, 14, 14), "sockets": (2, 4, 4, 4)},
        {"fds": (12, 13, 12, 14)},
        {"fds": (12, 12, 14, 14)},
    ],
)
def test_it_comes_back_or_makes_a_single_step(counts: Any) -> None:
    found = judged(LEAK, FOUR, server(), window(), after_reloads(**counts))
    assert found.verdict is Verdict.HELD
    assert "after the first and after the last of 4 reloads the arbiter had" in found.explanation
    assert [event["reload"] for event in found.evidence] == [1, 4]


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"threads": (2, 3, 4, 5)}, "2, 3, 4, 5 threads"),
        (
            {"fds": (12, 17, 22, 27), "threads": (3, 4, 5, 6), "sockets": (4, 7, 10, 13)},
            "",
        ),
        ({"fds": (12, 12, 17, 22)}, "12, 12, 17, 22 fds"),
        ({"fds": (12, 12, 13, 14)}, "12, 12, 13, 14 fds"),
        ({"fds": (12, 16, 16, 16)}, "12, 16, 16, 16 fds"),
        ({"fds": (12, 13, 14), "sockets": (2, 3, 4)}, "12, 13, 14 fds and 2, 3, 4 sockets"),
    ],
)
def test_more_with_each_reload(counts: Any, told: str) -> None:
    found = judged(LEAK, FOUR, server(), window(), after_reloads(**counts))
    assert (found.verdict, found.how) == (Verdict.BROKEN, "grows")
    assert found.explanation.startswith(f"arbiter (pid 100) has more and more: {told}")
    assert found.evidence[0]["reload"] == len(next(iter(counts.values())))


def test_a_lasting_child_is_judged_and_workers_are_replaced() -> None:
    steady = after_reloads((12, 12, 12))
    child = process(130, ppid=ARBITER) + after_reloads((5, 6, 7), pid=130)
    assert judged(LEAK, FOUR, server(), steady, child, window()).explanation.startswith("child (pid 130)")
    replaced = [event for n in range(3) for event in has(WORKER + n, fds=12 + n, reload=n + 1)]
    assert judged(LEAK, FOUR, server(3), steady, replaced, window()).verdict is Verdict.HELD


def test_what_a_process_has_for_a_moment() -> None:
    moments = [event for n in range(3) for event in has(ARBITER, t=2.11 + n / 10, fds=12 + n, reload=n + 1)]
    found = judged(LEAK, FOUR, server(), after_reloads((12, 12, 12)), moments, window())
    assert found.verdict is Verdict.HELD


def test_looks_in_windows_are_not_after_a_reload() -> None:
    windows = [event for n in range(3) for event in has(ARBITER, t=1.2 + n / 10, fds=12 + n)]
    assert judged(LEAK, FOUR, server(), windows, window()).verdict is Verdict.UNKNOWN


def test_too_few_reloads_were_come_through() -> None:
    failed = seen(2.5, "fault.fail", fault="hup", index=1, error="the server had not come through")
    found = judged(LEAK, FOUR, server(), window(), after_reloads((12, 17)), failed)
    assert found.verdict is Verdict.UNKNOWN
    assert "came through 2 of 4 reloads" in found.explanation
    assert [event.event for event in found.evidence] == ["fault.fail"]
    assert judged(LEAK, FOUR, server()).verdict is Verdict.UNKNOWN


def test_a_master_that_took_over_is_judged_for_itself() -> None:
    new = process(200, "arbiter", ppid=ARBITER, t=1.5)
    steady = after_reloads((12, 12, 12), pid=200)
    assert judged(LEAK, FOUR, server(), new, steady, window()).verdict is Verdict.HELD
    growing = judged(LEAK, FOUR, server(), new, after_reloads((12, 13, 14), pid=200), window())
    assert growing.explanation.startswith("arbiter (pid 200) has more and more: 12, 13, 14 fds")


def test_where_one_may_not_look() -> None:
    blind = [
        event
        for n in range(3)
        for event in seen(2.1, "resources", target=key(ARBITER), error="[Errno 13] Permission denied", reload=n + 1)
    ]
    found = judged(LEAK, FOUR, server(), window(), blind)
    assert found.verdict is Verdict.UNKNOWN
    assert "one may not look into arbiter (pid 100): [Errno 13] Permission denied" in found.explanation


@pytest.mark.parametrize("faults", [[], [{"fault": "hup"}], [{"fault": "hup", "options": {"times": 2}}]])
def test_fewer_reloads_than_tell(faults: list[dict[str, Any]]) -> None:
    found = judged(LEAK, scenario(faults=faults), server(), window())
    assert found.verdict is Verdict.NOT_APPLICABLE
