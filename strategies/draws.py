"""Draws that depend on the seed alone.

Hypothesis mixes constants that it finds in imported local modules into its integers and floats, so that the same seed gives other
draws once another module is imported. Integers far outside every constant's range are left alone; all draws here are such integers,
shifted back. They are uniform and shrink towards the first option, or towards `low`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from operator import itemgetter
from typing import ParamSpec, TypeVar

from hypothesis import strategies as st

__all__ = ["chances", "choices", "integers", "unrepeating", "weighted"]

T = TypeVar("T")
P = ParamSpec("P")
_FAR = 1 << 100


@lru_cache(maxsize=1024)
def integers(low: int, high: int) -> st.SearchStrategy[int]:
    """Uniform integers in [low, high]; shrink towards low."""
    return st.integers(_FAR, _FAR + (high - low)).map(lambda drawn: drawn - _FAR + low)


def choices(options: tuple[T, ...]) -> st.SearchStrategy[T]:
    """One of the options, which are hashable, uniformly; shrinks towards the first."""
    return _choices(options, repr(options))


@lru_cache(maxsize=1024)
def _choices(options: tuple[T, ...], shown: str) -> st.SearchStrategy[T]:
    """Kept, since Hypothesis examines each new strategy at length; `shown` tells (1, 0) from (1.0, False), which are equal."""
    return integers(0, len(options) - 1).map(options.__getitem__)


def weighted(options: Sequence[tuple[int, T]]) -> st.SearchStrategy[T]:
    """One of the options, with integer weights; shrinks towards the first."""
    return choices(tuple(option for weight, option in options for _ in range(weight)))


@lru_cache(maxsize=64)
def chances(one_in: int) -> st.SearchStrategy[bool]:
    """True once in `one_in`; shrinks towards False."""
    return integers(0, one_in - 1).map(lambda drawn: drawn == one_in - 1)


def unrepeating(make: Callable[P, st.SearchStrategy[T]]) -> Callable[P, st.SearchStrategy[T]]:
    """Strategies of the same values, each drawn afresh.

    After each example Hypothesis tries up to five that copy one of its draws over another of the same kind. That finds equal elements
    in collections, but here it turns a dtype into a regime, and four cases in five differ little from the one before: 400 cases
    hold 115 shapes instead of 347. It leaves collections of unique elements alone, and a case is drawn as one of one element.
    """

    @wraps(make)
    def unrepeated(*args: P.args, **kwargs: P.kwargs) -> st.SearchStrategy[T]:
        return st.lists(make(*args, **kwargs), min_size=1, max_size=1, unique_by=id).map(itemgetter(0))

    return unrepeated
