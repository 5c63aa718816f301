"""What kernels see: a tensor's storage, read and written by element whatever the tensor's own layout says."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["past_the_end", "read_as", "read_as_contiguous", "whole_storage"]


def whole_storage(tensor: Tensor) -> Tensor:
    """All elements of the tensor's storage, as a one-dimensional alias that autograd and version counters do not see."""
    elements = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.data.as_strided((elements,), (1,), 0)


def read_as_contiguous(tensor: Tensor) -> Tensor:
    """A copy with the values that the tensor would have were it contiguous at its storage offset; 0 past the storage's end."""
    values = whole_storage(tensor)[tensor.storage_offset() :][: tensor.numel()]
    missing = values.new_zeros(tensor.numel() - values.numel())
    return torch.cat([values, missing]).reshape(tensor.shape)


def read_as(tensor: Tensor, strides: tuple[int, ...], offset: int) -> Tensor:
    """A copy with the values that the tensor would have were its strides and offset these; the storage's last past its end."""
    places = torch.tensor(offset, device=tensor.device)
    for size, stride in zip(tensor.shape, strides, strict=True):
        places = places.unsqueeze(-1) + stride * torch.arange(size, device=tensor.device)
    values = whole_storage(tensor)
    return values[places.clamp(max=values.numel() - 1)] if tensor.numel() else tensor.data.clone()


def past_the_end(tensor: Tensor) -> Tensor:
    """The one element of storage after the tensor's last, as an alias; empty where the storage ends there or x is empty."""
    if not tensor.numel():
        return tensor.data.reshape(-1)
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = tensor.storage_offset() + sum((size - 1) * stride for size, stride in steps)
    return whole_storage(tensor)[last + 1 : last + 2]
