"""Hypothesis strategies for LayerNorm2d, and the search for violations.

`strategies` is a common name: pytest's `pythonpath = ["."]` puts this one first.
"""

from .cases import cases
from .epsilons import epsilons
from .examiner import Report
from .layouts import layouts
from .search import find_violation, judge
from .shapes import SHAPE_KINDS, shapes
from .values import FINITE_REGIMES, REGIMES

__all__ = [
    "FINITE_REGIMES",
    "REGIMES",
    "SHAPE_KINDS",
    "Report",
    "cases",
    "epsilons",
    "find_violation",
    "judge",
    "layouts",
    "shapes",
]
