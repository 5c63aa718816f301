"""Calls that are queued on a GPU before their arguments hold the values that count: on a stream of their own, and in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from ..case import Case
from .torch_placed import Placed

__all__ = ["QUEUED", "NotCaptured", "NotInTime"]

_BUSY = 50_000_000
"""Cycles that a stream waits before the values arrive, some 30 ms: longer than it takes to queue a call and its backward."""

_WARM = 3
"""Calls before one is captured, in which code is compiled and memory found (https://docs.pytorch.org/docs/stable/notes/cuda.html)."""

Call = Callable[[], dict[str, Any]]


class NotCaptured(Exception):
    """A call that cannot be captured, which is no fault."""


class NotInTime(Exception):
    """A call that took so long to queue that the values were there before: nothing was shown."""


def _on_another_stream(placed: Placed, case: Case, call: Call) -> dict[str, Any]:
    """Whatever is queued on another stream than the current one runs before the values are there."""
    stream, arrived = torch.cuda.Stream(), torch.cuda.Event()
    arriving = placed.arriving(case)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        call()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(_BUSY)
        arriving()
        arrived.record(stream)
        results = call()
    late = arrived.query()
    torch.cuda.synchronize()
    if late:
        raise NotInTime("the values arrived before the call was queued")
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
    try:
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):  # a capture that fails leaves its own stream current
            results = call()
    except Exception as error:
        raise NotCaptured(f"{type(error).__name__}: {error}") from error
    placed.arriving(case)()
    graph.replay()
    torch.cuda.synchronize()
    return results


QUEUED: Mapping[str, Callable[[Placed, Case, Call], dict[str, Any]]] = MappingProxyType(
    {"on another stream": _on_another_stream, "replayed from a CUDA graph": _replayed}
)
"""How a call may be queued: given tensors that hold other values, the case whose values arrive, and the call; results by quantity."""
