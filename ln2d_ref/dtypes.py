"""One row per floating dtype: the few constants that every bound is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import ml_dtypes
import numpy as np

__all__ = ["DTYPES", "DType", "arithmetic_of", "dtype_of"]


@dataclass(frozen=True)
class DType:
    """A binary floating-point format of IEEE 754 shape.

    `digits` is the precision p in bits, the hidden one included; `min_exponent` is the exponent of the smallest normal number,
    2**min_exponent; `max_exponent` the exponent of the largest finite one's leading bit.
    """

    name: str
    numpy: np.dtype
    digits: int
    min_exponent: int
    max_exponent: int

    @cached_property
    def roundoff(self) -> float:
        """Unit roundoff u = 2**-p: round-to-nearest changes a normal number by at most u relative."""
        return 2.0**-self.digits

    @cached_property
    def smallest_normal(self) -> float:
        """What an implementation that flushes subnormals loses at most at one step."""
        return 2.0**self.min_exponent

    @cached_property
    def smallest_subnormal(self) -> float:
        """Twice the largest error of rounding a subnormal result."""
        return 2.0 ** (self.min_exponent - self.digits + 1)

    @cached_property
    def largest(self) -> float:
        """Largest finite number."""
        return float(2.0**self.max_exponent * (2.0 - 2.0 ** (1 - self.digits)))

    @cached_property
    def overflow_threshold(self) -> float:
        """Smallest magnitude that round-to-nearest-even takes to infinity: largest + half a unit in its last place.

        In float64 that number is not representable, and the largest finite number stands for it.
        """
        return min(2.0**self.max_exponent * (2.0 - 2.0**-self.digits), np.finfo(np.float64).max)


DTYPES = {
    row.name: row
    for row in (
        DType("float16", np.dtype(np.float16), 11, -14, 15),
        DType("bfloat16", np.dtype(ml_dtypes.bfloat16), 8, -126, 127),
        DType("float32", np.dtype(np.float32), 24, -126, 127),
        DType("float64", np.dtype(np.float64), 53, -1022, 1023),
    )
}

_BY_NUMPY = {row.numpy: row for row in DTYPES.values()}


def dtype_of(array: np.ndarray) -> DType:
    """Row of an array's dtype; TypeError for one that no LayerNorm2d is defined on."""
    row = _BY_NUMPY.get(array.dtype)
    if row is None:
        raise TypeError(f"dtype is {array.dtype}, but must be one of {', '.join(DTYPES)}")
    return row


def arithmetic_of(dtype: DType, arithmetic: str = "float32") -> DType:
    """Dtype that an implementation computes in: the input's own, or float32 where that is more precise.

    `arithmetic` is "float32" ("at least float32", so float64 stays float64) or "input" (the input's dtype).
    """
    if arithmetic == "input" or (arithmetic == "float32" and dtype.digits >= DTYPES["float32"].digits):
        return dtype
    if arithmetic == "float32":
        return DTYPES["float32"]
    raise ValueError(f"arithmetic is {arithmetic!r}, but must be 'float32' or 'input'")
