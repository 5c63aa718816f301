"""Tails that a tile or a mask cuts off, and counts that overflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, bias_gradient, finish, statistics, weight_gradient
from .plant import plant

__all__ = ["planted"]

_TILE = 64
_ROWS = 32
_VECTOR = 8
_LARGEST_GRID = 65535


def _from_channels(count: Callable[[int], int]) -> Callable[[Tensor, Call], tuple[Tensor, Tensor]]:
    """Statistics from the first count(C) channels, at least one."""
    return lambda x, call: statistics(x[:, : max(count(x.shape[1]), 1)], call)


def _pixels_lost(kept: Callable[[int], int]) -> Callable[[Tensor, Call], Tensor]:
    """A result that is 0 in all but the first kept(H·W) pixels of each sample."""

    def part(y: Tensor, call: Call) -> Tensor:
        pixels = y.shape[2] * y.shape[3]
        flat = finish(y, call).reshape(*y.shape[:2], pixels).clone()
        flat[:, :, kept(pixels) :] = 0
        return flat.reshape(y.shape)

    return part


def _rows_lost(y: Tensor, call: Call) -> Tensor:
    return finish(_first_rows(y, lambda rows: _LARGEST_GRID), call)


def _first_rows(values: Tensor, kept: Callable[[int], int]) -> Tensor:
    """Values of x's shape with 0 in all but the first kept(N·H·W) pixels of the batch."""
    rows = values.movedim(1, -1).reshape(-1, values.shape[1]).clone()
    rows[kept(len(rows)) :] = 0
    return rows.reshape(values.shape[0], *values.shape[2:], values.shape[1]).movedim(-1, 1)


def _whole_blocks(size: int) -> Callable[[int], int]:
    """How many of a count lie in whole blocks of this size, where there is one."""
    return lambda count: count - count % size if count > size else count


def _forward() -> Iterator[Mutant]:
    for name, fault, parts in (
        (
            "last_channel",
            "Statistics leave out the last channel where C % 4 is not 0.",
            {"statistics": _from_channels(lambda c: c - (c % 4 > 0))},
        ),
        (
            "channels_past_tile",
            f"Statistics leave out the channels past the first {_TILE}.",
            {"statistics": _from_channels(lambda c: min(c, _TILE))},
        ),
        (
            "last_pixel",
            "The last pixel of each sample is 0 where H·W is odd.",
            {"finish": _pixels_lost(lambda pixels: pixels - pixels % 2)},
        ),
        ("pixels_past_vector", "Pixels past the last whole vector of 8 are 0.", {"finish": _pixels_lost(_whole_blocks(_VECTOR))}),
    ):
        yield from plant(f"masks/{name}", fault, "masks, tiles, tails", semantics=SEMANTICS, **parts)
    yield from plant("masks/rows_past_grid", f"Pixels after the first {_LARGEST_GRID} are 0.", "index overflow", finish=_rows_lost)


def _sums(name: str, fault: str, kind: str, kept: Callable[[int, Call], int]) -> Iterator[Mutant]:
    """Yield a mutant whose dweight has the fault, and one whose dbias has it."""

    def dweight(dy: Tensor, xhat: Tensor, call: Call) -> Tensor:
        return weight_gradient(_first_rows(dy, lambda rows: kept(rows, call)), xhat, call)

    def dbias(dy: Tensor, call: Call) -> Tensor:
        return bias_gradient(_first_rows(dy, lambda rows: kept(rows, call)), call)

    yield from plant(f"masks/dweight_{name}", f"dweight {fault}", kind, weight_gradient=dweight)
    yield from plant(f"masks/dbias_{name}", f"dbias {fault}", kind, bias_gradient=dbias)


def planted() -> Iterator[Mutant]:
    """Yield the mutants that lose channels, pixels or rows."""
    yield from _forward()
    kind = "backward arithmetic"
    yield from _sums("past_block", f"leaves out the rows past the first {_ROWS}.", kind, lambda rows, call: _ROWS)
    yield from _sums("last_block", "leaves out the last, partial block of rows.", kind, lambda rows, call: _whole_blocks(_ROWS)(rows))
    yield from _sums("first_axis", "takes x.shape[0] for the number of rows.", kind, lambda rows, call: call.x.shape[0])
    yield from _sums("last_axis", "takes x.shape[3] for the number of rows.", kind, lambda rows, call: call.x.shape[3])
    yield from _sums(
        "past_grid", f"leaves out the rows past the first {_LARGEST_GRID}.", "index overflow", lambda rows, call: _LARGEST_GRID
    )
