"""What a Redis tells of the app's connections: from its answers to the rows of the report."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from histories import ARBITER, WORKER, Events, has, history, seen, server, window
from rich.console import Console

from forkproof import subscriptions
from forkproof.reports.checked import redis_table
from forkproof.resp import ReplyError
from forkproof.subscribers import told


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", ("localhost", 6379)),
        ("redis://127.0.0.1:7000/2", ("127.0.0.1", 7000)),
        ("redis://:secret@127.0.0.1:7000", None),
        ("redis://me@127.0.0.1", None),
        ("rediss://127.0.0.1:7000", None),
        ("redis://127.0.0.1:port", None),
        ("postgres://127.0.0.1", None),
        ("", None),
    ],
)
def test_whom_one_may_ask(url: str, address: tuple[str, int] | None) -> None:
    assert subscriptions.parse(url) == address


def answer(replies: Sequence[bytes]) -> subscriptions.Subscriptions:
    """What is read of a server that gives these replies, one for each command."""

    async def talk() -> subscriptions.Subscriptions:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for reply in replies:
                await reader.readuntil(b"*")
                await reader.read(4096)
                writer.write(reply)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await subscriptions.ask(*server.sockets[0].getsockname(), seconds=5)

    return asyncio.run(talk())


def test_clients_and_channels() -> None:
    clients = b"id=3 addr=127.0.0.1:51 sub=1 psub=2 name=\nid=4 addr=127.0.0.1:52 sub=x psub=0\nnothing\n"
    assert answer([b"$%d\r\n%s\r\n" % (len(clients), clients), b"*1\r\n$1\r\na\r\n", b"*2\r\n$1\r\na\r\n:2\r\n"]) == (
        {"127.0.0.1:51": 3, "127.0.0.1:52": 0},
        {"a": 2},
    )


def test_a_redis_that_refuses() -> None:
    with pytest.raises(ReplyError, match="NOAUTH"):
        answer([b"-NOAUTH Authentication required.\r\n"])


def redis(index: int, clients: dict[str, int], channels: dict[str, int], **more: str) -> Events:
    fields = {"window": index, "address": "127.0.0.1:6379", "clients": clients, "channels": channels, **more}
    return seen(1.95 + 2 * index, "redis", **fields)


def connected(inode: int, local: str) -> Events:
    plain = {"inode": inode, "family": "tcp", "state": "connected", "local": local, "peer": "127.0.0.1:6379"}
    return seen(1.1, "socket", **plain)


def test_who_has_which_connection() -> None:
    shared, own = "127.0.0.1:51", "127.0.0.1:52"
    what = history(
        server(), window(), window(1, after="hup"), connected(7, shared), connected(8, own),
        has(ARBITER, 7), has(WORKER, 7, 8), has(WORKER, 7, t=3.95),
        redis(0, {shared: 1, own: 0, "127.0.0.1:99": 5}, {"orders": 1}), redis(1, {}, {}, error="no answer"),
    )  # fmt: skip
    first, second = told(what)
    assert [(str(one.process.place), one.connections, one.subscriptions) for one in first.holders] == [
        ("arbiter", 1, 1),
        ("worker 0", 2, 1),
    ]
    assert (first.after, first.channels, first.error) == ("boot", {"orders": 1}, None)
    assert (second.after, second.holders, second.error) == ("hup", (), "no answer")
    assert first.to_dict()["processes"][1] == {
        "role": "worker", "slot": 0, "pid": WORKER, "connections": 2, "subscriptions": 1,
    }  # fmt: skip
    console = Console(width=120)
    with console.capture() as said:
        console.print(redis_table(told(what)))
    lines = said.get().splitlines()
    assert [line.split() for line in lines] == [
        ["redis", "after", "boot", "after", "hup"],
        ["127.0.0.1:6379", "arbiter", "1", "connection,", "1", "subscribed", "-"],
        ["127.0.0.1:6379", "worker", "0", "2", "connections,", "1", "subscribed", "-"],
        ["127.0.0.1:6379", "channel", "orders", "1", "subscribed", "-"],
        ["127.0.0.1:6379", "-", "no", "answer:", "no", "answer"],
    ]
