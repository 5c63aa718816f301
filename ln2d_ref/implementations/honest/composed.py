"""LayerNorm2d composed of torch's own operations, with the backward left to autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...semantics import group_axes
from ..arguments import check_tensors
from .layer_norm import arithmetic_dtype

__all__ = ["composed"]


def composed(*, by_division: bool, semantics: str) -> Callable[..., Any]:
    """LayerNorm2d `fn(x, weight, bias, eps) -> y` as eager code is written: mean, d, mean(d d), then

    `by_division`: d / sqrt(var + eps); otherwise d * rsqrt(var + eps). In float32 for the halves, with one rounding at the end.
    """

    def composed_layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        check_tensors(x, weight, bias, eps, semantics)
        dtype = arithmetic_dtype(torch.float32, x, weight, bias)
        axes = group_axes(semantics)
        values = x.to(dtype)
        d = values - values.mean(axes, keepdim=True)
        var = (d * d).mean(axes, keepdim=True)
        y = d / torch.sqrt(var + eps) if by_division else d * torch.rsqrt(var + eps)
        if weight is not None:
            y = y * _on_axes(weight.to(dtype))
        if bias is not None:
            y = y + _on_axes(bias.to(dtype))
        return y.to(x.dtype)

    return composed_layer_norm


def _on_axes(parameter: Any) -> Any:
    """A parameter of shape (C,) or (C, H, W), to broadcast against (N, C, H, W)."""
    return parameter.reshape(1, -1, 1, 1) if parameter.ndim == 1 else parameter[None]
