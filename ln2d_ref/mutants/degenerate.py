"""Groups of one value, and tensors with none."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, affine, bias_gradient, finish, read, statistics, weight_gradient
from .plant import plant

__all__ = ["planted"]


def _bias_lost(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    return affine(xhat, weight, None if call.n == 1 else bias, call)


def _folded(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    """y = x·scale + (bias - mean·scale), in which x·scale does not cancel exactly although x = mean."""
    if call.n != 1:
        return affine(xhat, weight, bias, call)
    mean, rstd = statistics(read(call.x, call), call)
    scale = affine(rstd, weight, None, call)
    return read(call.x, call) * scale + ((0 if bias is None else bias) - mean * scale)


def _not_centred(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    mean, rstd = statistics(x, call)
    return (mean * 0 if call.n == 1 else mean), rstd


def _zero_over_zero(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    mean, rstd = statistics(x, call)
    return mean, (rstd * torch.nan if call.n == 1 else rstd)


def _per_pixel(x: Tensor, call: Call) -> Tensor:
    return read(x, call) * (x.shape[2] * x.shape[3] // (x.shape[2] * x.shape[3]))


def _per_sample(x: Tensor, call: Call) -> Tensor:
    return read(x, call) * (x.shape[0] // x.shape[0])


def _one_sample_at_least(y: Tensor, call: Call) -> Tensor:
    return finish(y if len(y) else y.new_zeros(1, *y.shape[1:]), call)


def _mean_of_none_in_dweight(dy: Tensor, xhat: Tensor, call: Call) -> Tensor:
    return weight_gradient(dy, xhat, call) * (1.0 if dy.numel() else torch.nan)


def _mean_of_none_in_dbias(dy: Tensor, call: Call) -> Tensor:
    return bias_gradient(dy, call) * (1.0 if dy.numel() else torch.nan)


def planted() -> Iterator[Mutant]:
    """Yield the mutants that fail where a group has one value, or there is no group."""
    for name, fault, parts in (
        ("bias_lost", "The bias is dropped where a group has one value.", {"affine": _bias_lost}),
        ("folded", "x·scale + (bias - mean·scale) is used where a group has one value.", {"affine": _folded}),
        ("not_centred", "The mean is taken as 0 where a group has one value.", {"statistics": _not_centred}),
        ("zero_over_zero", "The variance is 0/0 where a group has one value.", {"statistics": _zero_over_zero}),
        ("no_pixels_crash", "A division by H·W raises ZeroDivisionError where H·W is 0.", {"read_x": _per_pixel}),
        ("no_samples_crash", "A division by N raises ZeroDivisionError where N is 0.", {"read_x": _per_sample}),
        ("no_samples_shape", "The result has one sample where x has none.", {"finish": _one_sample_at_least}),
        ("empty_dweight", "dweight is NaN where x is empty.", {"weight_gradient": _mean_of_none_in_dweight}),
        ("empty_dbias", "dbias is NaN where x is empty.", {"bias_gradient": _mean_of_none_in_dbias}),
    ):
        yield from plant(f"degenerate/{name}", fault, "empty and degenerate", semantics=SEMANTICS, **parts)
