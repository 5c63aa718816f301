"""Where memory lies: physical pages and addresses decide what fits a cache together, and so a call's time, for as long as it keeps them."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import torch

__all__ = ["Padding", "other_memory"]

_FURTHEST = 1 << 22
_LINE = 64

Padding = list[torch.Tensor]
"""Memory that is held so that others lie elsewhere."""


def other_memory(rng: np.random.Generator) -> Padding:
    """Let what is allocated next have other pages than what was freed before, and at times other addresses, while the padding is held."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
    return [torch.empty(int(rng.integers(_FURTHEST // _LINE)) * _LINE, dtype=torch.uint8) for _ in range(4)]


@cache
def _malloc_trim() -> Any:
    """glibc's, which gives all pages that nobody uses back to the system; None with another library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None
