"""judge and find_violation: honest implementations pass, mutants are caught by the law they break, and what is found is told."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
import pytest

from ln2d_ref import Case, Violation, check, load
from ln2d_ref.implementations.honest import honest
from ln2d_ref.laws import select
from ln2d_ref.mutants import mutants
from strategies import find_violation, judge
from strategies.search import search

CAUGHT = {
    "variance/one_pass": "value",
    "variance/unbiased": "value",
    "variance/padding_counted": "value",
    "eps/outside_the_root": "value",
    "eps/fixed": "value",
    "eps/doubled": "value",
    "eps/rounded_to_half": "value",
    "precision/statistics_in_input_dtype": "value",
    "precision/single_inside_double": "value",
    "precision/relative_error_2e_5": "value",
    "precision/saved_in_input_dtype": "gradients",
    "layout/x_strides_ignored": "layout",
    "layout/x_offset_ignored": "layout",
    "layout/dy_strides_ignored": "layout",
    "masks/last_channel": "value",
    "masks/pixels_past_vector": "value",
    "masks/dweight_past_block": "gradients",
    "special_values/nan_in_x_as_zero": "special_values",
    "special_values/leak_in_y": "special_values",
    "degenerate/bias_lost": "degenerate",
    "degenerate/empty_dweight": "degenerate",
    "side_effects/x_centred": "side_effects",
    "side_effects/weight_changed": "side_effects",
    "side_effects/written_past_end": "layout",
    "side_effects/denormal_mode": "side_effects",
    "state/cached_by_address": "history",
    "state/cached_by_fingerprint": "history",
    "gradients/dx_without_mean": "gradients",
    "gradients/dx_without_projection": "gradients",
    "gradients/dx_own_term_off": "gradients",
    "gradients/dx_mean_off": "gradients",
    "gradients/dx_projection_off": "gradients",
    "gradients/dweight_off": "gradients",
    "gradients/dbias_off": "gradients",
    "gradients/detached": "result",
    "semantics/tuple": "result",
    "semantics/nothing": "result",
}
"""Mutants that this file runs, and the law that must catch each."""

_MUTANTS = {mutant.name: mutant.implementation for mutant in mutants("channel")}


@pytest.mark.parametrize(("name", "law"), CAUGHT.items())
def test_mutant_is_caught_by_the_law_it_breaks(name, law):
    """A judge that cannot fail judges nothing. The law is judged alone too: which of several is broken first depends on the case."""
    assert find_violation(_MUTANTS[name], max_examples=2000, seed=0) is not None
    violation = find_violation(_MUTANTS[name], max_examples=2000, seed=0, laws=law)
    assert violation is not None
    assert violation.law == law


ALONE = {
    "result": "degenerate/no_samples_shape",
    "value": "masks/rows_past_grid",
    "gradients": "masks/dweight_past_block",
    "special_values": "special_values/nan_in_x_as_zero",
    "degenerate": "degenerate/bias_lost",
    "layout": "layout/x_stepped",
    "side_effects": "side_effects/random_seed",
    "history": "side_effects/shared_buffer",
    "independence": "independence/scaled_together",
    "modes": "modes/no_grad_coarse",
    "derivatives": "derivatives/rstd_constant",
    "bad_arguments": "bad_arguments/rank_3",
    "module": "module/deepcopy_shares",
}
"""For each law a mutant that no other law catches."""


@pytest.mark.parametrize(("law", "name"), ALONE.items())
def test_each_law_is_needed(law, name):
    """All the others together find nothing; a law of which that could not be said would go."""
    others = tuple(other.name for other in select() if other.name != law)
    assert find_violation(_MUTANTS[name], max_examples=200, seed=0, laws=others) is None
    assert find_violation(_MUTANTS[name], max_examples=2000, seed=0, laws=law).law == law


def test_a_law_of_each_default_run_is_here():
    """No law is left out."""
    assert set(ALONE) == {law.name for law in select()}


@pytest.mark.parametrize("name", ["state/cached_by_shape", "state/first_kept", "state/wrong_every_40th", "side_effects/shared_buffer"])
def test_mutant_with_state_is_caught_and_never_flaky(name):
    """By whatever law shows it first; Hypothesis never sees an answer that does not come back."""
    assert find_violation(_MUTANTS[name], max_examples=2000, seed=0) is not None


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_call_is_not_put_down_to_layout(seed):
    """Where x is strided, the same values are tried contiguous; that they are right then says nothing if they are right strided too."""
    right, calls = load("torch/composed_float32").fn, count(1)

    def wrong_every_13th(*call):
        y = right(*call)
        return y * 1.5 + 1 if next(calls) % 13 == 0 else y

    violation = find_violation(wrong_every_13th, max_examples=2000, seed=seed, laws="value")
    assert violation.law == "history"
    assert violation.cases <= 13 + 13 * 2, "the 13th call, or a later one where the 13th is on few groups"


@pytest.mark.parametrize("semantics", ["channel", "sample"])
@pytest.mark.parametrize("name", honest("channel"))
def test_honest_implementation_passes(semantics, name):
    """No false alarm."""
    assert find_violation(honest(semantics)[name], max_examples=60, seed=1) is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["variance/one_pass", "eps/fixed", "gradients/dx_mean_off"])
def test_a_smaller_case_leaves_no_doubt_where_the_first_left_none(name, seed):
    """Else shrinking ends at what is barely outside: small values, and 1.1 times the bound."""
    laws = select(("value", "gradients"))
    first = search(_MUTANTS[name], laws, 2000, seed, shrink=False).violation
    shrunk = search(_MUTANTS[name], laws, 2000, seed).violation
    assert shrunk.case.x.size <= first.case.x.size
    assert shrunk.ratio >= 3.0 or first.ratio < 3.0


def test_a_violation_is_a_case_that_can_be_checked_again():
    """What find_violation returns is what check raises, after a round trip through text."""
    violation = find_violation(_MUTANTS["variance/unbiased"], max_examples=100, seed=0)
    case = eval(str(violation.case), {"Case": Case})
    with pytest.raises(Violation) as caught:
        check(_MUTANTS["variance/unbiased"], case)
    assert caught.value.headline == violation.headline


def test_the_report_tells_worst_ratio_and_number_of_cases():
    """`no violation in N cases` is a claim only with both."""
    report = judge("torch/composed_float32", max_examples=50, seed=0)
    assert report.violation is None
    assert report.cases == 50
    assert 0 < max(report.worst.values()) <= 1
    assert str(report).startswith("no violation in 50 cases, worst error at ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"semantics": "pixel"}, "semantics is 'pixel'"),
        ({"laws": ["valeu"]}, "law is 'valeu', but must be one of result, value"),
        ({"max_examples": 0}, "max_examples is 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    """One clear line."""
    with pytest.raises(ValueError, match=message):
        judge("torch/composed_float32", **arguments)


@pytest.mark.parametrize("name", ["honest/composed_division", "torch/composed_float32"])
def test_a_gradient_that_lives_in_dy_is_no_fault(name):
    """autograd hands dy out as dbias where there is one row to sum; when the judge overwrites dy, dbias of the earlier call changes."""
    x = np.array([0.5, -1.0], np.float32).reshape(1, 2, 1, 1)
    case = Case(x=x, weight=None, bias=np.ones(2, np.float32), dy=x[:], requires_grad=("bias",))
    implementation = honest("channel").get(name, name)
    check(implementation, case)


@dataclass
class Unhashable:
    """A callable that is equal to others, and so has no hash."""

    number: int = 1

    def __call__(self, x, weight, bias, eps):
        return load("torch/composed_float32").fn(x, weight, bias, eps)


def test_any_callable_is_judged():
    """The contract asks for no more."""
    assert judge(Unhashable(), max_examples=5, seed=0, laws=("value",)).cases == 5
