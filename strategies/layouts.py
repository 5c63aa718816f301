"""Memory layouts of one argument."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ln2d_ref.layout import Layout

from .draws import choices, integers, weighted

__all__ = ["layouts"]

_KINDS = ((3, "channels_last"), (2, "sliced"), (2, "transposed"), (2, "stepped"), (2, "permuted"), (2, "mixed"), (2, "expanded"))
_ORDERS = ((0, 1, 3, 2), (1, 0, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (0, 2, 1, 3), (0, 3, 2, 1), (0, 2, 3, 1))


@st.composite
def layouts(draw: st.DrawFn, ndim: int, *, allow_contiguous: bool = True, allow_expanded: bool = True) -> Layout:
    """Layouts of an array of 1, 3 or 4 axes; shrink towards contiguous, else channels_last (4 axes) or an offset of 1.

    channels_last, sliced (an offset), transposed (H and W), permuted, stepped (every second or third element), mixed (all of these),
    expanded (stride 0: the array must then be constant along that axis).
    """
    if ndim not in (1, 3, 4):
        raise InvalidArgument(f"ndim is {ndim!r}, but must be 1, 3 or 4")
    if allow_contiguous and draw(integers(0, 1), label="strided") == 0:
        return Layout()
    if ndim == 4:
        kinds = tuple(kind for kind in _KINDS if allow_expanded or kind[1] != "expanded")
    else:
        kinds = ((2, "sliced"), (2, "stepped"), (1, "mixed")) + (((1, "expanded"),) if allow_expanded else ())
    kind = draw(weighted(kinds), label="layout")
    order: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    expanded: tuple[int, ...] = ()
    offset = 0
    if kind == "channels_last":
        order = (0, 2, 3, 1)
    elif kind == "transposed":
        order = (0, 1, 3, 2)
    if kind in ("permuted", "mixed") and ndim == 4:
        order = draw(choices(_ORDERS), label="order")
    if kind in ("sliced", "mixed"):
        offset = draw(choices((1, 2, 3, 5, 8, 64)), label="offset")
    if kind in ("stepped", "mixed"):
        at = draw(integers(0, ndim - 1), label="stepped axis")
        step = draw(choices((2, 3)), label="step")
        steps = tuple(step if axis == at else 1 for axis in range(ndim))
    if kind == "expanded":
        every = tuple(range(ndim))
        expanded = draw(choices((every, (ndim - 1,), (0,), every[-2:])), label="expanded axes")
    return Layout(order, steps, offset, expanded)
