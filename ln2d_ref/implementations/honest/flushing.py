"""Arrays whose every operation flushes subnormal results to zero, as arithmetic in FTZ and DAZ mode does."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

__all__ = ["FlushingArray", "flushing"]


def flushing(array: np.ndarray) -> np.ndarray:
    """The array with its subnormals replaced by zero, as a kind of array that goes on replacing them."""
    return _flushed(np.asarray(array)).view(FlushingArray)


class FlushingArray(np.ndarray):
    """A float32 or float64 array on which each ufunc's result has its subnormals replaced by zero, partial sums included."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Do it on ordinary arrays, then flush."""
        arrays = [np.asarray(value) if isinstance(value, FlushingArray) else value for value in inputs]
        result = getattr(ufunc, method)(*arrays, **kwargs)
        if method == "accumulate" and _subnormal(result).any():
            result = _accumulated(ufunc, *arrays, **kwargs)
        return _flushed(result).view(FlushingArray) if result.dtype.kind == "f" else result


def _accumulated(ufunc: np.ufunc, terms: np.ndarray, *, axis: int) -> np.ndarray:
    """ufunc.accumulate with each partial result flushed before the next."""
    partial = np.moveaxis(terms.copy(), axis, 0)
    for before, after in itertools.pairwise(partial):
        after[...] = _flushed(ufunc(before, after))
    return np.moveaxis(partial, 0, axis)


def _subnormal(array: np.ndarray) -> np.ndarray:
    """Where the array is subnormal."""
    below: np.ndarray = (np.abs(array) < np.finfo(array.dtype).tiny) & (array != 0)
    return below


def _flushed(array: np.ndarray) -> np.ndarray:
    """The array with zeros, of the same sign, for subnormals."""
    return np.where(_subnormal(array), np.copysign(array.dtype.type(0), array), array)
