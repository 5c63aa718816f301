"""Memory layouts as plain data: where in a storage the elements of an array lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CONTIGUOUS", "GUARD", "Layout", "Storage", "place"]

GUARD = 32
"""Elements of poison behind the last element of every storage."""


@dataclass(frozen=True)
class Layout:
    """Strides and offset of an array, independent of its sizes.

    order      axes from the slowest to the fastest in storage; () means the axes' own order
    steps      for each axis, how many places lie from one element to the next of a dense array; () means 1 everywhere
    offset     elements of storage before the first element
    expanded   axes of stride 0, along which the array must be constant

    Layout() is contiguous, Layout(order=(0, 2, 3, 1)) channels_last. A size-1 axis gets the stride that the rule gives, which is
    often not the one that the framework would choose.
    """

    order: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    offset: int = 0
    expanded: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        for name in ("order", "steps", "expanded"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"order is {self.order}, but must be a permutation of the axes")
        if any(step < 1 for step in self.steps) or self.offset < 0:
            raise ValueError(f"steps are {self.steps} and offset is {self.offset}, but must be >= 1 and >= 0")

    @property
    def contiguous(self) -> bool:
        """Whether this is the plain dense layout at the start of its storage."""
        return self._dense and self.order == tuple(sorted(self.order)) and self.offset == 0

    @property
    def _dense(self) -> bool:
        return all(step == 1 for step in self.steps) and not self.expanded

    def strides(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Stride of each axis, in elements."""
        strides = [0] * len(shape)
        stride = 1
        for axis in reversed(self.order or range(len(shape))):
            if axis in self.expanded:
                continue
            step = self.steps[axis] if self.steps else 1
            strides[axis] = stride * step
            stride *= max(shape[axis], 1) * step
        return tuple(strides)

    def span(self, shape: Sequence[int]) -> int:
        """Elements from the first to the last, both included; 0 for an empty array."""
        if math.prod(shape) == 0:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(shape, self.strides(shape), strict=True))

    def __str__(self) -> str:
        """A short name, such as 'channels_last' or 'order 0312 steps 1121 offset 3'."""
        parts = []
        if self.order and self.order != tuple(sorted(self.order)):
            parts.append("channels_last" if self.order == (0, 2, 3, 1) else f"order {''.join(map(str, self.order))}")
        if any(step != 1 for step in self.steps):
            parts.append(f"steps {','.join(map(str, self.steps))}")
        if self.offset:
            parts.append(f"offset {self.offset}")
        if self.expanded:
            parts.append(f"expanded {','.join(map(str, self.expanded))}")
        return " ".join(parts) or "contiguous"


CONTIGUOUS = Layout()
"""Of an argument for which none is given."""


@dataclass(frozen=True)
class Storage:
    """A one-dimensional buffer that holds an array in a layout, with poison (NaN) wherever no element lies."""

    buffer: np.ndarray
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def view(self) -> np.ndarray:
        """The array, as a view of the buffer."""
        size = self.buffer.itemsize
        return np.ndarray(self.shape, self.buffer.dtype, self.buffer, self.offset * size, tuple(stride * size for stride in self.strides))

    def gaps(self) -> np.ndarray:
        """Mask of the places of the buffer that hold no element."""
        mask = np.ones(self.buffer.shape, bool)
        elements = np.lib.stride_tricks.as_strided(mask[self.offset :], self.shape, self.strides)
        elements[...] = False
        return mask


def place(array: np.ndarray, layout: Layout) -> Storage:
    """The array written into a fresh storage in this layout.

    Raises ValueError where the array is not constant along an expanded axis, or has another number of axes than the layout.
    """
    for name in ("order", "steps"):
        if getattr(layout, name) and len(getattr(layout, name)) != array.ndim:
            raise ValueError(f"{name} of the layout is {getattr(layout, name)}, but the array has {array.ndim} axes")
    if any(axis >= array.ndim for axis in layout.expanded):
        raise ValueError(f"expanded of the layout is {layout.expanded}, but the array has {array.ndim} axes")
    size = layout.offset + layout.span(array.shape) + GUARD
    buffer = np.full(size, np.nan, dtype=array.dtype)
    storage = Storage(buffer, array.shape, layout.strides(array.shape), layout.offset)
    for axis in layout.expanded:
        first = array.take([0], axis=axis) if array.shape[axis] else array
        if not np.array_equal(_bits(np.broadcast_to(first, array.shape)), _bits(array)):
            raise ValueError(f"the layout expands axis {axis}, but the array is not constant along it")
    if array.size:
        storage.view()[...] = array
    return storage


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
