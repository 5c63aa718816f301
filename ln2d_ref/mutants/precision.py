"""Values held or computed in fewer bits than the contract asks for, and small relative errors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, affine, cotangent, finish, population_variance, read, saved, statistics
from .plant import plant

__all__ = ["planted"]


def _as_input(values: Tensor, call: Call) -> Tensor:
    """Values rounded to x's dtype, and widened again."""
    return read(values.to(call.x.dtype), call)


def _statistics_in_input_dtype(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    mean, rstd = statistics(x.to(call.x.dtype), call)
    return read(mean, call), read(rstd, call)


def _square_in_input_dtype(x: Tensor, mean: Tensor, call: Call) -> Tensor:
    return read((x - mean).to(call.x.dtype).square(), call).mean(call.axes, keepdim=True)


def _count_in_half(x: Tensor, mean: Tensor, call: Call) -> Tensor:
    return population_variance(x, mean, call) * (call.n / float(torch.tensor(float(call.n)).half()))


def _xhat_rounded(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    return affine(_as_input(xhat, call), weight, bias, call)


def _saved_in_input_dtype(x: Tensor, mean: Tensor, rstd: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    return saved(x, _as_input(mean, call), _as_input(rstd, call), call)


def planted() -> Iterator[Mutant]:
    """Yield the mutants that compute with too few bits, or a little beside the right value."""
    for name, fault, kind, parts in (
        (
            "statistics_in_input_dtype",
            "Mean and rstd are computed in x's dtype.",
            "value range",
            {"statistics": _statistics_in_input_dtype},
        ),
        (
            "square_in_input_dtype",
            "Only (x - mean)² is computed in x's dtype.",
            "value range",
            {"statistics": partial(statistics, variance=_square_in_input_dtype)},
        ),
        (
            "count_in_half",
            "The variance is divided by n rounded to float16.",
            "value range",
            {"statistics": partial(statistics, variance=_count_in_half)},
        ),
        (
            "weight_in_bfloat16",
            "The weight is rounded to bfloat16.",
            "dtype policy",
            {"read_weight": lambda weight, call: read(weight.bfloat16(), call)},
        ),
        ("xhat_in_input_dtype", "x̂ is rounded to x's dtype before the affine.", "dtype policy", {"affine": _xhat_rounded}),
        (
            "saved_in_input_dtype",
            "Mean and rstd are rounded to x's dtype for the backward pass.",
            "low-precision sums",
            {"saved": _saved_in_input_dtype},
        ),
        (
            "g_in_input_dtype",
            "dy·weight is rounded to x's dtype in the backward pass.",
            "backward arithmetic",
            {"cotangent": lambda dy, weight, call: _as_input(cotangent(dy, weight, call), call)},
        ),
        (
            "single_inside_double",
            "float64 input is computed in float32.",
            "dtype policy",
            {"arithmetic": lambda dtype: torch.float32},
        ),
        (
            "relative_error_2e_5",
            "y is multiplied by 1 + 2e-5.",
            "compiled or exported",
            {"finish": lambda y, call: finish(y * (1 + 2e-5), call)},
        ),
        (
            "relative_error_1e_4",
            "y is multiplied by 1.0001.",
            "compiled or exported",
            {"finish": lambda y, call: finish(y * 1.0001, call)},
        ),
    ):
        yield from plant(f"precision/{name}", fault, kind, semantics=SEMANTICS, **parts)
