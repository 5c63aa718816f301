"""Other normalisations under this one's name, and results of another type."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from ..semantics import SEMANTICS, group_axes
from .mutant import Mutant
from .parts import Call, population_variance, reciprocal_root, statistics
from .plant import plant

__all__ = ["planted"]


def _rms(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    mean = x.mean(call.axes, keepdim=True) * 0
    return mean, reciprocal_root(population_variance(x, mean, call), call)


def _numerator_uncentred(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    mean, rstd = statistics(x, call)
    return mean * 0, rstd


def _absolute_deviation(x: Tensor, mean: Tensor, call: Call) -> Tensor:
    return (x - mean).abs().mean(call.axes, keepdim=True).square()


def _guessed_axes(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """Statistics over the last axis where C = W, as of channels_last data."""
    mean, rstd = statistics(x, call)
    if x.shape[1] != x.shape[3] or not x.numel():
        return mean, rstd
    mean, rstd = statistics(x.movedim(-1, 1), call)
    return mean.movedim(1, -1), rstd.movedim(1, -1)


def _unchanged(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    mean = x.mean(call.axes, keepdim=True) * 0
    return mean, mean + 1


def planted() -> Iterator[Mutant]:
    """Yield the mutants that normalise something else or return something else."""
    kind = "semantics mixed up"
    for name, fault, axes in (
        ("last_axis", "The last axis is normalised in place of the channels.", (3,)),
        ("group_norm", "All of a sample is normalised together, as by GroupNorm(1, C).", group_axes("sample")),
        ("per_channel", "The pixels of each channel are normalised together, as by InstanceNorm2d.", (2, 3)),
        ("whole_batch", "All pixels of the batch are normalised together, as by BatchNorm2d.", (0, 2, 3)),
    ):
        yield from plant(f"semantics/{name}", fault, kind, axes=axes)
    fault = "The channels of each pixel are normalised together."
    yield from plant("semantics/per_pixel", fault, kind, semantics=("sample",), axes=group_axes("channel"))
    fault = "x is taken for channels_last where C = W."
    yield from plant("semantics/guessed_from_shape", fault, kind, statistics=_guessed_axes)
    for name, fault, parts in (
        ("rms", "x is divided by its root mean square and not centred.", {"statistics": _rms}),
        ("numerator_uncentred", "The variance is centred and the numerator is not.", {"statistics": _numerator_uncentred}),
        (
            "absolute_deviation",
            "The variance is the square of the mean absolute deviation.",
            {"statistics": partial(statistics, variance=_absolute_deviation)},
        ),
        ("returned_unchanged", "Nothing is normalised.", {"statistics": _unchanged}),
        ("tuple", "The result is a tuple of one tensor.", {"deliver": lambda y, x: (y,)}),
        ("numpy_array", "The result is a NumPy array.", {"deliver": lambda y, x: y.detach().float().numpy()}),
        ("nothing", "The result is None.", {"deliver": lambda y, x: None}),
    ):
        yield from plant(f"semantics/{name}", fault, kind, semantics=SEMANTICS, **parts)
