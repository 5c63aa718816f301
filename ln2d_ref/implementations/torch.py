"""Executor of PyTorch implementations: eager, compiled, or kernels behind torch's autograd."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np
import torch

from ..case import Case
from ..directions import directions, members
from ..layout import Storage, place
from ..outcome import Outcome, Raised, Result
from .implementation import Implementation
from .transforms import WAYS

__all__ = ["TorchExecutor", "to_numpy", "to_torch"]

_FLOATING = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def to_torch(array: np.ndarray) -> torch.Tensor:
    """A CPU tensor over the same memory as a writeable array."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A copy of a tensor's values."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return np.array(tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return np.array(tensor.numpy())


@dataclass
class _Argument:
    """One argument: the host's storage, the device's storage, the tensor over it, and what the storage held before a run."""

    storage: Storage
    memory: torch.Tensor
    tensor: torch.Tensor
    before: np.ndarray

    def after(self) -> np.ndarray:
        """What the storage holds now."""
        return self.storage.buffer if self.memory.device.type == "cpu" else to_numpy(self.memory)


@dataclass
class _Placed:
    case: Case
    arguments: dict[str, _Argument]
    earlier: list[tuple[str, torch.Tensor, np.ndarray]] = field(default_factory=list)

    def tensor(self, name: str) -> torch.Tensor | None:
        argument = self.arguments.get(name)
        return None if argument is None else argument.tensor


class TorchExecutor:
    """Runs an implementation on torch tensors; gradients by torch.autograd.grad."""

    ways: tuple[str, ...] = tuple(WAYS)

    def __init__(self, implementation: Implementation) -> None:
        self.implementation = implementation

    def place(self, case: Case) -> _Placed:
        """Tensors over fresh storages on the case's device."""
        arguments = {}
        for name, array in case.arrays.items():
            storage = place(array, case.laid_out(name))
            memory = to_torch(storage.buffer).to(case.device)
            tensor = torch.empty(0, dtype=memory.dtype, device=memory.device)  # no view, whose base a compiler would guard on
            tensor.set_(memory.untyped_storage(), storage.offset, storage.shape, storage.strides)
            tensor.requires_grad_(name in case.requires_grad)
            arguments[name] = _Argument(storage, memory, tensor, storage.buffer.copy())
        return _Placed(case, arguments)

    def overwrite(self, placed: _Placed, case: Case) -> None:
        """Write through the storage, past autograd and the version counter.

        A gradient may live in dy's storage (where one row is summed, autograd hands dy out as dbias), and then changes with it.
        """
        for name, array in case.arrays.items():
            argument = placed.arguments[name]
            if array.size:
                argument.storage.view()[...] = array
            if argument.memory.device.type != "cpu":
                argument.memory.data.copy_(to_torch(argument.storage.buffer))
            argument.before = argument.storage.buffer.copy()
        owned = {argument.memory.untyped_storage().data_ptr() for argument in placed.arguments.values()}
        placed.earlier = [entry for entry in placed.earlier if entry[1].untyped_storage().data_ptr() not in owned]
        placed.case = case

    def function(self, case: Case) -> Callable[..., Any]:
        """What is called for this case."""
        return self.implementation.fn

    def told(self, stage: str, error: Exception) -> Raised:
        """An exception as plain data."""
        return Raised(stage, type(error).__name__, str(error))

    def run(self, placed: _Placed) -> Outcome:
        """One forward and one backward."""
        case = placed.case
        results: dict[str, Result] = {}
        raised = None
        returned: dict[str, Any] = {}
        with _threads(case.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what an implementation warns of is not judged
            state = _GlobalState()
            stage = "forward"
            try:
                y = self.function(case)(*(placed.tensor(name) for name in ("x", "weight", "bias")), case.eps)
                returned["y"] = y
                results["y"] = _result(y)
                stage = "backward"
                if _differentiable(y, placed):
                    names = case.requires_grad
                    gradients = torch.autograd.grad(
                        y, [placed.arguments[name].tensor for name in names], placed.tensor("dy"), allow_unused=True
                    )
                    returned |= {f"d{name}": gradient for name, gradient in zip(names, gradients, strict=True)}
                    results |= {f"d{name}": _result(gradient) for name, gradient in zip(names, gradients, strict=True)}
            except Exception as error:
                raised = self.told(stage, error)
            disturbed = state.disturbed()
        changed, spilled = _changes(placed)
        shared = _shared(returned.get("y"), placed)
        rewritten = tuple(name for name, tensor, array in placed.earlier if not _same_bits(to_numpy(tensor), array))
        for name, value in returned.items():
            array = results[name].array
            if array is not None:
                placed.earlier.append((name, value, array))
        return Outcome(results, raised, changed, spilled, shared, disturbed, rewritten)

    def derive(self, case: Case, way: str) -> Outcome:
        """One of `transforms.WAYS`; None stands for no path, and what it means is the laws' to say."""
        if "forward" in way:  # torch makes no dual tensor over elements that share memory
            case = replace(case, layouts={name: layout for name, layout in case.layouts.items() if not layout.expanded})
        given = {name: argument.tensor for name, argument in self.place(case).arguments.items()}
        along, then = ({name: _on(array, case) for name, array in directions(case, which).items()} for which in (0, 1))
        batch = {}
        if way.startswith("vmap"):
            too = "parameters" in way
            both, names = members(case, parameters=too), case.arrays if too else ("x", "dy")
            batch = {name: torch.stack([_on(member.arrays[name], case) for member in both]) for name in names}
        with _threads(case.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = _GlobalState()
            try:
                results = WAYS[way](self.implementation.fn, given, case.eps, along, then, batch)
                return Outcome({name: _result(value) for name, value in results.items()}, disturbed=state.disturbed())
            except Exception as error:
                return Outcome(raised=Raised(way, type(error).__name__, str(error)), disturbed=state.disturbed())


def _on(array: np.ndarray, case: Case) -> torch.Tensor:
    return to_torch(np.array(array)).to(case.device)


def _result(value: Any) -> Result:
    if not isinstance(value, torch.Tensor):
        return Result(type(value).__name__)
    dtype = str(value.dtype).removeprefix("torch.")
    array = to_numpy(value) if value.dtype in _FLOATING else None
    return Result("Tensor", array, dtype, value.device.type)


def _differentiable(y: Any, placed: _Placed) -> bool:
    dy = placed.tensor("dy")
    if not isinstance(y, torch.Tensor) or dy is None or not placed.case.requires_grad:
        return False
    return y.requires_grad and y.shape == dy.shape and y.dtype == dy.dtype and y.device == dy.device


def _changes(placed: _Placed) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Arguments changed at their elements, and outside them."""
    changed, spilled = [], []
    for name, argument in placed.arguments.items():
        after = argument.after()
        if not _same_bits(after, argument.before):
            different = _bits(after) != _bits(argument.before)
            gaps = argument.storage.gaps()
            if (different & ~gaps).any():
                changed.append(name)
            if (different & gaps).any():
                spilled.append(name)
    return tuple(changed), tuple(spilled)


def _shared(y: Any, placed: _Placed) -> tuple[str, ...]:
    if not isinstance(y, torch.Tensor) or y.numel() == 0:
        return ()
    pointer = y.untyped_storage().data_ptr()
    owners = {name: argument.tensor for name, argument in placed.arguments.items()}
    owners |= {f"an earlier {name}": tensor for name, tensor, _ in placed.earlier if name == "y"}
    return tuple(name for name, tensor in owners.items() if tensor.untyped_storage().data_ptr() == pointer)


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.dtype.itemsize}")


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


class _GlobalState:
    """State of torch that a call must leave as it was; restored where it did not."""

    def __init__(self) -> None:
        self.default_dtype = torch.get_default_dtype()
        self.grad_mode = torch.is_grad_enabled()
        self.threads = torch.get_num_threads()
        self.random = torch.random.get_rng_state()
        self.flushes = _flushes()

    def disturbed(self) -> tuple[str, ...]:
        """Names of what has changed since, put back."""
        names = []
        if torch.get_default_dtype() != self.default_dtype:
            names.append("default dtype")
            torch.set_default_dtype(self.default_dtype)
        if torch.is_grad_enabled() != self.grad_mode:
            names.append("grad mode")
            torch.set_grad_enabled(self.grad_mode)
        if torch.get_num_threads() != self.threads:
            names.append("number of threads")
            torch.set_num_threads(self.threads)
        if not torch.equal(torch.random.get_rng_state(), self.random):
            names.append("random state")
            torch.random.set_rng_state(self.random)
        if _flushes() != self.flushes:
            names.append("denormal mode")
            torch.set_flush_denormal(self.flushes)
        return tuple(names)


def _flushes() -> bool:
    """Whether this thread flushes subnormals to zero."""
    return float(torch.full((), 1e-40) * 1.0) == 0.0


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)
