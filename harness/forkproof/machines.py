"""Where the scenarios of a command run: on this machine, or with `--dask` on the workers of a cluster."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forkproof import lanes, session, target
from forkproof.errors import MissingPackage
from forkproof.lanes import Lane, Lanes, Shelf
from forkproof.session import PLAINEST, Session

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Wanted:
    """What was asked for: how many at once (None for what suits the machines), which Redis, and where folders go."""

    jobs: int | None
    broker: str
    out: Path
    warm: bool = False


def jobs_here(asked: int | None) -> int:
    """How many servers this machine runs at once: as many as were asked for, or two for each core."""
    return asked or 2 * len(os.sched_getaffinity(0))


class Machines(abc.ABC):
    """Opens sessions. `jobs` is how many servers are to run at once."""

    jobs: int

    @abc.abstractmethod
    def on(self, text: str | None, claims: Collection[str] | None = None) -> AbstractContextManager[Session]:
        """A session on what `--target` names."""

    @abc.abstractmethod
    def on_lane(self, lane: Lane, python: str) -> AbstractContextManager[Session]:
        """A session on a lane, whose Python on this machine is known."""


@dataclass(frozen=True)
class _Here(Machines):
    wanted: Wanted
    known: Lanes
    shelf: Shelf
    say: Callable[[str], None]
    jobs: int

    def on(self, text: str | None, claims: Collection[str] | None = None) -> AbstractContextManager[Session]:
        python = lanes.resolve(text, self.known, self.shelf, self.say)
        target.find(python).require(PLAINEST)
        return self._opened(python, claims)

    def on_lane(self, lane: Lane, python: str) -> AbstractContextManager[Session]:
        return self._opened(python, None)

    def _opened(self, python: str | None, claims: Collection[str] | None) -> AbstractContextManager[Session]:
        wanted = self.wanted
        return session.open_session(
            target_name=python, broker_name=wanted.broker, out=wanted.out, claims=claims, warm=wanted.warm
        )


@dataclass(frozen=True)
class _Cluster(Machines):
    wanted: Wanted
    known: Lanes
    client: Client
    jobs: int

    def on(self, text: str | None, claims: Collection[str] | None = None) -> AbstractContextManager[Session]:
        return self._opened(text, lanes.meant(text, self.known), claims)

    def on_lane(self, lane: Lane, python: str) -> AbstractContextManager[Session]:
        return self._opened(None, lane, None)

    @contextlib.contextmanager
    def _opened(self, text: str | None, lane: Lane | None, claims: Collection[str] | None) -> Iterator[Session]:
        from forkproof import cluster

        asked = cluster.Asked(text if lane is None else None, lane, self.wanted.broker, self.wanted.warm)
        with cluster.open_session(self.client, asked, out=self.wanted.out, claims=claims) as opened:
            opened.target.require(PLAINEST)
            yield opened


@contextlib.contextmanager
def machines(
    dask: str | None, wanted: Wanted, known: Lanes, shelf: Shelf, say: Callable[[str], None]
) -> Iterator[Machines]:
    """This machine, or the cluster whose scheduler is at `dask`; MissingPackage, ClusterError where it is of no use."""
    if dask is None:
        yield _Here(wanted, known, shelf, say, jobs_here(wanted.jobs))
        return
    try:
        from forkproof import cluster
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("distributed", "dask"):
            raise
        raise MissingPackage("--dask: needs the package distributed: pip install 'forkproof[dask]'.") from None
    with cluster.connect(dask) as client:
        yield _Cluster(wanted, known, client, wanted.jobs or cluster.threads(client))
