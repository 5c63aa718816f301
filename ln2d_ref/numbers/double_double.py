"""Double-double numbers: an unevaluated sum of two float64, good to about 2**-104 relative.

Dekker, "A floating-point technique for extending the available precision" (1971); Hida, Li & Bailey, "Algorithms for
quad-double precision floating point arithmetic" (2001). `np.longdouble` would be simpler but has only 64 bits of precision on
x86 and is plain float64 on other platforms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["DoubleDouble", "two_product", "two_sum"]

Array = np.ndarray[Any, np.dtype[np.float64]]

_SPLITTER = 2.0**27 + 1.0  # Veltkamp: halves a 53-bit significand
_SPLIT_LIMIT = 2.0**990  # above it, multiplying by the splitter could overflow
_SPLIT_SCALE = 2.0**-60


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """fl(a + b) and its exact error, for any a and b (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _quick_two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """fl(a + b) and its exact error, for |a| >= |b| (Dekker)."""
    total = a + b
    return total, b - (total - a)


def _split(a: Array) -> tuple[Array, Array]:
    scaled = a * _SPLITTER
    high = scaled - (scaled - a)
    return high, a - high


def _product_error(a: Array, b: Array, product: Array) -> Array:
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    error: Array = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return error


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """fl(a·b) and its exact error, where neither overflows nor underflows (Dekker, Veltkamp)."""
    product = a * b
    if max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0)) <= _SPLIT_LIMIT:
        return product, _product_error(a, b, product)
    a_scale = np.where(np.abs(a) > _SPLIT_LIMIT, _SPLIT_SCALE, 1.0)
    b_scale = np.where(np.abs(b) > _SPLIT_LIMIT, _SPLIT_SCALE, 1.0)
    scale = a_scale * b_scale
    return product, _product_error(a * a_scale, b * b_scale, product * scale) / scale


class DoubleDouble:
    """The array hi + lo, with |lo| at most half a unit in hi's last place; broadcasts as NumPy arrays do."""

    __slots__ = ("hi", "lo")
    __array_ufunc__ = None  # `array * DoubleDouble` is ours, not a NumPy array of objects

    def __init__(self, hi: Array, lo: Array | None = None) -> None:
        self.hi = np.asarray(hi, dtype=np.float64)
        self.lo = np.zeros_like(self.hi) if lo is None else lo

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.hi.shape

    def __add__(self, other: Any) -> DoubleDouble:
        other = _promote(other)
        high, error = two_sum(self.hi, other.hi)
        low, low_error = two_sum(self.lo, other.lo)
        high, error = _quick_two_sum(high, error + low)
        return DoubleDouble(*_quick_two_sum(high, error + low_error))

    __radd__ = __add__

    def __neg__(self) -> DoubleDouble:
        return DoubleDouble(-self.hi, -self.lo)

    def __sub__(self, other: Any) -> DoubleDouble:
        return self + (-_promote(other))

    def __rsub__(self, other: Any) -> DoubleDouble:
        return _promote(other) - self

    def __mul__(self, other: Any) -> DoubleDouble:
        other = _promote(other)
        high, error = two_product(self.hi, other.hi)
        return DoubleDouble(*_quick_two_sum(high, error + (self.hi * other.lo + self.lo * other.hi)))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> DoubleDouble:
        """Quotient by one float64 number."""
        quotient = self.hi / divisor
        product, error = two_product(quotient, np.asarray(divisor, np.float64))
        rest = (self.hi - product) - error + self.lo
        return DoubleDouble(*_quick_two_sum(quotient, rest / divisor))

    def __getitem__(self, index: Any) -> DoubleDouble:
        return DoubleDouble(self.hi[index], self.lo[index])

    def reshape(self, *shape: Any) -> DoubleDouble:
        """The same numbers in another shape."""
        return DoubleDouble(self.hi.reshape(*shape), self.lo.reshape(*shape))

    def ldexp(self, exponent: Any) -> DoubleDouble:
        """self · 2**exponent."""
        return DoubleDouble(np.ldexp(self.hi, exponent), np.ldexp(self.lo, exponent))

    def sum(self, axis: tuple[int, ...], keepdims: bool = True) -> DoubleDouble:
        """Sum over the axes, by halving, so that errors grow with log n."""
        kept = [k for k in range(self.hi.ndim) if k not in axis]
        rows = self._moved((*kept, *axis)).reshape(*(self.hi.shape[k] for k in kept), -1)
        while (length := rows.shape[-1]) > 1:
            half = length // 2
            folded = rows[..., :half] + rows[..., half : 2 * half]
            rows = folded if length % 2 == 0 else folded._joined(rows[..., 2 * half :])
        if rows.shape[-1] == 0:
            rows = DoubleDouble(np.zeros((*rows.shape[:-1], 1)))
        shape = [1 if k in axis else self.hi.shape[k] for k in range(self.hi.ndim)]
        return rows.reshape(shape if keepdims else [self.hi.shape[k] for k in kept])

    def mean(self, axis: tuple[int, ...], keepdims: bool = True) -> DoubleDouble:
        """Mean over the axes."""
        count = math.prod(self.hi.shape[k] for k in axis)
        return self.sum(axis, keepdims) / float(count)

    def rsqrt(self, eps: Any) -> DoubleDouble:
        """1/sqrt(self + eps): one Newton step from the float64 value, r + r(1 - a·r²)/2."""
        radicand = self + _promote(eps)
        with np.errstate(divide="ignore", invalid="ignore"):
            start = 1.0 / np.sqrt(radicand.hi)
            root = DoubleDouble(start)
            rest = DoubleDouble(np.ones_like(start)) - radicand * root * root
            return root + DoubleDouble(start * rest.hi * 0.5)

    def _moved(self, order: tuple[int, ...]) -> DoubleDouble:
        return DoubleDouble(self.hi.transpose(order), self.lo.transpose(order))

    def _joined(self, other: DoubleDouble) -> DoubleDouble:
        return DoubleDouble(np.concatenate([self.hi, other.hi], axis=-1), np.concatenate([self.lo, other.lo], axis=-1))


def _promote(value: Any) -> DoubleDouble:
    return value if isinstance(value, DoubleDouble) else DoubleDouble(np.asarray(value, dtype=np.float64))
