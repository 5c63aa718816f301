"""The reference: NumPy arrays in, exact-enough values out, forward and derivatives.

Inputs of at most 32 bits are computed in float64, float64 inputs in double-double with a wide exponent, so that no finite input
overflows or underflows inside; both are checked against mpmath at 60 digits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import formulas
from .expectation import BOUNDED
from .inputs import Inputs
from .nonfinite import bias_infinity, gradient_rules, y_rule
from .numbers import DoubleDouble, Dual, Wide

__all__ = ["Gradients", "SecondOrder", "double_vjp", "forward", "jvp", "vjp"]

Array = np.ndarray
Optional = np.ndarray | None


class Gradients(NamedTuple):
    """Gradients of sum(dy·y), float64, each in its argument's shape; None where the argument is absent."""

    x: Array
    weight: Optional
    bias: Optional


class SecondOrder(NamedTuple):
    """Gradients of sum(cx·dx) + sum(cweight·dweight) + sum(cbias·dbias) with respect to dy, x and weight (None where absent)."""

    dy: Array
    x: Array
    weight: Optional


def forward(x: Any, weight: Any = None, bias: Any = None, *, eps: float = 1e-5, semantics: str = "channel") -> Array:
    """y = (x - mean)/sqrt(var + eps)·weight + bias, float64 of shape (N, C, H, W).

    x: (N, C, H, W); weight, bias: (C,), or in sample semantics (C, H, W), or None; of dtype float16, bfloat16, float32 or float64.
    A group with a NaN or infinity gives NaN. Raises TypeError for another dtype, ValueError for shapes, eps or semantics that do
    not fit.
    """
    inputs = Inputs(x, eps, semantics, weight=weight, bias=bias)
    if 0 in inputs.x_shape:
        return np.zeros(inputs.x_shape)
    with np.errstate(all="ignore"):
        s = formulas.statistics(inputs.number("x"), inputs.eps, inputs.axes)
        y = _float64(formulas.forward(s, inputs.number("weight"), inputs.number("bias")))
        y = _with_rule(np.broadcast_to(y, inputs.x_shape), y_rule(inputs))
        infinity = bias_infinity(inputs)
        return y if infinity is None else np.where(infinity, inputs.arrays["bias"], y)


def vjp(dy: Any, x: Any, weight: Any = None, bias: Any = None, *, eps: float = 1e-5, semantics: str = "channel") -> Gradients:
    """Gradients of sum(dy·y) with respect to x, weight and bias, float64.

    dx = rstd(g - mean g - x̂·mean(g x̂)) with g = dy·weight; dweight = Σ dy·x̂; dbias = Σ dy. Arguments and errors as in `forward`;
    dy has the shape of x.
    """
    inputs = Inputs(x, eps, semantics, dy=dy, weight=weight, bias=bias)
    if 0 in inputs.x_shape:
        return Gradients(np.zeros(inputs.x_shape), *(_zeros(inputs, name) for name in ("weight", "bias")))
    with np.errstate(all="ignore"):
        number, rules = inputs.number, gradient_rules(inputs)
        s = formulas.statistics(number("x"), inputs.eps, inputs.axes)
        dx = _float64(formulas.input_gradient(s, number("dy"), number("weight"), inputs.axes))
        dweight = dbias = None
        if weight is not None:
            dweight = _float64(formulas.weight_gradient(s, number("dy"), inputs.affine("weight")))
            dweight = _with_rule(dweight, rules["dweight"]).reshape(inputs.shapes["weight"])
        if bias is not None:
            dbias = _float64(formulas.bias_gradient(number("dy"), inputs.affine("bias")))
            dbias = _with_rule(dbias, rules["dbias"]).reshape(inputs.shapes["bias"])
        return Gradients(_with_rule(dx, rules["dx"]), dweight, dbias)


def jvp(
    tx: Any,
    x: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    tweight: Any = None,
    tbias: Any = None,
    eps: float = 1e-5,
    semantics: str = "channel",
) -> Array:
    """Derivative of y along the tangents tx, tweight, tbias (0 where None), float64 of shape (N, C, H, W).

    `forward` evaluated on dual numbers. Finite arguments only; otherwise as in `forward`.
    """
    for name, tangent, primal in (("tweight", tweight, weight), ("tbias", tbias, bias)):
        if tangent is not None and primal is None:
            raise ValueError(f"{name} is given, but {name[1:]} is None")
    inputs = Inputs(x, eps, semantics, tx=tx, weight=weight, bias=bias, tweight=tweight, tbias=tbias)
    _all_finite(inputs)
    if 0 in inputs.x_shape:
        return np.zeros(inputs.x_shape)
    number = inputs.number
    with np.errstate(all="ignore"):
        s = formulas.statistics(Dual(number("x"), number("tx")), inputs.eps, inputs.axes)
        y = formulas.forward(s, *(_dual(number(name), number("t" + name)) for name in ("weight", "bias")))
        return np.broadcast_to(_float64(y.tangent), inputs.x_shape).copy()


def double_vjp(
    cx: Any,
    cweight: Any,
    cbias: Any,
    dy: Any,
    x: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    eps: float = 1e-5,
    semantics: str = "channel",
) -> SecondOrder:
    """Gradients of sum(cx·dx) + sum(cweight·dweight) + sum(cbias·dbias), float64; cweight and cbias may be None (0).

    The formula is in `formulas.double_vjp`. Finite arguments only; otherwise as in `vjp`.
    """
    for name, cotangent, primal in (("cweight", cweight, weight), ("cbias", cbias, bias)):
        if cotangent is not None and primal is None:
            raise ValueError(f"{name} is given, but {name[1:]} is None")
    inputs = Inputs(x, eps, semantics, cx=cx, cweight=cweight, cbias=cbias, dy=dy, weight=weight, bias=bias)
    _all_finite(inputs)
    if 0 in inputs.x_shape:
        return SecondOrder(np.zeros(inputs.x_shape), np.zeros(inputs.x_shape), _zeros(inputs, "weight"))
    number = inputs.number
    with np.errstate(all="ignore"):
        s = formulas.statistics(number("x"), inputs.eps, inputs.axes)
        on_dy, on_x, on_weight = formulas.double_vjp(
            s,
            number("cx"),
            number("cweight"),
            number("cbias"),
            number("dy"),
            number("weight"),
            inputs.axes,
            inputs.affine("weight") if weight is not None else inputs.axes,
        )
        return SecondOrder(
            np.broadcast_to(_float64(on_dy), inputs.x_shape).copy(),
            _float64(on_x),
            _float64(on_weight).reshape(inputs.shapes["weight"]) if weight is not None else None,
        )


def _with_rule(value: Array, rule: Array | None) -> Array:
    """A value with NaN where a rule says that it is not finite."""
    return value.copy() if rule is None else np.where(rule == BOUNDED, value, np.nan)


def _float64(number: Any) -> Array:
    if isinstance(number, Wide):
        number = number.double_double()
    value: Array = number.hi if isinstance(number, DoubleDouble) else number
    return value


def _zeros(inputs: Inputs, name: str) -> Optional:
    return np.zeros(inputs.shapes[name]) if name in inputs.shapes else None


def _dual(primal: Any, tangent: Any) -> Any:
    return primal if tangent is None else Dual(primal, tangent)


def _all_finite(inputs: Inputs) -> None:
    for name in inputs.nonfinite:
        raise ValueError(f"{name} holds a NaN or infinity, but must be finite")
