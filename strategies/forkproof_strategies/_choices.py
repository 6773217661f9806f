"""Strategies that are made once: making and validating one costs Hypothesis more than drawing from it."""

from __future__ import annotations

import functools
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")

BOOLEANS = st.booleans()


@functools.cache
def integers(min_value: int, max_value: int) -> st.SearchStrategy[int]:
    """Whole numbers, shrinking towards the least."""
    return st.integers(min_value, max_value)


@functools.cache
def _sampled(values: tuple[object, ...]) -> st.SearchStrategy[object]:
    return st.sampled_from(values)


def one_of(*values: T) -> st.SearchStrategy[T]:
    """One of these, shrinking towards the first."""
    return _sampled(values)  # type: ignore[return-value]
