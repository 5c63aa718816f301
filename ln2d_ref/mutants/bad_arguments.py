"""Calls that should be refused and are answered, or refused with an exception that tells nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..implementations.implementation import Implementation
from ..semantics import SEMANTICS
from .base import layer_norm_2d
from .mutant import Mutant

__all__ = ["planted"]

_Mended = Callable[[Tensor, Any, Any], tuple[Tensor, Any, Any]]


def _unbatched(x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, Any, Any]:
    return (x[None] if x.ndim == 3 else x), weight, bias


def _flattened(x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, Any, Any]:
    return (x.flatten(0, x.ndim - 4) if x.ndim > 4 else x), weight, bias


def _floated(x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, Any, Any]:
    return (x if x.is_floating_point() else x.float()), weight, bias


def _resized(parameter: Any, x: Tensor, size: Callable[[int, int], bool]) -> Any:
    """A parameter of another length repeated or cut to C, where size(length, C)."""
    if parameter is None or x.ndim != 4 or parameter.ndim != 1 or not size(len(parameter), x.shape[1]):
        return parameter
    return parameter[torch.arange(x.shape[1], device=parameter.device) % len(parameter)]


def _with(change: Callable[[Any, Tensor], Any]) -> _Mended:
    return lambda x, weight, bias: (x, change(weight, x), change(bias, x))


def _squeezed(parameter: Any, x: Tensor) -> Any:
    return parameter[..., 0] if parameter is not None and parameter.ndim in (2, 4) else parameter


def _here(parameter: Any, x: Tensor) -> Any:
    return parameter if parameter is None or parameter.device == x.device else torch.ones(parameter.shape, dtype=x.dtype, device=x.device)


def _indexed(x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, Any, Any]:
    """A table of ranks, so that a wrong one is a KeyError."""
    return {4: x}[x.ndim], weight, bias


def planted() -> Iterator[Mutant]:
    """Yield the mutants that answer a wrong call."""
    for name, fault, kind, mend in (
        ("rank_3", "A tensor without a batch axis is given one and answered.", "semantics mixed up", _unbatched),
        ("rank_5", "Axes before the last three are taken together, however many.", "semantics mixed up", _flattened),
        ("integers", "Integer x is taken as float32.", "dtype policy", _floated),
        ("long_cut", "A parameter longer than C is cut.", "optional affine", _with(lambda p, x: _resized(p, x, lambda n, c: n > c))),
        (
            "short_repeated",
            "A parameter of two or more values, but fewer than C, is read past its end, from its start again.",
            "optional affine",
            _with(lambda p, x: _resized(p, x, lambda n, c: 1 < n < c)),
        ),
        (
            "one_for_all",
            "A parameter of one value is broadcast over C channels.",
            "optional affine",
            _with(lambda p, x: _resized(p, x, lambda n, c: n == 1 < c)),
        ),
        ("axis_dropped", "The last axis of a parameter with an axis too many is dropped.", "optional affine", _with(_squeezed)),
        ("elsewhere_as_ones", "A parameter on another device counts as ones.", "aliasing and races", _with(_here)),
        ("key_error", "A wrong rank ends in a KeyError.", "empty and degenerate", _indexed),
    ):
        for semantics in SEMANTICS:
            full = f"bad_arguments/{name}" if semantics == "channel" else f"bad_arguments/{name}_{semantics}"
            yield Mutant(full, fault, kind, Implementation(_mended(full, mend, semantics), name=full, semantics=semantics))


def _mended(name: str, mend: _Mended, semantics: str) -> Callable[..., Any]:
    right = layer_norm_2d(semantics=semantics)

    def fn(x: Tensor, weight: Any, bias: Any, eps: float) -> Any:
        return right(*mend(x, weight, bias), eps)

    fn.__name__ = fn.__qualname__ = name
    return fn
