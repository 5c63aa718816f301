"""Shapes (N, C, H, W) of every kind that a kernel treats in its own way."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ln2d_ref.semantics import SEMANTICS

from .arguments import some_of
from .draws import choices, integers, weighted

__all__ = ["SHAPE_KINDS", "shapes"]

Shape = tuple[int, int, int, int]

SHAPE_KINDS = ("small", "medium", "tile", "rows", "single", "empty")
"""small    each side at most 4
medium   up to 64 channels, sides up to 20, primes among them
tile     a group of 2^k or 2^k ± 1 values, up to 8193: around every tile size
rows     small groups, and up to 65,537 of them
single   one-element groups
empty    N, H or W is 0
"""

_WEIGHTS = {"small": 8, "medium": 8, "tile": 5, "rows": 2, "single": 2, "empty": 1}
_SIDES = (1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 17, 20)
_CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64)


@st.composite
def shapes(
    draw: st.DrawFn,
    semantics: str = "channel",
    *,
    kinds: Sequence[str] = SHAPE_KINDS,
    max_elements: int = 1 << 13,
) -> Shape:
    """Shapes of at most `max_elements` elements (a rare one of `rows` may have 8 times as many); shrink towards (1, 2, 1, 1)."""
    some_of("semantics", semantics, SEMANTICS)
    kinds = some_of("kinds", kinds, SHAPE_KINDS)
    if max_elements < 64:
        raise InvalidArgument(f"max_elements is {max_elements!r}, but must be at least 64")
    kind = draw(weighted(tuple((_WEIGHTS[kind], kind) for kind in SHAPE_KINDS if kind in kinds)), label="shape kind")
    if kind == "small":
        n, c, h, w = (draw(integers(1, 4), label=side) for side in "NCHW")
        return (n, c + 1, h, w) if semantics == "channel" or c * h * w == 1 else (n, c, h, w)
    if kind == "medium":
        n, c = draw(integers(1, 4), label="N"), draw(choices(_CHANNELS[1:]), label="C")
        h, w = draw(choices(_SIDES), label="H"), draw(choices(_SIDES), label="W")
        return _within(n, c, h, w, max_elements)
    if kind == "single":
        n, h, w = (draw(integers(1, 4), label=side) for side in "NHW")
        return (n, 1, h, w) if semantics == "channel" else (n, 1, 1, 1)
    if kind == "empty":
        sides = [draw(integers(1, 3), label=side) for side in "NCHW"]
        sides[draw(choices((0, 2, 3)), label="empty axis")] = 0
        return sides[0], sides[1], sides[2], sides[3]
    if kind == "tile":
        return draw(_tiles(semantics, max_elements), label="tile")
    return draw(_rows(semantics, max_elements), label="rows")


@st.composite
def _tiles(draw: st.DrawFn, semantics: str, max_elements: int) -> Shape:
    """A group of 2^k + {-1, 0, 1} values, with as many groups as fit, at most 6."""
    largest = int(math.log2(max_elements)) - (semantics == "channel")
    size = 2 ** draw(integers(2, largest), label="k") + draw(choices((0, 1, -1)), label="off the power by")
    groups = draw(integers(1, max(1, min(6, max_elements // size))), label="groups")
    if semantics == "channel":
        return draw(choices(((1, size, 1, groups), (groups, size, 1, 1), (1, size, groups, 1))), label="groups along")
    channels = draw(choices(tuple(c for c in (1, 2, 3, 4, 5, 8, 16) if c <= size)), label="C")
    side = max(1, size // channels)
    return draw(choices(((groups, channels, 1, side), (groups, channels, side, 1), (groups, size, 1, 1))), label="side along")


@st.composite
def _rows(draw: st.DrawFn, semantics: str, max_elements: int) -> Shape:
    """Groups of 2 to 6 values, 2^k + {-1, 0, 1} of them; one in 16 goes to k = 16."""
    size = draw(integers(2, 6), label="group size")
    far = draw(integers(0, 15), label="far") == 15
    k = 16 if far and max_elements >= 1 << 13 else draw(integers(3, int(math.log2(max_elements // size))), label="k")
    count = 2**k + draw(choices((0, 1, -1)), label="off the power by")
    if semantics == "sample":
        return draw(choices(((count, size, 1, 1), (count, 1, 1, size))), label="group along")
    return draw(choices(((1, size, 1, count), (count, size, 1, 1), (1, size, count, 1))), label="rows along")


def _within(n: int, c: int, h: int, w: int, max_elements: int) -> Shape:
    while n * c * h * w > max_elements:
        n, c, h, w = (1, c, h, w) if n > 1 else (1, c, max(1, h // 2), max(1, w // 2)) if h * w > 1 else (1, max(2, c // 2), 1, 1)
    return n, c, h, w
