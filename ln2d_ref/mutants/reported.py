"""Faults of single public reports that no mutant of the other files has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..implementations.implementation import Implementation
from ..semantics import SEMANTICS, on_axes
from .base import layer_norm_2d
from .mutant import Mutant
from .parts import Call, affine, bias_gradient, normalise, population_variance, read, reciprocal_root, statistics
from .plant import plant
from .storage import read_as

__all__ = ["planted"]


def _dy_where_x_lies(dy: Tensor, call: Call) -> Tensor:
    return read(read_as(dy, call.x.stride(), call.x.storage_offset()), call)


def _channel_step_from_rows(x: Tensor, call: Call) -> Tensor:
    samples, _, rows, columns = x.stride()
    return read(read_as(x, (samples, x.shape[2] * rows, rows, columns), x.storage_offset()), call)


def _weight_by_place(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    """The k-th element of a channels_last sample gets the weight that the k-th of a contiguous one has."""
    if weight is None or weight.shape[2:] != (1, 1) or not call.x.is_contiguous(memory_format=torch.channels_last):
        return affine(xhat, weight, bias, call)
    _, channels, height, width = call.x.shape
    places = weight.expand(1, channels, height, width).reshape(1, height, width, channels)
    return affine(xhat, places.movedim(-1, 1), bias, call)


def _weight_along_last_axis(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    if weight is not None and weight.shape == (1, call.x.shape[3], 1, 1):
        weight = weight.movedim(1, 3)
    return affine(xhat, weight, bias, call)


def _wrong_zero(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    y = affine(xhat, weight, bias, call)
    return y if bias is not None else y + y.new_zeros(y.shape[1])


def _in_one_chain(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    def mean(values: Tensor) -> Tensor:
        flat = values.flatten(1).cpu().numpy()  # torch's own sums are no chains
        return torch.from_numpy(np.add.accumulate(flat, axis=-1)[:, -1:]).to(x).reshape(-1, 1, 1, 1) / call.n

    if not x.numel():
        return statistics(x, call)
    return mean(x), reciprocal_root(mean((x - mean(x)).square()), call)


def _one_pass_if_vectorised(x: Tensor, mean: Tensor, call: Call) -> Tensor:
    if x.shape[1] % 4:
        return population_variance(x, mean, call)
    return (x.square().mean(call.axes, keepdim=True) - mean.square()).clamp(min=0)


def _scale_and_shift_in_half(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    if call.x.dtype.itemsize != 2:
        return affine(xhat, weight, bias, call)
    mean, rstd = statistics(read(call.x, call), call)
    scale = affine(rstd, weight, None, call)
    shift = affine(-mean * scale, None, bias, call)
    return read(call.x * scale.to(call.x.dtype) + shift.to(call.x.dtype), call)


def _masked_by_channels(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    group = x.reshape(x.shape[0], -1, 1, 1)
    return statistics(group[:, : x.shape[1]] if x.numel() else x, call)


def _xhat_from_y(x: Tensor, mean: Tensor, rstd: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    xhat = normalise(x, mean, rstd)
    if call.weight is None:
        return xhat, rstd
    return torch.where(on_axes(call.weight) == 0, 0, xhat), rstd


def _last_sample_lost() -> Callable[[Tensor, Call], Tensor]:
    """A dbias that lacks its last sample's terms in every third backward."""
    numbers = count(1)

    def part(dy: Tensor, call: Call) -> Tensor:
        lost = next(numbers) % 3 == 0 and dy.numel() > 0
        return bias_gradient(torch.cat([dy[:-1], 0 * dy[-1:]]) if lost else dy, call)

    return part


def _half_under_autocast(x: Tensor, call: Call) -> Tensor:
    device = x.device.type
    narrowed = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    return read(x.half() if narrowed else x, call)


def _leaf(y: Tensor, x: Tensor) -> Tensor:
    return y.detach().requires_grad_()


def _internal_assertion(x: Tensor, weight: Any, bias: Any, eps: float) -> Any:
    if not x.is_floating_point():
        raise RuntimeError("scalar_type != kUndefined INTERNAL ASSERT FAILED, please report a bug")
    return layer_norm_2d()(x, weight, bias, eps)


def planted() -> Iterator[Mutant]:
    """Yield the mutants, of every kind that has one."""
    for name, fault, kind, parts in (
        (
            "xhat_from_y",
            "The backward pass rebuilds x̂ from y / weight, as 0 where the weight is 0.",
            "aliasing and races",
            {"saved": _xhat_from_y},
        ),
        (
            "weight_along_last_axis",
            "The weight lies along the last axis where W = C.",
            "compiled or exported",
            {"affine": _weight_along_last_axis},
        ),
        ("leaf", "The result is a leaf that requires grad.", "gradient cut", {"deliver": _leaf}),
        ("dy_where_x_lies", "dy is read with the strides and the storage offset of x.", "layout", {"read_dy": _dy_where_x_lies}),
        (
            "channel_step_from_rows",
            "The step between channels is taken to be H times that between rows.",
            "layout",
            {"read_x": _channel_step_from_rows},
        ),
        (
            "weight_by_place",
            "The weights of a channels_last x are in the order of a contiguous one.",
            "layout",
            {"affine": _weight_by_place},
        ),
        (
            "one_pass_if_vectorised",
            "The variance is E[x²] - E[x]² where C is a multiple of 4.",
            "one-pass variance",
            {"statistics": partial(statistics, variance=_one_pass_if_vectorised)},
        ),
        (
            "scale_and_shift_in_half",
            "16-bit x is multiplied by a scale and added to a shift that are rounded to its dtype.",
            "one-pass variance",
            {"affine": _scale_and_shift_in_half},
        ),
        ("wrong_zero", "A missing bias is replaced by C zeros along the last axis.", "optional affine", {"affine": _wrong_zero}),
        ("half_under_autocast", "Under autocast to float16, x is cast to it.", "value range", {"read_x": _half_under_autocast}),
    ):
        yield from plant(f"reported/{name}", fault, kind, semantics=SEMANTICS, **parts)
    fault = "Every third backward loses the last sample's terms of dbias."
    yield from plant("reported/dbias_races", fault, "aliasing and races", bias_gradient=_last_sample_lost())
    fault = "A group is added in one chain, past 4096 values too."
    yield from plant("reported/one_long_chain", fault, "compiled or exported", semantics=("sample",), statistics=_in_one_chain)
    fault = "Only the first C values of a group enter its statistics."
    yield from plant("reported/masked_by_channels", fault, "masks, tiles, tails", semantics=("sample",), statistics=_masked_by_channels)
    name, fault = "reported/internal_assertion", "Integer x ends in an internal assertion."
    _internal_assertion.__name__ = _internal_assertion.__qualname__ = name
    yield Mutant(name, fault, "empty and degenerate", Implementation(_internal_assertion, name=name))
