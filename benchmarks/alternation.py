"""Timing several calls in rounds, each once a round, in an order that is drawn anew: noise that lasts longer than a round hits all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

from .ratios import Comparison, compare

__all__ = ["Alternation", "Clock", "on_cpu", "on_cuda"]

Timed = Callable[[], float]
"""Runs something, and returns how many seconds one run of it took."""

_LEAST_BLOCK = 1e-4
"""Seconds that a timed block lasts at least: below it the timer and the call show."""

_TRIES = 8
"""Times that a block is run until one is not preempted: a time in which the processor was given to others measures the others."""

_SLICE = 4e-3
"""Seconds of a scheduler's time slice. A longer call is hardly ever left alone on a busy machine, and is taken as it is."""

_BUSY = 3
"""Times that the scratch memory is filled before a call, so that the device is busy until all of the call has been queued."""


class Clock:
    """A timer for pytest-benchmark that stands still unless told that time has passed.

    pytest-benchmark times what it calls. Here that is a round, in which other calls are run too, and on CUDA the time is the device's.
    """

    __name__ = "seconds of the implementation alone"

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds that have passed, as far as was told."""
        return self.now


class Alternation:
    """Rounds of several timed calls, and the times so far: for a comparison of an implementation, a yardstick and a control."""

    def __init__(self, timed: Mapping[str, Timed], *, seed: int) -> None:
        self._timed = dict(timed)
        self._rng = np.random.default_rng(seed)
        self.times: dict[str, list[float]] = {name: [] for name in timed}

    def round(self) -> None:
        """Time every call once, in a drawn order."""
        names = list(self._timed)
        for k in self._rng.permutation(len(names)):
            self.times[names[k]].append(self._timed[names[k]]())

    def comparison(self, rounds: int, *, continued: int = 4) -> Comparison:
        """The comparison after this many rounds, those so far among them; what is not yet clear goes on by as many, `continued` times."""
        for turn in range(1, continued + 2):
            while len(self.times["yardstick"]) < turn * rounds:
                self.round()
            found = compare(*(self.times[name] for name in ("implementation", "yardstick", "control")))
            if found.clear:
                break
        return found

    def median(self, name: str) -> float:
        """Median time of one of the calls, in seconds."""
        return float(np.median(self.times[name]))


def on_cpu(call: Callable[[], Any]) -> Timed:
    """Times a call by the wall clock, warm; short ones in blocks of several."""

    def elapsed(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            call()
        return time.perf_counter() - start

    call()
    once = min(elapsed(1) for _ in range(3))
    count = max(1, math.ceil(_LEAST_BLOCK / max(once, 1e-9)))
    tries = _TRIES if once < _SLICE else 1

    def timed() -> float:
        for _ in range(tries):
            before = _preemptions()
            seconds = elapsed(count)
            if _preemptions() == before:
                break
        return seconds / count

    return timed


def _preemptions() -> int:
    """How often the processor has been taken from this process; always 0 where the system does not tell."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource is not None else 0


def on_cuda(calls: Sequence[Callable[[], Any]]) -> Timed:
    """Times calls on the device by events, one after the other, each on buffers of its own, so that they are not in a cache.

    Filling scratch memory first keeps the device busy while Python queues the call: what is timed is the device alone.
    """
    import torch

    turns: Iterator[Callable[[], Any]] = cycle(calls)
    cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    scratch = torch.empty(max(3 * cache, 1 << 28), dtype=torch.uint8, device="cuda")
    for call in calls[:3]:
        call()

    def timed() -> float:
        call = next(turns)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        for _ in range(_BUSY):
            scratch.zero_()
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    return timed
