"""Conformance of LayerNorm2d: a reference, derived bounds, and laws that any implementation is judged by.

    y = (x - mean) / sqrt(var + eps) * weight + bias

over each pixel's C values ("channel") or each sample's C·H·W ("sample"). Importing this loads NumPy and ml_dtypes, nothing else.
"""

from .case import Case
from .check import check
from .implementations import Implementation, load
from .reference import Gradients, SecondOrder, double_vjp, forward, jvp, vjp
from .violation import Violation

__all__ = [
    "Case",
    "Gradients",
    "Implementation",
    "SecondOrder",
    "Violation",
    "check",
    "double_vjp",
    "forward",
    "jvp",
    "load",
    "vjp",
]
