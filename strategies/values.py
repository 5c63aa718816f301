"""Values of x: regimes named for the numerics. Bulk data comes from a seed and a NumPy Generator; an element-wise draw would cost 20
times as much and shrink no better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ln2d_ref.dtypes import DTYPES, DType
from ln2d_ref.semantics import group_axes, group_size

__all__ = ["FINITE_REGIMES", "REGIMES", "Setting", "fill", "rounded"]

Array = np.ndarray


@dataclass(frozen=True)
class Setting:
    """What a regime may look at: shape and dtype of x, semantics, eps, and a strength in [0, 1] that says how far it goes."""

    shape: tuple[int, ...]
    dtype: DType
    semantics: str
    eps: float
    strength: float

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes of a group."""
        return group_axes(self.semantics)

    @property
    def groups(self) -> tuple[int, ...]:
        """Shape of one value for each group."""
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(self.shape))

    @property
    def ceiling(self) -> float:
        """Largest safe magnitude: n²·x² stays 2⁸ below the arithmetic's overflow, and x below the dtype's."""
        arithmetic = self.dtype if self.dtype.digits >= 24 else DTYPES["float32"]
        return float(
            min(
                2.0 ** ((arithmetic.max_exponent - 16) // 2) / max(1, group_size(self.shape, self.semantics)),
                self.dtype.largest / 4,
            )
        )


def _normal(rng: np.random.Generator, s: Setting) -> Array:
    return rng.standard_normal(s.shape)


def _offset(rng: np.random.Generator, s: Setting) -> Array:
    """mean ≫ spread: 10 to 10⁵ times, with one sign or a sign for each group."""
    mean = 10.0 ** (1 + 4 * s.strength) * np.where(rng.random(s.groups) < 0.8, 1.0, -1.0)
    return mean + rng.standard_normal(s.shape)


def _near_constant(rng: np.random.Generator, s: Setting) -> Array:
    """var ≈ eps, about a constant."""
    return np.rint(100 * s.strength) + np.sqrt(s.eps) * rng.standard_normal(s.shape) * rng.choice([0.3, 1.0, 3.0], s.groups)


def _constant(rng: np.random.Generator, s: Setting) -> Array:
    """One value for each group, of any size that is safe."""
    return np.broadcast_to(rng.standard_normal(s.groups) * 10.0 ** (6 * s.strength - 1), s.shape)


def _two_valued(rng: np.random.Generator, s: Setting) -> Array:
    low, high = 1000 * s.strength + rng.standard_normal(2)
    return np.where(rng.random(s.shape) < 0.5, low, high)


def _outlier(rng: np.random.Generator, s: Setting) -> Array:
    """One value of each group is far from the others."""
    x = rng.standard_normal(s.shape)
    return np.where(_one_of_each_group(rng, s), 10.0 ** (1 + 3 * s.strength) * np.sign(x), x)


def _mixed_scale(rng: np.random.Generator, s: Setting) -> Array:
    """Each group at a scale of its own, 10⁻⁴ to 10⁴."""
    return rng.standard_normal(s.shape) * 10.0 ** rng.integers(-4, 5, s.groups)


def _ramp(rng: np.random.Generator, s: Setting) -> Array:
    return (np.arange(np.prod(s.shape, dtype=np.int64)) * 2.0**-4 + 100 * s.strength).reshape(s.shape)


def _one_hot(rng: np.random.Generator, s: Setting) -> Array:
    return _one_of_each_group(rng, s).astype(np.float64)


def _tiny(rng: np.random.Generator, s: Setting) -> Array:
    """Far below sqrt(eps), down to the dtype's smallest normal numbers."""
    return rng.standard_normal(s.shape) * max(10.0 ** (-3 - 27 * s.strength), 64 * s.dtype.smallest_normal)


def _subnormal(rng: np.random.Generator, s: Setting) -> Array:
    return rng.integers(-8, 9, s.shape) * s.dtype.smallest_subnormal


def _huge(rng: np.random.Generator, s: Setting) -> Array:
    """Up to the largest magnitude whose n²·x² does not overflow."""
    return np.clip(rng.standard_normal(s.shape) / 4, -1, 1) * s.ceiling ** (0.5 + 0.5 * s.strength)


def _integers(rng: np.random.Generator, s: Setting) -> Array:
    return rng.integers(-4, 5, s.shape).astype(np.float64)


def _heavy_tailed(rng: np.random.Generator, s: Setting) -> Array:
    return rng.standard_t(1.5 + 2 * s.strength, s.shape)


def _nonfinite(rng: np.random.Generator, s: Setting) -> Array:
    """Normal, with a NaN or infinity in one to three places."""
    x = rng.standard_normal(s.shape)
    places = rng.integers(0, max(1, x.size), 1 + int(2.99 * s.strength))
    if x.size:
        x.reshape(-1)[places] = rng.choice([np.nan, np.inf, -np.inf], places.size)
    return x


def _one_of_each_group(rng: np.random.Generator, s: Setting) -> Array:
    """Mask of one place in each group, along the last axis of the group that is longer than 1."""
    axis = max(s.axes, key=lambda axis: s.shape[axis])
    at = rng.integers(0, max(1, s.shape[axis]), s.groups)
    index = np.arange(s.shape[axis]).reshape([-1 if k == axis else 1 for k in range(4)])
    others = np.ones((1, 1, 1, 1), bool)
    for k in set(s.axes) - {axis}:
        others = others & (np.arange(s.shape[k]).reshape([-1 if j == k else 1 for j in range(4)]) == 0)
    mask: Array = np.broadcast_to((index == at) & others, s.shape)
    return mask


REGIMES: Mapping[str, Callable[[np.random.Generator, Setting], Array]] = MappingProxyType(
    {
        "normal": _normal,
        "offset": _offset,
        "near_constant": _near_constant,
        "constant": _constant,
        "two_valued": _two_valued,
        "outlier": _outlier,
        "mixed_scale": _mixed_scale,
        "ramp": _ramp,
        "one_hot": _one_hot,
        "tiny": _tiny,
        "subnormal": _subnormal,
        "huge": _huge,
        "integers": _integers,
        "heavy_tailed": _heavy_tailed,
        "nonfinite": _nonfinite,
    }
)
"""Regimes of x, by name."""

FINITE_REGIMES = tuple(regime for regime in REGIMES if regime != "nonfinite")
"""Regimes without NaN and infinity."""


def fill(regime: str, rng: np.random.Generator, setting: Setting) -> Array:
    """An array of the setting's shape and dtype; finite and in contract in every regime but `nonfinite`."""
    x = REGIMES[regime](rng, setting)
    return rounded(x if regime == "nonfinite" else np.clip(x, -setting.ceiling, setting.ceiling), setting.dtype)


def rounded(values: Array, dtype: DType) -> Array:
    """Values in a dtype; finite ones stay finite."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        limited = np.where(np.isinf(values), values, np.clip(values, -dtype.largest, dtype.largest))
        result: Array = limited.astype(dtype.numpy)
    return result
