"""Wide numbers: double-double with an exponent of its own, so that nothing finite overflows or underflows inside a formula.

A value is significand · 2**exponent with the significand's magnitude in [1/2, 1) (or 0) and an integer exponent for each element.
This takes the place of scaling each group by a power of two by hand: x at 1e300, eps at 1e-12 and a weight at 1e-300 then need no
case distinction in any formula.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .double_double import DoubleDouble

__all__ = ["Wide"]

_ZERO_EXPONENT = -(1 << 20)  # of a zero: below every exponent that a product of float64 numbers can reach
_SHIFT_LIMIT = 2100  # a shift by more leaves nothing of a double-double


class Wide:
    """The array significand · 2**exponent; built from float64 numbers or from the parts."""

    __slots__ = ("exponent", "significand")
    __array_ufunc__ = None

    def __init__(self, significand: Any, exponent: Any = 0) -> None:
        if not isinstance(significand, DoubleDouble):
            significand = DoubleDouble(np.asarray(significand, dtype=np.float64))
        _, shift = np.frexp(significand.hi)
        self.significand = significand.ldexp(-shift)
        self.exponent = np.where(significand.hi == 0, _ZERO_EXPONENT, exponent + shift.astype(np.int64))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.exponent.shape

    def double_double(self) -> DoubleDouble:
        """The nearest double-double; infinite or zero where float64's range ends."""
        with np.errstate(over="ignore", under="ignore"):
            return self.significand.ldexp(np.clip(self.exponent, -3000, 3000))

    def __add__(self, other: Any) -> Wide:
        other = _promote(other)
        exponent = np.maximum(self.exponent, other.exponent)
        return Wide(self._at(exponent) + other._at(exponent), exponent)

    __radd__ = __add__

    def __neg__(self) -> Wide:
        return Wide(-self.significand, self.exponent)

    def __sub__(self, other: Any) -> Wide:
        return self + (-_promote(other))

    def __rsub__(self, other: Any) -> Wide:
        return _promote(other) - self

    def __mul__(self, other: Any) -> Wide:
        other = _promote(other)
        return Wide(self.significand * other.significand, self.exponent + other.exponent)

    __rmul__ = __mul__

    def reshape(self, *shape: Any) -> Wide:
        """The same numbers in another shape."""
        return Wide(self.significand.reshape(*shape), self.exponent.reshape(*shape))

    def sum(self, axis: tuple[int, ...], keepdims: bool = True) -> Wide:
        """Sum over the axes."""
        largest = self.exponent.max(axis=axis, keepdims=True, initial=_ZERO_EXPONENT)
        total = self._at(largest).sum(axis, keepdims)
        return Wide(total, largest if keepdims else largest.reshape(total.shape))

    def mean(self, axis: tuple[int, ...], keepdims: bool = True) -> Wide:
        """Mean over the axes."""
        count = math.prod(self.exponent.shape[k] for k in axis)
        total = self.sum(axis, keepdims)
        return Wide(total.significand / float(count), total.exponent)

    def rsqrt(self, eps: Any) -> Wide:
        """1/sqrt(self + eps)."""
        radicand = self + _promote(eps)
        odd = radicand.exponent & 1
        return Wide(radicand.significand.ldexp(odd).rsqrt(0.0), -((radicand.exponent - odd) >> 1))

    def _at(self, exponent: Any) -> DoubleDouble:
        shift = np.clip(self.exponent - exponent, -_SHIFT_LIMIT, 0)
        with np.errstate(under="ignore"):
            return self.significand.ldexp(shift)


def _promote(value: Any) -> Wide:
    return value if isinstance(value, Wide) else Wide(value)
