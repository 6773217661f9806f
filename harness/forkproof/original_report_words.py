"""What docs/the-original-report.md says in one language: the hand-written half of it, and the words of its tables.

Verdicts, rates and places are put in from the runs and never stand here. A sentence must be true of those runs: look at
the histories and the stacks before changing one, and change it in every language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

GEVENT_MONKEY = "[gevent.monkey](https://www.gevent.org/api/gevent.monkey.html)"
GEVENT_OS = "[gevent.os](https://www.gevent.org/api/gevent.os.html)"
ARBITER = "[arbiter.py](https://github.com/benoitc/gunicorn/blob/master/gunicorn/arbiter.py)"
THREAD_POOL = "[threadpool.py](https://github.com/gevent/gevent/blob/master/src/gevent/threadpool.py)"
GEVENT_WORKER = "[ggevent.py](https://github.com/benoitc/gunicorn/blob/master/gunicorn/workers/ggevent.py)"
PATCH_OS = "[patch_os](https://www.gevent.org/api/gevent.monkey.html#gevent.monkey.patch_os)"
THREADING = "[threading](https://docs.python.org/3/library/threading.html#thread-objects)"
MULTIPROCESSING = (
    "[multiprocessing](https://docs.python.org/3/library/multiprocessing.html#multiprocessing.Process.daemon)"
)


@dataclass(frozen=True)
class Words:
    """One language. What has braces is filled by `str.format`."""

    page: str
    """The file in docs/."""
    introduction: str
    sections: Mapping[str, tuple[str, str]]
    """By the name of the section: its title and its text."""
    cases: Mapping[str, tuple[str, str]]
    """By the name of the scenario: what he said, and why it held or broke."""
    lanes: Mapping[str, str]
    """The stacks that the scenarios ran on."""
    spelt: Callable[[str], str]
    """How a word of a scenario's JSON reads in a sentence."""
    comma: str
    semicolon: str

    stacks_head: Sequence[str]
    stack_of: str
    after_fork: str
    after_fork_lines: str

    deployment: str
    server: str
    preload: Mapping[bool, str]
    patch: str
    loop: str
    no_yield: str
    faults: str

    claims_head: Sequence[str]
    verdicts: Mapping[str, str]
    places_head: Sequence[str]
    ran: str
    no_turn: str
    copy: str
    losses: str
    losses_of: str
    messages_head: Sequence[str]
    nobody: str
    patches_head: Sequence[str]
