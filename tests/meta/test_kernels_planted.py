"""Faults planted in the text of the fused kernels are caught; the CUDA source compiles, and its threads do not race."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ln2d_ref import Case, Implementation, Violation, check
from strategies import find_violation
from tests.meta.kernels import a_case, device_of, loaded, module_of

KERNELS = Path(__file__).parents[2] / "ln2d_ref/implementations/kernels"


def planted(source: str, right: str, wrong: str) -> str:
    """The source with one thing replaced; a fault that no longer applies is an error."""
    assert right in source
    return source.replace(right, wrong, 1)


TRITON = {
    "variance of the padding": ("channel", "d = tl.where(mask, values - centre[None, :], 0)", "d = values - centre[None, :]"),
    "dweight of the last tile alone": ("channel", "sum_dweight += ", "sum_dweight = "),
    "projection forgotten": ("channel", " - normalised * mean_gx[None, :]", ""),
    "variance between chunks forgotten": ("sample", "count * d * d + ", ""),
    "mean of a weighted gradient unweighted": ("sample", "own * factor", "own"),
}
_SAMPLES = a_case((2, 4, 40, 41), semantics="sample", seed=3)
SHOWN_BY = {
    "channel": a_case((2, 5, 90, 100)),
    "sample": replace(_SAMPLES, x=_SAMPLES.x + np.arange(4, dtype=np.float32)[:, None, None]),
}
"""Several tiles; samples of several chunks, with means of their own."""


@pytest.mark.parametrize("fault", TRITON)
def test_a_fault_planted_in_triton_is_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in one case that goes through the kernel that holds it; the right kernels pass the same case."""
    form, right, wrong = TRITON[fault]
    implementation = loaded("triton/fused" if form == "channel" else "triton/fused_sample")
    if device_of("triton") == "cuda":
        pytest.skip("planted in the interpreter's kernels only")
    check(implementation, SHOWN_BY[form])
    path = tmp_path / f"triton_{form}.py"
    path.write_text(planted((KERNELS / path.name).read_text(encoding="utf-8"), right, wrong), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"planted_{form}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module_of("triton"), f"triton_{form}", module)
    with pytest.raises(Violation):
        check(implementation, SHOWN_BY[form])


CUDA = {
    "variance about 0": (
        "channel.h",
        "const Acc d = widen<Acc>(values.at[k]) - mean[place + k];",
        "const Acc d = widen<Acc>(values.at[k]);",
    ),
    "last channel left out": ("channel.h", "c < a.channels; c += rows", "c + 1 < a.channels; c += rows"),
    "projection forgotten": ("channel.h", " - normalised * mean_gx[place + k]", ""),
    "dweight of the last tile alone": ("channel.h", "dweight[c] += sum_x", "dweight[c] = sum_x"),
    "variance between chunks forgotten": ("sample.h", "count(a, s) * d * d + ", ""),
    "dbias of the first sample alone": ("sample.h", "r < end; r += THREADS / ACROSS", "r < begin + 1; r += THREADS / ACROSS"),
}


def kernels(folder: Path, file: str = "", right: str = "", wrong: str = ""):
    """The kernels compiled from a copy of the sources in which one thing is replaced."""
    loaded("cuda/fused")
    if module_of("cuda").host_compiler() is None:
        pytest.skip("no C++ compiler")
    sources = shutil.copytree(KERNELS / "cuda_source", folder / "source")
    if file:
        path = sources / file
        path.write_text(planted(path.read_text(encoding="utf-8"), right, wrong), encoding="utf-8")
    return module_of("cuda").Kernels(sources)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, without optimisation, for what is compiled once."""
    monkeypatch.setenv("LN2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LN2D_CXXFLAGS", "-O0")
    return tmp_path / "cache"


@pytest.mark.parametrize("fault", CUDA)
def test_a_fault_planted_in_cuda_is_caught(fault: str, tmp_path: Path, cache: Path) -> None:
    """By a search that knows nothing of it, or in sample semantics, where it needs a large sample, by one case."""
    made = kernels(tmp_path, *CUDA[fault])
    channel, sample = made.registered(f"planted_{list(CUDA).index(fault)}")
    if CUDA[fault][0] == "channel.h":
        assert find_violation(Implementation(channel), max_examples=300, seed=0, laws=("value", "gradients")) is not None
    else:
        with pytest.raises(Violation):
            check(Implementation(sample, semantics="sample"), SHOWN_BY["sample"])


ORDERED = {
    "channel": ((3, 70, 9, 9), np.float16),
    "channel, many": ((1, 700, 4, 4), np.float32),
    "sample": ((3, 6, 30, 33), np.float32),
}


def bits_in_both_orders(made, case: Case) -> list[bytes]:
    """Results of forward and backward, with each phase's threads in ascending and in descending order."""
    x, weight, bias, dy = (torch.from_numpy(array.copy()) for array in (case.x, case.weight, case.bias, case.dy))
    found = []
    for downwards in (0, 1):
        made.library(x.device).ln2d_set_downwards(downwards)
        y, mean, rstd = made.forward(x, weight, bias, case.eps, case.semantics)
        gradients = made.backward(dy, x, weight, bias, mean, rstd, case.semantics, (True, True, True))
        found.append(b"".join(tensor.numpy().tobytes() for tensor in (y, mean, rstd, *gradients)))
    made.library(x.device).ln2d_set_downwards(0)
    return found


@pytest.mark.parametrize("name", ORDERED)
def test_threads_do_not_race(name: str) -> None:
    """Between two barriers no thread reads what another writes: then the order in which they run changes no bit."""
    loaded("cuda/fused")
    if module_of("cuda").host_compiler() is None:
        pytest.skip("no C++ compiler")
    shape, dtype = ORDERED[name]
    upwards, downwards = bits_in_both_orders(module_of("cuda").Kernels(), a_case(shape, semantics=name.split(",")[0], dtype=dtype))
    assert upwards == downwards


def test_a_race_is_seen(tmp_path: Path, cache: Path) -> None:
    """Twin of the one above: a tree of sums without barriers between its levels."""
    tree = "    for (int half = rows / 2; half > 0; half /= 2) {\n        PHASE(t) {"
    flat = "    PHASE(t) {\n        for (int half = rows / 2; half > 0; half /= 2) {"
    upwards, downwards = bits_in_both_orders(kernels(tmp_path, "block.h", tree, flat), a_case((3, 70, 9, 9)))
    assert upwards != downwards


def test_nvcc_compiles_the_source() -> None:
    """It needs no GPU, and no header of torch."""
    from ln2d_ref.implementations.kernels.cuda_build import build, nvcc

    if nvcc() is None:
        pytest.skip("nvcc is not installed")
    assert build("sm_90").stat().st_size > 100_000


def test_what_does_not_compile_is_told_in_the_compilers_words(tmp_path: Path, cache: Path) -> None:
    """And leaves nothing in the cache."""
    made = kernels(tmp_path, "block.h", "constexpr int THREADS = 256;", "constexpr int THREADS = many;")
    with pytest.raises(RuntimeError, match="many"):
        made.library(torch.device("cpu"))
    assert list(cache.iterdir()) == []


COMPILED = """
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ln2d_ref.implementations.kernels import triton_channel, triton_sample

HALF, STEPS = ("x", "y", "dy", "dx", "weight", "bias"), ("x_p", "y_p", "dy_p", "dx_p", "STEP")
SIZES = dict(BLOCK_C=64, BLOCK_P=64, BLOCK_R=4, BLOCK_K=64, BLOCK=1024)
WAYS = {
    "plain": (dict(SIZES, INDEX=tl.int32, ACC=tl.float32), "fp16", "fp32", "i32"),
    "ones": (dict(SIZES, INDEX=tl.int32, ACC=tl.float32), "bf16", "fp32", "constexpr"),
    "wide": (dict(SIZES, INDEX=tl.int64, ACC=tl.float64, FITS=False), "fp64", "fp64", "i64"),
}
for way, (sizes, dtype, arithmetic, integer) in WAYS.items():
    for name in (*triton_channel.__all__, *triton_sample.__all__):
        kernel = getattr(triton_channel, name, None) or getattr(triton_sample, name)
        signature, constants, aligned = {}, {}, {}
        for place, argument in enumerate(kernel.arg_names):
            kind = integer
            if kernel.params[place].is_constexpr:
                kind, constants[place,] = "constexpr", sizes.get(argument, True)
            elif argument in ("eps", "inverse"):
                kind = "fp64"
            elif argument in HALF or argument.startswith(("mean", "rstd", "part", "sums", "terms", "result")):
                kind, aligned[place,] = "*" + (dtype if argument in HALF else arithmetic), [["tt.divisibility", 16]]
            elif argument in STEPS or integer == "constexpr":
                kind, constants[place,] = "constexpr", 1
            else:
                aligned[place,] = [["tt.divisibility", 16]]
            signature[argument] = kind
        source = ASTSource(kernel, signature, constants, aligned)
        code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm["ptx"]
        print(way, name, code.count("ld.global.v4"), code.count("st.global.v4"))
"""


def test_triton_compiles_the_kernels_for_a_gpu() -> None:
    """Which its interpreter does not show: as for usual sizes, with sizes of 1, which Triton makes constants, and with 64-bit ones.

    Half tensors are read and written 16 bytes at a time where sizes are multiples of 16.
    """
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = {"TRITON_INTERPRET": "0", "PYTHONPATH": str(KERNELS.parents[2])}
    command = [sys.executable, "-W", "ignore", "-c", COMPILED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr[-3000:]
    counts = {(way, name): (int(loads), int(stores)) for way, name, loads, stores in map(str.split, done.stdout.splitlines())}
    assert len(counts) == 27
    for name in ("channel_forward", "channel_backward", "sample_normalise", "sample_input_gradient"):
        assert min(counts["plain", name]) > 0, name
