"""Whether a JSON report is what its published schema says, and has no field that the schema does not name."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from forkproof import reports

PUBLISHED = Path(reports.__file__).with_name("schema-1.json")


def validate(report: object, kind: str) -> None:
    """`kind` is one of the schema's `anyOf`, such as `run`; ValidationError where the report is none."""
    for schema in (_published(), _closed()):
        part = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": f"#/$defs/{kind}"}
        Draft202012Validator(part).validate(report)


@functools.cache
def _published() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(PUBLISHED.read_bytes())
    Draft202012Validator.check_schema(schema)
    return schema


@functools.cache
def _closed() -> dict[str, Any]:
    """The schema without room for fields that it does not name; events and scenarios have pages of their own."""

    def close(part: Any, name: str = "") -> Any:
        if isinstance(part, list):
            return [close(one) for one in part]
        if not isinstance(part, dict):
            return part
        closed = {key: close(value, key) for key, value in part.items()}
        if "properties" in part and name != "event":
            closed.setdefault("additionalProperties", False)
        return closed

    closed: dict[str, Any] = close(_published())
    return closed
