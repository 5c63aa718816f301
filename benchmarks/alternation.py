"""Timing several calls in rounds, each once a round, in an order that is drawn anew: noise that lasts longer than a round hits all."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from ln2d_ref.memory import keep_freed_memory

from .ratios import LEAST_PAIRS, Comparison, compare

__all__ = ["PLACED_FOR", "Alternation", "Clock", "affordable", "now", "on_cpu", "on_cuda"]

Timed = Callable[[], float]
"""Runs something, and returns how many seconds one run of it took."""

_LEAST_BLOCK = 1e-4
"""Seconds that a timed block lasts at least: below it the timer and the call show."""

_LONG = 5e-3
"""Seconds from which on a call is not timed several times to learn how many make a block: one does."""

PLACED_FOR = 5
"""Rounds until calls are put on other memory: an interval from 20 places, the fewest in 100 pairs, covers nearly as often as it says."""

_TRIES = 8
"""Times that a short round is done until one is undisturbed: a thread that was stopped comes back to caches that others have filled."""

_SLICE = 4e-3
"""Seconds of a scheduler's time slice: a longer round is hardly ever left alone on a busy machine, and is taken as it is."""

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
    """Rounds of several timed calls, and the times so far: for a comparison of an implementation, a yardstick and a control.

    `timed` are the calls, or what gives them on other memory each time that it is asked, after every PLACED_FOR rounds. Where memory lies
    changes a call's time by some per cent, by a third where it has many temporaries, and stays so for as long as nothing moves it.
    """

    def __init__(self, timed: Mapping[str, Timed] | Callable[[], Mapping[str, Timed]], *, seed: int) -> None:
        keep_freed_memory()  # else what was freed before decides whether a call's memory is cleared by the system, in midst of the rounds
        self._place = timed if callable(timed) else None
        self._timed: dict[str, Timed] = {} if callable(timed) else dict(timed)
        self._rng = np.random.default_rng(seed)
        self.rounds = 0
        self._order: list[str] = []
        self.placing = 0.0
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self._since = time.perf_counter(), _others_waited()

    def round(self) -> None:
        """Time every call once, in an order that is drawn, and turned round in the next.

        A short round in which this thread was stopped is done again, whichever call it hit.
        """
        self.placing = 0.0
        if self._place is not None and self.rounds % PLACED_FOR == 0:
            start = time.perf_counter()
            self._timed = {}  # whose memory is free before other is looked for
            self._timed = dict(self._place())
            self.placing = time.perf_counter() - start
        drawn = [list(self._timed)[k] for k in self._rng.permutation(len(self._timed))]
        names = self._order = self._order[::-1] if self.rounds % 2 else drawn  # turned round: each comes after each other as often
        for _ in range(_TRIES):
            slices, start = _account()[1], now()
            times = {name: self._timed[name]() for name in names}
            if _account()[1] == slices or now() - start > _SLICE:
                break
        for name, seconds in times.items():
            self.times[name].append(seconds)
        self.rounds += 1

    def comparison(self, rounds: int, *, continued: int = 9) -> Comparison:
        """The comparison after this many rounds, those so far among them; what is not yet clear goes on by as many, `continued` times."""
        for turn in range(1, continued + 2):
            while self.rounds < turn * rounds:
                self.round()
            times = (self.times[name] for name in ("implementation", "yardstick", "control"))
            found = compare(*times, waiting=self._waiting(), placed_for=PLACED_FOR if self._place else None)
            if found.clear:
                break
        return found

    def _waiting(self) -> float:
        """Share of the time since the start that other threads of this process have waited for a processor."""
        start, waited = self._since
        return (_others_waited() - waited) / max(time.perf_counter() - start, 1e-9)

    def median(self, name: str) -> float:
        """Median time of one of the calls, in seconds."""
        return float(np.median(self.times[name]))


def affordable(alternation: Alternation, seconds: float) -> tuple[int, int]:
    """Rounds that end in so many seconds, at most as many as a comparison needs, and how often it may go on by as many.

    One round is spent on the answer.
    """
    start = time.perf_counter()
    alternation.round()
    once = time.perf_counter() - start - alternation.placing
    possible = int(seconds / (once + alternation.placing / PLACED_FOR))
    return max(1, min(LEAST_PAIRS, possible)), int(possible >= 2 * LEAST_PAIRS)


def on_cpu(call: Callable[[], Any]) -> Timed:
    """Times a call by the wall clock, warm, less what this thread waited for a processor; short calls in blocks of several.

    On a busy machine a thread is stopped for several milliseconds in every few. A long call is hit more often than a short one, so
    that the ratio of the two would be wrong, and no control would show it; Linux tells how long the thread waited.
    """

    def elapsed(count: int) -> float:
        start = now()
        for _ in range(count):
            call()
        return max(now() - start, 1e-9)

    call()
    once = elapsed(1)
    if once < _LONG:
        once = min(once, elapsed(1), elapsed(1))
    count = max(1, math.ceil(_LEAST_BLOCK / once))
    return lambda: elapsed(count) / count


def now() -> float:
    """The wall clock, in seconds, less what this thread has waited for a processor."""
    return time.perf_counter() - _account()[0]


def _account() -> tuple[float, int]:
    """Seconds that this thread has been ready to run and was not run, and how often it was let run; 0 where the system does not tell."""
    file = _schedule(threading.get_ident())
    if file is None:
        return 0.0, 0
    _, waited, slices = os.pread(file, 64, 0).split()
    return int(waited) / 1e9, int(slices)


@cache
def _schedule(thread: int) -> int | None:
    """Linux's account of the calling thread, kept open, since it is read around every block."""
    try:
        return os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:
        return None


def _others_waited() -> float:
    """The same of all other threads of this process together: what they wait for, this thread waits for, and that is not taken off."""
    total = 0.0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            if int(task.parent.name) != threading.get_native_id():
                total += int(task.read_text(encoding="ascii").split()[1]) / 1e9
        except (OSError, IndexError):  # a thread that has ended
            continue
    return total


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
