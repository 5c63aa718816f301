"""What an implementation's results may be: the formulas evaluated on bounded numbers, and one rounding into the result's dtype.

docs/bounds.md derives the rules; `Expected` says how a result is held against them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product

import numpy as np

from . import formulas
from .contract import gradient_contract, sum_contract, value_contract
from .dtypes import DTYPES, DType, arithmetic_of, dtype_of
from .expectation import BOUNDED, FREE, NONFINITE, Expected
from .inputs import Inputs
from .memory import keep_freed_memory
from .nonfinite import bias_infinity, gradient_rules, y_rule
from .numbers import Bounded, DoubleDouble, Rounding

__all__ = ["Bounds", "expect"]

Array = np.ndarray

_BLOCK = 1 << 16
"""Elements up to which all of x is one block, and of a block of a larger one, unless it has many channels."""

_NARROWEST, _LARGEST_BLOCK = 64, 1 << 18
"""Pixels that a block has at least, since NumPy's loops run along them, where that makes no more than so many elements."""

_BUFFER = 256
"""Elements of NumPy's buffer: it copies rows shorter than that into the buffer before it broadcasts against them."""

_COMPUTED_IN_FLOAT64 = 1.0 + 2.0**-20
"""Covers the rounding of the bounds' own arithmetic, which is good to that (`Rounding.coarse`)."""


def expect(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    dy: Array | None = None,
    *,
    eps: float = 1e-5,
    semantics: str = "channel",
    arithmetic: str = "float32",
) -> Mapping[str, Expected]:
    """What y may be, and with dy what dx may be, and where weight and bias are given, what dweight and dbias may be.

    x, dy: (N, C, H, W); weight, bias: (C,), or in sample semantics (C, H, W), or None. y and dx have x's dtype, dweight weight's and
    dbias bias's. `arithmetic` is "float32" (computed in at least float32) or "input" (in x's dtype). Raises as `reference.forward`.
    """
    keep_freed_memory()
    inputs = Inputs(x, eps, semantics, weight=weight, bias=bias, **({} if dy is None else {"dy": dy}))
    if 0 in inputs.x_shape:
        return _empty(inputs)
    if _in_blocks(inputs):
        with np.errstate(all="ignore"):
            return _expected_in_blocks(inputs, arithmetic_of(dtype_of(x), arithmetic))
    return Bounds(inputs, arithmetic_of(dtype_of(x), arithmetic)).expected()


class Bounds:
    """The bounds of one set of inputs."""

    def __init__(self, inputs: Inputs, arithmetic: DType, *, terms: int = 0) -> None:
        self.inputs, self.arithmetic = inputs, arithmetic
        self.rounding = Rounding.of(arithmetic, terms=terms)
        self.sums: dict[str, tuple[Bounded, bool]] = {}

    def expected(self) -> dict[str, Expected]:
        """Expectations of all quantities."""
        inputs, axes = self.inputs, self.inputs.axes
        n, c, h, w = inputs.x_shape
        x, (weight, bias, dy) = self.bounded("x"), (self.optional(name) for name in ("weight", "bias", "dy"))
        with np.errstate(all="ignore"):
            s = formulas.statistics(x, inputs.eps, axes)
            outside = value_contract(x, s, weight, axes, self.arithmetic)
            y = self.rounded("x", formulas.forward(s, weight, bias), y_rule(inputs), outside)
            infinity = bias_infinity(inputs)
            if infinity is not None:
                y.value[infinity] = np.broadcast_to(inputs.arrays["bias"], inputs.x_shape)[infinity]
            expected = {"y": y}
            if dy is not None:
                rules = gradient_rules(inputs)
                outside = gradient_contract(x, s, dy, weight, axes, self.arithmetic, outside)
                expected["dx"] = self.rounded("x", formulas.input_gradient(s, dy, weight, axes), rules["dx"], outside)
                if weight is not None:
                    self.sums["weight"] = formulas.weight_gradient(s, dy, inputs.affine("weight")), _somewhere(outside)
                if bias is not None:
                    free = sum_contract(dy.largest, (self.rounding.terms or n * h * w) * c, self.arithmetic)
                    self.sums["bias"] = formulas.bias_gradient(dy, inputs.affine("bias")), free
                if not self.rounding.terms:
                    expected |= {f"d{name}": self.rounded(name, sum_, rules[f"d{name}"], free) for name, (sum_, free) in self.sums.items()}
        if inputs.single:
            expected |= {name: self._single(name, expected[name]) for name in expected.keys() - {"dbias"}}
        return expected

    def optional(self, name: str) -> Bounded | None:
        """An argument as a bounded number, or None where it is absent."""
        return self.bounded(name) if name in self.inputs.given else None

    def bounded(self, name: str) -> Bounded:
        """An argument as a bounded number."""
        values = self.inputs.clean(name)
        flushable = self.inputs.dtypes[name] is not DTYPES["float16"] or self.arithmetic is DTYPES["float16"]
        return Bounded.given(DoubleDouble(values) if self.inputs.wide else values, self.rounding, flushable=flushable)

    def rounded(self, like: str, number: Bounded, rule: Array | None, outside: Array | bool, addends: Array | None = None) -> Expected:
        """Expectation of a number rounded into the result's dtype, in the shape of the argument that it is like.

        `addends` are the magnitudes of parts that may each have been rounded into that dtype before they were added.
        """
        result = self.inputs.dtypes[like]
        flushed = result.name != "float16" or self.arithmetic is result
        error = number.error * _COMPUTED_IN_FLOAT64
        error += result.smallest_subnormal + (self.rounding.flush if flushed else 0.0)
        if result is not self.arithmetic:
            error += result.roundoff * (number.reach if addends is None else number.reach + addends)
        if np.isnan(error.max(initial=0.0)):
            error[np.isnan(error)] = np.inf
        low: Array | float
        if isinstance(number.value, DoubleDouble):
            value, low = number.value.hi, self._shaped(like, number.value.lo)  # exact to double-double
        else:
            value, low = number.value, 0.0
        if _somewhere(outside):
            base = np.zeros(value.shape, np.uint8) if rule is None else rule
            rule = np.where(outside & (base == BOUNDED), FREE, base)
        rule = None if rule is None else self._shaped(like, rule)
        return Expected(self._shaped(like, value), low, self._shaped(like, error), result, rule)

    def _shaped(self, like: str, array: Array) -> Array:
        shape = self.inputs.shapes[like]
        return array.reshape(shape) if array.size == math.prod(shape) else np.broadcast_to(array, shape).copy()

    def _single(self, name: str, general: Expected) -> Expected:
        """One-element groups: y = bias exactly and dx = dweight = 0 exactly, for finite arguments; only a flushed bias may differ."""
        value = np.zeros_like(general.value)
        if name == "y" and "bias" in self.inputs.arrays:
            value = np.broadcast_to(self.inputs.arrays["bias"], value.shape)
        bound = np.where(np.abs(value) < self.rounding.flush, np.abs(value), 0.0)
        rule = None if general.rule is None else np.where(general.rule == NONFINITE, FREE, general.rule)
        return Expected(value, 0.0, bound, general.dtype, rule)


def _somewhere(outside: Array | bool) -> bool:
    return outside is not False and bool(np.any(outside))


def _in_blocks(inputs: Inputs) -> bool:
    """Whether to evaluate some pixels at a time: a large input of channel semantics, all finite, computed in float64."""
    large = inputs.given["x"].size > _BLOCK and inputs.axes == (1,)
    return large and not (inputs.nonfinite or inputs.wide or inputs.single)


def _expected_in_blocks(inputs: Inputs, arithmetic: DType) -> dict[str, Expected]:
    """The same expectations, from blocks of pixels that stay in a cache; sums of float64 may be taken in another order.

    y and dx are the same bit for bit where a block is wider than one pixel.

    A block's sums carry the relative error of the whole sum, so that they add up to it.
    """
    n, c, h, w = inputs.x_shape
    quantities = ("y", "dx") if "dy" in inputs.given else ("y",)
    values, errors = ({name: np.empty((n, c, 1, h * w)) for name in quantities} for _ in range(2))
    rules: dict[str, Array] = {}
    sums: dict[str, tuple[Bounded, bool]] = {}
    samples = max(1, _BLOCK // (c * h * w))
    pixels = _evenly(h * w, max(1, _BLOCK // c, min(_NARROWEST, _LARGEST_BLOCK // c)))
    if pixels >= _BUFFER:
        np.setbufsize(_BUFFER)
    for first, start in product(range(0, n, samples), range(0, h * w, pixels)):
        place = (slice(first, first + samples), slice(None), slice(None), slice(start, start + pixels))
        block = Bounds(inputs.part(place), arithmetic, terms=n * h * w)
        for name, found in block.expected().items():
            values[name][place], errors[name][place] = found.value, found.bound
            if found.rule is not None:
                rules.setdefault(name, np.zeros((n, c, 1, h * w), np.uint8))[place] = found.rule
        for name, (part, free) in block.sums.items():
            so_far, freed = sums.get(name, (None, False))
            sums[name] = part if so_far is None else part.joined(so_far), free or freed
    expected = {
        name: Expected(values[name].reshape(n, c, h, w), 0.0, errors[name].reshape(n, c, h, w), inputs.dtypes["x"], rule)
        for name in quantities
        for rule in (rules[name].reshape(n, c, h, w) if name in rules else None,)
    }
    whole = Bounds(inputs, arithmetic)
    return expected | {f"d{name}": whole.rounded(name, total, None, free) for name, (total, free) in sums.items()}


def _evenly(count: int, most: int) -> int:
    """Size of as few parts as there can be of at most so many, all but the last of one size."""
    return math.ceil(count / math.ceil(count / most))


def _empty(inputs: Inputs) -> dict[str, Expected]:
    """No elements: an empty y and dx, and parameter gradients of exactly 0."""
    like = {"y": "x", "dx": "dy", "dweight": "weight", "dbias": "bias"}
    zeros = {name: np.zeros(inputs.shapes[argument]) for name, argument in like.items() if argument in inputs.shapes}
    if "dy" not in inputs.shapes:
        zeros = {"y": zeros["y"]}
    return {name: Expected(value, 0.0, value, inputs.dtypes[like[name]]) for name, value in zeros.items()}
