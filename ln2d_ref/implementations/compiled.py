"""Executor of functions through torch.compile: one graph for each compile signature, and an error for every further one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from types import FunctionType
from typing import Any

import torch
import torch._dynamo

from ..case import Case
from ..outcome import Raised
from ..signature import Signature
from .implementation import Implementation
from .torch import TorchExecutor

__all__ = ["CompiledExecutor", "missing"]


class CompiledExecutor(TorchExecutor):
    """Runs `torch.compile(fn, fullgraph=True)`, compiled afresh for each signature; a graph break or another compilation raises."""

    ways: tuple[str, ...] = ()  # torch.compile refuses a second derivative, and is not made for torch.func's transforms from outside
    modes: tuple[str, ...] = ()  # nor for a call that its signature does not tell of: compiling again is an error here
    offers: frozenset[str] = frozenset({"graph"})  # its configuration is global: threads would take each other's

    def __init__(self, implementation: Implementation, backend: str = "inductor") -> None:
        super().__init__(implementation)
        self.backend = backend

    @property
    def simpler(self) -> CompiledExecutor | None:
        """The same through aot_eager: the same graphs and decompositions, run op by op, with no generated code."""
        return None if self.backend == "aot_eager" else CompiledExecutor(self.implementation, "aot_eager")

    def function(self, case: Case) -> Callable[..., Any]:
        """The function compiled for the case's signature."""
        compiled = _compiled(self.implementation, self.backend, self.implementation.signature(case))

        def strictly(*arguments: Any) -> Any:
            with torch._dynamo.config.patch(error_on_recompile=True):
                return compiled(*arguments)

        return strictly

    def told(self, stage: str, error: Exception) -> Raised:
        """An exception on one line: the function's own where tracing met one, else what the compiler could not do or which guard failed."""
        kind, lines = type(error).__name__, [line.strip() for line in str(error).splitlines() if line.strip()]
        if kind == "TorchRuntimeError":
            return super().told(stage, _root(error))
        if kind == "RecompileError":
            guards = [line.partition(": ")[2] for line in lines if line.startswith("- ")]
            return Raised(stage, kind, f"compiled again within one signature; the guard that failed: {'; '.join(guards)}")
        if kind == "Unsupported":
            reasons = [line for line in lines if line.startswith("Explanation: ")]
            return Raised(stage, kind, f"graph break: {'. '.join([*lines[:1], *reasons])}")
        return Raised(stage, kind, " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1]))


def _root(error: BaseException) -> Exception:
    """The exception that all others of a chain were raised from."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return error if isinstance(error, Exception) else RuntimeError(str(error))


@lru_cache(maxsize=2048)
def _compiled(implementation: Implementation, backend: str, signature: Signature) -> Callable[..., Any]:
    """The function compiled for a signature, and called once."""
    fn = implementation.fn if signature.channels is None else implementation.fn.at(signature.channels, signature.eps)  # type: ignore[attr-defined]

    def call(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        return fn(x, weight, bias, eps)

    # torch counts compilations by code object, and gives one up after eight
    code = call.__code__.replace(co_name=getattr(implementation.fn, "__name__", "call"))
    fresh = FunctionType(code, call.__globals__, code.co_name, None, call.__closure__)
    compiled = torch.compile(fresh, fullgraph=True, dynamic=signature.dynamic, backend=backend)
    exemplar = signature.exemplar()
    if exemplar is not None:
        plain = TorchExecutor(replace(implementation, fn=compiled, framework="torch"))
        plain.run(plain.place(exemplar))  # what it raises, the judged call raises again
    return compiled


def missing(device: str) -> str | None:
    """What this machine lacks to compile for a device, or None."""
    if device == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "torch.compile finds no Triton for CUDA"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "torch.compile finds no C++ compiler"
    return None
