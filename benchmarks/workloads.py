"""An implementation at a setting, as calls that can be timed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ln2d_ref import Implementation
from ln2d_ref.implementations.module import module_size

from .alternation import Timed, on_cpu, on_cuda
from .placement import Padding, other_memory
from .settings import Setting

__all__ = ["Arguments", "Contenders", "Workload", "arguments", "copying", "workload"]

EPS = 1e-6
"""ConvNeXt's."""


@dataclass(frozen=True)
class Arguments:
    """Arguments of one call; weight and bias of shape (C,)."""

    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    dy: torch.Tensor


@dataclass(frozen=True)
class Workload:
    """`timed` is what is measured; `results` what it last returned, by quantity; `differentiated` runs it on another dy."""

    implementation: Implementation
    given: dict[str, torch.Tensor]
    eps: float
    timed: Timed
    results: dict[str, Any]
    differentiated: Callable[[torch.Tensor], dict[str, Any]]


def arguments(setting: Setting, *, seed: int = 0) -> list[Arguments]:
    """Arguments of normal values about 0.5; on CUDA in as many copies as fill three times the second-level cache."""
    generator = torch.Generator(setting.device).manual_seed(seed)
    dtype, channels = getattr(torch, setting.dtype), setting.shape[1]
    shape, layout = setting.shape, torch.channels_last if setting.layout == "channels_last" else torch.contiguous_format

    def drawn(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, device=setting.device).to(dtype)

    first = Arguments(
        (drawn(*shape) + 0.5).contiguous(memory_format=layout),
        1 + 0.1 * drawn(channels),
        drawn(channels),
        drawn(*shape).contiguous(memory_format=layout),
    )
    copies = 1
    if setting.device == "cuda":
        cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        copies = 1 + math.ceil(3 * cache / setting.size)
    return [first] + [Arguments(*(each.clone() for each in vars(first).values())) for _ in range(copies - 1)]


def workload(implementation: Implementation, setting: Setting, sets: list[Arguments]) -> Workload:
    """The implementation's forward without autograd, or its backward alone, on each set of arguments in turn."""
    eps = EPS if implementation.eps is None else implementation.eps
    prepared = [_prepared(implementation, setting, each, eps) for each in sets]
    given, results, differentiated, _ = prepared[0]
    calls = [call for *_, call in prepared]
    timed = on_cuda(calls) if setting.device == "cuda" else on_cpu(calls[0])
    return Workload(implementation, given, eps, timed, results, differentiated)


class Contenders:
    """What is timed in a round: the implementation, the yardstick, the control and a copy.

    x and dy are the same for all; parameters and results are each one's own. Were they the control's and the yardstick's together, a cache
    would hold them since the other's turn, and the implementation alone would pay: by up to 16 % where they fill a cache.
    """

    def __init__(self, implementation: Implementation, yardstick: Implementation, setting: Setting) -> None:
        self.implementation, self.yardstick, self.setting = implementation, yardstick, setting
        self._drawn = arguments(setting)
        self._rng = np.random.default_rng(0)
        self._placed: tuple[Padding, Workload] | None = None

    @property
    def work(self) -> Workload:
        """The implementation's workload, as it was placed last."""
        if self._placed is None:
            raise LookupError("nothing has been placed")
        return self._placed[1]

    def placed(self) -> dict[str, Timed]:
        """The calls by name, on other memory than before; on CUDA on as many copies as there are, each in its turn."""
        self._placed = None
        setting, sets, padding = self.setting, self._drawn, []
        if setting.device == "cpu":
            padding = other_memory(self._rng)
            sets = [Arguments(*(each.clone() for each in vars(one).values())) for one in sets]
        work, other, control = (workload(each, setting, sets) for each in (self.implementation, self.yardstick, self.yardstick))
        self._placed = padding, work
        return {"implementation": work.timed, "yardstick": other.timed, "control": control.timed, "copy": copying(setting, sets)}


def _prepared(
    implementation: Implementation, setting: Setting, arguments: Arguments, eps: float
) -> tuple[dict[str, torch.Tensor], dict[str, Any], Callable[[torch.Tensor], dict[str, Any]], Callable[[], Any]]:
    """The arguments as given, where results go, the backward for any dy, and the call."""
    combination = "both" if "both" in implementation.affine else implementation.affine[0]
    given = {"x": arguments.x}
    for name in ("weight", "bias"):
        if combination in ("both", name):
            parameter: torch.Tensor = getattr(arguments, name)
            if implementation.affine_shape == "element":
                parameter = parameter[:, None, None].expand(setting.shape[1:])
            given[name] = parameter.clone(memory_format=torch.contiguous_format)
    results: dict[str, Any] = {}
    if setting.direction == "backward":
        given = {name: tensor.detach().requires_grad_() for name, tensor in given.items()}
    call = _call(implementation, given, eps)

    def forward() -> Any:
        results["y"] = call()
        return results["y"]

    if setting.direction == "forward":
        return given, results, lambda dy: {}, forward
    y = forward()
    leaves, names = list(given.values()), [f"d{name}" for name in given]
    given["dy"] = arguments.dy

    def differentiated(dy: torch.Tensor) -> dict[str, Any]:
        return dict(zip(names, torch.autograd.grad(y, leaves, dy, retain_graph=True), strict=True))

    def backward() -> None:
        results.update(zip(names, torch.autograd.grad(y, leaves, arguments.dy, retain_graph=True), strict=True))

    return given, results, differentiated, backward


def _call(implementation: Implementation, given: dict[str, torch.Tensor], eps: float) -> Callable[[], Any]:
    """The call on what is given; of a module class, one module's that has the parameters as its own, as users call it.

    How it is judged, by torch.func.functional_call, takes longer than a small kernel.
    """
    if implementation.module_class is None:
        return lambda: implementation.fn(given["x"], given.get("weight"), given.get("bias"), eps)
    module = implementation.module_class(module_size(tuple(given["x"].shape), implementation.affine_shape), eps=eps).to(given["x"])
    for name in given.keys() - {"x"}:
        given[name] = torch.nn.Parameter(given[name].detach(), given[name].requires_grad)
        setattr(module, name, given[name])
    return lambda: module(given["x"])


def copying(setting: Setting, sets: list[Arguments]) -> Timed:
    """A copy of x into memory of its own: it reads T bytes and writes T."""
    pairs = [(each.x, torch.empty_like(each.x)) for each in sets]
    calls = [lambda source=source, target=target: target.copy_(source) for source, target in pairs]
    return on_cuda(calls) if setting.device == "cuda" else on_cpu(calls[0])
