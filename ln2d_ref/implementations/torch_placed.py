"""A case on torch tensors: storages with guard gaps, and, bit by bit, what a run has changed in them or shares with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import torch

from ..case import Case
from ..dtypes import DTYPES
from ..layout import CONTIGUOUS, Storage, place

__all__ = ["Argument", "Placed", "guarded", "is_floating", "same_bits", "to_numpy", "to_torch"]


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


def is_floating(array: np.ndarray) -> bool:
    """Whether an array's dtype is one of ours."""
    return array.dtype in {row.numpy for row in DTYPES.values()}


def guarded(array: np.ndarray) -> Storage:
    """A contiguous array in a storage of its own; integers, among which none is poison, have no guard."""
    if is_floating(array):
        return place(array, CONTIGUOUS)
    return Storage(array.reshape(-1).copy(), array.shape, CONTIGUOUS.strides(array.shape), 0)


@dataclass
class Argument:
    """One argument: the host's storage, the device's storage, the tensor over it, and what the storage held before a run."""

    storage: Storage
    memory: torch.Tensor
    tensor: torch.Tensor
    before: np.ndarray

    @staticmethod
    def over(storage: Storage, device: str, requires_grad: bool) -> Argument:
        """A tensor over a storage, or over its copy on another device."""
        memory = to_torch(storage.buffer).to(device)
        tensor = torch.empty(0, dtype=memory.dtype, device=memory.device)  # no view, whose base a compiler would guard on
        tensor.set_(memory.untyped_storage(), storage.offset, storage.shape, storage.strides)
        tensor.requires_grad_(requires_grad)
        return Argument(storage, memory, tensor, storage.buffer.copy())

    def overwrite(self, array: np.ndarray) -> None:
        """Write through the storage, past autograd and the version counter."""
        if array.size:
            self.storage.view()[...] = array
        if self.memory.device.type != "cpu":
            self.memory.data.copy_(to_torch(self.storage.buffer))
        self.before = self.storage.buffer.copy()

    def after(self) -> np.ndarray:
        """What the storage holds now."""
        if self.memory.device.type == "meta":
            return self.before  # it holds nothing
        return self.storage.buffer if self.memory.device.type == "cpu" else to_numpy(self.memory)


@dataclass
class Placed:
    """A case's arguments by name, and each result of an earlier run with the values that it had."""

    case: Case
    arguments: dict[str, Argument]
    earlier: list[tuple[str, torch.Tensor, np.ndarray]] = field(default_factory=list)

    @staticmethod
    def of(case: Case) -> Placed:
        """Tensors over fresh storages on the case's device."""
        return Placed(
            case,
            {
                name: Argument.over(place(array, case.laid_out(name)), case.device, name in case.requires_grad)
                for name, array in case.arrays.items()
            },
        )

    def tensor(self, name: str) -> torch.Tensor | None:
        """An argument's tensor, or None."""
        argument = self.arguments.get(name)
        return None if argument is None else argument.tensor

    @property
    def call(self) -> tuple[torch.Tensor | None, ...]:
        """The tensors of a call."""
        return tuple(self.tensor(name) for name in ("x", "weight", "bias"))

    def overwrite(self, case: Case) -> None:
        """Put another case's values in.

        A gradient may live in dy's storage (where one row is summed, autograd hands dy out as dbias), and then changes with it.
        """
        for name, array in case.arrays.items():
            self.arguments[name].overwrite(array)
        owned = {argument.memory.untyped_storage().data_ptr() for argument in self.arguments.values()}
        self.earlier = [entry for entry in self.earlier if entry[1].untyped_storage().data_ptr() not in owned]
        self.case = case

    def arriving(self, case: Case) -> Callable[[], None]:
        """Another case's values, already on the device: a call that queues their writing on the current stream."""
        fresh = {name: Argument.over(place(array, case.laid_out(name)), case.device, False) for name, array in case.arrays.items()}

        def arrive() -> None:
            for name, argument in fresh.items():
                self.arguments[name].memory.data.copy_(argument.memory)

        return arrive

    def changes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Arguments changed at their elements, and outside them."""
        changed, spilled = [], []
        for name, argument in self.arguments.items():
            after = argument.after()
            if not same_bits(after, argument.before):
                different = _bits(after) != _bits(argument.before)
                gaps = argument.storage.gaps()
                if (different & ~gaps).any():
                    changed.append(name)
                if (different & gaps).any():
                    spilled.append(name)
        return tuple(changed), tuple(spilled)

    def shared(self, y: Any) -> tuple[str, ...]:
        """What y shares its storage with: arguments, and outputs of earlier runs."""
        if not isinstance(y, torch.Tensor) or y.numel() == 0:
            return ()
        pointer = y.untyped_storage().data_ptr()
        owners = {name: argument.tensor for name, argument in self.arguments.items()}
        owners |= {f"an earlier {name}": tensor for name, tensor, _ in self.earlier if name == "y"}
        return tuple(name for name, tensor in owners.items() if tensor.untyped_storage().data_ptr() == pointer)

    def rewritten(self) -> tuple[str, ...]:
        """Earlier results that no longer have the values they had."""
        return tuple(name for name, tensor, array in self.earlier if not same_bits(to_numpy(tensor), array))

    def keep(self, results: Iterable[tuple[str, torch.Tensor, np.ndarray]]) -> None:
        """Results to compare with after the next run."""
        self.earlier += results


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.dtype.itemsize}")


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same bytes."""
    return a.tobytes() == b.tobytes()
