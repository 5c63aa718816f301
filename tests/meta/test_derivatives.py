"""The law `derivatives`: its reference is right, its bounds hold for whoever is honest, and whoever is wrong is caught."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import ln2d_ref
from ln2d_ref import Case, Implementation, Violation
from ln2d_ref.check import violations
from ln2d_ref.directions import directions, members
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.higher import expect_derivatives
from ln2d_ref.implementations import executor_for, load
from ln2d_ref.implementations.honest import honest
from ln2d_ref.laws import LAWS, Trial, select
from ln2d_ref.ledger import LEDGER
from ln2d_ref.mutants import mutants
from ln2d_ref.mutants.base import layer_norm_2d
from ln2d_ref.mutants.second_order import right_node
from ln2d_ref.reproduction import write
from ln2d_ref.semantics import SEMANTICS
from strategies import cases, judge
from strategies.examiner import Examiner
from strategies.search import law_cases
from strategies.values import FINITE_REGIMES
from tests.meta import exact
from tests.meta.test_reference import FORMS, NEGLIGIBLE, part_of_bound

quick = partial(settings, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
DIFFERENTIABLE = ("composed_division", "composed_float64", "composed_premultiplied", "composed_rsqrt", "composed_var_mean")
NODES = ("node_by_hand", "node_centred", "node_scaled_by_count")
MUTANTS = {mutant.name: mutant.implementation for mutant in mutants() if mutant.kind == "higher derivatives"}
PINNED = [entry for entry in LEDGER if "derivatives" in entry.laws and entry.current()]
SMALL = Case(
    x=np.array([0, 1, 3], np.float32).reshape(1, 3, 1, 1),
    weight=np.array([1, 2, -1], np.float32),
    dy=np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1),
)


def exact_derivatives(case: Case) -> dict[str, Any]:
    """What expect_derivatives gives, in mpmath."""
    along, then = directions(case, 0), directions(case, 1)
    arguments = (case.dy, case.x, case.weight, case.bias, case.eps, case.semantics)
    given = {name: getattr(case, name) for name in ("x", "weight", "bias")}
    first = [None if array is None else along.get(name, np.zeros_like(array)) for name, array in given.items()]
    on_dy, on_x, on_weight = exact.double_vjp(*first, *arguments)
    second = exact.second_derivatives(along, then, *arguments)
    return {"Dy": on_dy, "Dx": on_x, "Dweight": on_weight, **{"DD" + name: array for name, array in second.items()}}


def expected_derivatives(case: Case, arithmetic: str = "float32") -> dict[str, Any]:
    along, then = directions(case, 0), directions(case, 1)
    return expect_derivatives(
        case.x, case.weight, case.bias, case.dy, along, then, eps=case.eps, semantics=case.semantics, arithmetic=arithmetic
    )


def examined(implementation: Any, count: int, seed: int = 0) -> Examiner:
    """An examiner that has judged that many cases by the law alone; raises the first Violation as it was found, not shrunk."""
    from hypothesis import seed as seeded

    examiner = Examiner(implementation, select(("derivatives",)))

    @seeded(seed)
    @quick(max_examples=count, derandomize=False)
    @given(law_cases(implementation, "derivatives"))
    def search(case: Case) -> None:
        examiner.examine(case)

    search()
    return examiner


def shown(name: str, case: Case) -> list[Violation]:
    implementation = load(name)
    return list(violations(Trial(executor_for(implementation), implementation, case), select(("derivatives",))))


@pytest.mark.parametrize(("semantics", "affine_shape"), FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_reference_is_a_thousandth_of_the_bound_from_the_truth(dtype: str, semantics: str, affine_shape: str) -> None:
    """Derivatives of every order that is judged, against jets of jets and a tape in mpmath."""

    @quick(max_examples=10)
    @given(
        cases(dtypes=dtype, semantics=semantics, affine_shape=affine_shape, regimes=FINITE_REGIMES, shape_kinds="small", max_elements=64)
    )
    def check(case: Case) -> None:
        expected = expected_derivatives(case)
        for name, right in exact_derivatives(case).items():
            if right is not None:
                assert part_of_bound(expected[name], right) <= NEGLIGIBLE, name

    check()


def test_first_derivatives_are_those_of_the_public_functions() -> None:
    """Dy is jvp, and double_vjp's three results are Dy, Dx and Dweight."""
    along, options = directions(SMALL, 0), {"eps": SMALL.eps, "semantics": SMALL.semantics}
    tangent = ln2d_ref.jvp(along["x"], SMALL.x, SMALL.weight, tweight=along["weight"], **options)
    second = ln2d_ref.double_vjp(along["x"], along["weight"], None, SMALL.dy, SMALL.x, SMALL.weight, **options)
    expected = expected_derivatives(SMALL)
    for name, value in (("Dy", tangent), ("Dy", second.dy), ("Dx", second.x), ("Dweight", second.weight)):
        np.testing.assert_array_less(np.abs(value - expected[name].value), expected[name].bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_directions_are_exact_never_zero_and_the_cases_own(dtype: str) -> None:
    """A zero would hide a fault, a rounded value would be another direction in another dtype, and a case file does not hold them."""
    case = Case(SMALL.x.astype(DTYPES[dtype].numpy), SMALL.weight.astype(DTYPES[dtype].numpy))
    first, second = directions(case, 0), directions(case, 1)
    again = directions(Case.from_dict(case.to_dict()), 0)
    assert list(first) == ["x", "weight"]
    for name, array in first.items():
        sixteenths = array.astype(np.float64) * 16
        assert array.shape == getattr(case, name).shape
        assert array.dtype == case.x.dtype
        assert (sixteenths % 2 == 1).all()
        assert (np.abs(sixteenths) < 32).all()
        assert (again[name] == array).all()
        assert (second[name] != array).any()


def test_directions_stay_what_they_are() -> None:
    """Pinned: another hash would make every pinned case another one."""
    assert directions(SMALL, 0)["x"].reshape(-1).tolist() == [1.8125, -0.4375, 0.5625]
    assert directions(SMALL, 1)["x"].reshape(-1).tolist() == [0.4375, -0.1875, -1.9375]


def test_members_of_a_batch_differ_in_what_they_should() -> None:
    """vmap over the same values twice would show nothing."""
    first, second = members(SMALL, parameters=False)
    assert (first.x != second.x).any()
    assert (first.weight == second.weight).all()
    assert (members(SMALL, parameters=True)[1].weight != SMALL.weight).any()


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("name", [*DIFFERENTIABLE, *NODES, "sequential"])
def test_honest_implementation_passes(name: str, semantics: str) -> None:
    """No false alarm; the recipes refuse what they cannot do, and the others do it."""
    examiner = examined(honest(semantics)[f"honest/{name}"], 25, seed=1)
    refused = {way for way in examiner.observations if "refused" in way}
    assert bool(refused) == (name not in DIFFERENTIABLE)
    assert ("ddx", "float32") in examiner.worst or name == "sequential"


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    """Each way and each term of the second order has one."""
    with pytest.raises(Violation) as caught:
        examined(MUTANTS[name], 300)
    assert caught.value.law == "derivatives"


@pytest.mark.parametrize("name", ["derivatives/statistics_constant", "derivatives/vmap_order", "second_order/x_projections"])
def test_only_this_law_catches_it(name: str) -> None:
    """Without it they would pass."""
    others = [law.name for law in select() if law.name != "derivatives"]
    assert judge(MUTANTS[name], max_examples=40, seed=0, laws=others).violation is None


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_the_formula_that_terms_are_taken_from_is_right(semantics: str) -> None:
    """Twin of the mutants above: with every term there, nothing is found."""
    fn = layer_norm_2d(semantics=semantics, node=right_node())
    examined(Implementation(fn, name="whole", semantics=semantics), 40)


def test_a_refusal_is_an_observation() -> None:
    """It passes, and the report says so."""
    report = judge(honest("channel")["honest/sequential"], max_examples=10, seed=0, laws=["derivatives"])
    assert report.violation is None
    assert report.observations["double backward refused with RuntimeError"] > 0
    assert report.observations["forward mode refused with NotImplementedError"] > 0


def test_a_gradient_without_graph_is_named() -> None:
    """None is 0, which is wrong where 0 is; the first line tells."""
    trial = Trial(executor_for(MUTANTS["derivatives/gradients_detached"]), MUTANTS["derivatives/gradients_detached"], SMALL)
    headlines = [violation.headline for violation in violations(trial, select(("derivatives",)))]
    assert any(line.startswith("ddx[") and line.endswith("(None: autograd found no path), by double backward") for line in headlines)


@pytest.mark.parametrize("entry", PINNED, ids=lambda entry: entry.name)
def test_an_honest_implementation_gets_a_known_fault_right(entry: Any) -> None:
    """So the fault is the released implementation's and not the bound's; the value is mpmath's."""
    case = entry.pinned_case()
    for name in ("composed_rsqrt", "composed_division", "node_centred"):
        right = honest(case.semantics)[f"honest/{name}"]
        assert not list(violations(Trial(executor_for(right), right, case), select(("derivatives",))))
    expected = expected_derivatives(case)
    for name, value in exact_derivatives(case).items():
        if value is not None:
            assert part_of_bound(expected[name], value) <= NEGLIGIBLE


def test_layer_norms_third_order_is_not_the_derivative_of_its_own_second() -> None:
    """The finding without our reference: central differences of torch's second order in float64, which are good to about 1e-9."""
    import torch
    from torch.nn.functional import layer_norm

    x, dy, v = (torch.tensor(row, dtype=torch.float64) for row in ([0.0, 1, 3], [1.0, 0, 0], [1.0, -1, 2]))

    def second(at: Any, create_graph: bool = False) -> Any:
        (first,) = torch.autograd.grad(layer_norm(at, (3,)), at, dy, create_graph=True)
        return torch.autograd.grad(first, at, v, create_graph=create_graph)[0]

    leaf, step = x.clone().requires_grad_(), 1e-5
    (third,) = torch.autograd.grad(second(leaf, create_graph=True), leaf, v)
    ahead, behind = (second((x + sign * step * v).requires_grad_()) for sign in (1, -1))
    gone = all(entry.name != "torch/permute: third order" for entry in PINNED)
    assert gone or (third - (ahead - behind) / (2 * step)).abs().max() > 0.1


@pytest.mark.parametrize("way", ["double backward", "vmap over vjp"])
def test_the_reproducing_script_shows_it_and_fails(way: str, tmp_path: Any) -> None:
    """It quotes the way, and needs torch and the implementation only."""
    violation = next(found for found in shown("torch/permute", PINNED[0].pinned_case()) if found.way == way)
    folder = write(violation, load("torch/permute"), tmp_path)
    root = str(Path(__file__).parents[2])
    command = [sys.executable, str(folder / "repro.py")]
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1, done.stderr
    assert violation.quantity in done.stdout
    assert "expected" in done.stdout


def test_special_and_single_cases_are_left_to_other_laws() -> None:
    """No bound is made for them."""
    law = LAWS["derivatives"]
    nan = Case(np.full((1, 3, 1, 1), np.nan, np.float32))
    single, none = Case(np.ones((2, 1, 1, 1), np.float32)), Case(SMALL.x, requires_grad=())
    assert [law.applies(case) for case in (SMALL, nan, single, none)] == [True, False, False, False]


def test_every_way_of_torch_is_judged() -> None:
    """Each has its expectations, and results of the right shapes."""
    implementation = honest("channel")["honest/composed_rsqrt"]
    derived = Trial(executor_for(implementation), implementation, SMALL).derived
    assert {way for way, _ in derived.expected} == set(executor_for(implementation).ways)
    assert all(derived.is_tensor(way, quantity) for way, quantity in derived.expected)
    assert not derived.undecided
