"""A server that was forked from a nest, compared with one that was started cold: every name of every module.

Each server takes a snapshot where its configuration file begins, where its app's import begins, and where that ends,
by then or not with what a nest may have imported before. So it runs a copy of the payload with these three lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from forkproof import launch
from forkproof.scenario import Scenario, from_dict
from forkproof.session import LocalSession

MOMENTS = ("config", "app", "imported")
SEED = "PYTHONHASHSEED"

Snapshot = dict[str, Any]


def deployment(*patches: str | dict[str, Any], redis: bool = True, **server: Any) -> Scenario:
    """A server with a loop in each worker, and these patches."""
    loop = {"name": "a", "start": "post_worker_init", "body": "listen" if redis else "sleep"}
    sites = [{"site": patch} if isinstance(patch, str) else patch for patch in patches]
    return from_dict({"loops": [loop], "patches": sites, "server": server})


@contextlib.contextmanager
def observed(folder: Path) -> Iterator[None]:
    """Have all servers take snapshots, with one hash seed for all of them."""
    before = launch.PAYLOAD, launch._CONFIG, launch.ENVIRONMENT, os.environ.get(SEED)
    payload = folder / "payload"
    shutil.copytree(launch.PAYLOAD, payload, ignore=shutil.ignore_patterns("__pycache__"))
    inner = payload / "forkproof_payload"
    shutil.copy(Path(__file__).parent / "snapshot.py", inner)
    line = "from forkproof_payload import snapshot; snapshot.take({!r}, {})\n".format
    conf, app = inner / "conf.py", inner / "app.py"
    # Up to the app's import only what stands in modules is compared.
    conf.write_text(line("config", 0) + conf.read_text())
    app.write_text(line("app", 0) + app.read_text() + "\n" + line("imported", "snapshot.DEPTH"))
    launch.PAYLOAD, launch._CONFIG = payload, str(conf)
    launch.ENVIRONMENT = (*launch.ENVIRONMENT, SEED)
    os.environ[SEED] = "0"
    try:
        yield
    finally:
        launch.PAYLOAD, launch._CONFIG, launch.ENVIRONMENT, seed = before
        del os.environ[SEED]
        if seed is not None:
            os.environ[SEED] = seed


def snapshots(session: LocalSession, what: Scenario, *, warm: bool) -> dict[str, Snapshot]:
    """What a server of this scenario is at each moment, in the first process that comes there."""
    nests = session.around.nests
    assert nests is not None
    nests.eager = True
    if warm:  # the second one that a nest forks: the first may have left something in it
        launch.remove_folder(launch.launch(what, session.around))
    folder = launch.launch(what, session.around if warm else replace(session.around, nests=None))
    found: dict[str, Snapshot] = {}
    for moment in MOMENTS:
        paths = sorted(folder.glob(f"snapshot-{moment}-*.json"), key=lambda path: int(path.stem.rpartition("-")[2]))
        assert paths, (folder / "server.log").read_text()
        found[moment] = json.loads(paths[0].read_text())
    launched = (folder / "history" / "supervisor.jsonl").read_text().splitlines()
    told = next(event for event in map(json.loads, launched) if event["event"] == "launch")
    assert told["warm"] == warm
    launch.remove_folder(folder)
    return found


def differences(cold: dict[str, Snapshot], warm: dict[str, Snapshot]) -> list[str]:
    """What is not the same. Up to the end of the app's import a nest may have more modules, and more in shared ones."""
    found = []
    for moment in MOMENTS:
        one, other = cold[moment], warm[moment]
        for name, value in one["process"].items():
            now = other["process"][name]
            if now != value:
                # Of two long lists, what is in one of them alone tells most.
                apart = [[each for each in a if each not in b] or a for a, b in ((value, now), (now, value))]
                found.append(f"{moment}: {name}: cold {apart[0]}, warm {apart[1]}")
        missing = set(one["modules"]) - set(other["modules"])
        more = set(other["modules"]) - set(one["modules"]) if moment == "imported" else ()
        found += [f"{moment}: module {name}: cold only" for name in sorted(missing)]
        found += [f"{moment}: module {name}: warm only" for name in sorted(more)]
        whole = moment == "imported"
        names = set(one["names"]) | set(other["names"]) if whole else _top(one)
        for name in sorted(names):
            a, b = (shot["names"].get(name, [None, None]) for shot in (one, other))
            if (a != b) if whole else a[0] != b[0]:
                found.append(f"{moment}: {name}: cold {a}, warm {b}")
    return found


def _top(shot: Snapshot) -> set[str]:
    """The names that stand in the modules themselves."""
    return {name for module in shot["modules"] for name in _names_by_module(shot).get(module, ())}


def _names_by_module(shot: Snapshot) -> dict[str, list[str]]:
    if "by_module" not in shot:
        found: dict[str, list[str]] = {}
        for name in shot["names"]:
            module, _, last = name.rpartition(".")
            if not set(last) & set("[({!"):
                found.setdefault(module, []).append(name)
        shot["by_module"] = found
    return shot["by_module"]
