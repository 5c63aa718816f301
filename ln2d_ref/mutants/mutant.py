"""What a mutant is: an implementation, and the one fault that it has."""

from __future__ import annotations

from dataclasses import dataclass

from ..implementations.implementation import Implementation

__all__ = ["KINDS", "Mutant"]

KINDS = (
    "aliasing and races",
    "backward arithmetic",
    "cheats",
    "compiled or exported",
    "constant groups",
    "dtype policy",
    "empty and degenerate",
    "gradient cut",
    "higher derivatives",
    "index overflow",
    "layout",
    "low-precision sums",
    "masks, tiles, tails",
    "module contract",
    "one-pass variance",
    "optional affine",
    "semantics mixed up",
    "value range",
)


@dataclass(frozen=True)
class Mutant:
    """A LayerNorm2d that is wrong in one way and right in every other.

    name            "file/fault", as in "variance/one_pass"
    fault           the fault, in one sentence
    kind            which of `KINDS` it belongs to: the kinds of fault that released layer norms have been reported for
    implementation  what a judge is given
    """

    name: str
    fault: str
    kind: str
    implementation: Implementation

    def __post_init__(self) -> None:
        """Raise ValueError for a kind that is not listed."""
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, but must be one of {', '.join(map(repr, KINDS))}")
