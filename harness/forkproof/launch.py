"""From a scenario to a run folder: writes what the run needs, starts a supervisor, waits for it.

The folder holds `scenario.json` (written first), `launch.json`, `history/`, `ticks/`, `stacks/`, `server.log`, and at
last `verdict.json`. `work/`, `home/` and `tmp/` are the server's own, so that nothing of a run lies elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from forkproof import bodies, containment, history, servers
from forkproof.broker import LONGEST_SOCKET, Broker
from forkproof.control import Control
from forkproof.errors import CouldNotDecide, RunFolderError, UsageError
from forkproof.faults import REGISTRY
from forkproof.nest import Nests, Plan, neutral
from forkproof.nursery import Nursery
from forkproof.scenario import LogStream, LoopKind, PatchSite, Scenario
from forkproof.servers import GUNICORN, Start
from forkproof.supervisor import NO_ROOM
from forkproof.target import Target

PAYLOAD = Path(__file__).parent / "payload"

STACK_SIGNAL = signal.SIGRTMAX - 3
BOUNDS = {
    "boot": 3.0,
    "answer": 1.0,
    "reconnect": 4.0,
    "orphans": 2.0,
    "stop_slack": 1.5,
    "window": 60.0,
    "park": 2.0,
    "broker": 20.0,
}
"""Seconds of an idle machine, spent in the control's time: a cold boot takes 0.4 s there, an answer a few ms;
redis-py waits up to 1 s before it connects again, then 2 s.
`window`, `park` and `broker` alone are wall time: how long to wait for a control that is not run at all, how long the
arbiter waits before a fork for what is to be parked, and how long what is done to Redis may take."""

ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
"""What a server gets of our environment; everything else is left out."""

# The server's control socket lies below the run folder.
_SOCKET = "home/.gunicorn/gunicorn.ctl"
_LONGEST = LONGEST_SOCKET - len(_SOCKET) - 1
_NAME = 19  # a digest, a hyphen and six more digits


@dataclass(frozen=True)
class Shared:
    """What the runs of one command share: target, broker, control process, nursery, where folders go."""

    target: Target
    broker: Broker
    control: Control
    out: Path
    nursery: Nursery
    asked: Mapping[str, str] = field(default_factory=dict)
    """The target and broker as they were asked for, so that a replay can ask for the same."""
    nests: Nests | None = None
    """What servers are forked from; None where every one is to start cold."""


def new_folder(out: Path, scenario: Scenario) -> Path:
    """Make the folder of a new run and write its scenario; RunFolderError carries the scenario where it cannot."""
    folder = out.absolute() / f"{scenario.digest}-{secrets.token_hex(3)}"
    require_short(folder)
    try:
        folder.mkdir(parents=True, mode=0o700)
        (folder / "scenario.json").write_text(scenario.to_json(), encoding="utf-8")
        for name in ("history", "ticks", "stacks", "work", "home", "tmp"):
            (folder / name).mkdir(mode=0o700)
    except OSError as error:
        raise RunFolderError(_lost(folder, error, scenario)) from None
    return folder


def require_short(folder: Path) -> None:
    """UsageError where a folder's path leaves no room for a server's sockets."""
    if len(os.fsencode(folder)) > _LONGEST:
        raise UsageError(
            f"{folder}: is longer than {_LONGEST} bytes, which leaves no room for the server's sockets: "
            "give a shorter --out"
        )


def campaign_folder(out: Path) -> Path:
    """A folder for what one command's runs share; RunFolderError where it cannot be made, or no run's could be."""
    folder = out.absolute() / f"campaign-{secrets.token_hex(3)}"
    require_short(folder.with_name("0" * _NAME))
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be made: {error.strerror}. Give another --out.") from None
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours with everything in it."""
    shutil.rmtree(folder, ignore_errors=True)


def require(scenario: Scenario, target: Target, broker: Broker) -> None:
    """Raise where target or broker cannot run a scenario, as `launch` does."""
    target.require(scenario)
    broker.require_own(_done_to_redis(scenario))
    broker.client(scenario.surroundings.broker)


def _done_to_redis(scenario: Scenario) -> list[str]:
    return [fault.fault for fault in scenario.faults if REGISTRY[fault.fault].needs_broker]


def launch(scenario: Scenario, around: Shared, stop: threading.Event | None = None) -> Path:
    """Run a scenario once and return its folder, with the history in it.

    Raises MissingPackage or TargetError where the target cannot run it, UsageError where the broker cannot be reached
    as it says, RunFolderError where the folder cannot be written, CouldNotDecide where the supervisor itself failed.
    When `stop` is set, the run is ended at once.
    """
    require(scenario, around.target, around.broker)
    folder = new_folder(around.out, scenario)
    try:
        with contextlib.ExitStack() as stack:
            if _done_to_redis(scenario):
                # Others use the one that is shared.
                own = stack.enter_context(around.broker.another(folder / "broker"))
                around = replace(around, broker=own)
            prepare(scenario, around, folder)
            nest = nest_for(scenario, around)
            with nest or contextlib.nullcontext():
                supervise(folder, around.nursery, stop, nest)
    except OSError as error:
        if error.errno in (*NO_ROOM, errno.EACCES):
            raise RunFolderError(_lost(folder, error, scenario)) from None
        raise
    return folder


def prepare(scenario: Scenario, around: Shared, folder: Path) -> dict[str, Any]:
    """Write what the server and its supervisor read in the folder of a run; what is in `launch.json`."""
    named, by = {loop.body.value for loop in scenario.loops}, scenario.server.started_by
    plan: dict[str, Any] = {
        "token": secrets.token_hex(8),
        "target": around.target.to_dict(),
        "command": command(scenario, around.target.executable, folder),
        "foreign": foreign(scenario),
        "children": [["-c", _CHILD, str(folder / name)] for name in foreign(scenario)],
        "environment": environment(folder, scenario),
        "redis": {"host": around.broker.host, "port": around.broker.port, "db": around.broker.db},
        "client": around.broker.client(scenario.surroundings.broker),
        "broker_control": around.broker.control,
        "broker_pid": around.broker.pid,
        "broker": around.broker.description,
        "asked": around.asked,
        "control": str(around.control.path.absolute()),
        "stack_signal": int(STACK_SIGNAL),
        "bounds": bounds(scenario),
        "decisive_turns": history.decisive_turns(scenario),
        "message_gap": history.message_gap(scenario),
        "uses_redis": any(loop.needs_redis for loop in scenario.loops),
        "bodies": {name: body.to_dict() for name, body in bodies.REGISTRY.items() if name in named},
        "server_plugin": servers.REGISTRY[by].plugin if by != GUNICORN else None,
    }
    for name in plan["foreign"]:
        os.mkfifo(folder / name, 0o600)
    (folder / "launch.json").write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
    return plan


def nest_for(scenario: Scenario, around: Shared) -> socket.socket | None:
    """Where the server of a scenario may be asked for; None where it is to start cold."""
    if around.nests is None or not around.target.has_fork_hooks or scenario.server.started_by != GUNICORN:
        return None
    return around.nests.line(Plan(tuple(_server(scenario, around.target.executable)), neutral(scenario)))


def bounds(scenario: Scenario) -> dict[str, float]:
    """`BOUNDS`; a boot may wait for parks at each fork, and its dozen records may be slow."""
    boot = BOUNDS["boot"] + (BOUNDS["park"] * scenario.server.workers if scenario.parks else 0)
    boot += 1.5 if scenario.surroundings.log is LogStream.SLOW else 0
    return {**BOUNDS, "boot": boot}


def foreign(scenario: Scenario) -> list[str]:
    """Names in the run folder of the pipes that children wait on which the arbiter has from before it was gunicorn."""
    ended = sum(fault.fault == "foreign_child_exit" for fault in scenario.faults)
    return [f"foreign-{n}" for n in range(max(ended, scenario.surroundings.foreign_children))]


# What an entry point's script does: children in the background, and then gunicorn in its own place.
_CHILD = 'read code < "$0"; exit "$code"'
_ENTRY = f"""while [ "$1" != -- ]; do sh -c '{_CHILD}' "$1" & shift; done; shift; unset PWD; exec "$@\""""


def command(scenario: Scenario, python: str, folder: Path) -> list[str]:
    """The server's command line. `patch_all` at interpreter start is gevent's own `python -m gevent.monkey`."""
    pipes = [str(folder / name) for name in foreign(scenario)]
    return [*(["/bin/sh", "-c", _ENTRY, "sh", *pipes, "--"] if pipes else []), *_server(scenario, python)]


def _server(scenario: Scenario, python: str) -> list[str]:
    words = [python]
    for patch in scenario.patches:
        if patch.site is PatchSite.INTERPRETER_START:
            words += ["-m", "gevent.monkey"]
            # Named on its own, `--thread` would mean "thread alone", so only what differs from the default is said.
            words += [f"--no-{flag}" for flag, on in patch.flags.items() if not on]
    plain = (*words, str(PAYLOAD / "serve.py"), "-c", _CONFIG, _APP)
    return servers.command(scenario.server.started_by, Start(tuple(words), _CONFIG, _APP, plain))


_APP = "forkproof_payload.app:app"
_CONFIG = str(PAYLOAD / "forkproof_payload" / "conf.py")


def environment(folder: Path, scenario: Scenario | None = None) -> dict[str, str]:
    """The server's whole environment; a nest's where there is no scenario."""
    passed = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    # A fork server's socket lies deep below the folder for temporary files: by its short name the kernel takes it.
    loops = () if scenario is None else scenario.loops
    fork_server = any(loop.kind is LoopKind.PROCESS_FORKSERVER for loop in loops)
    return {
        **passed,
        "FORKPROOF_RUN": str(folder),
        "HOME": str(folder / "home"),
        "TMPDIR": "/proc/self/cwd" if fork_server else str(folder / "tmp"),
        "PYTHONPATH": str(PAYLOAD),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def supervise(
    folder: Path, nursery: Nursery, stop: threading.Event | None = None, nest: socket.socket | None = None
) -> None:
    """Run the supervisor, which ends when we do."""
    with (folder / "supervisor.log").open("wb") as log:
        code = nursery.run(folder, log.fileno(), stop, nest)
    if code in NO_ROOM:
        raise OSError(code, os.strerror(code))
    if code != 0 and not (stop is not None and stop.is_set()):
        said = (folder / "supervisor.log").read_text(errors="replace").strip() or nursery.said()
        raise CouldNotDecide(f"{folder}: the supervisor ended with {code}: {said or 'it said nothing'}", folder)
    _tidy(folder)


def _tidy(folder: Path) -> None:
    """Drop what tells nothing after a run."""
    log = folder / "supervisor.log"
    if log.stat().st_size == 0:
        log.unlink()
    for name in ("work", "home", "tmp"):
        with contextlib.suppress(OSError):
            (folder / name).rmdir()
    for pipe in folder.glob("foreign-*"):
        pipe.unlink()
    for told in folder.glob("broker/*.log"):
        if told.stat().st_size == 0:
            shutil.rmtree(told.parent)


def _lost(folder: Path, error: OSError, scenario: Scenario) -> str:
    return (
        f"{folder}: the run folder cannot be written: {error.strerror}. Make room, or give another --out. "
        f"The scenario was:\n{scenario.to_json()}"
    )


def namespace() -> tuple[str, ...]:
    """How a run gets a pid namespace here; empty where the machine allows none."""
    return containment.namespace_prefix()


def may_fork_from_nests() -> bool:
    """Whether a nest may fork into a run's namespaces here: in those of a user who is not root it would have rights."""
    prefix = namespace()
    return bool(prefix) and "--user" not in prefix
