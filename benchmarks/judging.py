"""A fast wrong answer is no answer: what was timed is held against the bounds, as in conformance.

A large result is judged in some of its groups, which cost is in proportion to. dweight and dbias sum over all groups, so there a
further call is judged, whose dy is 0 outside the chosen ones: the sum is then theirs, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ln2d_ref import Case
from ln2d_ref.check import violations
from ln2d_ref.implementations.torch_placed import to_numpy
from ln2d_ref.laws import Trial, select
from ln2d_ref.layout import Layout
from ln2d_ref.ledger import known_fault
from ln2d_ref.outcome import Outcome, Result

from .settings import Setting
from .workloads import Workload

__all__ = ["judged"]

_WHOLE = 1 << 18
"""Elements up to which all of a result is judged; of a larger one as many are."""

_LAWS = ("result", "value", "gradients")


class _Measured:
    """An executor that tells what has been timed instead of running it."""

    ways: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    offers: frozenset[str] = frozenset()
    simpler: None = None

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def place(self, case: Case) -> Any:
        return None

    def run(self, placed: Any) -> Outcome:
        return self.outcome

    def derive(self, case: Case, way: str) -> Outcome:
        raise NotImplementedError

    def module(self, case: Case, step: str) -> Outcome:
        raise NotImplementedError

    def overwrite(self, placed: Any, case: Case) -> None:
        raise NotImplementedError

    def attempt(self, placed: Any, given: Mapping[str, np.ndarray], *, mode: str = "", devices: Mapping[str, str] | None = None) -> Outcome:
        raise NotImplementedError

    def queued(self, device: str) -> tuple[str, ...]:
        return ()

    def queue(self, case: Case, way: str) -> Outcome:
        raise NotImplementedError

    def again(self, placed: Any) -> tuple[Outcome, Outcome]:
        raise NotImplementedError

    def rewrite(self, placed: Any, name: str, array: np.ndarray) -> Outcome:
        raise NotImplementedError

    def together(self, cases: Sequence[Case]) -> list[Outcome]:
        raise NotImplementedError


def judged(work: Workload, setting: Setting, *, seed: int = 0) -> str:
    """Judge what was timed; say how far it was from its bound, or which known fault it shows. Raises any other Violation."""
    chosen = _groups(setting, np.random.default_rng(seed))
    gradients = tuple(name for name in ("x", "weight", "bias") if f"d{name}" in work.results)
    if chosen is None or not gradients:
        return _verdict(work, setting, chosen, work.given, work.results, gradients)
    first = _verdict(work, setting, chosen, work.given, work.results, ("x",))
    sparse = _only(work.given["dy"], chosen, setting.semantics)
    results = {"y": work.results["y"], **work.differentiated(sparse)}
    rest = tuple(name for name in gradients if name != "x")
    second = _verdict(work, setting, chosen, {**work.given, "dy": sparse}, results, rest) if rest else ""
    return f"{first}; {second}" if second and second != first else first


def _groups(setting: Setting, rng: np.random.Generator) -> torch.Tensor | None:
    """Numbers of the groups to judge, the first and the last among them; None for all."""
    if math.prod(setting.shape) <= _WHOLE:
        return None
    n, c, h, w = setting.shape
    count, size = (n * h * w, c) if setting.semantics == "channel" else (n, c * h * w)
    drawn = rng.choice(count, min(count, max(1, _WHOLE // size)), replace=False)
    return torch.from_numpy(np.unique([0, count - 1, *drawn]))


def _picked(tensor: torch.Tensor, chosen: torch.Tensor | None, semantics: str) -> torch.Tensor:
    """The chosen groups: samples, or pixels along W."""
    if chosen is None or tensor.ndim != 4:
        return tensor
    chosen = chosen.to(tensor.device)
    if semantics == "sample":
        return tensor[chosen]
    _, _, h, w = tensor.shape
    pixels = tensor[chosen // (h * w), :, chosen // w % h, chosen % w]
    return pixels.T[None, :, None, :]


def _only(dy: torch.Tensor, chosen: torch.Tensor, semantics: str) -> torch.Tensor:
    """dy with 0 outside the chosen groups."""
    chosen = chosen.to(dy.device)
    kept = torch.zeros_like(dy)
    if semantics == "sample":
        kept[chosen] = dy[chosen]
        return kept
    _, _, h, w = dy.shape
    place = (chosen // (h * w), slice(None), chosen // w % h, chosen % w)
    kept[place] = dy[place]
    return kept


def _verdict(
    work: Workload,
    setting: Setting,
    chosen: torch.Tensor | None,
    given: dict[str, torch.Tensor],
    results: dict[str, Any],
    requires_grad: tuple[str, ...],
) -> str:
    quantities = ("y", *(f"d{name}" for name in requires_grad))
    arrays: dict[str, Any] = {name: to_numpy(_picked(tensor, chosen, setting.semantics)) for name, tensor in given.items()}
    trial = Trial(
        _Measured(Outcome({name: _result(results[name], given, name, chosen, setting) for name in quantities})),
        work.implementation,
        Case(
            **arrays,
            eps=work.eps,
            semantics=setting.semantics,
            layouts={name: Layout(order=(0, 2, 3, 1)) for name in ("x", "dy")} if setting.layout == "channels_last" else {},
            requires_grad=requires_grad,
            device=setting.device,
            regime="benchmark",
        ),
    )
    known = []
    for violation in violations(trial, select(_LAWS)):
        entry = known_fault(violation, work.implementation)
        if entry is None:
            raise violation
        known.append(entry.name)
    return f"known: {', '.join(dict.fromkeys(known))}" if known else f"error at {max(trial.worst.values()):.2f} of the bound"


def _result(value: Any, given: dict[str, torch.Tensor], name: str, chosen: torch.Tensor | None, setting: Setting) -> Result:
    if not isinstance(value, torch.Tensor):
        return Result(type(value).__name__)
    whole = value.shape == given["x" if name == "y" else name[1:]].shape  # a wrong shape is told as it is
    array = to_numpy(_picked(value, chosen, setting.semantics) if whole else value)
    return Result("Tensor", array, str(value.dtype).removeprefix("torch."), value.device.type)
