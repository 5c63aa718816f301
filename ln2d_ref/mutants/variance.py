"""Variances that are not the population variance, or lose it to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, population_variance, statistics
from .plant import plant

__all__ = ["planted"]

_TILE = 64


def _one_pass(x: Tensor, mean: Tensor, call: Call) -> Tensor:
    return (x.square().mean(call.axes, keepdim=True) - mean.square()).clamp(min=0)


def _one_pass_unclamped(x: Tensor, mean: Tensor, call: Call) -> Tensor:
    return x.square().mean(call.axes, keepdim=True) - mean.square()


def _one_pass_if_long(x: Tensor, mean: Tensor, call: Call) -> Tensor:
    return (_one_pass if call.n > _TILE else population_variance)(x, mean, call)


def _unbiased(x: Tensor, mean: Tensor, call: Call) -> Tensor:
    return (x - mean).square().sum(call.axes, keepdim=True) / max(call.n - 1, 1)


def _padding_counted(x: Tensor, mean: Tensor, call: Call) -> Tensor:
    padding = (1 << max(call.n - 1, 0).bit_length()) - call.n
    return population_variance(x, mean, call) + mean.square() * (padding / max(call.n, 1))


def _tiles_not_merged(x: Tensor, mean: Tensor, call: Call) -> Tensor:
    own = [tile - tile.mean(call.axes, keepdim=True) for tile in x.split(_TILE, dim=1)]
    return sum(d.square().sum(call.axes, keepdim=True) for d in own) / max(call.n, 1)


def planted() -> Iterator[Mutant]:
    """Yield the mutants whose variance is wrong."""
    for name, fault, kind, variance in (
        ("one_pass", "The variance is E[x²] - E[x]², clamped at 0.", "one-pass variance", _one_pass),
        (
            "one_pass_unclamped",
            "The variance is E[x²] - E[x]², which rounding makes negative.",
            "one-pass variance",
            _one_pass_unclamped,
        ),
        (
            "one_pass_if_long",
            f"The variance is E[x²] - E[x]² where a group has more than {_TILE} values.",
            "one-pass variance",
            _one_pass_if_long,
        ),
        ("unbiased", "The sum of squares is divided by n - 1.", "semantics mixed up", _unbiased),
        (
            "padding_counted",
            "Zeros that pad the group to a power of two enter the sum of squares, as mean² each.",
            "masks, tiles, tails",
            _padding_counted,
        ),
        (
            "tiles_not_merged",
            f"The spread between the means of tiles of {_TILE} channels is left out.",
            "masks, tiles, tails",
            _tiles_not_merged,
        ),
    ):
        part = partial(statistics, variance=variance)
        yield from plant(f"variance/{name}", fault, kind, semantics=SEMANTICS, statistics=part)
