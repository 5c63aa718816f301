"""Inputs that change, memory that is shared, and global state that is disturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, finish, read
from .plant import plant
from .storage import past_the_end

__all__ = ["planted"]


def _x_centred(y: Tensor, call: Call) -> Tensor:
    x = call.x.data
    if 0 not in x.stride():
        x.sub_(x.mean(call.axes, keepdim=True))
    return finish(y, call)


def _weight_halved(weight: Tensor, call: Call) -> Tensor:
    values = read(weight.clone(), call)
    weight.data[..., :1].mul_(0.5)
    return values


def _dy_overwritten(dy: Tensor, call: Call) -> Tensor:
    values = read(dy.clone(), call)
    dy.data[:1, :1, :1, :1].fill_(7)
    return values


def _written_past_the_end(y: Tensor, call: Call) -> Tensor:
    past_the_end(call.x).fill_(0)
    return finish(y, call)


def _in_place_without_affine(y: Tensor, call: Call) -> Tensor:
    x = call.x.data
    if call.weight is None and call.bias is None and 0 not in x.stride():
        return x.copy_(y)
    return finish(y, call)


def _bias_as_result(y: Tensor, call: Call) -> Tensor:
    y, bias = finish(y, call), call.bias
    if call.n == 1 and bias is not None and bias.dtype == y.dtype and (y == bias).all():
        return bias.data.expand(y.shape)
    return y


def _shared_buffer() -> Callable[[Tensor, Call], Tensor]:
    """A result that lives in one buffer per shape and dtype."""
    buffers: dict[object, Tensor] = {}

    def part(y: Tensor, call: Call) -> Tensor:
        y = finish(y, call)
        return buffers.setdefault((y.shape, y.dtype), y).data.copy_(y)

    return part


def _meddling(act: Callable[[Tensor], object]) -> Callable[[Tensor, Tensor], object]:
    """A delivery that disturbs global state first."""

    def part(y: Tensor, x: Tensor) -> object:
        act(x)
        return y

    return part


def _of_memory() -> Iterator[Mutant]:
    for name, fault, parts in (
        ("x_centred", "The mean of each group is subtracted from x in place.", {"finish": _x_centred}),
        ("weight_changed", "The first weight is halved in place.", {"read_weight": _weight_halved}),
        ("dy_overwritten", "The first value of dy is overwritten by the backward pass.", {"read_dy": _dy_overwritten}),
        ("written_past_end", "The element of storage after x's last is overwritten.", {"finish": _written_past_the_end}),
        (
            "in_place_without_affine",
            "Without weight and bias the result is written into x and shares its storage.",
            {"finish": _in_place_without_affine},
        ),
        ("bias_as_result", "Where C = 1 the result is the bias itself, expanded.", {"finish": _bias_as_result}),
    ):
        yield from plant(f"side_effects/{name}", fault, "aliasing and races", semantics=SEMANTICS, **parts)
    fault = "Results of one shape and dtype share one buffer."
    yield from plant("side_effects/shared_buffer", fault, "aliasing and races", finish=_shared_buffer())


def planted() -> Iterator[Mutant]:
    """Yield the mutants that leave a trace. Those of global state leave it disturbed: whoever calls them restores it."""
    yield from _of_memory()
    for name, fault, act in (
        ("random_seed", "The global random generator is seeded.", lambda x: torch.manual_seed(0)),
        ("random_draw", "A number is drawn from the global random generator.", lambda x: torch.rand(())),
        ("default_dtype", "The default dtype becomes x's.", lambda x: torch.set_default_dtype(x.dtype)),
        ("grad_mode", "Gradients are switched off for the caller.", lambda x: torch.set_grad_enabled(False)),
        ("thread_count", "The number of threads changes.", lambda x: torch.set_num_threads(torch.get_num_threads() % 2 + 1)),
        ("denormal_mode", "Subnormals are flushed to zero from the first call on.", lambda x: torch.set_flush_denormal(True)),
    ):
        yield from plant(f"side_effects/{name}", fault, "aliasing and races", deliver=_meddling(act))
