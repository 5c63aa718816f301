"""What a result may be: a value, a bound on the error, and what holds where no number can be asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dtypes import DType

__all__ = ["BOUNDED", "FREE", "NAN", "NONFINITE", "Expected"]

BOUNDED = np.uint8(0)
"""Within the bound of the value."""
NAN = np.uint8(1)
"""Not a number: a NaN or infinity in x makes its whole group NaN."""
NONFINITE = np.uint8(2)
"""Any NaN or infinity: a non-finite weight or dy decides the result."""
FREE = np.uint8(3)
"""Anything: outside the contract, or no bound is finite."""


@dataclass(frozen=True)
class Expected:
    """Expectation of one quantity (y, dx, dweight or dbias), elementwise.

    value + low   the exact value to float64 (low is 0.0) or double-double precision
    bound         largest error of an honest implementation; infinite where undecided
    rule          BOUNDED, NAN, NONFINITE or FREE for each element; None where all are BOUNDED
    dtype         dtype of the result
    """

    value: np.ndarray
    low: np.ndarray | float
    bound: np.ndarray
    dtype: DType
    rule: np.ndarray | None = None

    def ratios(self, actual: np.ndarray) -> np.ndarray:
        """error/bound of each element: at most 1 where `actual` is right, infinite where it is not even of the right class.

        An infinity is right where its sign times value, plus bound, reaches the dtype's threshold of rounding to infinity.
        """
        with np.errstate(all="ignore"):
            actual = actual.astype(np.float64)
            ratio = np.abs((actual - self.value) - self.low)
            np.divide(ratio, self.bound, out=ratio, where=ratio != 0)
            if not ratio.max(initial=0.0) <= 1.0:
                overflows = np.sign(actual) * self.value + self.bound >= self.dtype.overflow_threshold
                ratio[np.isinf(actual) & overflows] = 0.0
                ratio[np.isnan(ratio)] = np.inf
        if self.rule is not None:
            ratio[(self.rule == FREE) | ((self.rule == NAN) & np.isnan(actual))] = 0.0
            ratio[(self.rule == NAN) & ~np.isnan(actual)] = np.inf
            nonfinite = self.rule == NONFINITE
            ratio[nonfinite] = np.where(np.isfinite(actual[nonfinite]), np.inf, 0.0)
        return ratio

    @property
    def undecided(self) -> int:
        """Number of elements for which anything passes."""
        free = np.isinf(self.bound)
        return int(np.count_nonzero(free if self.rule is None else free & (self.rule == BOUNDED) | (self.rule == FREE)))
