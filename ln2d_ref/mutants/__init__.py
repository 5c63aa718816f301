"""Deliberately wrong implementations of LayerNorm2d: the proof that a judge can fail.

Each has one stated fault and is right and honest in everything else. A framework is loaded when they are first built.
"""

from __future__ import annotations

from importlib import import_module

from .mutant import KINDS, Mutant

__all__ = ["KINDS", "Mutant", "mutants"]

_FILES = (
    "variance",
    "eps",
    "precision",
    "low_precision_sums",
    "layout",
    "masks",
    "special_values",
    "degenerate",
    "side_effects",
    "state",
    "modes",
    "independence",
    "bad_arguments",
    "module",
    "gradients",
    "derivatives",
    "second_order",
    "affine",
    "semantics",
    "cheats",
    "reported",
)


def mutants(semantics: str | None = None) -> tuple[Mutant, ...]:
    """Every mutant, or those of one semantics, each built afresh, so that no state is shared with an earlier call's."""
    every = (mutant for file in _FILES for mutant in import_module(f".{file}", __name__).planted())
    return tuple(mutant for mutant in every if semantics in (None, mutant.implementation.semantics))
