"""An eps that is in the wrong place, or is not the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, reciprocal_root, statistics
from .plant import plant

__all__ = ["planted"]


def _outside_the_root(variance: Tensor, call: Call) -> Tensor:
    return 1 / (variance.sqrt() + call.eps)


def _instead(change: Callable[[Call], float]) -> Callable[[Tensor, Call], Tensor]:
    """A reciprocal root with another eps, made from the call."""
    return lambda variance, call: reciprocal_root(variance, replace(call, eps=change(call)))


def _rounded(eps: float, dtype: torch.dtype) -> float:
    return float(torch.tensor(eps, dtype=torch.float64).to(dtype))


def _rounded_with_half_input(call: Call) -> float:
    return _rounded(call.eps, call.x.dtype) if call.x.dtype.itemsize == 2 else call.eps


def planted() -> Iterator[Mutant]:
    """Yield the mutants whose eps is wrong."""
    for name, fault, kind, root in (
        (
            "outside_the_root",
            "eps is added to the standard deviation, not to the variance.",
            "semantics mixed up",
            _outside_the_root,
        ),
        ("fixed", "eps is always 1e-5.", "compiled or exported", _instead(lambda call: 1e-5)),
        ("doubled", "eps is added twice.", "semantics mixed up", _instead(lambda call: 2 * call.eps)),
        (
            "divided_by_count",
            "eps is added to the sum of squares before the division by n.",
            "semantics mixed up",
            _instead(lambda call: call.eps / max(call.n, 1)),
        ),
        ("rounded_to_half", "eps is rounded to float16.", "value range", _instead(lambda call: _rounded(call.eps, torch.float16))),
        (
            "rounded_with_half_input",
            "eps is rounded to x's dtype where that has 16 bits.",
            "value range",
            _instead(_rounded_with_half_input),
        ),
        ("dropped", "eps is taken as 0.", "constant groups", _instead(lambda call: 0.0)),
    ):
        yield from plant(f"eps/{name}", fault, kind, semantics=SEMANTICS, statistics=partial(statistics, root=root))
