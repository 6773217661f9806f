"""Failures that a project accepts for now, by names that stay from one run to the next.

A file `{"schema": 1, "accepted": [id, ..]}`, to be kept beside the project's code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from forkproof import files
from forkproof.errors import RunFolderError, UsageError


def read(path: Path) -> frozenset[str]:
    """The ids in a file; UsageError where it is no baseline."""
    try:
        found = json.loads(files.beginning(path, files.MOST))
        ids = found["accepted"]
        if found["schema"] != 1 or not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise ValueError("it is not of schema 1")
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file. Write it with --write-baseline {path}") from None
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: is no baseline: {error}. Write it anew with --write-baseline {path}") from None
    return frozenset(ids)


def write(path: Path, ids: Iterable[str]) -> None:
    """Accept these; RunFolderError where the file cannot be written."""
    text = json.dumps({"schema": 1, "accepted": sorted(set(ids))}, indent=1) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written: {error.strerror}. Give another file.") from None
