"""Cases: shapes, dtypes, eps, layouts, values and devices put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ln2d_ref import Case
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.implementations.implementation import AFFINE_COMBINATIONS
from ln2d_ref.layout import Layout
from ln2d_ref.semantics import SEMANTICS
from ln2d_ref.signature import Signature

from .arguments import some_of
from .arrays import BULK_DIGITS, Plan, bulk_arrays, small_arrays, small_digits, usable_eps
from .draws import Draws, digits, unrepeating
from .epsilons import EPSILON_DIGITS, pick_epsilon
from .layouts import LAYOUT_DIGITS, pick_layout
from .shapes import SHAPE_DIGITS, SHAPE_KINDS, pick_shape
from .signatures import pick_layouts_within, pick_shape_within
from .values import REGIMES

__all__ = ["cases"]

_SUBSETS = (("x", "weight", "bias"), ("x",), ("weight",), ("bias",), ("weight", "bias"), ("x", "weight"), ())
_SMALL = 64  # elements of x, up to which values may be picked one by one

_SETTING_DIGITS = 9 + EPSILON_DIGITS + SHAPE_DIGITS
_LAYOUTS_DIGITS = 2 + 4 * LAYOUT_DIGITS
_WITHIN_DIGITS = 11 + LAYOUT_DIGITS


@dataclass(frozen=True)
class _Scope:
    """What may be picked, and has been checked; `within` signatures decide all but regimes and max_elements."""

    semantics: tuple[str, ...]
    dtypes: tuple[str, ...]
    affine: tuple[str, ...]
    affine_shape: str
    eps: float | None
    devices: tuple[str, ...]
    shape_kinds: tuple[str, ...]
    regimes: tuple[str, ...]
    allow_contiguous: bool
    allow_strided: bool
    max_elements: int
    within: tuple[Signature, ...]


def cases(
    *,
    semantics: str | Sequence[str] = SEMANTICS,
    dtypes: str | Sequence[str] = tuple(DTYPES),
    affine: str | Sequence[str] = AFFINE_COMBINATIONS,
    affine_shape: str = "channel",
    eps: float | None = None,
    devices: str | Sequence[str] = ("cpu",),
    shape_kinds: str | Sequence[str] = SHAPE_KINDS,
    regimes: str | Sequence[str] = tuple(REGIMES),
    allow_contiguous: bool = True,
    allow_strided: bool = True,
    max_elements: int = 8200,
    within: Signature | Sequence[Signature] = (),
) -> st.SearchStrategy[Case]:
    """Cases that a right implementation must pass; shrink towards a small contiguous one with values that are small integers.

    semantics, dtypes, affine, devices   names to choose from, as in Implementation
    affine_shape                         "channel" for (C,), "element" for (C, H, W) (sample semantics only)
    eps                                  a fixed eps, or None to draw one
    shape_kinds, regimes                 names in shapes.SHAPE_KINDS and values.REGIMES; without "nonfinite" all is finite
    allow_contiguous, allow_strided      whether all arguments may be contiguous, and whether any may be strided
    max_elements                         of x (a rare shape has more)
    within                               one or more compile signatures, which then decide all of these but regimes and max_elements
    Raises InvalidArgument for any other value.
    """
    some_of("affine_shape", affine_shape, ("channel", "element"))
    if not allow_contiguous and not allow_strided:
        raise InvalidArgument("allow_contiguous and allow_strided are both False, but one must be True")
    if max_elements < 64:
        raise InvalidArgument(f"max_elements is {max_elements!r}, but must be at least 64")
    if eps is not None and not (isinstance(eps, Real) and 0 <= eps < float("inf")):
        raise InvalidArgument(f"eps is {eps!r}, but must be None or a finite number >= 0")
    scope = _Scope(
        some_of("semantics", semantics, SEMANTICS),
        some_of("dtypes", dtypes, tuple(DTYPES)),
        some_of("affine", affine, AFFINE_COMBINATIONS),
        affine_shape,
        None if eps is None else float(eps),
        some_of("devices", devices, ("cpu", "cuda")),
        some_of("shape_kinds", shape_kinds, SHAPE_KINDS),
        some_of("regimes", regimes, tuple(REGIMES)),
        allow_contiguous,
        allow_strided,
        max_elements,
        (within,) if isinstance(within, Signature) else tuple(within),
    )
    return unrepeating(_cases(scope))


@st.composite
def _cases(draw: st.DrawFn, scope: _Scope) -> Case:
    """In three draws, four where something is strided: settings, layouts, values."""
    laid_out: dict[str, Layout] = {}
    if scope.within:
        setting = digits(draw, _WITHIN_DIGITS)
        plan, laid_out = _plan_within(setting, scope)
    else:
        setting = digits(draw, _SETTING_DIGITS)
        plan = _plan(setting, scope)
        if (setting.chance(2) or not scope.allow_contiguous) and scope.allow_strided:
            laid_out = _layouts(digits(draw, _LAYOUTS_DIGITS), plan)
    one_by_one = setting.integer(0, 2) == 0 and 0 < math.prod(plan.shape) <= _SMALL and scope.regimes != ("nonfinite",)
    if one_by_one:
        regime, arrays = small_arrays(digits(draw, small_digits(plan)), plan)
    else:
        regime, arrays = bulk_arrays(digits(draw, BULK_DIGITS), plan, scope.regimes)
    for name, layout in laid_out.items():
        if layout.expanded and name in arrays:
            arrays[name] = _constant_along(arrays[name], layout.expanded)
    event(f"regime {regime}")
    return Case(
        **arrays,
        eps=usable_eps(plan, arrays["x"]),
        semantics=plan.semantics,
        layouts={name: layout for name, layout in laid_out.items() if name in arrays},
        requires_grad=plan.requires_grad,
        device=plan.device,
        threads=plan.threads,
        regime=regime,
    )


def _plan(draws: Draws, scope: _Scope) -> Plan:
    """Everything requires grad in two cases of three, and more."""
    semantics, dtype, affine = draws.choice(scope.semantics), draws.choice(scope.dtypes), draws.choice(scope.affine)
    common, which = not draws.chance(3), draws.choice(_SUBSETS)
    device, threads = draws.choice(scope.devices), draws.choice((1, 1, 2))
    picked = pick_epsilon(draws.part(EPSILON_DIGITS))
    shape = pick_shape(draws.part(SHAPE_DIGITS), semantics, scope.shape_kinds, _most_elements(dtype, scope))
    return Plan(
        shape,
        shape[1:] if scope.affine_shape == "element" and semantics == "sample" else shape[1:2],
        dtype,
        semantics,
        picked if scope.eps is None else scope.eps,
        affine,
        _SUBSETS[0] if common else which,
        device,
        threads,
    )


def _plan_within(draws: Draws, scope: _Scope) -> tuple[Plan, dict[str, Layout]]:
    """Of one of the signatures, with its layouts."""
    signature = draws.part(2).choice(scope.within)
    laid_out = pick_layouts_within(draws.part(1 + LAYOUT_DIGITS), signature)
    shape = pick_shape_within(draws.part(7), signature, _most_elements(signature.dtype, scope))
    plan = Plan(
        shape,
        shape[1:] if signature.element else shape[1:2],
        signature.dtype,
        signature.semantics,
        signature.eps,
        signature.affine,
        signature.requires_grad,
        signature.device,
        signature.threads,
    )
    return plan, laid_out


def _most_elements(dtype: str, scope: _Scope) -> int:
    return max(64, scope.max_elements // 4) if dtype == "float64" else scope.max_elements  # double-double costs ten times as much


def _layouts(draws: Draws, plan: Plan) -> dict[str, Layout]:
    """A layout for each argument: x or dy strided, the other perhaps, the parameters in one case of three."""
    main, parameters_too = draws.choice(("x", "dy")), draws.chance(3)
    picked = {
        main: pick_layout(draws.part(LAYOUT_DIGITS), 4, allow_contiguous=False),
        "dy" if main == "x" else "x": pick_layout(draws.part(LAYOUT_DIGITS), 4),
    }
    parameters = {name: pick_layout(draws.part(LAYOUT_DIGITS), len(plan.parameter)) for name in ("weight", "bias")}
    return picked | parameters if parameters_too else picked


def _constant_along(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    first = array[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(array.ndim))]
    return np.ascontiguousarray(np.broadcast_to(first, array.shape)) if array.size else array
