"""The ledger: every entry's pinned case still shows its fault, and an entry hides nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from ln2d_ref import Case, Implementation, Violation
from ln2d_ref.check import violations
from ln2d_ref.implementations import as_implementation, executor_for, load, unavailable
from ln2d_ref.laws import Trial, select
from ln2d_ref.ledger import LEDGER, known_fault, stale
from strategies import judge
from strategies.examiner import Examiner


def shown(name: str, case: Case) -> Iterator[Violation]:
    implementation = load(name)
    return violations(Trial(executor_for(implementation), implementation, case), select())


@pytest.mark.parametrize("entry", LEDGER, ids=lambda entry: entry.name)
def test_pinned_case_is_covered_by_its_entry(entry):
    """A pinned case that the entry's own predicate refuses would make the entry stale for no reason."""
    assert entry.covers(entry.pinned_case()) or not entry.current()


def test_no_entry_is_stale():
    """A fault that is gone must leave the ledger, or it hides the next one."""
    runnable = tuple(entry for entry in LEDGER if unavailable(load(entry.implementation)) is None)
    assert [entry.name for entry in stale(shown, runnable)] == []


def test_an_entry_whose_fault_is_gone_is_stale():
    """The check above can fail: nothing is shown by an implementation that is right."""
    assert set(stale(lambda name, case: iter(()))) == {entry for entry in LEDGER if entry.current() and not entry.crashes}


def test_a_second_fault_beside_a_known_one_is_found():
    """The ledger knows torch/permute's half gradients; a wrong y is none of them."""
    right = load("torch/permute")
    wrong = dataclasses.replace(right, fn=lambda x, weight, bias, eps: right.fn(x, weight, bias, eps) * 1.01)
    case = next(entry for entry in LEDGER if entry.name == "torch/permute: half gradients").pinned_case()
    examiner = Examiner(wrong, select())
    with pytest.raises(Violation, match=r"^y\["):
        examiner.examine(case)


def test_a_larger_error_than_the_ceiling_is_new():
    """A known gradient fault is known up to its ceiling only."""
    entry = next(entry for entry in LEDGER if entry.name == "torch/permute: half gradients")
    violation = next(v for v in shown(entry.implementation, entry.pinned_case()) if entry.matches(v))
    assert known_fault(violation, load(entry.implementation)) is entry
    violation.ratio = 2 * entry.ceiling
    assert known_fault(violation, load(entry.implementation)) is None


def test_an_entry_speaks_of_its_own_implementation_only():
    """A user's function with the same fault is told of it."""
    own = as_implementation(load("torch/permute").fn)
    case = next(entry for entry in LEDGER if entry.name == "torch/permute: half gradients").pinned_case()
    with pytest.raises(Violation):
        Examiner(own, select()).examine(case)


def test_what_is_known_of_a_kernel_is_known_of_what_builds_on_it():
    """A library's module that calls F.layer_norm has its faults, and none of its own."""
    entry = next(entry for entry in LEDGER if entry.name == "torch/permute: half gradients")
    case, right = entry.pinned_case(), load("torch/permute").fn
    own = Implementation(right, name="own", builds_on="torch/permute")
    found = list(violations(Trial(executor_for(own), own, case), select()))
    assert entry in {known_fault(violation, own) for violation in found}
    assert None not in {known_fault(violation, own) for violation in found}
    assert {known_fault(violation, dataclasses.replace(own, builds_on=())) for violation in found} == {None}
    wrong = dataclasses.replace(own, fn=lambda x, weight, bias, eps: right(x, weight, bias, eps) * 1.01)
    with pytest.raises(Violation, match=r"^y\["):
        Examiner(wrong, select()).examine(case)


@pytest.mark.parametrize("factor", [1.0, -1.0, 1.5, 0.0])
def test_a_fault_beside_the_kernels_own_is_found_where_the_kernel_is_less_wrong(factor):
    """The ceiling of half gradients is 2·10⁴ times the bound; under it a dx of the wrong sign would pass."""

    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * factor

    kernel = load("torch/permute").fn
    own = Implementation(
        lambda x, weight, bias, eps: kernel(Scaled.apply(x), weight, bias, eps), builds_on="torch/permute", dtypes="float16"
    )
    report = judge(own, max_examples=60, seed=0, laws="gradients")
    assert report.known["torch/permute: half gradients"] > 0
    assert (report.violation is None) == (factor == 1.0)


def test_a_kernel_called_in_float32_rounds_other_groups_of_one_to_zero():
    """Its half call on the same case may be exact where it is not, and the other way round."""

    def widened(x, weight, bias, eps):
        wide = [None if each is None else each.float() for each in (x, weight, bias)]
        return load("torch/permute").fn(*wide, eps).to(x.dtype)

    own = Implementation(widened, builds_on="torch/permute", dtypes=("float16", "bfloat16", "float32"))
    report = judge(own, max_examples=150, seed=7, laws=("degenerate",))
    assert report.violation is None
    assert report.known["torch/permute: one-element groups not exact"] > 0


def test_what_builds_on_a_kernel_that_crashes_is_not_run_there():
    """Else a module that calls F.group_norm would end the process."""
    entry = next(entry for entry in LEDGER if entry.crashes)
    case = entry.pinned_case()
    run = []
    own = Implementation(lambda *arguments: run.append(arguments), name="own", semantics="sample", builds_on=entry.implementation)
    examiner = Examiner(own, select())
    if entry.current():
        examiner.examine(case)
        assert examiner.known[entry.name] == 1
        assert run == []
    with pytest.raises(Violation):
        Examiner(dataclasses.replace(own, builds_on=()), select()).examine(case)
    assert run


def test_a_case_that_ends_the_process_is_counted_and_not_run():
    """A crash would lose everything else that the run could find."""
    entry = next(entry for entry in LEDGER if entry.crashes)
    examiner = Examiner(load(entry.implementation), select())
    examiner.examine(entry.pinned_case())
    assert examiner.known[entry.name] == 1
    assert examiner.cases == 0


def test_an_entry_speaks_of_its_own_devices_only():
    """What is known of a CPU kernel says nothing of a GPU's."""
    entry = next(entry for entry in LEDGER if entry.name == "torch/permute: half gradients")
    case = entry.pinned_case()
    assert entry.covers(case)
    assert not entry.covers(dataclasses.replace(case, device="cuda"))
