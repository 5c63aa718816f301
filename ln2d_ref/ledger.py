"""Known faults of released implementations: counted and reported, never hidden, and no reason for a run to be red.

A violation that matches an entry is known. Each entry has a ceiling on error/bound and a predicate over the case, so that a second
fault in the same quantity is still found, and a pinned case, which must go on failing: else the entry is stale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case
from .dtypes import DTYPES
from .semantics import group_axes
from .violation import Violation

__all__ = ["LEDGER", "KnownFault", "known_fault", "resembling", "stale"]

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

    def matches(self, violation: Violation, *, implementation: str | None = None) -> bool:
        """Whether this entry explains the violation, or would if it were this implementation's."""
        return (
            violation.law in self.laws
            and violation.quantity in self.quantities
            and violation.ratio <= self.ceiling
            and self.covers(implementation or violation.implementation, violation.case)
        )

    def covers(self, implementation: str, case: Case) -> bool:
        """Whether this implementation, as installed, has the fault on a case like this one."""
        return implementation == self.implementation and case.dtype in self.dtypes and self.current() and self.when(case)

    def current(self) -> bool:
        """Whether the installed release is one that has the fault."""
        installed = _installed(self.package)
        return installed is not None and _release(self.since) <= installed and (self.until is None or installed < _release(self.until))

    def pinned_case(self) -> Case:
        """The smallest case that shows it."""
        return Case.load(_CASES / self.pinned)


@cache
def _installed(package: str) -> tuple[int, ...] | None:
    """Release of an installed package, or None; reading its metadata costs as much as judging a case."""
    try:
        return _release(version(package))
    except PackageNotFoundError:
        return None


def _one_element(case: Case) -> bool:
    return case.x.size > 0 and case.group_size == 1


def _always(case: Case) -> bool:
    return True


def _exceeds_half(case: Case) -> bool:
    """Whether 1/sqrt(var + eps), or that times the largest |dy·weight|·x̂², comes within 2⁴ of float16's range."""
    if case.x.size == 0:
        return False
    x = np.where(np.isfinite(case.x), case.x, 0).astype(np.float64)
    axes = group_axes(case.semantics)
    deviation = np.abs(x - x.mean(axis=axes, keepdims=True))
    root = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + case.eps)
    g = np.prod([np.abs(np.nan_to_num(a.astype(np.float64))).max() for a in (case.dy, case.weight) if a is not None])
    return bool((root * np.maximum(1, g * np.maximum(1, deviation * root) ** 2)).max() > DTYPES["float16"].largest / 2**4)


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


def _bias_only(case: Case) -> bool:
    return case.requires_grad == ("bias",) and case.weight is None


_ALL, _HALF, _FULL = tuple(DTYPES), ("float16", "bfloat16"), ("float32", "float64")
_VALUES = ("gradients", "special_values", "degenerate", "layout", "modes")
_HIGHER = ("ddy", "ddx", "ddweight", "tangent", "tdx", "tdweight", "dddy", "dddx", "dddweight", "ttangent")
_BATCHED = ("vmap_y", "vmap_dx", "vmap_dweight", "vmap_dbias")


def _fault(implementation: str, fault: str, **details: Any) -> KnownFault:
    """An entry for torch, whose first release known to have it is the one that was judged."""
    name = f"{implementation}: {fault}"
    pinned = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") + ".json"
    return KnownFault(name=name, implementation=implementation, package="torch", since="2.13", pinned=pinned, **details)


def _saved_in_half(implementation: str, quantities: tuple[str, ...], reason: str) -> tuple[KnownFault, KnownFault]:
    """Gradients from statistics that were rounded to half; near the limit of float16 they are infinite or NaN."""
    common = {"laws": _VALUES, "reason": reason}
    return (
        _fault(implementation, "half gradients", quantities=quantities, dtypes=_HALF, when=_always, ceiling=2e4, **common),
        _fault(
            implementation,
            "half gradients not finite",
            quantities=tuple(quantity for quantity in quantities if quantity != "dbias"),
            dtypes=("float16",),
            when=_exceeds_half,
            ceiling=np.inf,
            **common,
        ),
    )


def _derivatives(implementation: str, fault: str, quantities: tuple[str, ...], **details: Any) -> KnownFault:
    """An entry of `derivatives`; by default in full precision, for every case and errors of any size."""
    common = {"dtypes": _FULL, "when": _always, "ceiling": np.inf, **details}
    return _fault(implementation, fault, laws=("derivatives",), quantities=quantities, **common)


def _half_derivatives(implementation: str, reason: str) -> tuple[KnownFault, KnownFault]:
    """Derivatives whose intermediate values are rounded to half; float16's overflow."""
    names = (*_HIGHER, *_BATCHED)
    infinite = _derivatives(implementation, "float16 derivatives", names, dtypes=("float16",), reason=reason)
    return infinite, _derivatives(implementation, "bfloat16 derivatives", names, dtypes=("bfloat16",), ceiling=1e7, reason=reason)


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


def _decomposed(implementation: str, operator: str) -> tuple[KnownFault, KnownFault]:
    reason = f"The decomposition of {operator} rounds mean and rstd to the input's half dtype, and the backward computes from them."
    return _saved_in_half(implementation, ("dx", "dweight"), reason)


def _layer_norm(implementation: str) -> tuple[KnownFault, ...]:
    reason = "The CPU backward of F.layer_norm keeps mean, rstd and the sums of dweight and dbias in the input's half dtype."
    halved = "Double backward, forward mode and vmap of F.layer_norm go on in half, from statistics saved in half."
    third = "The double backward of F.layer_norm takes its saved mean and rstd for constants when it is differentiated."
    nested = "The forward-mode formula of F.layer_norm takes mean and rstd for constants when it is differentiated."
    return (
        *_saved_in_half(implementation, ("dx", "dweight", "dbias"), reason),
        _not_exact(implementation),
        *_half_derivatives(implementation, halved),
        _derivatives(implementation, "third order", ("dddx",), reason=third),
        _derivatives(implementation, "nested forward", ("ttangent",), reason=nested),
    )


def _bias_alone_lost(implementation: str) -> KnownFault:
    reason = "The double backward of F.layer_norm with a bias, no weight and a frozen x returns None for dy."
    return _derivatives(implementation, "no double backward of the bias alone", ("ddy",), dtypes=_ALL, when=_bias_only, reason=reason)


def _summed_in_a_chain(implementation: str) -> KnownFault:
    return _fault(
        implementation,
        "parameter gradients summed in one chain",
        laws=_VALUES,
        quantities=("dweight", "dbias"),
        dtypes=("float32", "float64"),
        when=_many_rows,
        ceiling=100,
        reason="The CPU backward of F.layer_norm adds a thread's rows one after another: for M rows up to M/4 units of roundoff.",
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
    _bias_alone_lost("torch/permute"),
    _summed_in_a_chain("torch/permute"),
    *_layer_norm("torch/layer_norm_chw"),
    _bias_alone_lost("torch/layer_norm_chw"),
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
    *_half_derivatives(_GROUP_NORM, "Double backward, forward mode and vmap of F.group_norm go on in half, from statistics saved in half."),
    _derivatives(
        _GROUP_NORM,
        "forward mode of uncentred sums",
        ("tdx", "tdweight", "ttangent"),
        ceiling=1e6,
        reason="The forward-mode formula subtracts terms of the size of the mean: the error grows with (mean/spread)².",
    ),
    _derivatives(
        _GROUP_NORM,
        "derivatives from the one-pass variance for channels_last",
        ("primal", *_HIGHER),
        when=_channels_last,
        reason="They start from the statistics of the channels_last kernel, E[x²] - E[x]².",
    ),
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
    *_decomposed("compile/permute", "native_layer_norm"),
    *_decomposed("compile/layer_norm_chw", "native_layer_norm"),
    *_decomposed("compile/group_norm", "native_group_norm"),
    _fault(
        "compile/group_norm",
        "division by zero where H·W = 0",
        laws=("result",),
        quantities=("y",),
        dtypes=_ALL,
        when=lambda case: _no_pixels(case) and "x" in case.requires_grad,
        ceiling=np.inf,
        reason="The decomposition of native_group_norm_backward takes 1.0 / (H·W·C), in Python: ZeroDivisionError while compiling.",
    ),
)
"""What is known of the releases that were judged; docs/findings.md tells each in words."""


def known_fault(violation: Violation, ledger: tuple[KnownFault, ...] = LEDGER) -> KnownFault | None:
    """The entry that explains a violation, or None."""
    return next((entry for entry in ledger if entry.matches(violation)), None)


def resembling(violation: Violation, ledger: tuple[KnownFault, ...] = LEDGER) -> KnownFault | None:
    """An entry of another implementation that looks like a violation: same semantics, law, quantity, dtype and kind of case, or None."""
    for entry in ledger:
        alike = entry.implementation != violation.implementation and entry.matches(violation, implementation=entry.implementation)
        if alike and entry.pinned_case().semantics == violation.case.semantics:
            return entry
    return None


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
