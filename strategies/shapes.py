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
"""small    each side at most 4, groups of more than one value
medium   up to 64 channels, sides up to 20, primes among them
tile     a group of 2^k or 2^k ± 1 values, up to 8193: around every tile size
rows     small groups, and up to 65,537 of them
single   one-element groups
empty    N, H or W is 0
"""

_WEIGHTS = {"small": 8, "medium": 8, "tile": 5, "rows": 3, "single": 2, "empty": 2}
_SIDES = (1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 17, 20)
_CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64)


@st.composite
def shapes(
    draw: st.DrawFn,
    semantics: str = "channel",
    *,
    kinds: Sequence[str] = SHAPE_KINDS,
    max_elements: int = 8200,
) -> Shape:
    """Shapes of at most `max_elements` elements, but for a rare one of `rows`; shrink towards (1, 2, 1, 1).

    The default admits a group of 8193. From 2048 up, `rows` sometimes goes to 65,537 groups of 2 or 3 whatever it is.
    """
    some_of("semantics", semantics, SEMANTICS)
    kinds = some_of("kinds", kinds, SHAPE_KINDS)
    if max_elements < 64:
        raise InvalidArgument(f"max_elements is {max_elements!r}, but must be at least 64")
    kind = draw(weighted(tuple((_WEIGHTS[kind], kind) for kind in SHAPE_KINDS if kind in kinds)), label="shape kind")
    if kind == "small":
        n, c = draw(integers(1, 4), label="N"), draw(integers(2 if semantics == "channel" else 1, 4), label="C")
        h, w = draw(integers(1, 4), label="H"), draw(integers(1, 4), label="W")
        return _within(n, 2 if c * h * w == 1 else c, h, w, max_elements)
    if kind == "medium":
        n, c = draw(integers(1, 4), label="N"), draw(choices(_CHANNELS[1:]), label="C")
        h, w = draw(choices(_SIDES), label="H"), draw(choices(_SIDES), label="W")
        return _within(n, c, h, w, max_elements)
    if kind == "single":
        n, _, h, w = (draw(integers(1, 4), label=side) for side in "NCHW")  # as many draws as `small`, which is simpler
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
    power = 2 ** draw(integers(2, int(math.log2(max_elements))), label="k")
    size = power + draw(choices((0, -1, 1) if power < max_elements else (0, -1)), label="off the power by")
    groups = draw(integers(1, max(1, min(6, max_elements // size))), label="groups")
    if semantics == "channel":
        return draw(choices(((1, size, 1, groups), (groups, size, 1, 1), (1, size, groups, 1))), label="groups along")
    channels = draw(choices(tuple(c for c in (1, 2, 3, 4, 5, 8, 16) if size % c == 0)), label="C")
    side = size // channels
    return draw(choices(((groups, channels, 1, side), (groups, channels, side, 1), (groups, size, 1, 1))), label="side along")


@st.composite
def _rows(draw: st.DrawFn, semantics: str, max_elements: int) -> Shape:
    """Groups of 2 to 6 values, 2^k + {-1, 0, 1} of them; one in 6 goes to k = 16."""
    far = max_elements >= 1 << 11 and draw(integers(0, 5), label="far") == 5
    size = draw(integers(2, 3 if far else 6), label="group size")
    k = 16 if far else draw(integers(3, max(3, int(math.log2(max_elements // size)) - 1)), label="k")
    count = 2**k + draw(choices((0, 1, -1)), label="off the power by")
    if semantics == "sample":
        return draw(choices(((count, size, 1, 1), (count, 1, 1, size))), label="group along")
    return draw(choices(((1, size, 1, count), (count, size, 1, 1), (1, size, count, 1))), label="rows along")


def _within(n: int, c: int, h: int, w: int, max_elements: int) -> Shape:
    while n * c * h * w > max_elements:
        n, c, h, w = (1, c, h, w) if n > 1 else (1, c, max(1, h // 2), max(1, w // 2)) if h * w > 1 else (1, max(2, c // 2), 1, 1)
    return n, c, h, w
