"""What a framework needs to be judged: place a case's arrays, call, differentiate, overwrite, tell facts about storage."""

from __future__ import annotations

from typing import Any, Protocol

from ..case import Case
from ..outcome import Outcome
from .implementation import Implementation

__all__ = ["Executor", "executor_for"]


class Executor(Protocol):
    """Runs one implementation. A `placed` case is opaque: the framework's tensors over storages that can be run on again.

    `ways` names the higher derivatives and the like that the framework offers, as laws/derivatives.py calls them.
    """

    ways: tuple[str, ...]

    def place(self, case: Case) -> Any:
        """Fresh storages that hold the case's arguments in their layouts, between guard gaps of poison."""

    def run(self, placed: Any) -> Outcome:
        """Call and differentiate once, on the same tensors each time, and tell what happened."""

    def derive(self, case: Case, way: str) -> Outcome:
        """Differentiate or batch in one of `ways`, on fresh storages: results by quantity, of type NoneType for a gradient without path."""

    def overwrite(self, placed: Any, case: Case) -> None:
        """Put other values of the same shapes into the same storages, with no trace that the framework could see."""


def executor_for(implementation: Implementation) -> Executor:
    """Executor of the implementation's framework. ModuleNotFoundError where the framework is not installed."""
    if implementation.framework == "numpy":
        from .numpy import NumpyExecutor

        return NumpyExecutor(implementation)
    from .torch import TorchExecutor

    return TorchExecutor(implementation)
