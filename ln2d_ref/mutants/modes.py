"""Results that depend on the mode of a call, or on the parameters' dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, read
from .plant import plant

__all__ = ["planted"]


def _coarse(y: Tensor) -> Tensor:
    return y.bfloat16().to(y.dtype)


def _autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def _where(condition: Callable[[Tensor], bool], change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], object]:
    """A delivery that changes y where the call's mode is such."""
    return lambda y, x: change(y, x) if condition(x) else y


def _in_input_dtype(parameter: Tensor, call: Call) -> Tensor:
    return read(parameter.to(call.x.dtype), call)


def _narrowed(y: Tensor, x: Tensor) -> Tensor:
    return y.to(torch.get_autocast_dtype(x.device.type))


def planted() -> Iterator[Mutant]:
    """Yield the mutants that are wrong in one mode only, or with parameters of another dtype than x's."""
    for name, fault, parts in (
        (
            "no_grad_coarse",
            "The result is rounded to bfloat16 where no graph is recorded.",
            {"deliver": _where(lambda x: not torch.is_grad_enabled(), lambda y, x: _coarse(y))},
        ),
        (
            "inference_coarse",
            "The result is rounded to bfloat16 in inference mode.",
            {"deliver": _where(lambda x: torch.is_inference_mode_enabled(), lambda y, x: _coarse(y))},
        ),
        ("autocast_coarse", "The result is rounded to bfloat16 under autocast.", {"deliver": _where(_autocast, lambda y, x: _coarse(y))}),
        ("autocast_narrowed", "The result has autocast's dtype under autocast.", {"deliver": _where(_autocast, _narrowed)}),
        ("float32_weight_rounded", "A float32 weight beside half x is rounded to half.", {"read_weight": _in_input_dtype}),
        ("float32_bias_rounded", "A float32 bias beside half x is rounded to half.", {"read_bias": _in_input_dtype}),
    ):
        yield from plant(f"modes/{name}", fault, "dtype policy", semantics=SEMANTICS, **parts)
