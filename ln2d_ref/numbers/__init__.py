"""Kinds of number that a formula can be evaluated on.

float64 array   fast; exact enough for inputs of at most 32 bits
DoubleDouble    104 bits, for float64 inputs
Wide            DoubleDouble with a wide exponent: any finite float64 input
Bounded         value with the error that rounding allows
Dual            value with directional derivative, over any of these
Sizes           magnitude of what is added up, cancellation left out
"""

from .bounded import Bounded, Rounding
from .double_double import DoubleDouble
from .dual import Dual
from .sizes import Sizes
from .wide import Wide

__all__ = ["Bounded", "DoubleDouble", "Dual", "Rounding", "Sizes", "Wide"]
