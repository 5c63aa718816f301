"""Opt-in `extreme_range`: the mathematical answer is asked for where x is so large that squares overflow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..case import Case
from ..dtypes import DTYPES
from ..semantics import group_axes
from ..violation import Violation, wrong_value
from .law import Law
from .trial import Trial, array_of, expectation, ratios

__all__ = ["EXTREME_RANGE"]


def _applies(case: Case) -> bool:
    return case.finite and case.x.size > 0 and case.group_size > 1 and bool(np.abs(case.x).max() > 0)


def _times_power_of_two(case: Case, exponent: int, eps: float) -> Case:
    """x·2^exponent, contiguous, with another eps."""
    with np.errstate(all="ignore"):
        return replace(case, x=np.ldexp(case.x.astype(np.float64), exponent).astype(case.x.dtype), eps=eps, layouts={})


def _violations(trial: Trial) -> Iterator[Violation]:
    """x·2^k with eps is x with eps·4^-k: y, dweight and dbias are the same, and so are their bounds where nothing overflows."""
    case = trial.case
    own = math.frexp(float(np.abs(case.x).max()))[1]  # x is judged where its largest value is at most 1, if that loses nothing of it
    base = _times_power_of_two(case, -max(own, 0), math.ldexp(case.eps, -2 * (DTYPES[case.dtype].max_exponent - 1 - min(own, 0))))
    exponent = DTYPES[case.dtype].max_exponent - 1 - own  # to between a quarter and half of the dtype's range
    large = _times_power_of_two(case, exponent, case.eps)
    with np.errstate(all="ignore"):
        constant = (np.ptp(case.x.astype(np.float64), axis=group_axes(case.semantics)) == 0).any()
        exact = np.array_equal(np.ldexp(base.x.astype(np.float64), max(own, 0)), case.x.astype(np.float64))
    if exponent < 0 or not exact or (base.eps == 0 and constant):
        return
    expected = expectation(trial.implementation, base)
    outcome = trial.executor.run(trial.executor.place(large))
    if outcome.raised is not None:
        yield trial.violation("extreme_range", "y", f"x·2^{exponent} raised {outcome.raised.type}: {outcome.raised.text}")
        return
    for quantity, values in ratios(outcome, expected, base).items():
        if quantity != "dx" and values.max(initial=0.0) > 1.0 >= trial.worst.get(quantity, np.inf):
            headline, details = wrong_value(quantity, expected[quantity], array_of(outcome, quantity), values)
            yield trial.violation("extreme_range", quantity, f"{headline} for x·2^{exponent}", **details | {"expected": None})


EXTREME_RANGE = Law(
    name="extreme_range",
    claim="y, dweight and dbias are right also where x reaches the end of its dtype's range.",
    reason="x̂ does not change when x and sqrt(eps) are multiplied by one number, so that scaling each group first avoids every overflow. "
    "Few implementations do, and the contract does not ask for it; so it is asked for by name.",
    applies=_applies,
    violations=_violations,
    stateful=True,
    opt_in=True,
)
