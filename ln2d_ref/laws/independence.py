"""`independence`: no group's values reach another group; and opt-in `batch_invariance`, the same to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..case import Case
from ..dtypes import DTYPES
from ..semantics import group_axes
from ..violation import Violation, wrong_value
from .history import differing
from .law import Law
from .trial import Trial, array_of

__all__ = ["BATCH_INVARIANCE", "INDEPENDENCE"]

_JUDGED = ("y", "dx", "dbias")
"""dweight sums over all groups, and so has a term of the one that overflows."""


def _groups(case: Case) -> int:
    return case.x.size // max(1, case.group_size)


def disturbed(case: Case) -> tuple[Case, np.ndarray]:
    """The case with one group as large as its dtype allows, and NaN and infinity in two biases; and the mask of that group.

    The signs alternate, so that the group's variance overflows where the dtype's range is that of the arithmetic.
    """
    axes = group_axes(case.semantics)
    groups = [1 if axis in axes else size for axis, size in enumerate(case.x.shape)]
    chosen = np.zeros(groups, bool)
    chosen.reshape(-1)[_groups(case) // 2] = True
    mask = np.broadcast_to(chosen, case.x.shape)
    x = np.array(case.x)
    x[mask] = DTYPES[case.dtype].largest / 2 * np.where(np.arange(case.group_size) % 2, -1, 1)
    bias = case.bias
    if bias is not None and len(bias) > 1:
        bias = np.array(bias)
        bias[0], bias[len(bias) // 2] = np.inf, np.nan
    spread = {name for name in ("x", "bias") if case.laid_out(name).expanded}  # along whose axes the array is constant no more
    return replace(case, x=x, bias=bias, layouts={name: layout for name, layout in case.layouts.items() if name not in spread}), mask


def _independence(trial: Trial) -> Iterator[Violation]:
    case = trial.case
    if trial.outcome.raised is not None:
        return
    other, mask = disturbed(case)
    beside = Trial(trial.executor, trial.implementation, other)
    if beside.outcome.raised is not None:
        raised = f"{beside.outcome.raised.type}: {beside.outcome.raised.text}"
        yield trial.violation("independence", "y", f"one group at the end of its dtype's range raised {raised}")
        return
    for quantity, values in beside.ratios.items():
        if quantity not in _JUDGED or trial.worst.get(quantity, np.inf) > 1.0:
            continue
        if quantity in ("y", "dx"):
            values = np.where(mask, 0.0, values)
        if values.max(initial=0.0) > 1.0:
            headline, details = wrong_value(quantity, beside.expected[quantity], array_of(beside.outcome, quantity), values)
            headline += " where another group overflows" + ("" if other.bias is case.bias else " and two biases are not finite")
            yield trial.violation("independence", quantity, headline, **details | {"expected": None})
    if case.contiguous and trial.implementation.deterministic and case.x.shape[0] > 1 and "attempt" in trial.executor.offers:
        trial.observed.extend(f"{quantity} not bitwise batch-invariant" for quantity, _ in _batch_variant(trial))


def _batch_variant(trial: Trial) -> Iterator[tuple[str, np.ndarray]]:
    """Of y and dx, each whose first sample alone has other bits than in the batch, with the places where it has."""
    case = trial.case.densely()
    in_batch = trial.outcome if trial.case.contiguous else trial.dense.outcome
    alone = trial.executor.run(trial.executor.place(replace(case, x=case.x[:1], dy=None if case.dy is None else case.dy[:1])))
    for quantity in ("y", "dx"):
        if quantity in alone.results and quantity in in_batch.results:
            one, first = alone.results[quantity].array, in_batch.results[quantity].array
            if one is not None and first is not None and one.dtype == first.dtype and one.shape[1:] == first.shape[1:]:
                where = differing(first[:1], one)
                if where.any():
                    yield quantity, where


def _batch_invariance(trial: Trial) -> Iterator[Violation]:
    for quantity, where in _batch_variant(trial):
        index = tuple(int(k) for k in np.argwhere(where)[0])
        headline = f"{quantity}[{', '.join(map(str, index))}] has other bits in a batch of {trial.case.x.shape[0]} than alone"
        extent = f"{np.count_nonzero(where)} of the {where.size} elements of sample 0"
        yield trial.violation("batch_invariance", quantity, headline, extent=extent)


INDEPENDENCE = Law(
    name="independence",
    claim="What one group holds moves no value of another, in y or dx, beyond the bound, not even where it overflows; a bias that is not "
    "finite stays in its channel, and reaches no gradient.",
    reason="No formula of a group reads another; an implementation need not get a group right that overflows, but it must its neighbours.",
    applies=lambda case: case.finite and _groups(case) > 1,
    violations=_independence,
    stateful=True,
)

BATCH_INVARIANCE = Law(
    name="batch_invariance",
    claim="y and dx of a sample have the same bits alone and in any batch.",
    reason="Bounds allow sums in any order, also one that the batch decides; who serves a model wants answers that do not depend on "
    "who else asks. So it is asked for by name, and otherwise told as an observation.",
    applies=lambda case: case.x.size > 0 and case.x.shape[0] > 1,
    violations=_batch_invariance,
    stateful=True,
    opt_in=True,
)
