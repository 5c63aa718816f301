"""Tensors of more than 2**31 elements and of more than 65,535 samples, on a GPU."""

from __future__ import annotations

import math

import pytest
import torch

from ln2d_ref.dtypes import DTYPES
from ln2d_ref.implementations import unavailable
from ln2d_ref.ledger import known_fault
from strategies.large import judge_large, large_dtype

SHAPES = {
    "channel": ((1, 64, 5795, 5795), (70_000, 64, 22, 22)),
    "sample": ((520, 64, 256, 256), (70_000, 64, 22, 22)),
}
"""By semantics: few samples, in channel semantics with rows of odd length; and many samples."""

_TENSORS = 8
"""Tensors like x that a forward and backward may hold: x, dy, y, dx, and what autograd keeps."""


def test_large(implementation, record_property, request):
    """y and dx within their bounds everywhere, and dweight and dbias for terms anywhere."""
    reason = unavailable(implementation)
    if reason is not None or request.config.getoption("--device") != "cuda" or "cuda" not in implementation.devices:
        pytest.skip(reason or "tensors of more than 2**31 elements are judged on a GPU alone (--device cuda)")
    left_out = []
    for shape in SHAPES[implementation.semantics]:
        torch.cuda.empty_cache()
        size = math.prod(shape) * DTYPES[large_dtype(implementation)].numpy.itemsize
        if torch.cuda.mem_get_info()[0] < _TENSORS * size:
            left_out.append(shape)
            continue
        try:
            found = judge_large(implementation, shape)
        except MemoryError:
            left_out.append(shape)
            continue
        for violation in found:
            entry = known_fault(violation, implementation)
            if entry is None:
                try:
                    torch.cuda.synchronize()
                except RuntimeError as error:  # an illegal access: whatever came next would be blamed for it
                    pytest.exit(f"{violation}\n\nThe GPU answers no more: {error}", 1)
                raise violation
            record_property("ln2d_ref", {"known": {entry.name: 1}})
    if left_out:
        pytest.skip(f"too little memory on the GPU for {', '.join(map(str, left_out))}")
