"""The atlas: which combinations there are, what is told of them, and a small scope on real servers."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from forkproof import atlas, cli
from forkproof.errors import UsageError
from forkproof.lanes import Shelf
from forkproof.reports.atlas import page

VERSIONS = {"python": "3.11.7", "gunicorn": "27.0.1"}


def scope(*texts: str) -> list[atlas.Combination]:
    return list(atlas.combinations(atlas.narrowed(texts)))


SMALL = scope("patch=none,config_first_line", "threads=patched", "kind=thread", "worker_class=sync", "workers=1")


def row(one: atlas.Combination, *broken: str, ran_in: str = "worker 0") -> dict[str, Any]:
    claims = [
        {
            "name": name, "loop": None, "verdict": "broken", "expectation": "may_break", "surprise": False,
            "known_issue": None, "how": "", "rate": [1, 1], "explanation": "<it> broke",
        }
        for name in broken
    ]  # fmt: skip
    return {"cannot": None, "claims": claims, "loops": [{"name": "loop", "in": [ran_in]}]}


def test_every_combination_has_a_scenario_or_a_reason() -> None:
    some = scope("workers=1", "worker_class=sync,gevent")
    assert len(some) == 5 * 2 * 2 * 7 * 4 * 2
    for one in some:
        assert (one.scenario is None) == bool(one.reason)
    assert Counter(one.reason.partition(",")[0] for one in some if one.reason) == {"nothing is patched": 112}
    assert len({one.scenario.digest for one in some if one.scenario}) == len(some) - 112, "no two are the same"


def test_a_setting_that_is_none_is_told() -> None:
    with pytest.raises(UsageError, match="there is no setting 'color'; there are: patch, threads"):
        atlas.narrowed(["color=red"])
    with pytest.raises(UsageError, match="workers is never '3'; it is: 1, 2"):
        atlas.narrowed(["workers=3"])


def test_the_nearest_that_hold_differ_least() -> None:
    rows = {one.id: row(one, "no_dead_listener") for one in SMALL}
    good = [one for one in SMALL if one.settings["start"] == "post_worker_init"]
    rows |= {one.id: row(one) for one in good}
    found = {entry["id"]: entry for entry in atlas.entries(SMALL, rows, "lane")}
    first = found["config_first_line-patched-no_preload-app_import-thread-sync-1"]
    assert first["nearest"] == ["config_first_line-patched-no_preload-post_worker_init-thread-sync-1"]
    assert found[good[0].id]["nearest"] == []
    assert atlas.counts(list(found.values())) == {"broken": 24, "held": 4}


def test_what_was_not_run_and_what_cannot_be_are_told_apart() -> None:
    some = scope("patch=none", "start=app_import", "kind=thread", "worker_class=sync", "workers=1", "preload=true")
    lacks = {"cannot": "has no gevent", "claims": [], "loops": []}
    assert [entry["verdict"] for entry in atlas.entries(some, {}, "lane")] == ["not run", "cannot be"]
    entry, invalid = atlas.entries(some, {some[0].id: lacks}, "lane")
    assert (entry["verdict"], entry["reason"]) == ("cannot be", "has no gevent")
    assert invalid["reason"].startswith("nothing is patched")
    assert invalid["replay"] == ""


def test_what_came_to_something_else_is_told() -> None:
    before = atlas.entries(SMALL, {one.id: row(one) for one in SMALL}, "lane")
    again = atlas.entries(SMALL[:2], {SMALL[0].id: row(SMALL[0], "workers_boot"), SMALL[1].id: row(SMALL[1])}, "lane")
    assert atlas.disagreements(before, before) == []
    [(name, was, now)] = atlas.disagreements(before, again)
    assert (name, was, now) == (SMALL[0].id, "held; runs in worker 0", "broken: workers_boot; runs in worker 0")


def test_what_broke_in_some_runs_is_a_race() -> None:
    some = row(SMALL[0], "workers_boot", "server_answers")
    some["claims"][0]["rate"] = [1, 3]
    [entry] = atlas.entries(SMALL[:1], {SMALL[0].id: some}, "lane")
    assert (entry["verdict"], entry["races"]) == ("broken", ["workers_boot"])
    assert entry["breaks"] == {"workers_boot": "in 1 of 3 runs: <it> broke", "server_answers": "<it> broke"}


def test_the_sample_is_the_seeds() -> None:
    assert atlas.sample(SMALL, 5, 1) == atlas.sample(SMALL, 5, 1) != atlas.sample(SMALL, 5, 2)
    assert len(atlas.sample(SMALL, 1000, 1)) == len(SMALL)


class Data(html.parser.HTMLParser):
    """What a page has in its script of data, and the ids that its own script asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.ids, self.inside = "", set[str](), False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        assert "src" not in said
        assert tag != "link"
        self.ids.add(said.get("id") or "")
        self.inside = tag == "script" and said.get("id") == "data"

    def handle_data(self, data: str) -> None:
        self.text += data if self.inside else ""


def test_the_page_and_the_table_have_every_row() -> None:
    found = atlas.entries(SMALL, {one.id: row(one, "workers_boot") for one in SMALL[:3]}, "lane")
    text = page(found, VERSIONS)
    shown = Data(text)
    assert [one[0] for one in json.loads(shown.text)["rows"]] == [one.id for one in SMALL]
    assert {*atlas.SCOPE, "policy", "verdict", "query", "rows", "count"} <= shown.ids
    assert "<it>" not in text
    table = list(csv.DictReader(io.StringIO(atlas.table(found))))
    assert [line["id"] for line in table] == [one.id for one in SMALL]
    assert (table[0]["breaks"], table[0]["preload"], table[-1]["verdict"]) == ("workers_boot", "false", "not run")
    assert table[0]["replay"].startswith("forkproof run - --target lane <<< '{")


@pytest.mark.fork
def test_a_small_scope_is_run_resumed_and_run_again(
    tmp_path: Path, short_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shelf, "python", lambda self, lane: Path(sys.executable))
    monkeypatch.setattr(Shelf, "build", lambda self, lane, anew=False: Path(sys.executable))
    only = ["patch=config_first_line", "preload=false", "start=config_import", "kind=thread", "worker_class=sync"]
    words = [word for text in only for word in ("--only", text)]
    words += ["--out", str(short_folder), "--rows", str(tmp_path / "rows"), "--csv", str(tmp_path / "x.csv")]

    def call(*more: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(["atlas", *words, *more])
        told = capsys.readouterr()
        return left.value.code, told.out + told.err

    code, told = call("--again", "2", "--html", str(tmp_path / "x.html"))
    assert (code, "2 run again: 0 came to something else" in told) == (0, True), told
    table = {line["id"]: line for line in csv.DictReader((tmp_path / "x.csv").read_text().splitlines())}
    copied = table["config_first_line-patched-no_preload-config_import-thread-sync-2"]
    assert copied["runs_in"] == "arbiter; worker 0 (copy); worker 1 (copy)"
    native = table["config_first_line-native-no_preload-config_import-thread-sync-2"]
    assert native["runs_in"] == "arbiter"
    code, told = call()
    assert (code, "0 servers" in told) == (0, True), told
    monkeypatch.setattr(atlas, "MORE", 2)
    monkeypatch.setattr(atlas, "disagreements", lambda before, again: [(again[0]["id"], "otherwise", "so")])
    code, told = call("--again", "1")
    assert (code, told.count(f"{atlas.LANE}: 1 run\n")) == (1, 3), told  # once, and what differs twice more
    assert "in 2 more: 0 as before and 0 as now" in told


def test_the_published_table_is_complete() -> None:
    """Each combination has a verdict with its replay command, or the reason why there is none."""
    docs = Path(__file__).parents[1] / "docs"
    with (docs / "atlas.csv").open(newline="", encoding="utf-8") as file:
        published = list(csv.DictReader(file))
    assert [entry["id"] for entry in published] == [one.id for one in atlas.combinations()]
    holding = {entry["id"] for entry in published if entry["verdict"] == "held"}
    for entry, one in zip(published, atlas.combinations(), strict=True):
        assert entry["verdict"] in ("held", "broken", "unknown", "cannot be"), entry
        assert bool(entry["reason"]) == (entry["verdict"] in ("unknown", "cannot be")), entry
        assert bool(entry["breaks"]) == (entry["verdict"] == "broken"), entry
        assert bool(entry["replay"]) == (one.scenario is not None), entry
        assert set(entry["nearest"].split("; ")) - {""} <= holding, entry
    text = (docs / "atlas.html").read_text(encoding="utf-8")
    counts = Counter(entry["verdict"] for entry in published)
    told = re.search(rf"<p>{len(published)} combinations: [\w, ]+\. Python (\S+), (.*)\.</p>", text)
    assert told
    versions = {"python": told[1], **dict(part.split() for part in told[2].split(", "))}
    found = []
    for entry, one, shown in zip(published, atlas.combinations(), json.loads(Data(text).text)["rows"], strict=True):
        why = shown[4]  # in words, which the table does not have
        assert [*why] == (entry["breaks"].split("; ") if entry["breaks"] else [])
        lists = {name: entry[name].split("; ") if entry[name] else [] for name in ("runs_in", "known_issues")}
        found.append({**entry, **one.settings, **lists, "breaks": why})
    assert text == page(found, versions), "the page has what the table has"
    about = (docs / "atlas.md").read_text(encoding="utf-8")
    for number, what in (
        (len(published), "combinations"), (counts["held"], "hold"), (counts["broken"], "break something"),
        (sum(bool(entry["races"]) for entry in published), "of these not in each"), (counts["cannot be"], "cannot be"),
    ):  # fmt: skip
        assert f"{number:,} {what}" in about
    assert not any(entry["verdict"] == "unknown" or entry["surprises"] for entry in published)
