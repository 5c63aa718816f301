"""The two semantics of LayerNorm2d: which values are normalised together, and the shapes of the affine parameters.

| semantics | group normalised together | axes of (N, C, H, W) | affine shapes |
|-----------|---------------------------|----------------------|---------------|
| channel   | the C values of one pixel | 1                    | (C,)          |
| sample    | all values of one sample  | 1, 2, 3              | (C,), (C, H, W) |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

__all__ = ["GROUP_AXES", "SEMANTICS", "affine_axes", "check_arguments", "group_axes", "group_size", "on_axes"]

GROUP_AXES: Mapping[str, tuple[int, ...]] = MappingProxyType({"channel": (1,), "sample": (1, 2, 3)})
SEMANTICS = tuple(GROUP_AXES)
_LARGEST_EPS = float(np.finfo(np.float64).max)


def group_axes(semantics: str) -> tuple[int, ...]:
    """Axes of (N, C, H, W) that are normalised together. ValueError for an unknown semantics."""
    if semantics not in GROUP_AXES:
        raise ValueError(f"semantics is {semantics!r}, but must be one of {', '.join(map(repr, SEMANTICS))}")
    return GROUP_AXES[semantics]


def group_size(shape: tuple[int, ...], semantics: str) -> int:
    """Number n of values normalised together: C, or C·H·W."""
    return math.prod(shape[axis] for axis in group_axes(semantics))


def on_axes(parameter: np.ndarray) -> np.ndarray:
    """A weight or bias of shape (C,) or (C, H, W) as a view that broadcasts against (N, C, H, W)."""
    return parameter.reshape((1, -1, 1, 1)) if parameter.ndim == 1 else parameter[None]


def affine_axes(parameter_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes that the gradient of a parameter of this shape sums over: (0, 2, 3) for (C,), (0,) for (C, H, W)."""
    return (0, 2, 3) if len(parameter_shape) == 1 else (0,)


def check_arguments(shape: tuple[int, ...], parameters: Mapping[str, tuple[int, ...] | None], eps: float, semantics: str) -> None:
    """Raise ValueError, naming the argument, where shapes, eps and semantics do not fit together.

    `parameters` maps the names of weight- and bias-like arguments to their shapes, None where one is absent.
    """
    group_axes(semantics)
    if len(shape) != 4 or shape[1] < 1:
        raise ValueError(f"x has shape {shape}, but must have shape (N, C, H, W) with C >= 1")
    allowed = [shape[1:2]] if semantics == "channel" else [shape[1:2], shape[1:]]
    for name, parameter in parameters.items():
        if parameter is not None and parameter not in allowed:
            legal = " or ".join(map(str, allowed))
            raise ValueError(f"{name} has shape {parameter}, but must have shape {legal} for x of shape {shape}")
    if not (isinstance(eps, (int, float)) and 0 <= eps <= _LARGEST_EPS):
        raise ValueError(f"eps is {eps!r}, but must be a finite number >= 0")
