"""`triton/fused`: LayerNorm2d by Triton kernels, on a GPU, or on the CPU in Triton's interpreter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .matrix import as_matrices, as_samples
from .operators import Gradients, arithmetic_dtype, register
from .triton_launch import INTERPRETED, launch, power, processors, readable

from . import triton_channel, triton_sample  # isort: skip  # triton_launch sets up Triton first
import triton.language as tl  # isort: skip

__all__ = ["DEVICES", "channel", "sample"]

DEVICES = ("cpu",) if INTERPRETED else ("cuda",)
"""Where these kernels run in this process."""

_TILE = 8192
"""Elements of a tile of channels and pixels: 32 KiB of float32 in registers, an eighth of a multiprocessor's."""
_MOST_CHANNELS = 2048
"""Channels that are held on chip; more are gone over in tiles."""
_SMALL_SAMPLE = 1024
"""Values of a sample, up to which a sample is a column of a tile; larger ones are split over several programs."""
_LONGEST_CHAIN = 1024
"""Additions in a row in one accumulator; docs/bounds.md asks for fewer than 4096 in all."""
_BLOCK = 4096
"""Elements that a program of the split kernels takes at once."""


def _check_device(x: Tensor) -> None:
    if x.device.type != DEVICES[0]:
        hint = "; TRITON_INTERPRET=1 makes it run on the CPU" if x.device.type == "cpu" else ""
        raise ValueError(f"x is on {x.device}, but Triton runs on {DEVICES[0]} in this process{hint}")


def _tile(x: Tensor, channels: int, columns: int, *tensors: Tensor | None) -> dict[str, Any]:
    """Sizes of a tile, narrower where there would be fewer tiles than processors; and the type in which places in the tensors count."""
    fits = channels <= _MOST_CHANNELS
    widest = _TILE if INTERPRETED else 128  # the interpreter's time goes by programs, not by elements
    block_p = min(max(_TILE // power(channels), 16), widest, power(columns))
    block_c = power(channels) if fits else min(_MOST_CHANNELS, _TILE // block_p)
    while block_p > 16 and math.ceil(columns / block_p) < processors(x):
        block_p //= 2
    wide = any(tensor is not None and _extent(tensor) > 2**31 - 2**20 for tensor in tensors)
    return {"BLOCK_C": block_c, "BLOCK_P": block_p, "FITS": fits, "INDEX": tl.int64 if wide else tl.int32}


def _extent(tensor: Tensor) -> int:
    """Elements from the first to the last in memory; never fewer than there are."""
    return max(tensor.numel(), 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)))


def _columns(x: Tensor, semantics: str) -> tuple[Tensor, tuple[int, int, int]]:
    """x, and its strides in the terms of triton_channel."""
    if semantics == "channel":
        x, *strides = as_matrices(x)
        return x, (strides[0], strides[1], strides[2])
    x, stride = as_samples(x)
    return x, (0, 1, stride)


def _sizes(x: Tensor, semantics: str) -> tuple[int, int, int]:
    """C, P and M in the terms of triton_channel."""
    if semantics == "channel":
        pixels = x.shape[2] * x.shape[3]
        return x.shape[1], pixels, x.shape[0] * pixels
    return math.prod(x.shape[1:]), x.shape[0], x.shape[0]


def _step(x: Tensor, semantics: str, *affine: Tensor | None) -> int:
    """By how much a value's index in its sample is divided to give its parameter's."""
    narrow = any(parameter is not None and parameter.ndim == 1 for parameter in affine)
    return x.shape[2] * x.shape[3] if semantics == "sample" and narrow else 1


def empty_like(x: Tensor, semantics: str) -> Tensor:
    """Memory for y or dx: channels_last where x is and groups are pixels, else contiguous."""
    if semantics == "channel" and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.empty_like(x, memory_format=torch.channels_last)
    return x.new_empty(x.shape)


def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, semantics: str) -> tuple[Tensor, Tensor, Tensor]:
    """y, mean and rstd."""
    _check_device(x)
    dtype = x.dtype
    y = readable(empty_like(x, semantics))[0]
    x, weight, bias = readable(x, *(None if parameter is None else parameter.contiguous() for parameter in (weight, bias)))
    statistics = (x.shape[0], *x.shape[2:]) if semantics == "channel" else (x.shape[0],)
    mean, rstd = (x.new_empty(statistics, dtype=arithmetic_dtype(x)) for _ in range(2))
    given = {"HAS_WEIGHT": weight is not None, "HAS_BIAS": bias is not None}
    channels, pixels, columns = _sizes(x, semantics)
    steps = (_step(x, semantics, weight), _step(x, semantics, bias))
    if weight is not None and bias is not None and steps[0] != steps[1]:
        raise ValueError(f"weight has shape {tuple(weight.shape)} and bias {tuple(bias.shape)}, but both must have the same")
    step = max(steps)
    if semantics == "channel" or channels <= _SMALL_SAMPLE:
        source, strides = _columns(x, semantics)
        tile = _tile(x, channels, columns, source, y)
        places = (channels, pixels, columns, *strides, *_columns(y, semantics)[1], step)
        count = math.ceil(columns / tile["BLOCK_P"])
        elements = tile["BLOCK_C"] * tile["BLOCK_P"]
        launch(
            triton_channel.channel_forward,
            count,
            x,
            source,
            weight,
            bias,
            y,
            mean,
            rstd,
            eps,
            1 / channels,
            *places,
            **given,
            **tile,
            elements=elements,
        )
        return y.to(dtype), mean, rstd
    source, stride = as_samples(x)
    chunk = _BLOCK * max(1, channels // (_BLOCK * _LONGEST_CHAIN))
    splits = math.ceil(channels / chunk)
    part_mean, part_squares = (mean.new_empty(x.shape[0], splits) for _ in range(2))
    programs = x.shape[0] * splits
    launch(triton_sample.sample_statistics, programs, x, source, part_mean, part_squares, channels, stride, splits, chunk, BLOCK=_BLOCK)
    merged = (part_mean, part_squares, mean, rstd, channels, splits, chunk, eps)
    launch(triton_sample.sample_merge, x.shape[0], x, *merged, BLOCK=min(1024, power(splits)))
    tiles = math.ceil(channels / _BLOCK)
    arguments = (source, weight, bias, y, mean, rstd, channels, stride, tiles, step)
    launch(triton_sample.sample_normalise, x.shape[0] * tiles, x, *arguments, **given, BLOCK=_BLOCK)
    return y.to(dtype), mean, rstd


def _sum_rows(terms: Tensor, rows: int, columns: int, strides: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Sums of a matrix's rows, in as many stages as keep every chain of additions short."""
    while True:
        chunk = min(rows, _LONGEST_CHAIN)
        chunks = math.ceil(rows / chunk)
        last = chunks == 1
        kept = torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype
        result = terms.new_empty((chunks, columns), dtype=kept if last else terms.dtype)
        block_r, block_k = min(32, power(chunk)), min(4096 if INTERPRETED else 64, power(columns))
        programs = math.ceil(columns / block_k) * chunks
        arguments = (terms, result, rows, columns, chunk, chunks, *strides)
        launch(triton_channel.sum_rows, programs, terms, *arguments, BLOCK_R=block_r, BLOCK_K=block_k)
        if last:
            return result.to(dtype)
        terms, rows, strides = result, chunks, (columns, 1)


def _parameter_gradient(partial: Tensor, parameter: Tensor, pixels: int) -> Tensor:
    """Gradient of a parameter from partial sums of shape (rows, its size), or (rows, its size · pixels)."""
    rows, columns = partial.shape
    if columns == parameter.numel():
        return _sum_rows(partial, rows, columns, (columns, 1), parameter.dtype).reshape(parameter.shape)
    total = _sum_rows(partial, rows, columns, (columns, 1), partial.dtype)
    return _sum_rows(total, pixels, parameter.numel(), (1, pixels), parameter.dtype).reshape(parameter.shape)


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    semantics: str,
    needs: tuple[bool, bool, bool],
) -> Gradients:
    """dx, dweight and dbias, each None where it is not needed."""
    _check_device(x)
    dx = readable(empty_like(x, semantics))[0] if needs[0] else None
    parameters, dtype = (weight, bias), x.dtype
    dy, x, weight = readable(dy, x, None if weight is None else weight.contiguous())
    small = semantics == "channel" or math.prod(x.shape[1:]) <= _SMALL_SAMPLE
    partial = (_by_columns if small else _by_samples)(dy, x, weight, bias, mean, rstd, dx, semantics, needs)
    pixels = x.shape[2] * x.shape[3]
    dweight, dbias = (
        _parameter_gradient(part, like, pixels) if need else None for part, like, need in zip(partial, parameters, needs[1:], strict=True)
    )
    return None if dx is None else dx.to(dtype), dweight, dbias


def _by_columns(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    dx: Tensor | None,
    semantics: str,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Fill dx; partial sums of dweight and dbias. Each program takes several tiles, so that there are few rows of partial sums."""
    channels, pixels, columns = _sizes(x, semantics)
    (x, x_strides), (dy, dy_strides) = _columns(x, semantics), _columns(dy, semantics)
    dx_strides = (0, 0, 0) if dx is None else _columns(dx, semantics)[1]
    tile = _tile(x, channels, columns, x, dy, dx)
    tiles = math.ceil(columns / tile["BLOCK_P"])
    programs = min(tiles, max(4 * processors(x), math.ceil(tiles / _LONGEST_CHAIN))) if tile["FITS"] else tiles
    partial = tuple(mean.new_empty(programs, channels) if need else None for need in needs[1:])
    places = (channels, pixels, columns, tiles, *dy_strides, *x_strides, *dx_strides, _step(x, semantics, weight))
    flags = {"HAS_WEIGHT": weight is not None, "NEED_X": needs[0], "NEED_WEIGHT": needs[1], "NEED_BIAS": needs[2]}
    elements = 2 * tile["BLOCK_C"] * tile["BLOCK_P"]
    arguments = (dy, x, weight, mean, rstd, dx, *partial, 1 / channels, *places)
    launch(triton_channel.channel_backward, programs, x, *arguments, **flags, **tile, elements=elements)
    return partial[0], partial[1]


def _by_samples(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    dx: Tensor | None,
    semantics: str,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Fill dx; partial sums of dweight and dbias. Two sweeps: sums along each channel of each sample, then dx."""
    (x, x_n), (dy, dy_n) = as_samples(x), as_samples(dy)
    samples, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    size = channels * pixels
    by_element = any(parameter is not None and parameter.ndim == 3 for parameter in (weight, bias))
    mean_g, mean_gx, partial = None, None, [None, None]
    if needs[0] or not by_element:
        sums = _row_sums(dy, x, weight if by_element else None, mean, rstd, (dy_n, x_n), needs)
        if not by_element:
            partial = [sums[1].view(samples, channels) if needs[1] else None, sums[0].view(samples, channels) if needs[2] else None]
        if needs[0]:
            mean_g, mean_gx = (mean.new_empty(samples) for _ in range(2))
            narrow = weight is not None and not by_element
            arguments = (*sums, weight, mean_g, mean_gx, channels, size)
            block = min(1024, power(channels))
            launch(triton_sample.sample_weighted_sums, samples, x, *arguments, WEIGHTED=narrow, BLOCK=block)
    summed = (by_element and needs[1], by_element and needs[2])
    if not (needs[0] or any(summed)):
        return partial[0], partial[1]
    tiles = math.ceil(size / _BLOCK)
    each = 1
    if any(summed):  # samples that one program sums over: all, unless that leaves too few programs, or too long a chain
        each = min(samples, _LONGEST_CHAIN, max(1, tiles * samples // (4 * processors(x))))
    chunks = math.ceil(samples / each)
    if by_element:
        partial = [mean.new_empty(chunks, size) if need else None for need in summed]
    flags = {"HAS_WEIGHT": weight is not None, "NEED_X": needs[0], "NEED_WEIGHT": summed[0], "NEED_BIAS": summed[1]}
    step = 1 if by_element else pixels
    arguments = (dy, x, weight, mean, rstd, mean_g, mean_gx, dx, *(partial if by_element else (None, None)))
    sizes = (samples, size, dy_n, x_n, tiles, each, step)
    launch(triton_sample.sample_input_gradient, tiles * chunks, x, *arguments, *sizes, **flags, BLOCK=_BLOCK)
    return partial[0], partial[1]


def _row_sums(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    strides: tuple[int, int],
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """Σ dy and Σ dy·x̂ along the pixels of each channel of each sample; dy is multiplied by a weight of shape (C, H, W) first."""
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    rows = x.shape[0] * channels
    block_p = min(1024, power(pixels))
    block_r = max(1, min(_BLOCK // block_p, power(rows)))
    chunk = min(pixels, block_p * _LONGEST_CHAIN // 16)
    splits = math.ceil(pixels / chunk)
    read_x = needs[0] or needs[1]
    sums = tuple(mean.new_empty(splits, rows) for _ in range(2))
    sizes = (channels, pixels, rows, *strides, splits, chunk)
    constants = {"WEIGHTED": weight is not None, "READ_X": read_x, "BLOCK_R": block_r, "BLOCK_P": block_p}
    programs = math.ceil(rows / block_r) * splits
    launch(triton_sample.sample_row_sums, programs, x, dy, x, weight, mean, rstd, *sums, *sizes, **constants)
    if splits == 1:
        return sums[0], sums[1]
    whole = tuple(_sum_rows(part, splits, rows, (rows, 1), mean.dtype) for part in (sums if read_x else sums[:1]))
    return whole[0], whole[-1]


channel, sample = register("triton", forward, backward, empty_like)
