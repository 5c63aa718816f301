"""Eager PyTorch's LayerNorm2d, in the forms that libraries use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["composed", "composed_float32", "group_norm", "layer_norm_chw", "permute", "unpermuted"]


def permute(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """channel: permute to NHWC, F.layer_norm over C, permute back; as ConvNeXt in torchvision and timm."""
    return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), weight, bias, eps).permute(0, 3, 1, 2)


def composed(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """channel: mean and variance by hand in the input's dtype; as ConvNeXt's channels_first."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    y = (x - mean) / torch.sqrt(variance + eps)
    if weight is not None:
        y = weight[:, None, None] * y
    return y if bias is None else y + bias[:, None, None]


def composed_float32(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """channel: `composed`, computed in at least float32 and rounded once."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    weight, bias = (None if parameter is None else parameter.to(dtype) for parameter in (weight, bias))
    return composed(x.to(dtype), weight, bias, eps).to(x.dtype)


def layer_norm_chw(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """sample, affine (C, H, W): F.layer_norm over C, H, W; as nn.LayerNorm((C, H, W))."""
    return F.layer_norm(x, x.shape[1:], weight, bias, eps)


def group_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """sample, affine (C,): F.group_norm with one group; as nn.GroupNorm(1, C)."""
    return F.group_norm(x, 1, weight, bias, eps)


def unpermuted(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """sample, affine (C,): the widely copied recipe that hands an affine of shape (C,) to F.layer_norm, which then raises."""
    return F.layer_norm(x, x.shape[1:], weight, bias, eps)
