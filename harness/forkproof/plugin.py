"""The pytest plug-in: options, the marker `fork`, the fixture `forkproof`, and the evidence of what failed.

pytest loads it in every project that has forkproof installed, so it imports nothing of weight before a test asks for a
server, and never gevent, gunicorn or an app: what is patched, and when, is the thing measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forkproof.errors import ForkproofError, MissingPackage, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from forkproof.check import CheckReport
    from forkproof.judge import Judgement, RunReport
    from forkproof.scenario import Scenario
    from forkproof.session import LocalSession

PROPERTY = "forkproof.run"
"""The user property (and so the JUnit property) of a failed test that says where its evidence lies."""

_LOG_LINES = 60
_STACK_LINES = 200
_WIDTH = 120


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options; their values are plain data, since pytest-xdist sends them to its workers."""
    group = parser.getgroup("forkproof", "forkproof: real servers under test")
    group.addoption("--fork-target", metavar="T", help="a Python or a lane (default: what runs pytest)")
    group.addoption("--fork-examples", metavar="N", type=_positive, default=25, help="scenarios a property draws (25)")
    group.addoption(
        "--fork-seed", metavar="N", type=int, default=1, help="the same seed draws the same scenarios (default 1)"
    )
    group.addoption(
        "--fork-broker", metavar="B", default="embedded",
        help="embedded (default), redis-server[:PATH], or redis://HOST:PORT[/DB]",
    )  # fmt: skip
    group.addoption("--fork-warm", action="store_true", help="fork servers from processes that hold their imports")
    group.addoption(
        "--fork-database", metavar="WHERE",
        help="keep what surprises a property, and run what did before first: a folder, or redis://HOST[:PORT][/DB]",
    )  # fmt: skip
    group.addoption("--fork-out", metavar="DIR", type=os.path.abspath, help="keep every run's folder in DIR")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed: give a whole number from 1 on")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse options that cannot be meant."""
    config.addinivalue_line("markers", "fork: starts real servers")
    if hasattr(config, "workerinput"):  # one of pytest-xdist's workers, which read the options anew
        config.option.fork_target = config.workerinput["fork_target"]
    else:
        try:
            _check(config)
        except ForkproofError as error:
            raise pytest.UsageError(_in_our_words(error)) from None
    config.stash[_SHARED] = Shared(config)  # it takes a lane's Python, which is known by now


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist's the Python of the lane, which was built here."""
    node.workerinput["fork_target"] = node.config.option.fork_target


def _check(config: pytest.Config) -> None:
    from forkproof import broker

    broker.parse(config.getoption("fork_broker"))
    if config.getoption("fork_database") is not None:
        from forkproof import corpus

        corpus.require(config.getoption("fork_database"))
    if config.getoption("fork_target") is not None:
        from forkproof import lanes, target

        known, shelf = lanes.load(), lanes.Shelf(lanes.default_folder())
        config.option.fork_target = lanes.resolve(config.getoption("fork_target"), known, shelf, print)
        target.find(config.option.fork_target)


def _in_our_words(error: ForkproofError) -> str:
    """A message of the command line's with pytest's options."""
    return re.sub(r"(?<![\w-])--(target|broker|database|out)\b", r"--fork-\1", str(error))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what uses the fixture, so that `-m "not fork"` starts no server."""
    if "forkproof" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.fork)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the broker and the control process."""
    shared(session.config).close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the evidence of a failed test into its report, as text, which is all that pytest-xdist passes on."""
    report = yield
    used = item.stash.get(_USED, None)
    if used is None:
        return report
    if report.failed and used.attempted and not used.failed:
        used.failed = True
        for title, text in used.evidence():
            report.sections.append((f"forkproof: {title}", text))
        for folder in used.keep():
            report.user_properties.append((PROPERTY, str(folder)))
            item.user_properties.append((PROPERTY, str(folder)))
    if report.when == "teardown" and not used.failed:
        used.forget_all()
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where the evidence lies."""
    lines = [
        f"{report.nodeid}: {value}"
        for report in (*terminalreporter.getreports("failed"), *terminalreporter.getreports("error"))
        # A file that could not be collected has none.
        for name, value in getattr(report, "user_properties", ())
        if name == PROPERTY
    ]
    if lines:
        terminalreporter.section("forkproof: evidence kept")
        for line in dict.fromkeys(lines):
            terminalreporter.line(line)


class Shared:
    """What the tests of one pytest process share: a session, made at first use."""

    def __init__(self, config: pytest.Config) -> None:
        self._target: str | None = config.getoption("fork_target")
        self._broker: str = config.getoption("fork_broker")
        self._warm: bool = config.getoption("fork_warm")
        self._out: str | None = config.getoption("fork_out")
        self._stack = contextlib.ExitStack()
        self._session: LocalSession | None = None
        self._refused: ForkproofError | None = None
        self.out: list[Path] = []
        self.evidence_kept = False

    @property
    def session(self) -> LocalSession:
        """The session; what kept it from starting is raised again rather than waited for again."""
        if self._refused is not None:
            raise self._refused
        if self._session is None:
            try:
                self._session = self._start()
            except ForkproofError as error:
                self._refused = error
                raise
        return self._session

    def _start(self) -> LocalSession:
        from forkproof.session import open_session

        if self._out is None:
            # Not pytest's own folder: sockets lie below this one, and the kernel takes 107 bytes of path.
            folder = Path(tempfile.mkdtemp(prefix="fp-"))
            self._stack.callback(self._remove, folder)
        else:
            folder = Path(self._out)
        session = self._stack.enter_context(
            open_session(target_name=self._target, broker_name=self._broker, out=folder, warm=self._warm),
        )
        self.out.append(folder)
        return session

    def _remove(self, folder: Path) -> None:
        if not self.evidence_kept:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def keeps_all(self) -> bool:
        """Whether the user has named a folder for every run."""
        return self._out is not None

    def command(self, folder: Path) -> str:
        """What runs the scenario of a folder again in the same way."""
        words = ["forkproof", "replay", str(folder)]
        if self._target is not None:
            words += ["--target", self._target]
        if self._broker != "embedded":
            words += ["--broker", self._broker]
        if self._warm:
            words.append("--warm")
        return shlex.join(words)

    def close(self) -> None:
        """End the session."""
        self._session = None
        self._stack.close()


def shared(config: pytest.Config) -> Shared:
    """What this pytest process shares."""
    return config.stash[_SHARED]


class Forkproof:
    """The fixture `forkproof`: starts real servers and judges them."""

    def __init__(self, shared: Shared) -> None:
        self.attempted = False
        self.failed = False
        self._shared = shared
        self._results: list[Result | CheckResult] = []

    @property
    def session(self) -> LocalSession:
        """What all tests of this process share: the target, the broker, the control process."""
        return self._shared.session

    def run(self, scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str]) -> Result:
        """Launch a scenario once and judge it; it may be given as plain data, or as the path of its JSON.

        The test is skipped where the target lacks a package that the scenario needs.
        """
        __tracebackhide__ = True
        try:
            what = _scenario(scenario)
            self.attempted = True
            result = Result(self._shared.session.run(what), self._shared)
        except MissingPackage as error:
            pytest.skip(_in_our_words(error))
        except ForkproofError as error:
            # Our own frames would tell the user nothing.
            raise error.with_traceback(None) from None
        self._results.append(result)
        return result

    def check(
        self,
        app: str | None,
        *,
        config: str | None = None,
        policy: Mapping[str, str] | None = None,
        folder: str | os.PathLike[str] = ".",
        options: Sequence[str] = (),
        requests: Sequence[str] = (),
        events: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        faults: Sequence[str] | None = None,
        health: str = "/",
        boot_seconds: float = 60.0,
    ) -> CheckResult:
        """Start the user's own app once, unchanged, and judge what its loops do: `forkproof check`.

        `options` are more words for gunicorn; `requests` and `events` cause work; `faults` are by default all.
        """
        from forkproof import check

        __tracebackhide__ = True
        place = Path(folder)
        try:
            what = check.Deployment(
                app=app, config=config, folder=place, options=tuple(options), environment=dict(env or {}),
                health=health, requests=tuple(requests), events=tuple(events), boot_seconds=boot_seconds,
                faults=check.FAULTS if faults is None else tuple(faults), policies=check.policies(policy or {}, place),
            )  # fmt: skip
            self.attempted = True
            result = CheckResult(check.of_session(self._shared.session).check(what))
        except MissingPackage as error:
            pytest.skip(_in_our_words(error))
        except ForkproofError as error:
            raise error.with_traceback(None) from None
        self._results.append(result)
        return result

    def forget(self, result: Result | CheckResult) -> None:
        """Drop a run that shows nothing: it is no evidence, and its folder goes unless `--fork-out` keeps all."""
        self._results.remove(result)
        if not self._shared.keeps_all:
            shutil.rmtree(result.report.folder, ignore_errors=True)

    def forget_all(self) -> None:
        """Drop every run."""
        for result in list(self._results):
            self.forget(result)

    def keep(self) -> Sequence[Path]:
        """Keep the evidence beyond the session; its folders, or the one of all runs where a run gave no verdict."""
        self._shared.evidence_kept = True
        return [result.report.folder for result in self._telling()] or self._shared.out

    def evidence(self) -> Iterator[tuple[str, str]]:
        """Titles and texts that show what happened."""
        for result in self._telling():
            yield from result.evidence()

    def _telling(self) -> list[Result | CheckResult]:
        """The runs that an assertion failed on; else the last one."""
        return [result for result in self._results if result.failed] or self._results[-1:]


class Result:
    """One run, judged. `report` has everything; `broken` names the claims that broke."""

    def __init__(self, report: RunReport, shared: Shared) -> None:
        self.report = report
        self.failed = False
        self._shared = shared

    def __repr__(self) -> str:
        broken = ", ".join(sorted(self.broken))
        return f"<Result {self.report.verdict.value}{': ' if broken else ''}{broken}>"

    @property
    def broken(self) -> set[str]:
        """The names of the claims that broke."""
        return {judgement.finding.claim for judgement in self.report.broken}

    def assert_held(self, *claims: str) -> None:
        """Fail unless the claims named held, or all that apply; undecided is no pass, and neither is not applicable."""
        __tracebackhide__ = True
        self._require_known(claims)
        problems = [*self._failures(claims), *self._not_applicable(claims)]
        if problems:
            self.failed = True
            again = f"Reproduce with:  {self._shared.command(self.report.folder)}"
            raise AssertionError("\n\n".join([*problems, again]))

    def _require_known(self, claims: Sequence[str]) -> None:
        from forkproof.claims import REGISTRY

        for name in claims:
            if name not in REGISTRY:
                raise UsageError(f"{name!r}: there is no such claim; there are: {', '.join(REGISTRY)}")

    def _failures(self, claims: Sequence[str]) -> Iterator[str]:
        from forkproof.reports import terminal
        from forkproof.verdict import Verdict

        for judgement in self._judgements(claims):
            if judgement.finding.verdict in (Verdict.BROKEN, Verdict.UNKNOWN):
                yield _text(terminal.failure(judgement, self.report.folder))

    def _not_applicable(self, claims: Sequence[str]) -> Iterator[str]:
        from forkproof.verdict import Verdict

        for name in claims:
            found = self._judgements([name])
            if all(judgement.finding.verdict is Verdict.NOT_APPLICABLE for judgement in found):
                why = found[0].finding.explanation if found else "it was not judged"
                yield f"{name} NOT APPLICABLE, so nothing was shown: {why}"
        if not claims and self.report.verdict is Verdict.NOT_APPLICABLE:
            yield "no claim applies to this scenario, so nothing was shown"

    def _judgements(self, claims: Sequence[str]) -> list[Judgement]:
        return [judgement for judgement in self.report.judgements if not claims or judgement.finding.claim in claims]

    def evidence(self) -> Iterator[tuple[str, str]]:
        """Titles and texts that show what happened."""
        from forkproof import files
        from forkproof.judge import LONGEST_STACKS, server_log
        from forkproof.reports import printable, terminal
        from forkproof.target import describe

        folder = self.report.folder
        yield "run", f"{folder}\n{self._shared.command(folder)}"
        yield "claims", _text(describe(self.report.versions), terminal.claims_table(self.report.judgements))
        if self.report.loops:
            yield "loops", _text(terminal.loops_table(self.report))
        yield "server log", printable(server_log(folder, _LOG_LINES))
        for path in sorted((folder / "stacks").glob("*.txt")):
            with contextlib.suppress(OSError):
                stacks = files.end_of(path, LONGEST_STACKS).decode(errors="replace").splitlines()
                if stacks:
                    yield f"stacks/{path.name}", "\n".join(stacks[-_STACK_LINES:])
        yield "scenario", self.report.scenario.to_json()


class CheckResult:
    """One run of the user's own app, judged. `report` has everything; `broken` names the claims that broke."""

    def __init__(self, report: CheckReport) -> None:
        self.report = report
        self.failed = False

    def __repr__(self) -> str:
        broken = ", ".join(sorted(self.broken))
        return f"<CheckResult {self.report.verdict.value}{': ' if broken else ''}{broken}>"

    @property
    def broken(self) -> set[str]:
        """The names of the claims that broke."""
        return {judgement.finding.claim for judgement in self.report.broken}

    def assert_held(self) -> None:
        """Fail unless every claim that applies held; undecided is no pass."""
        from forkproof.reports import checked
        from forkproof.verdict import Verdict

        __tracebackhide__ = True
        problems = [
            _text(checked.failure(judgement, self.report.cures.get(judgement.key, "")))
            for judgement in self.report.judgements
            if judgement.finding.verdict in (Verdict.BROKEN, Verdict.UNKNOWN)
        ]
        problems += [f"policy {name!r}: no loop is called so" for name in self.report.observed.unmatched]
        if problems or self.report.verdict is not Verdict.HELD:
            self.failed = True
            problems = problems or ["nothing applied to it, so nothing was shown"]
            told = f"evidence: {self.report.folder}\n\nReproduce with:  {self.report.again}"
            raise AssertionError("\n\n".join([*problems, told]))

    def evidence(self) -> Iterator[tuple[str, str]]:
        """Titles and texts that show what happened."""
        from forkproof.judge import server_log
        from forkproof.reports import checked, printable

        yield "check", _text(checked.check(self.report))
        yield "server log", printable(server_log(self.report.folder, _LOG_LINES))


def _scenario(given: Scenario | Mapping[str, Any] | str | os.PathLike[str]) -> Scenario:
    from forkproof import scenario, session

    if isinstance(given, scenario.Scenario):
        return given
    if isinstance(given, Mapping):
        return scenario.from_dict(given)
    return session.load(Path(given))


def _text(*parts: RenderableType) -> str:
    from rich.console import Console

    console = Console(width=_WIDTH, color_system=None, highlight=False, emoji=False)
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=True)
    return "\n".join(line.rstrip() for line in captured.get().strip("\n").splitlines())


_SHARED = pytest.StashKey[Shared]()
_USED = pytest.StashKey[Forkproof]()


@pytest.fixture
def forkproof(request: pytest.FixtureRequest) -> Forkproof:
    """Run scenarios on real servers: `forkproof.run(scenario).assert_held()`."""
    used = request.node.stash[_USED] = Forkproof(shared(request.config))
    return used
