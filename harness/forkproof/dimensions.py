"""The dimensions of a scenario, read off its schema: a field that is added there is shrunk, varied and counted at once.

A path leads through a scenario's plain data, as ("loops", 0, "kind"); a dimension's own path has no positions.

>>> {dimension.name: dimension.values for dimension in dimensions()}["loop.daemon"]
(False, True)
"""

from __future__ import annotations

import enum
import functools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from forkproof import bodies, servers
from forkproof.faults import REGISTRY
from forkproof.scenario import PATCH_FLAGS, LoopBody, Scenario

Path = tuple[str | int, ...]

FEW = 5
"""Numbers that can take more values than this are known by those that were drawn."""

REQUIRED = object()
"""The default of a field that has none."""

# Names are no choice of a deployment, and the schema's number is the same in all.
_NO_DIMENSION = frozenset({("schema",), ("loops", "name")})

# What the schema says with words alone: ours, and those that other packages add to them.
_WORDS: dict[tuple[str, ...], tuple[Sequence[str], Mapping[str, Any]]] = {
    ("faults", "fault"): ((), REGISTRY),
    ("loops", "body"): ([body.value for body in LoopBody], bodies.REGISTRY),
    ("server", "started_by"): ([servers.GUNICORN], servers.REGISTRY),
}


@dataclass(frozen=True)
class Dimension:
    """One field. `values` lists what it can be, as plain data; empty where that is a number or word of many."""

    path: tuple[str, ...]
    values: tuple[Any, ...]
    default: Any

    @property
    def name(self) -> str:
        """As reports call it: `preload`, `loop.kind`, `fault.after.event`."""
        return name_of(self.path)

    @property
    def owner(self) -> str:
        """The first part of the path: `server`, `loops`, ..."""
        return self.path[0]


@dataclass(frozen=True)
class Members:
    """A list of the scenario's, such as its loops: how many there may be."""

    path: tuple[str, ...]
    model: type[BaseModel]
    least: int
    most: int


@functools.cache
def dimensions() -> tuple[Dimension, ...]:
    """Every dimension, in the schema's order."""
    return tuple(found for found in _of_model(Scenario, ()) if isinstance(found, Dimension))


@functools.cache
def lists() -> tuple[Members, ...]:
    """Every list of the scenario's."""
    return tuple(found for found in _of_model(Scenario, ()) if isinstance(found, Members))


@functools.cache
def by_path() -> dict[tuple[str, ...], Dimension]:
    """The dimensions by their paths."""
    return {dimension.path: dimension for dimension in dimensions()}


def name_of(path: Sequence[str]) -> str:
    """As reports call a path: a member of a list in the singular, a setting of the server by its own name.

    >>> name_of(("server", "preload")), name_of(("loops", "kind")), name_of(("patches", "flags", "thread"))
    ('preload', 'loop.kind', 'patch.flag')
    """
    first, *rest = path
    if first in ("server", "surroundings") and rest:
        return ".".join(rest)
    singular = {"patches": "patch"}.get(first, first.removesuffix("s"))
    if not rest:
        return first
    if rest[0] == "flags":
        return f"{singular}.flag"
    if rest == ["yields", "call"]:
        return f"{singular}.yield"
    return ".".join([singular, *(part for part in rest if part != singular)])


def leaves(plain: Any) -> Iterator[tuple[Path, Dimension]]:
    """Every field of a scenario's plain data that is a dimension, with its path; flags only where they are given."""
    yield from _leaves(plain, (), ())


def at(plain: Any, path: Path) -> Any:
    """The value at a path."""
    for part in path:
        plain = plain[part]
    return plain


def minimal(members: Members) -> dict[str, Any]:
    """A member of a list with what it must say and nothing else."""
    found: dict[str, Any] = {}
    for name, info in members.model.model_fields.items():
        if info.is_required():
            dimension = by_path().get((*members.path, name))
            found[name] = dimension.values[0] if dimension is not None and dimension.values else "a"
    return found


def _leaves(plain: Any, path: Path, abstract: tuple[str, ...]) -> Iterator[tuple[Path, Dimension]]:
    dimension = by_path().get(abstract)
    if dimension is not None and not isinstance(plain, dict):
        yield path, dimension
    elif isinstance(plain, dict):
        for name, value in plain.items():
            yield from _leaves(value, (*path, name), (*abstract, name))
    elif isinstance(plain, list):
        for index, value in enumerate(plain):
            yield from _leaves(value, (*path, index), abstract)


def _of_model(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Dimension | Members]:
    for name, info in model.model_fields.items():
        yield from _of_field((*path, info.alias or name), info)


def _of_field(path: tuple[str, ...], info: FieldInfo) -> Iterator[Dimension | Members]:
    if path in _NO_DIMENSION:
        return
    if path == ("patches", "flags"):
        yield from (Dimension((*path, flag), (False, True), None) for flag in PATCH_FLAGS)
        return
    kinds = _types(info.annotation)
    bounds = _bounds(info)
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    for kind in kinds:
        inner = [part for part in typing.get_args(kind) if part is not Ellipsis]
        members = [part for part in inner if isinstance(part, type) and issubclass(part, BaseModel)]
        if members and typing.get_origin(kind) in (tuple, list):
            yield Members(path, members[0], int(bounds.get("min_length", 0)), int(bounds.get("max_length", FEW)))
            models += members
    for found in models:
        yield from _of_model(found, path)
    if path in _WORDS:
        ours, theirs = _WORDS[path]
        values: tuple[Any, ...] = (*ours, *theirs)
        kinds = []
    else:
        values = tuple(value for kind in kinds for value in _values(kind, bounds))
    open_ended = any(kind in (int, float, str) for kind in kinds)
    if not models and (len(values) > 1 or open_ended):
        yield Dimension(path, values if len(values) > 1 else (), _default(info))


def _types(annotation: Any) -> list[Any]:
    """The types of a field, through unions and annotations."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _types(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(annotation) for kind in _types(part)]
    return [annotation]


def _values(kind: Any, bounds: dict[str, float]) -> tuple[Any, ...]:
    if kind is type(None):
        return (None,)
    if kind is bool:
        return (False, True)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return tuple(member.value for member in kind)
    if typing.get_origin(kind) is typing.Literal:
        return typing.get_args(kind)
    if kind is int and {"ge", "le"} <= bounds.keys() and bounds["le"] - bounds["ge"] < FEW:
        return tuple(range(int(bounds["ge"]), int(bounds["le"]) + 1))
    return ()


def _bounds(info: FieldInfo) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in info.metadata:
        for name in ("ge", "le", "min_length", "max_length"):
            value = getattr(item, name, None)
            if value is not None:
                found[name] = value
    return found


def _default(info: FieldInfo) -> Any:
    if info.is_required():
        return REQUIRED
    value = info.get_default(call_default_factory=True)
    return value.value if isinstance(value, enum.Enum) else value
