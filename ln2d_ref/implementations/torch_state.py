"""Torch's global state: watched, put back, and set for the time of a call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

__all__ = ["MODES", "watched"]


MODES: Mapping[str, Callable[[str], AbstractContextManager[Any]]] = MappingProxyType(
    {
        "": lambda device: nullcontext(),
        "no_grad": lambda device: torch.no_grad(),
        "inference_mode": lambda device: torch.inference_mode(),
        "autocast to bfloat16": partial(torch.autocast, dtype=torch.bfloat16),
        "autocast to float16": partial(torch.autocast, dtype=torch.float16),
    }
)
"""What a call may be made in, by name, for a device; "" is as users start."""


_SUBNORMAL, _ONE = np.float32(1e-40), np.float32(1.0)


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
    """Whether this thread flushes subnormals to zero: of the processor, and so of NumPy's arithmetic too, which is asked at less cost."""
    return float(_SUBNORMAL * _ONE) == 0.0


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set the number of threads for the time of a with statement."""
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)


@contextmanager
def watched(count: int) -> Iterator[list[str]]:
    """So many threads, and no warnings, which are not judged; what of the global state was changed is put back, and listed at the end."""
    disturbed: list[str] = []
    with _threads(count), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = _GlobalState()
        try:
            yield disturbed
        finally:
            disturbed += state.disturbed()
