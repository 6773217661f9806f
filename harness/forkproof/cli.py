"""The command line: reads options, calls what does the work, prints reports. Words and exit codes: docs/cli.md."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import io
import itertools
import json
import os
import random
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from forkproof import __version__, files
from forkproof.errors import ForkproofError, LaneError, RunFolderError, UsageError

if TYPE_CHECKING:
    from forkproof.cause import Cause, Claimed
    from forkproof.check import Checker, CheckReport, Deployment
    from forkproof.explore import Campaign, Progress
    from forkproof.judge import RunReport
    from forkproof.lanes import Lanes, Shelf
    from forkproof.machines import Machines
    from forkproof.reports.handlers import Stream
    from forkproof.session import Session

DEFAULT_OUT = Path(".forkproof")
LARGEST_BATCH = 50
DRAWN = 50
"""How many scenarios `explore` and `diff` run where nothing else is said."""
LAST = "last-campaign.json"
"""The report of the last exploration, in the folder of its runs, for `serve` to show."""
RATED = 5
"""How often `run --why` runs a scenario to know how often it fails."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command `forkproof`; leaves by SystemExit with the documented code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a server says may be unsayable in this locale
            stream.reconfigure(errors="backslashreplace")
    with _ended_as_by_ctrl_c(), contextlib.ExitStack() as until_told:
        code = _answer(list(sys.argv[1:] if argv is None else argv), until_told)
    sys.exit(code)


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Let what else asks us to end leave as little behind as Ctrl-C does, and let none of it get lost."""

    asked: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        asked.append(number)
        raise KeyboardInterrupt

    def dropped(what: sys.UnraisableHookArgs) -> None:
        # Python drops what is raised in a callback of the collector, as Hypothesis has one, or of a weak reference.
        if asked and what.exc_type is KeyboardInterrupt:
            threading.Timer(0.01, os.kill, (os.getpid(), asked[-1])).start()
        else:
            told(what)

    told, sys.unraisablehook = sys.unraisablehook, dropped
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = [one for one, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    for one in ours:  # nohup ignores
        signal.signal(one, interrupt)
    try:
        yield
    finally:
        sys.unraisablehook = told
        for one in ours:
            signal.signal(one, before[one])


def _answer(words: list[str], until_told: contextlib.ExitStack) -> int:
    """Do what the words say, and give the exit code; what is in the stack ends once all is told."""
    try:
        for_gunicorn: list[str] = []
        if words[:1] in (["check"], ["advise"]) and "--" in words:
            words, for_gunicorn = words[: words.index("--")], words[words.index("--") + 1 :]
        arguments = _parser().parse_args(words)
        arguments.options = for_gunicorn
        _require_linux()
        if "github" in vars(arguments):  # it judges something
            arguments.github = arguments.github or os.environ.get("GITHUB_ACTIONS") == "true"
            if arguments.github:
                from forkproof.reports import github

                arguments.orders = until_told.enter_context(github.Orders(stderr=_aside(arguments)))
        from forkproof import registries

        registries.require()
        code = int(arguments.run(arguments))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except ForkproofError as error:
        from forkproof.reports import printable

        _complain(f"forkproof: {printable(str(error))}")
        return error.exit_code
    except KeyboardInterrupt:
        _complain("forkproof: interrupted")
        return 3
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC):
            # Whoever read our output has gone, or its disk is full: what is left in the buffer has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            _complain(f"forkproof: the output was cut short: {error.strerror}")
            return 3
        _complain(traceback.format_exc().rstrip())
        _complain(f"forkproof: this is a defect of forkproof {__version__}; please report it with the above")
        return 4


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody hears it: the exit code tells
        print(text, file=sys.stderr, flush=True)


def _require_linux() -> None:
    if sys.platform != "linux":
        raise UsageError(f"forkproof works on Linux alone: it reads /proc and judges fork; this is {sys.platform}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="forkproof", description="Does this background work survive this server? It starts it and looks."
    )
    parser.add_argument("--version", action="version", version=f"forkproof {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    explore = commands.add_parser("explore", help="generate deployments, run each, shrink what surprises")
    amount = explore.add_mutually_exclusive_group()
    amount.add_argument(
        "-n", type=_positive, default=None, metavar="SCENARIOS", help=f"how many to draw (default {DRAWN})"
    )
    amount.add_argument("--time", type=_seconds, default=None, metavar="S", help="go on drawing for S seconds")
    explore.add_argument("-j", type=_positive, default=None, metavar="N", help="servers at once (default: 2 a core)")
    explore.add_argument("--seed", type=int, default=None, help="the same seed draws the same scenarios")
    explore.add_argument("--strict", action="store_true", help="known issues fail too, and those that no longer show")
    explore.add_argument("--budget", type=_seconds, default=90.0, metavar="S", help="seconds to shrink one failure")
    explore.add_argument(
        "--html", type=_file, metavar="FILE", help="write a page of it, and a timeline of each way to break"
    )
    explore.add_argument(
        "--database", metavar="WHERE",
        help="keep what surprises, and run what did before first: a folder, or redis://HOST[:PORT][/DB]",
    )  # fmt: skip
    _dask_option(explore)
    _common(explore)
    explore.set_defaults(run=_explore)

    diff = commands.add_parser("diff", help="the same scenarios on two targets: what broke, and what was fixed")
    diff.add_argument("--base", required=True, metavar="T", help="the target as it was: a Python or a lane")
    diff.add_argument("--head", required=True, metavar="T", help="the target as it is to be")
    amount = diff.add_mutually_exclusive_group()
    amount.add_argument(
        "-n", type=_positive, default=None, metavar="SCENARIOS", help=f"how many to run (default {DRAWN})"
    )
    amount.add_argument("--time", type=_seconds, default=None, metavar="S", help="take S seconds for everything")
    diff.add_argument("-j", type=_positive, default=None, metavar="N", help="servers at once (default: 2 a core)")
    diff.add_argument("--seed", type=int, default=None, help="the same seed takes the same scenarios")
    diff.add_argument("--broker", help="embedded (default), redis-server[:PATH], or redis://HOST:PORT[/DB]")
    diff.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="where run folders go")
    _lanes_options(diff)
    _boots(diff)
    _output(diff)
    diff.set_defaults(run=_diff)

    _matrix_parser(commands)
    _atlas_parser(commands)

    run = commands.add_parser("run", help="run one scenario")
    run.add_argument("scenario", type=Path, metavar="SCENARIO.json", help="- for standard input")
    _repeated(run)
    _common(run)
    run.set_defaults(run=_run, name="run")

    replay = commands.add_parser("replay", help="run the scenario of a run folder again")
    replay.add_argument("scenario", type=Path, metavar="RUN")
    _repeated(replay)
    _common(replay)
    replay.set_defaults(run=_run, name="replay")

    recheck = commands.add_parser("recheck", help="judge a run folder again; launches nothing")
    recheck.add_argument("folder", type=Path, metavar="RUN")
    _output(recheck)
    recheck.set_defaults(run=_recheck)

    export = commands.add_parser("export", help="write a folder that shows what a run broke, without forkproof")
    export.add_argument("folder", type=Path, metavar="RUN")
    export.add_argument("to", type=Path, metavar="DIR")
    export.add_argument("--claim", metavar="NAME", help="the claim to show (default: the first broken one that can be)")
    export.add_argument("--loop", metavar="NAME", help="the loop to show it for")
    export.add_argument("--target", metavar="T", help="the Python to try it on (default: the run's)")
    export.add_argument("--tries", type=_positive, default=3, metavar="N", help="how often to try it (default 3)")
    export.add_argument("--no-try", action="store_true", help="do not run it")
    export.set_defaults(run=_export)

    timeline = commands.add_parser("timeline", help="draw a run as one HTML file, or as SVG")
    timeline.add_argument("folder", type=Path, metavar="RUN")
    timeline.add_argument("--html", type=_file, metavar="FILE", help="default: timeline.html in the run's folder")
    timeline.add_argument("--svg", type=_file, metavar="FILE", help="the same picture as SVG; - for standard output")
    timeline.set_defaults(run=_timeline)

    campaign = commands.add_parser("campaign", help="make the page of an exploration from its JSON report")
    campaign.add_argument("report", type=Path, metavar="REPORT.json")
    campaign.add_argument("--html", type=_file, metavar="FILE", help="default: REPORT.html beside it")
    campaign.set_defaults(run=_campaign)

    serve = commands.add_parser("serve", help="show a folder of runs to the browser of this machine")
    serve.add_argument("folder", type=Path, nargs="?", default=DEFAULT_OUT, metavar="DIR", help="default: .forkproof")
    serve.add_argument("--port", type=_port, default=0, metavar="N", help="default: one that is free")
    serve.add_argument("-v", "--verbose", action="store_true", help="print each request")
    serve.set_defaults(run=_serve)

    _check_parser(commands)
    _advise_parser(commands)

    claims = commands.add_parser("claims", help="list the claims, or explain one")
    claims.add_argument("name", nargs="?", metavar="NAME")
    claims.set_defaults(run=_claims)

    lanes = commands.add_parser("lanes", help="list, build or remove stacks that have a name")
    lanes.add_argument("action", nargs="?", choices=("list", "build", "remove"), default="list")
    lanes.add_argument("names", nargs="*", metavar="NAME", help="default: all that are listed")
    lanes.add_argument("--json", type=_file, metavar="FILE", help="write the answer as JSON; - for standard output")
    _lanes_options(lanes)
    lanes.set_defaults(run=_lanes)

    inspect = commands.add_parser("inspect", help="look at a gunicorn that runs; changes nothing")
    inspect.add_argument("pid", type=_positive, metavar="PID", help="its master")
    inspect.add_argument("--redis", metavar="URL", help="a Redis of its own, asked which connections are subscribed")
    inspect.add_argument("--seconds", type=_seconds, default=1.0, metavar="S", help="how long to look (default 1)")
    inspect.add_argument("--json", type=_file, metavar="FILE", help="write what is seen as JSON; - for standard output")
    inspect.set_defaults(run=_inspect)

    doctor = commands.add_parser("doctor", help="say what this machine and target allow")
    doctor.add_argument("--target", metavar="T", help="the Python to test, or a lane")
    _lanes_options(doctor)
    doctor.add_argument("--broker", default="embedded", help="the Redis to use")
    doctor.add_argument("--json", type=_file, metavar="FILE")
    doctor.set_defaults(run=_doctor)
    return parser


def _matrix_parser(commands: argparse._SubParsersAction[_Parser]) -> None:
    matrix = commands.add_parser("matrix", help="one list of scenarios on every lane: what holds where")
    matrix.add_argument("names", nargs="*", metavar="LANE", help="default: all that are listed")
    matrix.add_argument("--only", action="append", metavar="GLOB", help="of the list, such as recipe/*; repeatable")
    matrix.add_argument("-n", type=_count, default=10, metavar="N", help="how many scenarios to draw beside (10)")
    matrix.add_argument("--seed", type=int, default=0, help="the same seed draws the same scenarios (0)")
    matrix.add_argument("--rows", type=_file, metavar="FILE", help="what was run, and is not run again")
    matrix.add_argument("--html", type=_file, metavar="FILE", help="write the map as one page")
    matrix.add_argument("--markdown", type=_file, metavar="FILE", help="write the map as Markdown")
    matrix.add_argument("--json", type=_file, metavar="FILE", help="write the report as JSON; - for standard output")
    matrix.add_argument("--time", type=_seconds, default=None, metavar="S", help="begin nothing after S seconds")
    matrix.add_argument("--remove", action="store_true", help="remove each lane's environment after its runs")
    _dask_option(matrix)
    _servers(matrix)
    matrix.set_defaults(run=_matrix)


def _atlas_parser(commands: argparse._SubParsersAction[_Parser]) -> None:
    atlas = commands.add_parser("atlas", help="every combination of a few settings: where the loop runs, what breaks")
    atlas.add_argument("--lane", metavar="LANE", help="default: the newest one")
    atlas.add_argument("--only", action="append", metavar="SETTING=VALUES", help="such as start=app_import,post_fork")
    atlas.add_argument("--again", type=_positive, metavar="N", help="run N of those that were run again, and compare")
    atlas.add_argument("--seed", type=int, default=0, help="which ones --again takes (0)")
    atlas.add_argument("--rows", type=_file, metavar="FILE", help="what was run, and is not run again")
    atlas.add_argument("--csv", type=_file, metavar="FILE", help="write the table; - for standard output")
    atlas.add_argument("--html", type=_file, metavar="FILE", help="write the page")
    atlas.add_argument("--time", type=_seconds, default=None, metavar="S", help="begin nothing after S seconds")
    _dask_option(atlas)
    _servers(atlas)
    atlas.set_defaults(run=_atlas)


def _servers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-j", type=_positive, default=None, metavar="N", help="servers at once (default: 2 a core)")
    parser.add_argument("--broker", help="embedded (default), redis-server[:PATH], or redis://HOST:PORT[/DB]")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="where run folders go")
    parser.add_argument("-q", "--quiet", action="store_true", help="print the verdict alone")
    _boots(parser)
    _lanes_options(parser)


def _check_parser(commands: argparse._SubParsersAction[_Parser]) -> None:
    check = commands.add_parser(
        "check", help="start your own app, unchanged, and tell where each background loop really runs",
        usage="forkproof check MODULE:APP [-c CONF] [options] [-- GUNICORN OPTIONS]",
    )  # fmt: skip
    _app_options(check)
    check.add_argument("--quick", action="store_true", help="boot and TERM alone")
    check.add_argument("--repeat", type=_positive, default=1, metavar="N", help="run it N times and give rates")
    check.add_argument("--baseline", type=Path, metavar="FILE", help="accept the failures that it names")
    check.add_argument("--write-baseline", type=_file, metavar="FILE", help="accept the failures of today")
    check.add_argument("--junit", type=_file, metavar="FILE", help="write the report as JUnit XML")
    _github(check)
    check.add_argument("-v", "--verbose", action="count", default=0, help="print what held, too")
    check.set_defaults(run=_check, options=())


def _advise_parser(commands: argparse._SubParsersAction[_Parser]) -> None:
    advise = commands.add_parser(
        "advise", help="search a deployment of your own app in which everything holds, and give it as a diff",
        usage="forkproof advise MODULE:APP [-c CONF] --policy LOOP=POLICY [options] [-- GUNICORN OPTIONS]",
    )  # fmt: skip
    _app_options(advise)
    advise.add_argument("-n", type=_positive, default=1, metavar="N", help="how many are looked for (default 1)")
    advise.add_argument("--repeat", type=_positive, default=3, metavar="N", help="how often one must hold (default 3)")
    advise.add_argument("--budget", type=_seconds, default=600.0, metavar="S", help="seconds to search (default 600)")
    advise.add_argument("--diff", type=_file, metavar="FILE", help="write the first diff; - for standard output")
    advise.set_defaults(run=_advise, options=(), quick=False)


def _app_options(parser: argparse.ArgumentParser) -> None:
    """What says which app is started, how, and what is done to it."""
    parser.add_argument(
        "app", nargs="?", metavar="MODULE:APP", help="as for gunicorn; or wsgi_app of the configuration"
    )
    parser.add_argument("-c", "--config", metavar="CONF", help="as for gunicorn")
    parser.add_argument(
        "--policy", action="append", default=[], metavar="LOOP=POLICY", help="where a loop is meant to run"
    )
    parser.add_argument("--target", metavar="T", help="the Python of the app (default: of the active environment)")
    parser.add_argument("--chdir", type=Path, default=Path(), metavar="DIR", help="the folder to start it in")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="set in the app's environment")
    parser.add_argument("--keep-bind", action="store_true", help="bind where the configuration says")
    parser.add_argument("--health", default="/", metavar="PATH", help="what is requested of each worker (default /)")
    parser.add_argument(
        "--request", action="append", default=[], metavar="PATH", help="request it to cause work; {n}: a number"
    )
    parser.add_argument("--event", action="append", default=[], metavar="CMD", help="run it in a shell to cause work")
    parser.add_argument("--faults", metavar="NAMES", help="of kill_worker, hup, term; default all of them")
    parser.add_argument("--offline", action="store_true", help="refuse connections that leave this machine")
    parser.add_argument("--redis", metavar="R", help="embedded, or a URL: what the app gets as REDIS_URL")
    parser.add_argument("--boot", type=_seconds, default=60.0, metavar="S", help="seconds that a boot may take (60)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="where run folders go")
    parser.add_argument("--json", type=_file, metavar="FILE", help="write the report as JSON; - for standard output")
    parser.add_argument("-q", "--quiet", action="store_true", help="print the verdict alone")


def _repeated(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeat", type=_positive, default=None, metavar="N", help="run it N times and give rates")
    parser.add_argument("--why", action="store_true", help="run what differs in one thing, and tell cause and cure")
    parser.add_argument("--budget", type=_seconds, default=90.0, metavar="S", help="seconds that --why may take")
    parser.add_argument("-j", type=_positive, default=None, metavar="N", help="servers at once for --why")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="T", help="a Python or a lane (default: the Python forkproof runs in)")
    _lanes_options(parser)
    parser.add_argument("--broker", help="embedded (default), redis-server[:PATH], or redis://HOST:PORT[/DB]")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="where run folders go")
    _boots(parser)
    _output(parser)


def _boots(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--cold", action="store_true", help="start every server anew (default)")
    how.add_argument("--warm", action="store_true", help="fork servers from processes that hold their first imports")


def _dask_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="run the servers on a Dask cluster, such as tcp://scheduler:8786"
    )


def _lanes_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lanes", type=Path, metavar="FILE", help="other lanes than forkproof's own")
    parser.add_argument("--lanes-dir", type=Path, metavar="DIR", help="where lanes are built")


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--claim", action="append", metavar="NAME", help="judge this claim alone; may be repeated")
    parser.add_argument("--json", type=_file, metavar="FILE", help="write the report as JSON; - for standard output")
    parser.add_argument(
        "--junit", type=_file, metavar="FILE", help="write the report as JUnit XML; - for standard output"
    )
    parser.add_argument(
        "--observations", type=_file, metavar="FILE", help="append a line a run, as Hypothesis has them"
    )
    _github(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print the verdict alone")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="print what was not applicable, and why")


def _github(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--github", action="store_true", help="print annotations for GitHub (there: always)")


def _positive(text: str) -> int:
    with contextlib.suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not allowed: give a whole number from 1 on")


def _count(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _port(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 <= int(text) <= 65535:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not allowed: give a number from 0 to 65535")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1e7:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not allowed: give seconds above 0")


def _file(text: str) -> Path:
    # Asked before anything is launched: a campaign's report should not be lost to a word mistyped.
    path = Path(text)
    if text != "-" and (path.is_dir() or not path.absolute().parent.is_dir()):
        what = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: {what}; give a file")
    return path


def _known_claims(names: Sequence[str] | None) -> Sequence[str] | None:
    from forkproof.claims import REGISTRY

    for name in names or ():
        if name not in REGISTRY:
            raise UsageError(f"--claim {name}: there is no such claim; there are: {', '.join(REGISTRY)}")
    return names


def _run(arguments: argparse.Namespace) -> int:
    from forkproof.judge import combine
    from forkproof.session import asked_for, load, open_session

    names = _known_claims(arguments.claim)
    if arguments.scenario.is_dir():
        _require_scenario(arguments.scenario, "Replayed are scenarios")
    what = load(arguments.scenario)
    before = {} if arguments.target and arguments.broker else asked_for(arguments.scenario)
    target_name = _target(arguments)
    # A cause is looked for with a rate in hand: what fails now and then must hold more often to count as sound.
    repeat = arguments.repeat or (RATED if arguments.why else 1)
    reports: list[RunReport] = []
    causes: dict[Claimed, Cause] = {}
    stream = _stream(arguments.name, arguments)
    try:
        with open_session(
            target_name=target_name or before.get("target"),
            broker_name=arguments.broker or before.get("broker", "embedded"),
            out=arguments.out,
            claims=names,
            warm=arguments.warm,
        ) as session:
            session.target.require(what)
            for number in range(repeat):
                reports.append(session.run(what))
                stream.ran(reports[-1])
                if repeat > 1 and not arguments.quiet:
                    print(f"run {number + 1} of {repeat}: {reports[-1].verdict.value}", file=sys.stderr)
            if arguments.why:
                causes = _causes(session, combine(reports), arguments)
    except KeyboardInterrupt:
        if not reports:
            raise
        return _as_far_as_it_came(_show_run(combine(reports), arguments, stream, causes))
    except RunFolderError as error:
        if what.to_json() not in str(error):
            raise RunFolderError(f"{error} The scenario was:\n{what.to_json()}") from None
        raise
    return _show_run(combine(reports), arguments, stream, causes)


def _as_far_as_it_came(code: int) -> int:
    """The exit code of what was interrupted, from that of what was found by then."""
    print("forkproof: interrupted", file=sys.stderr)
    return code or 3


def _causes(session: Session, report: RunReport, arguments: argparse.Namespace) -> dict[Claimed, Cause]:
    from forkproof.explore import Explorer
    from forkproof.reports import terminal
    from forkproof.reports.progress import CampaignProgress

    asked = {judgement.key: judgement.rate for judgement in report.broken}
    if not asked:
        return {}
    with CampaignProgress(terminal.console(stderr=True), quiet=arguments.quiet, what="") as progress:
        explorer = Explorer(session, jobs=_jobs(arguments), progress=progress, budget_seconds=arguments.budget)
        try:
            return explorer.explain(report.scenario, asked, report)
        except KeyboardInterrupt:
            session.stop.set()
            raise
        finally:
            explorer.close()


def _machines(arguments: argparse.Namespace) -> contextlib.AbstractContextManager[Machines]:
    from forkproof.machines import Wanted, machines

    wanted = Wanted(arguments.j, arguments.broker or "embedded", arguments.out, arguments.warm)
    return machines(arguments.dask, wanted, *_shelf(arguments), lambda text: print(text, file=sys.stderr))


def _jobs(arguments: argparse.Namespace) -> int:
    from forkproof.machines import jobs_here

    return jobs_here(arguments.j)


def _recheck(arguments: argparse.Namespace) -> int:
    from forkproof import check
    from forkproof.judge import judge

    stream = _stream("recheck", arguments)
    folder = arguments.folder.absolute()  # reports name it, and are read elsewhere
    if check.planned(folder) is not None:
        if arguments.claim:
            raise UsageError("--claim: a check is judged as a whole. Leave it out.")
        if arguments.observations:
            raise UsageError("--observations: has lines of scenarios, and a check has none. Leave it out.")
        return _show_check(check.judge(folder), arguments, stream)
    report = judge(folder, _known_claims(arguments.claim))
    stream.ran(report)
    return _show_run(report, arguments, stream)


def _require_scenario(folder: Path, what: str) -> None:
    """UsageError where the run in a folder is a check: its app is not in there."""
    from forkproof import check

    plan = check.planned(folder)
    if plan is not None:
        raise UsageError(f"{folder}: is a check of {plan.app}. {what}; to check it again: {plan.command}")


def _export(arguments: argparse.Namespace) -> int:
    from forkproof import reproducer, target
    from forkproof.judge import assess
    from forkproof.reproducer import trial
    from forkproof.session import asked_for

    _require_scenario(arguments.folder, "Exported are scenarios")
    _known_claims([arguments.claim] if arguments.claim else None)
    choices = reproducer.options(assess(arguments.folder), arguments.claim, arguments.loop)
    reproducer.require_empty(arguments.to)
    if arguments.no_try:
        made, told = choices[0], "not tried"
        if made.left_out:
            raise UsageError(f"only a program that leaves out {', '.join(made.left_out)} can be made: it must be tried")
        with contextlib.suppress(ForkproofError):  # where the run's Python is gone
            made = trial.with_pins(made, target.find(arguments.target or asked_for(arguments.folder).get("target")))
    else:
        chosen = target.find(arguments.target or asked_for(arguments.folder).get("target"))
        made, found = trial.first_that_shows(choices, chosen, arguments.tries)
        told = f"it showed {found}"
    reproducer.write(made, arguments.to)
    without = f", without {', '.join(made.left_out)}" if made.left_out else ""
    print(f"{arguments.to}: {made.broken}{without}; {made.lines_of_python} lines of Python; {told}")
    print(f"Run it with:  {shlex.quote(str(arguments.to / 'reproduce.sh'))}")
    return 0


def _timeline(arguments: argparse.Namespace) -> int:
    from forkproof.reports import timeline

    shown = timeline.picture(arguments.folder)
    html = arguments.html
    if html is None and arguments.svg is None:
        html = arguments.folder / "timeline.html"
        html.unlink(missing_ok=True)  # a server could have left a link there
    for path, text in ((html, timeline.page), (arguments.svg, lambda shown: timeline.svg(shown, alone=True) + "\n")):
        if path is not None:
            _write_text(path, text(shown))
            if not _to_stdout(path):
                print(path, file=sys.stderr if _to_stdout(html) or _to_stdout(arguments.svg) else sys.stdout)
    return 0


def _campaign(arguments: argparse.Namespace) -> int:
    from forkproof.reports import campaign

    found = campaign.read(arguments.report)
    html = arguments.html or arguments.report.with_suffix(".html")
    _write_text(html, campaign.page(found, campaign.beside(html)))
    if not _to_stdout(html):
        print(html)
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    from forkproof.reports import serve

    with (
        serve.Server(serve.Folder(arguments.folder), arguments.port, verbose=arguments.verbose) as server,
        contextlib.suppress(KeyboardInterrupt),  # the way in which it ends, from when it says so
    ):
        print(f"{server.address}  shows {arguments.folder} to this machine alone; Ctrl-C ends it", flush=True)
        server.serve_forever()
    return 0


def _campaign_page(found: Campaign, html: Path) -> None:
    """Write the page of a campaign that has just ended, with a timeline of each way to break in its run's folder."""
    from forkproof.reports import campaign, timeline

    shown = [*found.failures, *found.expected_breaks[: campaign.LISTED]]
    for folder in dict.fromkeys(failure.folder for failure in shown):
        path = folder / "timeline.html"
        try:
            text = timeline.page(timeline.picture(folder))
            path.unlink(missing_ok=True)  # a server could have left a link there
            files.write(path, text)
        except (ForkproofError, OSError) as error:  # the page tells of it without one
            print(f"forkproof: {folder}: no timeline was written: {error}", file=sys.stderr)
    _write_text(html, campaign.page(campaign.of_campaign(found), campaign.beside(html)))


def _stream(command: str, arguments: argparse.Namespace, *more: Progress) -> Stream:
    """Who is told what a command does, by its options and by where it runs; `more` come first."""
    from forkproof.reports import handlers, terminal

    given = vars(arguments)
    console = terminal.console(stderr=_aside(arguments))
    found: list[Progress] = [*more, handlers.Terminal(console, quiet=given.get("quiet", False))]
    if given.get("html"):
        found.append(handlers.Page(arguments.html))
    if given.get("json"):
        found.append(handlers.Json(arguments.json))
    if given.get("junit"):
        found.append(handlers.Junit(arguments.junit))
    if given.get("observations"):
        found.append(handlers.Observations(arguments.observations, command))
    if "github" not in given:  # it judges nothing
        return handlers.Stream(command, found)
    if arguments.github:
        found.append(handlers.Annotations(Path(os.environ.get("GITHUB_WORKSPACE") or "."), arguments.orders))
    if os.environ.get("GITHUB_STEP_SUMMARY"):
        found.append(handlers.Summary(Path(os.environ["GITHUB_STEP_SUMMARY"])))
    return handlers.Stream(command, found)


def _aside(arguments: argparse.Namespace) -> bool:
    """Whether standard output is a file's, so that what a person reads goes to standard error."""
    given = vars(arguments)
    return any(_to_stdout(given.get(name)) for name in ("json", "junit", "diff", "markdown", "html"))


def _show_run(
    report: RunReport, arguments: argparse.Namespace, stream: Stream, causes: Mapping[Claimed, Cause] | None = None
) -> int:
    from forkproof.reports import cases, terminal
    from forkproof.reports.handlers import Outcome

    source = getattr(arguments, "scenario", None)
    stream.done(
        Outcome(
            stream.command,
            report.verdict.value,
            terminal.run(report, causes=causes, verbosity=arguments.verbose),
            terminal.verdict_text(report.verdict),
            _with_causes(report, causes or {}),
            cases.of_run(report, source if source is not None and source.is_file() else None, causes),
        )
    )
    return int(report.exit_code)


def _with_causes(report: RunReport, causes: Mapping[Claimed, Cause]) -> dict[str, Any]:
    plain = report.to_dict()
    for judgement, claim in zip(report.judgements, plain["claims"], strict=True):
        if judgement.key in causes:
            claim |= causes[judgement.key].to_dict()
    return plain


@contextlib.contextmanager
def _called(option: str, here: str) -> Iterator[None]:
    """Let an error name an option as this command calls it."""
    try:
        yield
    except ForkproofError as error:
        error.args = (str(error).replace(option, here),)
        raise


def _check(arguments: argparse.Namespace) -> int:
    from forkproof import baseline
    from forkproof.check import combine, open_checker

    what = _deployment(arguments)
    stream = _stream("check", arguments)
    accepted = baseline.read(arguments.baseline) if arguments.baseline else frozenset[str]()
    reports: list[CheckReport] = []
    interrupted = False
    try:
        with _called("--broker", "--redis"), open_checker(arguments.target, arguments.out, arguments.redis) as checker:
            _say_contacts(checker, what, quiet=arguments.quiet)
            for number in range(arguments.repeat):
                reports.append(dataclasses.replace(checker.check(what), accepted=accepted))
                if arguments.repeat > 1 and not arguments.quiet:
                    print(f"run {number + 1} of {arguments.repeat}: {reports[-1].verdict.value}", file=sys.stderr)
    except KeyboardInterrupt:
        if not reports:
            raise
        interrupted = True
    report = dataclasses.replace(combine(reports), accepted=accepted)
    if arguments.write_baseline and not interrupted:
        ids = report.ids
        baseline.write(arguments.write_baseline, ids)
        if not arguments.quiet:
            told = f"forkproof: {arguments.write_baseline} accepts {len(ids)} failure{'s' * (len(ids) != 1)}"
            print(f"{told}: give it with --baseline from now on", file=sys.stderr)
    code = _show_check(report, arguments, stream)
    return _as_far_as_it_came(code) if interrupted else code


def _show_check(report: CheckReport, arguments: argparse.Namespace, stream: Stream) -> int:
    from forkproof.reports import cases, checked, terminal
    from forkproof.reports.handlers import Outcome

    stream.done(
        Outcome(
            stream.command,
            report.verdict.value,
            checked.check(report, verbosity=arguments.verbose),
            terminal.verdict_text(report.verdict),
            report.to_dict(),
            cases.of_check(report),
        )
    )
    return report.exit_code


def _say_contacts(checker: Checker, what: Deployment, *, quiet: bool) -> None:
    from forkproof.check import contacts, environ

    named = contacts(environ(checker.around(what)))
    if named and not quiet:
        told = ", ".join(f"{host} ({name})" for name, host in named.items())
        print(f"forkproof: the environment names what the app may contact: {told}", file=sys.stderr)


def _advise(arguments: argparse.Namespace) -> int:
    from forkproof.advise import Adviser
    from forkproof.check import open_checker
    from forkproof.reports import advised, handlers, printable, terminal

    def tell(text: str) -> None:
        if not arguments.quiet:
            print(f"forkproof: {printable(text)}", file=sys.stderr, flush=True)

    what = _deployment(arguments)
    with _called("--broker", "--redis"), open_checker(arguments.target, arguments.out, arguments.redis) as checker:
        _say_contacts(checker, what, quiet=arguments.quiet)
        adviser = Adviser(checker, what, arguments.n, arguments.repeat, arguments.budget, tell)
        tell(advised.announcement(what, arguments.budget))
        advice = adviser.advise()
    verdict = terminal.verdict_text(advice.verdict)
    diffs = [handlers.Text(arguments.diff, lambda: advice.found[0].diff)] if arguments.diff and advice.found else []
    _stream("advise", arguments, *diffs).done(
        handlers.Outcome("advise", advice.verdict.value, advised.advice(advice), verdict, advice.to_dict())
    )
    return advice.exit_code


def _deployment(arguments: argparse.Namespace) -> Deployment:
    from forkproof import check

    faults: tuple[str, ...] = check.FAULTS
    if arguments.faults is not None:
        faults = tuple(name for name in arguments.faults.split(",") if name)
        for name in faults:
            if name not in check.FAULTS:
                raise UsageError(f"--faults {name}: there is no such fault here; there are: {', '.join(check.FAULTS)}")
    elif arguments.quick:
        faults = check.QUICK
    return check.Deployment(
        app=arguments.app,
        config=arguments.config,
        folder=arguments.chdir,
        options=tuple(arguments.options),
        environment=dict(_pair("--env", text) for text in arguments.env),
        keep_bind=arguments.keep_bind,
        health=arguments.health,
        requests=tuple(arguments.request),
        events=tuple(arguments.event),
        faults=faults,
        boot_seconds=arguments.boot,
        offline=arguments.offline,
        policies=check.policies(dict(_pair("--policy", text) for text in arguments.policy), arguments.chdir),
    )


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=") if option == "--policy" else text.partition("=")
    if not equals or not name:
        raise UsageError(f"{option} {text}: give NAME=VALUE")
    return name, value


def _explore(arguments: argparse.Namespace) -> int:
    from forkproof import corpus
    from forkproof.explore import Explorer
    from forkproof.reports import cases, terminal
    from forkproof.reports.handlers import Outcome
    from forkproof.reports.progress import CampaignProgress

    names = _known_claims(arguments.claim)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1_000_000)
    console = terminal.console(stderr=True)
    until = time.monotonic() + arguments.time if arguments.time is not None else None
    with contextlib.ExitStack() as stack:
        database = None if arguments.database is None else stack.enter_context(corpus.opened(arguments.database))
        kept, unread = database.fetch() if database is not None else ([], 0)
        if unread and not arguments.quiet:
            print(
                f"forkproof: --database: {unread} entries are another forkproof's, and are left alone", file=sys.stderr
            )
        machines = stack.enter_context(_machines(arguments))
        session = stack.enter_context(machines.on(arguments.target, names))
        progress = stack.enter_context(CampaignProgress(console, quiet=arguments.quiet, until=until))
        stream = _stream("explore", arguments, progress)
        explorer = Explorer(
            session,
            jobs=machines.jobs,
            progress=stream,
            budget_seconds=arguments.budget,
            shrink_expected=bool(names),
            check_known=arguments.strict,
            kept=kept,
            keep=database.save if database is not None else lambda what: None,
        )
        campaign = explorer.explore(_batches(arguments.n or DRAWN, seed, session, until), until=until)
    campaign.seed = seed
    with contextlib.suppress(OSError):  # nobody asked for it by name
        files.write(arguments.out / LAST, json.dumps(campaign.to_dict(), indent=1) + "\n")
    stream.done(
        Outcome(
            "explore",
            terminal.told(campaign, seed=seed),
            terminal.campaign(campaign, seed=seed, verbosity=arguments.verbose),
            terminal.campaign(campaign, seed=seed, quiet=True),
            campaign.to_dict(),
            cases.of_campaign(campaign),
            lambda html: _campaign_page(campaign, html),
        )
    )
    return campaign.exit_code(strict=arguments.strict)


def _diff(arguments: argparse.Namespace) -> int:
    from forkproof import target
    from forkproof.compare import Comparer
    from forkproof.reports import cases, terminal
    from forkproof.reports.handlers import Outcome
    from forkproof.reports.progress import CampaignProgress
    from forkproof.session import PLAINEST, open_session

    names = _known_claims(arguments.claim)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1_000_000)
    chosen = []
    for option, name in (("--base", arguments.base), ("--head", arguments.head)):
        with _called("--target", option):
            chosen.append(_target(arguments, name))
            target.find(chosen[-1]).require(PLAINEST)
    with contextlib.ExitStack() as stack:
        base, head = (
            stack.enter_context(
                open_session(
                    target_name=name,
                    broker_name=arguments.broker or "embedded",
                    out=arguments.out,
                    claims=names,
                    warm=arguments.warm,
                )
            )
            for name in chosen
        )
        until = time.monotonic() + arguments.time if arguments.time is not None else None
        console = terminal.console(stderr=True)
        shown = CampaignProgress(console, quiet=arguments.quiet, until=until, what="difference")
        stream = _stream("diff", arguments, stack.enter_context(shown))
        comparer = Comparer(base, head, jobs=_jobs(arguments), seed=seed, progress=stream)
        n = (arguments.n or DRAWN) if arguments.time is None else None
        found = comparer.compare(n, arguments.time)
    stream.done(
        Outcome(
            "diff",
            f"{len(found.differences)} differences",
            terminal.comparison(found, seed=seed, verbosity=arguments.verbose),
            terminal.comparison(found, seed=seed, quiet=True),
            found.to_dict(),
            cases.of_comparison(found),
        )
    )
    return found.exit_code


def _matrix(arguments: argparse.Namespace) -> int:
    from forkproof import matrix
    from forkproof.ledger import Ledger
    from forkproof.reports import compatibility, handlers, terminal
    from forkproof.reports.progress import CampaignProgress

    known, shelf = _shelf(arguments)
    lanes = [known.lane(name) for name in arguments.names or known.names]
    until = None if arguments.time is None else time.monotonic() + arguments.time
    everything = [*matrix.fixed(), *matrix.shown(), *matrix.seeded(arguments.n, arguments.seed)]
    what = matrix.chosen(everything, arguments.only or ())
    if not what:
        raise UsageError("--only: nothing of that name is listed. Give such as recipe/*, planted/* or drawn/*.")
    ledger = Ledger(arguments.rows or arguments.out / "matrix.jsonl")
    shown = CampaignProgress(terminal.console(stderr=True), quiet=arguments.quiet, until=until)
    with _machines(arguments) as machines, shown as progress:
        runner = matrix.Matrix(
            shelf,
            ledger,
            out=arguments.out,
            jobs=machines.jobs,
            opened=machines.on_lane,
            progress=progress,
            remove=arguments.remove,
        )
        done = runner.run(lanes, what, until)
    page = arguments.html.name if arguments.html else "compatibility.html"
    more = []
    if arguments.markdown:
        more = [handlers.Text(arguments.markdown, lambda: compatibility.markdown(done, page))]
    told = compatibility.told(done)
    _stream("matrix", arguments, *more).done(
        handlers.Outcome(
            "matrix",
            told[-1],
            terminal.Verbatim(told),
            terminal.Verbatim(told[-1:]),
            done.to_dict(),
            page=lambda html: _write_text(html, compatibility.page(done)),
            laid_out=compatibility.laid_out,
        )
    )
    return done.exit_code


def _atlas(arguments: argparse.Namespace) -> int:
    from forkproof import atlas, matrix
    from forkproof.ledger import Ledger
    from forkproof.reports import terminal
    from forkproof.reports.atlas import page
    from forkproof.reports.progress import CampaignProgress

    known, shelf = _shelf(arguments)
    lane = known.lane(arguments.lane or atlas.LANE)
    until = None if arguments.time is None else time.monotonic() + arguments.time
    some = list(atlas.combinations(atlas.narrowed(arguments.only or ())))
    out = sys.stderr if _to_stdout(arguments.csv) else sys.stdout
    ledger = Ledger(arguments.rows or arguments.out / "atlas.jsonl")

    def entries(some: Sequence[atlas.Combination], kept: Ledger) -> tuple[list[dict[str, Any]], matrix.Done]:
        shown = CampaignProgress(terminal.console(stderr=True), quiet=arguments.quiet, until=until)
        with _machines(arguments) as machines, shown as progress:
            runner = matrix.Matrix(
                shelf, kept, out=arguments.out, jobs=machines.jobs, opened=machines.on_lane, progress=progress
            )
            done = runner.run([lane], atlas.named(some), until)
        if lane.name in done.skipped:
            raise LaneError(f"lane {lane.name} cannot be had: {done.skipped[lane.name]}. Choose another --lane.")
        rows = {row["about"]: row for row in done.rows.values()}
        return atlas.entries(some, rows, lane.name), done

    found, done = entries(some, ledger)
    if arguments.csv is not None:
        _write_text(arguments.csv, atlas.table(found))
    if arguments.html is not None:
        _write_text(arguments.html, page(found, done.targets[lane.name]))
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(atlas.counts(found).items()))
    print(f"{len(found)} combinations: {told}; {done.launched} servers in {done.seconds:.0f} s", file=out)
    for problem in [] if arguments.quiet else done.problems:
        print(f"not decided: {problem}", file=out)
    other = 0
    if arguments.again and not done.interrupted:

        def anew(which: list[atlas.Combination]) -> list[dict[str, Any]]:
            return entries(which, Ledger(Path(os.devnull)))[0]

        again = anew(atlas.sample(some, arguments.again, arguments.seed))
        either = 0
        for name, before, now in atlas.disagreements(found, again):
            same = [one for one in some if one.id == name]
            more = [atlas.told(anew(same)[0]) for _ in range(atlas.MORE)]
            often = f"{more.count(before)} as before and {more.count(now)} as now"
            print(f"{name}: {before}; now {now}; in {atlas.MORE} more: {often}", file=out)
            either += before in more
            other += before not in more
        print(f"{len(again)} run again: {other} came to something else, {either} to either", file=out)
    complete = not done.interrupted and not done.problems and "not run" not in atlas.counts(found)
    return 1 if other else 0 if complete else 3


def _batches(n: int, seed: int, session: Session, until: float | None) -> Iterable[Sequence[Any]]:
    from forkproof.explore import draw

    if until is None:
        return [draw(n, seed, session.target, session.broker, session.claims)]
    return (
        draw(LARGEST_BATCH, seed + part, session.target, session.broker, session.claims) for part in itertools.count()
    )


def _claims(arguments: argparse.Namespace) -> int:
    from forkproof.claims import REGISTRY, page

    if arguments.name is None:
        for claim in REGISTRY.values():
            print(f"{claim.name}\n    {claim.definition}")
    elif arguments.name in REGISTRY:
        print(page(arguments.name))
    else:
        raise UsageError(f"{arguments.name}: there is no such claim; there are: {', '.join(REGISTRY)}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from forkproof import broker, doctor
    from forkproof.reports import terminal
    from forkproof.reports.handlers import Outcome

    broker.parse(arguments.broker)
    answers = doctor.examine(_target(arguments), arguments.broker)
    shown = terminal.Verbatim(f"{'ok ' if one.good else 'NO '} {one.subject}: {one.text}" for one in answers)
    can = all(answer.good or not answer.needed for answer in answers)
    plain = {"schema": 1, "answers": [answer.to_dict() for answer in answers]}
    _stream("doctor", arguments).done(Outcome("doctor", "ok" if can else "no", shown, shown, plain))
    return 0 if can else 3


def _target(arguments: argparse.Namespace, name: str | None = None) -> str | None:
    """What `--target` (or another option) names as the path of a Python; a lane is built if need be."""
    from forkproof import lanes

    known, shelf = _shelf(arguments)
    return lanes.resolve(name or arguments.target, known, shelf, lambda text: print(text, file=sys.stderr))


def _shelf(arguments: argparse.Namespace) -> tuple[Lanes, Shelf]:
    from forkproof import lanes

    known = lanes.load(arguments.lanes) if arguments.lanes is not None else lanes.load()
    return known, lanes.Shelf(arguments.lanes_dir or lanes.default_folder())


def _lanes(arguments: argparse.Namespace) -> int:
    from forkproof import lanes
    from forkproof.reports import terminal
    from forkproof.reports.handlers import Outcome

    known, shelf = _shelf(arguments)
    chosen = [known.lane(name) for name in arguments.names or known.names]
    width = max(len(lane.name) for lane in chosen)
    told, lines = [], []
    for lane in chosen:
        try:
            match arguments.action:
                case "build":
                    if lane.loose or shelf.python(lane) is None:
                        print(f"building lane {lane.name} in {shelf.folder}", file=sys.stderr)
                    state, why = "built", str(shelf.build(lane, anew=bool(lane.loose)))
                case "remove":
                    state, why = ("removed", "") if shelf.remove(lane) else ("not there", "")
                case _:
                    built = shelf.python(lane)
                    state, why = ("built", str(built)) if built else ("not built", lanes.interpreter(lane.python))
        except LaneError as error:
            state, why = "skipped", str(error)
        lines.append(f"{lane.name:<{width}}  {state}{': ' if why else ''}{why}")
        told.append({"lane": lane.name, "state": state, "told": why, "python": lane.python, "pins": list(lane.pins)})
    skipped = sum(one["state"] == "skipped" for one in told)
    shown = terminal.Verbatim(lines)
    plain = {"schema": 1, "lanes": told}
    _stream("lanes", arguments).done(Outcome("lanes", f"{skipped} skipped", shown, shown, plain))
    # Who names a lane wants it; who names none takes what can be had.
    return 3 if arguments.action == "build" and skipped > (0 if arguments.names else len(told) - 1) else 0


def _inspect(arguments: argparse.Namespace) -> int:
    from forkproof.inspection import inspect
    from forkproof.reports import inspection
    from forkproof.reports.handlers import Outcome

    found = inspect(arguments.pid, seconds=arguments.seconds, redis=arguments.redis)
    shown = inspection.inspection(found)
    _stream("inspect", arguments).done(Outcome("inspect", str(found.exit_code), shown, shown, found.to_dict()))
    return found.exit_code


def _to_stdout(path: Path | None) -> bool:
    return path is not None and str(path) == "-"


def _write_text(path: Path, text: str) -> None:
    from forkproof.reports.handlers import put

    put(path, text)
