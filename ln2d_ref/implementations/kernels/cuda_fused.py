"""`cuda/fused`: LayerNorm2d by CUDA kernels; on a CPU, by the same source compiled as plain C++, thread after thread.

The library is compiled on first use and called through ctypes: it needs no header of torch. ImportError where neither a GPU with nvcc nor
a C++ compiler is there.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .cuda_build import SOURCES, build, host_compiler, nvcc
from .matrix import as_matrices, as_samples
from .operators import Gradients, arithmetic_dtype, register

__all__ = ["DEVICES", "Kernels", "channel", "sample"]

_GPU = torch.cuda.is_available() and nvcc() is not None
if not _GPU and host_compiler() is None:
    raise ImportError("cuda/fused needs a GPU and nvcc, or a C++ compiler to emulate it on the CPU")
DEVICES = ("cuda",) if _GPU else ("cpu",)
"""Where these kernels are judged by default in this process. Tensors on a CPU go to the emulation in any case."""

_CODES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
_SHARED = {"cuda": 100 * 1024, "cpu": 16 * 1024}
"""Bytes of shared memory for a tile: on a GPU two blocks a processor; on a CPU less, so that small cases take every path."""
_LONGEST_CHAIN = 1024
"""Additions in a row in one accumulator; docs/bounds.md asks for fewer than 4096 in all."""
_ROW_CHUNK = 8192
"""Pixels of a channel that one block sums."""


@cache
def _library(architecture: str | None, sources: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(build(architecture, sources)))
    library.ln2d_channel_shared_bytes.restype = ctypes.c_longlong
    library.ln2d_sample_splits.restype = ctypes.c_longlong
    return library


def _c(argument: Any) -> Any:
    """A Python value as the launchers take it: pointers, 64-bit sizes, eps as a double."""
    if argument is None or isinstance(argument, Tensor):
        return ctypes.c_void_p(None if argument is None else argument.data_ptr())
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_longlong(argument)


def _dense(x: Tensor) -> tuple[Tensor, int, int]:
    """x, with its strides for sample and channel; copied where pixels are not neighbours, as in channels_last or an expanded dy."""
    source, n, c, p = as_matrices(x)
    if p != 1 and x.shape[2] * x.shape[3] > 1:
        source = x.contiguous()
        n, c = source.stride(0), source.stride(1)
    return source, n, c


def _wide(parameter: Tensor | None, x: Tensor) -> Tensor | None:
    """A parameter in the arithmetic dtype: small beside x, so that this spares a variant of every kernel for each pair of dtypes."""
    return None if parameter is None else parameter.to(arithmetic_dtype(x)).contiguous()


def _vector(x: Tensor, sizes: tuple[int, ...], *tensors: Tensor | None) -> int:
    """1 where every access may be of 16 bytes, else 0."""
    each = 16 // x.element_size()
    return int(all(size % each == 0 for size in sizes) and all(t is None or t.data_ptr() % 16 == 0 for t in tensors))


def _power(number: int) -> int:
    """The largest power of two that is at most this."""
    return 1 << (number.bit_length() - 1)


class Kernels:
    """The forward and backward that `register` takes, compiled from the sources in a folder."""

    def __init__(self, sources: Path = SOURCES) -> None:
        self.sources = sources

    def library(self, device: torch.device) -> ctypes.CDLL:
        """The compiled launchers for a device."""
        if device.type == "cpu":
            return _library(None, self.sources)
        if device.type != "cuda":
            raise ValueError(f"x is on {device}, but must be on a CUDA device or the CPU")
        major, minor = torch.cuda.get_device_capability(device)
        return _library(f"sm_{major}{minor}", self.sources)

    def registered(self, name: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        """The functions of `channel` and `sample` semantics, after their operators are registered under this name."""
        return register(name, self.forward, self.backward, lambda x, semantics: x.new_empty(x.shape))

    def _call(self, name: str, x: Tensor, *arguments: Any) -> None:
        launcher = getattr(self.library(x.device), f"ln2d_{name}")
        converted = [_c(argument) for argument in (_CODES[x.dtype], *arguments)]
        if x.device.type == "cpu":
            error = launcher(*converted, None)
        else:
            with torch.cuda.device(x.device):
                error = launcher(*converted, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))
        if error != 0:
            raise RuntimeError(f"ln2d_{name} failed with CUDA error {error}")

    def _width(self, x: Tensor, vector: int, backward: int) -> tuple[int, int]:
        """Whether a tile is held in shared memory, and how many pixels it has: 128, 64 or 32 bytes of each channel."""
        widths = [size // x.element_size() for size in (128, 64, 32)]
        for width in widths:
            sizes = (_c(each) for each in (_CODES[x.dtype], vector, backward, x.shape[1], width))
            if self.library(x.device).ln2d_channel_shared_bytes(*sizes) <= _SHARED[x.device.type]:
                return 1, width
        return 0, widths[-1]  # so that many threads share the channels: their chains stay below 4096 up to 65,536 channels

    def forward(self, x: Tensor, weight: Any, bias: Any, eps: float, semantics: str) -> tuple[Tensor, Tensor, Tensor]:
        """y, mean and rstd."""
        if weight is not None and bias is not None and weight.shape != bias.shape:
            raise ValueError(f"weight has shape {tuple(weight.shape)} and bias {tuple(bias.shape)}, but both must have the same")
        y = x.new_empty(x.shape)
        statistics = (x.shape[0], *x.shape[2:]) if semantics == "channel" else (x.shape[0],)
        mean, rstd = (x.new_empty(statistics, dtype=arithmetic_dtype(x)) for _ in range(2))
        weight, bias = _wide(weight, x), _wide(bias, x)
        channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
        eps = float(eps)
        if semantics == "channel":
            x, n, c = _dense(x)
            vector = _vector(x, (n, c, pixels), x, y)
            held, width = self._width(x, vector, 0)
            sizes = (channels, pixels, x.shape[0] * pixels, n, c)
            self._call("channel_forward", x, vector, held, width, x, weight, bias, y, mean, rstd, eps, *sizes)
            return y, mean, rstd
        x, n = as_samples(x)
        size = channels * pixels
        step = 1 if any(parameter is not None and parameter.ndim == 3 for parameter in (weight, bias)) else pixels
        vector = _vector(x, (n, size, pixels if step > 1 else size), x, y)
        splits = self.library(x.device).ln2d_sample_splits(_c(size))
        scratch = mean.new_empty(2, x.shape[0], splits)
        self._call("sample_statistics", x, vector, x, scratch[0], scratch[1], mean, rstd, eps, x.shape[0], size, n)
        # with one pixel a channel, every value has its own parameter, whatever the shape
        self._call("sample_normalise", x, vector, x, weight, bias, y, mean, rstd, x.shape[0], size, n, step)
        return y, mean, rstd

    def backward(
        self,
        dy: Tensor,
        x: Tensor,
        weight: Any,
        bias: Any,
        mean: Tensor,
        rstd: Tensor,
        semantics: str,
        needs: tuple[bool, bool, bool],
    ) -> Gradients:
        """dx, dweight and dbias, each None where it is not needed."""
        dx = x.new_empty(x.shape) if needs[0] else None
        parameters = (weight, bias)
        sweep = self._by_pixels if semantics == "channel" else self._by_samples
        partial = sweep(dy, x, _wide(weight, x), bias, mean, rstd, dx, needs)
        dweight, dbias = (
            self._sum_rows(part, like) if need and part is not None else None
            for part, like, need in zip(partial, parameters, needs[1:], strict=True)
        )
        return dx, dweight, dbias

    def _by_pixels(
        self, dy: Tensor, x: Tensor, weight: Any, bias: Any, mean: Tensor, rstd: Tensor, dx: Tensor | None, needs: tuple[bool, ...]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Fill dx; partial sums of dweight and dbias, a row for each block, which takes several tiles."""
        (x, x_n, x_c), (dy, dy_n, dy_c) = _dense(x), _dense(dy)
        channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
        vector = _vector(x, (x_n, x_c, dy_n, dy_c, pixels), x, dy, dx)
        held, width = self._width(x, vector, 1)
        tiles = math.ceil(x.shape[0] * pixels / width)
        blocks = min(tiles, max(_blocks(x), math.ceil(tiles / _LONGEST_CHAIN)))
        dweight, dbias = (mean.new_empty(blocks, channels) if need else None for need in needs[1:])
        sizes = (channels, pixels, x.shape[0] * pixels, dy_n, dy_c, x_n, x_c, blocks)
        self._call("channel_backward", x, vector, held, width, dy, x, weight, mean, rstd, dx, dweight, dbias, *sizes)
        return dweight, dbias

    def _by_samples(
        self, dy: Tensor, x: Tensor, weight: Any, bias: Any, mean: Tensor, rstd: Tensor, dx: Tensor | None, needs: tuple[bool, ...]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Fill dx; partial sums of dweight and dbias. Two sweeps: sums along each channel of each sample, then dx."""
        (x, x_n), (dy, dy_n) = as_samples(x), as_samples(dy)
        samples, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        size = channels * pixels
        by_element = any(parameter is not None and parameter.ndim == 3 for parameter in (weight, bias))
        mean_g, mean_gx = None, None
        partial: tuple[Tensor | None, ...] = (None, None)
        if needs[0] or not by_element:
            sums, sums_x = self._row_sums(dy, x, weight if by_element else None, mean, rstd, (dy_n, x_n))
            if not by_element:
                partial = (sums_x if needs[1] else None, sums if needs[2] else None)
            if needs[0]:
                mean_g, mean_gx = (mean.new_empty(samples) for _ in range(2))
                narrow = None if by_element else weight
                self._call("sample_means", x, sums, sums_x, narrow, mean_g, mean_gx, samples, channels, size)
        summed = (by_element and needs[1], by_element and needs[2])
        if not (needs[0] or any(summed)):
            return partial[0], partial[1]
        step = 1 if by_element else pixels
        vector = _vector(x, (x_n, dy_n, size, pixels if step > 1 else size), x, dy, dx)
        tiles = math.ceil(size / 256)
        # samples that one block sums over: all, unless that leaves too few blocks, or too long a chain
        together = min(samples, _LONGEST_CHAIN, max(1, tiles * samples // _blocks(x))) if any(summed) else 1
        parts = math.ceil(samples / together)
        if by_element:
            partial = tuple(mean.new_empty(parts, size) if need else None for need in summed)
        arguments = (dy, x, weight, mean, rstd, mean_g, mean_gx, dx, *(partial if by_element else (None, None)))
        self._call("sample_input_gradient", x, vector, *arguments, samples, size, dy_n, x_n, together, step)
        return partial[0], partial[1]

    def _row_sums(self, dy: Tensor, x: Tensor, weight: Any, mean: Tensor, rstd: Tensor, strides: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Σ dy and Σ dy·x̂ along the pixels of each channel of each sample, (N, C); weight, of shape (C, H, W), multiplies dy first."""
        samples, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        splits = math.ceil(pixels / _ROW_CHUNK)
        sums = tuple(mean.new_empty(splits, samples * channels) for _ in range(2))
        sizes = (samples, channels, pixels, *strides, _ROW_CHUNK, min(256, _power(pixels)))
        self._call("sample_row_sums", x, dy, x, weight, mean, rstd, *sums, *sizes)
        whole = [part if splits == 1 else self._summed(part, splits, samples * channels) for part in sums]
        return whole[0].view(samples, channels), whole[1].view(samples, channels)

    def _sum_rows(self, partial: Tensor, parameter: Tensor) -> Tensor:
        """Sum of partial sums, a row each, in the shape and dtype of a parameter."""
        rows, columns = partial.shape
        return self._summed(partial, rows, columns).to(parameter.dtype).view(parameter.shape)

    def _summed(self, terms: Tensor, rows: int, columns: int) -> Tensor:
        """Sums of a matrix's rows, in as many stages as keep every chain of additions short."""
        while True:
            chunk = min(rows, _LONGEST_CHAIN)
            chunks = math.ceil(rows / chunk)
            result = terms.new_empty(chunks, columns)
            self._call("sum_rows", terms, terms, result, rows, columns, chunk, columns, 1)
            if chunks == 1:
                return result[0]
            terms, rows = result, chunks


def _blocks(x: Tensor) -> int:
    """Blocks that keep a device busy; few on a CPU, so that small cases give a block several tiles."""
    return 3 if x.device.type == "cpu" else 4 * torch.cuda.get_device_properties(x.device).multi_processor_count


_kernels = Kernels()
channel, sample = _kernels.registered("cuda")
