"""What higher derivatives may be: the formulas of y, dx and dweight evaluated on dual numbers over dual numbers over bounded ones.

With D and D' the derivatives along two directions of the arguments, double backward gives D of y, dx and dweight (second derivatives
commute), and so does forward mode; third order and nested forward give D' D of them. docs/bounds.md says what is charged, and where
it is loose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import formulas
from .bounds import Bounds
from .contract import derivative_contract, value_contract
from .dtypes import arithmetic_of, dtype_of
from .expectation import Expected
from .formulas import Statistics
from .inputs import Inputs
from .numbers import Bounded, Dual, Sizes

__all__ = ["expect_derivatives"]

Array = np.ndarray

_PATHS = 4.0
"""Additions by which autograd gathers what reaches an argument: five paths from dy, by g, mean(g), g·x̂, dweight and dbias."""


def expect_derivatives(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    dy: Array,
    along: Mapping[str, Array],
    then: Mapping[str, Array],
    *,
    eps: float,
    semantics: str,
    arithmetic: str = "float32",
) -> dict[str, Expected]:
    """Expectations of "Dy", "Dx", "Dweight", "Dbias" along a direction, and of "DDy" … of the derivative of those along a second one.

    Dy is the derivative of y, Dx, Dweight and Dbias are those of the gradients dx, dweight and dbias of sum(dy·y); those of dbias are
    exactly 0. `along` and `then` map "x", "weight", "bias" to directions; an argument that they do not name is held fast. All values
    must be finite, and groups hold more than one value.
    """
    directions = {f"t{name}": array for name, array in along.items()} | {f"c{name}": array for name, array in then.items()}
    inputs = Inputs(x, eps, semantics, weight=weight, bias=bias, dy=dy, **directions)
    bounds = Bounds(inputs, arithmetic_of(dtype_of(x), arithmetic))
    with np.errstate(all="ignore"):
        return _expected(bounds)


def _expected(bounds: Bounds) -> dict[str, Expected]:
    inputs, axes = bounds.inputs, bounds.inputs.axes
    x, weight, dy = bounds.bounded("x"), bounds.optional("weight"), bounds.bounded("dy")
    dual_x, dual_weight, dual_bias, dual_dy = (_dual(bounds, name) for name in ("x", "weight", "bias", "dy"))
    s = formulas.statistics(dual_x, inputs.eps, axes)
    sizes = Statistics(*(Sizes.of(part) for part in s))
    numbers = {"y": (formulas.forward(s, dual_weight, dual_bias), formulas.forward(sizes, Sizes.of(dual_weight), Sizes.of(dual_bias)))}
    numbers["x"] = (
        formulas.input_gradient(s, dual_dy, dual_weight, axes),
        formulas.input_gradient(sizes, Sizes.of(dual_dy), Sizes.of(dual_weight), axes),
    )
    if weight is not None:
        affine = inputs.affine("weight")
        numbers["weight"] = (formulas.weight_gradient(s, dual_dy, affine), formulas.weight_gradient(sizes, Sizes.of(dual_dy), affine))
    plain = Statistics(s.mean.primal.primal, s.rstd.primal.primal, s.normalised.primal.primal)
    by_hand = _by_hand(bounds, plain, dy, weight)
    outside = value_contract(x, plain, weight, axes, bounds.arithmetic)
    result = {}
    for order in (1, 2):
        for name, (number, size) in numbers.items():
            part, addends = _derivative(number, order), _derivative(size, order).value
            error = part.error if order == 2 else np.maximum(part.error, by_hand[name].error)
            part = Bounded(part.value, error + _PATHS * part.rounding.unit * addends, part.rounding)
            free = derivative_contract(x, plain, _factors(bounds, order), order + (name != "y"), axes, bounds.arithmetic, outside)
            if name == "weight":
                free = bool(np.any(free))
            result["D" * order + name] = bounds.rounded("x" if name == "y" else name, part, None, free, 2.0 * addends)
        if "bias" in inputs.shapes:
            zero = np.zeros(inputs.shapes["bias"])
            result["D" * order + "bias"] = Expected(zero, 0.0, zero, inputs.dtypes["bias"])
    return result


def _dual(bounds: Bounds, name: str) -> Any:
    """An argument with its directions: (value + along·ε) + then·ε', or None where it is absent."""
    number = bounds.optional(name)
    if number is None:
        return None
    zero = number * 0.0
    along, then = (bounds.optional(prefix + name) if name != "dy" else None for prefix in "tc")
    return Dual(Dual(number, along or zero), Dual(then or zero, zero))


def _derivative(number: Any, order: int) -> Any:
    """The first derivative along the first direction, or the second one along both."""
    return number.primal.tangent if order == 1 else number.tangent.tangent


def _by_hand(bounds: Bounds, s: Statistics, dy: Bounded, weight: Bounded | None) -> dict[str, Bounded]:
    """The first derivatives as `formulas.double_vjp` states them, which an implementation may evaluate as well."""
    cx = bounds.optional("tx") or bounds.bounded("x") * 0.0
    cweight, cbias = bounds.optional("tweight"), bounds.optional("tbias")
    affine = bounds.inputs.affine("weight") if weight is not None else bounds.inputs.axes
    return dict(zip(("y", "x", "weight"), formulas.double_vjp(s, cx, cweight, cbias, dy, weight, bounds.inputs.axes, affine), strict=True))


def _factors(bounds: Bounds, order: int) -> list[Bounded]:
    """All that a derivative of this order is a product of, beside x̂ and rstd."""
    names = ["weight", "dy", "tx", "tweight", *(("cx", "cweight") if order == 2 else ())]
    return [bounds.bounded(name) for name in names if name in bounds.inputs.given]
