"""Laws on state: `side_effects` (what a call leaves behind) and `history` (what it remembers)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..case import Case
from ..outcome import Outcome
from ..violation import Violation, wrong_value
from .law import Law
from .trial import Trial, expectation, ratios

__all__ = ["HISTORY", "SIDE_EFFECTS"]


def _side_effects(trial: Trial) -> Iterator[Violation]:
    outcome = trial.outcome
    for name in outcome.changed:
        yield trial.violation("side_effects", name, f"{name} was changed by the call")
    for name in outcome.shared:
        yield trial.violation("side_effects", "y", f"y shares its storage with {name}")
    for name in outcome.disturbed:
        yield trial.violation("side_effects", "global state", f"torch's {name} was left changed")


def _history(trial: Trial) -> Iterator[Violation]:
    first = trial.outcome
    if first.raised is not None or first.changed:
        return
    second = trial.executor.run(trial.placed)
    yield from _kept(trial, second)
    yield from _repeated(trial, first, second)
    other = trial.case.varied()
    trial.executor.overwrite(trial.placed, other)
    third = trial.executor.run(trial.placed)
    yield from _kept(trial, third)
    yield from _recomputed(trial, third, other)


def _kept(trial: Trial, outcome: Outcome) -> Iterator[Violation]:
    """Results that were handed out stay as they were, and new ones live elsewhere."""
    for name in outcome.rewritten:
        yield trial.violation("history", name, f"{name} of an earlier call was changed by a later one")
    for name in outcome.shared:
        if name.startswith("an earlier"):
            yield trial.violation("history", "y", f"y of the second call shares its storage with {name}")


def _repeated(trial: Trial, first: Outcome, second: Outcome) -> Iterator[Violation]:
    """The same call gives the same bits, or where it need not be deterministic, bounded values."""
    if second.raised is not None:
        yield trial.violation("history", "y", f"the second of two equal calls raised {second.raised.type}: {second.raised.text}")
        return
    bounded = ratios(second, trial.expected, trial.case) if not trial.implementation.deterministic else None
    for quantity, result in first.results.items():
        before, again = result.array, second.results[quantity].array
        if before is None or again is None or before.shape != again.shape:
            continue
        if bounded is not None:
            differs = trial.worst[quantity] <= 1.0 < bounded[quantity].max(initial=0.0)
            where = bounded[quantity] > 1.0
        else:
            where = _differing(before, again)
            differs = bool(where.any())
        if differs:
            index = tuple(int(k) for k in np.argwhere(where)[0])
            was, now = float(before[index]), float(again[index])
            at = f"{quantity}[{', '.join(map(str, index))}]"
            extent = f"{np.count_nonzero(where)} of {where.size} elements"
            yield trial.violation("history", quantity, f"{at} = {was:.9g}, then {now:.9g} from the same call again", extent=extent)


def _differing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    kind = f"u{a.dtype.itemsize}"
    both_nan = np.isnan(a) & np.isnan(b)
    return (np.ascontiguousarray(a).view(kind) != np.ascontiguousarray(b).view(kind)) & ~both_nan


def _recomputed(trial: Trial, outcome: Outcome, other: Case) -> Iterator[Violation]:
    """After the same storages hold other values, those count; reported only where a fresh call gets them right."""
    expected = expectation(trial.implementation, other)
    fresh: Trial | None = None
    for quantity, values in ratios(outcome, expected, other).items():
        worst = float(values.max(initial=0.0))
        if worst <= 1.0:
            continue
        fresh = fresh or Trial(trial.executor, trial.implementation, other)
        if fresh.worst.get(quantity, float("inf")) > 1.0:
            continue
        actual = outcome.results[quantity].array
        if actual is not None:
            headline, details = wrong_value(quantity, expected[quantity], actual, values)
            headline += " after x, weight, bias and dy were overwritten in place"
            yield trial.violation("history", quantity, headline, **details | {"expected": None})


SIDE_EFFECTS = Law(
    name="side_effects",
    claim="A call changes none of its arguments, returns memory of its own, and leaves global state as it found it.",
    reason="y is a function of its arguments; a caller goes on using them, and y.",
    applies=lambda case: True,
    violations=_side_effects,
)

HISTORY = Law(
    name="history",
    claim="A call depends on its arguments' values alone: repeated it gives the same, after an overwrite it gives the new, and what was "
    "returned before stays.",
    reason="The mathematics has no memory of earlier calls.",
    applies=lambda case: case.x.size > 0,
    violations=_history,
    stateful=True,
)
