"""Faults that released layer norms were reported for: each is caught on the input of its report, by the law that it breaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ln2d_ref import Case, Implementation, Violation, check, load
from ln2d_ref.implementations import executor_for
from ln2d_ref.implementations.honest import honest
from ln2d_ref.laws import LAWS
from ln2d_ref.mutants import KINDS, mutants
from ln2d_ref.mutants.base import Form, layer_norm_2d
from ln2d_ref.mutants.parts import Call, finish, input_gradient
from tests.meta.reports import LAYOUTS, LONG, ONES, PLAIN, REPORTED, group, half, laid_out, last_row, normal

NEAR_1E19 = normal(2, 4, 1, 3, spread=1e19)
TRIGGERS = [pytest.param(*row[1:], id=f"{kind}-{row[0]}") for kind, rows in REPORTED.items() for row in rows]
UNSEEN = {
    "the values that overwrite x differ in its first one too": ("state/cached_by_fingerprint", PLAIN, "history"),
}
"""Faults that `check` lets pass on one case, by the reason, with the law that is asked."""


def named(name: str) -> Implementation:
    """A mutant built afresh, with no state of earlier calls."""
    return next(mutant.implementation for mutant in mutants() if mutant.name == name)


def honest_for(case: Case) -> list[Implementation]:
    """What the mutants are made from, and one with all derivatives."""
    of = {"semantics": case.semantics, "affine_shape": "element" if case.weight is not None and case.weight.ndim > 1 else "channel"}
    return [Implementation(layer_norm_2d(semantics=case.semantics), name="right", **of), honest(**of)["honest/node_centred"]]


def asked(law: str) -> tuple[str, ...] | None:
    """`laws` of check; the default where it has this one."""
    return (law,) if LAWS[law].aside or LAWS[law].opt_in else None


@pytest.mark.parametrize(("mutant", "case", "broken"), TRIGGERS)
def test_reported_fault_is_caught_and_honest_implementations_pass(mutant: str, case: Case, broken: str) -> None:
    """The mutant goes first: memory that is freed, and garbage, hold no right answer then."""
    law, quantity = broken.split(" ", 1)
    with pytest.raises(Violation) as caught:
        check(named(mutant), case, laws=asked(law))
    assert (caught.value.law, caught.value.quantity) == (law, quantity), caught.value
    for implementation in honest_for(case):
        check(implementation, case, laws=asked(law))


@pytest.mark.parametrize("why", [pytest.param(why, marks=pytest.mark.xfail(reason=why, strict=True)) for why in UNSEEN])
def test_fault_is_caught_on_one_case(why: str) -> None:
    """A search catches the caches by its next case."""
    mutant, case, law = UNSEEN[why]
    with pytest.raises(Violation):
        check(named(mutant), case, laws=asked(law))


def test_every_kind_is_reproduced() -> None:
    """`KINDS` are the kinds of report, what judges of generated kernels met, and what modules promise, which has its own tests."""
    assert {kind for kind, rows in REPORTED.items() if rows} == set(KINDS) - {"module contract"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dy_read_where_x_lies_is_right_in_one_layout(layout: str) -> None:
    """Why such a fault lives on: nearly all tests have x and dy in the same."""
    case = laid_out(PLAIN, x=LAYOUTS[layout], dy=LAYOUTS[layout])
    for implementation in (named("reported/dy_where_x_lies"), *honest_for(case)):
        check(implementation, case)


@pytest.mark.parametrize("name", ["masks/rows_past_grid", "masks/dweight_past_grid", "masks/dbias_past_grid"])
def test_the_largest_grid_holds_65535_rows(name: str) -> None:
    """The fault begins one row later."""
    check(named(name), normal(65535, 2, 1, 1, dy=last_row(65535, 2, 1, 1)))


def test_float32_near_1e19_is_asked_for_by_name() -> None:
    """Squares overflow there: by default only the groups beside it are judged, and an opt-in law takes x to the end of the range."""
    for case in (NEAR_1E19, PLAIN):
        for implementation in honest_for(case):
            with pytest.raises(Violation, match="for x·2"):
                check(implementation, case, laws=("extreme_range",))
        check(load("numpy/reference"), case, laws=("extreme_range",))
    with pytest.raises(Violation, match="for x·2"):
        check(named("semantics/returned_unchanged"), NEAR_1E19, laws=("extreme_range",))
    for implementation in honest_for(NEAR_1E19):
        check(implementation, NEAR_1E19)


def _dtype_of_weight(y: torch.Tensor, call: Call) -> torch.Tensor:
    return y.to(call.x.dtype if call.weight is None else call.weight.dtype)


def test_a_float32_result_of_half_x_and_float32_parameters_is_no_fault() -> None:
    """Reported as one, but a policy that some choose on purpose: `modes` takes x's dtype, float32 and an exception."""
    implementation = Implementation(layer_norm_2d(Form(finish=_dtype_of_weight)), name="own")
    check(implementation, half(PLAIN))


def _exactly_zero(g: torch.Tensor, xhat: torch.Tensor, rstd: torch.Tensor, call: Call) -> torch.Tensor:
    constant = (g == g[:, :1]).all(1, keepdim=True)
    return torch.where(constant, 0, input_gradient(g, xhat, rstd, call))


def _off_by(ulps: int) -> Implementation:
    """Float16 results of 1 are this much larger."""
    form = Form(finish=lambda y, call: torch.where(finish(y, call) == 1, 1 + ulps * 2.0**-10, y).to(call.x.dtype))
    return Implementation(layer_norm_2d(form), name="off")


CONSTANT_G = replace(ONES, weight=np.full(3, 2.5, np.float32))
TIE = half(group(100, -100, weight=np.ones(2, np.float32), bias=np.full(2, 2.0**-11, np.float32)))
NO_FAULTS = {
    "gradient of the sum is rounding noise": (honest("channel")["honest/node_centred"], CONSTANT_G),
    "gradient of the sum is exactly zero": (Implementation(layer_norm_2d(Form(input_gradient=_exactly_zero)), name="zero"), CONSTANT_G),
    "half result rounded down": (_off_by(0), TIE),
    "half result one unit in the last place away": (_off_by(1), TIE),
    "float32 as eager code computes": (honest("channel")["honest/composed_division"], LONG),
    "float32 as compiled code computes": (honest("channel")["honest/composed_premultiplied"], LONG),
    "population variance, compared with the unbiased": (honest("channel")["honest/composed_division"], normal(2, 2, 2, 2)),
    "constant group off by rounding, which a log amplifies": (
        honest("channel")["honest/reciprocal_count"],
        group(*[0.1] * 7, affine="none"),
    ),
}


@pytest.mark.parametrize("report", NO_FAULTS)
def test_reports_that_were_no_faults_pass(report: str) -> None:
    implementation, case = NO_FAULTS[report]
    check(implementation, case)


def test_those_reports_say_something() -> None:
    """Twin: the noise is there, the two differ, and two units in the last place are too many."""
    y, dx = ({report: run(*of).results[name].array for report, of in NO_FAULTS.items()} for name in ("y", "dx"))
    assert dx["gradient of the sum is rounding noise"].any()
    assert not dx["gradient of the sum is exactly zero"].any()
    assert (y["half result rounded down"] != y["half result one unit in the last place away"]).any()
    assert (y["float32 as eager code computes"] != y["float32 as compiled code computes"]).any()
    assert y["constant group off by rounding, which a log amplifies"].any()
    with pytest.raises(Violation, match="should be"):
        check(_off_by(2), TIE)


def run(implementation: Implementation, case: Case) -> Any:
    executor = executor_for(implementation)
    return executor.run(executor.place(case))
