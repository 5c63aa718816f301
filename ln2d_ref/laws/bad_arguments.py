"""`bad_arguments`: what is no call of a LayerNorm2d raises an exception that says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..case import Case
from ..violation import Violation
from .law import Law
from .trial import Trial

__all__ = ["BAD_ARGUMENTS", "BadCall", "bad_calls"]

_SLIPS = frozenset({"ZeroDivisionError", "AttributeError", "NameError", "UnboundLocalError", "KeyError", "RecursionError", "SystemError"})
"""Exceptions that tell of a line of code and not of an argument."""


@dataclass(frozen=True)
class BadCall:
    """A valid case with one argument made wrong: what is wrong with it, the array in its place, or where else it lies."""

    fault: str
    given: dict[str, np.ndarray] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)


def bad_calls(case: Case) -> Iterator[BadCall]:
    """Each way in which this case's call can be made wrong."""
    yield BadCall("x of rank 3", {"x": case.x[0]})
    yield BadCall("x of rank 5", {"x": case.x[None]})
    yield BadCall("integer x", {"x": np.zeros(case.x.shape, np.int64)})
    elsewhere = "meta" if case.device == "cpu" else "cpu"
    for name, parameter in (("weight", case.weight), ("bias", case.bias)):
        if parameter is None:
            continue
        yield BadCall(f"long {name}", {name: np.concatenate([parameter, parameter[-1:]])})
        if len(parameter) > 2:
            yield BadCall(f"short {name}", {name: parameter[:-1]})
        if len(parameter) > 1:
            yield BadCall(f"{name} for one channel", {name: parameter[:1]})
        yield BadCall(f"{name} with an axis too many", {name: parameter[..., None]})
        yield BadCall(f"{name} on another device", devices={name: elsewhere})


def _violations(trial: Trial) -> Iterator[Violation]:
    if "attempt" not in trial.executor.offers or trial.outcome.raised is not None or trial.outcome.changed:
        return
    for call in bad_calls(trial.case):
        if call.devices and trial.implementation.framework == "numpy":
            continue
        outcome = trial.executor.attempt(trial.placed, call.given, devices=call.devices)
        told = " ".join(f"{array.dtype.name}{list(array.shape)}" for array in call.given.values())
        what = call.fault + (f", {told} beside x {list(trial.case.x.shape)}," if told else "")
        for name in outcome.changed:
            yield trial.violation("bad_arguments", call.fault, f"{name} was changed by a call with {what.rstrip(',')}")
        raised = outcome.raised
        if raised is None or "y" in outcome.results:
            result = outcome.results["y"]
            shape = "" if result.array is None else list(result.array.shape)
            got = f"{result.dtype}{shape}" if result.dtype else result.type
            yield trial.violation("bad_arguments", call.fault, f"{what} gave a result, {got}, but should raise an exception that says so")
        elif raised.type in _SLIPS or not raised.text.strip() or "INTERNAL ASSERT" in raised.text:
            unclear = f"{what} raised {raised.type}: {raised.text}".strip(": ")
            yield trial.violation("bad_arguments", call.fault, f"{unclear}; that does not say what is wrong")


BAD_ARGUMENTS = Law(
    name="bad_arguments",
    claim="A call with a wrong rank, channel count, dtype or device raises an exception that says so, and changes no argument.",
    reason="It has no right answer; one that comes back is taken for one, far from where the mistake was made.",
    applies=lambda case: case.x.size > 0,
    violations=_violations,
    stateful=True,
    aside=True,
)
