"""The broker comes up, answers, says why it does not, and is gone when its user is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from forkproof import broker, resp
from forkproof.errors import BrokerError, UsageError
from forkproof.scenario import BrokerAddress

pytestmark = pytest.mark.fork

HARNESS = Path(broker.__file__).parents[1]
REDIS_SERVER = shutil.which("redis-server")
needs_redis_server = pytest.mark.skipif(REDIS_SERVER is None, reason="no redis-server on PATH")
KINDS = ["embedded", pytest.param("redis-server", marks=needs_redis_server)]


def until(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def talk(where: broker.Broker, body: Callable[[resp.Client], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        client = await resp.Client.connect(where.host, where.port, timeout=5)
        try:
            await body(client)
        finally:
            client.close()

    asyncio.run(run())


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[broker.Broker]:
    with broker.start(broker.parse("embedded"), tmp_path_factory.mktemp("embedded")) as started:
        yield started


def test_importing_the_broker_is_cheap() -> None:
    code = "import sys, forkproof.broker; print([m for m in ('redis', 'fakeredis', 'asyncio') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(HARNESS)}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_embedded_is_of_the_loopback_interface(embedded: broker.Broker) -> None:
    assert (embedded.host, embedded.db) == ("127.0.0.1", 0)
    assert embedded.description.startswith("fakeredis 2.")
    assert embedded.url == f"redis://127.0.0.1:{embedded.port}/0"
    assert embedded.pid is not None
    # Out of reach of the terminal's Ctrl-C.
    assert os.getsid(embedded.pid) != os.getsid(0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_socket_file_leads_to_the_same_data(kind: str, short_folder: Path) -> None:
    with broker.start(broker.parse(kind), short_folder) as started:
        path = started.client(BrokerAddress.UNIX_SOCKET)["unix_socket_path"]
        with redis.Redis(unix_socket_path=path) as by_file, redis.Redis(started.host, started.port) as by_port:
            pubsub = by_file.pubsub()
            pubsub.subscribe("a")
            assert by_port.publish("a", "hello") == 1
            assert by_file.get("missing") is None
            addresses = {client["addr"] for client in by_port.client_list()}
            assert len([address for address in addresses if address.endswith("redis.sock:0")]) == 1
            pubsub.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_is_told_with_its_subscriptions(kind: str, short_folder: Path) -> None:
    with broker.start(broker.parse(kind), short_folder) as started, redis.Redis(port=started.port) as client:
        pubsub = client.pubsub()
        pubsub.subscribe("a", "b")
        pubsub.psubscribe("c*")
        for _ in range(3):
            assert pubsub.get_message(timeout=10) is not None
        told = {(one["sub"], one["psub"]) for one in client.client_list()}
        assert told == {("0", "0"), ("2", "1")}
        pubsub.unsubscribe("a")
        assert pubsub.get_message(timeout=10) is not None
        assert ("1", "1") in {(one["sub"], one["psub"]) for one in client.client_list()}
        pubsub.close()


def test_publish_counts_its_receivers(embedded: broker.Broker) -> None:
    heard: list[bytes] = []
    import redis  # here, as the quick tests pay for every import at the top

    client = redis.Redis(port=embedded.port)
    pubsub = client.pubsub()
    pubsub.subscribe("news")

    def listen() -> None:
        for message in pubsub.listen():
            if message["type"] == "message":
                heard.append(message["data"])
                return

    async def body(client: resp.Client) -> None:
        deadline = time.monotonic() + 5
        while await client.command("PUBSUB", "NUMSUB", "news", "none") != ["news", 1, "none", 0]:
            assert time.monotonic() < deadline
        assert await client.command("PUBLISH", "none", b"a\r\nb") == 0
        assert await client.command("PUBLISH", "news", b"a\r\nb") == 1

    thread = threading.Thread(target=listen)
    thread.start()
    talk(embedded, body)
    thread.join(5)
    pubsub.close()
    client.close()
    assert heard == [b"a\r\nb"]


def test_client_replies(embedded: broker.Broker) -> None:
    async def body(client: resp.Client) -> None:
        assert await client.command("RPUSH", "list", 1, b"2", "ß") == 3
        assert await client.command("BLPOP", "list", 1) == ["list", "1"]
        assert await client.command("LRANGE", "list", 0, -1) == ["2", "ß"]
        assert await client.command("BLPOP", "empty", 0.01) is None
        assert await client.command("SET", "bytes", b"\xff\r\n") == "OK"
        assert await client.command("GET", "bytes") == "\udcff\r\n"
        assert await client.command("SET", "long", "x" * 300_000) == "OK"
        assert await client.command("GET", "long") == "x" * 300_000
        assert await asyncio.gather(*(client.command("ECHO", n) for n in range(20))) == [str(n) for n in range(20)]
        # An error reply leaves the connection open, as with a real Redis.
        with pytest.raises(resp.ReplyError, match="unknown command"):
            await client.command("NOSUCH")
        assert await client.command("PING") == "PONG"
        host, port = client._writer.get_extra_info("sockname")
        assert f"addr={host}:{port} " in str(await client.command("CLIENT", "LIST"))

    talk(embedded, body)


def test_client_takes_replies_in_pieces_and_leaves_a_connection_out_of_step() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"PING\r\n")
        for byte in b"*5\r\n$4\r\na\r\nb\r\n$-1\r\n:-7\r\n*-1\r\n*1\r\n+x\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await reader.readuntil(b"ERR\r\n")
        writer.write(b"*2\r\n-ERR one\r\n:1\r\n")
        await reader.readuntil(b"NEVER\r\n")
        await reader.read()
        writer.close()
        done.set()

    done = asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            client = await resp.Client.connect(*server.sockets[0].getsockname(), timeout=0.2)
            assert await client.command("PING") == ["a\r\nb", None, -7, None, ["x"]]
            with pytest.raises(resp.ReplyError, match="ERR one"):
                await client.command("ERR")
            with pytest.raises(asyncio.TimeoutError):
                await client.command("NEVER")
            with pytest.raises(ConnectionError, match="closed"):
                await client.command("PING")
            await asyncio.wait_for(done.wait(), 5)

    asyncio.run(run())


@pytest.mark.parametrize("answer", [b"", b"+OK", b"HTTP/1.1 400 Bad Request\r\n", b"$x\r\n"])
def test_client_says_when_the_connection_is_lost(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"PING\r\n")
        writer.write(answer)
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            client = await resp.Client.connect(*server.sockets[0].getsockname(), timeout=5)
            with pytest.raises(ConnectionError, match="lost"):
                await client.command("PING")

    asyncio.run(run())


def test_no_message_is_lost_to_a_client_that_died_in_blpop(embedded: broker.Broker) -> None:
    dead = socket.create_connection((embedded.host, embedded.port))
    dead.sendall(b"*3\r\n$5\r\nBLPOP\r\n$4\r\njobs\r\n$1\r\n0\r\n")
    address = "addr={}:{} ".format(*dead.getsockname())

    async def body(client: resp.Client) -> None:
        async def listed() -> bool:
            return address in str(await client.command("CLIENT", "LIST"))

        deadline = time.monotonic() + 5
        while not await listed():
            assert time.monotonic() < deadline
        dead.close()
        assert await client.command("RPUSH", "jobs", "one") == 1
        assert await client.command("BLPOP", "jobs", 1) == ["jobs", "one"]
        while await listed():
            assert time.monotonic() < deadline

    talk(embedded, body)


@pytest.mark.parametrize(
    "words", [b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nk\r\n", b"*3\r\n$5\r\nBLPOP\r\n$1\r\nk\r\n$1\r\n0\r\n"]
)
def test_client_kill_closes_the_connection(embedded: broker.Broker, words: bytes) -> None:
    with socket.create_connection((embedded.host, embedded.port), timeout=5) as victim:
        victim.sendall(words)
        if b"SUBSCRIBE" in words:  # one that is killed before it listens shows nothing
            assert b"subscribe" in victim.recv(1024)

        async def body(client: resp.Client) -> None:
            deadline = time.monotonic() + 5
            while await client.command("CLIENT", "KILL", "ADDR", "{}:{}".format(*victim.getsockname())) != 1:
                assert time.monotonic() < deadline

        talk(embedded, body)
        while victim.recv(1024):
            pass


def test_a_cancellation_is_heard_though_the_answer_is_there() -> None:
    async def course() -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asking = asyncio.create_task(resp.within(answer, 10))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        answer.set_result("late")
        asking.cancel()
        try:
            return await asking
        except asyncio.CancelledError:
            return "cancelled"

    assert asyncio.run(course()) == "cancelled"


def test_what_does_not_come_within_its_bound() -> None:
    async def never() -> None:
        await asyncio.sleep(60)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(resp.within(never(), 0.01))


def test_a_url_is_used_as_it_is(embedded: broker.Broker, tmp_path: Path) -> None:
    with broker.start(broker.parse(f"redis://localhost:{embedded.port}/2"), tmp_path) as found:
        assert (found.host, found.port, found.db, found.pid) == ("localhost", embedded.port, 2, None)
        assert found.description == f"redis://localhost:{embedded.port}/2"
        assert found.client(BrokerAddress.IP) == {"host": "localhost", "port": embedded.port, "db": 2}
        with pytest.raises(UsageError, match=r"surroundings\.broker: 'unix_socket' is not allowed with --broker"):
            found.client(BrokerAddress.UNIX_SOCKET)
    talk(embedded, ping)


async def ping(client: resp.Client) -> None:
    assert await client.command("PING") == "PONG"


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (None, "refused"),
        (b"HTTP/1.1 400 Bad Request\r\n", "no Redis: b'HTTP"),
        (b"-NOAUTH Authentication required.\r\n", "NOAUTH"),
        (b"-MISCONF \xff\r\n", "MISCONF"),
        (b"", "closed"),
        ("silent", "timed out"),
    ],
)
def test_a_url_that_does_not_answer(
    answer: bytes | str | None, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "_URL_SECONDS", 0.1 if answer == "silent" else 3.0)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer if isinstance(answer, bytes) else b"")

        thread = threading.Thread(target=serve)
        if answer is not None:
            listener.listen()
        if isinstance(answer, bytes):
            thread.start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        began = time.monotonic()
        with pytest.raises(BrokerError) as caught:
            broker.start(broker.parse(url), tmp_path)
        assert time.monotonic() - began < 5
        if isinstance(answer, bytes):
            thread.join(5)
    assert url in str(caught.value)
    assert cause in str(caught.value)
    assert "--broker embedded" in str(caught.value)
    assert caught.value.exit_code == 2


def test_no_redis_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for text in ("redis-server", f"redis-server:{tmp_path}/none"):
        with pytest.raises(BrokerError, match=r"apt-get install redis-server.*--broker embedded"):
            broker.start(broker.parse(text), tmp_path)


def test_a_redis_server_that_does_not_come_up(tmp_path: Path) -> None:
    binary = tmp_path / "redis-server"
    binary.write_text("#!/bin/sh\necho no room for $2 >&2\nexit 3\n")
    binary.chmod(0o755)
    (tmp_path / broker.LOG).write_text("of an earlier run\n")
    with pytest.raises(BrokerError, match=r"did not come up(.|\n)*no room for \d+(.|\n)*status 3") as caught:
        broker.start(broker.parse(f"redis-server:{binary}"), tmp_path)
    assert "earlier" not in str(caught.value)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BrokerError, match="cannot start the embedded Redis"):
        broker.start(broker.parse("embedded"), tmp_path / "file")


def test_two_at_once_and_stop(embedded: broker.Broker, tmp_path: Path) -> None:
    second = broker.start(broker.parse("embedded"), tmp_path / "second")
    # A program that inherits all it can does not keep the broker alive.
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        assert second.port != embedded.port

        async def write(client: resp.Client) -> None:
            assert await client.command("SET", "mine", 1) == "OK"

        async def read(client: resp.Client) -> None:
            assert await client.command("GET", "mine") is None

        talk(second, write)
        talk(embedded, read)
        began = time.monotonic()
        second.stop()
        second.stop()
        assert time.monotonic() - began < 1
        assert second.pid is not None
        assert not alive(second.pid)
    finally:
        second.stop()
        holder.communicate()
    talk(embedded, ping)


@needs_redis_server
def test_redis_server(tmp_path: Path) -> None:
    with broker.start(broker.parse("redis-server"), tmp_path) as started:
        assert started.description.startswith("redis-server ")
        talk(started, ping)
        assert started.pid is not None
        # stop() reaches it even while it is stopped.
        os.kill(started.pid, signal.SIGSTOP)
    assert not alive(started.pid)
    assert [path.name for path in tmp_path.iterdir()] == [broker.LOG]


TAKEN = """
import sys
from forkproof import _broker_process
free = _broker_process.free_port()
ports = iter([int(sys.argv[3]), free])
_broker_process.free_port = lambda: next(ports)
process, port, _ = _broker_process.start_redis(sys.argv[1], sys.argv[2], 10)
process.kill()
process.wait()
assert port == free, (port, free)
"""


@needs_redis_server
def test_a_port_that_somebody_took_is_left_to_him(embedded: broker.Broker, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TAKEN, str(REDIS_SERVER), str(tmp_path), str(embedded.port)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(HARNESS)}, check=True, timeout=20)


PARENT = """
import os, subprocess, sys, time
from pathlib import Path
from forkproof import broker
started = broker.start(broker.parse(sys.argv[1]), Path(sys.argv[2]))
sibling = os.fork()  # Holds the pipe to the broker open, as no exec closes it.
if sibling:
    print(started._keeper.pid, started.pid, sibling, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("victim", ["parent", "keeper"])
def test_nothing_is_left_after_kill_9(kind: str, victim: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, kind, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(HARNESS)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        keeper, server, sibling = map(int, parent.stdout.readline().split())
        try:
            assert alive(keeper)
            assert alive(server)
            if victim == "parent":
                parent.kill()
                parent.wait()
            else:
                os.kill(keeper, signal.SIGKILL)
            until(lambda: not alive(keeper), "the keeper is left")
            until(lambda: not alive(server), "the server is left")
            assert alive(sibling)
        finally:
            os.kill(sibling, signal.SIGKILL)
            parent.kill()


def order(where: broker.Broker, word: str) -> str:
    """What the keeper of a Redis answers to a word."""
    assert where.control is not None
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(os.path.relpath(where.control))
        door.sendall(word.encode())
        return door.makefile().readline().strip()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_killed_and_started_again_on_the_same_port(kind: str, tmp_path: Path) -> None:
    with broker.start(broker.parse(kind), tmp_path) as found:
        address = (found.host, found.port)
        with socket.create_connection(address) as client:
            assert order(found, "stop") == "ok"
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address).close()
        assert order(found, "stop") == "'stop' cannot be done now"
        assert order(found, "start") == "ok"
        assert broker.ask(*address, ("PING",), timeout=5) == ["PONG"]
        assert order(found, "start") == "'start' cannot be done now"


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_paused_and_ends_all_the_same(kind: str, tmp_path: Path) -> None:
    with broker.start(broker.parse(kind), tmp_path) as found:
        assert order(found, "pause") == "ok"
        with pytest.raises(TimeoutError):
            broker.ask(found.host, found.port, ("PING",), timeout=0.2)
        assert order(found, "resume") == "ok"
        assert broker.ask(found.host, found.port, ("PING",), timeout=5) == ["PONG"]
        assert order(found, "pause") == "ok"
    assert found.pid is not None
    assert not alive(found.pid)


def test_a_redis_of_the_users_is_not_disturbed() -> None:
    users = broker.Broker("10.0.0.1", 6379, 0, "theirs")
    users.require_own([])
    with pytest.raises(UsageError, match="'redis_gone' is not possible with --broker redis:"):
        users.require_own(["redis_gone"])
