"""Compiled implementations: the judge finds planted faults through torch.compile, says where they lie, and lets an honest one pass."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ln2d_ref import Case, Implementation, Violation, check, load
from ln2d_ref.implementations import as_implementation, eager, executor_for, unavailable
from ln2d_ref.implementations.torch import TorchExecutor
from ln2d_ref.laws import LAWS, select
from ln2d_ref.layout import Layout
from ln2d_ref.signature import STATIC_SHAPES, Signature
from strategies import cases, find_violation, judge
from strategies.examiner import Examiner
from strategies.signatures import ROUNDS, rounds_for, signatures

ROOT = Path(__file__).parents[2]
NAMES = ("compile/permute", "compile/composed", "compile/layer_norm_chw", "compile/group_norm")
COMPILER = unavailable(load("compile/permute"))
compiling = pytest.mark.skipif(COMPILER is not None, reason=str(COMPILER))
KINDS = ("contiguous", "channels_last", "permuted", "strided")


def wrong(x, weight, bias, eps):
    """A relative error of 1e-3."""
    return eager.composed_float32(x, weight, bias, eps) * 1.001


def breaking(x, weight, bias, eps):
    """A graph break: the value of a tensor decides what is run."""
    return eager.composed_float32(x, weight, bias, eps) if x.sum() < 1e30 else x


def recompiling(x, weight, bias, eps):
    """Another graph for every width, since Python asks for it."""
    return eager.composed_float32(x, weight, bias, eps) * (1.0 if x.shape[3] == 11 else 1)


def compiled(fn, **declared) -> Implementation:
    return Implementation(fn, framework="compile", dtypes=("float32",), affine=("both",), **declared)


def a_case(shape=(2, 3, 4, 5), dtype=np.float32, **arguments) -> Case:
    rng = np.random.Generator(np.random.PCG64(7))
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    return Case(**{"x": x, "weight": weight, "bias": bias, "dy": dy, **arguments})


@compiling
def test_an_honest_function_passes_in_shapes_of_one_signature():
    """One graph serves them all, sizes that are equal among them."""
    implementation = compiled(eager.composed_float32)
    signature = Signature.of(a_case())
    examiner = Examiner(implementation, select())

    @settings(max_examples=30, database=None, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
    @given(cases(within=signature))
    def search(case):
        examiner.examine(case)

    search()
    check(implementation, a_case((3, 3, 3, 3)))
    assert examiner.cases >= 30
    assert 0 < max(examiner.worst.values()) <= 1


@compiling
def test_a_wrong_function_is_wrong_under_aot_eager_too():
    """The message tells a wrong function from wrong generated code, and the search stays within one signature."""
    violation = find_violation(compiled(wrong), max_examples=20, seed=0, laws=["value"])
    assert violation.law == "value"
    assert "compiled        aot_eager is wrong too" in str(violation)
    assert violation.case.x.size <= 64


@compiling
def test_wrong_generated_code_is_told_from_a_wrong_function():
    """A pass planted in inductor alone makes each reciprocal root wrong: aot_eager, which has no such pass, is right."""

    def plant(graph):
        for node in list(graph.nodes):
            if node.target in (torch.ops.aten.sqrt.default, torch.ops.aten.rsqrt.default):
                with graph.inserting_after(node):
                    off = graph.call_function(torch.ops.aten.mul.Tensor, (node, 1.001))
                node.replace_all_uses_with(off, delete_user_cb=lambda user, off=off: user is not off)

    planted = compiled(lambda x, weight, bias, eps: eager.composed_float32(x, weight, bias, eps))
    with torch._inductor.config.patch(post_grad_custom_pre_pass=plant, fx_graph_cache=False), pytest.raises(Violation) as caught:
        check(planted, a_case())
    assert caught.value.law == "value"
    assert caught.value.compiled == "aot_eager is right: the code that inductor generates"


@compiling
def test_a_graph_break_is_a_violation_that_says_why():
    """fullgraph=True: half a graph is no compiled function."""
    with pytest.raises(Violation) as caught:
        check(compiled(breaking), a_case())
    assert caught.value.law == "result"
    assert caught.value.headline.startswith("the call raised Unsupported: graph break: Data-dependent branching")


@compiling
def test_a_recompilation_within_a_signature_names_the_guard():
    """A function that is compiled for every width fails in the first that is new."""
    with pytest.raises(Violation) as caught:
        check(compiled(recompiling), a_case())
    assert caught.value.law == "result"
    assert "RecompileError: compiled again within one signature; the guard that failed: " in caught.value.headline
    assert "tensor 'x' size mismatch at index 3. expected 11, actual 5" in caught.value.headline


@compiling
def test_a_refusal_that_tracing_meets_is_a_refusal():
    """Compiled GroupNorm refuses a single value as eager GroupNorm does, and that is allowed."""
    case = a_case((1, 1, 1, 1), semantics="sample")
    executor = executor_for(load("compile/group_norm"))
    assert executor.run(executor.place(case)).raised.type == "ValueError"
    check("compile/group_norm", case)


SAME = {
    "values": a_case(x=np.ones((2, 3, 4, 5), np.float32)),
    "sizes": a_case((4, 8, 8, 8)),
    "offset": a_case(layouts={"x": Layout(offset=3)}),
    "layout of dy": a_case(layouts={"dy": Layout((0, 2, 3, 1))}),
}
OTHER = {
    "dtype": a_case(dtype=np.float64),
    "affine": a_case(bias=None),
    "affine shape": a_case(weight=np.ones((3, 4, 5), np.float32), bias=np.ones((3, 4, 5), np.float32), semantics="sample"),
    "layout": a_case(layouts={"x": Layout((0, 2, 3, 1))}),
    "layout of weight": a_case(layouts={"weight": Layout(steps=(2,))}),
    "a size of 1": a_case((2, 3, 4, 1)),
    "a size of 0": a_case((0, 3, 4, 5)),
    "a long sum": a_case((2, 4097, 2, 2)),
    "a static shape": a_case(STATIC_SHAPES[0]),
    "eps": a_case(eps=1e-3),
    "requires_grad": a_case(requires_grad=("x",)),
    "threads": a_case(threads=2),
}


@pytest.mark.parametrize("what", SAME)
def test_what_no_graph_may_depend_on_is_not_in_the_signature(what):
    """Else a recompilation for it would go unseen."""
    assert Signature.of(SAME[what]) == Signature.of(a_case())


@pytest.mark.parametrize("what", OTHER)
def test_what_a_graph_depends_on_is_in_the_signature(what):
    """Else torch's own specialisation would be a false alarm."""
    assert Signature.of(OTHER[what]) != Signature.of(a_case())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_one_round_covers_each_dtype_affine_combination_and_layout(name, seed):
    """And static and dynamic shapes, one-element groups, empty tensors, long sums."""
    chosen = signatures(load(name), seed=seed)
    assert len(chosen) == 8
    assert {each.dtype for each in chosen} == {"float16", "bfloat16", "float32", "float64"}
    assert {each.affine for each in chosen} == {"both", "weight", "bias", "none"}
    assert {each.layout for each in chosen} == set(KINDS)
    assert sum(not each.dynamic for each in chosen) == 2
    assert any(0 in each.sides for each in chosen)
    assert any(each.degenerate and 0 not in each.sides for each in chosen)
    assert sum(bool(each.long) for each in chosen) == 2


def test_another_seed_gives_other_signatures_and_the_same_seed_the_same():
    """A default run rotates; a seed repeats it."""
    implementation = load("compile/permute")
    assert signatures(implementation, seed=1) != signatures(implementation, seed=2)
    signatures.cache_clear()
    assert signatures(implementation, seed=1) == signatures(replace(implementation), seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_long_profile_covers_every_combination(name):
    """64 rounds of four hold each dtype with each affine combination, layout class and kind of sizes."""
    rounds = rounds_for(20_000)
    assert rounds == ROUNDS
    plain = [each for each in signatures(load(name), seed=3, rounds=rounds) if each.dynamic and not each.degenerate]
    found = {(each.dtype, each.affine, each.layout) for each in plain}
    assert found == set(product(load(name).dtypes, load(name).affine, KINDS))
    assert len(plain) == 4 * ROUNDS


@pytest.mark.parametrize("law", LAWS)
def test_each_law_has_signatures_about_which_it_speaks(law):
    """A law that is judged on none is judged in name only."""
    for name in NAMES:
        chosen = signatures(load(name), law, seed=5)
        assert set(chosen) <= set(signatures(load(name), seed=5))
        if law == "layout":
            assert all(each.layouts for each in chosen)
        if law in ("value", "degenerate"):
            assert {each.degenerate for each in chosen} == {law == "degenerate"}


def test_signatures_stay_within_a_contract():
    """An implementation of one dtype, combination and eps is judged in these."""
    chosen = signatures(compiled(wrong, eps=1e-3), seed=0, rounds=3)
    assert {(each.dtype, each.affine, each.eps) for each in chosen} == {("float32", "both", 1e-3)}
    assert {each.layout for each in chosen} == set(KINDS)


class Module(torch.nn.LayerNorm):
    def forward(self, x):
        return F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class Breaking(Module):
    def forward(self, x):
        torch._dynamo.graph_break()
        return super().forward(x)


class Forgetful(Module):
    def forward(self, x):
        return super().forward(x) if x.shape[3] != 2 else x * self.weight[:, None, None] + self.bias[:, None, None]


def module(cls):
    return as_implementation(Implementation(cls, framework="compile", dtypes=("float32",)))


def test_what_is_compiled_of_a_module_is_right_and_a_graph_of_its_own():
    """A module is built for its C, which is a constant to the compiler; building it is no part of the graph."""
    report = judge(module(Module), max_examples=12, seed=0, laws=("result", "value", "gradients"))
    assert report.violation is None
    assert report.worst
    violation = find_violation(module(Breaking), max_examples=4, seed=0, laws="result")
    assert violation is not None
    assert violation.headline.startswith("the call raised Unsupported: graph break: Call to `torch._dynamo.graph_break()`")
    violation = find_violation(module(Forgetful), max_examples=200, seed=0, laws=("result", "value"))
    assert violation is not None
    assert violation.law == "result"
    assert "compiled again within one signature" in violation.headline


@pytest.mark.parametrize("judged", [load("compile/permute"), load("compile/layer_norm_chw"), module(Module)], ids=lambda each: each.name)
def test_cases_within_a_signature_have_it(judged):
    """A case of another would compile another graph; and the exemplar, which is compiled first, has it too."""
    drawn = st.sampled_from(signatures(judged, seed=4, rounds=ROUNDS)).flatmap(
        lambda signature: st.tuples(st.just(signature), cases(within=signature))
    )

    @settings(max_examples=200, database=None, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
    @given(drawn)
    def search(drawn):
        signature, case = drawn
        assert judged.signature(case) == judged.signature(signature.exemplar()) == signature

    search()


def test_placed_tensors_are_no_views():
    """A compiler guards on the size of a view's base, which no case says anything about."""
    executor = TorchExecutor(load("torch/permute"))
    placed = executor.place(a_case(layouts={"x": Layout((0, 2, 3, 1), offset=3), "weight": Layout(steps=(2,))}))
    assert all(placed.tensor(name)._base is None for name in ("x", "weight", "bias", "dy"))


def test_without_a_compiler_it_skips_with_the_reason():
    """And judge, which cannot skip, says so."""
    environment = {**os.environ, "CXX": "no-such-compiler"}
    command = [sys.executable, "-m", "pytest", "tests/conformance", "-q", "-rs", "-p", "no:cacheprovider"]
    command += ["--implementation", "compile/permute", "--law", "value"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0
    assert "1 skipped" in done.stdout
    assert "torch.compile finds no C++ compiler" in done.stdout


def test_without_a_compiler_judge_says_so(monkeypatch):
    """One line, and not a violation of the implementation."""
    from torch._inductor import cpp_builder, exc

    def none():
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(RuntimeError, match=r"compile/permute cannot run here: torch.compile finds no C\+\+ compiler"):
        judge("compile/permute", max_examples=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said without a GPU")
def test_without_a_gpu_cuda_is_unavailable():
    """The reason is what pytest prints of the skipped test."""
    assert "no CUDA device" in unavailable(load("compile/permute", device="cuda"))
