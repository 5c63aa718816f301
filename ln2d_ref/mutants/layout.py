"""Strides and storage offsets that are ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, read
from .plant import plant
from .storage import past_the_end, read_as_contiguous

__all__ = ["planted"]


def _dense(tensor: Tensor, call: Call) -> Tensor:
    return read(read_as_contiguous(tensor), call)


def _dense_where(fits: Callable[[Tensor], bool]) -> Callable[[Tensor, Call], Tensor]:
    """A reader that takes a tensor for contiguous where fits(tensor)."""
    return lambda tensor, call: (_dense if fits(tensor) else read)(tensor, call)


def _without_offset(tensor: Tensor, call: Call) -> Tensor:
    return read(tensor.data.as_strided(tensor.shape, tensor.stride(), 0), call)


def _channels_last(tensor: Tensor) -> bool:
    return bool(tensor.is_contiguous(memory_format=torch.channels_last))


def _permuted(tensor: Tensor) -> bool:
    """Whether the strides do not fall from axis to axis, as those of a transposed tensor."""
    strides = [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]
    return 0 not in strides and strides != sorted(strides, reverse=True)


def _expanded(tensor: Tensor) -> bool:
    return 0 in tensor.stride()


def _stepped(tensor: Tensor) -> bool:
    return not (tensor.is_contiguous() or _expanded(tensor) or _permuted(tensor))


def _past_the_end_read(x: Tensor, call: Call) -> Tensor:
    return read(x, call) + 0 * read(past_the_end(x), call).sum()


def planted() -> Iterator[Mutant]:
    """Yield the mutants that read x, dy, weight or bias at the wrong places of its storage."""
    for name, fault, parts in (
        ("x_strides_ignored", "x is read as if it were contiguous.", {"read_x": _dense}),
        ("x_offset_ignored", "x is read from the start of its storage.", {"read_x": _without_offset}),
        ("x_channels_last", "A channels_last x is read as contiguous.", {"read_x": _dense_where(_channels_last)}),
        ("x_permuted", "A transposed x is read as contiguous.", {"read_x": _dense_where(_permuted)}),
        ("x_stepped", "An x that skips over memory is read as contiguous.", {"read_x": _dense_where(_stepped)}),
        ("x_expanded", "An expanded x is read as contiguous.", {"read_x": _dense_where(_expanded)}),
        ("x_read_past_end", "The element after x's last is read, with factor 0.", {"read_x": _past_the_end_read}),
        ("dy_strides_ignored", "dy is read as if it were contiguous.", {"read_dy": _dense}),
        ("dy_offset_ignored", "dy is read from the start of its storage.", {"read_dy": _without_offset}),
        ("dy_channels_last", "A channels_last dy is read as contiguous.", {"read_dy": _dense_where(_channels_last)}),
        ("dy_stepped", "A dy that skips over memory is read as contiguous.", {"read_dy": _dense_where(_stepped)}),
        ("dy_expanded", "An expanded dy is read as contiguous.", {"read_dy": _dense_where(_expanded)}),
        ("weight_strides_ignored", "The weight is read as if it were contiguous.", {"read_weight": _dense}),
        ("weight_offset_ignored", "The weight is read from the start of its storage.", {"read_weight": _without_offset}),
        ("bias_strides_ignored", "The bias is read as if it were contiguous.", {"read_bias": _dense}),
    ):
        yield from plant(f"layout/{name}", fault, "layout", semantics=SEMANTICS, **parts)
