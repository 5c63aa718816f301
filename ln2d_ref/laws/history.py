"""`history`: what a call remembers, of earlier calls, of what lay in its arguments before, and of calls beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..case import Case
from ..outcome import Outcome
from ..violation import Violation, wrong_value
from .law import Law
from .trial import Trial, array_of, expectation, ratios

__all__ = ["HISTORY", "differing"]

_THREADS = 4


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
    trial.executor.overwrite(trial.placed, trial.case)
    yield from _kept(trial, third)
    yield from _recomputed(trial, third, other)
    if "graph" in trial.executor.offers and trial.case.requires_grad:
        yield from _differentiated_twice(trial)
        yield from _overwritten_before_backward(trial)
    if "threads" in trial.executor.offers and second.raised is None and third.raised is None:
        yield from _at_once(trial, (first, third), (trial.case, other))


def _kept(trial: Trial, outcome: Outcome) -> Iterator[Violation]:
    """Results that were handed out stay as they were, and new ones live elsewhere."""
    for name in outcome.rewritten:
        yield trial.violation("history", name, f"{name} of an earlier call was changed by a later one")
    for name in outcome.shared:
        if name.startswith("an earlier"):
            yield trial.violation("history", "y", f"y of the second call shares its storage with {name}")


def _repeated(trial: Trial, first: Outcome, second: Outcome) -> Iterator[Violation]:
    """The same call gives the same."""
    if second.raised is not None:
        yield trial.violation("history", "y", f"the second of two equal calls raised {second.raised.type}: {second.raised.text}")
        return
    for quantity, headline, details in _unlike(trial, first, second, trial.case):
        yield trial.violation("history", quantity, f"{headline} from the same call again", **details)


def _unlike(trial: Trial, alone: Outcome, other: Outcome, case: Case) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Quantities of a case that have other bits than before, or where they need not be deterministic, are bounded no more."""
    bounds: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if not trial.implementation.deterministic:
        expected = trial.expected if case is trial.case else expectation(trial.implementation, case)
        before = ratios(alone, expected, case)
        bounds = {name: (before[name], now) for name, now in ratios(other, expected, case).items() if name in before}
    for quantity in other.results:
        was, now = (outcome.results[quantity].array if quantity in outcome.results else None for outcome in (alone, other))
        if was is None or now is None or was.shape != now.shape or was.dtype != now.dtype:
            continue
        if trial.implementation.deterministic:
            where = differing(was, now)
        elif quantity in bounds and bounds[quantity][0].max(initial=0.0) <= 1.0:
            where = bounds[quantity][1] > 1.0
        else:
            continue
        if where.any():
            index = tuple(int(k) for k in np.argwhere(where)[0])
            at = f"{quantity}[{', '.join(map(str, index))}]"
            extent = f"{np.count_nonzero(where)} of {where.size} elements"
            yield quantity, f"{at} = {float(was[index]):.9g}, then {float(now[index]):.9g}", {"extent": extent}


def differing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays of one shape and dtype have different bits; one NaN is as good as another."""
    kind = f"u{a.dtype.itemsize}"
    both_nan = np.isnan(a) & np.isnan(b)
    return (np.ascontiguousarray(a).view(kind) != np.ascontiguousarray(b).view(kind)) & ~both_nan


def _recomputed(trial: Trial, outcome: Outcome, other: Case) -> Iterator[Violation]:
    """After the same storages hold other values, those count; told where a fresh call gets them right, or returns what was right before."""
    expected = expectation(trial.implementation, other)
    fresh: Trial | None = None
    for quantity, values in ratios(outcome, expected, other).items():
        worst = float(values.max(initial=0.0))
        if worst <= 1.0:
            continue
        fresh = fresh or Trial(trial.executor, trial.implementation, other)
        headline, details = wrong_value(quantity, expected[quantity], array_of(outcome, quantity), values)
        headline += " after x, weight, bias and dy were overwritten in place"
        if fresh.worst.get(quantity, np.inf) > 1.0:
            if quantity not in fresh.worst or trial.worst.get(quantity, np.inf) > 1.0 or not _same(quantity, trial, outcome, fresh):
                continue
            headline += ": what was returned before, in fresh storages too"
        yield trial.violation("history", quantity, headline, **details | {"expected": None})


def _same(quantity: str, before: Trial, outcome: Outcome, fresh: Trial) -> bool:
    """Whether a quantity that is in all three, of the shape that is expected, has the same bits in them."""
    first, *others = (array_of(each, quantity) for each in (before.outcome, outcome, fresh.outcome))
    return all(other.dtype == first.dtype and not differing(first, other).any() for other in others)


def _differentiated_twice(trial: Trial) -> Iterator[Violation]:
    """Over a retained graph the gradients come out the same twice, and the first ones stay; refusing the second is allowed."""
    first, second = trial.executor.again(trial.placed)
    if second.raised is not None:
        trial.observed.append(f"refused a second backward with {second.raised.type}")
        return
    for name in second.rewritten:
        yield trial.violation("history", name, f"{name} of a backward was changed by a second one over the same graph")
    for quantity, headline, details in _unlike(trial, first, second, trial.case):
        yield trial.violation("history", quantity, f"{headline} from a second backward over the same graph", **details)


def _overwritten_before_backward(trial: Trial) -> Iterator[Violation]:
    """Where x or weight is halved in place between call and backward, the gradients are those at the old values, or none are."""
    for name in ("x", "weight"):
        if name not in trial.case.arrays:
            continue
        array = trial.case.arrays[name]
        outcome = trial.executor.rewrite(trial.placed, name, array * array.dtype.type(0.5))  # -x would have x's own dx
        if outcome.raised is not None:
            continue
        for quantity, values in ratios(outcome, trial.expected, trial.case).items():
            if values.max(initial=0.0) > 1.0 >= trial.worst.get(quantity, np.inf):
                headline, details = wrong_value(quantity, trial.expected[quantity], array_of(outcome, quantity), values)
                headline += f" where {name} is overwritten in place before backward, which was not refused"
                yield trial.violation("history", quantity, headline, **details | {"expected": None})


def _at_once(trial: Trial, alone: tuple[Outcome, Outcome], cases: tuple[Case, Case]) -> Iterator[Violation]:
    """Calls with different values of one shape, in several threads at once, give what each gives alone."""
    for number, outcome in enumerate(trial.executor.together([cases[number % 2] for number in range(_THREADS)])):
        if outcome.raised is not None:
            raised = f"raised {outcome.raised.type}: {outcome.raised.text}"
            yield trial.violation("history", "y", f"one of {_THREADS} calls at once in threads of their own {raised}")
            return
        for quantity, headline, details in _unlike(trial, alone[number % 2], outcome, cases[number % 2]):
            yield trial.violation("history", quantity, f"{headline} with {_THREADS} calls at once in threads of their own", **details)


HISTORY = Law(
    name="history",
    claim="A call depends on its arguments' values alone: repeated, or beside others in other threads, it gives the same; after an "
    "overwrite it gives the new; a second backward gives the same; and what was returned before stays.",
    reason="The mathematics has no memory of other calls. Gradients belong to the values at the time of the call: where those are gone, "
    "an exception is right, and another number is not.",
    applies=lambda case: case.x.size > 0,
    violations=_history,
    stateful=True,
)
