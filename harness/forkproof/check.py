"""`forkproof check`: starts the user's own app with the user's own configuration, unchanged, and judges what it did.

Nothing is written but below the folder of the run: gunicorn's pid file and control socket go there too, no bytecode is
written, and the address is one of ours unless `keep_bind`.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import ipaddress
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.version import Version
from pydantic import BaseModel, ConfigDict, ValidationError

from forkproof import broker, files, launch, subscribers, subscriptions, tables, target, tracebacks
from forkproof.control import Control
from forkproof.cures import cure
from forkproof.errors import CouldNotDecide, MissingPackage, RunFolderError, UsageError
from forkproof.history import History
from forkproof.judge import SCHEMA, Judgement, Stands, launched, server_log, since, stands, write_verdict
from forkproof.nursery import Nursery
from forkproof.observed import LONGEST_STOP, Loop, Observed, State
from forkproof.scenario import Policy
from forkproof.session import LocalSession
from forkproof.storage import Pruner
from forkproof.target import Target
from forkproof.verdict import Finding, Verdict, merge
from forkproof.watcher import OUTPUT, PLAN

LOOK_SIGNAL = launch.STACK_SIGNAL - 1
FAULTS = ("kill_worker", "hup", "term")
QUICK = ("term",)
_TURNS, _LOOKS = 60, 5
"""Of the control process, 20 ms each, and looks in a window."""
_IMPORT_SECONDS = 60.0
_CONFIG = "gunicorn.conf.py"


@dataclass(frozen=True)
class Deployment:
    """What is to be checked, and how: the words after `forkproof check`."""

    app: str | None
    config: str | None = None
    folder: Path = Path()
    options: tuple[str, ...] = ()
    """More words for gunicorn's command line."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is added to our own environment."""
    keep_bind: bool = False
    health: str = "/"
    requests: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    faults: tuple[str, ...] = FAULTS
    boot_seconds: float = 60.0
    policies: Mapping[str, Policy] = field(default_factory=dict)
    offline: bool = False
    """Whether connections that leave loopback are refused."""

    @property
    def config_file(self) -> Path | None:
        """The configuration file that gunicorn will read."""
        path = self.folder / (self.config or _CONFIG).removeprefix("file:")
        return path if path.is_file() else None


def policies(given: Mapping[str, str], folder: Path) -> dict[str, Policy]:
    """The policies of the command line, then those of `[tool.forkproof.policies]` in the app's `pyproject.toml`."""
    path = folder / "pyproject.toml"
    known = {policy.value: policy for policy in Policy}
    for name, value in given.items():
        if value not in known:
            raise UsageError(f"{name}={value}: there is no such policy; there are: {', '.join(known)}")
    found = {name: known[value] for name, value in given.items()}
    if path.is_file():
        try:
            content = files.read(path)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error}") from None
        table = tables.parse(_Project, content, source=str(path), then="Correct it there.").tool.forkproof
        found |= {name: policy for name, policy in table.policies.items() if name not in found}
    return found


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")

    policies: dict[str, Policy] = {}


class _Tool(BaseModel):
    forkproof: _Table = _Table()


class _Project(BaseModel):
    """Of a `pyproject.toml`, what is ours; the rest is other tools'."""

    tool: _Tool = _Tool()


@dataclass(frozen=True)
class CheckReport:
    """One run of the user's app, judged."""

    folder: Path
    versions: Mapping[str, str | None]
    observed: Observed
    judgements: Sequence[Judgement]
    cures: Mapping[tuple[str, str | None], str]
    stands: Sequence[Stands] = ()
    accepted: frozenset[str] = frozenset()
    """The ids of failures that are no news: `--baseline`."""
    runs: int = 1
    also: frozenset[str] = frozenset()
    """The ids of failures of other runs, of which `judgements` have but one for each claim and loop."""
    again: str = ""
    """The command line that runs it again."""

    @property
    def verdict(self) -> Verdict:
        """The worst of all claims, what is accepted left out."""
        return merge(
            judgement.finding.verdict for judgement in self.judgements if not self.is_accepted(judgement.finding)
        )

    def is_accepted(self, finding: Finding) -> bool:
        """Whether it is a failure that the baseline has."""
        return finding.verdict is Verdict.BROKEN and identity(finding) in self.accepted

    @property
    def no_longer(self) -> list[str]:
        """What the baseline has, and was not seen."""
        return sorted(self.accepted - self.ids)

    @property
    def ids(self) -> frozenset[str]:
        """What names each failure that was seen."""
        return self.also | {identity(judgement.finding) for judgement in self.broken}

    @property
    def left_loopback(self) -> list[str]:
        """The addresses beyond this machine that the app was connected to."""
        peers = {event["peer"] for event in self.observed.history.of("socket") if event["family"] != "unix"}
        return sorted(peer for peer in peers if peer and not is_local(peer.rpartition(":")[0].strip("[]")))

    @property
    def server(self) -> dict[str, Any] | None:
        """What gunicorn was set to; None where it never forked a worker."""
        told = self.observed.server
        return {name: value for name, value in told.fields.items() if name != "n"} if told is not None else None

    @property
    def exit_code(self) -> int:
        """0 held, 1 broken, 3 undecided or nothing applicable."""
        return {Verdict.HELD: 0, Verdict.BROKEN: 1}.get(self.verdict, 3)

    @property
    def broken(self) -> list[Judgement]:
        """What is wrong."""
        return [judgement for judgement in self.judgements if judgement.finding.verdict is Verdict.BROKEN]

    def to_dict(self) -> dict[str, Any]:
        """The JSON report, schema 1."""
        verdict = self.verdict
        claims = []
        for judgement in self.judgements:
            cured = self.cures.get(judgement.key)
            held = judgement.finding.verdict is Verdict.HELD
            plain = {
                "id": identity(judgement.finding), "cure": cured, "accepted": self.is_accepted(judgement.finding),
                "still_possible": round(still_possible(judgement.rate[1]), 4) if held else None,
            }  # fmt: skip
            claims.append({**judgement.to_dict(), **plain})
        return {
            "schema": SCHEMA,
            "verdict": "unknown" if verdict is Verdict.NOT_APPLICABLE else verdict.value,
            "target": dict(self.versions),
            "server": self.server,
            "claims": claims,
            "loops": [self._loop(loop) for loop in self.observed.loops],
            "stacks": [asdict(one) for one in self.stands],
            "runs": self.runs,
            "no_longer": self.no_longer,
            "left_loopback": self.left_loopback,
            "redis": [one.to_dict() for one in subscribers.told(self.observed.history)],
            "refused": sorted({event["address"] for event in self.observed.history.of("refused")}),
            "run": str(self.folder),
        }

    def _loop(self, loop: Loop) -> dict[str, Any]:
        windows = self.observed.history.windows
        return {
            "name": loop.name,
            "defined_at": loop.defined_at,
            "kind": loop.kind,
            "policy": loop.policy.value if loop.policy else None,
            "started": loop.started,
            "processes": [
                _row(state, window.after)
                for index, window in enumerate(windows)
                for state in self.observed.states(loop, index)
            ],
        }


def _row(state: State, after: str) -> dict[str, Any]:
    place = state.process.place
    return {
        "after": after, "role": place.role, "slot": place.slot, "pid": state.process.pid, "alive": state.units > 0,
        "units": state.units, "ticks": state.moves, "copied": state.copied > 0, "starved": bool(state.starved),
        "believed_alive": bool(state.lies), "stuck": bool(state.piled),
    }  # fmt: skip


def combine(reports: Sequence[CheckReport]) -> CheckReport:
    """Several runs of one app: the worst verdict of each claim, with its rate. Loops are those of the first bad run."""
    found: dict[tuple[str, str | None], list[Judgement]] = {}
    cures: dict[tuple[str, str | None], str] = {}
    for report in reports:
        cures |= {key: text for key, text in report.cures.items() if key not in cures}
        for judgement in report.judgements:
            found.setdefault(judgement.key, []).append(judgement)
    first = next((report for report in reports if report.verdict is Verdict.BROKEN), reports[0])
    worst = [_worst(judgements, first.accepted) for judgements in found.values()]
    also = frozenset[str]().union(*(report.ids for report in reports))
    return replace(first, judgements=worst, cures=cures, runs=sum(report.runs for report in reports), also=also)


def _worst(judgements: Sequence[Judgement], accepted: Collection[str]) -> Judgement:
    verdict = merge(judgement.finding.verdict for judgement in judgements)
    bad = [judgement for judgement in judgements if judgement.finding.verdict is verdict]
    chosen = next((judgement for judgement in bad if identity(judgement.finding) not in accepted), bad[0])
    told = [one.finding.verdict for one in judgements if one.finding.verdict in (Verdict.HELD, Verdict.BROKEN)]
    return replace(chosen, rate=(told.count(Verdict.BROKEN), len(told)))


def still_possible(runs: int) -> float:
    """The rate of failures that so many runs without one still allow, at 95 %.

    >>> round(still_possible(20), 2)
    0.14
    """
    return float(1 - 0.05 ** (1 / runs)) if runs else 1.0


def is_local(host: str) -> bool:
    """Whether an address or a name is this machine's own loopback."""
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


_TOOLS = ("PIP_", "UV_", "CONDA_", "npm_", "FORKPROOF_")


def contacts(environment: Mapping[str, str]) -> dict[str, str]:
    """What the environment names for an app to contact, as far as that can be known: {variable: host:port}."""
    found = {}
    for name, value in environment.items():
        if "://" in value and not name.startswith(_TOOLS) and not name.lower().endswith("_proxy"):
            with contextlib.suppress(ValueError):
                parts = urlsplit(value)
                if parts.hostname:
                    found[name] = parts.hostname + (f":{parts.port}" if parts.port else "")
    return found


def _asked(environment: Mapping[str, str]) -> list[tuple[str, int]]:
    """Whom to ask who is subscribed: each Redis of this machine that an environment names, and no password for it."""
    found = filter(None, map(subscriptions.parse, environment.values()))
    return sorted({("127.0.0.1" if host == "localhost" else host, port) for host, port in found if is_local(host)})


def identity(finding: Finding) -> str:
    """What names a failure from one run to the next: no pid, no time, no line number."""
    loop = (finding.loop or "").partition("@")[0]
    return ":".join(word for word in (finding.claim, loop, finding.how) if word)


@dataclass(frozen=True)
class Checker:
    """Checks apps on one target; what the runs of one command share."""

    target: Target
    out: Path
    control: Control
    nursery: Nursery
    pruner: Pruner
    redis: str | None = None
    """The URL of the Redis that apps get as REDIS_URL, where it is not the user's own."""
    redis_name: str | None = None
    """The word that asked for it."""

    def around(self, what: Deployment) -> Deployment:
        """The same with what this checker puts into its environment."""
        if self.redis is None:
            return what
        return replace(what, environment={"REDIS_URL": self.redis, **what.environment})

    def check(self, what: Deployment) -> CheckReport:
        """Run it once and judge it.

        UsageError where the app's own error keeps it from booting, CouldNotDecide where the machine does.
        """
        if not what.folder.is_dir():
            raise UsageError(
                f"--chdir {what.folder}: there is no such folder. Give the one that the app is started in."
            )
        asked = self._asked(what)
        what = self.around(what)
        self.pruner.ran()
        folder = self._folder(what)
        try:
            self._prepare(what, folder, asked)
            launch.supervise(folder, self.nursery)
        except OSError as error:
            raise RunFolderError(f"{folder}: the run folder cannot be written: {error.strerror}. {_ROOM}") from None
        report = judge(folder)
        if not report.observed.history.windows:
            _refuse(what, self.target, report)
        return report

    def _folder(self, what: Deployment) -> Path:
        words = [str(what.app), str(what.config), str(what.folder.absolute()), *what.options]
        digest = hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
        folder = self.out.absolute() / f"{digest}-{secrets.token_hex(3)}"
        launch.require_short(folder)
        try:
            folder.mkdir(parents=True, mode=0o700)
            for name in ("history", "ticks", "stacks", "work", "home", "tmp", OUTPUT):
                (folder / name).mkdir(mode=0o700)
        except OSError as error:
            raise RunFolderError(f"{folder}: cannot be made: {error.strerror}. {_ROOM}") from None
        return folder

    def _asked(self, what: Deployment) -> dict[str, list[str]]:
        """What its command line has beside the words of the plan.

        Of the environment the names alone: a value may be a secret, and reports are shown around.
        """
        words = ["--target", self.target.executable]
        words += ["--redis", self.redis_name] if self.redis_name is not None else []
        words += ["--keep-bind"] if what.keep_bind else []
        words += ["--offline"] if what.offline else []
        words += ["--boot", f"{what.boot_seconds:g}"] if what.boot_seconds != Deployment.boot_seconds else []
        return {"given": words, "set": [name for name in what.environment if name.isidentifier()]}

    def _prepare(self, what: Deployment, folder: Path, asked: Mapping[str, Any]) -> None:
        environment = environ(what)
        plan = {
            **asked,
            "app": what.app, "config": what.config, "cwd": str(what.folder.absolute()), "options": what.options,
            "environment": environment, "health": what.health, "requests": what.requests, "events": what.events,
            "faults": what.faults, "turns": _TURNS, "looks": _LOOKS, "look_signal": int(LOOK_SIGNAL),
            "longest_stop": LONGEST_STOP, "back": max(launch.BOUNDS["boot"], min(what.boot_seconds, 20.0)),
            "policies": {name: policy.value for name, policy in what.policies.items()},
            "where": settings(what), "redis": _asked(environment),
        }  # fmt: skip
        server = {
            "workers": 1, "timeout": 30, "graceful_timeout": 30, "max_requests": 0, "worker_class": "sync",
            "preload": False,
        }  # fmt: skip
        _write(folder / "scenario.json", {"check": what.app, "server": server, "loops": [], "faults": []})
        _write(folder / PLAN, plan)
        _write(
            folder / "launch.json",
            {
                "target": self.target.to_dict(),
                "command": command(what, self.target, folder),
                "foreign": [],
                "environment": environment,
                "control": str(self.control.path.absolute()),
                "stack_signal": int(launch.STACK_SIGNAL),
                "bounds": {**launch.BOUNDS, "boot": what.boot_seconds, "answer": 5.0},
            },
        )


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


_ROOM = "Make room, or give another --out."


def environ(what: Deployment) -> dict[str, str]:
    """The app's environment: ours, with what was asked for. No bytecode is to be left in the app's folder."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("FORKPROOF_")}
    return {**ours, **what.environment, "PYTHONDONTWRITEBYTECODE": "1"}


def command(what: Deployment, found: Target, folder: Path) -> list[str]:
    """The server's command line: the user's, with the address and the files of ours."""
    script = Path(found.executable).with_name("gunicorn")
    words = [found.executable, str(launch.PAYLOAD / "begin.py"), str(folder)]
    words += [str(int(LOOK_SIGNAL)), str(int(launch.STACK_SIGNAL)), "offline" if what.offline else "online"]
    words.append(str(script) if _is_python(script) else "-m")
    return [*words, *_for_gunicorn(what, found, folder)]


def _for_gunicorn(what: Deployment, found: Target, folder: Path) -> list[str]:
    """The words of its own command line."""
    words = ["-c", what.config] if what.config is not None else []
    words += what.options
    words += [] if what.keep_bind else ["-b", "127.0.0.1:0"]
    if Version(found.versions["gunicorn"]) >= Version("25.1"):
        words += ["--control-socket", str(folder / "home" / "ctl")]
    words += ["-p", str(folder / "home" / "pid")]
    return [*words, what.app] if what.app is not None else words


def _is_python(script: Path) -> bool:
    with contextlib.suppress(OSError):
        return b"import" in files.beginning(script, 1000)
    return False


def settings(what: Deployment) -> dict[str, str]:
    """Where in the user's files the settings that matter stand, as `file:line`."""
    found: dict[str, str] = {}
    module = (what.app or "").partition(":")[0].replace(".", "/")
    paths = [what.config_file, what.folder / f"{module}.py", what.folder / module / "__init__.py"]
    for path in paths:
        if path is None or not path.is_file():
            continue
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            for node in ast.walk(ast.parse(files.read(path))):
                name = _names(node)
                if name is not None:
                    found.setdefault(name, f"{tracebacks.short(path, what.folder)}:{getattr(node, 'lineno', 0)}")
    return found


def _names(node: ast.AST) -> str | None:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        return name if name in ("preload_app", "worker_class", "workers", "graceful_timeout") else None
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return name if name == "patch_all" else None
    return None


RATES = {Verdict.BROKEN: (1, 1), Verdict.HELD: (0, 1)}
"""Of one run: what is undecided tells nothing."""


class Plan(BaseModel):
    """What is read of a check's `check.json`: the words that it was asked with, and where settings stand."""

    app: str | None
    config: str | None
    cwd: str
    options: list[str]
    health: str
    requests: list[str]
    events: list[str]
    faults: list[str]
    policies: dict[str, Policy]
    where: dict[str, str]
    given: list[str] = []
    set: list[str] = []
    """What was set in the app's environment."""

    @property
    def command(self) -> str:
        """The command line that does it again; values that were set come from the shell's own variables."""
        words = ["forkproof", "check", *filter(None, [self.app]), "--chdir", self.cwd, *self.given]
        words += ["-c", self.config] if self.config is not None else []
        words += ["--health", self.health] if self.health != "/" else []
        words += ["--faults", ",".join(self.faults)] if tuple(self.faults) != FAULTS else []
        for option, given in (("--request", self.requests), ("--event", self.events)):
            words += [word for one in given for word in (option, one)]
        words += [word for name, one in self.policies.items() for word in ("--policy", f"{name}={one.value}")]
        told = [shlex.join(words), *(f'--env {name}="${name}"' for name in self.set)]
        return " ".join([*told, *(["--", shlex.join(self.options)] if self.options else [])])


def planned(folder: Path) -> Plan | None:
    """What a check was asked; None where the run in a folder is none. UsageError where it cannot be read."""
    path = folder / PLAN
    if not path.exists():
        return None
    try:
        return Plan.model_validate_json(files.read(path))
    except ValidationError as error:
        why = tables.first_problem(error)
    except OSError as error:
        why = str(error.strerror)
    raise UsageError(f"{path}: {why}. Give the folder that a report of forkproof check names as `run`.")


def judge(folder: Path) -> CheckReport:
    """Judge the run in a folder, and write its `verdict.json`; launches nothing. UsageError where it is no check's."""
    report = assess(folder)
    write_verdict(folder, report.to_dict())
    return report


def assess(folder: Path) -> CheckReport:
    """As `judge`, and leave the folder as it is."""
    plan = planned(folder)
    if plan is None:
        raise UsageError(f"{folder}: is not the folder of a check. Give the one that its report names as `run`.")
    history = History.read(folder / "history")
    observed = Observed(history, plan.policies, plan.where)
    judgements = [
        Judgement(
            finding, None, "", rate=RATES.get(finding.verdict, (0, 0)),
            since=since(history, finding) if finding.verdict is Verdict.BROKEN else "",
        )
        for finding in observed.findings()
    ]  # fmt: skip
    cures = {
        judgement.key: cure(judgement.finding, observed, Path(plan.cwd))
        for judgement in judgements
        if judgement.finding.verdict is Verdict.BROKEN
    }
    return CheckReport(
        folder, launched(folder).target, observed, judgements, cures, stands(folder, history), again=plan.command
    )


# --- an app that does not boot


_BUSY = re.compile(r"Connection in use: \(?(.*?)\)?$|\[Errno 98\]|Address already in use")


def _refuse(what: Deployment, found: Target, report: CheckReport) -> None:
    """Say why an app did not boot where that is the app's own doing; a deployment that breaks it is a verdict."""
    said = server_log(report.folder, 60)
    told = _last_error(said, what)
    history = report.observed.history
    settled = _settings(what, found, report.folder)
    if settled.error and not history.of("server"):
        own = _last_error(settled.error, what) or settled.error.strip().splitlines()[-1]
        own = "".join(f"{line}: " for line in settled.error.splitlines() if line.startswith("Invalid value")) + own
        kind = MissingPackage if "No module named" in own and "class uri" in settled.error else UsageError
        raise kind(f"gunicorn did not start: {own.rstrip('.')}{_next(settled.error)}")
    if any(event["address"][-1] == 0 for event in history.of("server")):
        raise UsageError(
            f"{settled.app}: with reuse_port each worker listens at a port of its own. Give --keep-bind, with a port "
            "in the configuration, or set reuse_port to False."
        )
    if settled.workers == 0:
        raise UsageError(
            f"{settled.app}: is configured to have no workers, and nobody to answer. Set workers to 1 or more."
        )
    if told or not [event for event in history.of("bound") if event["what"] == "boot"]:
        alone = _alone(what, found, settled)
        if alone:
            own = _last_error(alone, what) or alone.strip().splitlines()[-1]
            raise UsageError(
                f"{settled.app or what.app}: cannot be imported, by gunicorn or without it: {own.rstrip('.')}"
                f"{_next(alone)}"
            )
        busy = [line for line in said.splitlines() if _BUSY.search(line)]
        if busy:
            raise UsageError(
                f"{what.app}: an address that it needs is in use: {busy[-1]}. Stop what has it, or set another."
            )
        if not history.of("server") and not any(map(tracebacks.AT.match, said.splitlines())):
            last = said.strip().splitlines()[-1:] or ["it said nothing"]
            raise UsageError(f"gunicorn did not start: {told or last[0]}. See {report.folder}/server.log.")


@dataclass(frozen=True)
class _Settings:
    """What gunicorn is told of where the app is; `error` where it cannot be told."""

    app: str | None
    folder: Path
    paths: str
    workers: int = 1
    error: str = ""


_ASKED = """
import json, os, sys
from gunicorn.app.wsgiapp import WSGIApplication
sys.argv[0] = "gunicorn"
told = WSGIApplication()
told.cfg.worker_class
print("\\n" + json.dumps([told.app_uri, told.cfg.chdir, told.cfg.pythonpath or "", told.cfg.workers]), flush=True)
os._exit(0)
"""


def _settings(what: Deployment, found: Target, folder: Path) -> _Settings:
    """What the configuration comes to, without the app."""
    done = _told_by(what, found, what.folder, _ASKED, *_for_gunicorn(what, found, folder))
    if isinstance(done, str):
        return _Settings(what.app, what.folder, "", error=done)
    try:
        app, place, paths, workers = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, LookupError):
        return _Settings(what.app, what.folder, "")
    return _Settings(app, Path(place), paths, workers)


_IMPORTED = """
import os, sys
sys.path[:0] = ["", *filter(None, sys.argv[2].split(","))]
from gunicorn.util import import_app
import_app(sys.argv[1])
sys.stdout.flush()
os._exit(0)
"""


def _alone(what: Deployment, found: Target, settled: _Settings) -> str:
    """What importing the app says without gunicorn, threads or patches of the deployment; empty where it works."""
    if settled.app is None:
        return ""
    done = _told_by(what, found, settled.folder, _IMPORTED, settled.app, settled.paths)
    return done if isinstance(done, str) else ""


def _told_by(
    what: Deployment, found: Target, folder: Path, code: str, *words: str
) -> subprocess.CompletedProcess[str] | str:
    """A program that has ended well in the app's environment, or what it says where it has not.

    What it has started may go on without it, with its output: that is not waited for, and is ended.
    """
    command = [found.executable, "-c", code, *words]
    with tempfile.TemporaryFile("w+", errors="replace") as out, tempfile.TemporaryFile("w+", errors="replace") as err:
        process = subprocess.Popen(
            command, cwd=folder, env=environ(what), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(_IMPORT_SECONDS)
        except subprocess.TimeoutExpired:
            return f"it takes longer than {_IMPORT_SECONDS:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        err.seek(0)
        done = subprocess.CompletedProcess(command, process.returncode, out.read(), err.read())
    return (done.stderr.strip() or _ended(done.returncode)) if done.returncode else done


def _ended(code: int) -> str:
    return f"it exits with {code}" if code > 0 else f"it ends by {signal.Signals(-code).name}"


def _last_error(text: str, what: Deployment) -> str:
    """The last exception in a text, with the line of the app, or of the configuration, that raised it."""
    return tracebacks.last_error(text.splitlines(), lambda path: _is_own(path, what), what.folder)


def _is_own(path: Path, what: Deployment) -> bool:
    return (what.config_file is not None and path == what.config_file.absolute()) or tracebacks.is_in(path, what.folder)


def _next(said: str) -> str:
    missing = re.search(r"No module named '([^']+)'", said)
    if missing:
        return f". Install it in the target, or run where {missing[1]!r} can be imported."
    if "os.environ" in said or "environ[" in said:
        name = re.search(r"KeyError: '([^']+)'", said)
        return f". Give it with --env {name[1]}=VALUE." if name else ""
    if "class uri" in said or "'gunicorn.workers'" in said:
        return ". Set worker_class to one that this gunicorn has."
    if "Failed to find attribute" in said or "Failed to find application object" in said:
        return ". Give MODULE:NAME with the name that the WSGI app has in its module, or MODULE:FACTORY()."
    return ""


@contextlib.contextmanager
def open_checker(target_name: str | None, out: Path, redis: str | None = None) -> Iterator[Checker]:
    """A checker with its control process running, and its Redis where one is asked for; they end with it."""
    folder = launch.campaign_folder(out)
    try:
        with contextlib.ExitStack() as stack:
            # These start by themselves while one asks the target.
            control = stack.enter_context(Control(folder))
            nursery = stack.enter_context(Nursery(folder, launch.namespace()))
            found = _required(target.find(target_name or active()))
            url = stack.enter_context(broker.start(broker.parse(redis), folder)).url if redis else None
            yield Checker(found, out, control, nursery, Pruner(out), url, redis)
    finally:
        launch.remove_folder(folder)


def _required(found: Target) -> Target:
    if "gunicorn" not in found.versions:
        raise MissingPackage(
            f"{found.executable}: has no gunicorn, which the app is to run under. Activate the app's environment, or "
            "give it with --target."
        )
    if not found.has_fork_hooks:
        raise CouldNotDecide(f"{found.executable}: is Python {found.python}; check needs 3.7 or later in the target.")
    return found


def of_session(session: LocalSession) -> Checker:
    """A checker that shares target, control process and run folders with a session's scenarios."""
    around = session.around
    return Checker(_required(around.target), around.out, around.control, around.nursery, Pruner(around.out))


def active() -> str:
    """The Python of the active environment; forkproof's own where none is."""
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        python = Path(os.environ.get(name, "/nowhere")) / "bin" / "python"
        if python.exists():
            return str(python)
    return sys.executable
