"""Judging on tensors too large for a case, shown on small ones: what is wrong in any copy is found, and honest implementations pass."""

from __future__ import annotations

import math

import pytest
import torch

from ln2d_ref import Implementation, load
from ln2d_ref.implementations import torch_large
from ln2d_ref.implementations.honest import honest
from ln2d_ref.implementations.torch_large import LargeExecutor, tile_shape
from ln2d_ref.mutants.base import layer_norm_2d
from strategies.large import judge_large, large_dtype
from tests.meta.kernels import a_case

SHAPES = ((1, 16, 95, 190), (700, 8, 11, 22))


@pytest.fixture(autouse=True, params=[1 << 12, 1 << 26])
def part(request, monkeypatch) -> None:
    """Elements handled at once: a piece of a sample, a few samples, or all."""
    monkeypatch.setattr(torch_large, "_PART", request.param)


class ForgottenFrom(torch.autograd.Function):
    """The identity, whose result (or gradient) is stale from some element on."""

    @staticmethod
    def forward(ctx, y, at, backward):
        ctx.at, ctx.backward = at, backward
        return y.clone() if backward else _forgotten(y, at)

    @staticmethod
    def backward(ctx, dy):
        return (_forgotten(dy, ctx.at) if ctx.backward else dy), None, None


def _forgotten(tensor, at):
    kept = tensor.contiguous().clone()
    kept.view(-1)[at:] = 0
    return kept


def forgetful(at: int, *, backward: bool, semantics: str) -> Implementation:
    right = layer_norm_2d(semantics=semantics)
    return Implementation(lambda *call: ForgottenFrom.apply(right(*call), at, backward), name="forgetful", semantics=semantics)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("semantics", ["channel", "sample"])
@pytest.mark.parametrize("name", ["honest/sequential", "honest/shuffled", "honest/composed_rsqrt"])
def test_honest_implementations_pass(name, semantics, shape):
    """In the narrowest dtype, whatever order dweight and dbias are summed in."""
    assert judge_large(honest(semantics)[name], shape) == []


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("semantics", ["channel", "sample"])
def test_the_last_element_of_y_counts(semantics, shape, backward):
    """One copy is wrong, the very last. In `sample`, a parameter's gradient sums too many terms for one to show."""
    found = judge_large(forgetful(math.prod(shape) - 1, backward=backward, semantics=semantics), shape)
    assert {violation.law for violation in found} == {"gradients" if backward else "value"}
    wrong = {violation.quantity for violation in found}
    sums = {"dweight", "dbias"} if semantics == "channel" else set()
    assert wrong == ({"dx", *sums} if backward else {"y"})
    assert all(f"in tensors of shape {shape}" in str(violation) for violation in found)


def test_a_term_may_be_lost_anywhere():
    """dweight and dbias are asked for one copy of each group, at places that the seed draws."""
    found = judge_large(forgetful(2 * 8 * 11 * 22, backward=True, semantics="channel"), (700, 8, 11, 22), seed=3)
    assert {"dweight", "dbias"} <= {violation.quantity for violation in found}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda y: y[:, :, :-1], "y has shape (3, 8, 10, 22), but should have (1, 8, 1, 22)"),
        (lambda y: (y,), "y is of type tuple"),
        (lambda y: y.double(), "y is float64, but should be float16"),
        (lambda y: y.detach(), "its backward raised RuntimeError"),
    ],
)
def test_a_result_of_another_kind_is_told(spoil, said):
    """Before any value is looked at."""
    right = layer_norm_2d()
    found = judge_large(Implementation(lambda *call: spoil(right(*call)), name="spoiled"), (3, 8, 11, 22))
    assert found[0].law == "result"
    assert found[0].headline.startswith(said)


def test_memory_that_is_not_there_is_no_violation():
    """It is the device's, and is said."""

    def fn(x, weight, bias, eps):
        raise torch.OutOfMemoryError("tried to allocate")

    with pytest.raises(MemoryError, match=r"fn on \(3, 8, 11, 22\) in float16: tried to allocate"):
        judge_large(Implementation(fn), (3, 8, 11, 22))


def test_the_case_is_small_whatever_the_shape():
    """The host holds it, and the bounds of it."""
    assert tile_shape((1, 64, 5795, 5795), "channel") == (1, 64, 1, 61)
    assert tile_shape((520, 64, 256, 256), "sample") == (1, 64, 256, 256)
    assert tile_shape((70_000, 64, 22, 22), "sample") == (56, 64, 22, 22)
    with pytest.raises(ValueError, match=r"shape is \(1, 64, 5795, 5795\), but a sample must have at most 4194304 elements"):
        tile_shape((1, 64, 5795, 5795), "sample")
    executor = LargeExecutor(load("torch/permute"), (2, 8, 11, 22), "amin")
    with pytest.raises(ValueError, match=r"x has shape \(1, 1, 1, 1\), but must have \(1, 8, 1, 22\)"):
        executor.place(a_case((1, 1, 1, 1)))
    assert large_dtype(Implementation(lambda x, weight, bias, eps: x, name="mine", dtypes=("float64", "bfloat16"))) == "bfloat16"
