"""From files to a history: which lines count, in which order, and what they are taken to tell."""

from __future__ import annotations

import json
import time
from pathlib import Path

from histories import (
    ARBITER,
    WORKER,
    Events,
    begin,
    created,
    event,
    gone,
    handled,
    history,
    key,
    process,
    published,
    ran,
    request,
    sample,
    scenario,
    seen,
    server,
    window,
    worker,
)

from forkproof.claims import REGISTRY
from forkproof.history import History, Place


def written(folder: Path, **files: Events | str) -> History:
    for name, lines in files.items():
        text = lines if isinstance(lines, str) else "".join(json.dumps(one.to_dict()) + "\n" for one in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return History.read(folder)


def log(*times: float) -> Events:
    return [event(t, 7, "log", line=str(t)) for t in times]


def test_every_line_of_every_file_in_order_of_time(tmp_path: Path) -> None:
    found = written(tmp_path, a=log(1.0, 4.0), b=log(2.0, 5.0), c=log(3.0))
    assert [one["line"] for one in found] == ["1.0", "2.0", "3.0", "4.0", "5.0"]


def test_an_event_that_is_missing_is_told(tmp_path: Path) -> None:
    every = [event(1.0 + number, 7, "log", line="", n=number) for number in range(20)]
    swapped = [every[1], every[0], *every[2:]]
    assert written(tmp_path, a=every).damage == written(tmp_path, a=swapped).damage == ""
    assert written(tmp_path, a=every[:18] + every[19:]).damage == ""  # a kill may have taken it
    told = written(tmp_path, a=every[:5] + every[6:9] + every[10:]).damage
    assert told == "history/a.jsonl: the event of number 5 is missing, one of 2"


def test_a_bad_line_costs_itself_alone_and_is_told(tmp_path: Path) -> None:
    first, last = (json.dumps(one.to_dict()) for one in log(1.0, 2.0))
    found = written(tmp_path, a=f'{first}\n{{"t": 1.5, "pi\n{last}\n{{"t": 3')
    assert [one.t for one in found] == [1.0, 2.0]
    assert found.damage.startswith("history/a.jsonl: line 2 is no event")


def test_both_ends_belong_to_a_stretch() -> None:
    found = history(log(1.0, 2.0, 3.0, 4.0))
    assert [one.t for one in found.between("log", 2.0, 3.0)] == [2.0, 3.0]


def test_a_counter_is_what_was_last_sampled() -> None:
    ticks = sample(1.2, WORKER, aa=5) + sample(1.6, WORKER, aa=9)
    found = history(server(), created("aa", WORKER), ran("aa", WORKER, w0=0), ticks)
    assert [found.count("aa", key(WORKER), t) for t in (1.1, 1.2, 1.5, 1.6, 9.0)] == [0, 5, 5, 9, 9]
    assert found.ticks("aa", key(WORKER), 1.2, 1.6) == 4


def test_each_window_has_ends_of_its_own() -> None:
    unclosed = seen(5.0, "window.open", window=2, after="hup", healed=True)
    found = history(window(0), window(1, control=7, healed=False), unclosed).windows
    assert [(one.index, one.opened, one.closed) for one in found] == [(0, 1.0, 2.0), (1, 3.0, 4.0)]
    assert [(one.control, one.healed) for one in found] == [(50, True), (7, False)]


def test_a_copy_ticks_as_its_original_does() -> None:
    found = history(server(), created("aa", ARBITER), ran("aa", ARBITER, w0=3), ran("aa", WORKER, w0=4), window())
    assert found.ticking("listen", found.windows[0]) == {("aa", key(ARBITER)): 3, ("aa", key(WORKER)): 4}


def test_the_newest_worker_has_a_slot_and_the_dead_have_none() -> None:
    successor = gone(WORKER, 0.5) + worker(0, pid=120, t=0.6)
    found = history(server(2), successor, gone(111, 1.5), window())
    assert {slot: one.pid for slot, one in found.live_workers(found.windows[0]).items()} == {0: 120}
    both = history(server(), worker(0, pid=120, t=0.6), window())
    assert both.live_workers(both.windows[0])[0].pid == 120


def test_a_child_has_the_slot_of_its_parent() -> None:
    found = history(server(2), process(130, ppid=111, t=0.7), process(131, ppid=ARBITER, t=0.7))
    assert found.processes[key(130)].place == Place("child", 1)
    assert found.processes[key(131)].place == Place("child")


def answers(number: int) -> Events:
    """A loop whose handle is asked so many times, and that ticks all the while: five events each."""
    groups = [server(1), created("aa", WORKER), begin("aa", WORKER)]
    groups += [seen(1.0, "window.open", window=0, after="boot", healed=True)]
    for count in range(number):
        t = 1 + count * 0.001
        groups.append(published(t, f"listen-{count}"))
        groups.append(handled(t + 0.0002, f"listen-{count}", "aa", WORKER))
        groups.append(sample(t + 0.0003, WORKER, aa=count + 1))
        groups.append(log(t + 0.0004))
        groups.append(request(t + 0.0005, aa=False))
    groups += [seen(1 + number * 0.001, "window.close", window=0, turns=200, control=200)]
    return [one for group in groups for one in group]


def test_what_judging_takes_grows_as_the_history_does() -> None:
    what = scenario({"policy": "once_per_worker"})
    taken = []
    for number in (150, 1200):
        found = history(answers(number))
        begun = time.process_time()
        findings = [finding for claim in REGISTRY.values() for finding in claim.check(what, found)]
        taken.append(time.process_time() - begun)
        assert "dead but ticking" in [finding.how for finding in findings]
    # Eight times as many events: what asks each of them about all of them takes sixty-four times as long.
    assert taken[1] < 24 * taken[0]


def test_ticks_after_count_from_the_first_sample_after() -> None:
    found = history(server(1), created("aa", WORKER), begin("aa", WORKER),
                    *(sample(1 + n, WORKER, aa=10 * n) for n in range(5)))  # fmt: skip
    assert found.ticks_after("aa", key(WORKER), 1.5, 4.5) == 20
    assert found.ticks_after("aa", key(WORKER), 2.0, 4.0) == 20
    assert found.ticks_after("aa", key(WORKER), 5.5, 9.0) == 0
    assert found.ticks_after("bb", key(WORKER), 1.5, 4.5) == 0


def test_events_of_several_kinds_keep_their_order() -> None:
    found = history(log(1.0, 3.0), seen(1.0, "loop"), log(2.0), seen(2.0, "loop"))
    assert [(one.t, one.event) for one in found.of("loop", "log", "log", "none")] == [
        (1.0, "log"), (1.0, "loop"), (2.0, "log"), (2.0, "loop"), (3.0, "log"),
    ]  # fmt: skip
    assert [one.t for one in found.between("log", 1.0, 2.0)] == [1.0, 2.0]
    assert found.between("log", 2.5, 2.6) == found.between("none", 0.0, 9.0) == []
