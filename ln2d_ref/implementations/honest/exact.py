"""Error-free transformations: a sum or product as its rounded value and the exact rest, in one arithmetic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "fused_multiply_add", "sum_error", "two_product"]

Array = NDArray[np.floating]


def sum_error(a: Array, b: Array, total: Array) -> Array:
    """a + b - total exactly, where total = fl(a + b): Knuth's TwoSum (TAOCP 2, §4.2.2, theorem B)."""
    b_part = total - a
    return (a - (total - b_part)) + (b - b_part)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """(p, e) with p = fl(a b) and p + e = a b exactly, barring under- and overflow: Dekker 1971 with Veltkamp's splitting."""
    product = a * b
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def fused_multiply_add(a: Array, b: Array, c: Array) -> Array:
    """fl(a b + c), as the hardware's fma rounds it but for rare ties.

    float32: the product is exact in float64 (48 of 53 bits), so that the sum is rounded to float64 first and then to float32.
    float64: the product and the sum are two numbers each, whose small parts are added first.
    """
    if a.dtype == np.float32:
        return (a.astype(np.float64) * b + c).astype(np.float32)
    product, product_rest = two_product(a, b)
    total = product + c
    fused = total + (sum_error(product, c, total) + product_rest)
    return np.where(np.isfinite(fused), fused, total)  # the rests of an infinity are NaN


def _halves(a: Array) -> tuple[Array, Array]:
    """a as high + low, each of at most half the digits: Veltkamp's constant is 2**ceil(p/2) + 1 for p digits."""
    digits = np.finfo(a.dtype).nmant + 1
    scaled = a * a.dtype.type(2.0 ** ((digits + 1) // 2) + 1)
    high = scaled - (scaled - a)
    return high, a - high
