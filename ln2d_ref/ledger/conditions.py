"""Kinds of case on which a fault shows."""

from __future__ import annotations

import math

import numpy as np

from ..case import Case
from ..dtypes import DTYPES
from ..semantics import group_axes

__all__ = [
    "always",
    "bias_alone",
    "bias_only",
    "channels_last",
    "exceeds_half",
    "frozen_channels_last",
    "many_rows",
    "no_pixels",
    "one_element",
]


def one_element(case: Case) -> bool:
    """Whether groups hold one value."""
    return case.x.size > 0 and case.group_size == 1


def always(case: Case) -> bool:
    """Every case."""
    return True


def exceeds_half(case: Case) -> bool:
    """Whether 1/sqrt(var + eps), or that times the largest |dy·weight|·x̂², comes within 2⁴ of float16's range."""
    if case.x.size == 0:
        return False
    x = np.where(np.isfinite(case.x), case.x, 0).astype(np.float64)
    axes = group_axes(case.semantics)
    deviation = np.abs(x - x.mean(axis=axes, keepdims=True))
    root = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + case.eps)
    given = [array for array in (case.dy, case.weight) if array is not None]
    g = math.prod(float(np.abs(array.astype(np.float64)).max(initial=0.0, where=np.isfinite(array))) for array in given)
    return bool((root * np.maximum(1, g * np.maximum(1, deviation * root) ** 2)).max() > DTYPES["float16"].largest / 2**4)


def many_rows(case: Case) -> bool:
    """Whether there are more groups than a chain of additions may join."""
    return case.x.size // max(1, case.group_size) > 1 << 14


def no_pixels(case: Case) -> bool:
    """Whether H·W = 0."""
    return case.x.shape[2] * case.x.shape[3] == 0


def bias_alone(case: Case) -> bool:
    """Whether a bias is differentiated beside no weight."""
    return case.weight is None and "bias" in case.requires_grad


def channels_last(case: Case) -> bool:
    """Whether torch takes x for channels_last by its strides (c10's is_channels_last_strides_2d)."""
    shape, strides = case.x.shape, case.laid_out("x").strides(case.x.shape)
    least = 0
    if strides[1] == 0 or 0 in shape:
        return False
    for axis in (1, 3, 2, 0):
        if strides[axis] < least or (axis == 0 and least == strides[1]):
            return False
        least = strides[axis] * max(shape[axis], 1)
    return True


def frozen_channels_last(case: Case) -> bool:
    """Whether x is channels_last and frozen, and something else is differentiated."""
    return channels_last(case) and "x" not in case.requires_grad and bool(case.requires_grad)


def bias_only(case: Case) -> bool:
    """Whether a bias, beside no weight, is all that is differentiated."""
    return case.requires_grad == ("bias",) and case.weight is None
