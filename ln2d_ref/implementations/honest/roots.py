"""Reciprocal square roots. A `Root` takes v = var + eps and returns 1/sqrt(v) to within 2 units in the last place (ulp)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .exact import Array, two_product

__all__ = ["Root", "reciprocal_root", "reciprocal_root_off_by_two_ulp"]

Root = Callable[[Array], Array]

_ALLOWED_ULP = 2.0  # of CUDA's rsqrtf: CUDA C++ Programming Guide, "Mathematical Functions", maximum ulp error


def reciprocal_root(v: Array) -> Array:
    """1/sqrt(v), both operations correctly rounded: within 1.5 ulp."""
    return 1 / np.sqrt(v)


def reciprocal_root_off_by_two_ulp(direction: int) -> Root:
    """A root that returns the number farthest above (direction 1) or below (-1) the exact 1/sqrt(v) of those within 2 ulp of it.

    It is more than 1 ulp off always. Two ulp from the *correctly rounded* value would be as much as 2.5 from the exact one.
    """

    def root(v: Array) -> Array:
        fraction, exponent = np.frexp(v)
        odd = exponent % 2
        fraction = np.ldexp(fraction, -odd)  # in [1/4, 1), where nothing below under- or overflows
        near = 1 / np.sqrt(fraction)
        square, square_rest = two_product(near, near)
        product, product_rest = two_product(fraction, square)
        excess = near * ((1 - product) - product_rest - fraction * square_rest) / 2  # exact root = near + excess: a Newton step
        ulp = np.spacing(near)
        steps = np.floor(_ALLOWED_ULP + direction * excess / ulp)
        result: Array = np.ldexp(near + direction * steps * ulp, -(exponent + odd) // 2)
        return result

    return root
