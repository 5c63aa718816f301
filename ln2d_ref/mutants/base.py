"""One right LayerNorm2d put together from its parts, so that a mutant is this one with a single part replaced.

Forward and backward are written out. Second derivatives, forward mode and vmap raise, as an implementation may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..implementations.arguments import check_tensors
from ..semantics import group_axes, on_axes
from . import parts
from .parts import Call, Gradients

__all__ = ["RIGHT", "Form", "LayerNorm2d", "evaluate", "gradients", "layer_norm_2d"]


@dataclass(frozen=True)
class Form:
    """The parts of a LayerNorm2d. The default of each is the right one, the function of that name in `parts`."""

    arithmetic: Callable[[torch.dtype], torch.dtype] = parts.arithmetic
    read_x: Callable[[Tensor, Call], Tensor] = parts.read
    read_weight: Callable[[Tensor, Call], Tensor] = parts.read
    read_bias: Callable[[Tensor, Call], Tensor] = parts.read
    read_dy: Callable[[Tensor, Call], Tensor] = parts.read
    statistics: Callable[[Tensor, Call], tuple[Tensor, Tensor]] = parts.statistics
    affine: Callable[[Tensor, Tensor | None, Tensor | None, Call], Tensor] = parts.affine
    finish: Callable[[Tensor, Call], Tensor] = parts.finish
    saved: Callable[[Tensor, Tensor, Tensor, Call], tuple[Tensor, Tensor]] = parts.saved
    cotangent: Callable[[Tensor, Tensor | None, Call], Tensor] = parts.cotangent
    input_gradient: Callable[[Tensor, Tensor, Tensor, Call], Tensor] = parts.input_gradient
    weight_gradient: Callable[[Tensor, Tensor, Call], Tensor] = parts.weight_gradient
    bias_gradient: Callable[[Tensor, Call], Tensor] = parts.bias_gradient
    hand_back: Callable[[Gradients, Call], Gradients] = parts.hand_back
    deliver: Callable[[Tensor, Tensor], object] = parts.deliver


RIGHT = Form()


def evaluate(call: Call, form: Form) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """The output y, of x's shape and dtype, and what `gradients` needs: x̂, rstd and the weight."""
    x = form.read_x(call.x, call)
    weight = None if call.weight is None else on_axes(form.read_weight(call.weight, call))
    bias = None if call.bias is None else on_axes(form.read_bias(call.bias, call))
    mean, rstd = form.statistics(x, call)
    kept = (*form.saved(x, mean, rstd, call), weight)
    return form.finish(form.affine(parts.normalise(x, mean, rstd), weight, bias, call), call), kept


def gradients(dy: Tensor, xhat: Tensor, rstd: Tensor, weight: Tensor | None, call: Call, form: Form) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight and bias, each in its own shape and dtype, and None for eps, axes and form."""
    dy = form.read_dy(dy, call)
    dx = dweight = dbias = None
    if call.needs[1]:
        dweight = form.weight_gradient(dy, xhat, call).to(call.weight.dtype)
    if call.needs[2]:
        dbias = form.bias_gradient(dy, call).to(call.bias.dtype)
    if call.needs[0]:
        dx = form.input_gradient(form.cotangent(dy, weight, call), xhat, rstd, call).to(call.x.dtype)
    return (*form.hand_back((dx, dweight, dbias), call), None, None, None)


class LayerNorm2d(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """`evaluate` and `gradients` as one node of the graph, differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Any, bias: Any, eps: float, axes: tuple[int, ...], form: Form) -> Tensor:
        """Y; keeps in ctx what `backward` needs."""
        ctx.call = Call(x, weight, bias, eps, axes, form.arithmetic(x.dtype), ctx.needs_input_grad[:3])
        ctx.form = form
        y, kept = evaluate(ctx.call, form)
        ctx.save_for_backward(*kept)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the arguments of `forward`."""
        xhat, rstd, weight = ctx.saved_tensors
        return gradients(dy, xhat, rstd, weight, ctx.call, ctx.form)


def layer_norm_2d(
    form: Form = RIGHT, *, semantics: str = "channel", axes: tuple[int, ...] | None = None, node: Any = LayerNorm2d
) -> Callable[[Tensor, Tensor | None, Tensor | None, float], Any]:
    """A function `fn(x, weight, bias, eps) -> y` of this form. `axes` defaults to those that `semantics` normalises together.

    fn raises ValueError for shapes, devices or an eps that do not fit, TypeError where x is not of a floating dtype.
    """

    def fn(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        check_tensors(x, weight, bias, eps, semantics)
        return form.deliver(node.apply(x, weight, bias, eps, axes or group_axes(semantics), form), x)

    return fn
