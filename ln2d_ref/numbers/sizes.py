"""Sizes: magnitudes that only ever add up, so that a formula gives the sum of the magnitudes of its terms, cancellation left out."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Sizes"]


class Sizes:
    """An array of magnitudes; a difference of two is their sum."""

    __slots__ = ("value",)
    __array_ufunc__ = None

    def __init__(self, value: np.ndarray) -> None:
        self.value = value

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.value.shape

    def __add__(self, other: Sizes) -> Sizes:
        return Sizes(self.value + other.value)

    __sub__ = __add__

    def __mul__(self, other: Sizes | float) -> Sizes:
        return Sizes(self.value * (abs(other) if isinstance(other, float) else other.value))

    __rmul__ = __mul__

    def sum(self, axis: tuple[int, ...], keepdims: bool = True) -> Sizes:
        """Sum over the axes."""
        return Sizes(np.asarray(self.value.sum(axis=axis, keepdims=keepdims)))

    def mean(self, axis: tuple[int, ...], keepdims: bool = True) -> Sizes:
        """Mean over the axes."""
        return Sizes(np.asarray(self.value.mean(axis=axis, keepdims=keepdims)))

    @staticmethod
    def of(number: Any) -> Any:
        """Magnitudes of a bounded number as large as rounding may make them, or of each part of a dual one; None of None."""
        if number is None:
            return None
        if hasattr(number, "tangent"):
            return type(number)(Sizes.of(number.primal), Sizes.of(number.tangent))
        return Sizes(np.asarray(number.reach))
