"""Higher derivatives, forward mode and vmap that answer, wrongly, where they could have raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..implementations.implementation import Implementation
from ..semantics import SEMANTICS, on_axes
from .base import Form, evaluate, gradients, layer_norm_2d
from .mutant import Mutant
from .parts import Call, arithmetic, input_gradient, normalise, read, statistics, sum_rows
from .plant import plant

__all__ = ["planted"]

Statistics = tuple[Tensor, Tensor]


def _live(mean: Tensor, rstd: Tensor, call: Call) -> Statistics:
    """Mean and rstd as functions of x, which they are."""
    return mean, rstd


def _node(
    *,
    held: Callable[[Tensor, Tensor, Call], Statistics] = _live,
    tangent: Callable[[Tensor, Tensor, Tensor, Call], Tensor] = input_gradient,
    unfold: Callable[[Tensor, int], Tensor] = lambda y, batch: y.unflatten(0, (batch, -1)),
    backwards: Callable[..., tuple[Tensor | None, ...]] = gradients,
    weighted: bool = True,
) -> Any:
    """A node that every transform of torch.func takes. What may be replaced:

    held     mean and rstd as the backward pass differentiates them
    tangent  the tangent of x̂ from that of x; the Jacobian of x̂ is symmetric, so that it has the formula of dx
    unfold   the result (batch, N, C, H, W) of vmap from (batch·N, C, H, W)
    backwards   the gradients, from dy, x̂, rstd, weight, call and form
    weighted    whether the tangent counts the weight's own
    """

    class Node(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
        @staticmethod
        def forward(x: Tensor, weight: Any, bias: Any, eps: float, axes: tuple[int, ...], form: Form) -> Tensor:
            return evaluate(Call(x, weight, bias, eps, axes, arithmetic(x.dtype), (False,) * 3), form)[0]

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            x, weight, bias, ctx.eps, ctx.axes, ctx.form = inputs
            ctx.save_for_backward(x, weight, bias)
            ctx.save_for_forward(x, weight, bias)

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
            call, xhat, rstd, scale = _again(ctx, held)
            return backwards(dy, xhat, rstd, scale, call, ctx.form)

        @staticmethod
        def jvp(ctx: Any, tx: Tensor | None, tweight: Tensor | None, tbias: Tensor | None, *_: Any) -> Tensor:
            call, xhat, rstd, scale = _again(ctx, _live)
            ty = torch.zeros_like(xhat)
            if tx is not None:
                txhat = tangent(read(tx, call), xhat, rstd, call)
                ty = ty + (txhat if scale is None else txhat * scale)
            if tweight is not None and weighted:
                ty = ty + xhat * on_axes(read(tweight, call))
            if tbias is not None:
                ty = ty + on_axes(read(tbias, call))
            return ty.to(call.x.dtype)

        @staticmethod
        def vmap(info: Any, dims: tuple[int | None, ...], x: Tensor, weight: Any, bias: Any, *rest: Any) -> Any:
            batch, tensors = info.batch_size, (x, weight, bias)
            if dims[1] is None and dims[2] is None:
                return unfold(Node.apply(x.movedim(dims[0], 0).flatten(0, 1), weight, bias, *rest), batch), 0
            at = [
                [tensor if dim is None else tensor.select(dim, i) for tensor, dim in zip(tensors, dims, strict=False)] for i in range(batch)
            ]
            return torch.stack([Node.apply(*one, *rest) for one in at]), 0

    return Node


def _again(ctx: Any, held: Callable[[Tensor, Tensor, Call], Statistics]) -> tuple[Call, Tensor, Tensor, Tensor | None]:
    """The call, x̂, rstd and the weight, computed again from the inputs so that they can be differentiated."""
    x, weight, bias = ctx.saved_tensors
    call = Call(x, weight, bias, ctx.eps, ctx.axes, arithmetic(x.dtype), ctx.needs_input_grad[:3])
    values = read(x, call)
    mean, rstd = held(*statistics(values, call), call)
    return call, normalise(values, mean, rstd), rstd, None if weight is None else on_axes(read(weight, call))


def _constants(mean: Tensor, rstd: Tensor, call: Call) -> Statistics:
    return mean.detach(), rstd.detach()


def _rstd_constant(mean: Tensor, rstd: Tensor, call: Call) -> Statistics:
    return mean, rstd.detach()


def _constants_without_bias(mean: Tensor, rstd: Tensor, call: Call) -> Statistics:
    return (_constants if call.bias is None else _live)(mean, rstd, call)


def _tangent_without_projection(tx: Tensor, xhat: Tensor, rstd: Tensor, call: Call) -> Tensor:
    return rstd * (tx - tx.mean(call.axes, keepdim=True))


def _tangent_without_mean(tx: Tensor, xhat: Tensor, rstd: Tensor, call: Call) -> Tensor:
    return rstd * (tx - xhat * (tx * xhat).mean(call.axes, keepdim=True))


def _without_graph(*arguments: Any) -> tuple[Tensor | None, ...]:
    with torch.no_grad():
        return gradients(*arguments)


class _Zero(torch.autograd.Function):  # type: ignore[misc]
    """Gradients as they are, whose own gradients are 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*gradients: Any) -> Any:
        return tuple(None if gradient is None else gradient.clone() for gradient in gradients)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(True)

    @staticmethod
    def backward(ctx: Any, *arriving: Tensor) -> tuple[Tensor, ...]:
        return tuple(None if tensor is None else torch.zeros_like(tensor) for tensor in arriving)


def _second_order_zero(*arguments: Any) -> tuple[Tensor | None, ...]:
    return (*_Zero.apply(*gradients(*arguments)[:3]), None, None, None)


class _Summed(torch.autograd.Function):  # type: ignore[misc]
    """Terms of dweight summed over all but the channels, and over the batch of vmap too, which each member should have its own of."""

    @staticmethod
    def forward(terms: Tensor, weight: Tensor) -> Tensor:
        return sum_rows(terms, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.shape = inputs[0].shape

    @staticmethod
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor, None]:
        spread: Any = on_axes(arriving)
        return spread.expand(ctx.shape), None

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], terms: Tensor, weight: Tensor) -> Any:
        weight = weight if dims[1] is None else weight.select(dims[1], 0)
        return _Summed.apply(terms.movedim(dims[0], 0).flatten(0, 1), weight), None


def _dweight_over_the_batch(
    dy: Tensor, xhat: Tensor, rstd: Tensor, weight: Tensor | None, call: Call, form: Form
) -> tuple[Tensor | None, ...]:
    found = gradients(dy, xhat, rstd, weight, call, form)
    if not call.needs[1]:
        return found
    return found[0], _Summed.apply(read(dy, call) * xhat, call.weight).to(call.weight.dtype), *found[2:]


def _primal_of_its_own(semantics: str) -> Callable[..., Any]:
    """A right LayerNorm2d that takes a one-pass variance where it is given dual tensors."""
    right = layer_norm_2d(semantics=semantics, node=_node())

    def one_pass(x: Tensor, mean: Tensor, call: Call) -> Tensor:
        return x.square().mean(call.axes, keepdim=True) - mean.square()

    form = Form(statistics=partial(statistics, variance=one_pass))
    other = layer_norm_2d(form, semantics=semantics, node=_node())

    def fn(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        dual = torch.autograd.forward_ad.unpack_dual(x).tangent is not None
        return (other if dual else right)(x, weight, bias, eps)

    return fn


def _unfolded_as_samples(y: Tensor, batch: int) -> Tensor:
    return y.unflatten(0, (-1, batch)).movedim(1, 0)


def planted() -> Iterator[Mutant]:
    """Yield the mutants that are right to first order and wrong beyond."""
    for name, fault, node in (
        ("statistics_constant", "The second derivative takes mean and rstd for constants.", _node(held=_constants)),
        ("rstd_constant", "The second derivative takes rstd for a constant.", _node(held=_rstd_constant)),
        (
            "second_without_bias",
            "The second derivative takes mean and rstd for constants where there is no bias.",
            _node(held=_constants_without_bias),
        ),
        ("tangent_without_projection", "Forward mode lacks the term x̂·mean(tx x̂).", _node(tangent=_tangent_without_projection)),
        ("tangent_without_mean", "Forward mode lacks the term mean(tx).", _node(tangent=_tangent_without_mean)),
        ("tangent_of_weight_lost", "Forward mode lacks the term tweight·x̂.", _node(weighted=False)),
        ("gradients_detached", "The backward pass leaves no graph, so that second derivatives are lost.", _node(backwards=_without_graph)),
        ("second_zero", "The second derivatives are zeros.", _node(backwards=_second_order_zero)),
        (
            "vmap_sums_dweight",
            "vmap over the gradients gives each member the dweight of the whole batch.",
            _node(backwards=_dweight_over_the_batch),
        ),
        ("vmap_order", "vmap gives the results of its batch in the order of the samples.", _node(unfold=_unfolded_as_samples)),
    ):
        yield from plant(f"derivatives/{name}", fault, "higher derivatives", semantics=SEMANTICS, node=node)
    for semantics in SEMANTICS:
        name = "derivatives/primal_one_pass" + ("" if semantics == "channel" else f"_{semantics}")
        fn = _primal_of_its_own(semantics)
        fn.__name__ = fn.__qualname__ = name
        fault = "Forward mode returns a y of its own, from a one-pass variance."
        yield Mutant(name, fault, "higher derivatives", Implementation(fn, name=name, semantics=semantics))
