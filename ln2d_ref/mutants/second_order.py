"""The second order written out as a formula, as a kernel's double backward is, with one of its terms missing or off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..semantics import SEMANTICS, on_axes
from .base import Form, evaluate, gradients
from .mutant import Mutant
from .parts import Call, arithmetic, input_gradient, normalise, read, statistics, sum_rows
from .plant import plant

__all__ = ["planted", "right_node"]


@dataclass(frozen=True)
class _Factors:
    """How often each term of the second order is counted; in `formulas.double_vjp` each is there once."""

    x_covariance: float = 1.0  # x̂·mean(g cx)
    x_means: float = 1.0  # x̂·mean g·mean cx
    x_projections: float = 1.0  # x̂·3AB
    x_g: float = 1.0  # B(g - mean g)
    x_cx: float = 1.0  # A(cx - mean cx)
    x_weight: float = 1.0  # rstd(h - mean h - x̂ mean(h x̂)), h = dy·cweight
    dy_x: float = 1.0  # weight·P
    dy_weight: float = 1.0  # cweight·x̂
    dy_bias: float = 1.0  # cbias
    weight_x: float = 1.0  # Σ dy·P


_FAULTS = {
    "x_covariance": "ddx lacks the term x̂·mean(g cx).",
    "x_means": "ddx lacks the term x̂·mean(g)·mean(cx).",
    "x_projections": "ddx counts the term 3AB only twice.",
    "x_g": "ddx lacks the term B(g - mean g).",
    "x_cx": "ddx lacks the term A(cx - mean cx).",
    "x_weight": "ddx lacks what arrives through dweight.",
    "dy_x": "ddy lacks what arrives through dx.",
    "dy_weight": "ddy lacks what arrives through dweight.",
    "dy_bias": "ddy lacks what arrives through dbias.",
    "weight_x": "ddweight is taken for zero.",
}


def _node(factors: _Factors) -> Any:
    """A node whose backward is a node whose backward is the formula, with these factors; a third derivative raises."""

    class Backward(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
        @staticmethod
        def forward(ctx: Any, dy: Tensor, call: Call, form: Form, *_: Tensor | None) -> tuple[Tensor | None, ...]:
            ctx.call = call
            ctx.save_for_backward(dy)
            x = read(call.x, call)
            mean, rstd = statistics(x, call)
            weight = None if call.weight is None else on_axes(read(call.weight, call))
            return gradients(dy, normalise(x, mean, rstd), rstd, weight, call, form)[:3]

        @staticmethod
        @once_differentiable  # type: ignore[untyped-decorator]
        def backward(ctx: Any, cx: Tensor, cweight: Tensor | None, cbias: Tensor | None) -> tuple[Tensor | None, ...]:
            (dy,) = ctx.saved_tensors
            on_dy, on_x, on_weight = _second_order(factors, dy, cx, cweight, cbias, ctx.call)
            return on_dy, None, None, on_x, on_weight, None

    class Forward(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Any, bias: Any, eps: float, axes: tuple[int, ...], form: Form) -> Tensor:
            ctx.rest = eps, axes, form
            ctx.save_for_backward(x, weight, bias)
            return evaluate(Call(x, weight, bias, eps, axes, arithmetic(x.dtype), (False,) * 3), form)[0]

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
            x, weight, bias = ctx.saved_tensors
            eps, axes, form = ctx.rest
            call = Call(x, weight, bias, eps, axes, arithmetic(x.dtype), (True, weight is not None, bias is not None))
            return (*Backward.apply(dy, call, form, x, weight, bias), None, None, None)

    return Forward


def _second_order(
    factors: _Factors, dy: Tensor, cx: Tensor, cweight: Tensor | None, cbias: Tensor | None, call: Call
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cotangents of dy, x and weight, as `formulas.double_vjp` states them."""
    f, mean = factors, partial(torch.mean, dim=call.axes, keepdim=True)
    x = read(call.x, call)
    x_mean, rstd = statistics(x, call)
    x_hat = normalise(x, x_mean, rstd)
    weight = None if call.weight is None else on_axes(read(call.weight, call))
    arriving, cx = read(dy, call), read(cx, call)
    g = arriving if weight is None else arriving * weight
    a, b = mean(g * x_hat), mean(cx * x_hat)
    p = rstd * (cx - mean(cx) - x_hat * b)
    inner = f.x_covariance * mean(g * cx) - f.x_means * mean(g) * mean(cx) - f.x_projections * 3 * a * b
    on_x = -rstd * rstd * (x_hat * inner + f.x_g * b * (g - mean(g)) + f.x_cx * a * (cx - mean(cx)))
    on_dy = f.dy_x * (p if weight is None else p * weight)
    on_weight = None
    if call.weight is not None:
        scale = on_axes(read(cweight, call))
        on_x = on_x + f.x_weight * input_gradient(arriving * scale, x_hat, rstd, call)
        on_dy = on_dy + f.dy_weight * scale * x_hat
        on_weight = (f.weight_x * sum_rows(arriving * p, call.weight)).to(call.weight.dtype)
    if call.bias is not None:
        on_dy = on_dy + f.dy_bias * on_axes(read(cbias, call))
    return on_dy.to(dy.dtype), on_x.to(call.x.dtype), on_weight


def right_node() -> Any:
    """The node with every term, which the mutants are made from."""
    return _node(_Factors())


def planted() -> Iterator[Mutant]:
    """Yield a mutant for each term."""
    for field in fields(_Factors):
        factor = 2 / 3 if field.name == "x_projections" else 0.0
        node = _node(_Factors(**{field.name: factor}))
        yield from plant(f"second_order/{field.name}", _FAULTS[field.name], "higher derivatives", semantics=SEMANTICS, node=node)
