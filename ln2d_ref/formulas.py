"""Layer normalisation and its derivatives, stated once, for any kind of number.

Arguments broadcast against x of shape (N, C, H, W); `axes` are those of a group, weight and bias are 1 or None where absent, and
parameter gradients are summed over `affine` axes. Means are over the group. Ba, Kiros & Hinton, "Layer Normalization" (2016).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .numbers.operations import folded, mean_square, rsqrt, shifted

__all__ = ["Statistics", "bias_gradient", "double_vjp", "forward", "input_gradient", "statistics", "weight_gradient"]

Axes = tuple[int, ...]


class Statistics(NamedTuple):
    """What forward and backward share: mean, 1/sqrt(var + eps) and x̂ = (x - mean)·rstd."""

    mean: Any
    rstd: Any
    normalised: Any


def statistics(x: Any, eps: Any, axes: Axes) -> Statistics:
    """mean; d = x - mean; var = mean(d²); rstd = 1/sqrt(var + eps); x̂ = d·rstd."""
    mean = x.mean(axis=axes, keepdims=True)
    d = x - mean
    var = mean_square(d, mean, axes)
    rstd = rsqrt(var, eps)
    return Statistics(mean, rstd, folded(d, mean) * rstd)


def forward(s: Statistics, weight: Any = None, bias: Any = None) -> Any:
    """y = x̂·weight + bias."""
    y = s.normalised if weight is None else s.normalised * weight
    return y if bias is None else shifted(y, bias)


def input_gradient(s: Statistics, dy: Any, weight: Any, axes: Axes) -> Any:
    """dx = rstd·(g - mean g - x̂·mean(g x̂)), g = dy·weight.

    mean(x̂·mean(g x̂)) is subtracted too: exactly 0, but not where autograd computes it, and so it is charged for.
    """
    g = dy if weight is None else dy * weight
    projection = s.normalised * _mean(g * s.normalised, axes)
    return s.rstd * ((g - _mean(g, axes)) - (projection - _mean(projection, axes)))


def weight_gradient(s: Statistics, dy: Any, affine: Axes) -> Any:
    """dweight = Σ dy·x̂."""
    return (dy * s.normalised).sum(axis=affine, keepdims=True)


def bias_gradient(dy: Any, affine: Axes) -> Any:
    """dbias = Σ dy."""
    return dy.sum(axis=affine, keepdims=True)


def double_vjp(s: Statistics, cx: Any, cweight: Any, cbias: Any, dy: Any, weight: Any, axes: Axes, affine: Axes) -> tuple[Any, Any, Any]:
    """Cotangents of dy, x and weight, given those (cx, cweight, cbias) of (dx, dweight, dbias).

    With A = mean(g x̂), B = mean(cx x̂), P = rstd(cx - mean cx - x̂ B) and h = dy·cweight:
      dy      weight·P + cweight·x̂ + cbias
      x       -rstd²[x̂(mean(g cx) - mean g mean cx - 3AB) + B(g - mean g) + A(cx - mean cx)] + rstd(h - mean h - x̂ mean(h x̂))
      weight  Σ dy·P
    """
    x_hat, rstd = s.normalised, s.rstd
    g = dy if weight is None else dy * weight
    g_mean, cx_mean = _mean(g, axes), _mean(cx, axes)
    a, b = _mean(g * x_hat, axes), _mean(cx * x_hat, axes)
    p = rstd * (cx - cx_mean - x_hat * b)
    curvature = x_hat * (_mean(g * cx, axes) - g_mean * cx_mean - a * b - a * b * 2.0) + b * (g - g_mean)
    on_x = -(rstd * rstd * (curvature + a * (cx - cx_mean)))
    on_dy = p if weight is None else p * weight
    if cweight is not None:
        on_x = on_x + input_gradient(s, dy, cweight, axes)
        on_dy = on_dy + cweight * x_hat
    if cbias is not None:
        on_dy = on_dy + cbias
    return on_dy, on_x, (dy * p).sum(axis=affine, keepdims=True)


def _mean(value: Any, axes: Axes) -> Any:
    return value.mean(axis=axes, keepdims=True)
