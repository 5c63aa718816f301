"""Executor of PyTorch implementations: eager, compiled, or kernels behind torch's autograd."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Barrier, Thread
from typing import Any

import ml_dtypes
import numpy as np
import torch

from ..case import Case
from ..directions import directions, members
from ..dtypes import DTYPES
from ..layout import Layout, Storage, place
from ..outcome import Outcome, Raised, Result
from .implementation import Implementation
from .torch_state import MODES, GlobalState, threads
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
        if self.memory.device.type == "meta":
            return self.before  # it holds nothing
        return self.storage.buffer if self.memory.device.type == "cpu" else to_numpy(self.memory)


@dataclass
class _Placed:
    case: Case
    arguments: dict[str, _Argument]
    earlier: list[tuple[str, torch.Tensor, np.ndarray]] = field(default_factory=list)

    def tensor(self, name: str) -> torch.Tensor | None:
        argument = self.arguments.get(name)
        return None if argument is None else argument.tensor

    @property
    def call(self) -> tuple[torch.Tensor | None, ...]:
        """The tensors of a call."""
        return tuple(self.tensor(name) for name in ("x", "weight", "bias"))


class TorchExecutor:
    """Runs an implementation on torch tensors; gradients by torch.autograd.grad."""

    ways: tuple[str, ...] = tuple(WAYS)
    modes: tuple[str, ...] = tuple(filter(None, MODES))
    offers: frozenset[str] = frozenset({"attempt", "graph", "threads"})

    def __init__(self, implementation: Implementation) -> None:
        self.implementation = implementation

    def place(self, case: Case) -> _Placed:
        """Tensors over fresh storages on the case's device."""
        return _Placed(
            case,
            {
                name: _argument(place(array, case.laid_out(name)), case.device, name in case.requires_grad)
                for name, array in case.arrays.items()
            },
        )

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
        with threads(case.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what an implementation warns of is not judged
            state = GlobalState()
            stage = "forward"
            try:
                y = self.function(case)(*placed.call, case.eps)
                returned["y"] = y
                results["y"] = _result(y)
                stage = "backward"
                gradients = _gradients(y, placed)
                returned |= gradients
                results |= {name: _result(gradient) for name, gradient in gradients.items()}
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
        with threads(case.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = GlobalState()
            try:
                results = WAYS[way](self.implementation.fn, given, case.eps, along, then, batch)
                return Outcome({name: _result(value) for name, value in results.items()}, disturbed=state.disturbed())
            except Exception as error:
                return Outcome(raised=Raised(way, type(error).__name__, str(error)), disturbed=state.disturbed())

    def attempt(
        self, placed: _Placed, given: Mapping[str, np.ndarray], *, mode: str = "", devices: Mapping[str, str] | None = None
    ) -> Outcome:
        """One call in a mode with other arrays in the place of some arguments; differentiated outside the mode where there is none."""
        case, devices = placed.case, devices or {}
        others = {
            name: _argument(_guarded(array), devices.get(name, case.device), _is_floating(array) and name in case.requires_grad)
            for name, array in given.items()
        }
        others |= {name: _argument(placed.arguments[name].storage, device, False) for name, device in devices.items() if name not in others}
        attempted = _Placed(case, placed.arguments | others)
        results, raised, stage = {}, None, "forward"
        with threads(case.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = GlobalState()
            try:
                with MODES[mode](case.device):
                    y = self.function(case)(*attempted.call, case.eps)
                results["y"] = _result(y)
                stage = "backward"
                if not mode:
                    results |= {name: _result(gradient) for name, gradient in _gradients(y, attempted, cast=True).items()}
            except Exception as error:
                raised = self.told(stage, error)
            disturbed = state.disturbed()
        changed, spilled = _changes(attempted)
        return Outcome(results, raised, changed, spilled, disturbed=disturbed)

    def again(self, placed: _Placed) -> tuple[Outcome, Outcome]:
        """One call, differentiated twice over the same graph: the first gradients, as they came, and the second."""
        first, second, raised, stage = {}, {}, None, "forward"
        rewritten: tuple[str, ...] = ()
        with threads(placed.case.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = GlobalState()
            try:
                y = self.function(placed.case)(*placed.call, placed.case.eps)
                stage = "backward"
                gradients = _gradients(y, placed, retain=True)
                first = {name: _result(gradient) for name, gradient in gradients.items()}
                second = {name: _result(gradient) for name, gradient in _gradients(y, placed, retain=True).items()}
                rewritten = tuple(name for name, was in first.items() if not _same_result(was, _result(gradients[name])))
            except Exception as error:
                raised = self.told(stage, error)
            state.disturbed()
        return Outcome(first), Outcome(second, raised, rewritten=rewritten)

    def rewrite(self, placed: _Placed, name: str, array: np.ndarray) -> Outcome:
        """Call, overwrite one argument in place so that autograd can tell, differentiate, and put the old values back."""
        argument, results, raised, stage = placed.arguments[name], {}, None, "forward"
        other = np.array(argument.before)
        Storage(other, argument.storage.shape, argument.storage.strides, argument.storage.offset).view()[...] = array
        with threads(placed.case.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = GlobalState()
            try:
                y = self.function(placed.case)(*placed.call, placed.case.eps)
                with torch.no_grad():
                    argument.memory.copy_(to_torch(other))
                    torch.autograd.graph.increment_version(argument.tensor)  # it is no view of the memory
                stage = "backward"
                results = {key: _result(gradient) for key, gradient in _gradients(y, placed).items()}
            except Exception as error:
                raised = self.told(stage, error)
            state.disturbed()
        self.overwrite(placed, placed.case)
        return Outcome(results, raised)

    def together(self, cases: Sequence[Case]) -> list[Outcome]:
        """One call and backward for each case, each in a thread of its own, all at once."""
        outcomes, barrier = [Outcome()] * len(cases), Barrier(len(cases))

        def one(number: int, placed: _Placed) -> None:
            results, raised, stage = {}, None, "forward"
            barrier.wait()
            try:
                y = self.function(placed.case)(*placed.call, placed.case.eps)
                results["y"] = _result(y)
                stage = "backward"
                results |= {name: _result(gradient) for name, gradient in _gradients(y, placed).items()}
            except Exception as error:
                raised = self.told(stage, error)
            outcomes[number] = Outcome(results, raised)

        running = [Thread(target=one, args=(number, self.place(case))) for number, case in enumerate(cases)]
        with threads(cases[0].threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = GlobalState()
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
            state.disturbed()
        return outcomes


def _on(array: np.ndarray, case: Case) -> torch.Tensor:
    return to_torch(np.array(array)).to(case.device)


def _argument(storage: Storage, device: str, requires_grad: bool) -> _Argument:
    memory = to_torch(storage.buffer).to(device)
    tensor = torch.empty(0, dtype=memory.dtype, device=memory.device)  # no view, whose base a compiler would guard on
    tensor.set_(memory.untyped_storage(), storage.offset, storage.shape, storage.strides)
    tensor.requires_grad_(requires_grad)
    return _Argument(storage, memory, tensor, storage.buffer.copy())


def _is_floating(array: np.ndarray) -> bool:
    return array.dtype in {row.numpy for row in DTYPES.values()}


def _guarded(array: np.ndarray) -> Storage:
    """A contiguous array in a storage of its own; integers, among which none is poison, have no guard."""
    if _is_floating(array):
        return place(array, Layout())
    return Storage(array.reshape(-1).copy(), array.shape, Layout().strides(array.shape), 0)


def _result(value: Any) -> Result:
    if not isinstance(value, torch.Tensor):
        return Result(type(value).__name__)
    dtype = str(value.dtype).removeprefix("torch.")
    array = to_numpy(value) if value.dtype in _FLOATING and value.device.type != "meta" else None
    return Result("Tensor", array, dtype, value.device.type)


def _same_result(a: Result, b: Result) -> bool:
    return a.array is None or b.array is None or _same_bits(a.array, b.array)


def _gradients(y: Any, placed: _Placed, *, retain: bool = False, cast: bool = False) -> dict[str, Any]:
    """Gradients by quantity, for dy or, with `cast`, for dy in y's dtype; none where y cannot be differentiated with it."""
    dy, names = placed.tensor("dy"), placed.case.requires_grad
    if not isinstance(y, torch.Tensor) or dy is None or not names:
        return {}
    if cast and y.is_floating_point():
        dy = dy.to(y.dtype)
    if not (y.requires_grad and y.shape == dy.shape and y.dtype == dy.dtype and y.device == dy.device):
        return {}
    arguments = [placed.arguments[name].tensor for name in names]
    gradients = torch.autograd.grad(y, arguments, dy, retain_graph=retain, allow_unused=True)
    return {f"d{name}": gradient for name, gradient in zip(names, gradients, strict=True)}


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
