"""The process that looks after the Redis that forkproof starts; run by forkproof.broker alone.

The Redis is its child. It kills that and ends as soon as its stdin reaches its end, which happens however its parent
dies. A process that the parent forked without an exec would hold that pipe open, so the parent's pid is looked at as
well. That it is not the Redis itself makes it work while that is stopped or killed by a fault.

    python -m forkproof._broker_process PARENT_PID embedded
    python -m forkproof._broker_process PARENT_PID redis-server BINARY FOLDER SECONDS

Both listen on the loopback interface and on the socket file `redis.sock` in the folder that this process works in.
Once Redis answers, one line of JSON goes to stdout: `port`, `pid`, `description`. What goes wrong is told on stderr.
Apart from fakeredis, the standard library's quick parts only: a run waits for this process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

HOST = "127.0.0.1"
CONTROL = "broker.sock"
"""The socket file on which the keeper takes orders; beside SOCKET."""
SOCKET = "redis.sock"
"""The socket file, named relative to the working folder: the kernel takes 107 bytes."""
_ATTEMPTS = 5


def ask(host: str, port: int, *commands: tuple[str, ...], timeout: float) -> list[str]:
    """Send commands that are answered by one line or one bulk string, and return the answers.

    Raises OSError when nothing answers, and ConnectionError (an OSError) with the reason for an error reply or for a
    peer that speaks something else.
    """
    answers: list[str] = []
    with (
        socket.create_connection((host, port), timeout=timeout) as connection,
        connection.makefile("rb") as replies,
    ):
        for words in commands:
            coded = [word.encode() for word in words]
            connection.sendall(b"*%d\r\n" % len(coded) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in coded))
            line = replies.readline(1024)
            if not line:
                raise ConnectionError("the connection was closed without an answer")
            kind, rest = line[:1], line[1:].strip().decode("utf-8", "replace")
            if kind == b"-":
                raise ConnectionError(f"{' '.join(words)} was answered with: {rest}")
            if kind == b"$" and rest.isdigit():
                rest = replies.read(int(rest) + 2)[:-2].decode("utf-8", "replace")
            elif kind not in (b"+", b":"):
                raise ConnectionError(f"what answers is no Redis: {line[:60]!r}")
            answers.append(rest)
    return answers


def free_port() -> int:
    """A port of the loopback interface that is free at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def start_redis(binary: str, folder: str, seconds: float, wanted: int = 0) -> tuple[subprocess.Popen[bytes], int, str]:
    """Start a redis-server: the process, its port and its version.

    Redis cannot be told to take any free port, and a port that was free a moment ago may be taken by now. So what
    answers there must name the pid that was started; else another port is tried. Raises OSError when that fails.
    """
    deadline = time.monotonic() + seconds
    for _ in range(_ATTEMPTS):
        port = wanted or free_port()
        options = f"--port {port} --bind {HOST} --protected-mode yes --daemonize no --appendonly no --loglevel warning"
        options += f" --unixsocket {SOCKET} --unixsocketperm 700"
        command = [binary, *options.split(), "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, preexec_fn=_die_with(os.getpid()))
        version = _version_of(process, port, deadline)
        if version is not None:
            return process, port, version
        process.kill()
        process.wait()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{binary} did not answer on {HOST}:{port} within {seconds:g} s")
    raise ConnectionError(f"{binary} ended at once, with status {process.returncode}, {_ATTEMPTS} times")


def _version_of(process: subprocess.Popen[bytes], port: int, deadline: float) -> str | None:
    """The version, once `process` answers on `port`; None when it ended, is another one, or the time is up."""
    while process.poll() is None and time.monotonic() < deadline:
        try:
            (info,) = ask(HOST, port, ("INFO", "server"), timeout=1)
        except OSError:
            time.sleep(0.002)
            continue
        facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        if facts.get("process_id") != str(process.pid):
            return None
        return facts.get("redis_version", "of unknown version")
    return None


def _die_with(parent: int) -> Callable[[], None]:
    """A preexec_fn by which the kernel kills the new process when this one, which has one thread, is gone."""
    import ctypes

    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _serve_fakeredis(port: int, report: int) -> NoReturn:
    """Be the embedded Redis on a port, 0 for any, and tell to the descriptor `report` which, and what one is."""
    import threading
    from importlib.metadata import version

    import redis
    from fakeredis import TcpFakeServer
    from fakeredis._helpers import SimpleError
    from fakeredis.model import ClientInfo

    class Server(TcpFakeServer):
        # A burst of workers connects at once; with the 5 of socketserver some would wait a second for a new SYN.
        request_queue_size = 128
        allow_reuse_address = True  # started again, it takes the same port

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], OSError):  # Clients that are killed are our daily business.
                super().handle_error(request, client_address)

    server = Server((HOST, port))
    fake = server.fake_server

    def address(connection: socket.socket, name: Any) -> str:
        if connection.family is socket.AF_UNIX:
            return f"{SOCKET}:0"
        return "{}:{}".format(*name[:2])

    def serve_socket_file() -> None:
        # The second door to the same data: what comes in there is handled as what comes by TCP.
        for number in itertools.count():
            connection, _ = door.accept()
            server.process_request(connection, (SOCKET, number))

    class Info(ClientInfo):
        """A line of CLIENT LIST, which counts no subscriptions in fakeredis 2.40."""

        def __init__(self, sock: Any) -> None:
            super().__init__()
            self._of = {"sub": fake.subscribers, "psub": fake.psubscribers, "ssub": fake.ssubscribers}
            self._sock = sock
            self.update(sock._client_info)

        def items(self) -> Any:
            counts = {name: sum(self._sock in socks for socks in all_.values()) for name, all_ in self._of.items()}
            return {**dict(super().items()), **counts}.items()

    class Handler(server.RequestHandlerClass):  # type: ignore[misc,name-defined]
        """What a real Redis does and fakeredis 2.40 does not, and what the app would be blamed for."""

        def setup(self) -> None:
            super().setup()
            client, connection = self.current_client, self.connection
            read, readable = client.read_response, client.can_read
            sock = client.get_socket()
            wait = sock._blocking
            sock._client_info = Info(sock)
            sock._client_info["addr"] = address(connection, connection.getpeername())
            sock._client_info["laddr"] = address(connection, connection.getsockname())

            def read_response(*args: Any, **options: Any) -> Any:
                # An error reply leaves the connection open.
                try:
                    return read(*args, **options)
                except (redis.ResponseError, redis.AuthenticationError) as error:
                    return error

            def can_read(*args: Any, **options: Any) -> bool:
                # CLIENT KILL closes the connection, also of a client that only listens.
                found = bool(readable(*args, **options))
                if not found and sock._killed:
                    raise ConnectionResetError("CLIENT KILL")
                return found

            def blocking(timeout: float | None, function: Callable[[bool], Any], *rest: Any, **options: Any) -> Any:
                # A client that died in BLPOP is given no message: that one would be lost.
                def unless_gone(first: bool) -> Any:
                    if not first and (sock._killed or _is_gone(connection)):
                        raise SimpleError("ERR the client is gone")
                    return function(first)

                return wait(timeout, unless_gone, *rest, **options)

            client.read_response, client.can_read, sock._blocking = read_response, can_read, blocking

    def wake() -> None:
        # Those who wait in BLPOP look whether their client is still there.
        while True:
            time.sleep(0.05)
            with fake.lock:
                for db in list(fake.dbs.values()):
                    db.condition.notify_all()

    server.RequestHandlerClass = Handler
    door = _door(SOCKET)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    threading.Thread(target=serve_socket_file, daemon=True).start()
    threading.Thread(target=wake, daemon=True).start()
    port = int(server.server_address[1])
    try:
        ask(HOST, port, ("PING",), timeout=5)
    except OSError as error:
        sys.stderr.write(f"fakeredis {version('fakeredis')} does not serve ({error}); 2.40 does\n")
        os._exit(1)
    os.write(report, json.dumps([port, f"fakeredis {version('fakeredis')}"]).encode() + b"\n")
    os.close(report)
    serving.join()
    os._exit(1)  # Threads that serve clients would keep it alive.


def _is_gone(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


class _Embedded:
    """Starts fakeredis in a child that is forked off here: its pid, its port, what it is."""

    def start(self, port: int) -> tuple[int, int, str]:
        prepare = _die_with(os.getpid())
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                prepare()
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                _serve_fakeredis(port, writing)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as told:
            line = told.readline()
        if not line:
            os.waitpid(pid, 0)
            raise ConnectionError("the embedded Redis did not come up")
        return pid, *json.loads(line)


class _RedisServer:
    """Starts a redis-server."""

    def __init__(self, binary: str, folder: str, seconds: float) -> None:
        self._how = binary, folder, seconds

    def start(self, port: int) -> tuple[int, int, str]:
        process, port, version = start_redis(*self._how, port)
        return process.pid, port, f"redis-server {version}"


class _Kept:
    """The Redis that runs, and what the supervisor of a run may ask to be done to it; OSError where that fails."""

    def __init__(self, kind: _Embedded | _RedisServer) -> None:
        self._kind = kind
        self.pid, self.port, self.description = kind.start(0)
        self._place: socket.socket | None = None

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        return bool(self.pid) and os.waitpid(self.pid, os.WNOHANG) != (0, 0)

    def do(self, what: str) -> None:
        """`stop`, `start` on the same port, `pause` or `resume`."""
        if what == "stop" and self.pid:
            self.kill()
            # Nobody else gets the port, and no client's own connection: what is bound and does not listen refuses.
            self._place = socket.socket()
            self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._place.bind((HOST, self.port))
        elif what == "start" and not self.pid:
            self.pid, _, _ = self._kind.start(self.port)
            if self._place is not None:
                self._place.close()
        elif what in _SIGNALS and self.pid:
            os.kill(self.pid, _SIGNALS[what])
        else:
            raise OSError(f"{what!r} cannot be done now")

    def kill(self) -> None:
        """End it, if it runs."""
        if self.pid:
            os.kill(
                self.pid, signal.SIGKILL
            )  # Its data is worth nothing; SIGTERM would have to wait while it is stopped.
            os.waitpid(self.pid, 0)
            self.pid = 0


_SIGNALS = {"pause": signal.SIGSTOP, "resume": signal.SIGCONT}


def _watch(parent: int, redis: _Kept, door: socket.socket) -> None:
    """Return once Redis has ended, which it is made to when the parent has let go of stdin or is gone."""
    while not redis.ended:
        ready, _, _ = select.select([0, door.fileno()], [], [], 0.1)
        if os.getppid() != parent or (0 in ready and not os.read(0, 1024)):
            redis.kill()
            return
        if door.fileno() in ready:
            _obey(redis, door)


def _obey(redis: _Kept, door: socket.socket) -> None:
    """Do what one word asks for, and answer `ok` or why not."""
    asking, _ = door.accept()
    with asking, contextlib.suppress(OSError):
        asking.settimeout(5)
        try:
            redis.do(asking.recv(64).decode("ascii", "replace").strip())
            answer = "ok"
        except OSError as error:
            answer = str(error)
        asking.sendall(f"{answer}\n".encode())


def main(arguments: list[str]) -> None:
    """Start what the arguments say, and look after it until the parent wants no more of it."""
    parent, kind = int(arguments[0]), arguments[1]
    door = _door(CONTROL)
    try:
        redis = _Kept(
            _Embedded() if kind == "embedded" else _RedisServer(arguments[2], arguments[3], float(arguments[4]))
        )
    except OSError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps({"port": redis.port, "pid": redis.pid, "description": redis.description}) + "\n")
    sys.stdout.flush()
    _watch(parent, redis, door)
    for name in (SOCKET, CONTROL):
        with contextlib.suppress(OSError):
            os.unlink(name)
    os._exit(0)


def _door(name: str) -> socket.socket:
    """A socket file of that name in the working folder, listened on."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)
    door = socket.socket(socket.AF_UNIX)
    door.bind(name)
    door.listen(128)
    return door


if __name__ == "__main__":
    main(sys.argv[1:])
