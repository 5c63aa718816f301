"""What the tests of the fused kernels share."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from ln2d_ref import Case, load

__all__ = ["a_case", "device_of", "loaded", "module_of"]


def loaded(name: str):
    """The implementation, or a skip that says what is not there."""
    try:
        return load(name)
    except ImportError as error:
        pytest.skip(f"{name}: {error}")


def module_of(family: str):
    return importlib.import_module(f"ln2d_ref.implementations.kernels.{family}_fused")


def device_of(family: str) -> str:
    return module_of(family).DEVICES[0]


def a_case(shape, *, semantics="channel", parameter=None, dtype=np.float32, seed=0, **details) -> Case:
    """Normal data, with an offset, of this shape."""
    rng = np.random.Generator(np.random.PCG64(seed))
    parameter = shape[1:2] if parameter is None else parameter
    x, weight, bias, dy = (rng.standard_normal(size).astype(dtype) for size in (shape, parameter, parameter, shape))
    return Case(x + dtype(3), weight, bias, dy, eps=1e-5, semantics=semantics, **details)
