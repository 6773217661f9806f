"""How much disk the runs of one folder may take, and what goes first when they take more."""

from __future__ import annotations

import enum
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from forkproof import files

MOST_BYTES = 1 << 30
"""What all run folders of one `--out` may take together, some 5,000 runs that failed."""

MOST_HELD = 200
"""How many runs in which nothing failed are kept; they are there to be looked at, and tell no more than a new one."""

EVERY = 50
"""After so many runs the folders are looked through again."""

_RUN = re.compile(r"[0-9a-f]{12}-[0-9a-f]{6}")
_ABANDONED = 86400.0
"""Seconds after which a folder without a verdict is no longer a run under way."""


class Worth(enum.IntEnum):
    """How much a run's folder tells; the least goes first."""

    HELD = 0
    FAILED = 1
    SURPRISE = 2


@dataclass(frozen=True)
class Kept:
    """A folder of a run that is over. `at` is when it was judged, in seconds since the epoch; `size` in bytes."""

    folder: Path
    worth: Worth
    at: float
    size: int


def runs(out: Path) -> Iterator[Kept]:
    """The folders below `out` that are runs, by their name and what they hold, and that are over."""
    try:
        folders = list(out.iterdir())
    except OSError:  # there is none yet, or a run's folder cannot be made there either
        return
    for folder in folders:
        if _RUN.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            kept = _kept(folder)
            if kept is not None:
                yield kept


def _kept(folder: Path) -> Kept | None:
    told = folder / "verdict.json"
    try:
        size = sum(stat.st_size for path in folder.rglob("*") if S_ISREG((stat := path.lstat()).st_mode))
        if not told.exists():
            at = (folder / "scenario.json").stat().st_mtime
            return Kept(folder, Worth.HELD, at, size) if time.time() - at > _ABANDONED else None
        verdict = json.loads(files.read(told))
        surprise = any(claim["surprise"] for claim in verdict["claims"])
        worth = Worth.SURPRISE if surprise else Worth.HELD if verdict["verdict"] == "held" else Worth.FAILED
        return Kept(folder, worth, told.stat().st_mtime, size)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None  # somebody else's, or gone meanwhile


def prune(out: Path, *, most_bytes: int = MOST_BYTES, most_held: int = MOST_HELD) -> list[Path]:
    """Remove what is too much, and return it: of runs that held all but the newest, then the oldest that tell least.

    A run that is not over is left alone, and so is everything that is no run's folder.
    """
    found = sorted(runs(out), key=lambda kept: (kept.worth, kept.at))
    held = [kept for kept in found if kept.worth is Worth.HELD]
    gone = held[: max(0, len(held) - most_held)]
    left = found[len(gone) :]
    size = sum(kept.size for kept in left)
    for kept in left:
        if size <= most_bytes:
            break
        size -= kept.size
        gone.append(kept)
    for kept in gone:
        shutil.rmtree(kept.folder, ignore_errors=True)
    return [kept.folder for kept in gone]


class Pruner:
    """Prunes a folder at once, and after each `EVERY` runs. Safe to use from several threads."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._runs = 0
        self._lock = threading.Lock()

    def ran(self) -> None:
        """A run begins."""
        with self._lock:
            due = self._runs % EVERY == 0
            self._runs += 1
            if due:
                prune(self._out)
