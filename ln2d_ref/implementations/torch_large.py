"""Executor that runs an implementation on a tensor too large for a Case, which the case's groups fill over and over.

    x, dy of the given shape  ◄── the case's groups, side by side along W (channel) or N (sample), again and again
    y, dx                     ──► of all copies of a group the least or the greatest values: what lies within a bound does so in every copy
    dweight, dbias            ──► from a further backward with one copy of each group in dy, at places drawn anew, and 0 elsewhere

A sum's bound is for the terms that are not 0: adding 0 rounds nothing. The host holds no more than the case, and no operation here is on
more than 2^26 elements at once. Rows of one large sample lie far apart all the same: that torch's own copy and amin count in 64 bits is
taken for granted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch

from ..case import Case
from ..outcome import Outcome, Result
from .implementation import Implementation
from .torch import TorchExecutor, result_of
from .torch_placed import to_torch

__all__ = ["FOLDS", "LargeExecutor", "tile_shape"]

_PART = 1 << 26
_LARGEST_GROUP = 1 << 22
FOLDS = ("amin", "amax")


def tile_shape(shape: tuple[int, int, int, int], semantics: str) -> tuple[int, int, int, int]:
    """Shape of a case whose groups fill a tensor of this shape: at most 64 pixels of a row, or at most 64 samples of 2^22 elements in all.

    ValueError where one sample has more.
    """
    n, c, h, w = shape
    if semantics == "channel":
        return 1, c, 1, _divisor(w, 64)
    if c * h * w > _LARGEST_GROUP:
        raise ValueError(f"shape is {shape}, but a sample must have at most {_LARGEST_GROUP} elements to be judged")
    return _divisor(n, max(1, min(64, _LARGEST_GROUP // (c * h * w)))), c, h, w


def _divisor(number: int, most: int) -> int:
    return max(k for k in range(1, most + 1) if number % k == 0)


@dataclass
class _Large:
    """A case, and what is called with on its device: x of the large shape."""

    case: Case
    tensors: dict[str, torch.Tensor]


class LargeExecutor(TorchExecutor):
    """Runs on tensors of `shape`; `fold` says which of a group's copies are told, "amin" or "amax" for each element."""

    ways: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    offers: frozenset[str] = frozenset()

    def __init__(self, implementation: Implementation, shape: tuple[int, int, int, int], fold: str, *, seed: int = 0) -> None:
        super().__init__(implementation)
        self.shape, self.fold, self.seed = shape, fold, seed
        compiled = implementation.framework == "compile"
        self.called = torch.compile(implementation.fn, fullgraph=True, dynamic=False) if compiled else implementation.fn

    def place(self, case: Case) -> _Large:  # type: ignore[override]
        """Large tensors, filled. ValueError where the case's shape is not `tile_shape`'s."""
        if case.x.shape != tile_shape(self.shape, case.semantics):
            raise ValueError(f"x has shape {case.x.shape}, but must have {tile_shape(self.shape, case.semantics)} to fill {self.shape}")
        tensors = {name: to_torch(np.array(array)).to(case.device) for name, array in case.arrays.items() if name != "dy"}
        tensors["x"] = self._filled(tensors["x"], case.semantics)
        return _Large(case, {name: tensor.requires_grad_(name in case.requires_grad) for name, tensor in tensors.items()})

    def run(self, placed: _Large) -> Outcome:  # type: ignore[override]
        """One forward, one backward for dx, one for dweight and dbias."""
        case, tensors = placed.case, placed.tensors
        parameters = [name for name in case.requires_grad if name != "x"]
        with self._running(case.threads) as run:
            self._poison(tensors["x"])
            y = self.called(tensors["x"], tensors.get("weight"), tensors.get("bias"), case.eps)
            run.results["y"] = self._folded(y, case)
            if isinstance(y, torch.Tensor) and y.is_floating_point():
                run.stage = "backward"
                dy = self._filled(to_torch(np.array(case.dy)).to(case.device), case.semantics)
                self._poison(dy)
                if "x" in case.requires_grad:
                    (dx,) = torch.autograd.grad(y, [tensors["x"]], dy, retain_graph=True)
                    run.results["dx"] = self._folded(dx, case)
                    del dx  # memory for the next
                if parameters:
                    self._leave_one_copy(dy, case)
                    gradients = torch.autograd.grad(y, [tensors[name] for name in parameters], dy)
                    run.results |= {f"d{name}": result_of(gradient) for name, gradient in zip(parameters, gradients, strict=True)}
        return Outcome(run.results, run.raised)

    def _filled(self, tile: torch.Tensor, semantics: str) -> torch.Tensor:
        large = torch.empty(self.shape, dtype=tile.dtype, device=tile.device)
        for part in self._parts(large, semantics):
            copies = self._by_copy(part, semantics)
            copies.copy_((tile[0, :, :, None, :] if semantics == "channel" else tile).expand_as(copies))
        return large

    def _by_copy(self, part: torch.Tensor, semantics: str) -> torch.Tensor:
        """A part of a large tensor with the copies along axes of their own: (N, C, H, copies, pixels), or (copies, samples, C, H, W)."""
        size = tile_shape(self.shape, semantics)
        return part.unflatten(3, (-1, size[3])) if semantics == "channel" else part.unflatten(0, (-1, size[0]))

    def _parts(self, large: torch.Tensor, semantics: str) -> Iterator[torch.Tensor]:
        """Views that hold the tensor together: some samples, as many as make whole copies, or some rows of one sample."""
        _, c, h, w = self.shape
        if semantics == "channel" and c * h * w > _PART:
            for sample in large.split(1):
                yield from sample.split(max(1, _PART // (c * w)), 2)
        else:
            samples, whole = _PART // (c * h * w), tile_shape(self.shape, semantics)[0]
            yield from large.split(max(1, samples // whole) * whole)

    def _poison(self, like: torch.Tensor) -> None:
        """Leave NaN in memory of the size of a result, which the next will be given: what is not written shows."""
        for part in self._parts(torch.empty_like(like), "channel"):
            part.fill_(torch.nan)

    def _folded(self, value: Any, case: Case) -> Result:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return result_of(value)
        if value.shape != self.shape:
            raise ValueError(f"a result has shape {tuple(value.shape)}, but should have {self.shape}, as x")
        fold, axes = getattr(torch, self.fold), (0, 2, 3) if case.semantics == "channel" else (0,)
        parts = [fold(self._by_copy(part, case.semantics), axes) for part in self._parts(value.detach(), case.semantics)]
        whole = reduce(torch.minimum if self.fold == "amin" else torch.maximum, parts)
        return result_of(whole.reshape(case.x.shape))

    def _leave_one_copy(self, dy: torch.Tensor, case: Case) -> None:
        """Put dy to 0 but for one copy of each group: the first's at the very first place, the last's at the very last."""
        for part in self._parts(dy, case.semantics):
            part.zero_()
        rng, tile = np.random.default_rng(self.seed), to_torch(np.array(case.dy)).to(dy.device)
        n, _, h, w = self.shape
        groups = case.x.shape[3] if case.semantics == "channel" else case.x.shape[0]
        for group in range(groups):
            if case.semantics == "sample":
                copy = _place(rng, group, groups, n // groups)
                dy[copy * groups + group].copy_(tile[group])
                continue
            sample, row, copy = (_place(rng, group, groups, count) for count in (n, h, w // groups))
            dy[sample, :, row, copy * groups + group].copy_(tile[0, :, 0, group])


def _place(rng: np.random.Generator, group: int, groups: int, count: int) -> int:
    """Which copy of a group: the last of the last, the first of the first, else a drawn one."""
    return count - 1 if group == groups - 1 else 0 if group == 0 else int(rng.integers(count))
