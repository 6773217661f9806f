"""A client for Redis that is small enough for the supervisor of a run: RESP2, asyncio, one command at a time.

redis-py would do, but `import redis` takes 181 ms where `import asyncio`, which the supervisor needs anyway and which
is part of those, takes 77 ms: 2.4 times as long, before every run (medians of five, CPython 3.11, redis 8.1.0).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Answer = TypeVar("Answer")
Reply = int | str | None | list["Reply"]
"""Bulk strings come as str; bytes that are no UTF-8 are kept as surrogates (PEP 383)."""

_DEEPEST = 32
_LIMIT = 16 * 1024 * 1024  # fakeredis sends a string of any length as one line.


async def within(what: Awaitable[Answer], seconds: float) -> Answer:
    """As `asyncio.wait_for`, which before Python 3.12 may swallow a cancellation: whoever waits then waits for ever.

    Raises asyncio.TimeoutError. https://github.com/python/cpython/issues/86296
    """
    task = asyncio.ensure_future(what)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()


class ReplyError(Exception):
    """Redis answered with an error; the connection can be used further."""


class Client:
    """One connection, for commands that have one reply: SUBSCRIBE and MONITOR are not for it.

    Commands of several tasks are sent one after another. `timeout` bounds each, BLPOP included. After a timeout, a
    cancellation or an OSError the connection is closed, as a late reply would be taken for the next command's.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: float) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout = timeout
        self._turn = asyncio.Lock()
        self._closed = False

    @classmethod
    async def connect(cls, host: str, port: int, *, timeout: float) -> Client:
        """Connect; raises OSError or asyncio.TimeoutError (which is an OSError from Python 3.11 on)."""
        reader, writer = await within(asyncio.open_connection(host, port, limit=_LIMIT), timeout)
        return cls(reader, writer, timeout)

    async def command(self, *words: str | int | float | bytes) -> Reply:
        """Send one command and return its reply.

        Raises ReplyError for an error reply, one within a list included, OSError when the connection is lost or was
        closed, and asyncio.TimeoutError.
        """
        async with self._turn:
            if self._closed:
                raise ConnectionError("the connection to Redis is closed")
            try:
                reply = await within(self._exchange(words), self._timeout)
            except (EOFError, asyncio.LimitOverrunError, ValueError) as error:
                self.close()
                raise ConnectionError(f"the connection to Redis is lost: {error}") from error
            except BaseException:
                self.close()
                raise
        return _checked(reply)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._closed = True
        self._writer.close()

    async def _exchange(self, words: tuple[str | int | float | bytes, ...]) -> _Raw:
        coded = [word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape") for word in words]
        self._writer.write(b"*%d\r\n" % len(coded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in coded))
        await self._writer.drain()
        return await self._read()

    async def _read(self, depth: int = 0) -> _Raw:
        if depth > _DEEPEST:
            raise ValueError("a reply of Redis that has no end of lists in lists")
        line = await self._reader.readuntil(b"\r\n")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode("utf-8", "surrogateescape")
        if kind == b"-":
            return ReplyError(rest.decode("utf-8", "replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            length = int(rest)
            if length < 0:
                return None
            return (await self._reader.readexactly(length + 2))[:-2].decode("utf-8", "surrogateescape")
        if kind == b"*":
            length = int(rest)
            return None if length < 0 else [await self._read(depth + 1) for _ in range(length)]
        raise ValueError(f"no reply of Redis: {line[:60]!r}")


_Raw = int | str | None | ReplyError | list["_Raw"]


def _checked(reply: _Raw) -> Reply:
    """The reply, once it is read to its end and the connection is in step, unless there is an error in it."""
    if isinstance(reply, ReplyError):
        raise reply
    return [_checked(part) for part in reply] if isinstance(reply, list) else reply
