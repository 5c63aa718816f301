"""Executor of NumPy implementations, and `numpy/reference`: the reference itself, rounded to its input's dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import reference as exact
from ..case import Case
from ..layout import Storage, place
from ..outcome import Outcome, Raised, Result
from .implementation import Implementation

__all__ = ["NumpyExecutor", "reference", "reference_sample"]


@dataclass
class _Placed:
    case: Case
    storages: dict[str, Storage]
    before: dict[str, bytes]
    earlier: list[tuple[str, np.ndarray, bytes]] = field(default_factory=list)

    def array(self, name: str) -> np.ndarray | None:
        return self.storages[name].view() if name in self.storages else None


class NumpyExecutor:
    """Runs an implementation on NumPy arrays; gradients by its attribute `vjp(dy, x, weight, bias, eps)`, where it has one."""

    ways: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    offers: frozenset[str] = frozenset({"attempt", "threads"})

    def __init__(self, implementation: Implementation) -> None:
        self.implementation = implementation

    @property
    def simpler(self) -> None:
        """Nothing lies between."""
        return None

    def place(self, case: Case) -> _Placed:
        """Arrays over fresh storages."""
        storages = {name: place(array, case.laid_out(name)) for name, array in case.arrays.items()}
        return _Placed(case, storages, {name: storage.buffer.tobytes() for name, storage in storages.items()})

    def derive(self, case: Case, way: str) -> Outcome:
        """NumPy offers no way."""
        raise ValueError(f"way is {way!r}, but NumPy offers none")

    def module(self, case: Case, step: str) -> Outcome:
        """NumPy has no modules."""
        raise ValueError(f"step is {step!r}, but NumPy has no modules")

    def overwrite(self, placed: _Placed, case: Case) -> None:
        """Write into the storages."""
        for name, array in case.arrays.items():
            if array.size:
                placed.storages[name].view()[...] = array
            placed.before[name] = placed.storages[name].buffer.tobytes()
        placed.case = case

    def run(self, placed: _Placed) -> Outcome:
        """One forward, and one vjp where there is one."""
        case, results, raised, returned = placed.case, {}, None, {}
        x, weight, bias = (placed.array(name) for name in ("x", "weight", "bias"))
        stage = "forward"
        try:
            returned["y"] = self.implementation.fn(x, weight, bias, case.eps)
            stage = "backward"
            vjp = getattr(self.implementation.fn, "vjp", None)
            if vjp is not None and isinstance(returned["y"], np.ndarray):
                gradients = dict(zip(("dx", "dweight", "dbias"), vjp(placed.array("dy"), x, weight, bias, case.eps), strict=True))
                returned |= {name: gradients[name] for name in case.quantities if name != "y"}
        except Exception as error:
            raised = Raised(stage, type(error).__name__, str(error))
        results = {name: _result(value) for name, value in returned.items()}
        changed, spilled = _changes(placed)
        shared = tuple(n for n, s in placed.storages.items() if _overlap(returned.get("y"), s.buffer))
        shared += tuple(f"an earlier {n}" for n, a, _ in placed.earlier if n == "y" and _overlap(returned.get("y"), a))
        rewritten = tuple(name for name, array, data in placed.earlier if array.tobytes() != data)
        placed.earlier += [(n, a, a.tobytes()) for n, a in returned.items() if isinstance(a, np.ndarray)]
        return Outcome(results, raised, changed, spilled, shared, (), rewritten)

    def attempt(
        self, placed: _Placed, given: Mapping[str, np.ndarray], *, mode: str = "", devices: Mapping[str, str] | None = None
    ) -> Outcome:
        """One forward with other arrays in the place of some arguments."""
        if mode or devices:
            raise ValueError(f"mode is {mode!r} and devices are {devices}, but NumPy has none")
        call = {name: placed.array(name) for name in ("x", "weight", "bias")} | {name: np.array(array) for name, array in given.items()}
        results, raised = {}, None
        try:
            results["y"] = _result(self.implementation.fn(call["x"], call["weight"], call["bias"], placed.case.eps))
        except Exception as error:
            raised = Raised("forward", type(error).__name__, str(error))
        changed, spilled = _changes(placed)
        changed += tuple(name for name, array in given.items() if np.asarray(call[name]).tobytes() != array.tobytes())
        return Outcome(results, raised, changed, spilled)

    def queued(self, device: str) -> tuple[str, ...]:
        """A call is done when it returns."""
        return ()

    def queue(self, case: Case, way: str) -> Outcome:
        """NumPy queues nothing."""
        raise ValueError(f"way is {way!r}, but NumPy queues no calls")

    def again(self, placed: _Placed) -> tuple[Outcome, Outcome]:
        """NumPy records no graph."""
        raise TypeError("NumPy records no graph")

    def rewrite(self, placed: _Placed, name: str, array: np.ndarray) -> Outcome:
        """NumPy records no graph."""
        raise TypeError("NumPy records no graph")

    def together(self, cases: Sequence[Case]) -> list[Outcome]:
        """One call for each case, all at once."""
        with ThreadPoolExecutor(len(cases)) as pool:
            return list(pool.map(self.run, map(self.place, cases)))


def _result(value: Any) -> Result:
    if not isinstance(value, np.ndarray):
        return Result(type(value).__name__)
    return Result("ndarray", np.array(value), value.dtype.name, "cpu")


def _overlap(value: Any, other: np.ndarray) -> bool:
    return isinstance(value, np.ndarray) and np.may_share_memory(value, other)


def _changes(placed: _Placed) -> tuple[tuple[str, ...], tuple[str, ...]]:
    changed, spilled = [], []
    for name, storage in placed.storages.items():
        if storage.buffer.tobytes() != placed.before[name]:
            bits = storage.buffer.view(f"u{storage.buffer.itemsize}")
            different, gaps = bits != np.frombuffer(placed.before[name], bits.dtype), storage.gaps()
            if (different & ~gaps).any():
                changed.append(name)
            if (different & gaps).any():
                spilled.append(name)
    return tuple(changed), tuple(spilled)


class _Reference:
    """`reference.forward` and `reference.vjp`, rounded to the dtype of x."""

    def __init__(self, semantics: str) -> None:
        self.semantics = semantics
        self.__name__ = "reference"

    def __call__(self, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float) -> np.ndarray:
        with np.errstate(over="ignore"):
            return exact.forward(x, weight, bias, eps=eps, semantics=self.semantics).astype(x.dtype)

    def vjp(
        self, dy: np.ndarray, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
    ) -> tuple[np.ndarray | None, ...]:
        """Gradients of sum(dy·y)."""
        gradients = exact.vjp(dy, x, weight, bias, eps=eps, semantics=self.semantics)
        with np.errstate(over="ignore"):
            return tuple(None if gradient is None else gradient.astype(x.dtype) for gradient in gradients)


reference = _Reference("channel")
reference_sample = _Reference("sample")
