"""Who is subscribed at a Redis, as it tells it: CLIENT LIST and PUBSUB NUMSUB. Standard library only."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from forkproof.resp import Client, Reply

MOST = 100
"""Channels that are counted."""
_SUBSCRIBED = ("sub", "psub", "ssub")


class Subscriptions(NamedTuple):
    """How many subscriptions each client has, by its address as host:port, and how many each channel has."""

    clients: dict[str, int]
    channels: dict[str, int]


def parse(url: str) -> tuple[str, int] | None:
    """Host and port of a Redis that is asked without a password; None for every other URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 6379
    except ValueError:
        return None
    plain = parts.scheme == "redis" and parts.username is None and parts.password is None
    return (host, port) if host and plain else None


async def ask(host: str, port: int, *, seconds: float) -> Subscriptions:
    """Ask that Redis; raises OSError, asyncio.TimeoutError or ReplyError where one of its answers is none."""
    client = await Client.connect(host, port, timeout=seconds)
    try:
        clients = await client.command("CLIENT", "LIST")
        channels = _list(await client.command("PUBSUB", "CHANNELS"))[:MOST]
        counts = _list(await client.command("PUBSUB", "NUMSUB", *map(str, channels))) if channels else []
    finally:
        client.close()
    names, numbers = counts[::2], counts[1::2]
    told = {str(name): number for name, number in zip(names, numbers, strict=False) if isinstance(number, int)}
    return Subscriptions(_of_clients(str(clients)), told)


def _list(reply: Reply) -> list[Reply]:
    return reply if isinstance(reply, list) else []


def _of_clients(clients: str) -> dict[str, int]:
    """The subscriptions of each client, as CLIENT LIST tells them.

    >>> _of_clients("id=3 addr=127.0.0.1:51234 sub=1 psub=2\\nid=4 addr=127.0.0.1:51236 sub=0 psub=0")
    {'127.0.0.1:51234': 3, '127.0.0.1:51236': 0}
    """
    found = {}
    for line in clients.splitlines():
        fields = dict(field.partition("=")[::2] for field in line.split())
        if "addr" in fields:
            numbers = [fields.get(name, "0") for name in _SUBSCRIBED]
            found[fields["addr"]] = sum(int(number) for number in numbers if number.isdigit())
    return found
