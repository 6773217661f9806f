"""Tables in TOML, checked when they are read."""

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


def parse(model: type[Table], content: bytes, *, source: str, then: str) -> Table:
    """The tables of a file; UsageError names the field that cannot be, and says `then`, what is to be done."""
    try:
        return model.model_validate(tomllib.loads(content.decode()))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(str(part)[:40] for part in first['loc'])}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        why = f"is no TOML: {error}"
    raise UsageError(f"{source}: {why}. {then}")
