"""Checks of a strategy's arguments: a bad one raises InvalidArgument, naming it, its value and the legal set."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis.errors import InvalidArgument

__all__ = ["some_of"]


def some_of(argument: str, value: str | Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """`value` as a tuple of names, each of which is allowed."""
    names = (value,) if isinstance(value, str) else tuple(value)
    if not names or any(name not in allowed for name in names):
        raise InvalidArgument(f"{argument} is {value!r}, but must be one or more of {', '.join(map(repr, allowed))}")
    return names
