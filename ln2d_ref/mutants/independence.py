"""Groups or channels that reach each other where one of them leaves the range."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, input_gradient, read
from .plant import plant

__all__ = ["planted"]


def _scaled_together(x: Tensor, call: Call) -> Tensor:
    x = read(x, call)
    largest = x.abs().amax() if x.numel() else x.sum()
    overflows = bool(largest.isfinite()) and float(largest) > torch.finfo(x.dtype).max ** 0.5
    return x / largest if overflows else x


def _nan_as_zero(bias: Tensor, call: Call) -> Tensor:
    return torch.where(bias.isnan(), 0, read(bias, call))


def _gathered(bias: Tensor, call: Call) -> Tensor:
    bias = read(bias, call)
    return bias + (0 * bias).sum(0)


def _dx_switched_off(g: Tensor, xhat: Tensor, rstd: Tensor, call: Call) -> Tensor:
    """rstd is 0 where the variance overflows."""
    dx = input_gradient(g, xhat, rstd, call)
    return dx * 0 if rstd.numel() and bool((rstd == 0).any()) else dx


def planted() -> Iterator[Mutant]:
    """Yield the mutants that are right as long as all groups are in range and all biases finite."""
    for name, fault, kind, parts in (
        (
            "scaled_together",
            "Where the largest square overflows, all groups are divided by the largest value.",
            "value range",
            {"read_x": _scaled_together},
        ),
        (
            "dx_switched_off",
            "Where one group's variance overflows, dx is 0 everywhere.",
            "value range",
            {"input_gradient": _dx_switched_off},
        ),
        ("bias_nan_as_zero", "A NaN in the bias counts as 0.", "cheats", {"read_bias": _nan_as_zero}),
        (
            "bias_gathered",
            "Biases are gathered by products with 0 and 1, which let NaN and infinity through to other channels.",
            "masks, tiles, tails",
            {"read_bias": _gathered},
        ),
    ):
        yield from plant(f"independence/{name}", fault, kind, semantics=SEMANTICS, **parts)
