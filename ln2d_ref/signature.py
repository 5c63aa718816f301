"""Compile signature of a case: what torch.compile makes a graph of its own for. Cases of one signature share one compiled function."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from .case import Case
from .dtypes import DTYPES
from .layout import Layout
from .semantics import group_size

__all__ = ["LONGEST_SUM", "STATIC_SHAPES", "Signature"]

LONGEST_SUM = 4096
"""Inductor sums more terms than this in blocks, and guards on which way it chose (need_use_acc_helper in its codegen/cpp.py)."""

STATIC_SHAPES = ((2, 96, 6, 6), (1, 24, 12, 24), (12, 6, 1, 6))
"""A case of one of these shapes is compiled for it alone, with dynamic=False; every other case with dynamic=True."""

_SUMS = {"N": (0,), "C": (1,), "HW": (2, 3), "CHW": (1, 2, 3), "NHW": (0, 2, 3)}
_SIZES = ((5, 67, 4099), (7, 71, 4111), (3, 73, 4127), (11, 79, 4129))  # of N, C, H and W; no two are equal, nor is any product


@dataclass(frozen=True)
class Signature:
    """All of a case that a graph may depend on; values, other sizes, offsets and the layout of dy must make no other.

    sides          0 and 1 as they are, 2 for any larger size; the whole shape where it is static
    long           which sums have more than LONGEST_SUM terms, by their axes
    element        whether weight and bias have shape (C, H, W)
    layouts        of x, weight and bias where not contiguous, without their offsets
    eps, threads   a float argument and the number of threads are constants to the compiler
    channels       C where it is one too, as to a module that was built for it; else None
    """

    dtype: str
    semantics: str
    affine: str
    element: bool
    sides: tuple[int, ...]
    long: tuple[str, ...]
    layouts: tuple[tuple[str, Layout], ...]
    requires_grad: tuple[str, ...]
    eps: float
    threads: int
    device: str
    channels: int | None = None

    @classmethod
    def of(cls, case: Case, *, constant_channels: bool = False) -> Signature:
        """Signature of a case."""
        shape = case.x.shape
        static = shape in STATIC_SHAPES
        given = [name for name in ("weight", "bias") if getattr(case, name) is not None]
        layouts = {name: replace(case.laid_out(name), offset=0) for name in ("x", *given)}
        return cls(
            dtype=case.dtype,
            semantics=case.semantics,
            affine="both" if len(given) == 2 else given[0] if given else "none",
            element=any(getattr(case, name).ndim == 3 for name in given),
            sides=shape if static else tuple(min(side, 2) for side in shape),
            long=() if static else _long(shape),
            layouts=tuple((name, layout) for name, layout in layouts.items() if not layout.contiguous),
            requires_grad=case.requires_grad,
            eps=case.eps,
            threads=case.threads,
            device=case.device,
            channels=shape[1] if constant_channels else None,
        )

    @property
    def dynamic(self) -> bool:
        """Whether sizes are symbols."""
        return self.sides not in STATIC_SHAPES

    @property
    def layout(self) -> str:
        """Class of x's layout: contiguous, channels_last, permuted (dense in another order) or strided (steps, or stride 0)."""
        layout = dict(self.layouts).get("x", Layout())
        if layout.contiguous:
            return "contiguous"
        if layout.expanded or any(step > 1 for step in layout.steps):
            return "strided"
        return "channels_last" if layout.order == (0, 2, 3, 1) else "permuted"

    @property
    def degenerate(self) -> bool:
        """Whether there are no elements, or one in each group."""
        return 0 in self.sides or group_size(self.sides, self.semantics) == 1

    def exemplar(self) -> Case | None:
        """The smallest case of this signature with sizes all different, of zeros; None where none is found.

        Two sizes that are equal in the first call are one symbol to torch.compile: a function compiled for it would be compiled
        again for the next call, through no fault of its own.
        """
        options = [sizes if side == 2 and self.dynamic else (side,) for side, sizes in zip(self.sides, _SIZES, strict=True)]
        if self.channels is not None:
            options[1] = (self.channels,)
        shapes = sorted(product(*options), key=math.prod)
        shape = next((shape for shape in shapes if not self.dynamic or (_long(shape) == self.long and _distinct(shape))), None)
        if shape is None:
            return None
        zeros: dict[str, Any] = {"x": np.zeros(shape, DTYPES[self.dtype].numpy)}
        for name in ("weight", "bias"):
            if self.affine in ("both", name):
                zeros[name] = np.zeros(shape[1:] if self.element else shape[1:2], DTYPES[self.dtype].numpy)
        return Case(
            **zeros,
            eps=self.eps,
            semantics=self.semantics,
            layouts=dict(self.layouts),
            requires_grad=self.requires_grad,
            device=self.device,
            threads=self.threads,
        )


def _long(shape: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(name for name, axes in _SUMS.items() if math.prod(shape[axis] for axis in axes) > LONGEST_SUM)


def _distinct(shape: tuple[int, ...]) -> bool:
    """Whether no two sizes that are symbols are equal."""
    free = [side for side in shape if side > 1]
    return len(set(free)) == len(free)
