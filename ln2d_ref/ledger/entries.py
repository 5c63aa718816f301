"""What is known of the releases that were judged; docs/findings.md tells each in words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..dtypes import DTYPES
from .conditions import (
    always,
    bias_alone,
    bias_only,
    channels_last,
    dbias_exceeds_half,
    dweight_exceeds_half,
    exceeds_half,
    frozen_channels_last,
    many_terms,
    no_pixels,
    one_element,
)
from .fault import KnownFault

__all__ = ["LEDGER"]

_ALL, _HALF, _FULL = tuple(DTYPES), ("float16", "bfloat16"), ("float32", "float64")
_ANYWHERE = ("cpu", "cuda")
_VALUES = ("gradients", "special_values", "degenerate", "layout", "modes")
_HIGHER = ("ddy", "ddx", "ddweight", "tangent", "tdx", "tdweight", "dddy", "dddx", "dddweight", "ttangent")
_LARGEST = float(np.finfo(np.float64).max)
"""A ceiling for what has no limit but is no NaN or infinity."""
_BATCHED = ("vmap_y", "vmap_dx", "vmap_dweight", "vmap_dbias")


def _fault(implementation: str, fault: str, **details: Any) -> KnownFault:
    """An entry for torch, with every release that is supported; the pinned cases were run on 2.9.1, 2.11.0, 2.13.0 and 2.14.1."""
    name = f"{implementation}: {fault}"
    pinned = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") + ".json"
    return KnownFault(name=name, implementation=implementation, package="torch", since="2.9", pinned=pinned, **details)


def _saved_in_half(implementation: str, quantities: tuple[str, ...], reason: str) -> tuple[KnownFault, KnownFault]:
    """Gradients from statistics that were rounded to half; near the limit of float16 they are infinite or NaN."""
    common = {"laws": _VALUES, "reason": reason}
    return (
        _fault(implementation, "half gradients", quantities=quantities, dtypes=_HALF, when=always, ceiling=2e4, **common),
        _fault(
            implementation,
            "half gradients not finite",
            quantities=tuple(quantity for quantity in quantities if quantity != "dbias"),
            dtypes=("float16",),
            when=exceeds_half,
            ceiling=np.inf,
            **common,
        ),
    )


def _sums_in_half(implementation: str) -> tuple[KnownFault, KnownFault]:
    """Sums of dweight and dbias that overflow in half on their way."""
    common = {"laws": _VALUES, "dtypes": ("float16",), "ceiling": np.inf, "reason": _HALF_SUMS}
    return (
        _fault(implementation, "half sum of dweight not finite", quantities=("dweight",), when=dweight_exceeds_half, **common),
        _fault(implementation, "half sum of dbias not finite", quantities=("dbias",), when=dbias_exceeds_half, **common),
    )


def _beside_float32(implementation: str) -> tuple[KnownFault, KnownFault]:
    """The same where float32 parameters' gradients are asked for in float32, of which a half has lost thousands of units or, as 0, all."""
    common = {"laws": ("modes",), "quantities": ("dweight", "dbias"), "when": always, "reason": _HALF_SUMS}
    return (
        _fault(implementation, "float32 gradients beside float16", dtypes=("float16",), ceiling=np.inf, **common),
        _fault(implementation, "float32 gradients beside bfloat16", dtypes=("bfloat16",), ceiling=1e7, **common),
    )


def _derivatives(implementation: str, fault: str, quantities: tuple[str, ...], **details: Any) -> KnownFault:
    """An entry of `derivatives`; by default in full precision, for every case and errors of any size."""
    common = {"dtypes": _FULL, "when": always, "ceiling": np.inf, **details}
    return _fault(implementation, fault, laws=("derivatives",), quantities=quantities, **common)


def _half_derivatives(implementation: str, reason: str) -> tuple[KnownFault, KnownFault]:
    """Derivatives whose intermediate values are rounded to half: what is lost is multiplied by powers of rstd, and in float16 overflows."""
    names = (*_HIGHER, *_BATCHED)
    infinite = _derivatives(implementation, "float16 derivatives", names, dtypes=("float16",), reason=reason)
    finite = _derivatives(implementation, "bfloat16 derivatives", names, dtypes=("bfloat16",), ceiling=_LARGEST, reason=reason)
    return infinite, finite


def _not_exact(implementation: str) -> KnownFault:
    return _fault(
        implementation,
        "one-element groups not exact",
        laws=("degenerate", "special_values", "layout", "modes"),
        quantities=("y", "dx", "dweight"),
        dtypes=_ALL,
        when=one_element,
        ceiling=np.inf,
        reason="x·rstd - mean·rstd and its gradients round, where x - mean is exactly 0; 1/sqrt(eps) magnifies the rest.",
        erratic=True,
    )


def _decomposed(implementation: str, operator: str) -> tuple[KnownFault, KnownFault]:
    reason = f"The decomposition of {operator} rounds mean and rstd to the input's half dtype, and the backward computes from them."
    return _saved_in_half(implementation, ("dx", "dweight"), reason)


_GRADIENTS = ("dx", "dweight", "dbias")
_HALF_SUMS = "The CPU backward of F.layer_norm keeps mean, rstd and the sums of dweight and dbias in the input's half dtype."


def _layer_norm(implementation: str) -> tuple[KnownFault, ...]:
    halved = "Double backward, forward mode and vmap of F.layer_norm go on in half, from statistics saved in half."
    third = "The double backward of F.layer_norm takes its saved mean and rstd for constants when it is differentiated."
    nested = "The forward-mode formula of F.layer_norm takes mean and rstd for constants when it is differentiated."
    return (
        *_saved_in_half(implementation, _GRADIENTS, _HALF_SUMS),
        _not_exact(implementation),
        *_half_derivatives(implementation, halved),
        _derivatives(implementation, "third order", ("dddx",), devices=_ANYWHERE, reason=third),
        _derivatives(implementation, "nested forward", ("ttangent",), devices=_ANYWHERE, reason=nested),
    )


def _bias_alone_lost(implementation: str) -> KnownFault:
    reason = "The double backward of F.layer_norm with a bias, no weight and a frozen x returns None for dy."
    return _derivatives(
        implementation, "no double backward of the bias alone", ("ddy",), dtypes=_ALL, when=bias_only, devices=_ANYWHERE, reason=reason
    )


_ROWS_IN_A_CHAIN = "The CPU backward of F.layer_norm adds a thread's rows one after another: for M rows up to M/4 units of roundoff."
_PIXELS_IN_A_CHAIN = (
    "The CPU backward of F.group_norm adds samples, and in channels_last pixels, one after another, or in 8 or 16 such chains."
)


def _summed_in_a_chain(implementation: str, reason: str) -> KnownFault:
    return _fault(
        implementation,
        "parameter gradients summed in one chain",
        laws=_VALUES,
        quantities=("dweight", "dbias"),
        dtypes=("float32", "float64"),
        when=many_terms,
        ceiling=100,
        reason=reason,
    )


def _accepted(implementation: str, quantities: tuple[str, ...], reason: str) -> KnownFault:
    return _fault(
        implementation,
        "wrong arguments are answered",
        laws=("bad_arguments",),
        quantities=quantities,
        dtypes=_ALL,
        devices=_ANYWHERE,
        when=always,
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
    *_sums_in_half("torch/permute"),
    *_beside_float32("torch/permute"),
    _bias_alone_lost("torch/permute"),
    _summed_in_a_chain("torch/permute", _ROWS_IN_A_CHAIN),
    *_layer_norm("torch/layer_norm_chw"),
    *_sums_in_half("torch/layer_norm_chw"),
    *_beside_float32("torch/layer_norm_chw"),
    _bias_alone_lost("torch/layer_norm_chw"),
    _summed_in_a_chain("torch/layer_norm_chw", _ROWS_IN_A_CHAIN),
    *_layer_norm("torch/unpermuted"),
    _fault(
        "torch/unpermuted",
        "an affine of shape (C,) is refused",
        laws=("result",),
        quantities=("y",),
        dtypes=_ALL,
        devices=_ANYWHERE,
        when=lambda case: case.weight is not None or case.bias is not None,
        ceiling=np.inf,
        reason="F.layer_norm over (C, H, W) needs an affine of shape (C, H, W): the recipe raises unless its affine is off.",
    ),
    _accepted("torch/composed", (*_RANKS, *_BROADCAST), _COMPOSED),
    _accepted("torch/composed_float32", (*_RANKS, *_BROADCAST, "integer x"), f"{_COMPOSED} Integers are promoted to float32."),
    *(_accepted(name, _RANKS, _ANY_RANK) for name in ("torch/layer_norm_chw", "torch/unpermuted", _GROUP_NORM)),
    *_saved_in_half(_GROUP_NORM, ("dx", "dweight"), "The CPU GroupNorm saves mean and rstd in the input's half dtype."),
    _not_exact(_GROUP_NORM),
    _summed_in_a_chain(_GROUP_NORM, _PIXELS_IN_A_CHAIN),
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
        dtypes=_ALL,
        when=channels_last,
        reason="They start from the statistics of the channels_last kernel, E[x²] - E[x]².",
    ),
    _fault(
        _GROUP_NORM,
        "one-pass variance for channels_last",
        laws=(*_VALUES, "value"),
        quantities=("y", "dx", "dweight"),
        dtypes=_ALL,
        when=channels_last,
        ceiling=np.inf,
        reason="The CPU kernel for channels_last takes the variance as E[x²] - E[x]².",
    ),
    _fault(
        _GROUP_NORM,
        "dweight not zero where H·W = 0",
        until="2.14.1",
        laws=("degenerate", "history"),
        quantities=("dweight",),
        dtypes=_ALL,
        when=no_pixels,
        ceiling=np.inf,
        reason="Without pixels the backward returns NaN, or memory as it was allocated.",
        erratic=True,
    ),
    _fault(
        _GROUP_NORM,
        "backward raises with a bias and no weight",
        until="2.14.1",
        laws=("result",),
        quantities=("gradients",),
        dtypes=_ALL,
        when=bias_alone,
        ceiling=np.inf,
        reason="The backward asks the absent weight for its device: 'tensor does not have a device'.",
    ),
    _fault(
        _GROUP_NORM,
        "backward crashes with a frozen channels_last x",
        until="2.14.1",
        laws=("result",),
        quantities=("gradients",),
        dtypes=_ALL,
        when=frozen_channels_last,
        ceiling=np.inf,
        reason="The channels_last backward writes dx without asking whether it is wanted: segmentation fault.",
        crashes=True,
    ),
    *_decomposed("compile/permute", "native_layer_norm"),
    *_decomposed("compile/layer_norm_chw", "native_layer_norm"),
    *_decomposed("compile/group_norm", "native_group_norm"),
    _not_exact("compile/group_norm"),
    _fault(
        "compile/group_norm",
        "division by zero where H·W = 0",
        until="2.14.1",
        laws=("result",),
        quantities=("y",),
        dtypes=_ALL,
        when=lambda case: no_pixels(case) and "x" in case.requires_grad,
        ceiling=np.inf,
        reason="The decomposition of native_group_norm_backward takes 1.0 / (H·W·C), in Python: ZeroDivisionError while compiling.",
    ),
)
