"""Claims and faults of other packages, found by their entry points and checked before they are used.

    [project.entry-points."forkproof.claims"]
    quick_answers = "my_package:QUICK_ANSWERS"

A plug-in that cannot be used is left out and put down in `PROBLEMS`; whoever starts something calls `require` first, so
that nobody takes a claim for judged that was never there. Standard library only: the supervisor imports this.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TextIO, TypeVar, cast

from forkproof.errors import UsageError

Thing = TypeVar("Thing")

PROBLEMS: list[str] = []
"""What is wrong with each plug-in that was left out: its name, the package, the cause and the next step."""

PATIENCE = 30.0
"""Seconds after which what another package does has not come back."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def require(*extend: Callable[[], None]) -> None:
    """Have registries take in their plug-ins, once; UsageError where one cannot be used.

    Not when the registries are imported: a plug-in imports them itself.
    """
    for one in extend:
        one()
    if PROBLEMS:
        raise UsageError("\n".join(PROBLEMS))


def found(
    group: str, kind: type[Thing], taken: Collection[str], wrong: Callable[[Thing], str]
) -> list[tuple[Thing, str]]:
    """The good plug-ins of a group by name, each with the package that it is of; the others come to `PROBLEMS`.

    `taken` are names that cannot be had. `wrong` says what else is wrong with one; empty where nothing is.
    """
    good: dict[str, tuple[Thing, str]] = {}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
        why, thing = _load(point, kind)
        if point.name in taken or point.name in good:
            why = "there is another of that name"
        why = why or (wrong(thing) if thing is not None else "")
        if why or thing is None:
            remove = f"pip uninstall {point.dist.name}" if point.dist else "remove its package"
            PROBLEMS.append(
                f"plug-in {point.name!r} of {package} (entry point {group}, {point.value}): {why}. "
                f"Correct it there, or do without: {remove}"
            )
        else:
            good[point.name] = thing, package
    return list(good.values())


def _load(point: EntryPoint, kind: type[Thing]) -> tuple[str, Thing | None]:
    try:
        thing = apart(point.load)
    except DoesNotEnd as error:
        return f"cannot be imported: it {error}", None
    except (Exception, SystemExit) as error:
        return f"cannot be imported: {type(error).__name__}: {error}", None
    if not isinstance(thing, kind):
        return f"is {type(thing).__name__}, and must be {kind.__name__}", None
    name = getattr(thing, "name", None)
    if name != point.name or not _NAME.fullmatch(point.name):
        return f"its name is {name!r}: it must be that of the entry point, in small letters, digits and _", None
    return "", thing


class DoesNotEnd(Exception):
    """What another package does has not come back in time."""


def apart(call: Callable[[], Thing]) -> Thing:
    """What a function of another package returns or raises; DoesNotEnd where it does neither.

    It has a thread of its own, which is left behind then: a signal would end nothing in the threads that `explore`
    judges in. What it prints goes to standard error, since reports go to standard output.
    """
    came: list[Callable[[], Thing]] = []

    def run() -> None:
        try:
            value = call()
        except BaseException as error:
            came.append(_raiser(error))
        else:
            came.append(lambda: value)

    thread = threading.Thread(target=run, daemon=True, name="forkproof plug-in")
    with _aside(thread):
        thread.start()
        thread.join(PATIENCE)
    if not came:
        raise DoesNotEnd(f"has not come back for {PATIENCE:g} s")
    return came[0]()


def _raiser(error: BaseException) -> Callable[[], Any]:
    def again() -> Any:
        raise error

    return again


_ASIDE: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_LOCK = threading.Lock()


class _Stdout:
    """Standard output, which is standard error for threads that are to print aside."""

    def __init__(self, real: TextIO) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr if threading.current_thread() in _ASIDE else self.real, name)


@contextlib.contextmanager
def _aside(thread: threading.Thread) -> Iterator[None]:
    with _LOCK:
        _ASIDE.add(thread)
        if not isinstance(sys.stdout, _Stdout):
            sys.stdout = cast("TextIO", _Stdout(sys.stdout))
    try:
        yield
    finally:
        with _LOCK:
            if not thread.is_alive():
                _ASIDE.discard(thread)
            if not _ASIDE and isinstance(sys.stdout, _Stdout):
                sys.stdout = sys.stdout.real
