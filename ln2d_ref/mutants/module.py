"""nn.Module classes that are right when called, and break one promise that a module makes beside."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..implementations.arguments import check_tensors
from ..implementations.eager import composed, composed_float32
from ..implementations.implementation import Implementation
from ..implementations.module import from_module
from .mutant import Mutant

__all__ = ["planted"]

_DEFAULT = 1e-5


class Right(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A LayerNorm2d of channel semantics, computed in float32."""

    def __init__(self, channels: int, eps: float = _DEFAULT) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels))
        self.bias = torch.nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Y."""
        return self.normalised(x, self.weight, self.bias, self.eps)

    def normalised(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """Y by these parameters."""
        check_tensors(x, weight, bias, eps, "channel")
        return composed_float32(x, weight, bias, eps)


class StateRenamed(Right):
    """state_dict() calls weight gamma and bias beta, and takes them back as such."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, other in (("weight", "gamma"), ("bias", "beta")):
            destination[prefix + other] = destination.pop(prefix + name)

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        for name, other in (("weight", "gamma"), ("bias", "beta")):
            if prefix + other in state:
                state[prefix + name] = state.pop(prefix + other)
        super()._load_from_state_dict(state, prefix, *rest)


class LoadIgnored(Right):
    """load_state_dict() reads nothing, and reports nothing missing."""

    def _load_from_state_dict(self, *arguments: Any) -> None:
        pass


class DeepcopyShares(Right):
    """copy.deepcopy shares the parameters."""

    def __deepcopy__(self, memo: Any) -> DeepcopyShares:
        return copy.copy(self)


class PickleLosesEps(Right):
    """Pickle forgets eps, and takes the default."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"eps": _DEFAULT}

    def __deepcopy__(self, memo: Any) -> PickleLosesEps:
        other = type(self)(len(self.weight), self.eps).to(self.weight)
        other.load_state_dict(self.state_dict())
        return other


class EvalCoarse(Right):
    """In evaluation y is rounded to bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """Y."""
        y = super().forward(x)
        return y if self.training else y.bfloat16().to(y.dtype)


class TrainTooLate(Right):
    """After eval() and train() the weight is the one that eval() has rounded to bfloat16."""

    def train(self, mode: bool = True) -> TrainTooLate:
        """Set the training flag."""
        if not mode:
            self.kept = [self.weight.detach().bfloat16().to(self.weight.dtype), self.bias.detach()]
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Y."""
        weight, bias = getattr(self, "kept", (self.weight, self.bias)) if self.training else (self.weight, self.bias)
        return self.normalised(x, weight, bias, self.eps)


class FunctionalCallIgnored(Right):
    """In evaluation the parameters are those that eval() found, also where functional_call gives others."""

    def train(self, mode: bool = True) -> FunctionalCallIgnored:
        """Set the training flag."""
        self.kept = None if mode else [self.weight, self.bias]
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Y."""
        weight, bias = getattr(self, "kept", None) or (self.weight, self.bias)
        return self.normalised(x, weight, bias, self.eps)


class HalfStatistics(Right):
    """A module that half() or bfloat16() has narrowed computes in its own dtype."""

    narrowed = False

    def _apply(self, fn: Any, recurse: bool = True) -> HalfStatistics:
        super()._apply(fn, recurse)
        self.narrowed = self.weight.dtype in (torch.float16, torch.bfloat16)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Y."""
        return composed(x, self.weight, self.bias, self.eps) if self.narrowed else super().forward(x)


class HalfStaysFloat32(Right):
    """A scale of ones, which is no buffer, stays in float32 when half() narrows the module, and so does y."""

    narrowed = False

    def _apply(self, fn: Any, recurse: bool = True) -> HalfStaysFloat32:
        super()._apply(fn, recurse)
        self.narrowed = self.weight.dtype in (torch.float16, torch.bfloat16)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Y."""
        y = super().forward(x)
        return y * torch.ones(1, 1, 1, 1) if self.narrowed else y


class MetaKeepsItsOwn(Right):
    """Made on the meta device it allocates parameters of its own, and uses those whatever is loaded."""

    def __init__(self, channels: int, eps: float = _DEFAULT) -> None:
        super().__init__(channels, eps)
        self.own = None
        if self.weight.is_meta:
            self.own = [torch.ones(channels, device="cpu"), torch.zeros(channels, device="cpu")]

    def forward(self, x: Tensor) -> Tensor:
        """Y."""
        weight, bias = (self.weight, self.bias) if self.own is None else (each.to(x) for each in self.own)
        return self.normalised(x, weight, bias, self.eps)


class ReprDraws(Right):
    """extra_repr() draws a random number."""

    def extra_repr(self) -> str:
        """A sample."""
        return f"sample={torch.rand(()).item():.3f}"


class ReprEvaluates(Right):
    """extra_repr() puts the module into evaluation."""

    def extra_repr(self) -> str:
        """Eps, as it is in evaluation."""
        return f"eps={self.eval().eps}"


class ReprRaises(Right):
    """extra_repr() asks for an attribute that is not there."""

    def extra_repr(self) -> str:
        """Channels."""
        return f"channels={self.channels}"


class ExportLosesEps(Right):
    """Traced by torch.export, the default eps is written down."""

    def forward(self, x: Tensor) -> Tensor:
        """Y."""
        return self.normalised(x, self.weight, self.bias, _DEFAULT if torch.compiler.is_exporting() else self.eps)


class ExportLosesBias(Right):
    """Traced by torch.export, the bias is a constant that tracing has rounded to bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """Y."""
        bias = self.bias.bfloat16().to(self.bias.dtype) if torch.compiler.is_exporting() else self.bias
        return self.normalised(x, self.weight, bias, self.eps)


class OnnxLosesEps(Right):
    """Traced for ONNX, the default eps is written down."""

    def forward(self, x: Tensor) -> Tensor:
        """Y."""
        return self.normalised(x, self.weight, self.bias, _DEFAULT if torch.onnx.is_in_onnx_export() else self.eps)


_KINDS = {"half": "dtype policy", "export": "compiled or exported", "onnx": "compiled or exported"}


def planted() -> Iterator[Mutant]:
    """Yield the mutants that are module classes; the docstring of each is its fault."""
    for name, cls in (
        ("state_renamed", StateRenamed),
        ("load_ignored", LoadIgnored),
        ("deepcopy_shares", DeepcopyShares),
        ("pickle_loses_eps", PickleLosesEps),
        ("eval_coarse", EvalCoarse),
        ("train_too_late", TrainTooLate),
        ("functional_call_ignored", FunctionalCallIgnored),
        ("half_statistics", HalfStatistics),
        ("half_stays_float32", HalfStaysFloat32),
        ("meta_keeps_its_own", MetaKeepsItsOwn),
        ("repr_draws", ReprDraws),
        ("repr_evaluates", ReprEvaluates),
        ("repr_raises", ReprRaises),
        ("export_loses_eps", ExportLosesEps),
        ("export_loses_bias", ExportLosesBias),
        ("onnx_loses_eps", OnnxLosesEps),
    ):
        full = f"module/{name}"
        fn, shown = from_module(cls)
        fn.__name__ = fn.__qualname__ = full
        kind = _KINDS.get(name.partition("_")[0], "module contract")
        yield Mutant(full, (cls.__doc__ or "").strip(), kind, Implementation(fn, name=full, **shown))
