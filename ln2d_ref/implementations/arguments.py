"""Tensors that a LayerNorm2d may be called with, checked once for every implementation of ours."""

from __future__ import annotations

from typing import Any

import torch

from ..dtypes import DTYPES
from ..semantics import check_arguments

__all__ = ["check_tensors"]


def check_tensors(x: Any, weight: Any, bias: Any, eps: float, semantics: str) -> None:
    """Raise TypeError for a dtype, ValueError for a shape, a device or an eps, that no LayerNorm2d is defined on."""
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        if tensor is None and name != "x":
            continue
        if not isinstance(tensor, torch.Tensor) or str(tensor.dtype).removeprefix("torch.") not in DTYPES:
            got = getattr(tensor, "dtype", type(tensor).__name__)
            raise TypeError(f"{name} is {got}, but must be a tensor of {', '.join(DTYPES)}")
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}, but must be on {x.device}, where x is")
    shapes = {name: None if p is None else tuple(p.shape) for name, p in (("weight", weight), ("bias", bias))}
    check_arguments(tuple(x.shape), shapes, eps, semantics)
