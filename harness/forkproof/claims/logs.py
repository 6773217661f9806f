"""What the server printed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from forkproof.claims.base import Claim, Say, clock, edges, no_window, number, quoted
from forkproof.history import Event, History
from forkproof.scenario import Scenario
from forkproof.verdict import Finding

_NOISE = re.compile(
    "Exception ignored"
    "|Exception in thread"
    "|Exception in worker"  # gunicorn: a worker process ends by it; concurrent.futures: a thread of its pool does
    "|LoopExit"
    "|[Uu]nraisable"
    "|Parent changed"
    r"|> failed with \w"  # gevent: <Greenlet at 0x..: body> failed with ValueError
    "|never retrieved"  # asyncio: a task's or a future's exception
    "|Control server error"
)


_FAILED = re.compile(r"<(?:\w+\.)*(\w+) .*> failed with (\w+)")
RAISED = re.compile(r"(?:[a-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Exit|Interrupt|Timeout|Warning))\b")
_FRAME = re.compile(r'  File "(.*)", line \d+, in (.+)')
_TRACEBACK = "Traceback (most recent call last):"
_LONGEST = 60
"""Lines that a traceback may have."""


def quiet_runtime(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("quiet_runtime")
    # What is printed once the supervisor has killed processes is the killing's doing.
    end = min((event.t for event in history.of("killed")), default=float("inf"))
    printed = [event for event in history.of("log") if event.t <= end]
    noise = [event for event in printed if _NOISE.search(event["line"]) and not _is_the_faults_doing(history, event)]
    if noise:
        printed = [event for event in printed if event.get("by") == noise[0].get("by")]
        how, around, where = _cause(printed, printed.index(noise[0]))
        return [say.broken(_told(history, noise) + where, noise, around, how=how)]
    if not history.windows:
        return [say.unknown(f"nothing bad was printed, but {no_window(history)}")]
    told = f"none of {number(len(printed), 'line')} of output tells of an exception that nobody handles"
    return [say.held(told, edges(history, history.windows[-1]))]


def ignored(printed: Sequence[Event]) -> list[list[Event]]:
    """What Python says of each exception that it has ignored, with its traceback: nothing has ended by such a one.

    A thread has, of which Python says much the same.
    """
    found: list[list[Event]] = []
    inside = raised = False
    for event in printed:
        line = event["line"]
        if line.startswith("Exception ignored ") and not line.startswith("Exception ignored in thread"):
            found.append([])
            inside, raised = True, False
        elif inside and not _OF_TRACEBACK.match(line):
            inside, raised = not raised, True  # the first is that of the exception itself
        elif line == _TRACEBACK:
            raised = False  # of another, that was raised while this one was handled
        if inside:
            found[-1].append(event)
    return found


_OF_TRACEBACK = re.compile(r"$|\s|Traceback |During handling of |The above exception ")


def _is_the_faults_doing(history: History, line: Event) -> bool:
    """Whether workers tell that the arbiter is gone after we killed it."""
    killed = (event for event in history.of("fault.ok") if event["fault"] == "kill_arbiter")
    return "Parent changed" in line["line"] and any(event.t <= line.t for event in killed)


def _told(history: History, noise: list[Event]) -> str:
    lines = number(len(noise), "bad line")
    return f"{lines} in the output, the first at {clock(history, noise[0].t)}: {quoted(noise[0])}"


def _cause(printed: list[Event], index: int) -> tuple[str, list[Event], str]:
    """Of a bad line: its kind and exception, the traceback that belongs to it, and where that says it was raised.

    gevent prints the traceback of a callback or greenlet first, Python and gunicorn print theirs afterwards.
    """
    line = printed[index]["line"]
    failed = _FAILED.search(line)
    if failed is not None:
        before = printed[max(0, index - _LONGEST) : index]
        starts = [number for number, event in enumerate(before) if _TRACEBACK in event["line"]]
        around = before[starts[-1] :] if starts else []
        return _of_gevent(f"{failed[1]} failed with {failed[2]}", around), around, _where(around)
    matched = _NOISE.search(line)
    kind = matched.group(0) if matched else ""
    around = []
    for event in printed[index + 1 : index + _LONGEST]:
        around.append(event)
        raised = RAISED.match(event["line"])
        if raised is not None and kind.startswith("Exception"):
            return _of_gevent(f"{kind}: {raised[1]}", around), around, _where(around)
    return kind, [], ""


def _of_gevent(how: str, around: list[Event]) -> str:
    """The same, saying so where an assertion of gevent's own has failed."""
    frames = _frames(around)
    own = how.endswith("AssertionError") and frames and "gevent" in frames[-1][0].split("/")
    return f"{how} in gevent" if own else how


def _where(around: list[Event]) -> str:
    frames = _frames(around)
    if not frames:
        return ""
    said = next((event for event in reversed(around) if RAISED.match(event["line"])), None)
    return f", raised in {frames[-1][1]}{f': {quoted(said)}' if said else ''}"


def _frames(around: list[Event]) -> list[tuple[str, str]]:
    """(file, function) of a traceback, the innermost last."""
    found = (_FRAME.match(event["line"]) for event in around)
    return [(frame[1], frame[2]) for frame in found if frame is not None]


CLAIMS = (
    Claim(
        "quiet_runtime",
        "The server prints no exception that nobody handles: ignored, unraisable, in a thread or in a callback.",
        quiet_runtime,
    ),
)
