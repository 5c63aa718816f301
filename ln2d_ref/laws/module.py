"""`module`: what nn.Module promises beside the call: state_dict, copies, dtypes, modes, functional_call, meta, repr and exports.

Judged where the implementation is an nn.Module class. y and its gradients are held against the reference's own bounds, not against what
another call gave, and only where an ordinary call is within them, so that what is wrong without a step is not told as the step's.

The run in onnxruntime is judged in float32 alone, and on values of the suite's own: x of mean 0 and spread 1 in each group, the first group
all 0. Its kernels belong to another project, and some releases take a one-pass variance or compute half in half, which no export can help;
on such an x any is accurate, and an eps, weight, bias or axis lost on the way is still far beyond the bound. An eps that onnxscript takes
for 0 is an observation (docs/findings.md), as it is not the module's fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..case import Case
from ..directions import directions
from ..dtypes import DTYPES
from ..outcome import Outcome, Result
from ..semantics import group_axes
from ..violation import Violation, wrong_value
from .law import Law
from .trial import Trial, array_of

__all__ = ["MODULE"]

_LARGEST = 256
"""Elements of x up to which a case is judged: a module keeps its promises at every size, or breaks them at small ones too."""

_WELL_WITHIN = 0.5
"""Of its bound, up to which an ordinary call's gradient counts as right; y does up to 1. PyTorch's gradients in half lie about their bounds
(docs/findings.md), and over other memory the same sums may be rounded differently.
"""

_DIFFERENTIATED = frozenset({"to", "deepcopy", "pickle", "functional_call"})
_MAY_REFUSE = frozenset({"pickle", "meta", "export", "onnx"})
"""Steps that not every right module can take; an exception tells so."""

_MAY_LACK = {"to": ("dweight", "dbias"), "functional_call": ("dx", "dweight", "dbias")}
"""Gradients that a step need not give: a class may freeze its parameters, and record no graph in evaluation."""

_TAKEN_FOR_0 = 1e-8
"""Up to which onnxscript's optimizer, as of 0.7.2, drops a constant that is added."""

_AFTER = {
    "to": "after to({dtype})",
    "cast": "after {cast}()",
    "state_dict": "in state_dict()",
    "load_state_dict": "after load_state_dict()",
    "deepcopy": "by a deepcopy",
    "pickle": "by what pickle made of it",
    "eval": "after eval()",
    "train": "after train()",
    "functional_call": "by functional_call",
    "repr": "after repr()",
    "meta": "after being made on the meta device, to_empty() and load_state_dict()",
    "export": "by the program that torch.export made of it",
    "onnx": "by onnxruntime on what torch.onnx.export made of it, for values of the suite's own",
}
_CASTS = {"float16": "half", "bfloat16": "bfloat16", "float32": "float", "float64": "double"}


def _violations(trial: Trial) -> Iterator[Violation]:
    plain = trial if trial.case.contiguous else trial.dense
    case, steps = plain.case, trial.executor.steps
    if not steps or _combination(case) not in trial.implementation.affine or plain.outcome.raised is not None:
        return
    sound = _sound(plain, plain.outcome, case.quantities)
    for step in steps:
        if "y" not in sound:
            return  # of the other laws, or told of the first step
        if step == "onnx" and case.dtype != "float32":
            continue
        given = Trial(trial.executor, trial.implementation, _written_down(case)) if step == "onnx" else plain
        outcome = trial.executor.module(given.case, step)
        if outcome.raised is None:
            for headline, details in _wrong(given, step, outcome, sound):
                if step == "onnx" and case.eps <= _TAKEN_FOR_0:
                    trial.observed.append(f"onnx with eps <= {_TAKEN_FOR_0:g} is wrong (docs/findings.md)")
                    break
                yield plain.violation("module", step, headline, **details)
            trial.observed += _observed(case, step, outcome)
        elif step in _MAY_REFUSE:
            trial.observed.append(f"{step} refused with {outcome.raised.type}")
        else:
            text = outcome.raised.text.strip().partition("\n")[0]
            yield plain.violation("module", step, f"y raised {outcome.raised.type}: {text} {_after(step, case)}")
        if step == "to":
            sound = _sound(plain, outcome, sound)


def _combination(case: Case) -> str:
    """Which of weight and bias are given, as Implementation.affine names it."""
    given = (case.weight is not None, case.bias is not None)
    return {(True, True): "both", (True, False): "weight", (False, True): "bias", (False, False): "none"}[given]


def _sound(trial: Trial, outcome: Outcome, among: Iterable[str]) -> tuple[str, ...]:
    """Those quantities that came back as they should: y within its bound, gradients well within theirs."""
    limits = {name: 1.0 if name == "y" else _WELL_WITHIN for name in among}
    return tuple(name for name in among if _is_tensor(trial, outcome, name) and _worst(trial, outcome, name) <= limits[name])


def _is_tensor(trial: Trial, outcome: Outcome, quantity: str) -> bool:
    result, expected = outcome.results.get(quantity), trial.expected[quantity]
    if result is None or result.array is None:
        return False
    own = quantity in ("dweight", "dbias") and not _unfit(result.dtype, expected.dtype.name)  # the parameter's own, which may be wider
    return (own or result.dtype == expected.dtype.name) and result.array.shape == expected.value.shape


def _worst(trial: Trial, outcome: Outcome, quantity: str) -> float:
    return float(trial.expected[quantity].ratios(array_of(outcome, quantity)).max(initial=0.0))


def _wrong(trial: Trial, step: str, outcome: Outcome, sound: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Headline and details of each thing that is wrong with what a step gave."""
    after = _after(step, trial.case)
    yield from ((f"{name} was changed {after}", {}) for name in outcome.changed)
    yield from ((f"{name} {after} lies in the original's storage", {}) for name in outcome.shared)
    if step in ("to", "cast", "state_dict"):
        yield from ((f"{text} {after}", {}) for text in _wrong_parameters(trial.case, step, outcome))
    for quantity in (name for name in sound if name == "y" or step in _DIFFERENTIATED):
        result = outcome.results.get(quantity)
        if step == "state_dict" or (result is None and quantity in _MAY_LACK.get(step, ())):
            continue
        if not _is_tensor(trial, outcome, quantity):
            expected = trial.expected[quantity]
            yield f"{quantity} is {_kind(result)}, but should be {expected.dtype.name}{list(expected.value.shape)} {after}", {}
        elif _worst(trial, outcome, quantity) > 1.0:
            actual = array_of(outcome, quantity)
            headline, details = wrong_value(quantity, trial.expected[quantity], actual, trial.expected[quantity].ratios(actual))
            yield f"{headline} {after}", details | {"expected": None}


def _wrong_parameters(case: Case, step: str, outcome: Outcome) -> Iterator[str]:
    """What is wrong with weight and bias as a module holds them: their names, dtypes, shapes, and in a state_dict their values."""
    for name in ("weight", "bias"):
        expected, result = case.arrays.get(name), outcome.results.get(name)
        if expected is None:
            continue
        if result is None:
            yield f"{name} is missing beside {', '.join(each for each in outcome.results if each not in case.quantities) or 'nothing'}"
        elif result.array is None or result.array.shape != expected.shape or (step != "state_dict" and _unfit(result.dtype, case.dtype)):
            yield f"{name} is {_kind(result)}, but should be {case.dtype}{list(expected.shape)}"
        elif step == "state_dict" and (result.array != expected).any():
            yield f"{name} has not the parameter's values"


def _unfit(held: str, asked: str) -> bool:
    """Whether parameters of one dtype cannot hold what another can; wider ones, which a class may keep on purpose, are told of."""
    return held != asked and not (held in ("float32", "float64") and DTYPES[held].digits > DTYPES[asked].digits)


def _observed(case: Case, step: str, outcome: Outcome) -> Iterator[str]:
    """Worth telling: wider parameters than asked for; a state_dict of more than weight and bias; parameters made off the meta device."""
    for name, result in outcome.results.items():
        if step in ("to", "cast") and name in case.arrays and result.dtype != case.dtype:
            yield f"{name} stays in {result.dtype} {_after(step, case)}"
        if step == "state_dict" and name not in case.arrays:
            yield f"state_dict holds {name} too"
        if step == "meta" and name in case.arrays and result.device != "meta":
            yield f"{name} made on {result.device} under torch.device('meta')"


def _kind(result: Result | None) -> str:
    if result is None:
        return "missing"
    return f"{result.dtype}{'' if result.array is None else list(result.array.shape)}" if result.dtype else f"of type {result.type}"


def _after(step: str, case: Case) -> str:
    return _AFTER[step].format(dtype=case.dtype, cast=_CASTS[case.dtype])


def _written_down(case: Case) -> Case:
    """A case of the same shape, eps and affine, with values that depend on nothing else."""
    fixed = replace(case.densely(), x=np.zeros_like(case.x), requires_grad=("x", "weight", "bias"))
    values: dict[str, Any] = directions(fixed, 0)
    axes = group_axes(case.semantics)
    x = values.pop("x").astype(np.float64)
    x -= x.mean(axis=axes, keepdims=True)
    spread = x.std(axis=axes, keepdims=True)
    x /= np.where(spread > 0, spread, 1.0)
    if case.eps > 0 and x.size > case.group_size:
        x[(0, slice(None), 0, 0) if case.semantics == "channel" else 0] = 0.0
    return replace(fixed, x=x.astype(case.x.dtype), requires_grad=(), **values)


MODULE = Law(
    name="module",
    claim="An nn.Module class keeps its y through state_dict, deepcopy, pickle, casts, modes, functional_call, meta, repr and exports.",
    reason="Each is a promise of nn.Module that says nothing of y, so that the function stays what it is; an export is the same function "
    "written down, with its eps and affine.",
    applies=lambda case: 0 < case.x.size <= _LARGEST and case.group_size > 1 and case.finite,
    violations=_violations,
    stateful=True,
    aside=True,
    concerns=lambda implementation: implementation.module_class is not None,
)
