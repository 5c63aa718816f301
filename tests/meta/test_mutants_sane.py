"""The mutants are wrong in what they state and in nothing else: the form they are made from is right, and each of them runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ln2d_ref.dtypes import DTYPES
from ln2d_ref.implementations.implementation import AFFINE_COMBINATIONS
from ln2d_ref.mutants import Mutant, mutants
from ln2d_ref.mutants.base import layer_norm_2d
from ln2d_ref.mutants.plant import plant
from ln2d_ref.semantics import SEMANTICS, on_axes

UNITS = 32  # of roundoff at the largest value: easy data of group size 72 at most lose less than half of that
EPS = 1e-5
SHAPE = (2, 6, 3, 4)
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "stepped": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "offset": lambda x: torch.cat([x[:1], x])[1:],
}
MUTANTS = mutants()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(affine: str, affine_shape: tuple[int, ...], dtype: str) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Leaves x, weight and bias; the parameters that `affine` does not name are None."""
    x, weight, bias = (normal(*shape, seed=i) for i, shape in enumerate((SHAPE, affine_shape, affine_shape)))
    given = (x, weight if affine in ("both", "weight") else None, bias if affine in ("both", "bias") else None)
    x, weight, bias = (None if leaf is None else leaf.to(getattr(torch, dtype)).requires_grad_() for leaf in given)
    return x, weight, bias


def in_double(x: Tensor, weight: Tensor | None, bias: Tensor | None, semantics: str) -> Tensor:
    """PyTorch's own normalisation of a float64 copy, which is exact enough on easy data."""
    x, weight, bias = (None if tensor is None else tensor.double() for tensor in (x, weight, bias))
    if semantics == "channel":
        return functional.layer_norm(x.movedim(1, -1), x.shape[1:2], weight, bias, EPS).movedim(-1, 1)
    per_element = (None if tensor is None else on_axes(tensor).expand(1, *x.shape[1:])[0] for tensor in (weight, bias))
    return functional.layer_norm(x, x.shape[1:], *per_element, EPS)


def assert_close(actual: Tensor, expected: Tensor, dtype: str) -> None:
    assert actual.dtype == getattr(torch, dtype)
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max().item()
    assert error <= UNITS * DTYPES[dtype].roundoff * expected.abs().max().item()


@pytest.fixture
def global_state() -> Iterator[None]:
    """Some mutants disturb it, which is their fault and must not become other tests'."""
    dtype, threads, random = torch.get_default_dtype(), torch.get_num_threads(), torch.random.get_rng_state()
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.random.set_rng_state(random)
    torch.set_grad_enabled(True)
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", AFFINE_COMBINATIONS)
@pytest.mark.parametrize(("semantics", "affine_shape"), [*product(SEMANTICS, [SHAPE[1:2]]), ("sample", SHAPE[1:])])
def test_base_agrees_with_double(semantics: str, affine_shape: tuple[int, ...], affine: str, dtype: str) -> None:
    given = inputs(affine, affine_shape, dtype)
    leaves = [leaf for leaf in given if leaf is not None]
    y, expected = layer_norm_2d(semantics=semantics)(*given, EPS), in_double(*given, semantics)
    assert_close(y, expected.detach(), dtype)
    dy = normal(*SHAPE, seed=3).to(y.dtype)
    gradients = zip(torch.autograd.grad(y, leaves, dy), torch.autograd.grad(expected, leaves, dy.double()), strict=True)
    for actual, exact in gradients:
        assert_close(actual, exact, dtype)


@pytest.mark.parametrize(("x_layout", "dy_layout"), [*product(LAYOUTS, repeat=2)])
def test_base_reads_values_through_any_layout(x_layout: str, dy_layout: str) -> None:
    x, weight, bias = inputs("both", SHAPE[1:2], "float32")
    y = layer_norm_2d()(LAYOUTS[x_layout](x), weight, bias, EPS)
    expected = in_double(x, weight, bias, "channel")
    assert_close(y, expected.detach(), "float32")
    dy = normal(*SHAPE, seed=3).float()
    (dx,), (exact,) = torch.autograd.grad(y, x, LAYOUTS[dy_layout](dy)), torch.autograd.grad(expected, x, dy.double())
    assert_close(dx, exact, "float32")


def test_base_gives_bias_and_zero_gradients_for_one_value() -> None:
    """x - mean is exactly 0 there."""
    x, weight, bias = ((1 + normal(*shape, seed=4)).requires_grad_() for shape in ((3, 1, 2, 2), (1,), (1,)))
    y = layer_norm_2d()(x, weight, bias, EPS)
    dx, dweight, dbias = torch.autograd.grad(y, (x, weight, bias), torch.ones_like(y))
    assert torch.equal(y, bias.detach().reshape(1, 1, 1, 1).expand(x.shape))
    assert not dx.any()
    assert not dweight.any()
    assert dbias.item() == x.numel()


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0)])
def test_base_gives_zero_parameter_gradients_for_empty_input(shape: tuple[int, ...], semantics: str) -> None:
    x, weight, bias = (normal(*size).requires_grad_() for size in (shape, (3,), (3,)))
    y = layer_norm_2d(semantics=semantics)(x, weight, bias, EPS)
    dx, dweight, dbias = torch.autograd.grad(y, (x, weight, bias), torch.ones_like(y))
    assert y.shape == dx.shape == shape
    assert torch.equal(dweight, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(dbias, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_base_keeps_nan_in_its_group(value: float) -> None:
    x, weight, bias = inputs("both", SHAPE[1:2], "float32")
    x.data[1, 2, 0, 3] = value
    y = layer_norm_2d()(x, weight, bias, EPS)
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    group = torch.zeros(SHAPE, dtype=torch.bool)
    group[1, :, 0, 3] = True
    assert torch.equal(y.isnan(), group)
    assert torch.equal(dx.isnan(), group)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
@pytest.mark.usefixtures("global_state")
def test_mutant_runs_on_plain_input(mutant: Mutant) -> None:
    """A mutant that raised here would prove nothing about a judge of values."""
    shape = SHAPE[1:] if mutant.implementation.affine_shape == "element" else SHAPE[1:2]
    y = mutant.implementation.fn(*inputs("both", shape, "float32"), EPS)
    if isinstance(y, Tensor) and y.requires_grad:
        y.backward(torch.ones_like(y))


def test_names_are_unique_and_those_of_the_implementations() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
    assert names == [mutant.implementation.name for mutant in MUTANTS]
    assert names == [mutant.implementation.fn.__name__ for mutant in MUTANTS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_fault_is_one_sentence(mutant: Mutant) -> None:
    assert len(mutant.fault.split()) >= 3
    assert mutant.fault.endswith(".")
    assert ". " not in mutant.fault


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_mutants_of_one_semantics_are_those_that_declare_it(semantics: str) -> None:
    expected = [mutant.name for mutant in MUTANTS if mutant.implementation.semantics == semantics]
    assert [mutant.name for mutant in mutants(semantics)] == expected
    assert expected


def test_state_is_fresh_in_each_set() -> None:
    """A cache filled by one set of mutants would hide or fake the fault of the next."""
    first, second, base = ({m.name: m.implementation.fn for m in mutants()}["state/cached_by_shape"] for _ in range(3))
    x, other = normal(*SHAPE), normal(*SHAPE, seed=1)
    filled = first(x, None, None, EPS)
    assert torch.equal(first(other, None, None, EPS), filled)
    assert torch.equal(second(other, None, None, EPS), base(other, None, None, EPS))


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'bad luck'"):
        Mutant("a/b", "It fails.", "bad luck", MUTANTS[0].implementation)


def test_plant_refuses_two_faults() -> None:
    with pytest.raises(ValueError, match="at most one"):
        list(plant("a/b", "It fails twice.", "layout", finish=lambda y, call: y, cotangent=lambda dy, weight, call: dy))


def loads_torch(module: str) -> bool:
    """Whether a fresh interpreter has torch loaded after importing the module."""
    root = Path(__file__).parents[2]
    program = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


@pytest.mark.parametrize("module", ["ln2d_ref", "ln2d_ref.implementations.implementation", "ln2d_ref.mutants"])
def test_definitions_do_not_load_torch(module: str) -> None:
    assert not loads_torch(module)


def test_the_mutants_own_modules_do_load_torch() -> None:
    """The twin: the check above can fail."""
    assert loads_torch("ln2d_ref.mutants.base")
