"""Known faults of released implementations: counted and reported, never hidden, and no reason for a run to be red.

A violation that matches an entry is known. Each entry has a ceiling on error/bound and a predicate over the case, so that a second
fault in the same quantity is still found, and a pinned case, which must go on failing: else the entry is stale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case
from .dtypes import DTYPES
from .semantics import group_axes
from .violation import Violation

__all__ = ["LEDGER", "KnownFault", "known_fault", "stale"]

_CASES = Path(__file__).parent / "known_cases"


@dataclass(frozen=True)
class KnownFault:
    """One fault of one released implementation.

    implementation   name of the implementation that shows it
    package, since   the package whose fault it is, and the first release that is known to have it
    until            the first release without it, or None
    laws, quantities, dtypes
    when             predicate over the case
    ceiling          largest error/bound that is put down to it; infinite where the result is wrong in kind
    reason           one sentence
    pinned           name of a case file in ln2d_ref/known_cases
    crashes          whether it ends the process: such a case is counted and not run
    """

    name: str
    implementation: str
    package: str
    since: str
    laws: tuple[str, ...]
    quantities: tuple[str, ...]
    dtypes: tuple[str, ...]
    when: Callable[[Case], bool]
    ceiling: float
    reason: str
    pinned: str
    until: str | None = None
    crashes: bool = False

    def matches(self, violation: Violation) -> bool:
        """Whether this entry explains the violation."""
        return (
            violation.law in self.laws
            and violation.quantity in self.quantities
            and violation.ratio <= self.ceiling
            and self.covers(violation.implementation, violation.case)
        )

    def covers(self, implementation: str, case: Case) -> bool:
        """Whether this implementation, as installed, has the fault on a case like this one."""
        return implementation == self.implementation and case.dtype in self.dtypes and self.current() and self.when(case)

    def current(self) -> bool:
        """Whether the installed release is one that has the fault."""
        try:
            installed = _release(version(self.package))
        except PackageNotFoundError:
            return False
        return _release(self.since) <= installed and (self.until is None or installed < _release(self.until))

    def pinned_case(self) -> Case:
        """The smallest case that shows it."""
        return Case.load(_CASES / self.pinned)


def _one_element(case: Case) -> bool:
    return case.x.size > 0 and case.group_size == 1


def _always(case: Case) -> bool:
    return True


def _root_overflows_half(case: Case) -> bool:
    """Whether 1/sqrt(var + eps) of some group exceeds float16's range."""
    if case.x.size == 0:
        return False
    x = np.where(np.isfinite(case.x), case.x, 0).astype(np.float64)
    least = x.var(axis=group_axes(case.semantics)).min(initial=np.inf) + case.eps
    return bool(least < 2 * DTYPES["float16"].largest ** -2)  # 2: the variance is rounded too


def _many_rows(case: Case) -> bool:
    return case.x.size // max(1, case.group_size) > 1 << 14


def _no_pixels(case: Case) -> bool:
    return case.x.shape[2] * case.x.shape[3] == 0


def _bias_alone(case: Case) -> bool:
    return case.weight is None and "bias" in case.requires_grad


def _channels_last(case: Case) -> bool:
    """Whether torch takes x for channels_last by its strides (c10's is_channels_last_strides_2d)."""
    shape, strides = case.x.shape, case.laid_out("x").strides(case.x.shape)
    least = 0
    if strides[1] == 0 or 0 in shape:
        return False
    for axis in (1, 3, 2, 0):
        if strides[axis] < least or (axis == 0 and least == strides[1]):
            return False
        least = strides[axis] * max(shape[axis], 1)
    return True


def _frozen_channels_last(case: Case) -> bool:
    return _channels_last(case) and "x" not in case.requires_grad and bool(case.requires_grad)


_ALL, _HALF = tuple(DTYPES), ("float16", "bfloat16")
_VALUES = ("gradients", "special_values", "degenerate", "layout", "modes")


def _fault(implementation: str, fault: str, **details: Any) -> KnownFault:
    """An entry for torch, whose first release known to have it is the one that was judged."""
    name = f"{implementation}: {fault}"
    pinned = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") + ".json"
    return KnownFault(name=name, implementation=implementation, package="torch", since="2.13", pinned=pinned, **details)


def _saved_in_half(implementation: str, quantities: tuple[str, ...], reason: str) -> tuple[KnownFault, KnownFault]:
    """Gradients from statistics that were rounded to half; from rstd = 65504 up they are infinite in float16."""
    common = {"laws": _VALUES, "reason": reason}
    return (
        _fault(implementation, "half gradients", quantities=quantities, dtypes=_HALF, when=_always, ceiling=2e4, **common),
        _fault(
            implementation,
            "half gradients not finite",
            quantities=tuple(quantity for quantity in quantities if quantity != "dbias"),
            dtypes=("float16",),
            when=_root_overflows_half,
            ceiling=np.inf,
            **common,
        ),
    )


def _not_exact(implementation: str) -> KnownFault:
    return _fault(
        implementation,
        "one-element groups not exact",
        laws=("degenerate", "special_values", "layout", "modes"),
        quantities=("y", "dx", "dweight"),
        dtypes=_ALL,
        when=_one_element,
        ceiling=np.inf,
        reason="x·rstd - mean·rstd and its gradients round, where x - mean is exactly 0; 1/sqrt(eps) magnifies the rest.",
    )


def _layer_norm(implementation: str) -> tuple[KnownFault, ...]:
    reason = "The CPU backward of F.layer_norm keeps mean, rstd and the sums of dweight and dbias in the input's half dtype."
    return (*_saved_in_half(implementation, ("dx", "dweight", "dbias"), reason), _not_exact(implementation))


def _summed_in_a_chain(implementation: str) -> KnownFault:
    return _fault(
        implementation,
        "parameter gradients summed in one chain",
        laws=_VALUES,
        quantities=("dweight", "dbias"),
        dtypes=("float32", "float64"),
        when=_many_rows,
        ceiling=100,
        reason="The CPU backward of F.layer_norm adds the rows of a thread one after another: for M rows an error up to M/4 roundoffs.",
    )


def _accepted(implementation: str, quantities: tuple[str, ...], reason: str) -> KnownFault:
    return _fault(
        implementation,
        "wrong arguments are answered",
        laws=("bad_arguments",),
        quantities=quantities,
        dtypes=_ALL,
        when=_always,
        ceiling=np.inf,
        reason=reason,
    )


_GROUP_NORM = "torch/group_norm"
_RANKS = ("x of rank 3", "x of rank 5")
_BROADCAST = tuple(f.format(name) for f in ("long {}", "{} for one channel", "{} with an axis too many") for name in ("weight", "bias"))
_COMPOSED = "Tensor arithmetic asks for no rank, and broadcasts a parameter of one value, or one value of x, over the other."
_ANY_RANK = "torch's function takes any rank; the recipe does not ask for 4, and so takes H for C, or a batch for a channel."

LEDGER: tuple[KnownFault, ...] = (
    *_layer_norm("torch/permute"),
    _summed_in_a_chain("torch/permute"),
    *_layer_norm("torch/layer_norm_chw"),
    _summed_in_a_chain("torch/layer_norm_chw"),
    *_layer_norm("torch/unpermuted"),
    _fault(
        "torch/unpermuted",
        "an affine of shape (C,) is refused",
        laws=("result",),
        quantities=("y",),
        dtypes=_ALL,
        when=lambda case: case.weight is not None or case.bias is not None,
        ceiling=np.inf,
        reason="F.layer_norm over (C, H, W) needs an affine of shape (C, H, W): the recipe raises unless its affine is off.",
    ),
    _accepted("torch/composed", (*_RANKS, *_BROADCAST), _COMPOSED),
    _accepted("torch/composed_float32", (*_RANKS, *_BROADCAST, "integer x"), f"{_COMPOSED} Integers are promoted to float32."),
    *(_accepted(name, _RANKS, _ANY_RANK) for name in ("torch/layer_norm_chw", "torch/unpermuted", _GROUP_NORM)),
    *_saved_in_half(_GROUP_NORM, ("dx", "dweight"), "The CPU GroupNorm saves mean and rstd in the input's half dtype."),
    _not_exact(_GROUP_NORM),
    _fault(
        _GROUP_NORM,
        "one-pass variance for channels_last",
        laws=(*_VALUES, "value"),
        quantities=("y", "dx", "dweight"),
        dtypes=_ALL,
        when=_channels_last,
        ceiling=np.inf,
        reason="The CPU kernel for channels_last takes the variance as E[x²] - E[x]².",
    ),
    _fault(
        _GROUP_NORM,
        "dweight not zero where H·W = 0",
        laws=("degenerate", "history"),
        quantities=("dweight",),
        dtypes=_ALL,
        when=_no_pixels,
        ceiling=np.inf,
        reason="Without pixels the backward returns NaN, or memory as it was allocated.",
    ),
    _fault(
        _GROUP_NORM,
        "backward raises with a bias and no weight",
        laws=("result",),
        quantities=("gradients",),
        dtypes=_ALL,
        when=_bias_alone,
        ceiling=np.inf,
        reason="The backward asks the absent weight for its device: 'tensor does not have a device'.",
    ),
    _fault(
        _GROUP_NORM,
        "backward crashes with a frozen channels_last x",
        laws=("result",),
        quantities=("gradients",),
        dtypes=_ALL,
        when=_frozen_channels_last,
        ceiling=np.inf,
        reason="The channels_last backward writes dx without asking whether it is wanted: segmentation fault.",
        crashes=True,
    ),
)
"""What is known of the releases that were judged; docs/findings.md tells each in words."""


def known_fault(violation: Violation, ledger: tuple[KnownFault, ...] = LEDGER) -> KnownFault | None:
    """The entry that explains a violation, or None."""
    return next((entry for entry in ledger if entry.matches(violation)), None)


def stale(shown: Callable[[str, Case], Iterator[Violation]], ledger: tuple[KnownFault, ...] = LEDGER) -> list[KnownFault]:
    """Entries for the installed release whose pinned case no longer fails; one that crashes is not run, and not judged.

    `shown(name, case)` gives the violations of the implementation of that name.
    """
    return [
        entry
        for entry in ledger
        if entry.current()
        and not entry.crashes
        and not any(entry.matches(violation) for violation in shown(entry.implementation, entry.pinned_case()))
    ]


def _release(text: str) -> tuple[int, ...]:
    numbers = text.partition("+")[0].split(".")
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in numbers[:3])
