"""Servers that are forked from a nest: the same as those that are started cold, in what they have and do."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from neutrality import deployment, differences, observed, snapshots

from forkproof import containment, explore, launch
from forkproof.history import History
from forkproof.judge import judge
from forkproof.scenario import Scenario, from_dict
from forkproof.session import LocalSession, open_session
from forkproof_strategies import scenarios

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))  # after ours: both have a planted.py

from agreement import AGAIN, by_the_start, one_round

pytestmark = pytest.mark.fork


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Iterator[LocalSession]:
    """A session of its own, whose nests are made at once."""
    target = request.config.getoption("fork_target")
    with (
        tempfile.TemporaryDirectory(prefix="fp-") as folder,
        open_session(target_name=target, out=Path(folder), warm=True) as one,
    ):
        if one.around.nests is None or not one.target.has_fork_hooks:
            pytest.skip("no nest can be here: it takes a pid namespace of root's, and Python 3.7")
        one.around.nests.eager = True
        yield one
    assert not [stat for stat in containment.carrying(folder) if stat.state != "Z"]


@pytest.mark.parametrize(
    "what",
    [
        deployment(preload=True, worker_class="gevent"),
        deployment("config_first_line", preload=True),
        deployment({"site": "interpreter_start", "flags": {"thread": False}}, "app_after_imports", preload=True),
    ],
    ids=["patched by the worker class", "patched by the configuration", "patched at the start"],
)
def test_every_name_means_the_same(what: Scenario, session: LocalSession, tmp_path: Path) -> None:
    with observed(tmp_path):
        cold, warm = (snapshots(session, what, warm=warm) for warm in (False, True))
    assert len(warm["config"]["modules"]) > len(cold["config"]["modules"])
    assert differences(cold, warm)[:9] == []


def test_a_module_that_was_imported_before_a_patch_is_seen(
    session: LocalSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison can fail: flask, held ready though the configuration patches, has locks that are not patched."""
    what = deployment("config_first_line", preload=True, redis=False)
    monkeypatch.setattr(launch, "neutral", lambda scenario: ("gunicorn.app.wsgiapp", "flask"))
    with observed(tmp_path):
        cold, warm = (snapshots(session, what, warm=warm) for warm in (False, True))
    found = "\n".join(differences(cold, warm))
    assert "imported: jinja2.utils.Lock" in found


def verdicts(session: LocalSession, what: Scenario) -> tuple[bool, dict[str, str]]:
    folder = launch.launch(what, session.around)
    (launched,) = History.read(folder / "history").of("launch")
    found = {f"{one.finding.claim} {one.finding.loop}": one.finding.verdict.value for one in judge(folder).judgements}
    launch.remove_folder(folder)
    return launched["warm"], found


DOUBLE = {"loops": [{"name": "a", "start": "app_import"}], "server": {"workers": 2}}


@pytest.mark.parametrize(
    "what",
    [
        from_dict({**DOUBLE, "faults": [{"fault": "foreign_child_exit", "options": {"code": 3}}, {"fault": "term"}]}),
        from_dict({**DOUBLE, "patches": [{"site": "config_first_line"}], "faults": [{"fault": "usr2"}]}),
        from_dict(
            {
                # Not started at import: who of the copies on one connection takes a message is chance.
                "loops": [{"name": "a", "start": "post_worker_init", "body": "get_message"}],
                "patches": [{"site": "interpreter_start"}],
                "server": {"preload": True, "worker_class": "gthread"},
                "faults": [{"fault": "kill_worker", "slot": 0}, {"fault": "term"}],
            }
        ),
    ],
    ids=["foreign child", "re-exec", "respawn"],
)
def test_the_verdicts_are_the_same(what: Scenario, session: LocalSession) -> None:
    warm, found = verdicts(session, what)
    assert warm
    session.around = replace(session.around, nests=None)
    warm, expected = verdicts(session, what)
    assert not warm
    assert found.keys() == expected.keys()
    # What the machine left undecided either way tells nothing of the two.
    pairs = {name: {verdict, expected[name]} for name, verdict in found.items()}
    assert not {name: pair for name, pair in pairs.items() if len(pair) > 1 and "unknown" not in pair}
    assert {"held"} in pairs.values()


def test_drawn_scenarios_come_to_the_same(session: LocalSession) -> None:
    """A few of the hundred that `benchmarks/agreement.py --boots` runs."""
    classes, lacks = explore.abilities(session.target)
    strategy = scenarios(worker_classes=classes, flags=session.target.patch_flags, without=lacks)
    every = explore.drawn(6, 1, strategy, session.can_run)
    nests = session.around.nests
    cold, warm = ([one_round(session, every, 2, way)] for way in (None, nests))
    assert nests is not None
    assert nests.pids
    for what, names in zip(every, by_the_start(cold, warm), strict=True):
        for _ in range(AGAIN if names else 0):  # a race is no difference
            cold, warm = ([*rounds, one_round(session, every, 2, way)] for rounds, way in ((cold, None), (warm, nests)))
            names = by_the_start(cold, warm)[every.index(what)]
        assert not names, what.digest


def test_what_keeps_to_the_start_is_told() -> None:
    cold = [[{"a": "held", "b": "held", "c": "held"}], [{"a": "held", "b": "broken", "c": "unknown"}]]
    warm = [[{"a": "broken", "b": "broken", "c": "broken"}]]
    assert by_the_start(cold, warm) == [["a"]]


def test_a_nest_that_is_gone_is_done_without_and_replaced(session: LocalSession) -> None:
    nests: Any = session.around.nests
    assert verdicts(session, deployment(redis=False))[0]
    for nest in nests._nests.values():
        os.kill(nest.pid, signal.SIGKILL)
    found = [verdicts(session, deployment(redis=False))[0] for _ in range(3)]
    assert (found[0], found[-1]) == (False, True)


def test_one_server_alone_is_started_cold(session: LocalSession) -> None:
    nests: Any = session.around.nests
    nests.eager = False
    assert not verdicts(session, deployment(redis=False))[0]
    assert not nests.pids
