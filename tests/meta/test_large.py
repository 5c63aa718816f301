"""Judging on tensors too large for a case, shown on small ones: what is wrong in any copy is found, and honest implementations pass."""

from __future__ import annotations

import pytest
import torch

from ln2d_ref import Implementation, Violation, load
from ln2d_ref.implementations import torch_large
from ln2d_ref.implementations.honest import honest
from ln2d_ref.implementations.torch_large import LargeExecutor, tile_shape
from ln2d_ref.mutants.base import layer_norm_2d
from strategies.large import judge_large, large_dtype
from tests.meta.kernels import a_case

SHAPES = ((1, 16, 95, 190), (140, 8, 11, 22), (67, 8, 11, 22))
"""One sample, many, and a prime number of them, so that one sample fills the tensor in `sample`."""


@pytest.fixture(autouse=True, params=[1 << 12, 1 << 26])
def part(request, monkeypatch) -> None:
    """Elements handled at once: a piece of a sample, a few samples, or all."""
    monkeypatch.setattr(torch_large, "_PART", request.param)


class Forgotten(torch.autograd.Function):
    """The identity, of whose result (or gradient) some elements are 0."""

    @staticmethod
    def forward(ctx, y, at, backward):
        ctx.at, ctx.backward = at, backward
        return y.clone() if backward else _forgotten(y, at)

    @staticmethod
    def backward(ctx, dy):
        return (_forgotten(dy, ctx.at) if ctx.backward else dy), None, None


def _forgotten(tensor, at):
    kept = tensor.contiguous().clone()
    kept.view(-1)[at] = 0
    return kept


def forgetful(at: slice, *, backward: bool, semantics: str) -> Implementation:
    right = layer_norm_2d(semantics=semantics)
    return Implementation(lambda *call: Forgotten.apply(right(*call), at, backward), name="forgetful", semantics=semantics)


def judged(implementation: Implementation, shape, **arguments) -> list[Violation]:
    return judge_large(implementation, shape, device="cpu", **arguments)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("semantics", ["channel", "sample"])
@pytest.mark.parametrize("name", ["honest/sequential", "honest/shuffled", "honest/composed_rsqrt"])
def test_honest_implementations_pass(name, semantics, shape):
    """In the narrowest dtype, whatever order dweight and dbias are summed in."""
    assert judged(honest(semantics)[name], shape) == []


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("semantics", ["channel", "sample"])
def test_the_last_element_of_y_counts(semantics, shape, backward):
    """One copy is wrong, the very last. In `sample`, a parameter's gradient may sum too many terms for one to show."""
    found = judged(forgetful(slice(-1, None), backward=backward, semantics=semantics), shape)
    assert {violation.law for violation in found} == {"gradients" if backward else "value"}
    wrong = {violation.quantity for violation in found}
    if semantics == "sample":
        wrong -= {"dweight", "dbias"}
    assert wrong == ({"y"} if not backward else {"dx"} if semantics == "sample" else {"dx", "dweight", "dbias"})
    assert all(f"in tensors of shape {shape}" in str(violation) for violation in found)


@pytest.mark.parametrize("band", [slice(20, 60), slice(60, 100), slice(100, 139)])
def test_terms_may_be_lost_anywhere(band):
    """dweight and dbias are asked for one copy of each group, at places that the seed draws, and not at the first and the last alone."""
    sample = 8 * 11 * 22
    lost = slice(band.start * sample, band.stop * sample)
    found = judged(forgetful(lost, backward=True, semantics="channel"), (140, 8, 11, 22), seed=3)
    assert {"dweight", "dbias"} <= {violation.quantity for violation in found}


def test_a_sum_of_the_first_sample_alone_is_found():
    """Where one sample fills the tensor, its copy in dy is the last."""
    first = slice(8 * 11 * 22, None)
    found = judged(forgetful(first, backward=True, semantics="sample"), (67, 8, 11, 22))
    assert {"dweight", "dbias"} <= {violation.quantity for violation in found}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda y: y[:, :, :-1], "the call raised ValueError: a result has shape (3, 8, 10, 22), but should have (3, 8, 11, 22), as x"),
        (lambda y: y[:1, :, :1], "the call raised ValueError: a result has shape (1, 8, 1, 22), but should have (3, 8, 11, 22), as x"),
        (lambda y: (y,), "y is of type tuple"),
        (lambda y: y.double(), "y is float64, but should be float16"),
        (lambda y: y.detach(), "its backward raised RuntimeError"),
    ],
)
def test_a_result_of_another_kind_is_told(spoil, said):
    """Before any value is looked at."""
    right = layer_norm_2d()
    found = judged(Implementation(lambda *call: spoil(right(*call)), name="spoiled"), (3, 8, 11, 22))
    assert found[0].law == "result"
    assert found[0].headline.startswith(said)


def test_memory_that_is_not_there_is_no_violation(monkeypatch):
    """It is the device's, and is said, wherever it was wanted."""

    def fn(x, weight=None, bias=None, eps=0.0):
        raise torch.OutOfMemoryError("tried to allocate")

    with pytest.raises(MemoryError, match=r"fn on \(3, 8, 11, 22\) in float16: tried to allocate"):
        judged(Implementation(fn), (3, 8, 11, 22))
    monkeypatch.setattr(LargeExecutor, "_filled", lambda *arguments: fn(None))
    with pytest.raises(MemoryError, match=r"permute on \(3, 8, 11, 22\) in float16: tried to allocate"):
        judged(load("torch/permute"), (3, 8, 11, 22))


def test_groups_of_one_are_refused():
    """No law would say anything of them."""
    with pytest.raises(ValueError, match=r"shape is \(3, 1, 11, 22\), of which a group holds one value"):
        judged(load("torch/permute"), (3, 1, 11, 22))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("backward", [False, True])
def test_what_is_not_written_shows_on_a_gpu(backward):
    """The allocator hands out what an earlier call, which was right, has left: the second fold's results hold NaN there instead."""
    right = layer_norm_2d()

    class Unwritten(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone() if backward else _unwritten(y)

        @staticmethod
        def backward(ctx, dy):
            return _unwritten(dy) if backward else dy

    found = judge_large(Implementation(lambda *call: Unwritten.apply(right(*call)), devices=("cuda",)), (140, 8, 11, 22))
    assert found


def _unwritten(tensor):
    some = torch.empty_like(tensor)
    some[:-1] = tensor[:-1]
    return some


def test_what_is_compiled_is_judged_as_compiled():
    """In one graph."""
    assert judged(Implementation(load("torch/composed_float32").fn, name="mine", framework="compile"), (3, 8, 11, 22)) == []


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
