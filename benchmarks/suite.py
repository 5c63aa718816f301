"""What the suite itself costs: judging beside the bare loop, generation's share, the reference beside torch, memory, growth."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from ln2d_ref import Case, Implementation, load
from ln2d_ref.bounds import expect
from strategies import search
from strategies.arrays import bulk_arrays, small_arrays
from strategies.draws import Draws
from strategies.examiner import Examiner

from .alternation import Alternation, now, on_cpu
from .bare import bare_loop
from .ratios import Ratio, ratio_of

__all__ = ["JUDGED", "Judging", "ReferenceCost", "against_bare_loop", "judge", "reference_cost", "sides"]

_CASES = import_module("strategies.cases")  # whose name in the package is the strategy
JUDGED = ("result", "value", "gradients")
"""The laws that the bare loop is compared with: those that judge one Outcome."""


@dataclass(frozen=True)
class Judging:
    """One search: its cases, a call for each that makes its arrays again, its seconds, and those spent on judging; the rest generates."""

    cases: list[Case]
    arrays: list[Callable[[], object]]
    seconds: float
    judging: float

    @property
    def generation(self) -> float:
        """Generation's share of the time, Hypothesis's own included."""
        return 1.0 - self.judging / self.seconds


def judge(implementation: Implementation, *, cases: int, seed: int, laws: tuple[str, ...]) -> Judging:
    """`strategies.judge`, timed from inside."""
    seen: list[Case] = []
    made: list[Callable[[], object]] = []
    arrays: list[Callable[[], object]] = []
    spent = [0.0]

    class Watched(Examiner):
        def examine(self, case: Case) -> None:
            seen.append(case)
            arrays.append(made[-1])
            start = now()
            try:
                super().examine(case)
            finally:
                spent[0] += now() - start

    def kept(make: Callable[..., object]) -> Callable[..., object]:
        def making(draws: Draws, *rest: object) -> object:
            unread = copy(draws)
            made.append(lambda: make(copy(unread), *rest))
            return make(draws, *rest)

        return making

    start = now()
    with (
        patch.object(search, "Examiner", Watched),
        patch.object(_CASES, "bulk_arrays", kept(bulk_arrays)),
        patch.object(_CASES, "small_arrays", kept(small_arrays)),
    ):
        search.judge(implementation, max_examples=cases, seed=seed, laws=laws)
    return Judging(seen, arrays, now() - start, spent[0])


@dataclass(frozen=True)
class AgainstBareLoop:
    """Cases a second; the search's time over the bare loop's on the same cases, judging's alone, and generation's share."""

    per_second: float
    ratio: Ratio
    judging: Ratio
    generation: float


def against_bare_loop(implementation: Implementation, *, cases: int, rounds: int, seed: int = 0) -> AgainstBareLoop:
    """Search and bare loop on the same cases, alternated; both start warm."""
    drawn = judge(implementation, cases=cases, seed=seed, laws=JUDGED)
    runs: list[Judging] = []

    def searched() -> float:
        runs.append(judge(implementation, cases=cases, seed=seed, laws=JUDGED))
        return runs[-1].seconds

    def bare() -> float:
        start = now()
        bare_loop(implementation, zip(drawn.cases, drawn.arrays, strict=True))
        return now() - start

    threads = torch.get_num_threads()
    try:
        bare()
        alternation = Alternation({"search": searched, "bare": bare}, seed=seed)
        for _ in range(rounds):
            alternation.round()
    finally:
        torch.set_num_threads(threads)
    times = alternation.times
    return AgainstBareLoop(
        len(drawn.cases) / float(np.median(times["search"])),
        ratio_of(times["search"], times["bare"]),
        ratio_of([run.judging for run in runs], times["bare"]),
        float(np.median([run.generation for run in runs])),
    )


@dataclass(frozen=True)
class ReferenceCost:
    """Of the reference with its bounds, y and all gradients: its time over torch's in float64, per element, and memory at most."""

    ratio: Ratio
    nanoseconds_per_element: float
    bytes_per_element: float


def sides(elements: int) -> tuple[int, int, int, int]:
    """A shape (1, C, H, W) of about this many elements, with at most 256 channels."""
    channels = int(min(256, max(8, round(elements ** (1 / 3)))))
    side = max(1, round((elements / channels) ** 0.5))
    return 1, channels, side, side


def reference_cost(elements: int, *, rounds: int, dtype: str = "float32", semantics: str = "channel") -> ReferenceCost:
    """Reference and torch, both on float32 values, alternated."""
    shape, rng = sides(elements), np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    fn = load("torch/permute" if semantics == "channel" else "torch/group_norm").fn
    tensors = [torch.from_numpy(array.astype(np.float64)) for array in (x, weight, bias, dy)]
    leaves = [tensor.requires_grad_() for tensor in tensors[:3]]

    def reference() -> Any:
        return expect(x, weight, bias, dy, eps=1e-5, semantics=semantics)

    def differentiated() -> Any:
        return torch.autograd.grad(fn(*leaves, 1e-5), leaves, tensors[3])

    alternation = Alternation({"reference": on_cpu(reference), "torch": on_cpu(differentiated)}, seed=0)
    for _ in range(rounds):
        alternation.round()
    peak = _peak(reference)
    size = x.size
    times = alternation.times
    return ReferenceCost(ratio_of(times["reference"], times["torch"]), alternation.median("reference") / size * 1e9, peak / size)


def _peak(call: Callable[[], Any]) -> int:
    """Most bytes that NumPy held at once during a call, its result included."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
