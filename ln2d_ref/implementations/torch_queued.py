"""Calls that are queued on a GPU before their arguments hold the values that count: on a stream of their own, and in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from ..case import Case
from .torch_placed import Placed

__all__ = ["QUEUED"]

_BUSY = 50_000_000
"""Cycles that a stream waits before the values arrive, some 30 ms: longer than it takes to queue a call and its backward."""

_WARM = 3
"""Calls before one is captured, in which code is compiled and memory found (https://docs.pytorch.org/docs/stable/notes/cuda.html)."""

Call = Callable[[], dict[str, Any]]


def _on_another_stream(placed: Placed, case: Case, call: Call) -> dict[str, Any]:
    """Whatever is queued on another stream than the current one runs before the values are there."""
    call()
    arriving = placed.arriving(case)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(_BUSY)
        arriving()
        results = call()
    torch.cuda.synchronize()
    return results


def _replayed(placed: Placed, case: Case, call: Call) -> dict[str, Any]:
    """Captured with other values: what was looked at then, and is kept, shows."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    placed.arriving(case)()
    graph.replay()
    torch.cuda.synchronize()
    return results


QUEUED: Mapping[str, Callable[[Placed, Case, Call], dict[str, Any]]] = MappingProxyType(
    {"on another stream": _on_another_stream, "replayed from a CUDA graph": _replayed}
)
"""How a call may be queued: given tensors that hold other values, the case whose values arrive, and the call; results by quantity."""
