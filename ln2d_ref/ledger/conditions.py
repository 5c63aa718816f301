"""Kinds of case on which a fault shows."""

from __future__ import annotations

import numpy as np

from ..case import Case
from ..dtypes import DTYPES
from ..semantics import affine_axes, group_axes

__all__ = [
    "always",
    "bias_alone",
    "bias_only",
    "channels_last",
    "exceeds_half",
    "frozen_channels_last",
    "many_terms",
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
    """Whether 1/sqrt(var + eps), that times the largest |dy·weight|·x̂², or a sum of |dy| or |dy·x̂| nears float16's range within 2⁴."""
    if case.x.size == 0:
        return False
    given = {name: array.astype(np.float64) for name, array in case.arrays.items()}
    x, weight, dy = (np.nan_to_num(given.get(name, np.ones(1)), posinf=0.0, neginf=0.0) for name in ("x", "weight", "dy"))
    axes = group_axes(case.semantics)
    with np.errstate(all="ignore"):
        root = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + case.eps)
        x_hat = np.abs(x - x.mean(axis=axes, keepdims=True)) * root
        largest = [root * np.maximum(1, np.abs(dy).max() * np.abs(weight).max(initial=0.0) * np.maximum(1, x_hat) ** 2)]
        terms = np.abs(dy) * np.maximum(1, x_hat)
        largest += [terms.sum(axis=affine_axes(given[name].shape)) for name in ("weight", "bias") if name in given]
    return not all((array <= DTYPES["float16"].largest / 2**4).all() for array in largest)  # a NaN is not below


def many_terms(case: Case) -> bool:
    """Whether a parameter's gradient has more terms than a chain of additions may join."""
    parameter = case.weight if case.weight is not None else case.bias
    return parameter is not None and case.x.size > parameter.size << 14


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
