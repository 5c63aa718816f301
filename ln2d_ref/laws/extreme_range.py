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


def _exponent(case: Case) -> int:
    """Of the power of two that takes the largest |x| to between a quarter and half of the dtype's range."""
    return DTYPES[case.dtype].max_exponent - 1 - math.frexp(float(np.abs(case.x).max()))[1]


def _applies(case: Case) -> bool:
    return case.finite and case.x.size > 0 and case.group_size > 1 and bool(np.abs(case.x).max() > 0)


def _violations(trial: Trial) -> Iterator[Violation]:
    """x·2^k with eps is x with eps·4^-k: y, dweight and dbias are the same, and so are their bounds where nothing overflows."""
    case, exponent = trial.case, _exponent(trial.case)
    same = replace(case, eps=math.ldexp(case.eps, -2 * exponent), layouts={})
    with np.errstate(all="ignore"):
        constant = (np.ptp(case.x.astype(np.float64), axis=group_axes(case.semantics)) == 0).any()
    if exponent <= 0 or (same.eps == 0 and constant):
        return
    scaled = replace(same, x=np.ldexp(case.x.astype(np.float64), exponent).astype(case.x.dtype), eps=case.eps)
    expected = expectation(trial.implementation, same)
    outcome = trial.executor.run(trial.executor.place(scaled))
    if outcome.raised is not None:
        yield trial.violation("extreme_range", "y", f"x·2^{exponent} raised {outcome.raised.type}: {outcome.raised.text}")
        return
    for quantity, values in ratios(outcome, expected, same).items():
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
