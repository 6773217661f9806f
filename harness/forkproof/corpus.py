"""Scenarios that surprised, kept where the next campaign finds them, on this machine or on another.

What keeps them is a database of Hypothesis': a folder, or a Redis that several machines reach. Hypothesis drops an
example as soon as it passes once, which a race does; these stay. They are kept under one key whatever they were found
on: what broke on one version is worth a run on another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase

from forkproof import broker, scenario
from forkproof.errors import BrokerError, ScenarioError, UsageError
from forkproof.scenario import Scenario

KEY = b"forkproof: scenarios that surprised"

SECONDS = 3.0
"""In which a Redis has to connect, and to answer."""

_ALLOWED = "give a folder, or redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]"


class Corpus:
    """The scenarios in a database. `shown` is where that is, for messages."""

    def __init__(self, database: ExampleDatabase, shown: str) -> None:
        self._database = database
        self._shown = shown

    def fetch(self) -> tuple[list[Scenario], int]:
        """The scenarios by their digests, and how many entries another forkproof than this one has written.

        BrokerError where a Redis does not answer.
        """
        found: dict[str, Scenario] = {}
        unread = 0
        for content in self._content():
            try:
                one = scenario.parse(content.decode())
                found[one.digest] = one
            except (UnicodeDecodeError, ScenarioError):
                unread += 1
        return [found[digest] for digest in sorted(found)], unread

    def save(self, what: Scenario) -> None:
        """Keep a scenario; BrokerError where it cannot be."""
        with self._told():
            self._database.save(KEY, what.to_json().encode())

    def _content(self) -> list[bytes]:
        with self._told():
            return list(self._database.fetch(KEY))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        from redis import RedisError

        try:
            yield
        except (RedisError, OSError) as error:
            raise BrokerError(
                f"--database {self._shown}: {error or type(error).__name__}. Start that Redis, or give a folder."
            ) from None


def require(text: str) -> None:
    """UsageError where a text names no database."""
    if "://" in text:
        shown = broker.without_password(text)
        if not text.startswith("redis://"):
            raise UsageError(f"--database {shown}: is no kind of database; {_ALLOWED}.")
        try:
            broker.address(text)
        except ValueError as error:
            raise UsageError(f"--database {shown}: {error}; {_ALLOWED}.") from None
    elif not text or (Path(text).exists() and not Path(text).is_dir()):
        raise UsageError(f"--database {text}: is no folder; {_ALLOWED}.")


@contextlib.contextmanager
def opened(text: str) -> Iterator[Corpus]:
    """The corpus that a text names; a folder is made, a Redis is asked when it is needed."""
    require(text)
    if "://" not in text:
        try:
            Path(text).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--database {text}: cannot be made: {error.strerror}; {_ALLOWED}.") from None
        yield Corpus(DirectoryBasedExampleDatabase(text), text)
        return
    from hypothesis.extra.redis import RedisExampleDatabase
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    client = Redis.from_url(text, socket_connect_timeout=SECONDS, socket_timeout=SECONDS, retry=Retry(NoBackoff(), 0))
    with contextlib.closing(client):
        yield Corpus(RedisExampleDatabase(client), broker.without_password(text))
