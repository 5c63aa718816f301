"""judge and find_violation: honest implementations pass, mutants are caught by the law they break, and what is found is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ln2d_ref import Case, Violation, check
from ln2d_ref.implementations.honest import honest
from ln2d_ref.mutants import mutants
from strategies import find_violation, judge

ROOT = Path(__file__).parents[2]

CAUGHT = {
    "variance/one_pass": "value",
    "variance/unbiased": "value",
    "variance/padding_counted": "value or gradients",
    "eps/outside_the_root": "value",
    "eps/fixed": "value or gradients",
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
    """A judge that cannot fail judges nothing."""
    violation = find_violation(_MUTANTS[name], max_examples=2000, seed=0)
    assert violation is not None
    assert violation.law in law.split(" or ")


@pytest.mark.parametrize("name", ["state/cached_by_shape", "state/wrong_every_40th", "side_effects/shared_buffer", "state/first_kept"])
def test_mutant_with_state_is_caught_and_never_flaky(name):
    """By whatever law shows it first; Hypothesis never sees an answer that does not come back."""
    assert find_violation(_MUTANTS[name], max_examples=2000, seed=0) is not None


@pytest.mark.parametrize("semantics", ["channel", "sample"])
@pytest.mark.parametrize("name", honest("channel"))
def test_honest_implementation_passes(semantics, name):
    """No false alarm."""
    assert find_violation(honest(semantics)[name], max_examples=60, seed=1) is None


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


OWN = '''
import torch
import torch.nn.functional as F
def wrong(x, weight, bias, eps):
    """A relative error of 1e-3."""
    return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), weight, bias, eps).permute(0, 3, 1, 2) * 1.001
number = 3
'''


def pytest_on(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "tests/conformance", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False).stdout


def test_a_failure_prints_its_message_and_little_else(tmp_path):
    """The first line alone says what is wrong; no ExceptionGroup, no dump of arguments."""
    (tmp_path / "own.py").write_text(OWN)
    output = pytest_on(tmp_path, "--implementation", f"{tmp_path}/own.py:wrong", "--law", "value")
    body = output.split("FAILURES")[1].split("short test summary")[0].splitlines()[1:]
    assert body[1].startswith("y[")
    assert "times the bound)" in body[1]
    assert [line.split()[0] for line in body[2:-1]] == ["implementation", "law", "call", "extent", "input", "found", "reproduce"]
    assert "ExceptionGroup" not in output
    assert "array(" not in output


def test_the_reproducing_script_shows_it_and_fails(tmp_path):
    """It needs only torch and the implementation."""
    (tmp_path / "own.py").write_text(OWN)
    output = pytest_on(tmp_path, "--implementation", f"{tmp_path}/own.py:wrong", "--law", "value")
    script = next(line.split()[2] for line in output.splitlines() if line.strip().startswith("reproduce"))
    done = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1, done.stderr
    assert "expected" in done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch/nothing", "must be one of torch/permute"),
        ("{folder}/own.py:number", "3 is not callable"),
        ("{folder}/missing.py:fn", "does not exist"),
        ("{folder}/own.py:fn", "has no attribute 'fn'"),
    ],
)
def test_wrong_use_gets_one_clear_line(tmp_path, name, message):
    """pytest says `ERROR: ...`, and nothing is collected."""
    (tmp_path / "own.py").write_text(OWN)
    command = [sys.executable, "-m", "pytest", "tests/conformance", "-q", "--implementation", name.format(folder=tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
