"""Values of eps."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from .draws import choices, integers

__all__ = ["COMMON", "epsilons"]

COMMON = (1e-5, 1e-6, 1e-3, 1e-8, 1e-12, 1e-2, 1.0)


@st.composite
def epsilons(draw: st.DrawFn, *, min_value: float = 1e-12, max_value: float = 1.0) -> float:
    """One half the common values within the bounds, one half log-uniform between them; shrink towards 1e-5."""
    if not 0 < min_value <= max_value < float("inf"):
        raise InvalidArgument(f"min_value is {min_value!r} and max_value {max_value!r}, but 0 < min_value <= max_value must hold")
    common = tuple(eps for eps in COMMON if min_value <= eps <= max_value)
    if common and draw(integers(0, 1), label="log-uniform eps") == 0:
        return draw(choices(common), label="eps")
    fraction = draw(integers(0, 1000), label="log eps") / 1000
    return float(min(max(min_value ** (1 - fraction) * max_value**fraction, min_value), max_value))
