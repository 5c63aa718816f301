"""What is judged: a callable, and what is declared about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from numbers import Real
from typing import Any

from ..case import Case
from ..dtypes import DTYPES
from ..semantics import group_axes
from ..signature import Signature
from .registered import REGISTERED

__all__ = ["AFFINE_COMBINATIONS", "Implementation"]

AFFINE_COMBINATIONS = ("both", "weight", "bias", "none")
_FRAMEWORKS = ("torch", "compile", "numpy")


@dataclass(frozen=True)
class Implementation:
    """A LayerNorm2d `fn(x, weight, bias, eps) -> y`, and the contract that it declares; the defaults are the fullest one.

    x has shape (N, C, H, W); weight and bias have shape (C,), or (C, H, W) where `affine_shape="element"`, or are None; y has x's
    shape, dtype and device, and is differentiable by the framework's own means (for "torch", autograd).

    name           how messages call it; default: what it was loaded by, or the callable's own
    semantics      "channel" (each pixel over C) or "sample" (over C, H, W)
    affine_shape   "channel" for (C,), or, in sample semantics only, "element" for (C, H, W)
    affine         which of "both", "weight", "bias", "none" may be given
    eps            a float where the implementation's eps cannot be chosen, else None
    dtypes         names of the dtypes of x that it takes
    devices        "cpu", "cuda"
    arithmetic     "float32" (at least that; float64 stays float64) or "input" (it computes in its input's dtype)
    deterministic  whether the same call gives the same bits
    framework      "torch"; "compile", where fn is a torch function and torch.compile(fn, fullgraph=True) is judged, compiled afresh for
                   each compile signature (signature.py); or "numpy", where gradients come from an attribute
                   `fn.vjp(dy, x, weight, bias, eps) -> (dx, dweight, dbias)`, and are not judged where there is none
    builds_on      built-in implementations whose kernels this one calls ("torch/permute" for F.layer_norm over channels): what the ledger
                   knows of them is known of this one too
    source         how a reproducing script gets hold of it; filled in by `load`

    Raises TypeError where fn is not callable, ValueError for any value that is not listed here.
    """

    fn: Callable[..., Any]
    _: KW_ONLY
    name: str = ""
    semantics: str = "channel"
    affine_shape: str = "channel"
    affine: tuple[str, ...] = AFFINE_COMBINATIONS
    eps: float | None = None
    dtypes: tuple[str, ...] = tuple(DTYPES)
    devices: tuple[str, ...] = ("cpu",)
    arithmetic: str = "float32"
    deterministic: bool = True
    framework: str = "torch"
    builds_on: tuple[str, ...] = ()
    source: str | None = field(default=None, compare=False)
    named: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check every declaration, so that a wrong one is an error here and not a false alarm later."""
        if not callable(self.fn):
            raise TypeError(f"fn is {self.fn!r}, but must be callable as fn(x, weight, bias, eps)")
        object.__setattr__(self, "named", bool(self.name))
        if not self.name:
            object.__setattr__(self, "name", getattr(self.fn, "__name__", type(self.fn).__name__))
        for argument in ("affine", "dtypes", "devices", "builds_on"):
            value = getattr(self, argument)
            object.__setattr__(self, argument, (value,) if isinstance(value, str) else tuple(value))
        group_axes(self.semantics)
        self._one_of("affine_shape", ("channel", "element") if self.semantics == "sample" else ("channel",))
        self._one_of("arithmetic", ("float32", "input"))
        self._one_of("framework", _FRAMEWORKS)
        self._some_of("affine", AFFINE_COMBINATIONS)
        self._some_of("dtypes", tuple(DTYPES))
        self._some_of("devices", ("cpu", "cuda"))
        self._one_of("deterministic", (True, False))
        if self.eps is not None and not (isinstance(self.eps, Real) and 0 <= self.eps < float("inf")):
            raise ValueError(f"eps is {self.eps!r}, but must be None or a finite number >= 0")

        names = _of_semantics(self.semantics)
        if not set(self.builds_on) <= set(names):
            known = ", ".join(map(repr, names))
            raise ValueError(f"builds_on is {self.builds_on!r}, but in {self.semantics} semantics must be one or more of {known}")

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What a debugger and Hypothesis print: short, whatever fn's own representation is."""
        printer.text(f"Implementation({self.name}, {self.semantics})")

    @property
    def lineage(self) -> tuple[str, ...]:
        """Names whose known faults it may show: its own, and those of what it builds on."""
        return (self.name, *self.builds_on)

    def signature(self, case: Case) -> Signature:
        """What torch.compile makes one graph of this implementation for; a module is built for its channels."""
        return Signature.of(case, constant_channels=hasattr(self.fn, "module_class"))

    @property
    def module_class(self) -> Any:
        """The nn.Module class that fn was made from; None where there is none, or where what is judged is compiled from it."""
        return getattr(self.fn, "module_class", None) if self.framework == "torch" else None

    def _one_of(self, argument: str, allowed: tuple[str | bool, ...]) -> None:
        value = getattr(self, argument)
        if value not in allowed:
            where = f" in {self.semantics} semantics" if argument == "affine_shape" else ""
            raise ValueError(f"{argument} is {value!r}, but must be {' or '.join(map(repr, allowed))}{where}")

    def _some_of(self, argument: str, allowed: tuple[str, ...]) -> None:
        values = getattr(self, argument)
        if not values or any(value not in allowed for value in values):
            raise ValueError(f"{argument} is {values!r}, but must be one or more of {', '.join(map(repr, allowed))}")


def _of_semantics(semantics: str) -> tuple[str, ...]:
    """Names of the built-in implementations in this semantics."""
    return tuple(name for name, (_, declared) in REGISTERED.items() if declared.get("semantics", "channel") == semantics)
