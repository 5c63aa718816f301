"""`modes`: y is the same without a graph, and right under autocast, with float32 parameters beside half inputs, and queued on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from ..bounds import expect
from ..case import Case
from ..dtypes import DTYPES
from ..expectation import Expected
from ..outcome import Outcome
from ..violation import Violation, wrong_value
from .history import differing
from .law import Law
from .trial import Trial, array_of

__all__ = ["MODES", "RIGHT_UNDER_AUTOCAST"]

_HALF = ("float16", "bfloat16")
RIGHT_UNDER_AUTOCAST: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType(
    {
        ("cpu", "float16"): ("float16", "float32"),
        ("cpu", "bfloat16"): ("bfloat16", "float32"),
        ("cpu", "float32"): ("float32",),
        ("cpu", "float64"): ("float64",),
        ("cuda", "float16"): ("float32", "float16"),
        ("cuda", "bfloat16"): ("float32", "bfloat16"),
        ("cuda", "float32"): ("float32",),
        ("cuda", "float64"): ("float64",),
    }
)
"""Dtypes of y by device and x's dtype. torch's autocast gives layer_norm and group_norm float32 on CUDA and leaves them alone on the CPU;
it narrows no norm, and leaves float64 alone everywhere (https://docs.pytorch.org/docs/stable/amp.html#autocast-op-reference).
"""


def _violations(trial: Trial) -> Iterator[Violation]:
    queued = trial.executor.queued(trial.case.device)
    if not (trial.executor.modes or queued or "attempt" in trial.executor.offers):
        return
    first = trial.outcome.results.get("y")
    if trial.outcome.raised is not None or first is None or first.array is None or first.dtype != trial.case.dtype:
        return  # of the other laws
    if first.array.shape != trial.case.x.shape or trial.worst["y"] > 1.0:
        return
    for mode in trial.executor.modes:
        if mode.startswith("autocast") and trial.case.dtype in _HALF and not mode.endswith(f" {trial.case.dtype}"):
            continue  # nobody's model, and torch's own cat refuses one half under autocast to the other
        outcome = trial.executor.attempt(trial.placed, {}, mode=mode)
        if mode.startswith("autocast"):
            yield from _judged(trial, outcome, RIGHT_UNDER_AUTOCAST[trial.case.device, trial.case.dtype], f"under {mode}")
        else:
            yield from _same(trial, outcome, first.array, mode)
    parameters = trial.case.weight is not None or trial.case.bias is not None
    if trial.case.dtype in _HALF and parameters and "attempt" in trial.executor.offers:
        yield from _float32_parameters(trial)
    for way in queued:
        yield from _queued(trial, way)


def _queued(trial: Trial, way: str) -> Iterator[Violation]:
    """What comes of a call that was queued; nobody promises that one can be captured, or that it is queued in time."""
    outcome = trial.executor.queue(trial.case, way)
    if outcome.raised is not None and outcome.raised.type in ("NotCaptured", "NotInTime"):
        trial.observed.append(f"not {way}: {outcome.raised.text.partition(':')[0]}")
        return
    yield from _judged(trial, outcome, (trial.case.dtype,), way)
    if "y" in outcome.results:
        for quantity in trial.case.quantities:
            if trial.worst.get(quantity, np.inf) <= 1.0 and (quantity not in outcome.results or outcome.results[quantity].array is None):
                yield trial.violation("modes", quantity, f"{quantity} is missing {way}")


def _same(trial: Trial, outcome: Outcome, before: np.ndarray, mode: str) -> Iterator[Violation]:
    if not trial.implementation.deterministic:
        yield from _judged(trial, outcome, (trial.case.dtype,), f"under {mode}")
        return
    result = outcome.results.get("y")
    if result is None or result.array is None or result.array.shape != before.shape or result.array.dtype != before.dtype:
        yield trial.violation("modes", "y", f"{_told(outcome)} under {mode}, but {trial.case.dtype}{list(before.shape)} without")
        return
    where = differing(before, result.array)
    if where.any():
        index = tuple(int(k) for k in np.argwhere(where)[0])
        headline = f"y[{', '.join(map(str, index))}] = {float(before[index]):.9g}, but {float(result.array[index]):.9g} under {mode}"
        yield trial.violation("modes", "y", headline, extent=f"{np.count_nonzero(where)} of {where.size} elements")


def _float32_parameters(trial: Trial) -> Iterator[Violation]:
    """Weight and bias in float32, almost half a unit off what half can hold: x's dtype, float32, or an exception."""
    off = 1 + 0.45 * DTYPES[trial.case.dtype].roundoff
    given = {
        name: (array.astype(np.float64) * off).astype(np.float32) for name, array in trial.case.arrays.items() if name in ("weight", "bias")
    }
    outcome = trial.executor.attempt(trial.placed, given)
    if outcome.raised is not None:
        trial.observed.append(f"refused float32 parameters beside {trial.case.dtype} with {outcome.raised.type}")
        return
    yield from _judged(trial, outcome, (trial.case.dtype, "float32"), "with float32 parameters", given)


def _judged(
    trial: Trial, outcome: Outcome, dtypes: tuple[str, ...], where: str, given: Mapping[str, np.ndarray] | None = None
) -> Iterator[Violation]:
    """y has one of these dtypes, and lies within the bound of the one that came back; and so do gradients where there are."""
    result = outcome.results.get("y")
    if result is None or result.array is None or result.dtype not in dtypes or result.array.shape != trial.case.x.shape:
        yield trial.violation("modes", "y", f"{_told(outcome)} {where}, but should be {' or '.join(dtypes)}{list(trial.case.x.shape)}")
        return
    expected = trial.expected if given is None and result.dtype == trial.case.dtype else _expectation(trial, result.dtype, given or {})
    for quantity, one in expected.items():
        if quantity not in outcome.results or outcome.results[quantity].array is None or trial.worst.get(quantity, np.inf) > 1.0:
            continue
        actual = array_of(outcome, quantity)
        values = one.ratios(actual)
        if values.max(initial=0.0) > 1.0:
            headline, details = wrong_value(quantity, one, actual, values)
            yield trial.violation("modes", quantity, f"{headline} {where}", **details | {"expected": None})


def _expectation(trial: Trial, dtype: str, given: Mapping[str, np.ndarray]) -> Mapping[str, Expected]:
    """What results may be where y has this dtype: rounded into it, and where arithmetic follows the input, computed in x's."""
    case, implementation = trial.case, trial.implementation
    arrays = case.arrays | dict(given)
    widened = implementation.arithmetic == "float32" and dtype != case.dtype
    if widened:
        arrays |= {name: arrays[name].astype(DTYPES[dtype].numpy) for name in ("x", "dy")}
    if not case.requires_grad:
        del arrays["dy"]
    expected = dict(expect(**arrays, eps=case.eps, semantics=case.semantics, arithmetic=implementation.arithmetic))
    y = replace(expected["y"], dtype=DTYPES[dtype])
    if case.group_size == 1:  # y = bias, exactly but for the rounding of a bias that is wider than y
        y = replace(y, bound=y.bound + DTYPES[dtype].roundoff * np.abs(y.value) + DTYPES[dtype].smallest_subnormal)
    expected["y"] = y
    if widened and "dx" in expected:  # it comes back in x's own dtype
        expected["dx"] = _rounded(expected["dx"], case)
    return expected


def _rounded(expected: Expected, case: Case) -> Expected:
    """An expectation in float32 of what is rounded into x's dtype."""
    dtype = DTYPES[case.dtype]
    bound = expected.bound * (1 + dtype.roundoff) + dtype.roundoff * np.abs(expected.value) + dtype.smallest_subnormal
    return replace(expected, bound=bound, dtype=dtype)


def _told(outcome: Outcome) -> str:
    if outcome.raised is not None:
        return f"y raised {outcome.raised.type}: {outcome.raised.text}"
    result = outcome.results["y"]
    return (
        f"y is {result.dtype}{'' if result.array is None else list(result.array.shape)}" if result.dtype else f"y is of type {result.type}"
    )


MODES = Law(
    name="modes",
    claim="no_grad and inference_mode give the same y; under autocast, and with float32 parameters beside half inputs, y has a dtype that "
    "is right there, and lies within that dtype's bound; on a GPU, a call on another stream and a replayed CUDA graph are right.",
    reason="Whether a graph is recorded is no argument of the function; autocast may choose where to compute, and narrows no norm; what a "
    "stream has not yet written cannot be read from another.",
    applies=lambda case: case.x.size > 0,
    violations=_violations,
    stateful=True,
)
