"""The Redis that scenarios talk to: embedded, a redis-server of our own, or one that is there already.

What is started here listens on the loopback interface only, in a session of its own, so that Ctrl-C in a terminal
does not reach it, and ends when this process does, be it by kill -9 (see forkproof._broker_process).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from forkproof._broker_process import CONTROL, HOST, SOCKET, ask
from forkproof.errors import BrokerError, UsageError

if TYPE_CHECKING:
    from forkproof.scenario import BrokerAddress  # costs pydantic, and pytest's start wants a look at an option only

LONGEST_SOCKET = 107
"""Bytes that the kernel takes as the name of a socket file."""

LOG = "broker.log"
"""What the broker printed, in the folder that it was started with."""

_START_SECONDS = 60.0
_URL_SECONDS = 3.0
_STOP_SECONDS = 3.0
_ALLOWED = 'allowed are "embedded", "redis-server", "redis-server:/path/to/binary" and "redis://host:port[/db]"'


@dataclass(frozen=True)
class BrokerSpec:
    """Which Redis is asked for. `kind` is embedded, redis-server or url; the other fields belong to one kind each."""

    kind: str
    binary: str | None = None
    host: str = HOST
    port: int = 0
    db: int = 0

    def __str__(self) -> str:
        if self.kind == "url":
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"redis://{host}:{self.port}/{self.db}"
        return self.kind if self.binary is None else f"{self.kind}:{self.binary}"


class Broker:
    """A Redis that answers at `host`, `port`, `db`; a context manager that stops it.

    `description` is for reports. `pid` is the server's process and `socket` its socket file, None where it is not ours.
    """

    def __init__(
        self,
        host: str,
        port: int,
        db: int,
        description: str,
        pid: int | None = None,
        keeper: subprocess.Popen[bytes] | None = None,
        socket: Path | None = None,
        spec: BrokerSpec | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.db = db
        self.description = description
        self.pid = pid
        self.socket = socket
        self._keeper = keeper
        self._spec = spec

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address as a client library takes it."""
        return str(BrokerSpec("url", host=self.host, port=self.port, db=self.db))

    def client(self, address: BrokerAddress) -> dict[str, Any]:
        """What `redis.Redis` takes to reach it in that way; UsageError where a Redis of the user's cannot be."""
        if address.value == "ip":
            return {"host": self.host, "port": self.port, "db": self.db}
        if self.socket is None:
            raise UsageError(
                f"surroundings.broker: {address.value!r} is not allowed with --broker {self.url}: only a Redis that "
                "forkproof starts is known to answer there too. Use 'ip', --broker embedded or --broker redis-server."
            )
        if address.value == "host_name":
            return {"host": "localhost", "port": self.port, "db": self.db}
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET:
            raise UsageError(f"{self.socket}: is longer than {LONGEST_SOCKET} bytes: give a shorter --out")
        return {"unix_socket_path": str(self.socket), "db": self.db}

    @property
    def control(self) -> str | None:
        """The socket file on which orders are taken, None for a Redis of the user's."""
        return None if self.socket is None else str(self.socket.with_name(CONTROL))

    def another(self, folder: Path) -> Broker:
        """One of the same kind, started in `folder`."""
        assert self._spec is not None
        return start(self._spec, folder)

    def require_own(self, faults: Collection[str]) -> None:
        """UsageError where there are faults that are done to Redis, and it is the user's."""
        for fault in faults:
            if self._spec is None:
                raise UsageError(
                    f"the fault {fault!r} is not possible with --broker {self.url}, which is not ours to disturb. "
                    "Use --broker embedded or --broker redis-server."
                )

    def stop(self) -> None:
        """End what was started here; a second call, or a Redis of the user's, is left in peace."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            _end(keeper)


def parse(text: str) -> BrokerSpec:
    """Read the value of `--broker`; raises UsageError with what is allowed."""
    if text in ("", "embedded"):
        return BrokerSpec("embedded")
    if text == "redis-server":
        return BrokerSpec("redis-server")
    kind, _, binary = text.partition(":")
    if kind == "redis-server" and binary:
        return BrokerSpec("redis-server", binary=binary)
    if not text.startswith("redis://"):
        raise _wrong(text, "unknown kind of Redis")
    return _parse_url(text)


def start(spec: BrokerSpec, folder: Path) -> Broker:
    """Start the Redis, or find the one that the URL names; returns once it answers.

    What it prints goes to `broker.log` in `folder`, which is made where it is missing. Raises BrokerError, with the
    cause and the next step, when nothing answers in time.
    """
    if spec.kind == "url":
        return _connect(spec)
    folder = folder.absolute()
    if spec.kind == "embedded":
        return _launch(spec, ["embedded"], folder, "Use --broker redis-server or --broker redis://host:port instead.")
    return _launch(
        spec,
        ["redis-server", _find(spec.binary), str(folder), str(_START_SECONDS / 2)],
        folder,
        "Name another with --broker redis-server:/path/to/binary, or use --broker embedded.",
    )


def elsewhere(spec: BrokerSpec) -> Broker:
    """One that other machines start and reach: what it can do is known, and there is nothing here to ask or stop."""
    if spec.kind == "url":
        return Broker(spec.host, spec.port, spec.db, str(spec))
    return Broker("", 0, 0, str(spec), socket=Path("redis.sock"), spec=spec)


def address(url: str) -> tuple[str, int, int]:
    """Host, port and number of the database that a redis:// URL names; ValueError says what is wrong with it."""
    parts = urlsplit(url)
    host, port, db = parts.hostname, parts.port, parts.path.strip("/")
    if not host or port == 0:
        raise ValueError("no host" if not host else "0 is no port")
    if parts.query or parts.fragment:
        raise ValueError("no options can follow the database")
    if db and not (db.isascii() and db.isdigit()):
        raise ValueError(f"{db!r} is no number of a database")
    return host, 6379 if port is None else port, int(db or 0)


def without_password(url: str) -> str:
    """A URL as it may be shown: a password has no place in a CI log."""
    before, at, after = url.rpartition("@")
    return f"{before.partition('://')[0]}://...@{after}" if at else url


def _parse_url(text: str) -> BrokerSpec:
    try:
        host, port, db = address(text)
        if "@" in urlsplit(text).netloc:
            raise ValueError("a user or password is not supported")
    except ValueError as error:
        raise _wrong(text, str(error)) from None
    return BrokerSpec("url", host=host, port=port, db=db)


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"--broker {without_password(text)!r}: {why}; {_ALLOWED}.")


def _find(binary: str | None) -> str:
    found = shutil.which(binary or "redis-server")
    if found is None:
        problem = f"no redis-server on PATH ({_path()})" if binary is None else f"{binary!r} is no program"
        raise BrokerError(f"Broker: {problem}. Run `apt-get install redis-server`, or use --broker embedded.")
    return os.path.abspath(found)


def _path() -> str:
    return os.environ.get("PATH", "not set")


def _connect(spec: BrokerSpec) -> Broker:
    outcome: list[OSError | None] = []

    def check() -> None:
        try:
            ask(spec.host, spec.port, ("PING",), ("SELECT", str(spec.db)), timeout=_URL_SECONDS)
            outcome.append(None)
        except OSError as error:
            outcome.append(error)
        except UnicodeError as error:  # A host name that IDNA cannot take.
            outcome.append(OSError(str(error)))

    # A resolver may take half a minute, and a peer may send a byte a second: no socket timeout bounds either.
    thread = threading.Thread(target=check, daemon=True)
    thread.start()
    thread.join(_URL_SECONDS + 0.5)
    cause = outcome[0] if outcome else TimeoutError("timed out")
    if cause is not None:
        raise BrokerError(
            f"Broker: no Redis answers at {spec}: {cause}. "
            f"Start it, or check with `redis-cli -h {spec.host} -p {spec.port} -n {spec.db} ping`, "
            "or use --broker embedded."
        )
    return Broker(spec.host, spec.port, spec.db, str(spec))


def _launch(spec: BrokerSpec, arguments: list[str], folder: Path, advice: str) -> Broker:
    what = "the embedded Redis" if arguments[0] == "embedded" else arguments[1]
    environment = dict(os.environ)
    # The child works in `folder`, where nothing of the user's shadows a module; it finds forkproof where we did.
    paths = [str(Path(__file__).resolve().parents[1])]
    paths += [os.path.abspath(path) for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG).open("ab") as log:
            offset = log.tell()
            # The write end of stdin is ours alone: it is not inheritable, so no program that we start keeps it open.
            keeper = subprocess.Popen(
                [sys.executable, "-m", "forkproof._broker_process", str(os.getpid()), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=environment,
                close_fds=True,
                start_new_session=True,
            )
    except OSError as error:
        raise BrokerError(f"Broker: cannot start {what}: {error}. {advice}") from error
    try:
        told = _first_line(keeper, time.monotonic() + _START_SECONDS)
    except BaseException:
        _end(keeper)
        raise
    if told is None:
        running = keeper.poll() is None
        _end(keeper)
        how = f"did not answer within {_START_SECONDS:g} s" if running else "did not come up"
        with (folder / LOG).open("rb") as log:
            log.seek(offset)
            said = log.read().decode("utf-8", "replace").strip().splitlines()[-20:]
        words = "It printed nothing." if not said else "It printed:\n" + "\n".join(f"    {line}" for line in said)
        raise BrokerError(f"Broker: {what} {how}. {advice} {words}")
    port, pid, description = told
    return Broker(HOST, port, 0, description, pid, keeper, folder / SOCKET, spec)


def _first_line(keeper: subprocess.Popen[bytes], deadline: float) -> tuple[int, int, str] | None:
    """What the child reports: port, pid, description; None when it has ended, says something else, or time is up."""
    assert keeper.stdout is not None
    descriptor = keeper.stdout.fileno()
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return None
        piece = os.read(descriptor, 1024)
        if not piece:
            with contextlib.suppress(subprocess.TimeoutExpired):
                keeper.wait(1)
            return None
        line += piece
    keeper.stdout.close()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        told = json.loads(line)
        return int(told["port"]), int(told["pid"]), str(told["description"])
    return None


def _end(keeper: subprocess.Popen[bytes]) -> None:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    keeper.stdin.close()
    keeper.stdout.close()
    try:
        keeper.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:  # It is stopped, or its stdin is held by a process that was forked.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(keeper.pid, signal.SIGKILL)
        keeper.wait()
