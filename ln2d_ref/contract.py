"""Which groups an implementation must get right: those whose intermediate values stay in its arithmetic's normal range.

With L = largest/2⁴ and l = smallest normal·2⁴ of the arithmetic, and n the group's size, in contract are groups with

    values      n·max|x| <= L,  n²·max d² <= L,  l <= rstd <= L,  rstd·max|w|·max|x| <= L,  rstd·|w| >= l for each w but 0
    gradients   l <= rstd³ <= L, and n·max|x|, n²·max d² and rstd³, each times max|g|, <= L, and rstd³·max|g| >= l unless g is 0
    derivatives of order k, for F the product of 1 or the largest magnitude, whichever is larger, of each of weight, dy and the
                directions, and f that of 1 or the smallest but 0, whichever is smaller:
                rstd^(2k + 1)·F <= L, rstd^(2k + 1)·f >= l, n·max|x|·F <= L and n²·max d²·F <= L, as 1/sqrt(v) is differentiated k times

where d and rstd are taken as large as rounding may make them.
"""

from __future__ import annotations

import math

import numpy as np

from .dtypes import DType
from .formulas import Statistics
from .numbers import Bounded

__all__ = ["derivative_contract", "gradient_contract", "sum_contract", "value_contract"]

Array = np.ndarray
_MARGIN = 2.0**4


def _largest(array: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(array.max(axis=axes, keepdims=True))


def _least(number: Bounded) -> float:
    """The smallest of 1 and the nonzero magnitudes."""
    return min(1.0, number.least) if number.least > 0 else float(number.size.min(initial=1.0, where=number.size > 0))


def _count(x: Bounded, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[axis] for axis in axes)


def _deviation(s: Statistics) -> Array:
    """|d| as large as rounding may make it."""
    deviation: Array = s.normalised.reach / s.rstd.size
    return deviation


def value_contract(x: Bounded, s: Statistics, weight: Bounded | None, axes: tuple[int, ...], arithmetic: DType) -> Array | bool:
    """Groups outside the contract for y, with the group's axes kept as 1; False where none is."""
    limit, least, count = arithmetic.largest / _MARGIN, arithmetic.smallest_normal * _MARGIN, _count(x, axes)
    weight_size = 1.0 if weight is None else max(1.0, weight.largest)
    weight_least = 1.0 if weight is None else _least(weight)
    x_all = x.largest
    summed = 2.0 * count * x_all
    root = float(s.rstd.reach.max(initial=0.0))
    if (
        summed * summed <= limit  # which ** would refuse with OverflowError
        and s.rstd.size.min(initial=1.0) * weight_least >= least
        and root * weight_size * max(1.0, x_all) <= limit
    ):
        return False
    x_size, d, root_size = _largest(x.size, axes), _largest(_deviation(s), axes), s.rstd.reach
    inside = (count * x_size <= limit) & ((count * d) ** 2 <= limit)
    inside &= (s.rstd.size * weight_least >= least) & (root_size <= limit) & (root_size * weight_size * x_size <= limit)
    return ~inside


def gradient_contract(
    x: Bounded,
    s: Statistics,
    dy: Bounded,
    weight: Bounded | None,
    axes: tuple[int, ...],
    arithmetic: DType,
    outside: Array | bool,
) -> Array | bool:
    """Groups outside the contract for dx and dweight; `outside` are those outside it for y."""
    limit, least, count = arithmetic.largest / _MARGIN, arithmetic.smallest_normal * _MARGIN, _count(x, axes)
    weight_size = 1.0 if weight is None else max(1.0, weight.largest)
    g_all = weight_size * max(1.0, dy.largest)
    least_g = _least(dy) * (1.0 if weight is None else _least(weight))
    smallest, largest = float(s.rstd.size.min(initial=1.0)), float(s.rstd.reach.max(initial=1.0))
    x_all = 2.0 * count * x.largest
    if outside is False and max(x_all * x_all, x_all, largest * largest * largest) * g_all <= limit and smallest**3 * least_g >= least:
        return False
    g = _largest(np.maximum(dy.size, 1.0), axes) * weight_size
    x_size, d = _largest(x.size, axes), _largest(_deviation(s), axes)
    products = np.maximum(np.maximum(count * x_size, (count * d) ** 2), s.rstd.reach**3) * g
    own = _largest(dy.size if weight is None else dy.size * weight.size, axes)
    smallest_product = s.rstd.size**3 * np.where(own > 0, np.minimum(own, 1.0), 1.0)
    return outside | ~((products <= limit) & (smallest_product >= least))


def derivative_contract(
    x: Bounded, s: Statistics, factors: list[Bounded], order: int, axes: tuple[int, ...], arithmetic: DType, outside: Array | bool
) -> Array | bool:
    """Groups outside the contract for derivatives of this order; `factors` are weight, dy and the directions."""
    limit, least, count = arithmetic.largest / _MARGIN, arithmetic.smallest_normal * _MARGIN, _count(x, axes)
    largest = math.prod(max(1.0, factor.largest) for factor in factors)
    smallest = math.prod(_least(factor) for factor in factors)
    power = 2 * order + 1
    inside = (s.rstd.reach**power * largest <= limit) & (s.rstd.size**power * smallest >= least)
    inside &= (count * _largest(x.size, axes) * largest <= limit) & ((count * _largest(_deviation(s), axes)) ** 2 * largest <= limit)
    return outside | ~inside


def sum_contract(largest: float, count: int, arithmetic: DType) -> bool:
    """Whether a sum of so many terms, the largest of this magnitude, could leave the range: M·max|dy| > L."""
    return count * largest > arithmetic.largest / _MARGIN
