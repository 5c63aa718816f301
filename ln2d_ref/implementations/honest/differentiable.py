"""LayerNorm2d whose every derivative exists: one node whose backward autograd can go on differentiating, and composed forms.

The recipes of `layer_norm` refuse a second derivative; these are what the bounds of higher derivatives are attacked with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...semantics import affine_axes, group_axes, on_axes
from ..arguments import check_tensors
from .layer_norm import arithmetic_dtype

__all__ = ["centred", "composed_var_mean", "counted", "node", "second_order_by_hand"]

_Gradient = Callable[[Any, Any, Any, tuple[int, ...]], Any]


def composed_var_mean(least: Any, *, premultiplied: bool, semantics: str) -> Callable[..., Any]:
    """torch.var_mean and rsqrt in at least the dtype `least`, the backward left to autograd; y = d·(rstd·w) where `premultiplied`."""

    def composed_layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        check_tensors(x, weight, bias, eps, semantics)
        dtype = arithmetic_dtype(least, x, weight, bias)
        values, weight, bias = x.to(dtype), _read(weight, dtype), _read(bias, dtype)
        mean = var = values.mean(group_axes(semantics), keepdim=True)
        if x.numel():  # var_mean warns of no elements
            var, mean = torch.var_mean(values, group_axes(semantics), correction=0, keepdim=True)
        rstd = torch.rsqrt(var + eps)
        many = values.numel() > rstd.numel()  # at n = 1 rstd·w may overflow beside d = 0
        premultiply = premultiplied and weight is not None and many
        y = (values - mean) * (rstd * weight if premultiply else rstd)
        y = y if weight is None or premultiply else y * weight
        return (y if bias is None else y + bias).to(x.dtype)

    return composed_layer_norm


def centred(g: Any, xhat: Any, rstd: Any, axes: tuple[int, ...]) -> Any:
    """dx = rstd (g - mean(g) - x̂ mean(g x̂))."""
    return rstd * (g - g.mean(axes, keepdim=True) - xhat * (g * xhat).mean(axes, keepdim=True))


def counted(g: Any, xhat: Any, rstd: Any, axes: tuple[int, ...]) -> Any:
    """dx = (n g - Σ g - x̂ Σ g x̂) (rstd/n)."""
    n = g.numel() // max(1, rstd.numel())
    total = (g * xhat).sum(axes, keepdim=True)
    return (n * g - g.sum(axes, keepdim=True) - xhat * total) * (rstd / n if n else rstd)


def node(input_gradient: _Gradient, semantics: str) -> Callable[..., Any]:
    """One autograd.Function, computed again in the backward from x, by torch's own operations; it has a jvp, and vmap makes its own."""

    class Node(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed: see pyproject.toml
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Any, weight: Any, bias: Any, eps: float) -> Any:
            _, y, _ = _normalised(x, weight, bias, eps, semantics)
            return _affine(y, weight, bias).to(x.dtype)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            x, weight, bias, ctx.eps = inputs
            ctx.save_for_backward(x, weight, bias)
            ctx.save_for_forward(x, weight, bias)

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            x, weight, bias = ctx.saved_tensors
            dtype, xhat, rstd = _normalised(x, weight, bias, ctx.eps, semantics)
            w, dy = _read(weight, dtype), dy.to(dtype)
            dx = input_gradient(dy if w is None else dy * w, xhat, rstd, group_axes(semantics)).to(x.dtype)
            dweight = None if weight is None else (dy * xhat).sum(affine_axes(tuple(weight.shape))).to(weight.dtype)
            dbias = None if bias is None else dy.sum(affine_axes(tuple(bias.shape))).to(bias.dtype)
            return dx, dweight, dbias, None

        @staticmethod
        def jvp(ctx: Any, tx: Any, tweight: Any, tbias: Any, _: Any) -> Any:
            x, weight, bias = ctx.saved_tensors
            dtype, xhat, rstd = _normalised(x, weight, bias, ctx.eps, semantics)
            tangent = torch.zeros_like(xhat)
            if tx is not None:
                w, txhat = _read(weight, dtype), centred(tx.to(dtype), xhat, rstd, group_axes(semantics))
                tangent = txhat if w is None else txhat * w
            if tweight is not None:
                tangent = tangent + xhat * _read(tweight, dtype)
            return (tangent if tbias is None else tangent + _read(tbias, dtype)).to(x.dtype)

    def layer_norm_node(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        check_tensors(x, weight, bias, eps, semantics)
        return Node.apply(x, weight, bias, eps)

    return layer_norm_node


def second_order_by_hand(semantics: str) -> Callable[..., Any]:
    """A node whose backward is a node too, and that one's backward the formula of the second order, written out; a third order raises."""

    def layer_norm_node(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        check_tensors(x, weight, bias, eps, semantics)
        return _Forward.apply(x, weight, bias, eps, semantics)

    return layer_norm_node


class _Forward(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, eps: float, semantics: str) -> Any:
        ctx.save_for_backward(x, weight, bias)
        ctx.rest = eps, semantics
        return _affine(_normalised(x, weight, bias, eps, semantics)[1], weight, bias).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return *_Backward.apply(dy, *ctx.saved_tensors, *ctx.rest), None, None


class _Backward(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, dy: Any, x: Any, weight: Any, bias: Any, eps: float, semantics: str) -> Any:
        ctx.save_for_backward(dy, x, weight, bias)
        ctx.rest = eps, semantics
        dtype, xhat, rstd = _normalised(x, weight, bias, eps, semantics)
        w, dy = _read(weight, dtype), dy.to(dtype)
        dx = centred(dy if w is None else dy * w, xhat, rstd, group_axes(semantics)).to(x.dtype)
        dweight = None if weight is None else (dy * xhat).sum(affine_axes(tuple(weight.shape))).to(weight.dtype)
        return dx, dweight, None if bias is None else dy.sum(affine_axes(tuple(bias.shape))).to(bias.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, cx: Any, cweight: Any, cbias: Any) -> Any:
        saved_dy, x, weight, bias = ctx.saved_tensors
        eps, semantics = ctx.rest
        axes = group_axes(semantics)
        dtype, xhat, rstd = _normalised(x, weight, bias, eps, semantics)
        w, dy, cx = _read(weight, dtype), saved_dy.to(dtype), cx.to(dtype)

        def mean(value: Any) -> Any:
            return value.mean(axes, keepdim=True)

        g = dy if w is None else dy * w
        a, b = mean(g * xhat), mean(cx * xhat)
        p = rstd * (cx - mean(cx) - xhat * b)
        curvature = xhat * (mean(g * cx) - mean(g) * mean(cx) - 3 * a * b) + b * (g - mean(g)) + a * (cx - mean(cx))
        on_x, on_dy = -rstd * rstd * curvature, p if w is None else p * w
        if weight is not None:
            on_x = on_x + centred(dy * _read(cweight, dtype), xhat, rstd, axes)
            on_dy = on_dy + _read(cweight, dtype) * xhat
        if bias is not None:
            on_dy = on_dy + _read(cbias, dtype)
        on_weight = None if weight is None else (dy * p).sum(affine_axes(tuple(weight.shape))).to(weight.dtype)
        return on_dy.to(saved_dy.dtype), on_x.to(x.dtype), on_weight, None, None, None


def _normalised(x: Any, weight: Any, bias: Any, eps: float, semantics: str) -> tuple[Any, Any, Any]:
    """The arithmetic dtype, x̂ and rstd."""
    dtype = arithmetic_dtype(torch.float32, x, weight, bias)
    values, axes = x.to(dtype), group_axes(semantics)
    d = values - values.mean(axes, keepdim=True)
    rstd = torch.rsqrt((d * d).mean(axes, keepdim=True) + eps)
    return dtype, d * rstd, rstd


def _affine(xhat: Any, weight: Any, bias: Any) -> Any:
    y = xhat if weight is None else xhat * _read(weight, xhat.dtype)
    return y if bias is None else y + _read(bias, xhat.dtype)


def _read(parameter: Any, dtype: Any) -> Any:
    """A parameter of shape (C,) or (C, H, W) in the arithmetic dtype, to broadcast against (N, C, H, W); None where absent."""
    return None if parameter is None else on_axes(parameter.to(dtype))
