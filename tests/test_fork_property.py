"""The property that forkproof is about: no deployment does what the documentation rules out.

Hypothesis draws and shrinks; a scenario is launched once, and its verdict kept, since a race that answers differently
the second time would end in a flaky failure. The shrinker has a budget, and then the smallest failure is told.
The scenarios are those that `forkproof explore` draws from the same seed.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from forkproof import corpus, explore
from forkproof.errors import CouldNotDecide
from forkproof.expectation import Expectation
from forkproof.judge import Judgement, RunReport
from forkproof.plugin import Forkproof, Result, Shared
from forkproof.scenario import Scenario, from_dict
from forkproof.session import Session, open_session
from forkproof.simplify import neighbours
from forkproof.target import Target
from forkproof.verdict import Finding, Verdict
from forkproof_strategies import scenarios

SHRINK_LAUNCHES = 40
SHRINK_SECONDS = 60.0
TELL_EVERY = 10
TELL_SECONDS = 15.0


class Spent(BaseException):
    """Ends Hypothesis' shrinker, as Ctrl-C does: to pass all that it goes on to try would take it a minute."""


class Hunt:
    """Looks in so many scenarios for one surprise that is no known issue, and for the smallest that shows it."""

    def __init__(self, forkproof: Forkproof, examples: int, tell: Callable[[str], None]) -> None:
        self.forkproof = forkproof
        self.examples = examples
        self.tell = tell
        self.answers: dict[str, str | None] = {}
        self.verdicts: Counter[str] = Counter()
        self.launched = 0
        self.races: list[str] = []
        self.problems: list[str] = []
        self.key: explore.Key | None = None
        self.smallest: tuple[int, Result] | None = None
        self._begun = self._told = time.monotonic()
        self._last_launch = 0
        self._deadline = 0.0

    def answer(self, what: Scenario) -> str | None:
        """What is wrong with a scenario, in words; None where nothing is, or where the budget is spent."""
        if what.digest not in self.answers:
            if self.enough:
                return None
            searching = self.key is None
            self.answers[what.digest] = self._look(what)
            if searching and self.key is not None:
                self._simplify(what)
        return self.answers[what.digest]

    @property
    def spent(self) -> bool:
        """Whether the budget for shrinking is."""
        return self.key is not None and (self.launched >= self._last_launch or time.monotonic() > self._deadline)

    @property
    def enough(self) -> bool:
        """Whether nothing more is to be launched."""
        return self.spent if self.key is not None else len(self.answers) >= self.examples

    def _look(self, what: Scenario) -> str | None:
        result = self._run(what)
        if result is None:
            return None
        found = self._surprise(result.report)
        if found is None:
            self.forkproof.forget(result)
            return None
        if self.key is None and not self._confirmed(what, explore.key_of(found)):
            self.races.append(f"{told(found)}\nseen once, and not again in a second run: {small(what)}")
            self.tell(f"did not repeat: {told(found)}")
            self.forkproof.forget(result)
            return None
        self._keep(found, result)
        return told(found)

    def _confirmed(self, what: Scenario, key: explore.Key) -> bool:
        again = self._run(what)
        if again is None:
            return False
        self.forkproof.forget(again)
        return key in map(explore.key_of, again.report.judgements)

    def _simplify(self, what: Scenario) -> None:
        """One dimension at a time, which costs fewer launches than Hypothesis' own shrinker; that gets what is left."""
        assert self.smallest is not None
        loop = next(found.finding.loop for found in self.smallest[1].report.judgements if self._is_it(found))
        simpler: Scenario | None = what
        while simpler is not None:
            what = simpler
            simpler = next((one for one in neighbours(what, keep=loop) if self.answer(one) is not None), None)

    def _run(self, what: Scenario) -> Result | None:
        self.launched += 1
        try:
            result = self.forkproof.run(what)
        except CouldNotDecide as error:
            self.problems.append(f"{error}\n{small(what)}")
            return None
        self.verdicts[result.report.verdict.value] += 1
        if self.launched % TELL_EVERY == 0 or time.monotonic() > self._told + TELL_SECONDS:
            self._told = time.monotonic()
            self.tell(self.progress)
        return result

    def _surprise(self, report: RunReport) -> Judgement | None:
        """The first surprise that no known issue explains; once one is confirmed, only the same one counts."""
        return next((found for found in report.surprises if self._is_it(found)), None)

    def _is_it(self, found: Judgement) -> bool:
        return found.surprise and found.known_issue is None and self.key in (None, explore.key_of(found))

    def _keep(self, found: Judgement, result: Result) -> None:
        if self.key is None:
            self.key = explore.key_of(found)
            self._last_launch = self.launched + SHRINK_LAUNCHES
            self._deadline = time.monotonic() + SHRINK_SECONDS
            self.tell(f"surprise: {told(found)}\n  {small(result.report.scenario)}")
        size = explore.size(result.report.scenario)
        if self.smallest is None or size < self.smallest[0]:
            if self.smallest is not None:
                self.forkproof.forget(self.smallest[1])
            self.smallest = (size, result)
        else:
            self.forkproof.forget(result)

    def fail(self) -> NoReturn:
        """AssertionError with the smallest scenario found."""
        assert self.smallest is not None
        what = self.smallest[1].report.scenario
        raise AssertionError(f"{self.answers[what.digest]}\n  the smallest scenario found: {small(what)}") from None

    @property
    def progress(self) -> str:
        """One line: how far, how fast, what was found."""
        rate = self.launched / (time.monotonic() - self._begun)
        counts = ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts.items())
        doing = "shrinking, " if self.key is not None else ""
        return f"{doing}{self.launched} servers, {rate:.1f}/s: {counts}; {len(self.races)} surprises did not repeat"


def told(found: Judgement) -> str:
    loop = f" ({found.finding.loop})" if found.finding.loop else ""
    return (
        f"{found.finding.claim}{loop} {found.finding.verdict.value}: {found.finding.explanation}; "
        f"but {found.expectation.value if found.expectation else 'nothing expected'}: {found.reason}"
    )


def small(what: Scenario) -> str:
    return json.dumps(what.model_dump(mode="json", by_alias=True, exclude_defaults=True))


def nothing_surprises(hunt: Hunt, target: Target, *, seed: int, kept: Sequence[Scenario] = ()) -> None:
    """Take what was kept, and draw scenarios until one surprises; AssertionError with the smallest found."""
    hunt.examples += len(kept)
    for what in kept:
        if hunt.answer(what) is not None:
            hunt.fail()
    worker_classes, without = explore.abilities(target)
    for part in itertools.count():
        if hunt.enough:
            return

        @seeded(seed * 1000 + part)
        @settings(
            max_examples=explore.SLICE, phases=[Phase.generate, Phase.shrink], database=None, deadline=None,
            report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(scenarios(worker_classes=worker_classes, flags=target.patch_flags, without=without))
        def check(what: Scenario) -> None:
            if hunt.spent and what.digest not in hunt.answers:
                raise Spent
            problem = hunt.answer(what)
            assert problem is None, f"{problem}\n  {small(what)}"

        try:
            check()
        except (AssertionError, Spent):
            hunt.fail()


@contextmanager
def remembered(database: str | None, hunt: Hunt) -> Iterator[list[Scenario]]:
    """What surprised before and the target can run; what surprises now is kept beside it."""
    if database is None:
        yield []
        return
    with corpus.opened(database) as kept:
        try:
            yield [what for what in kept.fetch()[0] if hunt.forkproof.session.can_run(what)]
        finally:
            if hunt.smallest is not None:
                kept.save(hunt.smallest[1].report.scenario)


@pytest.mark.fork
@pytest.mark.timeout(0)  # as long as --fork-examples asks for
def test_nothing_surprises(
    forkproof: Forkproof,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    faulthandler.cancel_dump_traceback_later()  # as above: it takes as long as it takes
    # The same by default, so that what lands does not depend on luck; a campaign gives its own.
    seed: int = request.config.getoption("fork_seed")
    record_property("forkproof.seed", seed)

    def tell(text: str) -> None:
        with capsys.disabled():
            print(f"\n  --fork-seed={seed}: {text}", end="", flush=True)

    hunt = Hunt(forkproof, request.config.getoption("fork_examples"), tell)
    try:
        with remembered(request.config.getoption("fork_database"), hunt) as kept:
            nothing_surprises(hunt, forkproof.session.target, seed=seed, kept=kept)
    finally:
        tell(hunt.progress)
        for name, found in (("races", hunt.races), ("undecided", hunt.problems)):
            record_property(f"forkproof.{name}", len(found))
            if found:
                request.node.add_report_section("call", f"forkproof: {name}", "\n\n".join(found))
    assert hunt.verdicts["held"] + hunt.verdicts["broken"], "nothing was decided: " + "\n".join(hunt.problems[:3])


REDIS_LOOPS = [
    {"loops": [{"name": "a", "body": "listen", "policy": "once_per_worker"}], "server": {"workers": 2}},
    {
        "loops": [{"name": "a", "body": "get_message", "policy": "once_per_worker", "start": "post_fork"}],
        "server": {"worker_class": "gthread", "threads": 2, "workers": 2},
    },
    {
        "loops": [{"name": "a", "body": "listen", "policy": "once_per_service", "start": "post_worker_init"}],
        "server": {"worker_class": "gevent", "workers": 2},
        "faults": [{"fault": "kill_worker", "slot": 1}],
    },
]


@pytest.fixture(scope="module")
def embedded_and_real(request: pytest.FixtureRequest) -> Iterator[tuple[Session, Session]]:
    """A session on each kind of Redis."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on PATH")
    with ExitStack() as stack:
        # Sockets lie below this folder, and the kernel takes 107 bytes of path.
        out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fp-")))
        embedded, real = (
            stack.enter_context(
                open_session(target_name=request.config.getoption("fork_target"), broker_name=name, out=out)
            )
            for name in ("embedded", "redis-server")
        )
        yield embedded, real


@pytest.mark.fork
@pytest.mark.parametrize("data", REDIS_LOOPS, ids=["listen", "get_message", "kill_worker"])
def test_the_embedded_redis_gives_the_verdicts_of_a_real_one(
    embedded_and_real: tuple[Session, Session], data: object
) -> None:
    what = from_dict(data)
    embedded, real = (verdicts(session.run(what)) for session in embedded_and_real)
    assert embedded == real
    assert Verdict.UNKNOWN not in embedded.values()


AT_THE_FORK = {"no_lock_held_at_fork", "no_half_imported_module"}
"""Whether gunicorn's own control thread is up when a worker is forked again is a race, in which Redis has no part."""


def verdicts(report: RunReport) -> dict[tuple[str, str | None], Verdict]:
    found = [judgement for judgement in report.judgements if judgement.finding.claim not in AT_THE_FORK]
    return {judgement.key: judgement.finding.verdict for judgement in found}


FLAGS = ("socket", "dns", "time", "select", "thread", "os", "ssl", "subprocess", "sys", "signal", "queue")
FULL = Target("python", "3.11.7", {"gunicorn": "27.0.1", "gevent": "26.9.0", "redis": "8.1.0"}, FLAGS)
BARE = Target("python", "3.11.7", {"gunicorn": "27.0.1"}, ())


def test_the_same_seed_draws_the_same_scenarios() -> None:
    first = explore.draw(10, 1, FULL)
    assert len({what.digest for what in first}) == 10
    assert explore.draw(10, 1, FULL) == first
    assert explore.draw(10, 2, FULL) != first


def test_only_what_the_target_can_run_is_drawn() -> None:
    for what in explore.draw(15, 3, BARE):
        assert not what.patches
        assert not what.server.worker_class.is_gevent
        assert not any(loop.hears_redis or loop.kind.value == "greenlet" for loop in what.loops)
        assert not any(loop.yields.call.value == "gevent.sleep" for loop in what.loops)


class Pretended(Forkproof):
    """Runs nothing: a scenario breaks `workers_boot` as often as `breaks` says, of the runs it is given."""

    def __init__(self, breaks: Callable[[Scenario, int], bool], shared: Shared) -> None:
        super().__init__(shared)
        self.breaks = breaks
        self.ran: Counter[str] = Counter()

    def run(self, scenario: Any) -> Result:
        self.ran[scenario.digest] += 1
        broken = self.breaks(scenario, self.ran[scenario.digest])
        finding = Finding("workers_boot", Verdict.BROKEN if broken else Verdict.HELD, None, "as pretended")
        judgement = Judgement(finding, Expectation.MUST_HOLD, "so it says")
        result = Result(RunReport(scenario, Path("/nonexistent"), {}, [judgement]), self._shared)
        self._results.append(result)
        return result


Pretend = Callable[[int, Callable[[Scenario, int], bool]], Hunt]


@pytest.fixture
def pretend(request: pytest.FixtureRequest) -> Pretend:
    return lambda examples, breaks: Hunt(Pretended(breaks, Shared(request.config)), examples, lambda text: None)


def test_a_surprise_is_shrunk(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SHRINK_LAUNCHES", 400)
    hunt = pretend(100, lambda what, run: what.server.workers > 1)
    with pytest.raises(AssertionError, match="workers_boot broken: as pretended; but must_hold: so it says"):
        nothing_surprises(hunt, FULL, seed=1)
    assert hunt.smallest is not None
    what = hunt.smallest[1].report.scenario
    assert small(what) == small(from_dict({"loops": [{"name": what.loops[0].name}], "server": {"workers": 2}}))
    assert list(hunt.forkproof.keep()) == [hunt.smallest[1].report.folder]
    assert not hunt.races


def test_what_surprised_before_is_looked_at_first_and_beside_what_is_drawn(pretend: Pretend, tmp_path: Path) -> None:
    hunt = pretend(3, lambda what, run: what.server.preload)
    what = from_dict({"loops": [{"name": "a"}], "server": {"preload": True}})
    kept = [what, from_dict({"loops": [{"name": "b"}]})]
    with pytest.raises(AssertionError, match="as pretended"):
        nothing_surprises(hunt, FULL, seed=1, kept=kept)
    assert hunt.smallest is not None
    assert hunt.smallest[1].report.scenario == what
    assert len(hunt.answers) < 10
    calm = pretend(3, lambda what, run: False)
    nothing_surprises(calm, FULL, seed=1, kept=kept)
    assert len(calm.answers) == 5


def test_what_surprises_is_remembered(pretend: Pretend, tmp_path: Path) -> None:
    hunt = pretend(1, lambda what, run: True)
    with pytest.raises(AssertionError, match="as pretended"), remembered(str(tmp_path), hunt) as kept:
        nothing_surprises(hunt, FULL, seed=1, kept=kept)
    assert hunt.smallest is not None
    with corpus.opened(str(tmp_path)) as found:
        assert found.fetch() == ([hunt.smallest[1].report.scenario], 0)


def test_a_race_that_does_not_repeat_is_told_and_fails_nothing(pretend: Pretend) -> None:
    hunt = pretend(15, lambda what, run: what.server.workers > 1 and run == 1)
    nothing_surprises(hunt, FULL, seed=1)
    assert hunt.races
    assert all("seen once, and not again" in race for race in hunt.races)


def test_the_shrinker_has_a_budget_of_launches(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SHRINK_LAUNCHES", 5)
    hunt = pretend(100, lambda what, run: what.server.workers > 1 and len(what.loops) > 1)
    with pytest.raises(AssertionError, match="as pretended"):
        nothing_surprises(hunt, FULL, seed=1)
    assert hunt.key is not None
    assert hunt.launched == hunt._last_launch


def test_it_looks_at_what_explore_draws(pretend: Pretend) -> None:
    hunt = pretend(15, lambda what, run: False)
    nothing_surprises(hunt, FULL, seed=4)
    assert list(hunt.answers) == [what.digest for what in explore.draw(15, 4, FULL)]
