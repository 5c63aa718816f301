"""How an (N, C, H, W) tensor lies in memory, as the kernels address it: as matrices of (C, pixels), or as rows of C·H·W values."""

from __future__ import annotations

from torch import Tensor

__all__ = ["as_matrices", "as_samples"]


def as_matrices(x: Tensor) -> tuple[Tensor, int, int, int]:
    """x, with its strides for sample, channel and pixel; copied first where H and W do not make one axis of pixels.

    Contiguous, channels_last, slices of samples or channels, and expanded tensors are taken as they are.
    """
    height, width = x.shape[2:]
    n, c, h, w = x.stride()
    if width == 1:
        return x, n, c, h
    if height == 1 or h == width * w:
        return x, n, c, w
    x = x.contiguous()
    return x, x.stride(0), x.stride(1), 1


def as_samples(x: Tensor) -> tuple[Tensor, int]:
    """x, with its stride for samples; copied first where a sample is not C·H·W neighbouring values in NCHW order."""
    if not x[:1].is_contiguous():
        x = x.contiguous()
    return x, x.stride(0)
