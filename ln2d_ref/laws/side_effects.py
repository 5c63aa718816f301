"""`side_effects`: what a call leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

from ..violation import Violation
from .law import Law
from .trial import Trial

__all__ = ["SIDE_EFFECTS"]


def _violations(trial: Trial) -> Iterator[Violation]:
    outcome = trial.outcome
    for name in outcome.changed:
        yield trial.violation("side_effects", name, f"{name} was changed by the call")
    for name in outcome.shared:
        yield trial.violation("side_effects", "y", f"y shares its storage with {name}")
    for name in outcome.disturbed:
        yield trial.violation("side_effects", "global state", f"torch's {name} was left changed")


SIDE_EFFECTS = Law(
    name="side_effects",
    claim="A call changes none of its arguments, returns memory of its own, and leaves global state as it found it.",
    reason="y is a function of its arguments; a caller goes on using them, and y.",
    applies=lambda case: True,
    violations=_violations,
)
