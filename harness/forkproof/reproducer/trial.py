"""Tries a reproducer before it is handed out: in a folder of its own, on a target, several times."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forkproof import containment
from forkproof.errors import CouldNotDecide
from forkproof.launch import ENVIRONMENT
from forkproof.reproducer import Reproducer, write
from forkproof.target import Target, brought_along, describe

BUG, NONE = 1, 0
"""What reproduce.sh exits with."""

_LONGEST = 300.0
"""Seconds that one try may take: a check comes after each fault, and each waits for seconds."""


@dataclass(frozen=True)
class Rate:
    """How often the bug showed."""

    shown: int
    tried: int
    said: str = ""
    """What it said when it showed, last."""

    def __str__(self) -> str:
        return f"in {self.shown} of {self.tried} tries"


def first_that_shows(choices: Sequence[Reproducer], target: Target, tries: int) -> tuple[Reproducer, Rate]:
    """The first program that does in some try what the run did, with its rate in it; CouldNotDecide where none does."""
    said = []
    for made in choices[:MOST]:
        found = rate(made, target, tries)
        if (found.shown > 0) == made.shows:
            there = {name: target.versions.get(name) for name in made.pinned}
            on = "" if there == made.pinned else describe({"python": target.python, **there})
            return with_pins(made, target).with_rate(found.shown, found.tried, found.said, on), found
        said.append(f"{made.broken}{', without ' + ', '.join(made.left_out) if made.left_out else ''}")
    raise CouldNotDecide(
        f"nothing is written, since no program did what the run did in {tries} tries: {'; '.join(said)}. It may be a "
        f"race: try --tries {4 * tries}. Or it takes more than a few lines: see the run's own folder."
    )


def with_pins(made: Reproducer, target: Target) -> Reproducer:
    """The same, with the versions of what its packages require, as they are on the target."""
    return made.with_pins(brought_along(target.executable, [*made.pinned]))


MOST = 6
"""How many programs are tried."""


def rate(made: Reproducer, target: Target, tries: int) -> Rate:
    """Run it so many times; CouldNotDecide where it cannot tell, as where the server does not boot."""
    shown, told = 0, ""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forkproof-")))
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        # The Redis of the try is ours: a target need not have one.
        environment |= {"PYTHON": target.executable, "REDIS_PYTHON": sys.executable, "TRIES": "1", "HOME": str(root)}
        write(made, root / "try")
        for _ in range(tries):
            code, said = run(root / "try", environment)
            if code not in (BUG, NONE):
                raise CouldNotDecide(f"{made.broken}: the program could not tell: it exited with {code}:\n{said}")
            if code == BUG:
                shown, told = shown + 1, said
    return Rate(shown, tries, told)


def run(folder: Path, environment: dict[str, str], tries: int = 1) -> tuple[int, str]:
    """Run the script of a folder, of so many tries; its exit code, and what it said. Nothing of it is left after."""
    try:
        done = subprocess.run(
            [*containment.namespace_prefix(), "./reproduce.sh"],
            cwd=folder,
            env={**environment, "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LONGEST * tries,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CouldNotDecide(f"the program did not end within {_LONGEST * tries:g} s") from None
    finally:
        # Where the machine has no namespaces, or what is left has a session of its own.
        for stat in containment.carrying(str(folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(stat.pid, signal.SIGKILL)
    return done.returncode, done.stdout.decode(errors="replace")
