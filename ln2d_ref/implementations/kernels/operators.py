"""torch.library operators around a pair of kernels: schema, fake implementation, autograd, and the function that users call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..arguments import check_tensors
from .second_order import second_order

__all__ = ["Backward", "Forward", "Gradients", "arithmetic_dtype", "register"]

Needs = tuple[bool, bool, bool]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
Forward = Callable[[Tensor, Any, Any, float, str], tuple[Tensor, Tensor, Tensor]]
"""(x, weight, bias, eps, semantics) -> (y, mean, rstd)"""
Backward = Callable[[Tensor, Tensor, Any, Any, Tensor, Tensor, str, Needs], Gradients]
"""(dy, x, weight, bias, mean, rstd, semantics, needs) -> (dx, dweight, dbias), each None where it is not needed; of bias only its shape
and dtype are looked at."""

_FORWARD = "(Tensor x, Tensor? weight, Tensor? bias, float eps, str semantics) -> (Tensor, Tensor, Tensor)"
_BACKWARD = (
    "(Tensor dy, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor rstd, float eps, str semantics, "
    "bool need_x, bool need_weight, bool need_bias) -> (Tensor, Tensor, Tensor)"
)


def arithmetic_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64, else float32: what statistics and sums are kept in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _refuse_tangents(name: str, *given: Tensor | None) -> None:
    """Raise NotImplementedError for a dual tensor: a custom operator drops its tangent, and the derivative would be 0 without a word."""
    if torch.compiler.is_compiling():
        return
    if any(tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in given):
        raise NotImplementedError(f"{name}_fused has no forward-mode derivative; reverse mode may be differentiated twice")


def _statistics_like(x: Tensor, semantics: str) -> Tensor:
    shape = (x.shape[0], x.shape[2], x.shape[3]) if semantics == "channel" else (x.shape[0],)
    return x.new_empty(shape, dtype=arithmetic_dtype(x))


def register(
    name: str, forward: Forward, backward: Backward, empty_like: Callable[[Tensor, str], Tensor]
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Register ln2d_ref::<name>_forward and _backward; the functions fn(x, weight, bias, eps) -> y of `channel` and `sample` semantics.

    `empty_like(x, semantics)` is memory for y and dx, in the strides that they come back in.
    mean and rstd, which the forward operator returns beside y, are not differentiable.
    """

    def run_forward(x: Tensor, weight: Any, bias: Any, eps: float, semantics: str) -> tuple[Tensor, Tensor, Tensor]:
        check_tensors(x, weight, bias, eps, semantics)
        if x.numel() == 0:
            return empty_like(x, semantics), _statistics_like(x, semantics).zero_(), _statistics_like(x, semantics).zero_()
        return forward(x, weight, bias, eps, semantics)

    def fake_forward(x: Tensor, weight: Any, bias: Any, eps: float, semantics: str) -> tuple[Tensor, Tensor, Tensor]:
        check_tensors(x, weight, bias, eps, semantics)
        return empty_like(x, semantics), _statistics_like(x, semantics), _statistics_like(x, semantics)

    def run_backward(
        dy: Tensor,
        x: Tensor,
        weight: Any,
        bias: Any,
        mean: Tensor,
        rstd: Tensor,
        eps: float,
        semantics: str,
        *needs: bool,
    ) -> tuple[Tensor, ...]:
        if x.numel() == 0:
            empty = (empty_like(x, semantics), weight, bias)
            return tuple(torch.zeros_like(t) if need else x.new_empty(0) for t, need in zip(empty, needs, strict=True))
        found = backward(dy, x, weight, bias, mean, rstd, semantics, (needs[0], needs[1], needs[2]))
        return tuple(x.new_empty(0) if gradient is None else gradient for gradient in found)

    def fake_backward(
        dy: Tensor,
        x: Tensor,
        weight: Any,
        bias: Any,
        mean: Tensor,
        rstd: Tensor,
        eps: float,
        semantics: str,
        *needs: bool,
    ) -> tuple[Tensor, ...]:
        dx = empty_like(x, semantics) if needs[0] else x.new_empty(0)
        return dx, *(like.new_empty(like.shape) if need else x.new_empty(0) for like, need in zip((weight, bias), needs[1:], strict=True))

    forward_operator: Any = torch.library.custom_op(f"ln2d_ref::{name}_forward", run_forward, mutates_args=(), schema=_FORWARD)
    forward_operator.register_fake(fake_forward)
    backward_operator: Any = torch.library.custom_op(f"ln2d_ref::{name}_backward", run_backward, mutates_args=(), schema=_BACKWARD)
    backward_operator.register_fake(fake_backward)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, eps, semantics = inputs
        _, mean, rstd = output
        ctx.mark_non_differentiable(mean, rstd)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.eps, ctx.semantics = eps, semantics

    def differentiate(ctx: Any, dy: Tensor, dmean: Any, drstd: Any) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad[:3]
        gradients = backward_operator(dy, *ctx.saved_tensors, ctx.eps, ctx.semantics, *needs)
        return (*(gradient if need else None for gradient, need in zip(gradients, needs, strict=True)), None, None)

    def keep_again(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        dy, x, weight, _, _, _, ctx.eps, ctx.semantics, *ctx.needs = inputs
        ctx.save_for_backward(dy, x, weight)

    def differentiate_again(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
        dy, x, weight = ctx.saved_tensors
        cx, cweight, cbias = (cotangent if need else None for cotangent, need in zip(cotangents, ctx.needs, strict=True))
        on_dy, on_x, on_weight = second_order(cx, cweight, cbias, dy, x, weight, ctx.eps, ctx.semantics)
        return on_dy, on_x, on_weight, *(None,) * 8

    forward_operator.register_autograd(differentiate, setup_context=keep)
    backward_operator.register_autograd(differentiate_again, setup_context=keep_again)

    def function(semantics: str) -> Callable[..., Tensor]:
        def fn(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
            _refuse_tangents(name, x, weight, bias)
            return forward_operator(x, weight, bias, eps, semantics)[0]

        fn.__name__ = fn.__qualname__ = f"{name}_fused" + ("" if semantics == "channel" else f"_{semantics}")
        return fn

    return function("channel"), function("sample")
