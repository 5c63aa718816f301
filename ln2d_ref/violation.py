"""A broken law: the one place where messages are written.

Line 1 alone says what is wrong; the lines after it say who, which law, which call, how widely, on what input, and how to see it again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .case import Case, summary
from .dtypes import dtype_of
from .expectation import NAN, NONFINITE, Expected
from .semantics import group_axes

__all__ = ["Violation", "wrong_value"]


class Violation(AssertionError):
    """An implementation broke a law on a case.

    law, quantity    names; the quantity is y, dx, dweight, dbias, or an argument
    headline         what is wrong, in one line
    case             the input that shows it
    ratio            error/bound, infinite where the result is wrong in kind
    implementation   name
    extent           how many elements are wrong, or None
    worst, expected  index of the worst element, and the value and bound there, where there are such
    cases            number of cases up to the first failure, where it was searched for
    hint             what a reader may want to know beside, or None
    reproduce        how to see it again, where something was written
    way              how it was differentiated or batched, where that is beyond a call and its backward
    compiled         whether the fault lies in generated code, where the implementation is a compiled one
    """

    def __init__(
        self,
        law: str,
        quantity: str,
        headline: str,
        *,
        case: Case,
        implementation: str,
        ratio: float = float("inf"),
        extent: str | None = None,
        worst: tuple[int, ...] | None = None,
        expected: tuple[float, float] | None = None,
        way: str | None = None,
    ) -> None:
        self.law = law
        self.quantity = quantity
        self.headline = headline
        self.case = case
        self.implementation = implementation
        self.ratio = ratio
        self.extent = extent
        self.worst = worst
        self.expected = expected
        self.cases: int | None = None
        self.hint: str | None = None
        self.reproduce: str | None = None
        self.way = way
        self.compiled: str | None = None
        super().__init__(headline)

    def __str__(self) -> str:
        case = self.case
        lines = {
            "implementation": f"{self.implementation}  ({case.semantics})",
            "law": self.law,
            "call": f"{self.implementation.rpartition(':')[2].rpartition('/')[2]}({summary(case)})",
            "extent": self.extent,
            "input": _described_input(case, self.worst),
            "compiled": self.compiled,
            "found": f"after {self.cases} case{'s' * (self.cases > 1)}" if self.cases else None,
            "hint": self.hint,
            "reproduce": self.reproduce,
        }
        return "\n".join([self.headline, *(f"  {name:<14}  {text}" for name, text in lines.items() if text)])


def wrong_value(
    quantity: str, expected: Expected, actual: np.ndarray, ratios: np.ndarray, *, group_of_one: bool = False
) -> tuple[str, dict[str, Any]]:
    """Headline, and the details of a Violation, for a quantity with some ratio above 1."""
    worst = tuple(int(k) for k in np.unravel_index(int(np.argmax(ratios)), ratios.shape))
    got, value, bound = float(actual[worst]), float(expected.value[worst]), float(expected.bound[worst])
    where = f"{quantity}[{', '.join(map(str, worst))}] = {_short(got, expected.dtype.digits)}"
    rule = None if expected.rule is None else expected.rule[worst]
    if rule == NAN:
        headline = f"{where}, but should be nan"
    elif rule == NONFINITE:
        headline = f"{where}, but should be nan or infinite"
    else:
        times = f" ({ratios[worst]:.3g} times the bound)" if np.isfinite(ratios[worst]) else ""
        plus_minus = f" ± {bound:.2g}" if bound else " exactly"
        if group_of_one and not bound:
            plus_minus += " (x - mean is 0 in a group of one)"
        headline = f"{where}, but should be {_resolved(value, bound)}{plus_minus}{times}"
    wrong = int(np.count_nonzero(ratios > 1.0))
    extent = f"{wrong} of {ratios.size} elements" + ("; worst shown" if wrong > 1 else "")
    return headline, {"extent": extent, "worst": worst, "expected": (value, bound), "ratio": float(ratios[worst])}


def _short(value: float, digits: int) -> str:
    """A value with as many decimals as its dtype holds."""
    return f"{value:.{2 + digits * 0.30103:.0f}g}"


def _resolved(value: float, bound: float) -> str:
    """A value with two digits more than its bound resolves."""
    if not (bound > 0 and np.isfinite(bound) and value != 0):
        return f"{value:.17g}"
    return f"{value:.{int(np.clip(np.ceil(np.log10(abs(value) / bound)) + 2, 3, 17))}g}"


def _described_input(case: Case, worst: tuple[int, ...] | None) -> str:
    """Regime, and mean, spread and condition number of the group that holds the worst element."""
    regime = f"{case.regime} regime" if case.regime else "given"
    if worst is None or len(worst) != 4 or not case.x.size:
        return regime
    group = case.x[tuple(slice(None) if axis in group_axes(case.semantics) else k for axis, k in enumerate(worst))]
    with np.errstate(all="ignore"):
        values = group.astype(np.float64)
        mean, spread = float(values.mean()), float(values.std())
        condition = float(np.hypot(mean, spread)) / spread if spread else float("inf")
    return f"{regime}: mean {mean:.3g}, spread {spread:.3g}, condition {condition:.2g}, n {values.size} ({dtype_of(case.x).name})"
