"""Parameter gradients whose running sum is held in 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .mutant import Mutant
from .parts import Call, sum_rows
from .plant import plant

__all__ = ["planted"]

_STEPS = 4096  # keeps a call with many rows short; past them each step adds a block of rows


def _chain(terms: Tensor, parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum over rows for a parameter of shape (C,), one row after another, each partial sum rounded to dtype."""
    rows = terms.movedim(1, -1).reshape(-1, parameter.numel())
    total = rows.new_zeros(parameter.numel(), dtype=dtype)
    for block in rows.split(-(-max(len(rows), 1) // _STEPS)):
        total = total + block.sum(0).to(dtype)
    return total


def _dweight(dtype_of: Callable[[Call], torch.dtype]) -> Callable[[Tensor, Tensor, Call], Tensor]:
    return lambda dy, xhat, call: _chain(dy * xhat, call.weight, dtype_of(call))


def _dbias(dtype_of: Callable[[Call], torch.dtype]) -> Callable[[Tensor, Call], Tensor]:
    return lambda dy, call: _chain(dy, call.bias, dtype_of(call))


def _dweight_terms_rounded(dy: Tensor, xhat: Tensor, call: Call) -> Tensor:
    return sum_rows((dy * xhat).to(call.x.dtype).to(call.arithmetic), call.weight)


def planted() -> Iterator[Mutant]:
    """Yield the mutants whose dweight or dbias is summed in too few bits."""
    for name, fault, parts in (
        ("dweight_in_bfloat16", "dweight is accumulated in bfloat16.", {"weight_gradient": _dweight(lambda call: torch.bfloat16)}),
        (
            "dweight_in_input_dtype",
            "dweight is accumulated in x's dtype.",
            {"weight_gradient": _dweight(lambda call: call.x.dtype)},
        ),
        (
            "dweight_terms_in_input_dtype",
            "The terms dy·x̂ of dweight are rounded to x's dtype.",
            {"weight_gradient": _dweight_terms_rounded},
        ),
        ("dbias_in_bfloat16", "dbias is accumulated in bfloat16.", {"bias_gradient": _dbias(lambda call: torch.bfloat16)}),
        ("dbias_in_input_dtype", "dbias is accumulated in x's dtype.", {"bias_gradient": _dbias(lambda call: call.x.dtype)}),
    ):
        yield from plant(f"low_precision_sums/{name}", fault, "low-precision sums", **parts)
