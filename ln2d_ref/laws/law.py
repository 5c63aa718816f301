"""A law: a claim about every right implementation, the reason why it holds, and how to see whether it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..case import Case
from ..implementations.implementation import Implementation
from ..violation import Violation
from .trial import Trial

__all__ = ["Law"]


@dataclass(frozen=True)
class Law:
    """name, one-sentence claim, the reason why it is true, the cases it says something about, and the violations that a trial shows.

    `stateful` laws run the implementation again; `opt_in` ones are judged only where they are asked for by name; those `aside` are of
    calls outside the contract, and a search for all laws turns to them once the others have found nothing. `concerns` says of which
    implementations it says something.
    """

    name: str
    claim: str
    reason: str
    applies: Callable[[Case], bool]
    violations: Callable[[Trial], Iterator[Violation]]
    stateful: bool = False
    opt_in: bool = False
    aside: bool = False
    concerns: Callable[[Implementation], bool] = lambda implementation: True
