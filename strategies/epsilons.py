"""Values of eps."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from .draws import Draws, drawn

__all__ = ["COMMON", "EPSILON_DIGITS", "epsilons", "pick_epsilon"]

COMMON = (1e-5, 1e-6, 1e-3, 1e-8, 1e-12, 1e-2, 1.0)
EPSILON_DIGITS = 3


def epsilons(*, min_value: float = 1e-12, max_value: float = 1.0) -> st.SearchStrategy[float]:
    """One half the common values within the bounds, one half log-uniform between them; shrink towards 1e-5."""
    if not 0 < min_value <= max_value < float("inf"):
        raise InvalidArgument(f"min_value is {min_value!r} and max_value {max_value!r}, but 0 < min_value <= max_value must hold")
    return drawn(EPSILON_DIGITS, lambda draws: pick_epsilon(draws, min_value, max_value))


def pick_epsilon(draws: Draws, low: float = 1e-12, high: float = 1.0) -> float:
    """As `epsilons` says."""
    common = tuple(eps for eps in COMMON if low <= eps <= high)
    if not draws.chance(2) and common:
        return draws.choice(common)
    fraction = draws.integer(0, 1000) / 1000
    return float(min(max(low ** (1 - fraction) * high**fraction, low), high))
