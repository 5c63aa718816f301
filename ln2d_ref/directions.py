"""Directions in which a case is differentiated, and the batch that vmap maps over: made from its arrays, so that no case carries them."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from .case import Case

__all__ = ["directions", "members"]

_SEEDS = {"x": 0x9E3779B9, "weight": 0x85EBCA6B, "bias": 0xC2B2AE35}


def directions(case: Case, which: int) -> dict[str, np.ndarray]:
    """A direction for each argument that requires grad, of its shape and dtype: odd multiples of 1/16 in (-2, 2), none of them 0.

    They follow from the bytes of x, the argument's name and `which` (0, 1 …) by 32-bit integer arithmetic alone (two rounds of a
    multiply and shift hash), so that they are the same everywhere and exact in every dtype.
    """
    seed = zlib.crc32(np.ascontiguousarray(case.x).view(np.uint8).tobytes())
    return {name: _direction(getattr(case, name), seed ^ _SEEDS[name] ^ which * 0x27D4EB2F) for name in case.requires_grad}


def members(case: Case, *, parameters: bool) -> tuple[Case, Case]:
    """The case, and the case with x and dy (and, if `parameters`, weight and bias) reversed along every axis; both contiguous."""
    names = ("x", "dy", *(("weight", "bias") if parameters else ()))
    reversed_: dict[str, Any] = {name: np.ascontiguousarray(np.flip(array)) for name, array in case.arrays.items() if name in names}
    return case.densely(), replace(case.densely(), **reversed_)


def _direction(like: np.ndarray, seed: int) -> np.ndarray:
    mixed = np.arange(1, like.size + 1, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(seed & 0xFFFFFFFF)
    for factor in (2246822519, 3266489917):
        mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(factor)
    odd = (mixed >> np.uint32(27)).astype(np.float64) * 2.0 - 31.0
    return (odd / 16.0).reshape(like.shape).astype(like.dtype)
