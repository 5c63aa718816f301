"""Algorithms for mean and variance. A `Statistics` takes x of shape (groups, n) and returns both, of shape (groups, 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .exact import Array
from .sums import LONGEST_CHAIN, Sums, chain_length, sequential

__all__ = ["Statistics", "chan", "two_pass", "welford"]

Statistics = Callable[[Array, Sums], tuple[Array, Array]]
_Divide = Callable[[Array, float], Array]


@dataclass(frozen=True)
class _Moments:
    """Blocks of values: how many each holds, (blocks,); their means and sums of squared deviations, (groups, blocks)."""

    count: NDArray[np.int64]
    mean: Array
    squares: Array


def two_pass(x: Array, sums: Sums) -> tuple[Array, Array]:
    """Mean, then var = mean((x - mean)²), uncorrected (Higham 2002, §1.9)."""
    mean = sums.mean(x)
    d = x - mean
    return mean, sums.mean(d * d)


def chan(width: int) -> Statistics:
    """Two passes inside each block of `width` values; the blocks are then merged from the left (Chan, Golub & LeVeque 1983)."""

    def block(x: Array) -> _Moments:
        sums = Sums(sequential)
        mean = sums.mean(x)
        d = x - mean
        return _Moments(np.array([x.shape[1]]), mean, sums.total(d * d))

    return _in_blocks(block, lambda n: width, LONGEST_CHAIN - width)


def welford(*, by_reciprocal: bool) -> Statistics:
    """One value at a time (Welford 1962): M += (x - M)/k, Q += (x - M_before)(x - M_after), var = Q/n.

    `by_reciprocal` multiplies by the rounded 1/k instead of dividing by k, as kernels do to save the division. Chains end at
    LONGEST_CHAIN values: longer groups are cut into blocks, which are merged by Chan's formula.
    """

    def block(x: Array) -> _Moments:
        columns = np.ascontiguousarray(x.T)
        counts = np.arange(1, len(columns) + 1).astype(x.dtype)[:, None]
        divisors = 1 / counts if by_reciprocal else counts
        divide = np.multiply if by_reciprocal else np.divide
        means = np.empty_like(columns)
        mean = means[0] = columns[0]
        for column, divisor, after in zip(columns[1:], divisors[1:], means[1:], strict=True):
            mean = np.add(mean, divide(column - mean, divisor), out=after)
        products = (columns[1:] - means[:-1]) * (columns[1:] - means[1:])
        squares = sequential(products.T) if len(products) else np.zeros_like(mean)
        return _Moments(np.array([len(columns)]), mean[:, None], squares[:, None])

    return _in_blocks(block, chain_length, LONGEST_CHAIN)


def _in_blocks(block: Callable[[Array], _Moments], width_for: Callable[[int], int], longest: int) -> Statistics:
    """Statistics from `block`'s, on blocks of `width_for(n)` values each and one of what is left over."""

    def statistics(x: Array, sums: Sums) -> tuple[Array, Array]:
        groups, n = x.shape
        width = width_for(n)
        whole = n - n % width
        parts = []
        if whole:
            rows = block(x[:, :whole].reshape(-1, width))
            shape = (groups, whole // width)
            parts.append(_Moments(np.full(shape[1], width), rows.mean.reshape(shape), rows.squares.reshape(shape)))
        if whole < n:
            parts.append(block(x[:, whole:]))
        merged = _merge(_joined(parts), longest)
        return merged.mean, merged.squares / x.dtype.type(n)

    return statistics


def _joined(parts: list[_Moments]) -> _Moments:
    """The blocks of all parts, side by side."""
    return _Moments(
        np.concatenate([part.count for part in parts]),
        np.concatenate([part.mean for part in parts], axis=1),
        np.concatenate([part.squares for part in parts], axis=1),
    )


def _merge(blocks: _Moments, longest: int) -> _Moments:
    """All blocks as one, merged from the left, with at most `longest` merges in a chain.

    M = M_a + δ n_b/n, Q = Q_a + (Q_b + δ² n_a n_b/n), δ = M_b - M_a (Chan, Golub & LeVeque 1983, eq. 2.1).
    """
    number = len(blocks.count)
    length = chain_length(number, longest)
    if length < number:
        cuts = [slice(start, start + length) for start in range(0, number, length)]
        pieces = [_Moments(blocks.count[cut], blocks.mean[:, cut], blocks.squares[:, cut]) for cut in cuts]
        return _merge(_joined([_merge(piece, longest) for piece in pieces]), longest)
    counts = blocks.count.tolist()
    means, squared = np.ascontiguousarray(blocks.mean.T), np.ascontiguousarray(blocks.squares.T)
    count, mean, squares = counts[0], means[0], squared[0]
    for other_count, other_mean, other_squares in zip(counts[1:], means[1:], squared[1:], strict=True):
        total = count + other_count
        delta = other_mean - mean
        mean = mean + delta * (other_count / total)
        squares = squares + (other_squares + delta * delta * (count * other_count / total))
        count = total
    return _Moments(np.array([count]), mean[:, None], squares[:, None])
