"""From files to a history: which lines count, in which order, and what they are taken to tell."""

from __future__ import annotations

import json
from pathlib import Path

from histories import (
    ARBITER,
    WORKER,
    Events,
    created,
    event,
    gone,
    history,
    key,
    process,
    ran,
    sample,
    seen,
    server,
    window,
    worker,
)

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
