"""The honest implementations are right on easy data, and each one does what its name says. The bounds are tested elsewhere."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ln2d_ref.dtypes import DTYPES, arithmetic_of
from ln2d_ref.implementations.honest import disputed, honest
from ln2d_ref.implementations.honest.exact import fused_multiply_add, two_product
from ln2d_ref.implementations.honest.flushing import flushing
from ln2d_ref.implementations.honest.moments import chan, two_pass, welford
from ln2d_ref.implementations.honest.roots import reciprocal_root, reciprocal_root_off_by_two_ulp
from ln2d_ref.implementations.honest.sums import (
    LONGEST_CHAIN,
    Sums,
    backwards,
    blocked,
    chain_length,
    compensated,
    pairwise,
    sequential,
    shuffled,
)
from ln2d_ref.implementations.implementation import AFFINE_COMBINATIONS
from ln2d_ref.semantics import SEMANTICS, group_axes

UNITS = 64  # of roundoff at the largest value: easy data of at most 60 terms to a sum lose about half of that at worst
EPS = 1e-5
SHAPE = (2, 5, 3, 4)
EMPTY = [(0, 3, 2, 2), (2, 3, 0, 4), (2, 3, 4, 0), (0, 3, 0, 0)]
FORMS = [("channel", "channel"), ("sample", "channel"), ("sample", "element")]
NAMES = sorted(honest("channel") | disputed("channel"))
SUMS = {
    "sequential": sequential,
    "backwards": backwards,
    "blocked_16": blocked(16),
    "blocked_7": blocked(7),
    "pairwise": pairwise,
    "compensated": compensated,
    "shuffled": shuffled,
}
STATISTICS = {
    "two_pass": two_pass,
    "chan_16": chan(16),
    "chan_7": chan(7),
    "welford": welford(by_reciprocal=False),
    "welford_reciprocal": welford(by_reciprocal=True),
}


def normal(*shape: int, seed: int, dtype: str = "float64") -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(getattr(torch, dtype))


def inputs(affine: str, affine_shape: str, dtype: str, shape: tuple[int, ...] = SHAPE) -> list[Tensor | None]:
    parameter = shape[1:2] if affine_shape == "channel" else shape[1:]
    x = normal(*shape, seed=1, dtype=dtype) + 1
    weight = normal(*parameter, seed=2, dtype=dtype) if affine in ("both", "weight") else None
    bias = normal(*parameter, seed=3, dtype=dtype) if affine in ("both", "bias") else None
    return [None if tensor is None else tensor.requires_grad_() for tensor in (x, weight, bias)]


def results(fn: Any, arguments: list[Tensor | None], dy: Tensor, eps: float = EPS) -> list[Tensor]:
    """y and the gradients of what is there."""
    y = fn(*arguments, eps)
    return [y.detach(), *torch.autograd.grad(y, [tensor for tensor in arguments if tensor is not None], dy)]


def two_pass_layer_norm(semantics: str) -> Any:
    def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        d = x - x.mean(group_axes(semantics), keepdim=True)
        y = d / ((d * d).mean(group_axes(semantics), keepdim=True) + eps).sqrt()
        weight, bias = (p if p is None or p.ndim == 3 else p[:, None, None] for p in (weight, bias))
        return (y if weight is None else y * weight) + (0 if bias is None else bias)

    return layer_norm


def implementation(name: str, semantics: str, affine_shape: str = "channel") -> Any:
    return (honest(semantics, affine_shape=affine_shape) | disputed(semantics, affine_shape=affine_shape))[name]


def in_float64(arguments: list[Tensor | None]) -> list[Tensor | None]:
    return [None if tensor is None else tensor.detach().double().requires_grad_() for tensor in arguments]


def assert_close(actual: list[Tensor], expected: list[Tensor], dtype: str) -> None:
    row = DTYPES[dtype]
    for got, want in zip(actual, expected, strict=True):
        assert str(got.dtype) == f"torch.{dtype}"
        assert got.shape == want.shape
        largest = want.abs().max().item()
        unit = 2 * row.roundoff + UNITS * arithmetic_of(row).roundoff
        assert (got.double() - want).abs().max().item() <= unit * max(largest, 1.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("semantics", "affine_shape"), FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_two_passes_in_float64(name: str, semantics: str, affine_shape: str, dtype: str) -> None:
    for affine in AFFINE_COMBINATIONS:
        arguments, dy = inputs(affine, affine_shape, dtype), normal(*SHAPE, seed=4, dtype=dtype)
        actual = results(implementation(name, semantics, affine_shape).fn, arguments, dy)
        assert_close(actual, results(two_pass_layer_norm(semantics), in_float64(arguments), dy.double()), dtype)


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("name", NAMES)
def test_strides_do_not_matter(name: str, semantics: str) -> None:
    x, weight, bias = inputs("both", "channel", "float32")
    assert x is not None
    stepped = x.detach().to(memory_format=torch.channels_last).repeat_interleave(2, dim=3)[..., ::2].requires_grad_()
    dy = torch.tensor(0.5).expand(SHAPE)
    actual = results(implementation(name, semantics).fn, [stepped, weight, bias], dy)
    assert_close(actual, results(two_pass_layer_norm(semantics), in_float64([x, weight, bias]), dy.double()), "float32")


@pytest.mark.parametrize("shape", EMPTY, ids=str)
@pytest.mark.parametrize(("semantics", "affine_shape"), FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_no_elements_give_empty_y_and_zero_gradients(name: str, semantics: str, affine_shape: str, shape: tuple[int, ...]) -> None:
    for affine in AFFINE_COMBINATIONS:
        arguments = inputs(affine, affine_shape, "float16", shape)
        actual = results(implementation(name, semantics, affine_shape).fn, arguments, torch.zeros(shape, dtype=torch.float16))
        like = [arguments[0], *(tensor for tensor in arguments if tensor is not None)]
        for got, tensor in zip(actual, like, strict=True):
            assert tensor is not None
            assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape)
            assert not got.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("semantics", "shape"), [("channel", (2, 1, 3, 4)), ("sample", (3, 1, 1, 1))], ids=SEMANTICS)
@pytest.mark.parametrize("name", NAMES)
def test_single_value_gives_bias_and_zero_gradients(name: str, semantics: str, shape: tuple[int, ...], dtype: str) -> None:
    for affine in AFFINE_COMBINATIONS:
        x, weight, bias = inputs(affine, "channel", dtype, shape)
        assert x is not None
        with torch.no_grad():
            x *= DTYPES[dtype].largest / 16
        fn, dy = implementation(name, semantics).fn, normal(*shape, seed=4, dtype=dtype)
        y, dx, *gradients = results(fn, [x, weight, bias], dy)
        assert (y == (0 if bias is None else bias)).all()
        assert not dx.any()
        if weight is not None:
            assert not gradients[0].any()
            assert (fn(x, weight * DTYPES[dtype].largest / 16, bias, EPS) == (0 if bias is None else bias)).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("position", [0, 2, 4])
@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("name", NAMES)
def test_nonfinite_value_makes_its_group_nan_and_no_other(name: str, semantics: str, position: int, bad: float) -> None:
    arguments = inputs("both", "channel", "float32")
    x = arguments[0]
    assert x is not None
    with torch.no_grad():
        x[1, position, 2, 3] = bad
    group = torch.zeros(SHAPE, dtype=torch.bool)
    group[(1, slice(None), 2, 3) if semantics == "channel" else (1,)] = True
    y, dx, dweight, _ = results(implementation(name, semantics).fn, arguments, normal(*SHAPE, seed=4, dtype="float32"))
    for result in (y, dx):
        assert torch.equal(result.isnan(), group)
        assert result[~group].isfinite().all()
    assert not dweight.isfinite().any()


@pytest.mark.parametrize("name", NAMES)
def test_invalid_argument_is_refused(name: str) -> None:
    fn = implementation(name, "channel").fn
    for arguments, error in (
        ((torch.ones(2, 3, 4), None, None, EPS), ValueError),
        ((torch.ones(2, 3, 4, 5), torch.ones(1), None, EPS), ValueError),
        ((torch.ones(2, 3, 4, 5), None, torch.ones(3, 4, 5), EPS), ValueError),
        ((torch.ones(2, 3, 4, 5), torch.ones(3, device="meta"), None, EPS), ValueError),
        ((torch.ones(2, 3, 4, 5, dtype=torch.int32), None, None, EPS), TypeError),
    ):
        with pytest.raises(error, match="must"):
            fn(*arguments)


def test_disputed_ones_are_kept_apart() -> None:
    assert not set(honest("channel")) & set(disputed("channel"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_numpy_accumulates_strictly_from_the_left(dtype: type) -> None:
    """What `sequential` rests on: along either kind of axis, each partial sum is the rounded sum of the last and one term."""
    terms = np.random.default_rng(0).standard_normal((3, 1000)).astype(dtype)
    total = np.zeros(3, dtype)
    for column in terms.T:
        total = total + column
    assert np.array_equal(sequential(terms), total)
    assert np.array_equal(np.add.accumulate(terms[:, None, :], axis=2)[:, 0, -1], total)
    assert np.array_equal(np.add.accumulate(np.ascontiguousarray(terms.T), axis=0)[-1], total)
    assert np.array_equal(backwards(np.ascontiguousarray(terms[:, ::-1])), total)


@pytest.mark.parametrize("count", [1, 2, LONGEST_CHAIN, LONGEST_CHAIN + 1, 8192, 12_289, 100_000, 1_000_000])
def test_no_chain_is_longer_than_it_may_be(count: int) -> None:
    length = chain_length(count)
    additions = (length - 1) + (-(-count // length) - 1)
    assert additions <= LONGEST_CHAIN - 1
    assert count > LONGEST_CHAIN or additions == count - 1


@pytest.mark.parametrize("count", [1, 2, 7, 16, 17, 113, 4097, 40_000])
@pytest.mark.parametrize("name", SUMS)
def test_sum_counts_each_term_once(name: str, count: int) -> None:
    """Integers below 2**24 are summed exactly in any order."""
    terms = np.random.default_rng(count).integers(-100, 100, (3, count)).astype(np.float32)
    total = SUMS[name](terms)
    assert total.dtype == np.float32
    assert np.array_equal(total, terms.astype(np.int64).sum(axis=1))


def test_compensation_finds_what_the_chain_loses() -> None:
    terms = np.full((1, 3001), 2.0**-25, np.float32)
    terms[0, 0] = 1
    assert sequential(terms)[0] == 1
    assert compensated(terms)[0] == np.float32(1 + 3000 * 2.0**-25)


@pytest.mark.parametrize("count", [1, 2, 7, 17, 113, 4097, 40_000])
@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_agree_with_float64(name: str, count: int) -> None:
    """Honest errors grow with the terms at the most."""
    x = np.random.default_rng(count).standard_normal((3, count)).astype(np.float32) + 3
    mean, var = STATISTICS[name](x, Sums(pairwise))
    unit = (count + UNITS) * DTYPES["float32"].roundoff
    assert np.abs(mean[:, 0] - x.mean(axis=1, dtype=np.float64)).max() <= 3 * unit
    assert np.abs(var[:, 0] - x.var(axis=1, dtype=np.float64)).max() <= 10 * unit


def test_welford_may_find_no_variance() -> None:
    """The reason why the bounds do not linearise: their mean rounds to the second, and Welford's product is 0."""
    x = np.array([[40000.00390625, 40000.0078125]], np.float32)
    assert welford(by_reciprocal=False)(x, Sums(sequential))[1] == 0 < x.var(dtype=np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_roots_are_as_far_off_as_two_ulp_allow(dtype: type) -> None:
    """More than 1 and at most 2 ulp, on the stated side, at every magnitude; the plain root within 1.5."""
    generator, information = np.random.default_rng(0), np.finfo(dtype)
    v = np.ldexp(generator.uniform(1, 2, 300), generator.integers(information.minexp, information.maxexp, 300)).astype(dtype)
    v[:2] = 1, 4
    for root, least, most in (
        (reciprocal_root, -1.5, 1.5),
        (reciprocal_root_off_by_two_ulp(1), 1, 2),
        (reciprocal_root_off_by_two_ulp(-1), -2, -1),
    ):
        result = root(v)
        assert result.dtype == dtype
        for value, got in zip(v, result, strict=True):
            with localcontext(prec=60):
                exact = 1 / Decimal(float(value)).sqrt()
                ulp = Decimal(float(np.spacing(dtype(exact))))
                if dtype(exact) > exact and np.frexp(dtype(exact))[0] == 0.5:
                    ulp /= 2  # rounded up to a power of two: the exact one lies where numbers are closer
                off = (Decimal(float(got)) - exact) / ulp
            assert least <= off <= most


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_fused_multiply_add_rounds_once(dtype: type) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((2, 300)).astype(dtype)
    c = -a * b * (1 + generator.standard_normal(300) * 10.0 ** -generator.uniform(0, 17, 300)).astype(dtype)
    for x, y, z, got in zip(*(array.tolist() for array in (a, b, c, fused_multiply_add(a, b, c))), strict=True):
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        assert got == dtype(float(exact))


def test_product_and_its_rest_are_exact() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 100))
    for x, y, product, rest in zip(*(array.tolist() for array in (a, b, *two_product(a, b))), strict=True):
        assert Fraction(x) * Fraction(y) == Fraction(product) + Fraction(rest)


def test_flushing_leaves_no_subnormal() -> None:
    """Not in an input, a product, a sum, nor in a chain's partial sums: of these only the last survives."""
    tiny = np.finfo(np.float32).tiny
    chain = np.array([[1.5 * tiny, -tiny, 2 * tiny, tiny]], np.float32)
    assert np.asarray(sequential(flushing(chain)))[0] == np.float32(3 * tiny)
    assert sequential(chain)[0] == np.float32(3.5 * tiny)
    assert not np.asarray(flushing(chain / 4)).all()
    assert not np.asarray(flushing(chain) * np.float32(0.25)).all()
    assert not np.asarray(flushing(chain)[:, :1] + flushing(chain)[:, 1:2]).any()


def test_flushing_implementation_flushes_and_keeps_half_subnormals() -> None:
    fn = implementation("honest/flushing", "channel").fn
    weight = torch.full((2,), 2.0**-127)
    x = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
    assert not fn(x, weight, None, EPS).any()
    assert implementation("honest/sequential", "channel").fn(x, weight, None, EPS).all()
    small = torch.full((2,), 2.0**-24, dtype=torch.float16)
    assert fn(x.half(), small, None, EPS).all()


def test_shuffled_sum_varies_and_touches_no_shared_generator() -> None:
    terms = np.random.default_rng(0).standard_normal((50, 500)).astype(np.float32)
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 # the shared generator is the point
    assert not np.array_equal(shuffled(terms), shuffled(terms))
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002
    assert [name for name, built in honest("channel").items() if not built.deterministic] == ["honest/shuffled"]
