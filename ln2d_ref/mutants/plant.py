"""Mutants made from the right LayerNorm2d by replacing one part of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from ..implementations.implementation import Implementation
from .base import Form, LayerNorm2d, layer_norm_2d
from .mutant import Mutant

__all__ = ["plant"]

_PARTS = frozenset(part.name for part in fields(Form))


def plant(
    name: str,
    fault: str,
    kind: str,
    *,
    semantics: tuple[str, ...] = ("channel",),
    affine_shape: str = "channel",
    axes: tuple[int, ...] | None = None,
    node: Any = LayerNorm2d,
    **parts: Any,
) -> Iterator[Mutant]:
    """Yield a Mutant for each of the semantics: the right LayerNorm2d with these parts (at most one), axes or node replaced.

    Those beyond channel semantics are named for theirs. A replaced part must hold no state where semantics are several.
    """
    if len(parts) > 1 or not parts.keys() <= _PARTS:
        raise ValueError(f"parts are {', '.join(parts)}, but must be at most one of {', '.join(sorted(_PARTS))}")
    for each in semantics:
        full = name if each == "channel" else f"{name}_{each}"
        fn = layer_norm_2d(Form(**parts), semantics=each, axes=axes, node=node)
        fn.__name__ = fn.__qualname__ = full
        yield Mutant(full, fault, kind, Implementation(fn, name=full, semantics=each, affine_shape=affine_shape))
