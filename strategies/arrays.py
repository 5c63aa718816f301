"""The arrays of a case: from a seed and regimes, or value by value where they are few."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ln2d_ref.dtypes import DTYPES
from ln2d_ref.semantics import group_axes, group_size

from .draws import Draws
from .parameters import BIASES, GRADIENTS, WEIGHTS, cancelling_bias
from .values import Setting, fill, rounded

__all__ = ["BULK_DIGITS", "Plan", "bulk_arrays", "small_arrays", "small_digits", "usable_eps"]

BULK_DIGITS = 10
_UNITS = (1.0, 0.5, 0.125, 100.0, 2.0**-10)
_CENTRES = {"x": (0.0, 1.0, 100.0, -4096.0), "weight": (1.0, 0.0), "bias": (0.0, 1.0), "dy": (0.0, 1.0)}
_WEIGHT_KINDS = ((4, "normal"), (2, "with_zeros"), (1, "near_one"), (1, "large"), (1, "ones"))
_BIAS_KINDS = ((4, "normal"), (2, "cancelling"), (1, "with_zeros"), (1, "large"), (1, "zeros"))
_GRADIENT_KINDS = ((5, "normal"), (1, "ones"), (1, "one_hot"), (2, "last_pixel"), (1, "constant"), (1, "aligned"), (1, "with_zeros"))
_MANY_GROUPS = 4096  # from which on dy is its last pixel in half of the cases: a random one hides the loss of rows in what a sum may lose
_OF_MANY = (*_GRADIENT_KINDS, (sum(weight for weight, _ in _GRADIENT_KINDS), "last_pixel"))


@dataclass(frozen=True)
class Plan:
    """What has been picked before layouts and values are."""

    shape: tuple[int, ...]
    parameter: tuple[int, ...]
    dtype: str
    semantics: str
    eps: float
    affine: str
    requires_grad: tuple[str, ...]
    device: str
    threads: int

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Of an argument."""
        return self.shape if name in ("x", "dy") else self.parameter

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arguments that there are."""
        return ("x", *(name for name in ("weight", "bias") if self.affine in ("both", name)), "dy")


def bulk_arrays(draws: Draws, plan: Plan, regimes: tuple[str, ...]) -> tuple[str, dict[str, np.ndarray]]:
    """Arrays from a seed, a regime for x and one for each parameter."""
    dtype = DTYPES[plan.dtype]
    regime, strength, also_in = draws.choice(regimes), draws.integer(0, 8) / 8, draws.choice(("x", "weight", "dy"))
    many = math.prod(plan.shape) > _MANY_GROUPS * group_size(plan.shape, plan.semantics)
    weight_kind, bias_kind = draws.weighted(_WEIGHT_KINDS), draws.weighted(_BIAS_KINDS)
    dy_kind = draws.weighted(_OF_MANY if many else _GRADIENT_KINDS)
    rng = np.random.Generator(np.random.SFC64(draws.integer(0, (1 << 32) - 1)))
    arrays = {"x": fill(regime, rng, Setting(plan.shape, dtype, plan.semantics, plan.eps, strength))}
    if "weight" in plan.names:
        values = GRADIENTS["nonfinite"] if regime == "nonfinite" and also_in == "weight" else WEIGHTS[weight_kind]
        arrays["weight"] = rounded(values(rng, plan.parameter), dtype)
    if "bias" in plan.names:
        if bias_kind == "cancelling" and regime != "nonfinite" and arrays["x"].size and plan.affine == "both":
            bias = cancelling_bias(arrays["x"], arrays["weight"], usable_eps(plan, arrays["x"]), plan.semantics, plan.parameter)
        else:
            bias = BIASES["normal" if bias_kind == "cancelling" else bias_kind](rng, plan.parameter)
        arrays["bias"] = rounded(bias, dtype)
    if regime == "nonfinite" and also_in == "dy":
        dy = GRADIENTS["nonfinite"](rng, plan.shape)
    elif dy_kind != "aligned":
        dy = GRADIENTS[dy_kind](rng, plan.shape)
    elif regime == "nonfinite" or np.abs(dy := arrays["x"].astype(np.float64)).max(initial=0.0) > 1e4:
        dy = GRADIENTS["normal"](rng, plan.shape)
    arrays["dy"] = rounded(dy, dtype)
    return regime, arrays


def small_digits(plan: Plan) -> int:
    """How many digits `small_arrays` takes."""
    return sum(2 + math.prod(plan.shape_of(name)) for name in plan.names)


def small_arrays(draws: Draws, plan: Plan) -> tuple[str, dict[str, np.ndarray]]:
    """Arrays picked value by value, so that a failure is readable: centre + unit·k for small integers k.

    The first are x = 0, 1, 2, …, weight = 1, 2, 1, …, bias = 0, 1, 2, … and a one-hot dy, on which most mistakes show.
    """
    first = {"x": lambda at: at % 7, "weight": lambda at: at % 2, "bias": lambda at: at % 7, "dy": lambda at: at == 0}

    def picked(name: str) -> np.ndarray:
        unit, centre = draws.choice(_UNITS), draws.choice(_CENTRES[name])
        shape = plan.shape_of(name)
        steps = np.array([draws.integer(0, 16) for _ in range(math.prod(shape))])
        signed = (steps + 1) // 2 * np.where(steps % 2, 1.0, -1.0)
        signed += first[name](np.arange(signed.size))
        return rounded((centre + unit * signed).reshape(shape), DTYPES[plan.dtype])

    return "small", {name: picked(name) for name in plan.names}


def usable_eps(plan: Plan, x: np.ndarray) -> float:
    """The drawn eps, or 1e-5 in place of 0 where some group is constant and 0/0 would decide."""
    with np.errstate(invalid="ignore"):
        if plan.eps == 0 and (x.size == 0 or (np.ptp(x.astype(np.float64), axis=group_axes(plan.semantics)) == 0).any()):
            return 1e-5
    return plan.eps
