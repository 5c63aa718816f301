"""The suite as its users run it: what pytest prints, what is written, and one clear line for wrong use."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis.vendor.pretty import pretty

from ln2d_ref import Case, Implementation, Violation, load
from ln2d_ref.crashes import Running, crashes
from ln2d_ref.implementations import as_implementation
from ln2d_ref.laws import select
from ln2d_ref.ledger import LEDGER
from ln2d_ref.mutants import mutants
from ln2d_ref.reproduction import folder_of, written_case
from strategies import find_violation
from strategies.examiner import Examiner

ROOT = Path(__file__).parents[2]

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
    body = output.split("FAILURES")[1].split("= judged =")[0].splitlines()[1:]
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
    ("options", "message"),
    [
        ("--implementation torch/nothing", "must be one of torch/permute"),
        ("--implementation {folder}/own.py:number", "3 is not callable"),
        ("--implementation {folder}/missing.py:fn", "does not exist"),
        ("--implementation {folder}/own.py:fn", "has no attribute 'fn'"),
        (
            "--implementation {folder}/own.py:wrong --builds-on torch/group_norm",
            "builds_on is ('torch/group_norm',), but in channel semantics must be one or more of 'torch/permute'",
        ),
        ("--builds-on torch/permute", "--builds-on is torch/permute, but no --implementation is named"),
    ],
)
def test_wrong_use_gets_one_clear_line(tmp_path, options, message):
    """pytest says `ERROR: ...`, and nothing is collected."""
    (tmp_path / "own.py").write_text(OWN)
    command = [sys.executable, "-m", "pytest", "tests/conformance", "-q", *options.format(folder=tmp_path).split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


UNREPEATABLE = '''
import itertools
import torch.nn.functional as F
calls = itertools.count(1)
def fn(x, weight, bias, eps):
    """Wrong in every 13th call."""
    y = F.layer_norm(x.permute(0, 2, 3, 1).double(), (x.shape[1],), None, None, eps).permute(0, 3, 1, 2)
    y = y * (1 if weight is None else weight[:, None, None]) + (0 if bias is None else bias[:, None, None])
    return (y * 1.5 if next(calls) % 13 == 0 else y).to(x.dtype)
'''


def test_a_wrong_answer_that_does_not_come_back_is_of_history(tmp_path):
    """Hypothesis would call it flaky; a user would take that for a fault of the suite."""
    (tmp_path / "own.py").write_text(UNREPEATABLE)
    output = pytest_on(tmp_path, "--implementation", f"{tmp_path}/own.py:fn", "--law", "value")
    assert "law             history" in output
    assert "; not when run again" in output
    assert "Flaky" not in output


UNPRINTABLE = """
import torch
class Wrong:
    \"\"\"Not normalised, and written out at length, or not at all.\"\"\"
    def __init__(self, shown):
        self.shown = shown
    def __repr__(self):
        return self.shown * 100_000
    def __call__(self, x, weight, bias, eps):
        return x * 1
long, unshown = Wrong("a "), Wrong(None)
"""


@pytest.mark.parametrize("name", ["long", "unshown"])
def test_how_long_a_function_is_when_written_out_changes_nothing(tmp_path, name):
    """Hypothesis writes a failing test's arguments out; a warning of the length, or an exception, would make the failure seem flaky."""
    (tmp_path / "own.py").write_text(UNPRINTABLE)
    output = pytest_on(tmp_path, "--implementation", f"{tmp_path}/own.py:{name}", "--law", "value")
    assert "law             value" in output
    assert "not when run again" not in output
    assert len(output) < 10_000


def test_what_has_been_seen_is_not_written_out():
    """As above: an examiner has seen much after a while, and a case holds arrays."""
    examiner = Examiner(load("torch/group_norm"), select())
    examiner.observations.update(f"observation {number}" for number in range(10_000))
    case = ones(1, 1000, 30, 30)
    assert len(repr(examiner)) < 100
    assert len(pretty(examiner)) < 100
    assert len(pretty(case)) < 100
    assert len(pretty(examiner.implementation)) < 100


SLOW_TO_SHRINK = '''
import time
import torch.nn.functional as F
def fn(x, weight, bias, eps):
    """Wrong where there are 24 values or more, and slow there, so that shrinking takes minutes."""
    y = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), weight, bias, eps).permute(0, 3, 1, 2)
    if x.numel() < 24:
        return y
    time.sleep(1)
    return y * 1.5
'''


def test_ctrl_c_loses_nothing_found(tmp_path):
    """The files are there at the first failure, and what was found is printed."""
    (tmp_path / "own.py").write_text(SLOW_TO_SHRINK)
    case = ROOT / ".ln2d" / folder_name(f"{tmp_path}/own.py:fn", "value", "y") / "case.json"
    command = [sys.executable, "-m", "pytest", "tests/conformance", "--implementation", f"{tmp_path}/own.py:fn", "--law", "value"]
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it, and what it starts does too
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=heeding)
    deadline = time.monotonic() + 100
    while not case.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=60)
    assert Case.load(case).x.size > 0
    assert "found before the interruption" in output
    assert "times the bound)" in output


def folder_name(implementation: str, law: str, quantity: str) -> str:
    violation = Violation(law, quantity, "", case=ones(1, 2, 1, 1), implementation=implementation)
    return folder_of(Path(), violation).name


WRONG_RESULTS = """
import torch
def a_tuple(x, weight, bias, eps):
    return x, x
def an_array(x, weight, bias, eps):
    return x.detach().float().numpy()
def nothing(x, weight, bias, eps):
    return None
def half(x, weight, bias, eps):
    return x.half() if x.dtype == torch.float32 else x.float()
"""


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("a_tuple", "y is of type tuple, but should be one tensor"),
        ("an_array", "y is of type ndarray, but should be one tensor"),
        ("nothing", "y is of type NoneType, but should be one tensor"),
        ("half", "y is float"),
    ],
)
def test_a_wrong_kind_of_result_is_named(tmp_path, attribute, message):
    """The commonest slip of a first-time user."""
    (tmp_path / "own.py").write_text(WRONG_RESULTS)
    violation = find_violation(load(f"{tmp_path}/own.py:{attribute}"), max_examples=20, seed=0)
    assert violation is not None
    assert violation.law == "result"
    assert violation.headline.startswith(message)


def test_find_violation_writes_no_file(tmp_path):
    """It is a function that answers; pytest is what writes."""
    (tmp_path / "own.py").write_text(OWN)
    program = "import own; from strategies import find_violation; print(find_violation(own.wrong, max_examples=20, seed=0).law)"
    command = [sys.executable, "-B", "-c", program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout in ("value\n", "gradients\n"), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["own.py"]


MODULE = '''
import torch
class Norm(torch.nn.Module):
    """In the input's dtype, as ConvNeXt computes it."""
    def __init__(self, channels, eps=1e-6):
        super().__init__()
        self.weight, self.bias, self.eps = torch.nn.Parameter(torch.ones(channels)), torch.nn.Parameter(torch.zeros(channels)), eps
    def forward(self, x):
        d = x - x.mean(1, keepdim=True)
        return self.weight[:, None, None] * (d / torch.sqrt(d.pow(2).mean(1, keepdim=True) + self.eps)) + self.bias[:, None, None]
'''


def test_a_module_may_be_declared(tmp_path):
    """In half precision a composed module computes in half: the hint says how to declare it, and declared so it passes."""
    (tmp_path / "own.py").write_text(
        MODULE + "\nfrom ln2d_ref import Implementation\ndeclared = Implementation(Norm, arithmetic='input')\n"
    )
    bare = find_violation(load(f"{tmp_path}/own.py:Norm"), max_examples=100, seed=0, laws="value")
    assert bare is not None
    assert 'hint            right for Implementation(..., arithmetic="input")' in str(bare)
    declared = load(f"{tmp_path}/own.py:declared")
    assert declared.affine == ("both",)
    assert find_violation(declared, max_examples=100, seed=0, laws="value") is None


def test_half_arithmetic_is_no_excuse_for_what_is_wrong_in_float32_too():
    """A fixed eps passed for it where the bound of half arithmetic hid it."""
    fixed = next(mutant.implementation for mutant in mutants("channel") if mutant.name == "eps/fixed")
    case = Case(x=np.array([0.0, 2.0**-9], np.float16).reshape(1, 2, 1, 1), dy=np.ones((1, 2, 1, 1), np.float16), eps=1e-8)
    report = Examiner(fixed, select(("value",)))
    with pytest.raises(Violation) as caught:
        report.examine(case)
    assert "arithmetic" not in (caught.value.hint or "")


def test_a_hint_runs_no_implementation_on_a_case_that_would_end_the_process():
    """F.group_norm on a frozen channels_last x: whoever was wrong there in another way crashed."""
    entry = next(entry for entry in LEDGER if entry.crashes and entry.implementation == "torch/group_norm")
    case = entry.pinned_case()
    wrong = Implementation(lambda x, weight, bias, eps: F.layer_norm(x, x.shape[1:]) * (1 + weight[:, None, None]), semantics="sample")
    alike = replace(entry, crashes=False, laws=("value",), quantities=("y",), ceiling=float("inf"))
    examiner = Examiner(wrong, select(("value", "gradients")), ledger=(alike,))
    with pytest.raises(Violation, match="times the bound"):
        examiner.examine(case)


def test_a_module_class_that_is_built_for_whole_samples_says_so(tmp_path):
    """Built for C it normalises something else, and each law said so in its own words."""
    (tmp_path / "own.py").write_text("import torch\nclass Norm(torch.nn.LayerNorm):\n    pass\n")
    violation = find_violation(load(f"{tmp_path}/own.py:Norm", semantics="sample"), max_examples=50, seed=0)
    assert violation is not None
    assert violation.hint.startswith("built as Norm(C, eps=eps); right as Norm((C, H, W), eps=eps): declare affine_shape='element' in an")


def test_a_violation_tells_of_the_known_fault_that_it_resembles(tmp_path):
    """Who calls F.layer_norm has its faults; the message says so, or they are taken for one's own."""
    (tmp_path / "own.py").write_text(OWN.replace(" * 1.001", ""))
    violation = find_violation(load(f"{tmp_path}/own.py:wrong"), max_examples=100, seed=0, laws="gradients")
    assert violation is not None
    assert "resembles 'torch/permute: half gradients' (docs/findings.md); where it calls the same kernel, builds_on='torch/permute'" in str(
        violation
    )


def test_a_violation_tells_of_the_semantics_in_which_it_is_right(tmp_path):
    """Who forgets to declare it reads that everything is wrong."""
    sampled = Implementation(lambda x, weight, bias, eps: F.group_norm(x, 1, weight, bias, eps), dtypes="float32")
    violation = find_violation(sampled, max_examples=20, seed=0, laws="value")
    assert violation is not None
    assert violation.hint == "right in sample semantics (semantics='sample', or --semantics sample)"
    (tmp_path / "own.py").write_text(OWN)
    violation = find_violation(load(f"{tmp_path}/own.py:wrong"), max_examples=20, seed=0, laws="value")
    assert violation is not None
    assert "semantics" not in (violation.hint or "")


def test_what_an_implementation_builds_on_may_be_declared(tmp_path):
    """Then it is judged for itself, and what it has of F.layer_norm is counted."""
    (tmp_path / "own.py").write_text(OWN.replace(" * 1.001", ""))
    named = ("--implementation", f"{tmp_path}/own.py:wrong", "--law", "gradients")
    assert "1 failed" in pytest_on(tmp_path, *named)
    output = pytest_on(tmp_path, *named, "--builds-on", "torch/permute")
    assert "1 passed" in output
    assert "torch/permute: half gradients: met " in output


def test_a_pass_says_what_it_covered(tmp_path):
    """\"8 passed\" alone leaves open which dtypes and shapes were tried."""
    output = pytest_on(tmp_path, "--implementation", "torch/composed_float32", "--law", "value")
    assert "torch/composed_float32: 100 cases, worst error at " in output
    assert "; channel, affine both/weight/bias/none of (C,), float16/bfloat16/float32/float64, computed in at least float32, cpu" in output


CRASHING = """
import os
def crashing(x, weight, bias, eps):
    return os.abort() if x.shape[1] == 3 else x + 0 * x * (0 if weight is None else weight.sum()) + (0 if bias is None else 0 * bias.sum())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks")
@pytest.mark.parametrize("processes", [0, 1])
def test_a_case_that_ends_the_process_is_told(tmp_path, processes):
    """By the run itself where that goes on, else by the next one, whether that ends as well or not; and once."""
    if processes:
        pytest.importorskip("xdist")
    (tmp_path / "own.py").write_text(CRASHING)
    arguments = ("--implementation", f"{tmp_path}/own.py:crashing", "--law", "result", "--hypothesis-seed", "1")
    output = pytest_on(tmp_path, *arguments, *(("-n", "1") if processes else ()))
    if not processes:
        assert "was being judged" not in output
        output = pytest_on(tmp_path, *arguments)
    assert "= was being judged when a process ended =" in output
    told = re.search(r"own\.py:crashing\(.*\[\d+,3,.*\n  law        result\n  reproduce  python -c .* Case\.load\('(.*json)'\)", output)
    assert Case.load(ROOT / told[1]).x.shape[1] == 3
    (tmp_path / "own.py").write_text(CRASHING.replace("os.abort()", "x"))
    output = pytest_on(tmp_path, *arguments, "--law", "side_effects")
    assert ("was being judged" in output) == (not processes)
    assert "was being judged" not in pytest_on(tmp_path, *arguments)


def test_a_case_that_is_being_run_has_ended_nothing(tmp_path):
    """Another run that goes on beside this one is left alone, and a file that is cut off is no reason to fail."""
    implementation, case = load("torch/permute"), Case(np.ones((1, 2, 1, 1), np.float32))
    running = Running(tmp_path, implementation, "value")
    running.note(case)
    assert crashes(tmp_path, {implementation.name}) == []
    running.close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "running-cut").write_text('{"name": "torch/permute", "ca')
    assert crashes(tmp_path, {implementation.name}) == []
    assert list(tmp_path.iterdir()) == []


ABORTING = """
import os, pathlib, sys
import numpy as np
from ln2d_ref import Case, load
from ln2d_ref.crashes import Running
case = Case(np.ones((1, int(sys.argv[2]), 1, 1), np.float32))
Running(pathlib.Path(sys.argv[1]), load("torch/permute"), "value").note(case)
os.abort()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks")
def test_each_case_that_ended_a_process_is_kept(tmp_path):
    """One after the other; where nothing can be written, nothing is kept and nothing fails."""
    implementation = load("torch/permute")
    for channels in "23":
        command = [sys.executable, "-c", ABORTING, str(tmp_path), channels]
        subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.DEVNULL)
    assert crashes(tmp_path, {"another"}) == []
    told = crashes(tmp_path, {implementation.name})
    assert len(told) == 2
    kept = [Case.load(path / "case.json").x.shape[1] for path in tmp_path.iterdir()]
    assert sorted(kept) == [2, 3]
    assert crashes(tmp_path, {implementation.name}) == []
    (tmp_path / "file").write_text("")
    Running(tmp_path / "file", implementation, "value").note(Case(np.ones((1, 2, 1, 1), np.float32)))


def test_with_several_processes_the_summary_is_whole(tmp_path):
    """pytest-xdist runs the tests elsewhere; what they covered and what they met is told all the same."""
    pytest.importorskip("xdist")
    output = pytest_on(tmp_path, "--implementation", "torch/permute", "--law", "value", "--law", "gradients", "-n", "2")
    assert "2 passed" in output
    assert "torch/permute: 200 cases, worst error at " in output
    assert "torch/permute: half gradients: met " in output


SHOWN = """
import os, pathlib
def pytest_collection_finish(session):
    (conftest,) = [each for each in session.config.pluginmanager.get_plugins() if hasattr(each, "ROTATION")]
    pathlib.Path(__file__).with_name(f"{os.getpid()}.rotation").write_text(str(session.config.stash[conftest.ROTATION]))
"""


@pytest.mark.parametrize(
    ("arguments", "processes", "drawn"),
    [(("--hypothesis-profile=ci",), 1, "0"), (("--hypothesis-seed=17",), 1, "17"), (("-n", "2"), 2, None)],
    ids=["ci", "seed", "workers"],
)
def test_which_signatures_a_run_draws(tmp_path, arguments, processes, drawn):
    """The ci profile draws the same each time, a seed its own, and all processes of a run the same."""
    if processes > 1:
        pytest.importorskip("xdist")
    (tmp_path / "shown.py").write_text(SHOWN)
    command = [sys.executable, "-m", "pytest", "tests/conformance", "-q", "-p", "shown", "-p", "no:cacheprovider", *arguments]
    command += ["--implementation", "torch/permute", "-k", "side_effects"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    rotations = [path.read_text() for path in tmp_path.glob("*.rotation")]
    assert len(rotations) == processes
    assert set(rotations) == {drawn or rotations[0]}


# What lies on disk ------------------------------------------------------------------------------------------------------------------


def ones(*shape: int) -> Case:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Case(x=x, weight=None, bias=None, dy=np.ones_like(x), requires_grad=())


def unnormalised(x, weight, bias, eps):
    return x * 1


def test_only_a_smaller_case_replaces_the_one_on_disk(tmp_path):
    """The smallest case that a machine has ever found stays."""
    examiner = Examiner(as_implementation(unnormalised), select(("value",)), tmp_path)
    for shape, kept in [((1, 4, 1, 1), 4), ((1, 3, 1, 1), 3), ((1, 5, 1, 1), 3)]:
        with pytest.raises(Violation) as raised:
            examiner.examine(ones(*shape))
        assert written_case(tmp_path, raised.value).x.size == kept
    later = Examiner(examiner.implementation, examiner.laws, tmp_path)
    with pytest.raises(Violation):
        later.examine(ones(1, 6, 1, 1))
    assert later.verdict().case.x.size == written_case(tmp_path, raised.value).x.size == 3, "what is printed is what lies there"
    assert sorted(path.name for path in folder_of(tmp_path, raised.value).iterdir()) == ["case.json", "message.txt", "repro.py"]
    for each in (examiner, later):
        each.close()
    assert [path.name for path in tmp_path.iterdir()] == [folder_of(tmp_path, raised.value).name]


@pytest.mark.parametrize("stale", ["fixed", "unreadable"])
def test_a_case_that_no_longer_fails_is_replaced(tmp_path, stale):
    """A mended fault's small case must not stand for another fault's larger one."""
    first = Examiner(as_implementation(unnormalised), select(("value",)), tmp_path)
    with pytest.raises(Violation) as raised:
        first.examine(ones(1, 2, 1, 1))
    if stale == "unreadable":
        (folder_of(tmp_path, raised.value) / "case.json").write_text("{")

    def mended(x, weight, bias, eps):
        return F.layer_norm(x, x.shape[1:], None, None, eps) if x.shape[1] == 2 else x * 1

    later = Examiner(as_implementation(replace(as_implementation(unnormalised), fn=mended)), select(("value",)), tmp_path)
    with pytest.raises(Violation):
        later.examine(ones(1, 6, 1, 1))
    assert written_case(tmp_path, raised.value).x.size == 6
