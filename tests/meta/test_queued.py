"""Calls queued on a GPU before their values are there: the law says so of whatever executor queues, and a GPU shows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ln2d_ref import Case, Implementation, load
from ln2d_ref.check import violations
from ln2d_ref.implementations import executor_for
from ln2d_ref.implementations.torch import TorchExecutor
from ln2d_ref.implementations.torch_queued import QUEUED
from ln2d_ref.laws import Trial, select
from ln2d_ref.mutants.base import layer_norm_2d
from ln2d_ref.outcome import Outcome, Raised, Result
from tests.meta.kernels import a_case, loaded

WAYS = tuple(QUEUED)


class Queueing(TorchExecutor):
    """Queues on the CPU; what comes of it is given."""

    def __init__(self, implementation: Implementation, outcome) -> None:
        super().__init__(implementation)
        self.outcome = outcome

    def queued(self, device: str) -> tuple[str, ...]:
        return WAYS

    def queue(self, case: Case, way: str) -> Outcome:
        return self.outcome(self, case, way)


def judged(outcome) -> tuple[list[str], list[str]]:
    """Headlines of violations, and what was observed."""
    implementation = load("torch/composed_float32")
    trial = Trial(Queueing(implementation, outcome), implementation, a_case((2, 3, 2, 2)))
    return [violation.headline for violation in violations(trial, select(("modes",)))], trial.observed


def test_what_is_right_when_queued_passes():
    """The same values, a little later."""
    assert judged(lambda executor, case, way: executor.run(executor.place(case))) == ([], [])


@pytest.mark.parametrize("way", WAYS)
def test_values_of_before_are_a_violation(way):
    """y and each gradient are held against the values that arrived."""
    headlines, _ = judged(lambda executor, case, other: executor.run(executor.place(case.varied() if other == way else case)))
    assert {line.partition("[")[0] for line in headlines} == {"y", "dx", "dweight", "dbias"}
    assert all(line.endswith(way) for line in headlines)


def test_a_capture_may_be_refused_and_nothing_else():
    """It is no part of the contract; to be right on a stream, and when replayed, is."""
    headlines, observed = judged(lambda executor, case, way: Outcome({}, Raised(way, "RuntimeError", "not so")))
    assert headlines == [f"y raised RuntimeError: not so {way}, but should be float32[2, 3, 2, 2]" for way in WAYS]
    headlines, observed = judged(lambda executor, case, way: Outcome({}, Raised(way, "NotCaptured", "RuntimeError: it synchronises")))
    assert (headlines, observed) == ([], [f"not {way}: RuntimeError" for way in WAYS])


@pytest.mark.parametrize("spoil", [lambda results: {"y": results["y"]}, lambda results: results | {"dx": Result("NoneType")}])
def test_a_gradient_that_is_missing_is_a_violation(spoil):
    """y without a graph, or a None."""

    def queued(executor, case, way):
        return Outcome(spoil(executor.run(executor.place(case)).results))

    headlines, _ = judged(queued)
    assert "dx is missing on another stream" in headlines


def test_nothing_is_queued_on_a_cpu():
    """A call is done when it returns."""
    assert [executor_for(load(name)).queued("cpu") for name in ("torch/permute", "numpy/reference")] == [(), ()]
    with pytest.raises(ValueError, match="way is 'on another stream', but NumPy queues no calls"):
        executor_for(load("numpy/reference")).queue(a_case((1, 2, 1, 1)), "on another stream")


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


@needs_gpu
@pytest.mark.parametrize("name", ["torch/permute", "torch/composed_float32", "triton/fused", "cuda/fused", "compile/permute"])
def test_right_implementations_pass_on_a_gpu(name):
    """Both ways, and no capture is refused."""
    loaded(name)
    implementation = load(name, device="cuda")
    case = a_case((2, 3, 5, 4), device="cuda")
    trial = Trial(executor_for(implementation), implementation, case)
    assert list(violations(trial, select(("modes",)))) == []
    assert not [what for what in trial.observed if what.startswith("not ")]


@needs_gpu
def test_the_default_stream_is_caught_on_a_gpu():
    """A kernel that is launched on it, whatever the current stream is, reads what is not there yet."""
    right = layer_norm_2d()

    def on_the_default_stream(x, weight, bias, eps):
        with torch.cuda.stream(torch.cuda.default_stream()):
            return right(x, weight, bias, eps)

    case = a_case((2, 3, 5, 4), device="cuda")
    mine = Implementation(on_the_default_stream, devices=("cuda",))
    found = list(violations(Trial(executor_for(mine), mine, case), select(("modes",))))
    assert any(violation.headline.endswith("on another stream") for violation in found), found


@needs_gpu
def test_a_value_looked_at_in_a_capture_is_caught_on_a_gpu():
    """What the host computes from x while a graph is captured is the same in every replay."""
    right, seen = layer_norm_2d(), []

    def shifted_by_what_was(x, weight, bias, eps):
        if not torch.cuda.is_current_stream_capturing():
            seen[:] = [float(x.detach().flatten()[0])]
        return right(x - seen[0], weight, bias, eps) + (0.0 if seen[0] > 0 else 1.0)

    case = replace(a_case((2, 3, 5, 4), device="cuda"), x=np.abs(a_case((2, 3, 5, 4)).x))
    mine = Implementation(shifted_by_what_was, devices=("cuda",))
    found = list(violations(Trial(executor_for(mine), mine, case), select(("modes",))))
    assert any(violation.headline.endswith("replayed from a CUDA graph") for violation in found), found


@needs_gpu
def test_a_capture_that_fails_leaves_the_device_usable():
    """An implementation that synchronises cannot be captured; what is judged after it is judged as before."""
    right = layer_norm_2d()

    def synchronising(x, weight, bias, eps):
        torch.cuda.synchronize()
        return right(x, weight, bias, eps)

    case = a_case((2, 3, 5, 4), device="cuda")
    mine = Implementation(synchronising, devices=("cuda",))
    refused = Trial(executor_for(mine), mine, case)
    assert list(violations(refused, select(("modes",)))) == []
    assert any(what.startswith("not replayed from a CUDA graph") for what in refused.observed)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    right = load("torch/permute", device="cuda")
    trial = Trial(executor_for(right), right, case)
    assert list(violations(trial, select())) == []
    assert not [what for what in trial.observed if what.startswith("not ")]
