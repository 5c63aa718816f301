"""Gradient of the gradients, in PyTorch's own operations, so that a double backward is right and can itself be differentiated."""

from __future__ import annotations

import torch
from torch import Tensor

from ...semantics import affine_axes, group_axes

__all__ = ["second_order"]


def second_order(
    cx: Tensor | None,
    cweight: Tensor | None,
    cbias: Tensor | None,
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    eps: float,
    semantics: str,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of dy, x and weight of <cx, dx> + <cweight, dweight> + <cbias, dbias>; a cotangent may be None for 0.

    With A = mean(g x̂), B = mean(cx x̂), P = rstd (cx - mean cx - x̂ B), h = dy cweight:
      on dy      weight P + cweight x̂ + cbias
      on weight  Σ dy P
      on x       -rstd² [x̂ (mean(g cx) - mean g mean cx - 3AB) + B (g - mean g) + A (cx - mean cx)] + rstd (h - mean h - x̂ mean(h x̂))
    """
    arithmetic = torch.promote_types(x.dtype, torch.float32)
    axes = group_axes(semantics)

    def mean(values: Tensor) -> Tensor:
        return values.mean(axes, keepdim=True)

    def wide(tensor: Tensor | None) -> Tensor | None:
        """In the arithmetic dtype, and broadcastable against x."""
        if tensor is None:
            return None
        tensor = tensor.to(arithmetic)
        return tensor[:, None, None] if tensor.ndim == 1 else tensor

    dy_, x_, cx_ = dy.to(arithmetic), x.to(arithmetic), torch.zeros_like(x, dtype=arithmetic) if cx is None else cx.to(arithmetic)
    w, cw, cb = wide(weight), wide(cweight), wide(cbias)
    d = x_ - mean(x_)
    rstd = torch.rsqrt(mean(d * d) + eps)
    normalised = d * rstd
    g = dy_ if w is None else dy_ * w
    a, b = mean(g * normalised), mean(cx_ * normalised)
    centred_g, centred_cx = g - mean(g), cx_ - mean(cx_)
    p = rstd * (centred_cx - normalised * b)
    on_dy = p if w is None else w * p
    bracket = normalised * (mean(centred_g * centred_cx) - 3 * a * b) + b * centred_g + a * centred_cx
    on_x = -rstd * rstd * bracket
    if cw is not None:
        on_dy = on_dy + cw * normalised
        h = dy_ * cw
        on_x = on_x + rstd * (h - mean(h) - normalised * mean(h * normalised))
    if cb is not None:
        on_dy = on_dy + cb
    on_weight = None if weight is None else (dy_ * p).sum(affine_axes(tuple(weight.shape))).to(weight.dtype)
    return on_dy.to(dy.dtype), on_x.to(x.dtype), on_weight
