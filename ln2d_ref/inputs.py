"""Validated arguments of the reference, placed on the axes of x, with what is not finite in them kept apart."""

from __future__ import annotations

from copy import copy
from functools import cached_property, reduce
from typing import Any

import numpy as np

from .dtypes import DTYPES, dtype_of
from .numbers import Wide
from .semantics import affine_axes, check_arguments, group_axes, group_size, on_axes

__all__ = ["Inputs", "either"]

Array = np.ndarray
_SMALLEST_PLAIN_EPS = 1e-60
"""Below it, powers of 1/sqrt(eps) may leave float64's range."""
_PARAMETERS = frozenset({"weight", "bias", "cweight", "cbias", "tweight", "tbias"})


class Inputs:
    """Validated inputs on the axes of x, as numbers of one kind, with non-finite elements put to 0 and remembered."""

    def __init__(self, x: Any, eps: float, semantics: str, **others: Any) -> None:
        for name in ("dy", "cx", "tx"):
            if name in others and others[name] is None:
                raise TypeError(f"{name} has no value (None), but must be an array of the shape of x and of a floating dtype")
        given = {"x": _floating("x", x)}
        given |= {name: _floating(name, value) for name, value in others.items() if value is not None}
        self.x_shape = given["x"].shape
        parameters = {name: array.shape for name, array in given.items() if name in _PARAMETERS}
        check_arguments(self.x_shape, parameters, eps, semantics)
        for name in {"dy", "cx", "tx"} & given.keys():
            if given[name].shape != self.x_shape:
                raise ValueError(f"{name} has shape {given[name].shape}, but must have the shape of x, {self.x_shape}")
        self.shapes = {name: array.shape for name, array in given.items()}
        self.dtypes = {name: dtype_of(array) for name, array in given.items()}
        self.axes = group_axes(semantics)
        self.single = group_size(self.x_shape, semantics) == 1
        self.eps = float(eps)
        self.wide = any(array.dtype == np.float64 for array in given.values()) or 0 < self.eps < _SMALLEST_PLAIN_EPS
        laid_out = {name: np.ascontiguousarray(array) for name, array in given.items()}  # once: `part` would copy a strided whole each time
        self.given = {name: on_axes(array) if name in parameters else array for name, array in laid_out.items()}
        self.nonfinite: dict[str, Array] = {}
        for name, array in self.given.items():
            finite = np.isfinite(array)
            if not finite.all():
                self.nonfinite[name] = ~finite

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """Float64 values on the axes of x; C-contiguous, those of a part too."""
        return {name: array.astype(np.float64, order="C") for name, array in self.given.items()}

    def part(self, place: tuple[slice, ...]) -> Inputs:
        """Some samples and pixels of inputs that are all finite, with H and W laid together: a place in an (N, C, 1, H·W) array."""
        part = copy(self)
        n, c, h, w = self.x_shape
        part.__dict__.pop("arrays", None)
        part.given = {name: array if name in _PARAMETERS else array.reshape(n, c, 1, h * w)[place] for name, array in self.given.items()}
        part.x_shape = part.given["x"].shape
        part.shapes = {name: shape if name in _PARAMETERS else part.x_shape for name, shape in self.shapes.items()}
        return part

    def clean(self, name: str) -> Array:
        """Float64 values with the non-finite ones put to 0."""
        values = self.arrays[name]
        return np.where(self.nonfinite[name], 0.0, values) if name in self.nonfinite else values

    def number(self, name: str) -> Any:
        """The argument as a number of the reference's kind, or None where absent."""
        if name not in self.given:
            return None
        return Wide(self.clean(name)) if self.wide else self.clean(name)

    def bad(self, *names: str) -> Any:
        """Where one of the named arguments is not finite, broadcast on the axes of x; False where none is."""
        nowhere: Array | bool = False
        return reduce(either, (self.nonfinite[name] for name in names if name in self.nonfinite), nowhere)

    def bad_group(self, *names: str) -> Any:
        """The same for groups that hold such an element, with the group's axes kept as 1."""
        bad = self.bad(*names)
        if bad is False:
            return False
        return np.broadcast_to(bad, np.broadcast_shapes(np.shape(bad), self.x_shape)).any(axis=self.axes, keepdims=True)

    def affine(self, name: str) -> tuple[int, ...]:
        """Axes that this parameter's gradient sums over."""
        return affine_axes(self.shapes[name])


def either(one: Array | bool, other: Array | bool) -> Array | bool:
    """Where one of two masks holds, each of which may be False for nowhere."""
    return other if one is False else one if other is False else np.asarray(one | other)


def _floating(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype in {row.numpy for row in DTYPES.values()}:
        return array
    raise TypeError(f"{name} has dtype {array.dtype}, but must have one of {', '.join(DTYPES)}")
