"""What an implementation did when it was run on a case: NumPy arrays and plain facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Outcome", "Raised", "Result"]


@dataclass(frozen=True)
class Raised:
    """An exception, in the `forward` or `backward` stage, by the name of its type and its text."""

    stage: str
    type: str
    text: str


@dataclass(frozen=True)
class Result:
    """One returned value: its type, and where it is the framework's tensor, its array, dtype and device."""

    type: str
    array: np.ndarray | None = None
    dtype: str = ""
    device: str = ""


@dataclass(frozen=True)
class Outcome:
    """One call and its backward.

    results    y, dx, dweight, dbias as far as they were reached
    raised     the exception that ended it, or None
    changed    arguments whose elements the call changed
    spilled    arguments whose storage it changed outside their elements
    shared     what y shares storage with: arguments, "an earlier y"
    disturbed  global state that it left changed
    rewritten  names of earlier results that this call changed
    """

    results: Mapping[str, Result] = field(default_factory=dict)
    raised: Raised | None = None
    changed: tuple[str, ...] = ()
    spilled: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    disturbed: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
