"""NaN and infinity that vanish, or spread to other groups."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, finish, input_gradient, read
from .plant import plant

__all__ = ["planted"]


def _nan_as_zero(x: Tensor, call: Call) -> Tensor:
    return torch.where(x.isnan(), 0, read(x, call))


def _infinity_as_largest(x: Tensor, call: Call) -> Tensor:
    largest = torch.finfo(x.dtype).max
    return read(x.clamp(-largest, largest), call)


def _positive_infinity_as_largest(x: Tensor, call: Call) -> Tensor:
    return read(x.clamp(max=torch.finfo(x.dtype).max), call)


def _nan_in_y_as_zero(y: Tensor, call: Call) -> Tensor:
    return finish(torch.where(y.isnan(), 0, y), call)


def _saturated(y: Tensor, call: Call) -> Tensor:
    largest = torch.finfo(call.x.dtype).max
    return finish(y.clamp(-largest, largest), call)


def _masked_by_product(x: Tensor, call: Call) -> Tensor:
    return read(x, call) + 0 * read(x, call).sum()


def _dx_masked_by_product(g: Tensor, xhat: Tensor, rstd: Tensor, call: Call) -> Tensor:
    return input_gradient(g, xhat, rstd, call) + 0 * xhat.sum()


def _nan_in_dx_as_zero(g: Tensor, xhat: Tensor, rstd: Tensor, call: Call) -> Tensor:
    return torch.where((dx := input_gradient(g, xhat, rstd, call)).isnan(), 0, dx)


def planted() -> Iterator[Mutant]:
    """Yield the mutants that treat NaN or infinity wrongly."""
    for name, fault, kind, parts in (
        ("nan_in_x_as_zero", "A NaN in x counts as 0.", "cheats", {"read_x": _nan_as_zero}),
        ("nan_in_y_as_zero", "A NaN in y becomes 0.", "cheats", {"finish": _nan_in_y_as_zero}),
        ("nan_in_dx_as_zero", "A NaN in dx becomes 0.", "cheats", {"input_gradient": _nan_in_dx_as_zero}),
        (
            "infinity_as_largest",
            "An infinity in x counts as the largest finite number.",
            "value range",
            {"read_x": _infinity_as_largest},
        ),
        (
            "positive_infinity_as_largest",
            "+inf in x counts as the largest finite number.",
            "value range",
            {"read_x": _positive_infinity_as_largest},
        ),
        ("y_saturated", "A y that overflows its dtype becomes the largest finite number.", "value range", {"finish": _saturated}),
        (
            "leak_in_y",
            "Other groups are masked by a factor 0, which lets their NaN and infinity through to y.",
            "masks, tiles, tails",
            {"read_x": _masked_by_product},
        ),
        (
            "leak_in_dx",
            "Other groups are masked by a factor 0, which lets their NaN through to dx.",
            "masks, tiles, tails",
            {"input_gradient": _dx_masked_by_product},
        ),
    ):
        yield from plant(f"special_values/{name}", fault, kind, semantics=SEMANTICS, **parts)
