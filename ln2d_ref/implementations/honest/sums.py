"""Orders of summation. A `Sum` takes terms of shape (rows, terms) and returns one sum a row, in the terms' dtype.

No chain of additions is longer than LONGEST_CHAIN - 1: an unblocked single-precision chain beyond that is outside the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .exact import Array, sum_error

__all__ = ["LONGEST_CHAIN", "Sum", "Sums", "backwards", "blocked", "chain_length", "compensated", "pairwise", "sequential"]
__all__ += ["shuffled"]

LONGEST_CHAIN = 4096  # docs, "Bounds": the longest sum of n terms that may be one chain of n - 1 additions

Sum = Callable[[Array], Array]


@dataclass(frozen=True)
class Sums:
    """The sums and means that one implementation forms. `reciprocal`: a mean is Σ times the rounded 1/n instead of Σ / n."""

    add: Sum
    reciprocal: bool = False

    def total(self, terms: Array) -> Array:
        """Sum over each row, of shape (rows, 1)."""
        return self.add(terms)[:, None]

    def mean(self, terms: Array) -> Array:
        """Mean over each row, of shape (rows, 1)."""
        count = terms.dtype.type(terms.shape[1])
        return self.total(terms) * (1 / count) if self.reciprocal else self.total(terms) / count


def chain_length(terms: int, longest: int = LONGEST_CHAIN) -> int:
    """Length L of the longest blocks, B in number, with L + B <= longest + 1: no chain within and across them is then too long.

    It is `terms` itself up to `longest`, and `longest + 1 - B` beyond. Where no B will do (past longest²/4), half of `longest`.
    """
    if terms <= longest:
        return max(terms, 1)
    fits = (longest + 1 - blocks for blocks in range(2, longest // 2 + 2) if blocks * (longest + 1 - blocks) >= terms)
    return next(fits, longest // 2)


def sequential(terms: Array, longest: int = LONGEST_CHAIN) -> Array:
    """((t1 + t2) + t3) + …, strictly from the left; past `longest` terms in blocks, whose sums are added from the left as well.

    NumPy's add.accumulate is such a chain: each partial sum is stored, rounded (tests/meta/test_honest.py checks it).
    """
    count = terms.shape[1]
    length = chain_length(count, longest)
    if length >= count:
        return np.add.accumulate(terms, axis=1)[:, -1]
    return sequential(_chains(terms, length), max(-(-count // length), longest // 2))


def backwards(terms: Array) -> Array:
    """t1 + (t2 + (t3 + …)): the same chain from the right."""
    return sequential(terms[:, ::-1])


def blocked(width: int) -> Sum:
    """Sum of blocks of `width` terms, each from the left, and then of the blocks' sums from the left."""

    def add(terms: Array) -> Array:
        return sequential(_chains(terms, width), LONGEST_CHAIN - width)

    return add


def pairwise(terms: Array) -> Array:
    """Sum by a tree of depth ceil(log2(n)), one half added to the other at each level (Higham 2002, §4.1)."""
    while (count := terms.shape[1]) > 1:
        half = count // 2
        pairs = terms[:, :half] + terms[:, half : 2 * half]
        terms = np.concatenate([pairs, terms[:, 2 * half :]], axis=1)
    return terms[:, 0]


def compensated(terms: Array) -> Array:
    """Sum by the chain, plus the sum of the chain's rounding errors: Kahan 1965, as varied by Neumaier 1974 (Higham 2002, §4.3)."""
    partial = np.add.accumulate(terms, axis=1)
    errors = sum_error(partial[:, :-1], terms[:, 1:], partial[:, 1:])
    return partial[:, -1] + pairwise(errors) if errors.shape[1] else partial[:, -1]


def shuffled(terms: Array) -> Array:
    """Sum in an order that differs at each call, row and process, as atomic additions have; no shared generator is touched."""
    return sequential(np.random.default_rng().permuted(terms, axis=1))


def _chains(terms: Array, length: int) -> Array:
    """Sums, each from the left, of the blocks of `length` terms that a row consists of; the last may be shorter."""
    rows, count = terms.shape
    padding = np.zeros_like(terms, shape=(rows, -count % length))
    blocks = np.concatenate([terms, padding], axis=1).reshape(rows, -1, length)
    return np.add.accumulate(blocks, axis=2)[:, :, -1]
