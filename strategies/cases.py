"""Cases: shapes, dtypes, eps, layouts, values and devices put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ln2d_ref import Case
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.implementations.implementation import AFFINE_COMBINATIONS
from ln2d_ref.layout import Layout
from ln2d_ref.semantics import SEMANTICS, group_axes
from ln2d_ref.signature import Signature

from .arguments import some_of
from .draws import Draws, digits, unrepeating
from .epsilons import EPSILON_DIGITS, pick_epsilon
from .layouts import LAYOUT_DIGITS, pick_layout
from .parameters import BIASES, GRADIENTS, WEIGHTS, cancelling_bias
from .shapes import SHAPE_DIGITS, SHAPE_KINDS, pick_shape
from .signatures import pick_layouts_within, pick_shape_within
from .values import REGIMES, Setting, fill, rounded

__all__ = ["cases"]

_SUBSETS = (("x", "weight", "bias"), ("x",), ("weight",), ("bias",), ("weight", "bias"), ("x", "weight"), ())
_SMALL = 64  # elements of x, up to which values may be picked one by one
_UNITS = (1.0, 0.5, 0.125, 100.0, 2.0**-10)
_CENTRES = {"x": (0.0, 1.0, 100.0, -4096.0), "weight": (1.0, 0.0), "bias": (0.0, 1.0), "dy": (0.0, 1.0)}
_WEIGHT_KINDS = ((4, "normal"), (2, "with_zeros"), (1, "near_one"), (1, "large"), (1, "ones"))
_BIAS_KINDS = ((4, "normal"), (2, "cancelling"), (1, "with_zeros"), (1, "large"), (1, "zeros"))
_GRADIENT_KINDS = ((5, "normal"), (1, "ones"), (1, "one_hot"), (2, "last_pixel"), (1, "constant"), (1, "aligned"), (1, "with_zeros"))

_SETTING_DIGITS = 9 + EPSILON_DIGITS + SHAPE_DIGITS
_LAYOUTS_DIGITS = 2 + 4 * LAYOUT_DIGITS
_WITHIN_DIGITS = 11 + LAYOUT_DIGITS
_BULK_DIGITS = 10


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


@dataclass(frozen=True)
class _Plan:
    """What has been picked before layouts and values are."""

    shape: tuple[int, ...]
    parameter: tuple[int, ...]
    dtype: str
    semantics: str
    eps: float
    affine: str
    requires_grad: tuple[str, ...]
    device: str
    threads: int

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Of an argument."""
        return self.shape if name in ("x", "dy") else self.parameter

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arguments that there are."""
        return ("x", *(name for name in ("weight", "bias") if self.affine in ("both", name)), "dy")


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
    within: Sequence[Signature] = (),
) -> st.SearchStrategy[Case]:
    """Cases that a right implementation must pass; shrink towards a small contiguous one with values that are small integers.

    semantics, dtypes, affine, devices   names to choose from, as in Implementation
    affine_shape                         "channel" for (C,), "element" for (C, H, W) (sample semantics only)
    eps                                  a fixed eps, or None to draw one
    shape_kinds, regimes                 names in shapes.SHAPE_KINDS and values.REGIMES; without "nonfinite" all is finite
    allow_contiguous, allow_strided      whether all arguments may be contiguous, and whether any may be strided
    max_elements                         of x (a rare shape has more)
    within                               compile signatures, which then decide all of these but regimes and max_elements
    Raises InvalidArgument for any other value.
    """
    some_of("affine_shape", affine_shape, ("channel", "element"))
    if not allow_contiguous and not allow_strided:
        raise InvalidArgument("allow_contiguous and allow_strided are both False, but one must be True")
    if max_elements < 64:
        raise InvalidArgument(f"max_elements is {max_elements!r}, but must be at least 64")
    if eps is not None and not 0 <= eps < float("inf"):
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
        tuple(within),
    )
    return unrepeating(_cases(scope))


@st.composite
def _cases(draw: st.DrawFn, scope: _Scope) -> Case:
    """In three draws, four where something is strided: settings, layouts, values."""
    laid_out: dict[str, Layout] = {}
    if scope.within:
        setting = draw(digits(_WITHIN_DIGITS))
        plan, laid_out = _plan_within(setting, scope)
    else:
        setting = draw(digits(_SETTING_DIGITS))
        plan = _plan(setting, scope)
        if (setting.chance(2) or not scope.allow_contiguous) and scope.allow_strided:
            laid_out = _layouts(draw(digits(_LAYOUTS_DIGITS)), plan)
    one_by_one = setting.integer(0, 2) == 0 and 0 < math.prod(plan.shape) <= _SMALL and scope.regimes != ("nonfinite",)
    if one_by_one:
        count = sum(2 + math.prod(plan.shape_of(name)) for name in plan.names)
        regime, arrays = "small", _small_arrays(draw(digits(count)), plan)
    else:
        regime, arrays = _bulk_arrays(draw(digits(_BULK_DIGITS)), plan, scope.regimes)
    for name, layout in laid_out.items():
        if layout.expanded and name in arrays:
            arrays[name] = _constant_along(arrays[name], layout.expanded)
    event(f"regime {regime}")
    return Case(
        **arrays,
        eps=_usable_eps(plan, arrays["x"]),
        semantics=plan.semantics,
        layouts={name: layout for name, layout in laid_out.items() if name in arrays},
        requires_grad=plan.requires_grad,
        device=plan.device,
        threads=plan.threads,
        regime=regime,
    )


def _plan(draws: Draws, scope: _Scope) -> _Plan:
    """Everything requires grad in two cases of three, and more."""
    semantics, dtype, affine = draws.choice(scope.semantics), draws.choice(scope.dtypes), draws.choice(scope.affine)
    common, which = not draws.chance(3), draws.choice(_SUBSETS)
    device, threads = draws.choice(scope.devices), draws.choice((1, 1, 2))
    picked = pick_epsilon(draws.part(EPSILON_DIGITS))
    shape = pick_shape(draws.part(SHAPE_DIGITS), semantics, scope.shape_kinds, _most_elements(dtype, scope))
    return _Plan(
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


def _plan_within(draws: Draws, scope: _Scope) -> tuple[_Plan, dict[str, Layout]]:
    """Of one of the signatures, with its layouts."""
    signature = draws.part(2).choice(scope.within)
    laid_out = pick_layouts_within(draws.part(1 + LAYOUT_DIGITS), signature)
    shape = pick_shape_within(draws.part(7), signature, _most_elements(signature.dtype, scope))
    plan = _Plan(
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


def _layouts(draws: Draws, plan: _Plan) -> dict[str, Layout]:
    """A layout for each argument: x or dy strided, the other perhaps, the parameters in one case of three."""
    main, parameters_too = draws.choice(("x", "dy")), draws.chance(3)
    picked = {
        main: pick_layout(draws.part(LAYOUT_DIGITS), 4, allow_contiguous=False),
        "dy" if main == "x" else "x": pick_layout(draws.part(LAYOUT_DIGITS), 4),
    }
    parameters = {name: pick_layout(draws.part(LAYOUT_DIGITS), len(plan.parameter)) for name in ("weight", "bias")}
    return picked | parameters if parameters_too else picked


def _bulk_arrays(draws: Draws, plan: _Plan, regimes: tuple[str, ...]) -> tuple[str, dict[str, np.ndarray]]:
    """Arrays from a seed, a regime for x and one for each parameter."""
    dtype = DTYPES[plan.dtype]
    regime, strength, also_in = draws.choice(regimes), draws.integer(0, 8) / 8, draws.choice(("x", "weight", "dy"))
    weight_kind, bias_kind, dy_kind = draws.weighted(_WEIGHT_KINDS), draws.weighted(_BIAS_KINDS), draws.weighted(_GRADIENT_KINDS)
    rng = np.random.Generator(np.random.SFC64(draws.integer(0, (1 << 32) - 1)))
    arrays = {"x": fill(regime, rng, Setting(plan.shape, dtype, plan.semantics, plan.eps, strength))}
    if "weight" in plan.names:
        values = GRADIENTS["nonfinite"] if regime == "nonfinite" and also_in == "weight" else WEIGHTS[weight_kind]
        arrays["weight"] = rounded(values(rng, plan.parameter), dtype)
    if "bias" in plan.names:
        if bias_kind == "cancelling" and regime != "nonfinite" and arrays["x"].size and plan.affine == "both":
            bias = cancelling_bias(arrays["x"], arrays["weight"], plan.eps, plan.semantics, plan.parameter)
        else:
            bias = BIASES["normal" if bias_kind == "cancelling" else bias_kind](rng, plan.parameter)
        arrays["bias"] = rounded(bias, dtype)
    if regime == "nonfinite" and also_in == "dy":
        dy = GRADIENTS["nonfinite"](rng, plan.shape)
    elif dy_kind != "aligned":
        dy = GRADIENTS[dy_kind](rng, plan.shape)
    elif regime == "nonfinite" or np.abs(dy := arrays["x"].astype(np.float64)).max(initial=0.0) > 1e4:
        dy = GRADIENTS["normal"](rng, plan.shape)
    arrays["dy"] = rounded(dy, dtype)
    return regime, arrays


def _small_arrays(draws: Draws, plan: _Plan) -> dict[str, np.ndarray]:
    """Arrays picked value by value, so that a failure is readable: centre + unit·k for small integers k.

    The first are x = 0, 1, 2, …, weight = 1, bias = 0 and a one-hot dy, on which most mistakes show.
    """
    first = {"x": lambda at: at % 7, "dy": lambda at: at == 0}

    def picked(name: str) -> np.ndarray:
        unit, centre = draws.choice(_UNITS), draws.choice(_CENTRES[name])
        shape = plan.shape_of(name)
        steps = np.array([draws.integer(0, 16) for _ in range(math.prod(shape))])
        signed = (steps + 1) // 2 * np.where(steps % 2, 1.0, -1.0)
        if name in first:
            signed += first[name](np.arange(signed.size))
        return rounded((centre + unit * signed).reshape(shape), DTYPES[plan.dtype])

    return {name: picked(name) for name in plan.names}


def _constant_along(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    first = array[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(array.ndim))]
    return np.ascontiguousarray(np.broadcast_to(first, array.shape)) if array.size else array


def _usable_eps(plan: _Plan, x: np.ndarray) -> float:
    """The drawn eps, or 1e-5 in place of 0 where some group is constant and 0/0 would decide."""
    with np.errstate(invalid="ignore"):
        if plan.eps == 0 and (x.size == 0 or (np.ptp(x.astype(np.float64), axis=group_axes(plan.semantics)) == 0).any()):
            return 1e-5
    return plan.eps
