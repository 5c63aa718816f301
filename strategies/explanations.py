"""What explains a violation: a known fault, the implementation's own or that of a kernel which it calls, or another declaration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ln2d_ref import Implementation, Violation
from ln2d_ref.check import violations
from ln2d_ref.implementations import Executor, as_implementation, executor_for, load
from ln2d_ref.laws import Law, Trial
from ln2d_ref.ledger import KnownFault, crashing, known_faults, resembling
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
        if entry.erratic or entry.implementation == implementation.name:
            return entry
        ratio = _ratio_of(entry.implementation, violation, laws)
        if ratio is not None and violation.ratio <= _AS_WRONG * ratio:
            return entry
    return None


def hint(violation: Violation, implementation: Implementation, executor: Executor, laws: Laws, ledger: Ledger) -> str | None:
    """What a reader may want to know: that a known fault looks like this, or that another declaration would allow it."""
    if (built := _right_built_otherwise(violation, implementation)) is not None:
        return built
    hints = []
    if violation.law == "bad_arguments":
        hints.append("a check of ranks, shapes and dtypes comes before computing: broadcasting answers calls that are wrong")
    elif implementation.framework == "torch" and (entry := _resembling(violation, implementation, laws, ledger)) is not None:
        known = f"where it calls the same kernel, builds_on={entry.implementation!r} counts it as known"
        hints.append(f"resembles {entry.name!r} (docs/findings.md); {known}")
    if _allowed_in_input_arithmetic(violation, implementation, executor, laws):
        hints.append('right for Implementation(..., arithmetic="input"), which declares that it computes in its input\'s dtype')
    if (other := _right_in_another_semantics(violation, implementation, executor)) is not None:
        hints.append(f"right in {other} semantics (semantics={other!r}, or --semantics {other})")
    return "; or ".join(hints) or None


def _ratio_of(name: str, violation: Violation, laws: Laws) -> float | None:
    """Error/bound of a built-in implementation in the same law and quantity on the violation's case, or 1; None where it would crash."""
    built_in = load(name, device=violation.case.device)
    if crashing(built_in, violation.case) is not None:
        return None
    trial = Trial(executor_for(built_in), built_in, violation.case)
    found = violations(trial, tuple(law for law in laws if law.name == violation.law))
    return max((other.ratio for other in found if key(other) == key(violation)), default=1.0)


def _resembling(violation: Violation, implementation: Implementation, laws: Laws, ledger: Ledger) -> KnownFault | None:
    """The entry of another eager implementation that is about as wrong on the same case, or None."""
    found = (entry for entry in resembling(violation, implementation, ledger) if not entry.implementation.startswith("compile/"))
    alike = {entry.implementation: entry for entry in reversed(list(found))}
    ratios = {name: _ratio_of(name, violation, laws) for name in alike}
    apart = {name: _apart(ratio, violation.ratio) for name, ratio in ratios.items() if ratio is not None}
    nearest = min(apart, key=lambda name: apart[name], default=None)
    return alike[nearest] if nearest is not None and apart[nearest] <= _AS_WRONG else None


def _apart(one: float, other: float) -> float:
    """By what factor two ratios differ; both infinite, by none."""
    return 1.0 if one == other else max(one, other) / min(one, other)


def _right(trial: Trial) -> bool:
    """Whether the call came back with a y within its bound."""
    return trial.outcome.raised is None and trial.worst.get("y", np.inf) <= 1.0


def _right_in_another_semantics(violation: Violation, implementation: Implementation, executor: Executor) -> str | None:
    case = violation.case
    other = next(each for each in SEMANTICS if each != case.semantics)
    if violation.quantity != "y" or violation.law == "history" or not all(array.ndim in (1, 4) for array in case.arrays.values()):
        return None
    judged = replace(implementation, semantics=other, affine_shape="channel", builds_on=())
    trial = Trial(executor, judged, replace(case, semantics=other))
    return other if _right(trial) and group_size(case.x.shape, other) > 1 else None


def _allowed_in_input_arithmetic(violation: Violation, implementation: Implementation, executor: Executor, laws: Laws) -> bool:
    if violation.law == "history" or violation.case.dtype not in ("float16", "bfloat16"):
        return False
    if implementation.arithmetic == "input" or violation.expected is None:
        return False
    case = violation.case
    if "float32" in implementation.dtypes:  # what is wrong there as well is no matter of half arithmetic
        arrays: dict[str, Any] = {name: array.astype(np.float32) for name, array in case.arrays.items()}
        trial = Trial(executor, implementation, replace(case, **arrays))
        if any(other.quantity == violation.quantity for other in violations(trial, laws)):
            return False
    trial = Trial(executor, replace(implementation, arithmetic="input"), case)
    return all(key(other) != key(violation) for other in violations(trial, laws))


def _right_built_otherwise(violation: Violation, implementation: Implementation) -> str | None:
    """That a module class is right where it is built for (C, H, W) and not for C, or the other way round, or None."""
    cls, case = implementation.module_class, violation.case
    if cls is None or case.semantics != "sample" or violation.law not in ("result", "value", "degenerate"):
        return None
    element = implementation.affine_shape == "channel"
    judged = replace(implementation, fn=cls, affine_shape="element" if element else "channel", builds_on=())
    try:
        judged = as_implementation(judged)
    except TypeError:
        return None
    parameters: dict[str, Any] = {
        name: np.ascontiguousarray(np.broadcast_to(array[:, None, None], case.x.shape[1:]) if element else array[:, 0, 0])
        for name, array in case.arrays.items()
        if name in ("weight", "bias")
    }
    laid_out = {name: layout for name, layout in case.layouts.items() if name in ("x", "dy")}
    trial = Trial(executor_for(judged), judged, replace(case, **parameters, layouts=laid_out))
    if not _right(trial):
        return None
    was, would = ("C", "(C, H, W)") if element else ("(C, H, W)", "C")
    built, right = (f"{cls.__name__}({size}, eps=eps)" for size in (was, would))
    return f"built as {built}; right as {right}: declare affine_shape={judged.affine_shape!r} in an Implementation"
