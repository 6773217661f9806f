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


def start_redis(binary: str, folder: str, seconds: float) -> tuple[subprocess.Popen[bytes], int, str]:
    """Start a redis-server: the process, its port and its version.

    Redis cannot be told to take any free port, and a port that was free a moment ago may be taken by now. So what
    answers there must name the pid that was started; else another port is tried. Raises OSError when that fails.
    """
    deadline = time.monotonic() + seconds
    for _ in range(_ATTEMPTS):
        port = free_port()
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


def _serve_fakeredis() -> NoReturn:
    """Be the embedded Redis."""
    import threading
    from importlib.metadata import version

    import redis
    from fakeredis import TcpFakeServer
    from fakeredis._helpers import SimpleError

    class Server(TcpFakeServer):
        # A burst of workers connects at once; with the 5 of socketserver some would wait a second for a new SYN.
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], OSError):  # Clients that are killed are our daily business.
                super().handle_error(request, client_address)

    server = Server((HOST, 0))
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

    class Handler(server.RequestHandlerClass):  # type: ignore[misc,name-defined]
        """What a real Redis does and fakeredis 2.40 does not, and what the app would be blamed for."""

        def setup(self) -> None:
            super().setup()
            client, connection = self.current_client, self.connection
            read, readable = client.read_response, client.can_read
            sock = client.get_socket()
            wait = sock._blocking
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
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET)
    door = socket.socket(socket.AF_UNIX)
    door.bind(SOCKET)
    door.listen(Server.request_queue_size)
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
    _report(port, os.getpid(), f"fakeredis {version('fakeredis')}")
    serving.join()
    os._exit(1)  # Threads that serve clients would keep it alive.


def _is_gone(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


def _fork(parent: int) -> int:
    """The pid of a new process that is the embedded Redis."""
    prepare = _die_with(parent)
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            _serve_fakeredis()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(1)
    return pid


def _report(port: int, pid: int, description: str) -> None:
    sys.stdout.write(json.dumps({"port": port, "pid": pid, "description": description}) + "\n")
    sys.stdout.flush()


def _watch(parent: int, pid: int) -> None:
    """Return once `pid` has ended, which it is made to when the parent has let go of stdin or is gone."""
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if os.getppid() != parent or (select.select([0], [], [], 0.1)[0] and not os.read(0, 1024)):
            os.kill(pid, signal.SIGKILL)  # Its data is worth nothing; SIGTERM would have to wait while it is stopped.
            os.waitpid(pid, 0)
            return


def main(arguments: list[str]) -> None:
    """Start what the arguments say, and look after it until the parent wants no more of it."""
    parent, kind = int(arguments[0]), arguments[1]
    if kind == "embedded":
        pid = _fork(os.getpid())
    else:
        try:
            process, port, version = start_redis(arguments[2], arguments[3], float(arguments[4]))
        except OSError as error:
            sys.exit(str(error))
        pid = process.pid
        _report(port, pid, f"redis-server {version}")
    _watch(parent, pid)
    with contextlib.suppress(OSError):
        os.unlink(SOCKET)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
