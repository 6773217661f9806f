"""Rows of a long piece of work, one a line: what was done is not done again, and an end in the middle loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forkproof import files
from forkproof.errors import RunFolderError, UsageError

LONGEST = 1 << 29
"""Bytes that a file of rows may have."""

Row = dict[str, Any]


class Ledger:
    """The rows of a file, by their `key`; of two with one key the later one counts."""

    def __init__(self, path: Path) -> None:
        """UsageError names the line that is no row; a last line that was cut off is none, and is written over."""
        self.path = path
        self._rows: dict[str, Row] = {}
        try:
            content = files.beginning(path, LONGEST + 1) if path.exists() else b""
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}. Give --rows another file.") from None
        if len(content) > LONGEST:
            raise UsageError(f"{path}: is longer than {LONGEST} bytes. Give --rows another file.")
        whole, _, rest = content.rpartition(b"\n")
        self._cut = len(content) - len(rest) if rest else None
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or not isinstance(row.get("key"), str):
                raise UsageError(f"{path}: line {number} is no row of ours. Give --rows another file.")
            self._rows[row["key"]] = row

    def get(self, key: str) -> Row | None:
        """The row with a key."""
        return self._rows.get(key)

    def __iter__(self) -> Iterator[Row]:
        """Every row that counts."""
        return iter(self._rows.values())

    def add(self, row: Row) -> None:
        """Write a row down, whole; RunFolderError where that cannot be."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._cut is not None:
                with self.path.open("r+b") as file:
                    file.truncate(self._cut)
                self._cut = None
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: cannot be written: {error.strerror}. Give --rows another file."
            ) from None
        self._rows[row["key"]] = row
