"""Results that depend on earlier calls. Each `planted()` builds its state afresh."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor

from ..semantics import on_axes
from .mutant import Mutant
from .parts import Call, bias_gradient, finish, input_gradient, normalise, read, statistics
from .plant import plant

__all__ = ["planted"]

_PERIOD = 40
_PAUSE = 5e-3  # seconds; enough for another thread to take its turn, also on a busy machine


def _address(tensor: Tensor | None) -> object:
    return None if tensor is None else (tensor.data_ptr(), tensor.dtype)


def _by_address(call: Call) -> object:
    where = tuple(map(_address, (call.x, call.weight, call.bias)))
    return where, call.x.shape, call.x.stride(), call.eps


def _by_shape(call: Call) -> object:
    return call.x.shape, call.x.dtype


def _by_fingerprint(call: Call) -> object:
    return _by_address(call), call.x._version, float(call.x.data.reshape(-1)[:1].sum())


def _cached(key: Callable[[Call], object]) -> Callable[[Tensor, Call], Tensor]:
    """A result that is the first one with this key."""
    results: dict[object, Tensor] = {}
    return lambda y, call: results.setdefault(key(call), finish(y, call)).clone()


def _first_kept() -> Callable[[Tensor, Call], Tensor]:
    results: list[Tensor] = []

    def part(y: Tensor, call: Call) -> Tensor:
        if not y.numel():
            return finish(y, call)
        results.append(finish(y, call))
        del results[1:]
        same = results[0].shape == y.shape and results[0].dtype == call.x.dtype
        return results[0].clone() if same else finish(y, call)

    return part


def _by_call_number(wrong: Callable[[int], bool]) -> Callable[[Tensor, Call], Tensor]:
    """A result that is 0 in those calls, counted from 1, that are wrong(number)."""
    numbers = count(1)
    return lambda y, call: finish(y * 0 if wrong(next(numbers)) else y, call)


def _cached_dx() -> Callable[[Tensor, Tensor, Tensor, Call], Tensor]:
    gradients: dict[object, Tensor] = {}

    def part(g: Tensor, xhat: Tensor, rstd: Tensor, call: Call) -> Tensor:
        return gradients.setdefault(_by_shape(call), input_gradient(g, xhat, rstd, call)).clone()

    return part


def _xhat_as_scratch(g: Tensor, xhat: Tensor, rstd: Tensor, call: Call) -> Tensor:
    dx = input_gradient(g, xhat, rstd, call)
    xhat.data.copy_(dx)
    return dx


def _from_x_as_it_is(g: Tensor, xhat: Tensor, rstd: Tensor, call: Call) -> Tensor:
    x = read(call.x.detach(), call)
    mean, rstd = statistics(x, call)
    return input_gradient(g, normalise(x, mean, rstd), rstd, call)


def _weight_as_it_is(dy: Tensor, weight: Tensor | None, call: Call) -> Tensor:
    return dy if weight is None else dy * on_axes(read(call.weight.detach(), call))


def _dbias_buffer() -> Callable[[Tensor, Call], Tensor]:
    """dbias in one buffer per shape and dtype."""
    buffers: dict[object, Tensor] = {}

    def part(dy: Tensor, call: Call) -> Tensor:
        dbias = bias_gradient(dy, call).to(call.bias.dtype)
        return buffers.setdefault((dbias.shape, dbias.dtype), torch.empty_like(dbias)).copy_(dbias)

    return part


def _statistics_shared() -> Callable[[Tensor, Call], tuple[Tensor, Tensor]]:
    scratch: dict[object, tuple[Tensor, Tensor]] = {}

    def part(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        scratch[x.shape] = statistics(x, call)
        time.sleep(_PAUSE)
        return scratch[x.shape]

    return part


def planted() -> Iterator[Mutant]:
    """Yield the mutants that remember."""
    for name, fault, kind, parts in (
        (
            "cached_by_address",
            "The result is cached by the addresses of x, weight and bias.",
            "cheats",
            {"finish": _cached(_by_address)},
        ),
        ("cached_by_shape", "The result is cached by x's shape and dtype.", "cheats", {"finish": _cached(_by_shape)}),
        (
            "cached_by_fingerprint",
            "The result is cached by addresses, x's version and x's first value.",
            "cheats",
            {"finish": _cached(_by_fingerprint)},
        ),
        ("first_kept", "Later calls of the shape of the first call with elements return its result.", "cheats", {"finish": _first_kept()}),
        (
            "skipped_after_first",
            "Every call after the first returns 0.",
            "cheats",
            {"finish": _by_call_number(lambda number: number > 1)},
        ),
        (
            "wrong_every_40th",
            f"Every {_PERIOD}th call returns 0.",
            "aliasing and races",
            {"finish": _by_call_number(lambda number: number % _PERIOD == 0)},
        ),
        ("dx_cached_by_shape", "dx is cached by x's shape and dtype.", "cheats", {"input_gradient": _cached_dx()}),
        (
            "xhat_as_scratch",
            "The backward pass overwrites the x̂ that it would need a second time.",
            "aliasing and races",
            {"input_gradient": _xhat_as_scratch},
        ),
        (
            "dx_of_x_as_it_is",
            "The backward pass takes the statistics from x as it is then, not as it was.",
            "aliasing and races",
            {"input_gradient": _from_x_as_it_is},
        ),
        (
            "dx_of_weight_as_it_is",
            "The backward pass reads the weight as it is then, not as it was.",
            "aliasing and races",
            {"cotangent": _weight_as_it_is},
        ),
        ("dbias_in_one_buffer", "Each dbias of one shape lies in one buffer.", "aliasing and races", {"bias_gradient": _dbias_buffer()}),
        (
            "statistics_shared",
            "Calls in several threads share the memory of mean and rstd.",
            "aliasing and races",
            {"statistics": _statistics_shared()},
        ),
    ):
        yield from plant(f"state/{name}", fault, kind, **parts)
