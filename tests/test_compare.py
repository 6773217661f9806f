"""Two pretended servers: what is told as a difference, with which rates, and what is not. Nothing is launched."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console
from schema import validate
from test_blocks import block_of

from forkproof import aim, documented
from forkproof.aim import changed_words, scenarios
from forkproof.compare import BASE, BATCH, HEAD, LAST, SIDES, Comparer, Comparison, Difference, Noticed, has
from forkproof.coverage import pairs_of
from forkproof.errors import NothingBoots, UsageError
from forkproof.expectation import Expectation
from forkproof.explore import size
from forkproof.faults import REGISTRY
from forkproof.history import Event
from forkproof.judge import Judgement, RunReport
from forkproof.rates import Spending, enough, fisher
from forkproof.reports import terminal
from forkproof.scenario import LoopBody, Scenario, WorkerClass, from_dict
from forkproof.session import Session
from forkproof.target import PACKAGES, Target
from forkproof.verdict import Finding, Verdict

Told = Verdict | str
Answer = Callable[[Scenario], Told | dict[str, Told]]
"""What `server_answers` comes to, for all or for each loop; broken where it is a word, which tells how."""

HELD = Verdict.HELD


@dataclass
class Pretended:
    """Stands for a Session."""

    folder: Path
    answer: Answer
    version: str = "1"
    claims: None = None
    launched: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    ran: list[Scenario] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def target(self) -> Target:
        return Target("python", "3.11.7", dict.fromkeys(PACKAGES, self.version), ("thread",))

    def can_run(self, what: Scenario) -> bool:
        return True

    def run(self, what: Scenario, *, every_claim: bool = False) -> RunReport:
        with self._lock:
            self.launched += 1
            self.ran.append(what)
            run = self.folder / f"{id(self)}-{self.launched}"
        run.mkdir()
        answer = self.answer(what)
        seen = (Event(0.0, 1, 1, "request.info", {}),)
        judgements = []
        for loop, told in answer.items() if isinstance(answer, dict) else [(None, answer)]:
            verdict, how = (Verdict.BROKEN, told) if isinstance(told, str) else (told, "")
            judgements += [
                Judgement(Finding(claim, verdict, loop, "pretended", seen, how), Expectation.MUST_HOLD, "")
                for claim in ("server_answers", "workers_boot")
            ]
        return RunReport(what, run, self.target.to_dict(), judgements, (), (run,))


def preloaded(what: Scenario) -> Verdict | str:
    return "no answer" if what.server.preload and what.server.workers >= 2 else HELD


def holds(what: Scenario) -> Verdict | str:
    return HELD


def broken(what: Scenario) -> Verdict | str:
    return "no answer"


def race(rate: float, seed: int) -> Answer:
    chance, lock = random.Random(seed), threading.Lock()

    def answer(what: Scenario) -> Verdict | str:
        with lock:
            return "no answer" if chance.random() < rate else HELD

    return answer


@functools.cache
def plan() -> tuple[Scenario, ...]:
    """Scenarios as a comparison takes them, made once: most of these tests are about what is made of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aim, "POOL", 16)
        patch.setattr(aim, "MORE", 1)
        patch.setattr(aim, "USUAL", ())
        return tuple(scenarios(64, 1, lambda what: True))


@pytest.fixture(autouse=True)
def planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons take the scenarios that are there already, and ask no target for its files."""
    monkeypatch.setattr(aim, "changed_words", lambda base, head: Counter[str]())
    monkeypatch.setattr(aim, "scenarios", lambda n, *rest: iter(plan()[:n]))


def compared(folder: Path, base: Answer, head: Answer, n: int = 32, seed: int = 1) -> Comparison:
    sides = (cast(Session, Pretended(folder, base)), cast(Session, Pretended(folder, head, "2")))
    return Comparer(*sides, jobs=2, seed=seed).compare(n)


def test_what_breaks_on_the_head_alone_is_a_regression_and_shrinks(tmp_path: Path) -> None:
    found = compared(tmp_path, holds, preloaded)
    [one] = found.differences
    assert one.name == "regression"
    small = one.scenario.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert small.pop("loops")[1:] == []
    assert small == {"server": {"preload": True, "workers": 2}}
    assert one.verdicts == (HELD, Verdict.BROKEN)
    assert one.rates[BASE][0] == 0
    assert one.rates[HEAD][0] == one.rates[HEAD][1] == one.rates[BASE][1] >= 5
    assert one.chance <= one.level / 2
    assert one.also == ("workers_boot",), "what the same scenario breaks beside is grouped with it"
    assert one.seen >= 1
    assert found.exit_code == 1
    assert one.report.folder.is_dir(), "the run that shows it is kept"
    assert len(list(tmp_path.iterdir())) == 1, "and no other"


def test_what_breaks_on_the_base_alone_is_fixed(tmp_path: Path) -> None:
    found = compared(tmp_path, preloaded, holds)
    assert [one.name for one in found.differences] == ["fixed"]
    assert found.exit_code == 1
    validate(json.loads(json.dumps(found.to_dict())), "comparison")
    [told] = found.to_dict()["failures"]
    assert json.loads(json.dumps(told))["base"]["verdict"] == "broken"
    assert told["head"] == {"verdict": "held", "rate": [0, told["base"]["rate"][1]]}
    assert told["change"] == "fixed"


def test_what_the_page_shows_is_told_so() -> None:
    """One comparison of ten minutes; its numbers stand here as they stand there."""
    shown = block_of("docs/diff.md", "fixed: quiet_runtime").text
    explanation = (
        "1 bad line in the output, the first at +4.20s: '... <callback at 0x7f2a7d3f2b80 args=([],)> failed with "
        "AssertionError', raised in gevent._gevent_c_abstract_linkable.AbstractLinkable._notify_links"
    )
    what = from_dict({
        "patches": [{"site": "interpreter_start"}],
        "loops": [{"name": "b", "policy": "inherit_allowed"}],
        "server": {"preload": True},
    })  # fmt: skip
    finding = Finding("quiet_runtime", Verdict.BROKEN, None, explanation, (), "failed")
    judgement = Judgement(finding, Expectation.MUST_HOLD, "")
    report = RunReport(what, Path(".forkproof/6b428ac3c958-d7774a"), {}, [judgement])
    one = Difference(
        ("quiet_runtime", None), BASE, what, judgement, report, ((5, 5), (0, 5)), (Verdict.BROKEN, HELD),
        fisher((5, 5), (0, 5)), 0.025, 3, is_small=True,
    )  # fmt: skip
    told = io.StringIO()
    Console(file=told, width=300, no_color=True, highlight=False).print(terminal.difference(one))
    assert told.getvalue().split() == shown.split()


def test_what_breaks_in_another_way_is_unclassified(tmp_path: Path) -> None:
    found = compared(tmp_path, lambda what: "once", lambda what: "twice")
    assert {one.name for one in found.differences} == {"unclassified"}


@pytest.mark.parametrize("both", [holds, broken, preloaded])
def test_what_is_alike_is_no_difference(tmp_path: Path, both: Answer) -> None:
    found = compared(tmp_path, both, both)
    assert not found.differences
    assert found.exit_code == 0
    assert (found.drawn, found.launched) == (32, 64)


def test_what_cannot_be_told_is_no_difference(tmp_path: Path) -> None:
    found = compared(tmp_path, lambda what: Verdict.UNKNOWN, broken)
    assert not found.differences


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_a_race_that_is_alike_on_both_sides_is_no_difference(tmp_path: Path, rate: float) -> None:
    wrong = 0
    for seed in range(6):
        folder = tmp_path / str(seed)
        folder.mkdir()
        wrong += bool(compared(folder, race(rate, seed), race(rate, 1000 + seed), n=6).differences)
    assert wrong <= 1, "a twentieth of them may"


def test_a_race_on_one_side_is_told_with_its_rate(tmp_path: Path) -> None:
    [one, *_] = compared(tmp_path, race(0.9, 7), holds).differences
    shown, tried = one.rates[BASE]
    assert 0.5 < shown / tried <= 1
    assert one.rates[HEAD] == (0, one.rates[HEAD][1])


def test_what_breaks_for_one_loop_on_both_sides_hides_no_other_loop(tmp_path: Path) -> None:
    def answers(second: Told) -> Answer:
        return lambda what: {"a": "no answer", **{loop.name: second for loop in what.loops if loop.name != "a"}}

    [one, *more] = compared(tmp_path, answers(HELD), answers("no answer")).differences
    assert one.key == ("server_answers", "no answer", "b")
    assert one.verdicts == (HELD, Verdict.BROKEN)
    assert {loop.name for loop in one.scenario.loops} == {"b"}
    assert {other.key[2] for other in more} <= {"b", "c"}


def test_two_causes_are_two_differences(tmp_path: Path) -> None:
    def two(what: Scenario) -> Verdict | str:
        if what.server.control_socket is False:
            return "no socket"
        return "no answer" if any(loop.kind.value == "timer" for loop in what.loops) else HELD

    found = compared(tmp_path, holds, two, n=64)
    assert {one.key[1] for one in found.differences} == {"no socket", "no answer"}
    for one in found.differences:
        assert one.scenario.server.control_socket is (one.key[1] == "no answer")


def test_what_comes_with_the_same_symptoms_is_told_together(tmp_path: Path) -> None:
    def base(what: Scenario) -> Verdict | str:
        return "hangs" if what.server.preload else HELD

    def head(what: Scenario) -> Verdict | str:
        if what.server.preload:
            return "falls"
        return "trips" if what.server.worker_class is WorkerClass.TORNADO else HELD

    found = compared(tmp_path, base, head)
    groups = [sorted((SIDES[one.side], one.key[1]) for one in group) for group in found.groups()]
    assert sorted(groups) == [[("base", "hangs"), ("head", "falls")], [("head", "trips")]]
    told = [(one["group"], one["how"]) for one in found.to_dict()["failures"]]
    assert len({group for group, how in told if how in ("hangs", "falls")}) == 1
    assert len({group for group, _ in told}) == 2
    shown = io.StringIO()
    Console(file=shown, width=120).print(terminal.comparison(found, seed=1))
    text = shown.getvalue()
    assert "2 differences that come with the same symptoms" in text
    assert "3 differences" in text
    assert "of 2 kinds" in text


def test_another_cause_is_looked_into_before_what_came_with_a_known_one(tmp_path: Path) -> None:
    """The symptom of the other cause is seen once, late; those of the first one in every scenario that preloads."""
    comparer = Comparer(*(cast(Session, Pretended(tmp_path, holds)) for _ in range(2)))
    what = plan()[0]
    known, beside, new = (("server_answers", how, None) for how in ("no answer", "late", "other"))
    for key, with_, times in ((beside, known, 3), (new, new, 1)):
        noticed = comparer._noticed.setdefault((key, HEAD), Noticed(key, HEAD))
        for _ in range(times):
            noticed.add(what, [(HEAD, "workers_boot" if with_ is known else "x", with_[1])])
    assert comparer._next()[0] is comparer._noticed[beside, HEAD], "it was seen most often"
    found = compared(tmp_path, holds, preloaded).differences[0]
    comparer.found.differences.append(
        dataclasses.replace(
            found, key=("clean_shutdown", "x", None), apart=frozenset({(HEAD, "workers_boot", "no answer")})
        )
    )
    assert comparer._next() == (comparer._noticed[new, HEAD], True)


def test_what_is_run_soon_is_looked_into_first(tmp_path: Path) -> None:
    comparer = Comparer(*(cast(Session, Pretended(tmp_path, holds)) for _ in range(2)))
    smallest, *_, largest = sorted(plan(), key=size)
    for what, seconds in ((smallest, 30.0), (largest, 2.0)):
        key = ("server_answers", what.digest, None)
        comparer._noticed[key, HEAD] = Noticed(key, HEAD)
        comparer._noticed[key, HEAD].add(what, ())
        comparer._took[what.digest] = seconds
    assert comparer._next()[0] is comparer._noticed[("server_answers", largest.digest, None), HEAD]


def test_a_scenario_that_uses_nothing_of_what_differs_is_not_run(tmp_path: Path) -> None:
    def side(**versions: str) -> Session:
        one = Pretended(tmp_path, holds)
        target = dataclasses.replace(one.target, versions={**one.target.versions, **versions})
        return cast(Session, SimpleNamespace(target=target, can_run=one.can_run))

    plain = from_dict({"loops": [{"name": "a"}]})
    patched = from_dict({"loops": [{"name": "a"}], "patches": [{"site": "app_first_line"}]})
    tasks = from_dict({"loops": [{"name": "a", "kind": "socketio_task"}]})

    def run(**versions: str) -> list[bool]:
        comparer = Comparer(side(), side(**versions))
        return [comparer.can_run(what) for what in (plain, patched, tasks)]

    assert run(gevent="2") == run(greenlet="2") == [False, True, True]
    assert run(gunicorn="2") == run(gunicorn="2", gevent="2") == [True, True, True]
    assert run(redis="2") == [False, False, True], "Socket.IO's queue is in Redis"
    assert run() == [True, True, True], "a target beside itself runs everything"


def test_a_documented_change_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = documented.Change(
        "an-id", "as announced", "https://example.org", "head", ("server_answers", "workers_boot"),
        {"gunicorn": "<2"}, {"gunicorn": ">=2"}, {"server.preload": [True]},
    )  # fmt: skip
    monkeypatch.setattr(documented, "load", lambda: (change,))
    found = compared(tmp_path, holds, preloaded)
    assert [(one.name, one.change) for one in found.differences] == [("documented", change)]
    assert found.exit_code == 0


def test_an_announced_fix_is_told_as_one_and_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [change] = documented.parse(ANNOUNCED, source="documented_changes.toml")
    monkeypatch.setattr(documented, "load", lambda: (change,))
    found = compared(tmp_path, preloaded, holds)
    assert [(one.name, one.change) for one in found.differences] == [("fixed", change)]
    assert found.exit_code == 0


def test_nothing_boots_on_one_side(tmp_path: Path) -> None:
    def nothing(what: Scenario) -> Verdict | str:
        raise NothingBoots("no server boots")

    found = compared(tmp_path, nothing, nothing, n=100)
    assert found.exit_code == 3
    assert found.launched < 40, "it gives up"


def test_when_the_time_is_over_what_was_noticed_is_told(tmp_path: Path) -> None:
    ticks = itertools.count()
    sides = [cast(Session, Pretended(tmp_path, answer)) for answer in (holds, preloaded)]
    comparer = Comparer(sides[0], sides[1], jobs=1, seed=1)
    comparer._over = lambda: next(ticks) > 0  # type: ignore[method-assign]
    found = comparer.compare(n=32)
    assert not found.differences
    assert any(one.startswith("server_answers (no answer) on head") for one in found.left)


def test_what_is_confirmed_is_told_where_no_time_is_left_to_make_it_small(tmp_path: Path) -> None:
    sides = [cast(Session, Pretended(tmp_path, answer)) for answer in (holds, preloaded)]
    comparer = Comparer(sides[0], sides[1], jobs=1, seed=1)
    comparer._over = lambda: bool(comparer.found.differences)  # type: ignore[method-assign]
    [one] = comparer.compare(n=32).differences
    assert one.rates[HEAD][0] == one.rates[HEAD][1] >= 5
    assert one.report.folder.is_dir()
    assert one.after[1] <= 2 * BATCH + 20, "it is confirmed before anything else is done"
    assert json.loads(json.dumps(one.to_dict()))["after"]["launched"] == one.after[1]


@dataclass
class Clock:
    """Stands for `time` where each run takes a second."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


def timed(folder: Path, head: Answer, seconds: float, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    """A comparison in which time passes by runs alone."""
    clock = Clock()
    monkeypatch.setattr("forkproof.compare.time", clock)
    monkeypatch.setattr("forkproof.explore.time", clock)

    def slow(answer: Answer) -> Answer:
        def answered(what: Scenario) -> Verdict | str:
            clock.now += 1
            return answer(what)

        return answered

    sides = [cast(Session, Pretended(folder, slow(answer))) for answer in (holds, head)]
    return Comparer(sides[0], sides[1], jobs=1, seed=1).compare(seconds=seconds)


def test_much_to_look_into_does_not_keep_from_looking_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = timed(tmp_path, lambda what: what.digest, 240, monkeypatch)
    assert found.drawn > 2 * BATCH, "half of the time is for new scenarios"
    assert found.differences
    assert found.left


def test_in_the_last_part_of_the_time_what_is_open_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = plan()[BATCH]  # the second batch is cut short
    seconds = 2 * (BATCH + 1) / (1 - LAST)
    found = timed(tmp_path, lambda what: "no answer" if what == late else HELD, seconds, monkeypatch)
    assert found.drawn == BATCH + 1
    assert found.launched > 2 * found.drawn
    found = timed(tmp_path, holds, seconds, monkeypatch)
    assert found.drawn > BATCH + 1, "where nothing is open, all of the time is for new scenarios"


def test_what_is_not_confirmed_is_looked_into_once_more_where_it_is_seen_again() -> None:
    what = plan()[0]
    one = Noticed(("server_answers", "no answer", None), HEAD)
    one.add(what, ())
    assert one.is_open
    one.looked.append(one.seen)
    assert not one.is_open
    one.add(what, ())
    assert one.is_open
    one.looked.append(one.seen)
    one.add(what, ())
    assert not one.is_open


def test_what_is_not_seen_again_costs_little(tmp_path: Path) -> None:
    first: set[str] = set()

    def once(what: Scenario) -> Verdict | str:
        if what.digest == plan()[3].digest and not first:
            first.add(what.digest)
            return "no answer"
        return HELD

    found = compared(tmp_path, holds, once)
    assert not found.differences
    assert found.launched <= 64 + 2 * 4, "both claims, two runs a side"
    assert {one.rpartition(": ")[2] for one in found.unconfirmed} == {"not seen again"}


def test_ctrl_c_keeps_what_was_confirmed(tmp_path: Path) -> None:
    launched = itertools.count()

    def interrupted(what: Scenario) -> Verdict | str:
        if next(launched) == 20:
            raise KeyboardInterrupt
        return HELD

    sides = [cast(Session, Pretended(tmp_path, answer)) for answer in (holds, interrupted)]
    found = Comparer(sides[0], sides[1], jobs=1).compare(n=32)
    assert found.interrupted
    assert found.exit_code == 3
    assert all(side.stop.is_set() for side in sides)


def test_has() -> None:
    small = from_dict({"loops": [{"name": "x", "kind": "greenlet"}], "server": {"workers": 2}})
    assert has(
        from_dict({"loops": [{"name": "a"}, {"name": "b", "kind": "greenlet"}], "server": {"workers": 3}}), small
    )
    assert not has(from_dict({"loops": [{"name": "a", "kind": "greenlet"}]}), small)
    assert not has(from_dict({"loops": [{"name": "a"}], "server": {"workers": 3}}), small)


# --- rates


def test_fisher_is_the_exact_test() -> None:
    # The lady tasting tea: 3 of 4 right has 17 of 70 ways.
    assert fisher((3, 4), (1, 4)) == pytest.approx(17 / 70)
    assert fisher((4, 4), (0, 4)) == pytest.approx(1 / 70)
    assert fisher((0, 4), (4, 4)) == 1.0
    assert fisher((2, 3), (1, 7)) == pytest.approx((3 * 7 + 1) / 120)


def test_all_levels_together_stay_below_the_one_that_is_promised() -> None:
    spending = Spending(0.05)
    levels = [spending.next() for _ in range(10_000)]
    assert sum(levels) < 0.05
    assert sum(levels) > 0.0499
    for level in levels[:20]:
        n = enough(level / 2)
        assert fisher((n, n), (0, n)) <= level / 2 or n == 12


# --- which scenarios


def made(n: int, seed: int = 1, words: dict[str, float] | None = None) -> list[Scenario]:
    return list(scenarios(n, seed, lambda what: True, words))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a few are made to choose from: most of the time goes into making them."""
    monkeypatch.setattr(aim, "USUAL", ())
    monkeypatch.setattr(aim, "POOL", 12)


@pytest.mark.usefixtures("few")
def test_the_same_seed_makes_the_same_scenarios() -> None:
    assert made(4) == made(4)
    assert made(4) != made(4, seed=2)
    assert len({what.digest for what in plan()}) == 64


@pytest.mark.usefixtures("few")
def test_what_is_taken_meets_more_pairs_for_what_it_costs_than_what_is_made() -> None:
    chance = random.Random(1)
    anyhow = [aim._made(chance, lambda value: 1.0) for _ in range(10)]
    taken, random_ones = (
        len(set().union(*map(pairs_of, some))) / sum(map(aim._cost, some)) for some in (made(10), anyhow)
    )
    assert taken > 1.05 * random_ones


def test_faults_after_which_clients_must_connect_again_are_dear() -> None:
    loops = [{"name": "a", "body": "listen"}]
    costs = [
        aim._cost(from_dict({"loops": loops, "faults": faults}))
        for faults in (
            [],
            [{"fault": "usr1"}],
            [{"fault": "hup", "options": {"times": 5}}],
            [{"fault": "redis_restart"}],
        )
    ]
    assert costs == sorted(set(costs))
    assert costs[-1] > 2 * costs[1]


def test_every_fault_and_kind_comes_soon() -> None:
    some = plan()
    faults = {fault.fault for what in some for fault in what.faults}
    kinds = {loop.kind for what in some for loop in what.loops}
    starts = {loop.start for what in some for loop in what.loops}
    assert len(faults) >= len(REGISTRY) - 2
    assert (len(kinds), len(starts)) == (11, 9)


def test_what_changed_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [
        aim._weight(("claim", "no_leak_on_reload"), changed)
        for changed in ({}, {"reload": 0.1}, {"leak": 0.5, "reload": 0.1}, {"leak": 0.5, "reload": 1.0})
    ]
    assert weights == sorted(set(weights))
    assert weights[-1] == aim._weight(("worker_class", "tornado"), {"tornado": 1.0}) == aim.CHANGED
    monkeypatch.setattr(aim, "CHANGED", 20.0)
    monkeypatch.setattr(aim, "POOL", 24)
    monkeypatch.setattr(aim, "USUAL", ())

    def tornado(words: dict[str, float]) -> int:
        return sum(what.server.worker_class.value == "tornado" for what in made(6, words=words))

    assert tornado({"tornado": 1.0}) > tornado({})


def test_every_fault_meets_every_usual_deployment_that_can_have_it() -> None:
    for usual in aim.USUAL:
        more = [one.what for one in aim.one_more_each(from_dict(json.loads(json.dumps(usual))))]
        met = {fault.fault for what in more for fault in what.faults}
        assert met == set(REGISTRY)
        reloads = [fault.options for what in more for fault in what.faults if fault.fault == "hup"]
        assert reloads == [{"times": 5}], "a leak shows after several"


def test_a_fault_meets_the_plainest_usual_deployment_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is patched least else is broken, that hides what a fault breaks."""
    plain, _, patched, *_ = aim.USUAL
    monkeypatch.setattr(aim, "USUAL", (plain, patched))
    near_the_patched: dict[str, bool] = {}
    for what in itertools.islice(aim._near_first(lambda what: True, functools.partial(aim._weight, changed={})), 64):
        for fault in what.faults:
            # One setting more than the plain one has is a patch or preload, never both.
            near_the_patched.setdefault(fault.fault, what.server.preload and bool(what.patches))
    assert len(near_the_patched) >= len(REGISTRY) - 2
    assert not any(near_the_patched.values()), near_the_patched


def test_near_usual_deployments_much_is_met_soon() -> None:
    some = list(itertools.islice(aim._near_first(lambda what: True, functools.partial(aim._weight, changed={})), 64))
    assert [what.to_dict() for what in some[:5]] == [
        from_dict(json.loads(json.dumps(one))).to_dict() for one in aim.USUAL
    ]
    assert {fault.fault for what in some for fault in what.faults} == set(REGISTRY) - {"kill_arbiter"}
    loops = [what.loops[0] for what in some]
    assert len({loop.kind for loop in loops}) >= 9
    assert len({loop.start for loop in loops}) >= 8
    assert {what.server.worker_class for what in some} == set(WorkerClass)
    three = [what for what in some if what.faults and what.loops[0].body is not LoopBody.SLEEP and what.server.preload]
    assert three, "a setting, a loop's thing and a fault at once"


def test_the_words_of_a_change_are_read_from_the_installed_files(tmp_path: Path) -> None:
    def installed(name: str, text: str, version: str) -> Target:
        python = tmp_path / name / "python"
        package = tmp_path / name / "gunicorn" / "workers"
        package.mkdir(parents=True)
        (package / "gthread.py").write_text(text)
        (package / "same.py").write_text("nothing = 'unchanged'\n")
        library = tmp_path / name / "lib"
        library.mkdir()
        (library / "queue.py").write_text(f"def wakeup_{name}(): ...\n" + "x = 1\n" * 9)
        (library / "turtle.py").write_text(f"def tumble_{name}(): ...\n")
        python.write_text(f'#!/bin/sh\necho \'["{library}", "{tmp_path / name}"]\'\n')
        python.chmod(0o755)
        return Target(str(python), "3.11.7", {"gunicorn": version, "redis": "5"}, ())

    base = installed("base", "import queue\ndef handle_hup(self):\n    self.keep = 1\n    return self\n", "1")
    head = installed("head", "import queue\ndef handle_hup(self):\n    os.kill(pid, SIGTERM)\n    return self\n", "2")
    words = changed_words(base, head)
    assert {"gthread", "keep", "kill", "term"} <= words.keys()
    assert all(0 < often <= 1 for often in words.values())
    assert not {"hup", "unchanged", "same", "wakeup", "tumble"} & words.keys()
    assert words["kill"] > words.get("self", 0.0), "it stands in lines that are the same, too"
    assert not changed_words(base, base)
    words = changed_words(base, dataclasses.replace(head, python="3.12.1", versions=base.versions))
    assert "wakeup" in words
    assert not {"kill", "gthread", "tumble"} & words.keys(), "its packages are the same, and nothing imports turtle"


# --- what is documented


def test_the_documented_changes_are_read() -> None:
    for change in documented.load():
        assert change.link.startswith("https://")
        assert set(change.base) == set(change.head)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "is no TOML"),
        ("[[change]]\nid = 'a'", "change.0.title: Field required"),
        ("more = 1", "more: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_with_the_list_is_told(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        documented.parse(text.encode(), source="documented_changes.toml")


CHANGE = b"""
[[change]]
id = "something-else"
title = "as announced"
link = "https://example.org/changes"
breaks = "base"
claims = ["quiet_runtime"]
base = { gevent = "<1.3a2" }
head = { gevent = ">=1.3a2" }
"""


ANNOUNCED = b"""
[[change]]
id = "a-fix"
title = "as announced"
link = "https://example.org/changes"
breaks = "base"
claims = ["server_answers", "workers_boot"]
base = { gunicorn = "<2" }
head = { gunicorn = ">=2" }
"""


@pytest.mark.parametrize(
    ("base", "head", "shown"),
    [
        ({"gunicorn": "26.0.0"}, {"gunicorn": "26.1.0"}, {"no_leak_on_reload", "foreign_child_ignored"}),
        ({"gunicorn": "25.0.1"}, {"gunicorn": "27.0.1"}, {"foreign_child_ignored"}),
        ({"gunicorn": "23.0.0", "gevent": "25.5.1"}, {"gunicorn": "23.0.0", "gevent": "25.8.1"}, {"quiet_runtime"}),
        ({"gunicorn": "26.1.0", "gevent": "26.9.0"}, {"gunicorn": "27.0.1", "gevent": "26.9.0"}, set()),
    ],
)
def test_what_is_documented_between_two_versions(
    base: dict[str, str | None], head: dict[str, str | None], shown: set[str]
) -> None:
    what = from_dict({"loops": [{"name": "a"}], "faults": [{"fault": "hup", "options": {"times": 5}}]})
    hows = {"no_leak_on_reload": "grows", "quiet_runtime": "callback failed with AssertionError in gevent"}
    found = [
        Finding(claim, Verdict.BROKEN, None, "pretended", how=hows.get(claim, "told"))
        for claim in ("no_leak_on_reload", "foreign_child_ignored", "quiet_runtime", "server_answers")
    ]
    assert {one.claim for one in found if documented.find(what, one, base, head, "base")} == shown
    assert not any(documented.find(what, one, base, head, "head") for one in found)


def test_a_change_is_of_its_versions_and_its_side() -> None:
    [change] = documented.parse(CHANGE, source="documented_changes.toml")
    finding = Finding("quiet_runtime", Verdict.BROKEN, None, "pretended")
    what = from_dict({"loops": [{"name": "a"}]})
    old, new = {"gevent": "1.2.2"}, {"gevent": "26.9.0"}
    assert change.explains(what, finding, old, new, "base")
    assert not change.explains(what, finding, old, new, "head")
    assert not change.explains(what, finding, new, new, "base")
    assert not change.explains(what, finding, old, old, "base")
