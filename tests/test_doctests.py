"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib

import pytest
from test_import_direction import MODULES

ENTRY_POINTS = {"forkproof.__main__"}


@pytest.mark.parametrize("name", sorted(MODULES.keys() - ENTRY_POINTS))
def test_examples(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert not failed


def test_there_are_some() -> None:
    finder = doctest.DocTestFinder()
    found = [name for name in sorted(MODULES.keys() - ENTRY_POINTS) if _examples(finder, name)]
    assert len(found) >= 5


def _examples(finder: doctest.DocTestFinder, name: str) -> bool:
    return any(test.examples for test in finder.find(importlib.import_module(name)))
