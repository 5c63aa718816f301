"""The laws on history, groups, modes and wrong arguments: each clause has a mutant that it catches, and honest implementations pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ln2d_ref import Case, Implementation, Violation, check
from ln2d_ref.check import violations
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.implementations import as_implementation, executor_for, load
from ln2d_ref.implementations.honest import honest
from ln2d_ref.laws import LAWS, Trial, select
from ln2d_ref.laws.bad_arguments import bad_calls
from ln2d_ref.laws.independence import disturbed
from ln2d_ref.laws.modes import RIGHT_UNDER_AUTOCAST
from ln2d_ref.ledger import known_fault
from ln2d_ref.mutants import mutants
from ln2d_ref.mutants.base import layer_norm_2d
from strategies import judge

NEW = ("history", "independence", "modes", "bad_arguments")
DEFAULT = tuple(law.name for law in select())
CAUGHT = {
    "state/statistics_shared": ("history", "float32", "calls at once in threads of their own"),
    "state/xhat_as_scratch": ("history", "float32", "from a second backward over the same graph"),
    "state/dx_of_x_as_it_is": ("history", "float32", "where x is overwritten in place before backward, which was not refused"),
    "state/dx_of_weight_as_it_is": ("history", "float16", "where weight is overwritten in place before backward"),
    "state/dbias_in_one_buffer": ("history", "float32", "dbias of an earlier call was changed by a later one"),
    "independence/scaled_together": ("independence", "float32", "where another group overflows"),
    "independence/dx_switched_off": ("independence", "float32", "dx["),
    "independence/bias_nan_as_zero": ("independence", "float32", "but should be nan"),
    "independence/bias_gathered": ("independence", "float32", "= nan, but should be"),
    "modes/no_grad_coarse": ("modes", "float32", "under no_grad"),
    "modes/inference_coarse": ("modes", "float32", "under inference_mode"),
    "modes/autocast_coarse": ("modes", "float32", "times the bound) under autocast to bfloat16"),
    "modes/autocast_narrowed": (
        "modes",
        "float32",
        "y is bfloat16[2, 3, 2, 2] under autocast to bfloat16, but should be float32[2, 3, 2, 2]",
    ),
    "modes/float32_weight_rounded": ("modes", "bfloat16", "with float32 parameters"),
    "modes/float32_bias_rounded": ("modes", "bfloat16", "with float32 parameters"),
    "bad_arguments/rank_3": ("bad_arguments", "float32", "x of rank 3, float32[3, 2, 2] beside x [2, 3, 2, 2], gave a result"),
    "bad_arguments/rank_5": ("bad_arguments", "float32", "x of rank 5"),
    "bad_arguments/integers": ("bad_arguments", "float32", "integer x, int64[2, 3, 2, 2]"),
    "bad_arguments/long_cut": ("bad_arguments", "float32", "long weight, float32[4] beside x [2, 3, 2, 2], gave a result"),
    "bad_arguments/short_repeated": ("bad_arguments", "float32", "short weight, float32[2]"),
    "bad_arguments/one_for_all": ("bad_arguments", "float32", "weight for one channel, float32[1]"),
    "bad_arguments/axis_dropped": ("bad_arguments", "float32", "weight with an axis too many, float32[3, 1]"),
    "bad_arguments/elsewhere_as_ones": ("bad_arguments", "float32", "weight on another device gave a result"),
    "bad_arguments/key_error": ("bad_arguments", "float32", "raised KeyError: 3; that does not say what is wrong"),
}
"""For each clause a mutant, the one law that catches it, a dtype in which it does, and what is said."""


def a_case(dtype: str = "float32", semantics: str = "channel", **changed) -> Case:
    rng = np.random.default_rng(7)
    numpy = DTYPES[dtype].numpy
    x, dy = rng.standard_normal((2, 2, 3, 2, 2)).astype(numpy)
    weight, bias = rng.standard_normal((2, 3)).astype(numpy)
    return replace(Case(x, weight, bias, dy, semantics=semantics, regime="normal"), **changed)


def shown(implementation, case: Case, laws=DEFAULT) -> list[Violation]:
    implementation = as_implementation(implementation, semantics=case.semantics)
    return list(violations(Trial(executor_for(implementation), implementation, case), select(laws)))


@pytest.mark.parametrize("name", CAUGHT)
def test_only_its_law_catches_a_mutant(name):
    """On one case, judged by all laws of the default: so each of these laws says what no other does."""
    law, dtype, said = CAUGHT[name]
    mutant = {each.name: each.implementation for each in mutants("channel")}[name]  # with a state of its own
    found = shown(mutant, a_case(dtype))
    assert {violation.law for violation in found} == {law}
    assert any(said in violation.headline for violation in found), [violation.headline for violation in found]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("semantics", ["channel", "sample"])
@pytest.mark.parametrize("name", ["honest/sequential", "honest/composed_rsqrt", "honest/shuffled", "honest/float64"])
def test_honest_implementations_pass(name, semantics, dtype):
    """Deterministic or not, and with the one-element groups in which y = bias is asked for exactly."""
    case = a_case(dtype, semantics)
    assert shown(honest(semantics)[name], case, NEW) == []
    single = Case(case.x[:, :1, :1, :1], case.weight[:1], case.bias[:1], case.dy[:, :1, :1, :1], semantics=semantics)
    assert shown(honest(semantics)[name], single, NEW) == []


def test_the_reference_passes_and_with_it_every_framework_can():
    """NumPy has no modes and no graph, and is judged on the rest."""
    assert shown("numpy/reference", a_case(), (*NEW, "batch_invariance", "extreme_range")) == []


def test_a_refused_second_backward_is_observed():
    """An implementation that lets go of its graph refuses a second backward, which is told and is no violation."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            ctx.spent = False
            return y.clone()

        @staticmethod
        def backward(ctx, dy):
            if ctx.spent:
                raise RuntimeError("the buffers of this graph are gone")
            ctx.spent = True
            return dy

    judged = Implementation(lambda x, weight, bias, eps: Once.apply(layer_norm_2d()(x, weight, bias, eps)), name="spent")
    trial = Trial(executor_for(judged), judged, a_case())
    assert list(violations(trial, select(("history",)))) == []
    assert trial.observed == ["refused a second backward with RuntimeError"]


def test_history_leaves_the_case_as_it_was():
    """Later laws judge the same tensors."""
    implementation = honest("channel")["honest/composed_rsqrt"]
    trial = Trial(executor_for(implementation), implementation, a_case())
    before = trial.outcome
    assert list(LAWS["history"].violations(trial)) == []
    after = trial.executor.run(trial.placed)
    assert after.changed == ()
    assert np.array_equal(before.results["y"].array, after.results["y"].array)


def test_one_group_is_disturbed_and_no_other_value():
    """The mask tells which, and its variance leaves float32's range."""
    case = a_case()
    other, mask = disturbed(case)
    assert mask.sum() == case.group_size
    assert np.array_equal(other.x[~mask], case.x[~mask])
    assert np.isfinite(other.x).all()
    with np.errstate(over="ignore"):
        assert np.isinf(np.square(other.x[mask])).all()
    assert np.isinf(other.bias[0])
    assert np.isnan(other.bias[1])


def test_autocast_narrows_no_norm():
    """Every device and dtype has its row, and none allows fewer digits than x has."""
    digits = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
    assert len(RIGHT_UNDER_AUTOCAST) == 2 * len(digits)
    for (_, dtype), allowed in RIGHT_UNDER_AUTOCAST.items():
        assert all(digits[each] >= digits[dtype] for each in allowed)


def test_float32_beside_half_may_come_back_as_either():
    """Whichever came back is held to its own digits."""
    for finish in (lambda y, x: y, lambda y, x: y.to(x.dtype)):

        def promoting(x, weight, bias, eps, finish=finish):
            wide = layer_norm_2d()(x.float(), None, None, eps)
            y = wide if weight is None else wide * weight[:, None, None]
            y = y if bias is None else y + bias[:, None, None]
            return finish(y, x) if weight is not None and weight.dtype == torch.float32 else y.to(x.dtype)

        assert shown(Implementation(promoting), a_case("float16"), ("modes",)) == []


def test_wrong_calls_are_of_each_kind():
    """Rank, channel count, shape, dtype and device; on CUDA the other device is the CPU."""
    faults = [call.fault for call in bad_calls(a_case())]
    assert faults[:3] == ["x of rank 3", "x of rank 5", "integer x"]
    assert len(faults) == len(set(faults)) == 3 + 2 * 5
    assert {call.devices.get("weight") for call in bad_calls(a_case(device="cuda"))} == {None, "cpu"}
    assert all(
        array.shape != a_case().arrays[name].shape or array.dtype.kind == "i"
        for call in bad_calls(a_case())
        for name, array in call.given.items()
    )


def test_wrong_calls_are_judged_last_and_not_by_check():
    """A composed function that answers them is told so once its numbers are right, and not where a case is checked."""

    def composed(x, weight, bias, eps):
        x = x.double()
        y = (x - x.mean(1, keepdim=True)) * (x.var(1, keepdim=True, correction=0) + eps).rsqrt()
        y = y if weight is None else y * weight[:, None, None]
        return (y if bias is None else y + bias[:, None, None]).float()

    judged = Implementation(composed, dtypes=("float32",))
    check(judged, a_case())
    report = judge(judged, max_examples=30, seed=0)
    assert report.cases == 30
    assert report.violation.law == "bad_arguments"
    assert report.violation.case.x.size <= 4
    assert report.violation.reproduce.endswith("laws=('bad_arguments',)) raises it")
    off = replace(judged, fn=lambda *call: composed(*call) * 1.01)
    assert judge(off, max_examples=30, seed=0).violation.law in ("value", "gradients", "degenerate")


def by_batch(x, weight, bias, eps):
    """Right, with sums in another order where the batch is larger than one sample."""
    y = layer_norm_2d()(x.double() if len(x) > 1 else x, weight, bias, eps)
    return y.to(x.dtype)


def test_batch_variance_is_observed_and_a_violation_where_asked_for():
    """The bound allows either; users of inference do not."""
    implementation, case = Implementation(by_batch, dtypes=("float32",)), a_case()
    trial = Trial(executor_for(implementation), implementation, case)
    assert list(violations(trial, select(("value", "gradients", "independence")))) == []
    assert "y not bitwise batch-invariant" in trial.observed
    with pytest.raises(Violation, match="has other bits in a batch of 2 than alone"):
        check(implementation, case, laws=("batch_invariance",))
    check(honest("channel")["honest/sequential"], case, laws=("batch_invariance",))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_overflowing_squares_are_wrong_only_where_asked_for(dtype):
    """The right mutants' base lets them overflow, as nearly all do; the reference does not."""
    base = Implementation(layer_norm_2d(), name="base")
    assert shown(base, a_case(dtype)) == []
    with pytest.raises(Violation, match=r"y\[.* for x·2\^"):
        check(base, a_case(dtype), laws=("extreme_range",))


def test_opt_in_laws_are_left_out():
    """`batch_invariance` and `extreme_range` are judged by name alone."""
    assert set(LAWS) - set(DEFAULT) == {"batch_invariance", "extreme_range"}


def test_half_sums_for_float32_parameters_are_known():
    """F.layer_norm's gradients of float32 parameters beside half x have the digits of half: 1 + 2^-12 comes back as 1."""
    dy = np.zeros((2, 3, 1, 1), np.float16)
    dy[:, 0, 0, 0] = 1, 2.0**-12
    x = np.arange(6, dtype=np.float16).reshape(dy.shape)
    case = Case(x, np.ones(3, np.float16), np.zeros(3, np.float16), dy, requires_grad=("bias",))
    (violation,) = shown("torch/permute", case, ("modes",))
    assert violation.headline.startswith("dbias[0] = 1, but should be 1.000244")
    assert known_fault(violation, load("torch/permute")).name == "torch/permute: half gradients"


def _first_kept(then):
    """A function that returns its first result three times, and then does something else."""
    right, kept, calls = layer_norm_2d(), [], []

    def own(x, weight, bias, eps):
        calls.append(None)
        kept.append(right(x, weight, bias, eps).detach())
        return kept[0].clone() if len(calls) <= 3 else then(kept[0])

    return Implementation(own)


def _out_of_memory(y):
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("then", [_out_of_memory, lambda y: y.reshape(-1)[:7], lambda y: None, lambda y: y.double()])
def test_a_fresh_call_may_end_in_any_way(then):
    """Whether it returns what an earlier call did is asked of a result that came back, and never ends in an error of ours."""
    implementation, case = _first_kept(then), a_case(requires_grad=())
    said = {violation.law for violation in violations(Trial(executor_for(implementation), implementation, case), select(("history",)))}
    assert said == ({"history"} if then is _out_of_memory else set())  # what is of another kind is said by `result` of the next case


@pytest.mark.parametrize("quantity", ["dx", "dweight", "dbias"])
def test_each_gradient_changes_with_what_overwrites_its_arguments(quantity):
    """Else one that is kept by address passes; dweight would be the same where x and dy are both negated."""
    case = a_case(requires_grad=("x", "weight", "bias"))
    implementation = honest("channel")["honest/node_centred"]
    before, after = (executor_for(implementation) for _ in range(2))
    was, now = before.run(before.place(case)).results[quantity].array, after.run(after.place(case.varied())).results[quantity].array
    assert (was != now).any()
