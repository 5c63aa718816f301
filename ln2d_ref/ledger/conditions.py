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
    "dbias_exceeds_half",
    "dweight_exceeds_half",
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
    """Whether 1/sqrt(var + eps), or that times the largest |dy·weight|·x̂², comes within 2⁴ of float16's range."""
    x_hat, root, dy = _normalised(case)
    weight = np.ones(1) if case.weight is None else _finite(case.weight)
    with np.errstate(all="ignore"):
        return _nears_half(root * np.maximum(1, np.abs(dy).max(initial=0.0) * np.abs(weight).max(initial=0.0) * np.maximum(1, x_hat) ** 2))


def dweight_exceeds_half(case: Case) -> bool:
    """Whether a sum of |dy·x̂| comes within 2⁴ of float16's range."""
    x_hat, _, dy = _normalised(case)
    return case.weight is not None and _nears_half((np.abs(dy) * x_hat).sum(axis=affine_axes(case.weight.shape)))


def dbias_exceeds_half(case: Case) -> bool:
    """Whether a sum of |dy| comes within 2⁴ of float16's range."""
    return case.bias is not None and _nears_half(np.abs(_finite(case.dy)).sum(axis=affine_axes(case.bias.shape)))


def _finite(array: np.ndarray | None) -> np.ndarray:
    """In float64, with 0 for what is not finite."""
    return np.nan_to_num(np.asarray(array, np.float64), posinf=0.0, neginf=0.0)


def _normalised(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """|x̂|, 1/sqrt(var + eps) and dy."""
    x, axes = _finite(case.x), group_axes(case.semantics)
    if x.size == 0:
        return x, x, _finite(case.dy)
    with np.errstate(all="ignore"):
        root = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + case.eps)
        return np.abs(x - x.mean(axis=axes, keepdims=True)) * root, root, _finite(case.dy)


def _nears_half(magnitudes: np.ndarray) -> bool:
    """Whether one is within 2⁴ of float16's range, or none at all."""
    return not bool((magnitudes <= DTYPES["float16"].largest / 2**4).all())


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
