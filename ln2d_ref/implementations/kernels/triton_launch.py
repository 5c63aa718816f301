"""How Triton kernels are run: compiled for a GPU, or by Triton's interpreter on the CPU.

Without a GPU this module sets TRITON_INTERPRET=1, where it is not set: Triton looks at it when a kernel is defined.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton
import triton.language as tl

__all__ = ["INTERPRETED", "launch", "power", "processors", "readable"]

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether kernels run on the CPU in this process."""

_ONE_AT_A_TIME = Lock()
"""The interpreter patches triton.language for the time of a launch, and keeps the program's number in one place."""


def launch(kernel: Any, programs: int, x: Tensor, *arguments: Any, elements: int = 4096, **constants: Any) -> None:
    """Run a kernel on x's device, on the current stream, with a warp for each 1024 elements of its tiles; every grid is in x alone."""
    acc = tl.float64 if x.dtype == torch.float64 else tl.float32
    if INTERPRETED:
        with _ONE_AT_A_TIME, np.errstate(all="ignore"), _interpretable():
            kernel[(programs,)](*arguments, ACC=acc, **constants)
        return
    with torch.cuda.device(x.device):
        kernel[(programs,)](*arguments, ACC=acc, num_warps=min(16, max(4, elements // 1024)), **constants)


def readable(*tensors: Tensor | None) -> tuple[Any, ...]:
    """The tensors as the kernels can read them.

    Triton's interpreter cuts float32 to bfloat16 instead of rounding, and takes bfloat16's subnormals for others (docs/findings.md), so
    under it PyTorch widens bfloat16 to float32 beforehand, which is exact, and rounds results afterwards.
    """
    if not INTERPRETED:
        return tensors
    return tuple(tensor.float() if tensor is not None and tensor.dtype == torch.bfloat16 else tensor for tensor in tensors)


def power(number: int) -> int:
    """The smallest power of two that is not less than a number."""
    return 1 << max(0, number - 1).bit_length()


def processors(x: Tensor) -> int:
    """Multiprocessors of x's device; 1 for the interpreter."""
    return 1 if INTERPRETED else torch.cuda.get_device_properties(x.device).multi_processor_count


@contextmanager
def _interpretable() -> Iterator[None]:
    """Triton's own functions, such as tl.sum, in a form that the interpreter can call.

    They have another where something, such as torch.compile, imported Triton before TRITON_INTERPRET was set.
    """
    for (module, name), (interpreted, _) in _own_functions().items():
        setattr(module, name, interpreted)
    try:
        yield
    finally:
        for (module, name), (_, compiled) in _own_functions().items():
            setattr(module, name, compiled)


@cache
def _own_functions() -> dict[tuple[Any, str], tuple[Any, Any]]:
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    return {
        (module, name): (InterpretedFunction(value.fn), value)
        for module in (tl, tl.standard)
        for name, value in vars(module).items()
        if isinstance(value, JITFunction)
    }
