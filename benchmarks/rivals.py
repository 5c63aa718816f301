"""Existing checks of layer norms, reimplemented from their published descriptions with their shapes, values and tolerances.

Each takes an implementation and raises whatever it finds; the oracle of all but gradcheck is eager PyTorch. What had to change to judge
an (N, C, H, W) tensor, or to run in seconds, is said at each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from ln2d_ref import Implementation

__all__ = ["RIVALS"]

Arguments = tuple[Tensor, Tensor | None, Tensor | None]


def gradcheck(implementation: Implementation) -> None:
    """torch.autograd.gradcheck and gradgradcheck as called by default: float64, finite differences of 1e-6, atol 1e-5, rtol 1e-3.

    The second is left out where a second derivative is refused, as its users do.
    """
    eps = _eps(implementation, 1e-5)
    arguments = _arguments(implementation, (2, 3, 2, 2), "float64", affine="random")

    def fn(*given: Tensor) -> Tensor:
        return implementation.fn(*_filled(implementation, given), eps)

    given = tuple(argument for argument in arguments if argument is not None)
    torch.autograd.gradcheck(fn, given)
    (first,) = torch.autograd.grad(fn(*given).sum(), given[:1], create_graph=True)
    try:
        torch.autograd.grad(first.square().sum(), given[:1], allow_unused=True)
    except RuntimeError:
        return
    torch.autograd.gradgradcheck(fn, given)


def opinfo(implementation: Implementation) -> None:
    """torch.testing.assert_close by default on the sizes of PyTorch's own samples for layer_norm, values in [-9, 9].

    y in all dtypes, gradients in float32 and float64; 1, 2, 1, 1 and 0 groups of 6, 6, 1, 2 and 1 values; eps 0.5 where PyTorch's is
    that or -0.5.
    """
    sizes: list[tuple[int, int, float]] = [(1, 6, 0.5), (2, 6, 0.5), (1, 1, 1e-5), (1, 2, 1e-5), (0, 1, 1e-5)]
    for dtype in implementation.dtypes:
        for groups, size, eps in sizes:
            arguments = _arguments(implementation, (groups, size, 1, 1), dtype, affine="random", spread=9.0)
            gradients = dtype in ("float32", "float64")
            _agree(implementation, arguments, _eps(implementation, eps), torch.testing.assert_close, gradients=gradients)


def kernelbench(implementation: Implementation) -> None:
    """Five trials of standard-normal float32 x at one shape, default affine, no gradients, allclose at 1e-4; 256² pixels cut to 16²."""
    for seed in range(5):
        x, weight, bias = _arguments(implementation, (16, 64, 16, 16), "float32", affine="default", seed=seed)
        eps = _eps(implementation, 1e-5)
        with torch.no_grad():
            expected = _eager(implementation, x, weight, bias, eps)
            actual = implementation.fn(x, weight, bias, eps)
        assert actual.shape == expected.shape
        assert torch.allclose(expected, actual, atol=1e-4, rtol=1e-4)


def liger(implementation: Implementation) -> None:
    """Four shapes of standard-normal float32 x, default affine, eps 1e-6, allclose at 1e-5 of y and all gradients."""

    def close(actual: Tensor, expected: Tensor) -> None:
        assert torch.allclose(actual, expected, atol=1e-5, rtol=1e-5)

    for batch, sequence, hidden in ((2, 8, 64), (4, 16, 128), (1, 1, 1023), (3, 7, 256)):
        shape = (batch, hidden, 1, sequence) if implementation.semantics == "channel" else (batch * sequence, hidden, 1, 1)
        _agree(implementation, _arguments(implementation, shape, "float32", affine="default"), _eps(implementation, 1e-6), close)


def apex(implementation: Implementation) -> None:
    """16 groups of 512 values, contiguous and stepped, with a default affine and without; in float32 also 65,536 (of 16 values here).

    float32 at rtol 1e-4 and atol 1e-5, float16 at 1e-3 and 1e-3, bfloat16 at 1.6e-2 and 3e-4 (3e-3 for dx); y and dx alone.
    """
    tolerances = {"float32": (1e-4, 1e-5, 1e-5), "float16": (1e-3, 1e-3, 1e-3), "bfloat16": (1.6e-2, 3e-4, 3e-3)}
    for dtype, (rtol, atol, atol_dx) in tolerances.items():
        forms = [((16, 512, 1, 1), affine, step) for affine in ("default", "none") for step in (1, 3)]
        for shape, affine, step in forms + ([((65_536, 16, 1, 1), "default", 1)] if dtype == "float32" else []):
            arguments = _arguments(implementation, shape, dtype, affine=affine, step=step)
            x, eps = arguments[0], _eps(implementation, 1e-5)
            dy = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
            x_float = x.detach().float().requires_grad_()
            weight, bias = (None if p is None else p.detach().float() for p in arguments[1:])
            expected = _eager(implementation, x_float, weight, bias, eps)
            actual = implementation.fn(*arguments, eps)
            torch.testing.assert_close(actual, expected.to(x.dtype), rtol=rtol, atol=atol)
            (dx,), (dx_expected,) = torch.autograd.grad(actual, [x], dy), torch.autograd.grad(expected, [x_float], dy.float())
            torch.testing.assert_close(dx, dx_expected.to(x.dtype), rtol=rtol, atol=atol_dx)


RIVALS: Mapping[str, Callable[[Implementation], None]] = MappingProxyType(
    {"gradcheck": gradcheck, "OpInfo": opinfo, "KernelBench": kernelbench, "Liger": liger, "apex": apex}
)
"""The checks, by the name of what they are taken from."""


def _eps(implementation: Implementation, eps: float) -> float:
    return eps if implementation.eps is None else implementation.eps


def _arguments(
    implementation: Implementation, shape: tuple[int, ...], dtype: str, *, affine: str, spread: float = 0.0, step: int = 1, seed: int = 0
) -> Arguments:
    """x standard normal, or uniform in ±spread; weight and bias random, by default (1 and 0), or absent; as far as they may be given."""
    generator = torch.Generator().manual_seed(seed)
    numbers = getattr(torch, dtype)

    def drawn(size: tuple[int, ...]) -> Tensor:
        if spread:
            return torch.empty(size, dtype=torch.float64).uniform_(-spread, spread, generator=generator)
        return torch.randn(size, generator=generator, dtype=torch.float64)

    x = drawn((shape[0], shape[1] * step, *shape[2:])).to(numbers)[:, ::step].detach().requires_grad_()
    parameter = shape[1:] if implementation.affine_shape == "element" else shape[1:2]
    names = () if affine == "none" else _names(implementation)
    default = {"weight": torch.ones(parameter), "bias": torch.zeros(parameter)}
    made = {name: (drawn(parameter) if affine == "random" else default[name]).to(numbers).requires_grad_() for name in names}
    if affine == "none" and "none" not in implementation.affine:
        return _arguments(implementation, shape, dtype, affine="default", spread=spread, step=step, seed=seed)
    return x, made.get("weight"), made.get("bias")


def _names(implementation: Implementation) -> tuple[str, ...]:
    """Parameters of the fullest combination that the implementation takes."""
    combination = next(each for each in ("both", "weight", "bias", "none") if each in implementation.affine)
    return {"both": ("weight", "bias"), "none": ()}.get(combination, (combination,))


def _filled(implementation: Implementation, given: tuple[Tensor, ...]) -> Iterator[Tensor | None]:
    yield given[0]
    named = dict(zip(_names(implementation), given[1:], strict=True))
    yield from (named.get("weight"), named.get("bias"))


def _eager(implementation: Implementation, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """The same by F.layer_norm, which all of these checks take for right."""
    if implementation.semantics == "channel":
        return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), weight, bias, eps).permute(0, 3, 1, 2)
    weight, bias = (p if p is None or p.ndim == 3 else p[:, None, None].expand(x.shape[1:]) for p in (weight, bias))
    return F.layer_norm(x, x.shape[1:], weight, bias, eps)


def _agree(
    implementation: Implementation, arguments: Arguments, eps: float, close: Callable[[Tensor, Tensor], None], *, gradients: bool = True
) -> None:
    """y and every gradient against eager's, in the same dtype."""
    given = [argument for argument in arguments if argument is not None]
    actual, expected = implementation.fn(*arguments, eps), _eager(implementation, *arguments, eps)
    close(actual, expected)
    if not gradients:
        return
    dy = torch.randn(arguments[0].shape, generator=torch.Generator().manual_seed(1)).to(arguments[0].dtype)
    for got, want in zip(torch.autograd.grad(actual, given, dy), torch.autograd.grad(expected, given, dy), strict=True):
        close(got, want)
