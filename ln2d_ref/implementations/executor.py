"""What a framework needs to be judged: place a case's arrays, call, differentiate, overwrite, tell facts about storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..case import Case
from ..outcome import Outcome
from .implementation import Implementation

__all__ = ["Executor", "executor_for", "unavailable"]


class Executor(Protocol):
    """Runs one implementation. A `placed` case is opaque: the framework's tensors over storages that can be run on again.

    `ways` names the higher derivatives and the like that the framework offers, as laws/derivatives.py calls them; `modes` the modes
    that a call can be made in; `steps` what can be done with a module beside calling it, as laws/module.py calls it, and nothing where
    the implementation is none; `offers` which of these it can do: "attempt" any call, differentiate a "graph" again or later, and
    call in "threads" at once.
    """

    ways: tuple[str, ...]
    modes: tuple[str, ...]
    steps: tuple[str, ...]
    offers: frozenset[str]

    @property
    def simpler(self) -> Executor | None:
        """An executor that runs the same with less between it and the implementation, to tell whose fault a violation is; or None."""

    def place(self, case: Case) -> Any:
        """Fresh storages that hold the case's arguments in their layouts, between guard gaps of poison."""

    def run(self, placed: Any) -> Outcome:
        """Call and differentiate once, on the same tensors each time, and tell what happened."""

    def derive(self, case: Case, way: str) -> Outcome:
        """Differentiate or batch in one of `ways`, on fresh storages: results by quantity, of type NoneType for a gradient without path."""

    def module(self, case: Case, step: str) -> Outcome:
        """Do one of `steps` with a fresh module that holds the case's parameters: results by name, what it changed and what it shares."""

    def overwrite(self, placed: Any, case: Case) -> None:
        """Put other values of the same shapes into the same storages, with no trace that the framework could see."""

    def attempt(self, placed: Any, given: Mapping[str, np.ndarray], *, mode: str = "", devices: Mapping[str, str] | None = None) -> Outcome:
        """One call in a mode, with any arrays in the place of some arguments, or arguments elsewhere; a backward too without mode."""

    def queued(self, device: str) -> tuple[str, ...]:
        """How a call can be queued on a device before its arguments hold their values; nothing where a call is done when it returns."""

    def queue(self, case: Case, way: str) -> Outcome:
        """Call and differentiate in one of `queued`, on fresh storages that hold the case's values only once the call is queued."""

    def again(self, placed: Any) -> tuple[Outcome, Outcome]:
        """One call differentiated twice: the first gradients, and the second with the names of first ones that it rewrote."""

    def rewrite(self, placed: Any, name: str, array: np.ndarray) -> Outcome:
        """Gradients where an argument is overwritten between call and backward, in a way that the framework can see; undone after."""

    def together(self, cases: Sequence[Case]) -> list[Outcome]:
        """One call and backward for each case, all at once, each in a thread of its own."""


def executor_for(implementation: Implementation) -> Executor:
    """Executor of the implementation's framework.

    ModuleNotFoundError where the framework is not installed, RuntimeError where there is nothing to compile with.
    """
    if implementation.framework == "numpy":
        from .numpy import NumpyExecutor

        return NumpyExecutor(implementation)
    if implementation.framework == "compile":
        from .compiled import CompiledExecutor

        reason = unavailable(implementation)
        if reason is not None:
            raise RuntimeError(f"{implementation.name} cannot run here: {reason}")
        return CompiledExecutor(implementation)
    from .torch import TorchExecutor

    return TorchExecutor(implementation)


def unavailable(implementation: Implementation) -> str | None:
    """Why this machine cannot run an implementation where it is declared to run, or None."""
    if implementation.framework == "numpy":
        return None
    import torch

    if "cuda" in implementation.devices and not torch.cuda.is_available():
        return "--device cuda, but torch finds no CUDA device"
    if implementation.framework == "compile":
        from .compiled import missing

        return next(filter(None, map(missing, implementation.devices)), None)
    return None
