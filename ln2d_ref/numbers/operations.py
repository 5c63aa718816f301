"""The few operations beyond + - × sum and mean that a formula needs, for any kind of number.

A float64 array is a kind of number as it is; every other kind brings these operations as methods. `folded` changes no value: it
is a hook by which bounded numbers charge for a form of the last step that the formula does not show.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["folded", "magnitude", "mean_square", "rsqrt", "shifted", "zero_like"]


def rsqrt(value: Any, eps: Any) -> Any:
    """1/sqrt(value + eps) for value >= 0."""
    if isinstance(value, np.ndarray):
        return 1.0 / np.sqrt(value + eps)
    return value.rsqrt(eps)


def mean_square(d: Any, mean: Any, axis: tuple[int, ...]) -> Any:
    """Variance mean(d²) of d = x - mean; bounded numbers charge a running mean, as Welford's, beside the two-pass form."""
    if hasattr(d, "mean_square"):
        return d.mean_square(mean, axis)
    return (d * d).mean(axis=axis, keepdims=True)


def folded(d: Any, mean: Any) -> Any:
    """d = x - mean, charged for an implementation that computes x·scale + shift instead of (x - mean)·scale."""
    return d.folded(mean) if hasattr(d, "folded") else d


def shifted(y: Any, bias: Any) -> Any:
    """y + bias, charged for an implementation that rounds b - mean·scale before it adds x·scale."""
    return y.shifted(bias) if hasattr(y, "shifted") else y + bias


def magnitude(value: Any) -> np.ndarray:
    """|value| as float64."""
    return np.abs(value if isinstance(value, np.ndarray) else value.hi)


def zero_like(value: Any) -> Any:
    """The number 0 of the same kind and shape."""
    return value * 0.0
