"""Memory layouts of one argument."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ln2d_ref.layout import Layout

from .draws import Draws, drawn

__all__ = ["LAYOUT_DIGITS", "layouts", "pick_layout"]

LAYOUT_DIGITS = 6
_KINDS = ((3, "channels_last"), (2, "sliced"), (2, "transposed"), (2, "stepped"), (2, "permuted"), (2, "mixed"), (2, "expanded"))
_FEWER_AXES = ((2, "sliced"), (2, "stepped"), (1, "mixed"), (1, "expanded"))
_ORDERS = ((0, 1, 3, 2), (1, 0, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (0, 2, 1, 3), (0, 3, 2, 1), (0, 2, 3, 1))


def layouts(ndim: int, *, allow_contiguous: bool = True, allow_expanded: bool = True) -> st.SearchStrategy[Layout]:
    """Layouts of an array of 1, 3 or 4 axes; shrink towards contiguous, else channels_last (4 axes) or an offset of 1.

    channels_last, sliced (an offset), transposed (H and W), permuted, stepped (every second or third element), mixed (all of these),
    expanded (stride 0: the array must then be constant along that axis).
    """
    if ndim not in (1, 3, 4):
        raise InvalidArgument(f"ndim is {ndim!r}, but must be 1, 3 or 4")
    return drawn(LAYOUT_DIGITS, lambda draws: pick_layout(draws, ndim, allow_contiguous=allow_contiguous, allow_expanded=allow_expanded))


def pick_layout(draws: Draws, ndim: int, *, allow_contiguous: bool = True, allow_expanded: bool = True) -> Layout:
    """As `layouts` says."""
    if not draws.chance(2) and allow_contiguous:
        return Layout()
    kinds = _KINDS if ndim == 4 else _FEWER_AXES
    kind = draws.weighted(tuple(each for each in kinds if allow_expanded or each[1] != "expanded"))
    if kind == "channels_last":
        return Layout((0, 2, 3, 1))
    if kind == "transposed":
        return Layout((0, 1, 3, 2))
    if kind == "expanded":
        every = tuple(range(ndim))
        return Layout(expanded=draws.choice((every, (ndim - 1,), (0,), every[-2:])))
    order = draws.choice(_ORDERS) if kind in ("permuted", "mixed") and ndim == 4 else ()
    offset = draws.choice((1, 2, 3, 5, 8, 64)) if kind in ("sliced", "mixed") else 0
    steps: tuple[int, ...] = ()
    if kind in ("stepped", "mixed"):
        at, step = draws.integer(0, ndim - 1), draws.choice((2, 3))
        steps = tuple(step if axis == at else 1 for axis in range(ndim))
    return Layout(order, steps, offset)
