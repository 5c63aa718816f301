"""How many times as long one thing takes as another, and how sure that is: the median log-ratio of alternated pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["LARGEST_CONTROL", "LEAST_PAIRS", "Comparison", "Ratio", "compare", "ratio_of"]

LEAST_PAIRS = 100
"""Pairs below which a ratio is not called one."""

LARGEST_CONTROL = 0.02
"""A control, which compares the yardstick with itself, that is off by more than this makes a result inconclusive."""

LONGEST_WAIT = 0.05
"""Share of the time that other threads of the process may wait for a processor. A longer call is hit more often, unseen by the control."""

NARROW = 0.02
"""How near to the median its interval must end before measuring stops."""

_RESAMPLES = 2000
_CONFIDENCE = 0.99
_BLOCK = 5
"""Neighbours in time share the noise of the machine: blocks of pairs are resampled and not pairs (Künsch 1989)."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of times: its median over the pairs, and a 99 % bootstrap interval of that median."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def beyond(self, other: float, percent: float) -> bool:
        """Whether the whole interval lies more than `percent` above another ratio."""
        return self.low > other * (1.0 + percent / 100.0)


@dataclass(frozen=True)
class Comparison:
    """An implementation's time over the yardstick's, and the control: the yardstick's over its own, in the same rounds."""

    ratio: Ratio
    control: Ratio
    waiting: float = 0.0

    @property
    def conclusive(self) -> bool:
        """Whether the control is off by at most 2 %, and other threads waited for a processor during at most 5 % of the time."""
        return self.waiting <= LONGEST_WAIT and abs(np.log(self.control.median)) <= np.log1p(LARGEST_CONTROL)

    @property
    def clear(self) -> bool:
        """Whether it is conclusive, and the interval ends within 2 % of the median."""
        return self.conclusive and max(self.ratio.high / self.ratio.median, self.ratio.median / self.ratio.low) <= 1.0 + NARROW

    @property
    def verdict(self) -> str:
        """In one word or two; a difference that a control may show is none, and an interval that reaches further is unclear."""
        if self.ratio.pairs < LEAST_PAIRS:
            return "too few pairs"
        if not self.conclusive:
            return "inconclusive"
        if self.ratio.high < 1.0 / (1.0 + LARGEST_CONTROL):
            return "faster"
        if self.ratio.low > 1.0 + LARGEST_CONTROL:
            return "slower"
        furthest = (1.0 + LARGEST_CONTROL) * (1.0 + NARROW)
        return "no different" if 1.0 / furthest <= self.ratio.low and self.ratio.high <= furthest else "unclear"


def ratio_of(numerator: Sequence[float], denominator: Sequence[float], *, placed_for: int | None = None, seed: int = 0) -> Ratio:
    """Median of the pairs' ratios with its interval; the same times and seed give the same.

    `placed_for`: so many pairs in a row were measured on the same memory, and the next ones on other; None where all were on the same.

    Raises ValueError where the two are of different length, empty, or hold a time that is not positive and finite.
    """
    times = np.array([numerator, denominator], dtype=np.float64) if len(numerator) == len(denominator) else None
    if times is None or times.size == 0:
        raise ValueError(f"{len(numerator)} and {len(denominator)} times do not make pairs")
    if not (np.isfinite(times) & (times > 0)).all():
        raise ValueError("a time is not positive and finite")
    logs = np.log(times[0] / times[1])
    median, low, high = (float(np.exp(value)) for value in (np.median(logs), *_interval(logs, placed_for, np.random.default_rng(seed))))
    return Ratio(median, low, high, logs.size)


def compare(
    implementation: Sequence[float],
    yardstick: Sequence[float],
    control: Sequence[float],
    *,
    waiting: float = 0.0,
    placed_for: int | None = None,
    seed: int = 0,
) -> Comparison:
    """The comparison that times of the same rounds give; `control` are times of the yardstick, run once more in each round."""
    ratio, off = (ratio_of(times, yardstick, placed_for=placed_for, seed=seed) for times in (implementation, control))
    return Comparison(ratio, off, waiting)


def _interval(values: np.ndarray, placed_for: int | None, rng: np.random.Generator) -> tuple[float, float]:
    """Bootstrap interval of the median, of pairs on the same memory as a whole (Davison & Hinkley 1997, §3.8), else of moving blocks."""
    count = values.size
    if placed_for is None or count < 2 * placed_for:
        block = max(1, min(_BLOCK, count // 20))
        starts = rng.integers(count, size=(_RESAMPLES, -(-count // block)))
    else:
        block = placed_for
        starts = block * rng.integers(count // block, size=(_RESAMPLES, count // block))
    places = (starts[:, :, None] + np.arange(block)) % count
    medians = np.median(values[places.reshape(_RESAMPLES, -1)[:, :count]], axis=1)
    low, high = np.quantile(medians, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    median = float(np.median(values))  # which may lie outside where the last pairs make no whole block
    return min(float(low), median), max(float(high), median)
