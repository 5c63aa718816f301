"""Values of weight, bias and dy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from ln2d_ref import reference

__all__ = ["BIASES", "GRADIENTS", "WEIGHTS", "cancelling_bias"]

Array = np.ndarray
Regimes = Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], Array]]


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def _with_zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape) * (rng.random(shape) < 0.6)


def _large(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape) * 1000.0


def _near_one(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return 1.0 + 0.1 * rng.standard_normal(shape)


def _ones(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.ones(shape)


def _zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.zeros(shape)


def _constant(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One value everywhere, as the mean's backward makes it."""
    return np.full(shape, rng.choice([0.1, 1.0 / max(1, int(np.prod(shape))), -0.7]))


def _one_hot(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    array = np.zeros(shape)
    if array.size:
        array.reshape(-1)[rng.integers(array.size)] = 1.0
    return array


def _last_pixel(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Nothing but at the end, where a sum over rows that loses some of 65,537 shows: among random ones it hides in what rounding allows."""
    array = np.zeros(shape)
    if array.size:
        array[-1, :, -1, -1] = rng.standard_normal(shape[1])
    return array


def _nonfinite(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    array = rng.standard_normal(shape)
    if array.size:
        array.reshape(-1)[rng.integers(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return array


WEIGHTS: Regimes = MappingProxyType({"normal": _normal, "near_one": _near_one, "with_zeros": _with_zeros, "large": _large, "ones": _ones})
BIASES: Regimes = MappingProxyType({"normal": _normal, "with_zeros": _with_zeros, "large": _large, "zeros": _zeros})
GRADIENTS: Regimes = MappingProxyType(
    {
        "normal": _normal,
        "ones": _ones,
        "one_hot": _one_hot,
        "last_pixel": _last_pixel,
        "constant": _constant,
        "with_zeros": _with_zeros,
        "nonfinite": _nonfinite,
    }
)


def cancelling_bias(x: Array, weight: Array | None, eps: float, semantics: str, shape: tuple[int, ...]) -> Array:
    """bias = -weight·x̂ of the first pixel or sample, so that y vanishes there and the arithmetic's own error stands bare."""
    y = reference.forward(x[:1], weight, eps=eps, semantics=semantics)[0]
    values: Array = -(y if len(shape) == 3 else y.reshape(y.shape[0], -1)[:, 0])
    return values
