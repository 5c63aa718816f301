"""`result`: a valid call returns one tensor of the right shape, dtype and device, and so do its gradients."""

from __future__ import annotations

from collections.abc import Iterator

from ..violation import Violation
from .law import Law
from .trial import Trial

__all__ = ["RESULT"]

_TENSOR = {"torch": "Tensor", "compile": "Tensor", "numpy": "ndarray"}


def _violations(trial: Trial) -> Iterator[Violation]:
    case, outcome = trial.case, trial.outcome
    raised = outcome.raised
    if raised is not None:
        if not trial.excusable():
            stage = "the call" if raised.stage == "forward" else "its backward"
            quantity = "y" if raised.stage == "forward" else "gradients"
            yield trial.violation("result", quantity, f"{stage} raised {raised.type}: {_first_line(raised.text)}")
        return
    for quantity in case.quantities:
        result = outcome.results.get(quantity)
        if quantity != "y" and trial.implementation.framework == "numpy" and result is None:
            continue  # a NumPy implementation without vjp has no gradients
        if result is None:
            yield trial.violation("result", quantity, f"{quantity} is missing: y does not depend on the arguments for autograd")
            return
        like = "x" if quantity == "y" else quantity[1:]
        expected_shape = case.arrays[like].shape
        if result.type != _TENSOR[trial.implementation.framework]:
            yield trial.violation("result", quantity, f"{quantity} is of type {result.type}, but should be one tensor")
        elif result.dtype != case.dtype:
            yield trial.violation("result", quantity, f"{quantity} is {result.dtype}, but should be {case.dtype}, as {like}")
        elif result.array is not None and result.array.shape != expected_shape:
            shape = result.array.shape
            yield trial.violation("result", quantity, f"{quantity} has shape {shape}, but should have {expected_shape}, as {like}")
        elif result.device != case.device:
            yield trial.violation("result", quantity, f"{quantity} is on {result.device}, but should be on {case.device}")
        else:
            continue
        if quantity == "y":
            return


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


RESULT = Law(
    name="result",
    claim="A valid call returns one tensor of x's shape, dtype and device, and each gradient has its argument's.",
    reason="y is a function of x elementwise in shape; a gradient lives in its argument's space. Checked first, so that the first "
    "failure is the cause.",
    applies=lambda case: True,
    violations=_violations,
)
