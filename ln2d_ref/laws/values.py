"""Laws on values: `value`, `gradients`, `special_values`, `degenerate`, and `layout`, which says that none of them depends on strides.

Every case belongs to one class (degenerate, special, or plain), and each class to one of the first four laws. A fault that goes away
when the same values are contiguous belongs to `layout`, and only there; so that is found out before anything is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..case import Case
from ..violation import Violation
from .law import Law
from .trial import Trial

__all__ = ["DEGENERATE", "GRADIENTS", "LAYOUT", "SPECIAL_VALUES", "VALUE"]

_GRADIENTS = ("dx", "dweight", "dbias")


def _is_degenerate(case: Case) -> bool:
    return case.x.size == 0 or (case.group_size == 1 and case.finite)


def _is_special(case: Case) -> bool:
    return case.x.size > 0 and not case.finite


def _is_plain(case: Case) -> bool:
    return not _is_degenerate(case) and case.finite


def _judged_as(law: str, quantities: tuple[str, ...]) -> Callable[[Trial], Iterator[Violation]]:
    def violations(trial: Trial) -> Iterator[Violation]:
        for quantity in quantities:
            if trial.worst.get(quantity, 0.0) > 1.0 and not _only_laid_out(trial, quantity):
                yield trial.wrong(law, quantity)

    return violations


def _only_laid_out(trial: Trial, quantity: str) -> bool:
    """Whether a wrong quantity is right where the same values are contiguous, and wrong again where they are not."""
    if trial.case.contiguous or trial.dense.worst.get(quantity, float("inf")) > 1.0:
        return False
    return trial.repeated.worst.get(quantity, float("inf")) > 1.0  # else it is the call that counts, and no layout


def _layout_violations(trial: Trial) -> Iterator[Violation]:
    for quantity, worst in trial.worst.items():
        if worst > 1.0 and _only_laid_out(trial, quantity):
            yield trial.wrong("layout", quantity)
    for name in trial.outcome.spilled:
        where = trial.case.laid_out(name)
        yield trial.violation("layout", name, f"{name}: memory outside its elements ({where}) was written")


VALUE = Law(
    name="value",
    claim="Each element of y lies within its bound.",
    reason="The bound is the largest error that an honest computation in the arithmetic dtype can make (docs/bounds.md).",
    applies=_is_plain,
    violations=_judged_as("value", ("y",)),
)

GRADIENTS = Law(
    name="gradients",
    claim="Each element of dx, dweight and dbias lies within its bound, for every subset that requires grad.",
    reason="As for y; a gradient does not depend on which others are asked for.",
    applies=lambda case: _is_plain(case) and bool(case.requires_grad),
    violations=_judged_as("gradients", _GRADIENTS),
)

SPECIAL_VALUES = Law(
    name="special_values",
    claim="A NaN or infinity in x makes its whole group NaN, in y and dx, and no other; what else is not finite stays where it belongs.",
    reason="mean and variance of a group with a NaN or infinity are not finite, inf - inf is NaN, and no other group reads them.",
    applies=_is_special,
    violations=_judged_as("special_values", ("y", *_GRADIENTS)),
)

DEGENERATE = Law(
    name="degenerate",
    claim="No elements give an empty y and parameter gradients of 0; one-element groups give y = bias and zero dx and dweight, exactly.",
    reason="An empty sum is 0; for n = 1 the mean is x itself, so that d = 0 exactly, for every eps > 0.",
    applies=_is_degenerate,
    violations=_judged_as("degenerate", ("y", *_GRADIENTS)),
)

LAYOUT = Law(
    name="layout",
    claim="Values depend on values only, never on strides or offsets, and no memory outside the elements is written or read.",
    reason="The mathematics has no memory; places outside the elements hold NaN, so that reading one shows.",
    applies=lambda case: True,
    violations=_layout_violations,
)
