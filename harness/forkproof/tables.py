"""Tables in TOML, checked when they are read, and what is wrong with a field, in words."""

from __future__ import annotations

import sys
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from forkproof.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = TypeVar("Table", bound=BaseModel)


def first_problem(error: ValidationError) -> str:
    """The first field that cannot be, and why."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def parse(model: type[Table], content: bytes, *, source: str, then: str) -> Table:
    """The tables of a file; UsageError names the field that cannot be, and says `then`, what is to be done."""
    try:
        return model.model_validate(tomllib.loads(content.decode()))
    except ValidationError as error:
        why = first_problem(error)
    except (ValueError, RecursionError) as error:
        why = f"is no TOML: {error}"
    raise UsageError(f"{source}: {why}. {then}")
