"""The bounds, both ways: no honest implementation leaves them on the data that attacks it most, and they are tight enough to reject.

Groups and sums go to 10⁵ terms here; test_judge and the run that docs/bounds.md describes do the same on generated cases.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ln2d_ref import Case, Implementation
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.implementations import executor_for
from ln2d_ref.implementations.honest import disputed, honest
from ln2d_ref.laws import Trial
from ln2d_ref.mutants import mutants
from ln2d_ref.semantics import SEMANTICS

NAMES = sorted(honest("channel") | disputed("channel"))
SLOW = {"honest/compensated", "honest/welford", "honest/welford_reciprocal", "honest/flushing"}
"""A Python loop over the terms of a sum."""

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
DATA: dict[str, Draw] = {
    "constant": lambda rng, shape: np.full(shape, 1234.5678),
    "ones and a half": lambda rng, shape: np.where(np.arange(np.prod(shape)).reshape(shape) % 2, 1.0, 1.0 + 2.0**-23),
    "offset": lambda rng, shape: 1e4 + rng.standard_normal(shape),
    "heavy-tailed": lambda rng, shape: rng.standard_t(1.5, shape),
    "near constant": lambda rng, shape: 100 + 1e-3 * rng.standard_normal(shape),
    "one outlier": lambda rng, shape: np.where(np.arange(np.prod(shape)).reshape(shape) == 1, 1e4, rng.standard_normal(shape)),
    "rising": lambda rng, shape: np.linspace(0, 1, int(np.prod(shape))).reshape(shape) ** 3,
}


def case_of(x: np.ndarray, semantics: str, *, eps: float = 1e-5, dtype: str = "float32", seed: int = 0) -> Case:
    """Random parameters, and a dy that has the sign of x in half of the places, so that no sum cancels."""
    rng, numpy = np.random.default_rng(seed), DTYPES[dtype].numpy
    weight, bias = (rng.standard_normal(x.shape[1]).astype(numpy) for _ in range(2))
    dy = np.where(rng.random(x.shape) < 0.5, np.abs(rng.standard_normal(x.shape)), 1.0).astype(numpy)
    return Case(x=x.astype(numpy), weight=weight, bias=bias, dy=dy, eps=eps, semantics=semantics)


def worst(implementation: Implementation, case: Case) -> dict[str, float]:
    """Largest error/bound of each quantity."""
    return Trial(executor_for(implementation), implementation, case).worst


def shape_of(semantics: str, size: int, groups: int) -> tuple[int, int, int, int]:
    return (1, size, 1, groups) if semantics == "channel" else (groups, 2, 1, size // 2)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("name", NAMES)
def test_honest_implementation_stays_within(name: str, semantics: str, data: str) -> None:
    """Long groups and long sums of parameter gradients, on each kind of data."""
    implementation = (honest(semantics) | disputed(semantics))[name]
    sizes = [(2, 300), (17, 40), (300, 2), (4096, 1)] + ([] if name in SLOW else [(4098, 2), (100_000, 1), (2, 100_000)])
    for size, groups in sizes:
        shape = shape_of(semantics, size + size % 2 * (semantics == "sample"), groups)
        found = worst(implementation, case_of(DATA[data](np.random.default_rng(size), shape), semantics, seed=groups))
        assert max(found.values()) <= 1.0, (size, groups, found)
        assert len(found) == 4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_welford_may_find_no_variance_where_there_is_one(name: str, dtype: str) -> None:
    """float32's mean of these two is the second, Welford's product 0, and the result far from a two-pass one: both are honest."""
    x = np.array([40000.00390625, 40000.0078125]).reshape(1, 2, 1, 1)
    if dtype == "float64":
        x = x[..., :] * 0 + np.array([2.0**45, 2.0**45 + 2.0**-7]).reshape(1, 2, 1, 1)
    case = case_of(x, "channel", eps=1e-6, dtype=dtype)
    assert max(worst((honest("channel") | disputed("channel"))[name], case).values()) <= 1.0


REJECTED = {
    "variance/one_pass": "offset",
    "precision/statistics_in_input_dtype": "heavy-tailed",
    "precision/weight_in_bfloat16": "heavy-tailed",
    "precision/single_inside_double": "heavy-tailed",
    "precision/relative_error_2e_5": "heavy-tailed",
    "eps/rounded_to_half": "near constant",
}


@pytest.mark.parametrize(("name", "data"), REJECTED.items())
def test_bound_rejects(name: str, data: str) -> None:
    """What the suite exists for is outside the bound on 64 values of one kind of data, in some dtype it concerns."""
    implementation = next(mutant.implementation for mutant in mutants("channel") if mutant.name == name)
    ratios = []
    for dtype in implementation.dtypes:
        x = DATA[data](np.random.default_rng(3), (1, 64, 1, 8)) - (100 if data == "near constant" else 0)
        ratios.append(worst(implementation, case_of(x, "channel", dtype=dtype))["y"])
    assert max(ratios) > 1.5, ratios


@pytest.mark.parametrize("size", [2, 16, 64])
@pytest.mark.parametrize("quantity", ["y", "dx", "dweight", "dbias"])
def test_some_honest_error_comes_near_the_bound(quantity: str, size: int) -> None:
    """A bound that no honest error comes near would reject too little; docs/bounds.md has the table."""
    found = [
        worst(honest("channel")[f"honest/{name}"], case_of(DATA[data](np.random.default_rng(size), (2, size, 1, 4)), "channel"))[quantity]
        for name in ("sequential", "backwards", "folded", "premultiplied", "welford", "composed_rsqrt")
        for data in DATA
    ]
    assert max(found) > 0.02, found
