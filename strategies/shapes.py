"""Shapes (N, C, H, W) of every kind that a kernel treats in its own way."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ln2d_ref.semantics import SEMANTICS

from .arguments import some_of
from .draws import Draws, drawn

__all__ = ["SHAPE_DIGITS", "SHAPE_KINDS", "pick_shape", "shapes"]

Shape = tuple[int, int, int, int]

SHAPE_KINDS = ("small", "medium", "tile", "rows", "single", "empty")
"""small    each side at most 4, groups of more than one value
medium   up to 64 channels, sides up to 20, primes among them
tile     a group of 2^k or 2^k ± 1 values, up to 8193: around every tile size; in `sample` also 2^17, which no block holds
rows     small groups, and up to 65,537 of them
single   one-element groups
empty    N, H or W is 0
"""

SHAPE_DIGITS = 7
_WEIGHTS = {"small": 8, "medium": 8, "tile": 5, "rows": 3, "single": 2, "empty": 2}
_SIDES = (1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 17, 20)
_CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64)


def shapes(semantics: str = "channel", *, kinds: str | Sequence[str] = SHAPE_KINDS, max_elements: int = 8200) -> st.SearchStrategy[Shape]:
    """Shapes of at most `max_elements` elements, but for a rare one of `rows` or `tile`; shrink towards (1, 2, 1, 1).

    The default admits a group of 8193. From 2048 up, `rows` sometimes goes to 65,537 groups of 2 or 3, and `tile` to one of 131,073.
    """
    some_of("semantics", semantics, SEMANTICS)
    named = some_of("kinds", kinds, SHAPE_KINDS)
    if max_elements < 64:
        raise InvalidArgument(f"max_elements is {max_elements!r}, but must be at least 64")
    return drawn(SHAPE_DIGITS, lambda draws: pick_shape(draws, semantics, named, max_elements))


def pick_shape(draws: Draws, semantics: str, kinds: tuple[str, ...], max_elements: int) -> Shape:
    """As `shapes` says."""
    kind = draws.weighted(tuple((_WEIGHTS[kind], kind) for kind in SHAPE_KINDS if kind in kinds))
    if kind == "small":
        n, c = draws.integer(1, 4), draws.integer(2 if semantics == "channel" else 1, 4)
        h, w = draws.integer(1, 4), draws.integer(1, 4)
        return _within(n, 2 if c * h * w == 1 else c, h, w, max_elements)
    if kind == "medium":
        n, c = draws.integer(1, 4), draws.choice(_CHANNELS[1:])
        return _within(n, c, draws.choice(_SIDES), draws.choice(_SIDES), max_elements)
    if kind == "single":
        n, h, w = (draws.integer(1, 4) for _ in range(3))
        return (n, 1, h, w) if semantics == "channel" else (n, 1, 1, 1)
    if kind == "empty":
        sides = [draws.integer(1, 3) for _ in range(4)]
        sides[draws.choice((0, 2, 3))] = 0
        return sides[0], sides[1], sides[2], sides[3]
    return (_tile if kind == "tile" else _rows)(draws, semantics, max_elements)


def _tile(draws: Draws, semantics: str, max_elements: int) -> Shape:
    """A group of 2^k + {-1, 0, 1} values, with as many groups as fit, at most 6; in `sample` one in 6 goes to k = 17, all by itself."""
    far = draws.chance(6) and max_elements >= 1 << 11 and semantics == "sample"
    power = 2 ** (17 if far else draws.integer(2, int(math.log2(max_elements))))
    size = power + draws.choice((0, -1, 1) if far or power < max_elements else (0, -1))
    groups = draws.integer(1, max(1, min(6, max_elements // size)))
    if semantics == "channel":
        return draws.choice(((1, size, 1, groups), (groups, size, 1, 1), (1, size, groups, 1)))
    channels = draws.choice(tuple(c for c in (1, 2, 3, 4, 5, 8, 16) if size % c == 0))
    side = size // channels
    return draws.choice(((groups, channels, 1, side), (groups, channels, side, 1), (groups, size, 1, 1)))


def _rows(draws: Draws, semantics: str, max_elements: int) -> Shape:
    """Groups of 2 to 6 values, 2^k + {-1, 0, 1} of them; one in 6 goes to k = 16."""
    far = draws.chance(6) and max_elements >= 1 << 11
    size = draws.integer(2, 3 if far else 6)
    k = draws.integer(3, max(3, int(math.log2(max_elements // size)) - 1))
    count = 2 ** (16 if far else k) + draws.choice((0, 1, -1))
    if semantics == "sample":
        return draws.choice(((count, size, 1, 1), (count, 1, 1, size)))
    return draws.choice(((1, size, 1, count), (count, size, 1, 1), (1, size, count, 1)))


def _within(n: int, c: int, h: int, w: int, max_elements: int) -> Shape:
    while n * c * h * w > max_elements:
        n, c, h, w = (1, c, h, w) if n > 1 else (1, c, max(1, h // 2), max(1, w // 2)) if h * w > 1 else (1, max(2, c // 2), 1, 1)
    return n, c, h, w
