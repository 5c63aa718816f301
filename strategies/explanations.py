"""What explains a violation: a known fault, the implementation's own or that of a kernel which it calls, or another declaration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ln2d_ref import Implementation, Violation
from ln2d_ref.check import violations
from ln2d_ref.implementations import Executor, executor_for, load
from ln2d_ref.laws import Law, Trial
from ln2d_ref.ledger import KnownFault, known_faults, resembling
from ln2d_ref.semantics import SEMANTICS, group_size

__all__ = ["explaining", "hint", "key"]

Laws = tuple[Law, ...]
Ledger = tuple[KnownFault, ...]

_AS_WRONG = 2.0
"""Times the error of the kernel that it builds on, up to which an implementation's is put down to that: sums may be in another order."""


def key(violation: Violation) -> tuple[str, str]:
    """What makes two violations the same finding."""
    return violation.law, violation.quantity


def explaining(violation: Violation, implementation: Implementation, laws: Laws, ledger: Ledger) -> KnownFault | None:
    """The known fault that a violation is put down to, or None.

    One that is inherited counts where its own implementation is as wrong on the case: what builds on a kernel may be so for a reason of
    its own.
    """
    for entry in known_faults(violation, implementation, ledger):
        own = entry.erratic or entry.implementation == implementation.name
        if own or violation.ratio <= _AS_WRONG * _ratio_of(entry.implementation, violation, laws):
            return entry
    return None


def hint(violation: Violation, implementation: Implementation, executor: Executor, laws: Laws, ledger: Ledger) -> str | None:
    """What a reader may want to know: that a known fault looks like this, or that another declaration would allow it."""
    hints = []
    if implementation.framework == "torch" and (entry := _resembling(violation, implementation, laws, ledger)) is not None:
        known = f"where it calls the same kernel, builds_on={entry.implementation!r} counts it as known"
        hints.append(f"resembles {entry.name!r} (docs/findings.md); {known}")
    if _allowed_in_input_arithmetic(violation, implementation, executor, laws):
        hints.append('right for Implementation(..., arithmetic="input"), which declares that it computes in its input\'s dtype')
    if (other := _right_in_another_semantics(violation, implementation, executor)) is not None:
        hints.append(f"right in {other} semantics (semantics={other!r}, or --semantics {other})")
    return "; or ".join(hints) or None


def _ratio_of(name: str, violation: Violation, laws: Laws) -> float:
    """Error/bound of a built-in implementation in the same law and quantity on the violation's case; at least 1."""
    built_in = load(name, device=violation.case.device)
    trial = Trial(executor_for(built_in), built_in, violation.case)
    found = violations(trial, tuple(law for law in laws if law.name == violation.law))
    return max((other.ratio for other in found if key(other) == key(violation)), default=1.0)


def _resembling(violation: Violation, implementation: Implementation, laws: Laws, ledger: Ledger) -> KnownFault | None:
    """The entry of another implementation that is about as wrong on the same case, or None."""
    alike = {entry.implementation: entry for entry in reversed(resembling(violation, implementation, ledger))}
    apart = {name: _apart(_ratio_of(name, violation, laws), violation.ratio) for name in alike}
    nearest = min(alike, key=lambda name: apart[name], default=None)
    return alike[nearest] if nearest is not None and apart[nearest] <= _AS_WRONG else None


def _apart(one: float, other: float) -> float:
    """By what factor two ratios differ; both infinite, by none."""
    return 1.0 if one == other else max(one, other) / min(one, other)


def _right_in_another_semantics(violation: Violation, implementation: Implementation, executor: Executor) -> str | None:
    case = violation.case
    other = next(each for each in SEMANTICS if each != case.semantics)
    if violation.quantity != "y" or violation.law == "history" or not all(array.ndim in (1, 4) for array in case.arrays.values()):
        return None
    judged = replace(implementation, semantics=other, affine_shape="channel", builds_on=())
    trial = Trial(executor, judged, replace(case, semantics=other))
    right = trial.outcome.raised is None and trial.worst.get("y", np.inf) <= 1.0
    return other if right and group_size(case.x.shape, other) > 1 else None


def _allowed_in_input_arithmetic(violation: Violation, implementation: Implementation, executor: Executor, laws: Laws) -> bool:
    if violation.law == "history" or violation.case.dtype not in ("float16", "bfloat16"):
        return False
    if implementation.arithmetic == "input" or violation.expected is None:
        return False
    trial = Trial(executor, replace(implementation, arithmetic="input"), violation.case)
    return all(key(other) != key(violation) for other in violations(trial, laws))
