"""Cases: shapes, dtypes, eps, layouts, values and devices put together."""

from __future__ import annotations

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
from .draws import chances, choices, integers, unrepeating, weighted
from .epsilons import epsilons
from .layouts import layouts
from .parameters import BIASES, GRADIENTS, WEIGHTS, cancelling_bias
from .shapes import SHAPE_KINDS, shapes
from .signatures import layouts_within, shapes_within
from .values import REGIMES, Setting, fill, rounded

__all__ = ["cases"]

_SUBSETS = (("x", "weight", "bias"), ("x",), ("weight",), ("bias",), ("weight", "bias"), ("x", "weight"), ())
_SMALL = 64  # elements of x, up to which values may be drawn one by one
_UNITS = (1.0, 0.5, 0.125, 100.0, 2.0**-10)
_CENTRES = (0.0, 1.0, 100.0, -4096.0)


@dataclass(frozen=True)
class _Plan:
    """What has been drawn before the values are."""

    shape: tuple[int, ...]
    parameter: tuple[int, ...]
    dtype: str
    semantics: str
    eps: float
    affine: str


@unrepeating
@st.composite
def cases(
    draw: st.DrawFn,
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
    within: Signature | None = None,
) -> Case:
    """Cases that a right implementation must pass; shrink towards a small contiguous one; values drawn one by one, towards small multiples.

    semantics, dtypes, affine, devices   names to choose from, as in Implementation
    affine_shape                         "channel" for (C,), "element" for (C, H, W) (sample semantics only)
    eps                                  a fixed eps, or None to draw one
    shape_kinds, regimes                 names in shapes.SHAPE_KINDS and values.REGIMES; without "nonfinite" all is finite
    allow_contiguous, allow_strided      whether all arguments may be contiguous, and whether any may be strided
    max_elements                         of x (a rare shape has more)
    within                               a compile signature, which then decides all of these but regimes and max_elements
    Raises InvalidArgument for any other value.
    """
    semantics, dtypes = some_of("semantics", semantics, SEMANTICS), some_of("dtypes", dtypes, tuple(DTYPES))
    affine, devices = some_of("affine", affine, AFFINE_COMBINATIONS), some_of("devices", devices, ("cpu", "cuda"))
    regimes = some_of("regimes", regimes, tuple(REGIMES))
    some_of("affine_shape", affine_shape, ("channel", "element"))
    if not allow_contiguous and not allow_strided:
        raise InvalidArgument("allow_contiguous and allow_strided are both False, but one must be True")
    if max_elements < 64:
        raise InvalidArgument(f"max_elements is {max_elements!r}, but must be at least 64")
    if within is not None:
        semantics, dtypes, affine, eps, devices = (within.semantics,), (within.dtype,), (within.affine,), within.eps, (within.device,)
        affine_shape = "element" if within.element else "channel"
    which = draw(choices(semantics), label="semantics")
    dtype = draw(choices(dtypes), label="dtype")
    elements = max(64, max_elements // 4) if dtype == "float64" else max_elements  # double-double costs ten times as much
    drawn_shapes = shapes(which, kinds=shape_kinds, max_elements=elements) if within is None else shapes_within(within, elements)
    shape = draw(drawn_shapes, label="shape")
    parameter = shape[1:] if affine_shape == "element" and which == "sample" else shape[1:2]
    combination = draw(choices(affine), label="affine")
    drawn_eps = draw(epsilons(), label="eps") if eps is None else float(eps)
    if not (isinstance(drawn_eps, float) and 0 <= drawn_eps < float("inf")):
        raise InvalidArgument(f"eps is {eps!r}, but must be None or a finite number >= 0")
    plan = _Plan(shape, parameter, dtype, which, drawn_eps, combination)
    laid_out = draw(_layouts(plan, allow_contiguous, allow_strided) if within is None else layouts_within(within), label="layouts")
    size = int(np.prod(shape, dtype=np.int64))
    one_by_one = (
        draw(integers(0, 2), label="one by one") == 2
    )  # drawn in any case, so that a small array takes no more draws than a large one
    if one_by_one and 0 < size <= _SMALL and regimes != ("nonfinite",):
        regime, arrays = "small", draw(_small_arrays(plan), label="values")
    else:
        regime, arrays = draw(_bulk_arrays(plan, regimes), label="values")
    for name, layout in laid_out.items():
        if layout.expanded and name in arrays:
            arrays[name] = _constant_along(arrays[name], layout.expanded)
    event(f"regime {regime}")
    return Case(
        **arrays,
        eps=_usable_eps(plan, arrays["x"]),
        semantics=which,
        layouts={name: layout for name, layout in laid_out.items() if name in arrays},
        requires_grad=draw(_subsets()) if within is None else within.requires_grad,
        device=draw(choices(devices), label="device"),
        threads=draw(choices((1, 1, 2)), label="threads") if within is None else within.threads,
        regime=regime,
    )


@st.composite
def _subsets(draw: st.DrawFn) -> tuple[str, ...]:
    """What requires grad: everything in two cases of three."""
    return _SUBSETS[0] if draw(chances(3), label="subset") is False else draw(choices(_SUBSETS), label="requires_grad")


@st.composite
def _layouts(draw: st.DrawFn, plan: _Plan, allow_contiguous: bool, allow_strided: bool) -> dict[str, Layout]:
    """A layout for each argument: all contiguous in half of the cases, if allowed."""
    if not allow_strided or (allow_contiguous and draw(integers(0, 1), label="any strided") == 0):
        return {}
    main = draw(choices(("x", "dy")), label="strided argument")
    drawn = {main: draw(layouts(4, allow_contiguous=False), label=f"layout of {main}")}
    other = "dy" if main == "x" else "x"
    drawn[other] = draw(layouts(4), label=f"layout of {other}")
    if draw(integers(0, 2), label="parameters strided") == 2:
        for name in ("weight", "bias"):
            drawn[name] = draw(layouts(len(plan.parameter)), label=f"layout of {name}")
    return drawn


@st.composite
def _bulk_arrays(draw: st.DrawFn, plan: _Plan, regimes: tuple[str, ...]) -> tuple[str, dict[str, np.ndarray]]:
    """Arrays from a seed, a regime for x and one for each parameter."""
    regime = draw(choices(regimes), label="regime")
    dtype = DTYPES[plan.dtype]
    strength = draw(integers(0, 8), label="strength") / 8
    rng = np.random.Generator(np.random.SFC64(draw(integers(0, (1 << 32) - 1), label="seed")))
    arrays = {"x": fill(regime, rng, Setting(plan.shape, dtype, plan.semantics, plan.eps, strength))}
    special = regime == "nonfinite" and draw(integers(0, 2), label="also in")
    if plan.affine in ("both", "weight"):
        kind = "nonfinite" if special == 1 else draw(weighted(_PARAMETER_WEIGHTS), label="weight regime")
        arrays["weight"] = rounded((GRADIENTS if special == 1 else WEIGHTS)[kind](rng, plan.parameter), dtype)
    if plan.affine in ("both", "bias"):
        kind = draw(weighted(_BIAS_WEIGHTS), label="bias regime")
        if kind == "cancelling" and regime != "nonfinite" and arrays["x"].size and plan.affine == "both":
            bias = cancelling_bias(arrays["x"], arrays["weight"], plan.eps, plan.semantics, plan.parameter)
        else:
            bias = BIASES["normal" if kind == "cancelling" else kind](rng, plan.parameter)
        arrays["bias"] = rounded(bias, dtype)
    kind = "nonfinite" if special == 2 else draw(weighted(_GRADIENT_WEIGHTS), label="dy regime")
    dy = arrays["x"].astype(np.float64) if kind == "aligned" else GRADIENTS[kind](rng, plan.shape)
    if kind == "aligned" and (regime == "nonfinite" or np.abs(dy).max(initial=0.0) > 1e4):
        dy = GRADIENTS["normal"](rng, plan.shape)
    arrays["dy"] = rounded(dy, dtype)
    return regime, arrays


_PARAMETER_WEIGHTS = ((4, "normal"), (2, "with_zeros"), (1, "near_one"), (1, "large"), (1, "ones"))
_BIAS_WEIGHTS = ((4, "normal"), (2, "cancelling"), (1, "with_zeros"), (1, "large"), (1, "zeros"))
_GRADIENT_WEIGHTS = ((5, "normal"), (1, "ones"), (1, "one_hot"), (1, "constant"), (1, "aligned"), (1, "with_zeros"))


@st.composite
def _small_arrays(draw: st.DrawFn, plan: _Plan) -> dict[str, np.ndarray]:
    """Arrays drawn value by value: centre + unit·k for small integers k, so that a failure is readable."""
    dtype = DTYPES[plan.dtype]

    def drawn(name: str, shape: tuple[int, ...], centres: tuple[float, ...]) -> np.ndarray:
        unit, centre = draw(choices(_UNITS), label=f"unit of {name}"), draw(choices(centres), label=f"centre of {name}")
        count = int(np.prod(shape))
        steps = draw(st.lists(integers(0, 16), min_size=count, max_size=count), label=name)
        signed = np.array([(k + 1) // 2 * (1 if k % 2 else -1) for k in steps], dtype=np.float64)
        return rounded((centre + unit * signed).reshape(shape), dtype)

    arrays = {"x": drawn("x", plan.shape, _CENTRES)}
    if plan.affine in ("both", "weight"):
        arrays["weight"] = drawn("weight", plan.parameter, (1.0, 0.0))
    if plan.affine in ("both", "bias"):
        arrays["bias"] = drawn("bias", plan.parameter, (0.0, 1.0))
    arrays["dy"] = drawn("dy", plan.shape, (0.0, 1.0))
    return arrays


def _constant_along(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    first = array[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(array.ndim))]
    return np.ascontiguousarray(np.broadcast_to(first, array.shape)) if array.size else array


def _usable_eps(plan: _Plan, x: np.ndarray) -> float:
    """The drawn eps, or 1e-5 in place of 0 where some group is constant and 0/0 would decide."""
    with np.errstate(invalid="ignore"):
        if plan.eps == 0 and (x.size == 0 or (np.ptp(x.astype(np.float64), axis=group_axes(plan.semantics)) == 0).any()):
            return 1e-5
    return plan.eps
