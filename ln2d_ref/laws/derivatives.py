"""`derivatives`: double backward, forward mode, forward over reverse, nested forward, third order and vmap are right, or raise."""

from __future__ import annotations

from collections.abc import Iterator

from ..case import Case
from ..violation import Violation, wrong_value
from .law import Law
from .trial import Trial

__all__ = ["DERIVATIVES"]

_LARGEST = 256
"""Elements of x up to which a case is judged; a higher derivative is wrong at small sizes already, and costs the most at large ones."""


def _applies(case: Case) -> bool:
    """Finite, of more than one value a group (one-element groups belong to `degenerate`), small, and differentiated."""
    return 0 < case.x.size <= _LARGEST and case.group_size > 1 and case.finite and bool(case.requires_grad)


def _violations(trial: Trial) -> Iterator[Violation]:
    if trial.outcome.raised is not None or trial.outcome.changed:
        return
    derived = trial.derived
    for way, quantity in derived.expected:
        violation = _judged(trial, way, quantity)
        if violation is not None:
            yield violation


def _judged(trial: Trial, way: str, quantity: str) -> Violation | None:
    derived = trial.derived
    result, expected = derived.result(way, quantity), derived.expected[way, quantity]
    if not derived.is_tensor(way, quantity):
        shape = None if result.array is None else result.array.shape
        got = result.type if result.array is None else f"{result.dtype} of shape {shape}"
        headline = f"{quantity} is {got}, but should be {expected.dtype.name} of shape {expected.value.shape}, by {way}"
        return trial.violation("derivatives", quantity, headline, way=way)
    values = derived.ratios[way, quantity]
    if not values.max(initial=0.0) > 1.0:
        return None
    headline, details = wrong_value(quantity, expected, derived.actual(way, quantity), values)
    if result.type == "NoneType":
        headline += " (None: autograd found no path)"
    return trial.violation("derivatives", quantity, f"{headline}, by {way}", way=way, **details)


DERIVATIVES = Law(
    name="derivatives",
    claim="Double backward, third order, forward mode, forward over reverse, nested forward and vmap give the derivatives, or raise.",
    reason="They are functions of the arguments as y is, with bounds of their own (docs/bounds.md); a caller who gets no exception takes "
    "what comes for right.",
    applies=_applies,
    violations=_violations,
    stateful=True,
)
