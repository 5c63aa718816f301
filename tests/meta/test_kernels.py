"""The fused kernels: nothing is found in them, torch.library takes them, and a fault planted in them is caught.

Without a GPU, Triton's run in its interpreter and CUDA's as C++; where Triton or a C++ compiler is not installed these skip.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ln2d_ref import check, load
from ln2d_ref.implementations import REGISTERED
from ln2d_ref.layout import Layout
from strategies import judge
from tests.meta.kernels import a_case, device_of, loaded, module_of

NAMES = tuple(name for name in REGISTERED if name.startswith(("triton/", "cuda/")))
CASES = {"triton": 15, "cuda": 40}
"""An interpreted call takes 30 ms and more."""


@pytest.fixture(params=["triton", "cuda"])
def family(request: pytest.FixtureRequest) -> str:
    loaded(f"{request.param}/fused")
    return request.param


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found(name: str) -> None:
    """In a short search; tests/conformance makes a longer one."""
    implementation = loaded(name)
    report = judge(implementation, max_examples=CASES[name.partition("/")[0]], seed=0)
    assert report.violation is None, str(report)
    assert {quantity for quantity, _ in report.worst} >= {"y", "dx", "dweight", "dbias"}


PATHS = {
    "more channels than a tile holds": a_case((2, 2100, 1, 3)),
    "half, more channels than a tile holds": a_case((1, 2100, 2, 2), dtype=np.float16),
    "several tiles a block": a_case((2, 48, 30, 31), dtype=np.float16),
    "vectors": a_case((2, 24, 8, 8), dtype=np.float16),
    "vectors of double": a_case((1, 6, 4, 4), dtype=np.float64),
    "rows past 65535": a_case((65_539, 2, 1, 1)),
    "pixels past 65535": a_case((1, 3, 1, 65_537), dtype=np.float16),
    "channels_last": a_case((2, 5, 3, 4), layouts={"x": Layout(order=(0, 2, 3, 1)), "dy": Layout(order=(0, 2, 3, 1))}),
    "dy expanded": replace(a_case((2, 5, 3, 4)), dy=np.full((2, 5, 3, 4), 0.5, np.float32), layouts={"dy": Layout(expanded=(0, 1, 2, 3))}),
    "a sample of several chunks": a_case((2, 5, 41, 43), semantics="sample", dtype=np.float16),
    "one of several chunks, in vectors": a_case((1, 8, 32, 32), semantics="sample"),
    "one element each": a_case((3, 7, 29, 27), semantics="sample", parameter=(7, 29, 27)),
    "many channels, few pixels": a_case((2, 5000, 1, 1), semantics="sample"),
    "many samples": a_case((65_537, 3, 1, 1), semantics="sample"),
    "many samples, one element each": a_case((1030, 2, 1, 2), semantics="sample", parameter=(2, 1, 2)),
}
"""A case for each way through the kernels that a short search may miss."""


@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_right(family: str, path: str) -> None:
    """Looped and held tiles, split and whole samples, several stages of sums."""
    case = PATHS[path]
    form = "" if case.semantics == "channel" else "_sample" if case.weight.ndim == 1 else "_sample_chw"
    check(load(f"{family}/fused{form}"), replace(case, device=device_of(family)))


def operands(family: str, semantics: str, *, requires_grad: bool = True, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 2, 3), (3,), (3,), (2, 3, 2, 3))
    made = (torch.randn(*shape, generator=generator, dtype=dtype).to(device_of(family)) for shape in shapes)
    return [tensor.requires_grad_(requires_grad) for tensor in made]


@pytest.mark.parametrize("semantics", ["channel", "sample"])
def test_opcheck_passes(family: str, semantics: str) -> None:
    """Schema, fake implementation and autograd are what torch.compile takes them for."""
    forward, backward = (getattr(torch.ops.ln2d_ref, f"{family}_{stage}") for stage in ("forward", "backward"))
    x, weight, bias, dy = operands(family, semantics, dtype=torch.float32)
    _, mean, rstd = (result.detach() for result in forward(x, weight, bias, 1e-5, semantics))
    checks = [(forward, (x, weight, bias, 1e-5, semantics)), (forward, (x.detach().half(), None, None, 1e-5, semantics))]
    for needs in ((True, True, True), (False, True, False)):
        checks.append((backward, (dy, x, weight, bias, mean, rstd, 1e-5, semantics, *needs)))
    for operator, arguments in checks:
        assert set(torch.library.opcheck(operator, arguments).values()) == {"SUCCESS"}


def test_a_compiled_function_gives_the_same_bits(family: str) -> None:
    """One graph, forward and backward, through AOTAutograd; the kernels inside are the same."""
    fn = module_of(family).channel

    def model(x, weight, bias):
        return fn(torch.sin(x), weight, bias, 1e-6) * 2

    x, weight, bias, dy = operands(family, "channel", dtype=torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    results = [torch.autograd.grad(f(x, weight, bias), [x, weight, bias], dy) for f in (model, compiled)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("semantics", ["channel", "sample"])
def test_double_backward_is_right(family: str, semantics: str) -> None:
    """Against finite differences of the kernels' own gradients."""
    fn = getattr(module_of(family), semantics)
    x, weight, bias, _ = operands(family, semantics)
    assert torch.autograd.gradgradcheck(lambda *a: fn(*a, 1e-3), (x, weight, bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda a: fn(a, None, None, 1e-3), (x,), fast_mode=True)


def test_only_what_is_needed_comes_back(family: str) -> None:
    """A gradient that nobody asked for is not computed."""
    forward, backward = (getattr(torch.ops.ln2d_ref, f"{family}_{stage}") for stage in ("forward", "backward"))
    x, weight, bias, dy = operands(family, "channel", requires_grad=False)
    _, mean, rstd = forward(x, weight, bias, 1e-5, "channel")
    for wanted in range(3):
        needs = [k == wanted for k in range(3)]
        sizes = [result.numel() for result in backward(dy, x, weight, bias, mean, rstd, 1e-5, "channel", *needs)]
        assert [size > 0 for size in sizes] == needs


def test_channels_last_comes_back_as_it_came() -> None:
    """Triton's kernels read and write it as it lies."""
    loaded("triton/fused")
    x = torch.randn(2, 3, 4, 5, device=device_of("triton")).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = module_of("triton").channel(x, None, None, 1e-5)
    (dx,) = torch.autograd.grad(y.square().sum(), [x])
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (y, dx))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((2, 3, 4), None), ValueError, r"x has shape \(2, 3, 4\), but must have shape \(N, C, H, W\)"),
        (((2, 3, 4, 5), (4,)), ValueError, r"weight has shape \(4,\), but must have shape \(3,\)"),
        (((2, 3, 4, 5), (3, 4, 5)), ValueError, r"weight has shape \(3, 4, 5\), but must have shape \(3,\)"),
    ],
)
def test_wrong_arguments_are_named(family: str, arguments, error, message: str) -> None:
    """An exception, never a read out of bounds."""
    shape, parameter = arguments
    weight = None if parameter is None else torch.ones(parameter, device=device_of(family))
    with pytest.raises(error, match=message):
        module_of(family).channel(torch.ones(shape, device=device_of(family)), weight, None, 1e-5)
    with pytest.raises(TypeError, match=r"x is torch\.int64"):
        module_of(family).channel(torch.ones((1, 2, 3, 4), dtype=torch.int64, device=device_of(family)), None, None, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found_on_a_gpu(name: str) -> None:
    """The compiled kernels, on the device they are for."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    report = judge(load(name, device="cuda"), max_examples=100, seed=0)
    assert report.violation is None, str(report)


def test_triton_interpreter_still_cuts_bfloat16() -> None:
    """docs/findings.md: where this fails, the interpreter has been mended, and triton_launch.readable may go."""
    loaded("triton/fused")
    if device_of("triton") == "cuda":
        pytest.skip("kernels are compiled here")
    from ln2d_ref.implementations.kernels.triton_channel import sum_rows
    from ln2d_ref.implementations.kernels.triton_launch import launch

    x = torch.tensor([1.0 + 2**-7 * 0.75])
    y = torch.zeros(1, dtype=torch.bfloat16)
    launch(sum_rows, 1, x, x, y, 1, 1, 1, 1, 1, 1, BLOCK_R=1, BLOCK_K=1)
    assert y.item() == 1.0
    assert x.bfloat16().item() == 1.0 + 2**-7
