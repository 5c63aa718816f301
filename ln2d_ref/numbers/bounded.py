"""Bounded numbers: a value, and how far an honest implementation's rounded value can be from it.

Running error analysis (Wilkinson; Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., §3.3): each operation
propagates its operands' errors, to all orders, and adds its own rounding. The value itself is computed in float64 or
double-double, so that its own error is negligible beside the error that it carries. docs/bounds.md derives every rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dtypes import DType
from .operations import magnitude, mean_square, rsqrt

__all__ = ["LONGEST_CHAIN", "Bounded", "Rounding", "chain_length"]

LONGEST_CHAIN = 4096
"""Terms up to which an honest sum may be one chain of additions; longer sums are blocked."""

_BLOCKED = 8.0
"""λ of Higham & Mary (2019): a sum of n terms is off by more than λ√n u with a probability below 2·exp(-λ²/2) = 3e-14."""

_WELFORD = 2.0
"""A running mean and the deviations from it are both off, each by at most Chan, Golub & LeVeque's (1983) n·u·rms."""

_COARSE = 2.0**-26
"""A product's error is at least u|product|, and its reach in float64 is good to some 2⁻⁵³ of it."""


def chain_length(count: int) -> float:
    """h(n): additions that one term of an honest sum of n terms goes through."""
    if count <= LONGEST_CHAIN:
        return max(count - 1, 0)
    return max(LONGEST_CHAIN - 1.0, _BLOCKED * math.sqrt(count))


@dataclass(frozen=True)
class Rounding:
    """What one operation of the arithmetic can lose: `unit` relative, `flush` absolute where subnormals are flushed.

    `terms`: of how many terms a `Bounded.sum` is a part, where it is one; 0 where it is whole. Such parts' errors add up to the whole's.
    """

    unit: float
    flush: float
    spacing: float
    terms: int = 0

    @classmethod
    def of(cls, dtype: DType, *, terms: int = 0) -> Rounding:
        """Rounding of an arithmetic dtype."""
        return cls(dtype.roundoff, dtype.smallest_normal, dtype.smallest_subnormal, terms)

    @property
    def coarse(self) -> bool:
        """Whether float64 tells |value| + error from |value| well enough to give the error back: to 2⁻²⁰ of it."""
        return self.unit >= _COARSE

    def sum(self, count: int) -> float:
        """s(n) = u(h(n) + 2), relative to the sum of magnitudes; 0 for one term, which nothing is added to."""
        return self.unit * (chain_length(count) + 2.0) if count > 1 else 0.0

    def mean(self, count: int) -> float:
        """s(n) + u for a rounded 1/n + 3u·ln n for the quotients of a running mean, δ/k at step k; 0 for one term."""
        return self.sum(count) + self.unit * (1.0 + 3.0 * math.log(count)) if count > 1 else 0.0


class Bounded:
    """value ± error in an arithmetic; value is a float64 array or a DoubleDouble, error a float64 array (or 0.0).

    What an operation needs most often is `reach`, |value| + error; a product in a coarse arithmetic gives that, and not the error.
    """

    __slots__ = ("_error", "_largest", "_least", "_reach", "_size", "rounding", "value")
    __array_ufunc__ = None

    def __init__(self, value: Any, error: Any, rounding: Rounding, size: np.ndarray | None = None, reach: np.ndarray | None = None) -> None:
        self.value = value
        self.rounding = rounding
        self._error = error
        self._size = size
        self._reach = reach
        self._largest: float | None = None
        self._least: float | None = None

    @classmethod
    def given(cls, value: Any, rounding: Rounding, *, flushable: bool) -> Bounded:
        """An input: exact, but for subnormals of the arithmetic where flushing them is allowed."""
        number = cls(value, 0.0, rounding)
        if flushable and number.least < rounding.flush:
            small = (number.size < rounding.flush) & (number.size > 0)
            if small.any():
                number._error = np.where(small, number.size, 0.0)
        return number

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        shape: tuple[int, ...] = self.value.shape
        return shape

    @property
    def size(self) -> np.ndarray:
        """|value|."""
        if self._size is None:
            self._size = magnitude(self.value)
        return self._size

    @property
    def largest(self) -> float:
        """The largest |value|, 0 of none."""
        if self._largest is None:
            self._largest = float(self.size.max(initial=0.0))
        return self._largest

    @property
    def least(self) -> float:
        """The least |value|, infinite of none."""
        if self._least is None:
            self._least = float(self.size.min(initial=np.inf))
        return self._least

    @property
    def error(self) -> Any:
        """The largest distance of an honest value from this one."""
        if self._error is None:
            self._error = self.reach - self.size
        return self._error

    @property
    def reach(self) -> np.ndarray:
        """|value| + error, the largest magnitude that an honest value has."""
        if self._reach is None:
            self._reach = self.size if isinstance(self.error, float) and self.error == 0.0 else self.size + self.error
        return self._reach

    def __add__(self, other: Bounded) -> Bounded:
        return self._sum(self.value + other.value, other)

    def __sub__(self, other: Bounded) -> Bounded:
        return self._sum(self.value - other.value, other)

    def _sum(self, value: Any, other: Bounded) -> Bounded:
        # u(|a| + |b|) and not u|a ± b|: a factor of the sum may have been distributed over it, and then each addend is rounded.
        if self._error is None or other._error is None or self.shape != other.shape:
            return self._losing(value, self._lost(), other._lost())
        error = self._error + other._error
        lost = self.size + other.size
        lost += error
        lost *= self.rounding.unit
        lost += error
        return Bounded(value, lost, self.rounding)

    def _losing(self, value: Any, lost: np.ndarray, more: np.ndarray) -> Bounded:
        return Bounded(value, np.add(lost, more, out=lost if lost.shape == value.shape else None), self.rounding)

    def _lost(self) -> np.ndarray:
        """error + u·reach: what a sum has of an operand's error, and loses by rounding it. An array of its own."""
        if self._error is None:
            lost = self.reach * (1.0 + self.rounding.unit)
            lost -= self.size
        else:
            lost = self.reach * self.rounding.unit
            lost += self._error
        return lost

    def __neg__(self) -> Bounded:
        return Bounded(-self.value, self.error, self.rounding)

    def __mul__(self, other: Bounded | float) -> Bounded:
        if isinstance(other, float):  # a power of two, or 0: exact
            return Bounded(self.value * other, self.error * abs(other), self.rounding)
        value = self.value * other.value
        if self.rounding.coarse:
            larger, smaller = self.reach, other.reach
            if larger.size < smaller.size:
                larger, smaller = smaller, larger
            reach = larger * (smaller * (1.0 + self.rounding.unit))
            reach += self.rounding.flush
            return Bounded(value, None, self.rounding, reach=reach)
        cross = self.size * other.error + other.reach * self.error
        size = magnitude(value)
        error = size + cross
        error *= self.rounding.unit
        error += cross
        error += self.rounding.flush
        return Bounded(value, error, self.rounding, size)

    __rmul__ = __mul__

    def reshape(self, *shape: Any) -> Bounded:
        """The same numbers in another shape."""
        error = self.error if np.ndim(self.error) == 0 else self.error.reshape(*shape)
        return Bounded(self.value.reshape(*shape), error, self.rounding)

    def _count(self, axis: tuple[int, ...]) -> int:
        return math.prod(self.value.shape[k] for k in axis)

    def _propagated(self, axis: tuple[int, ...], keepdims: bool, relative: float) -> np.ndarray:
        """Error of a sum over the axes, of which each addition charges so much of what is added."""
        reach = self.reach.sum(axis=axis, keepdims=keepdims)
        error = reach * relative
        if self._error is None:
            error += reach - self.size.sum(axis=axis, keepdims=keepdims)
        elif np.ndim(self._error):
            error += self._error.sum(axis=axis, keepdims=keepdims)
        elif self._error:
            raise ValueError("an error that is not 0 must be an array")
        return np.asarray(error)

    def sum(self, axis: tuple[int, ...], keepdims: bool = True) -> Bounded:
        """Sum over the axes, in any order without a chain longer than h(n)."""
        error = self._propagated(axis, keepdims, self.rounding.sum(self.rounding.terms or self._count(axis)))
        return Bounded(self.value.sum(axis=axis, keepdims=keepdims), error, self.rounding)

    def joined(self, other: Bounded) -> Bounded:
        """The whole of two parts of one sum, each with `terms` of the whole: their errors hold its roundings already."""
        return Bounded(self.value + other.value, self.error + other.error, self.rounding)

    def mean(self, axis: tuple[int, ...], keepdims: bool = True) -> Bounded:
        """Mean over the axes: of a sum, or a running or merged mean."""
        count = self._count(axis)
        error = self._propagated(axis, keepdims, self.rounding.mean(count))
        error /= count
        return Bounded(self.value.sum(axis=axis, keepdims=keepdims) / float(count), error, self.rounding)

    def mean_square(self, mean: Bounded, axis: tuple[int, ...]) -> Bounded:
        """Variance mean(d²) of d = x - mean, two-pass, running or merged.

        error = 2 s(n) · rms(x) · std(x) + 3u·var + 4·δmean², rms² = mean² + var (Chan, Golub & LeVeque 1983: Welford's condition
        number, not its square); and what flushing loses.
        """
        value = mean_square(self.value, mean.value, axis)
        variance = magnitude(value)
        deviation = np.sqrt(variance)
        unit = self.rounding.unit
        error = _WELFORD * self.rounding.sum(self._count(axis)) * np.hypot(mean.size, deviation) * deviation
        error += 3.0 * unit * variance + 4.0 * mean.error * mean.error + self.rounding.flush
        return Bounded(value, error, self.rounding)

    def folded(self, mean: Bounded) -> Bounded:
        """d, charged u|mean| more for x·scale + (b - mean·scale), and for a flushed difference."""
        return Bounded(self.value, self.error + (self.rounding.unit * mean.reach + self.rounding.flush), self.rounding)

    def shifted(self, bias: Bounded) -> Bounded:
        """self + bias, charged u|bias| more: the shift b - mean·scale is rounded, and then the sum again."""
        lost = bias._lost()
        lost += self.rounding.unit * bias.reach
        return self._losing(self.value + bias.value, self._lost(), lost)

    def rsqrt(self, eps: float) -> Bounded:
        """1/sqrt(self + eps), good to 2 ulp, of a number that is never negative.

        self + eps, with eps rounded to the arithmetic, lies in [max(v - δ, eps(1 - 2u)), v + δ]; the error is the larger distance to
        1/sqrt of an end. Not linearised: an honest Welford's variance may be 0 where the variance is far above eps.
        """
        unit = self.rounding.unit
        radicand = self.size + eps
        error = self.error + 2.0 * unit * (radicand + self.error)
        rounded_eps = eps * (1.0 - 2.0 * unit) - (self.rounding.spacing if eps < self.rounding.flush else 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            lowest = np.maximum(radicand - error, rounded_eps)
            value = rsqrt(self.value, eps)
            root = magnitude(value)
            largest = np.where(lowest > 0, 1.0 / np.sqrt(np.maximum(lowest, 0.0)), np.inf)
            distance = np.maximum(largest - root, root - 1.0 / np.sqrt(radicand + error))
            distance += 4.0 * unit * (root + distance)
        return Bounded(value, distance, self.rounding)
