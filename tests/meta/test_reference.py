"""The reference is right: against mpmath at 60 digits, forward and every derivative, and in what it decides without a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ln2d_ref
from ln2d_ref import Case
from ln2d_ref.bounds import expect
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.expectation import BOUNDED, Expected
from ln2d_ref.formulas import input_gradient, statistics, weight_gradient
from ln2d_ref.inputs import Inputs
from ln2d_ref.numbers import Dual
from ln2d_ref.reference import _float64
from ln2d_ref.semantics import SEMANTICS, group_axes, on_axes
from strategies.cases import cases
from strategies.values import FINITE_REGIMES
from tests.meta import exact
from tests.meta.exact import mp

Array = np.ndarray

NEGLIGIBLE = 1e-3
"""Largest error of the reference in units of the bound: it takes nothing from an honest implementation and hides no fault."""

HALF_ULP, HALF_SUBNORMAL = mp.mpf(2) ** -53, mp.mpf(2) ** -1075
"""What rounding the exact result to float64 loses, relative and absolute."""

LARGEST = np.finfo(np.float64).max

WORKING = {"float16": 2.0**-44, "bfloat16": 2.0**-44, "float32": 2.0**-44, "float64": 2.0**-98}
"""What the reference may lose before that, relative to `Scales`: a few bits above the roundoff of float64 and of double-double."""

FORMS = [
    (semantics, shape) for semantics, shape in product(SEMANTICS, ("channel", "element")) if semantics == "sample" or shape == "channel"
]
quick = partial(settings, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def finite_cases(dtype: str, semantics: str, affine_shape: str, max_elements: int) -> st.SearchStrategy[Case]:
    return cases(
        dtypes=dtype,
        semantics=semantics,
        affine_shape=affine_shape,
        regimes=FINITE_REGIMES,
        allow_strided=False,
        max_elements=max_elements,
    )


class Scales:
    """Magnitudes of the terms that each result is a sum of, in mpmath; all with the group's largest |x̂|, |g| and so on.

    condition   1 + max|x|·rstd: how much the rounding of mean and x - mean grows in x̂
    x_hat       1 + max|x̂|
    """

    def __init__(self, x: Any, weight: Any, eps: float, semantics: str) -> None:
        self.axes = group_axes(semantics)
        x_hat, self.rstd = exact.normalised(x, eps, semantics)
        self.condition = 1 + self.largest(exact.numbers(x)) * self.rstd
        self.x_hat = 1 + self.largest(x_hat)
        self.weight = mp.mpf(1) if weight is None else np.abs(self.placed(weight))
        self.eps = eps

    def largest(self, array: Array) -> Array:
        """Largest magnitude of each group."""
        return np.abs(array).max(axis=self.axes, keepdims=True, initial=mp.mpf(0))

    @staticmethod
    def placed(parameter: Any) -> Any:
        """A parameter on the axes of x; 0 where absent."""
        return mp.mpf(0) if parameter is None else on_axes(exact.numbers(parameter))

    @staticmethod
    def total(terms: Array, parameter: Any) -> Array | None:
        """Sum over the elements that a parameter serves."""
        if parameter is None:
            return None
        return (terms + mp.mpf(0)).sum(axis=(0, 2, 3) if np.ndim(parameter) == 1 else 0)

    def y(self, bias: Any) -> Array:
        """|weight|·x̂ + |bias|."""
        return self.weight * self.x_hat * self.condition + np.abs(self.placed(bias))

    def dx(self, dy: Any, weight: Any = None) -> Array:
        """rstd·max|g|·x̂²."""
        size = self.weight if weight is None else np.abs(self.placed(weight))
        return self.rstd * self.largest(exact.numbers(dy) * size) * self.x_hat**2 * self.condition

    def dweight(self, dy: Any, weight: Any) -> Array | None:
        """Σ|dy|·x̂."""
        return self.total(np.abs(exact.numbers(dy)) * self.x_hat * self.condition, weight)

    def dbias(self, dy: Any, bias: Any) -> Array | None:
        """Σ|dy|."""
        return self.total(np.abs(exact.numbers(dy)), bias)

    def tangent(self, tx: Any, tweight: Any, tbias: Any) -> Array:
        """|weight|·rstd·max|tx|·x̂² + |tweight|·x̂ + |tbias|."""
        along_x = self.rstd * self.largest(exact.numbers(tx)) * self.x_hat**2 * self.weight
        along_weight = np.abs(self.placed(tweight)) * self.x_hat
        return (along_x + along_weight) * self.condition + np.abs(self.placed(tbias))

    def second(self, cx: Any, cweight: Any, dy: Any) -> Array:
        """rstd²·max|g|·max|cx|·x̂³ + rstd·max|dy·cweight|·x̂²."""
        g, on_x = self.largest(exact.numbers(dy) * self.weight), self.largest(exact.numbers(cx))
        curvature = self.rstd**2 * g * on_x * self.x_hat**3 * self.condition
        return curvature if cweight is None else curvature + self.dx(dy, cweight)

    def second_weight(self, cx: Any, dy: Any, weight: Any) -> Array | None:
        """Σ|dy|·rstd·max|cx|·x̂²."""
        p = self.rstd * self.largest(exact.numbers(cx)) * self.x_hat**2 * self.condition
        return self.total(np.abs(exact.numbers(dy)) * p, weight)


def error_of(value: float, right: Any) -> Any:
    """|value - right|; an infinity stands for any number from float64's largest on, a NaN for none."""
    if np.isnan(value):
        return mp.inf
    if np.isinf(value):
        return max(mp.mpf(0), mp.mpf(LARGEST) - mp.sign(value) * right)
    return abs(mp.mpf(value) - right)


def assert_right(actual: Array | None, right: Array | None, scale: Any, working: float) -> None:
    """actual is `right` rounded to float64, but for `working` times the scale of its terms."""
    if right is None:
        assert actual is None
        return
    assert actual is not None
    scale = np.broadcast_to(np.array(scale, dtype=object), right.shape)

    assert actual.dtype == np.float64
    assert actual.shape == right.shape
    for index in np.ndindex(right.shape):
        allowed = HALF_ULP * abs(right[index]) + HALF_SUBNORMAL + working * scale[index]
        assert error_of(float(actual[index]), right[index]) <= allowed


def directions(case: Case) -> dict[str, Array | None]:
    """A direction for each argument, of its shape and dtype: normal numbers."""
    rng = np.random.default_rng(case.x.size)
    arrays = {"x": case.x, "weight": case.weight, "bias": case.bias}
    return {n: None if a is None else rng.standard_normal(a.shape).astype(a.dtype) for n, a in arrays.items()}


def exact_results(x: Any, weight: Any, bias: Any, dy: Any, eps: float, semantics: str) -> dict[str, Array | None]:
    """y, dx, dweight and dbias in mpmath."""
    y, gradients = exact.forward(x, weight, bias, eps, semantics), exact.vjp(dy, x, weight, bias, eps, semantics)
    return dict(zip(("y", "dx", "dweight", "dbias"), (y, *gradients), strict=True))


def assert_public_right(x: Any, weight: Any, bias: Any, dy: Any, eps: float, semantics: str, working: float) -> dict[str, Array | None]:
    """forward and vjp are right; what is right is returned."""
    right, scales = exact_results(x, weight, bias, dy, eps, semantics), Scales(x, weight, eps, semantics)
    options = {"eps": eps, "semantics": semantics}
    actual = (ln2d_ref.forward(x, weight, bias, **options), *ln2d_ref.vjp(dy, x, weight, bias, **options))
    sizes = (scales.y(bias), scales.dx(dy), scales.dweight(dy, weight), scales.dbias(dy, bias))
    for result, expected, size in zip(actual, right.values(), sizes, strict=True):
        assert_right(result, expected, size, working)
    return right


def assert_derivatives_right(
    x: Any, weight: Any, bias: Any, dy: Any, along: dict[str, Any], eps: float, semantics: str, working: float
) -> None:
    """jvp and double_vjp along a direction are right."""
    scales, options = Scales(x, weight, eps, semantics), {"eps": eps, "semantics": semantics}
    direction = tuple(along.values())
    tangent = ln2d_ref.jvp(along["x"], x, weight, bias, tweight=along["weight"], tbias=along["bias"], **options)
    tangent_scale = scales.tangent(*direction)
    right = exact.jvp(along["x"], x, weight, bias, along["weight"], along["bias"], eps, semantics)
    assert_right(tangent, right, tangent_scale, working)
    actual = ln2d_ref.double_vjp(*direction, dy, x, weight, bias, **options)
    right = exact.double_vjp(*direction, dy, x, weight, bias, eps, semantics)
    second = (tangent_scale, scales.second(along["x"], along["weight"], dy), scales.second_weight(along["x"], dy, weight))
    for gradient, expected, scale in zip(actual, right, second, strict=True):
        assert_right(gradient, expected, scale, working)


def part_of_bound(expected: Expected, right: Array) -> Any:
    """The reference's own largest error/bound, over the elements that have a finite bound."""
    low = np.broadcast_to(expected.low, right.shape)
    rule = np.broadcast_to(BOUNDED if expected.rule is None else expected.rule, right.shape)
    largest = mp.mpf(0)
    for index in np.ndindex(right.shape):
        if rule[index] == BOUNDED and np.isfinite(expected.bound[index]):
            error = error_of(float(expected.value[index]), right[index] - mp.mpf(float(low[index])))
            bound = float(expected.bound[index])
            largest = max(largest, error / bound if bound else mp.inf if error else mp.mpf(0))
    return largest


def largest_part_of_bound(case: Case, arithmetic: str, right: dict[str, Array | None]) -> Any:
    """The same over y, dx, dweight and dbias of a case."""
    expected = expect(case.x, case.weight, case.bias, case.dy, eps=case.eps, semantics=case.semantics, arithmetic=arithmetic)
    given = {name: array for name, array in right.items() if array is not None}
    assert expected.keys() == given.keys()
    return max(part_of_bound(expected[name], array) for name, array in given.items())


@pytest.mark.parametrize(("semantics", "affine_shape"), FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_error_is_a_thousandth_of_the_bound(dtype: str, semantics: str, affine_shape: str) -> None:
    """Otherwise the reference's own rounding would excuse or accuse an implementation."""

    @quick(max_examples=40)
    @given(finite_cases(dtype, semantics, affine_shape, 256), st.sampled_from(["float32", "input"]))
    def check(case: Case, arithmetic: str) -> None:
        right = exact_results(case.x, case.weight, case.bias, case.dy, case.eps, case.semantics)
        assert largest_part_of_bound(case, arithmetic, right) <= NEGLIGIBLE

    check()


@pytest.mark.parametrize(("semantics", "affine_shape"), FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_generated_results_are_the_exact_ones_rounded(dtype: str, semantics: str, affine_shape: str) -> None:
    """The public functions add one rounding to float64, and lose nothing that is visible beside it."""

    @quick(max_examples=12)
    @given(finite_cases(dtype, semantics, affine_shape, 64))
    def check(case: Case) -> None:
        arguments = (case.x, case.weight, case.bias, case.dy)
        assert_public_right(*arguments, case.eps, semantics, WORKING[dtype])
        assert_derivatives_right(*arguments, directions(case), case.eps, semantics, WORKING[dtype])

    check()


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


SHAPE = (2, 5, 2, 1)
NORMAL = {"x": normal(*SHAPE), "weight": normal(5, seed=1), "bias": normal(5, seed=2), "dy": normal(*SHAPE, seed=3), "eps": 1e-5}
EXTREMES: dict[str, dict[str, Any]] = {
    "offset": {"x": 1e8 + normal(*SHAPE)},
    "adjacent floats": {"x": np.nextafter(1.0, 2.0) ** np.random.default_rng(0).integers(0, 5, SHAPE) * 1e300},
    "subnormal": {"x": np.random.default_rng(0).integers(-8, 9, SHAPE) * 5e-324},
    "subnormal, eps 0": {"x": np.arange(20).reshape(SHAPE) * 5e-324, "eps": 0.0},
    "huge": {"x": normal(*SHAPE) * 1e300},
    "largest": {"x": np.sign(normal(*SHAPE)) * np.finfo(np.float64).max},
    "huge with tiny weight": {"x": normal(*SHAPE) * 1e300, "weight": normal(5) * 1e-300},
    "tiny with huge weight": {"x": normal(*SHAPE) * 1e-300, "weight": normal(5) * 1e300},
    "tiny beside eps": {"x": normal(*SHAPE) * 1e-30, "eps": 1e-12},
    "eps 0": {"eps": 0.0},
    "smallest eps": {"x": np.full(SHAPE, 0.1), "eps": 5e-324},
    "all exponents": {"x": 10.0 ** np.random.default_rng(0).uniform(-300, 300, SHAPE) * np.sign(normal(*SHAPE))},
    "constant": {"x": np.full(SHAPE, 1e300 / 3)},
    "huge dy": {"dy": normal(*SHAPE) * 1e307},
    "tiny dy with huge weight": {"dy": normal(*SHAPE) * 1e-300, "weight": normal(5) * 1e300},
    "huge dy with tiny weight and x": {"x": normal(*SHAPE) * 1e-200, "dy": normal(*SHAPE) * 1e200, "weight": normal(5) * 1e-200},
}


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_no_finite_float64_input_overflows_or_underflows_inside(extreme: str, semantics: str) -> None:
    """The answer is right to float64's last bit wherever it is in float64's range, whatever the intermediate values are."""
    given = NORMAL | EXTREMES[extreme]
    eps = given.pop("eps")
    along = {name: normal(*given[name].shape, seed=4) for name in ("x", "weight", "bias")}
    assert_public_right(**given, eps=eps, semantics=semantics, working=WORKING["float64"])
    assert_derivatives_right(**given, along=along, eps=eps, semantics=semantics, working=WORKING["float64"])


@quick(max_examples=60)
@given(
    st.sampled_from([(semantics, n) for semantics in SEMANTICS for n in (2, 3, 7)]),
    st.fixed_dictionaries({name: st.integers(-307, 307) for name in ("x", "weight", "bias", "dy", "cx", "cweight", "cbias")}),
    st.integers(-300, 0),
    st.floats(0, 16),
    st.integers(0, 1 << 32),
)
def test_no_mixture_of_float64_scales_overflows_or_underflows_inside(
    form: tuple[str, int], exponents: dict[str, int], eps_exponent: int, offset: float, seed: int
) -> None:
    """x, weight, dy and eps each have a scale of their own, and x an offset of up to 10¹⁶ times its spread."""
    semantics, n = form
    rng = np.random.default_rng(seed)
    shapes = {name: (2, n, 2, 1) if name in ("x", "dy", "cx") else (n,) for name in exponents}
    drawn = {name: rng.uniform(-1, 1, shapes[name]) * 10.0**exponent for name, exponent in exponents.items()}
    if exponents["x"] + offset < 307:
        drawn["x"] = drawn["x"] + 10.0 ** (exponents["x"] + offset)
    arguments = [drawn[name] for name in ("x", "weight", "bias", "dy")]
    along = {name: drawn["c" + name] for name in ("x", "weight", "bias")}
    eps = 10.0**eps_exponent
    assert_public_right(*arguments, eps, semantics, WORKING["float64"])
    assert_derivatives_right(*arguments, along, eps, semantics, WORKING["float64"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 100, 1000, 10000])
def test_group_of_any_size_is_right(n: int, dtype: str) -> None:
    """Errors of the reference's sums do not grow to be seen."""
    x, dy = (100 + normal(1, n, 1, 1, seed=5)).astype(dtype), normal(1, n, 1, 1, seed=6).astype(dtype)
    weight, bias = normal(n, seed=7).astype(dtype), normal(n, seed=8).astype(dtype)
    right = assert_public_right(x, weight, bias, dy, 1e-5, "channel", WORKING[dtype])
    assert largest_part_of_bound(Case(x=x, weight=weight, bias=bias, dy=dy), "float32", right) <= NEGLIGIBLE
    if n <= 1000:
        along = {"x": dy, "weight": bias, "bias": weight}
        assert_derivatives_right(x, weight, bias, dy, along, 1e-5, "channel", WORKING[dtype])


@pytest.mark.parametrize("eps", [1e-12, 1e-100, 1e-210, 5e-324])
def test_constant_float32_group_has_finite_derivatives_for_any_eps(eps: float) -> None:
    """rstd³ overflows in float64 for eps < 1e-205, but no derivative does: x̂ is 0, and what rstd³ is multiplied with too."""
    x, one = np.full((1, 3, 1, 1), 0.1, np.float32), np.ones(3, np.float32)
    dy = normal(1, 3, 1, 1).astype(np.float32)
    along = {"x": normal(1, 3, 1, 1, seed=1).astype(np.float32), "weight": one, "bias": one}
    assert_public_right(x, one, one, dy, eps, "channel", WORKING["float32"])
    assert_derivatives_right(x, one, one, dy, along, eps, "channel", WORKING["float32"])


def test_mixed_dtypes_are_right() -> None:
    """Half-precision x beside float32 parameters and a float64 dy, as autocast has it."""
    x, weight = NORMAL["x"].astype(np.float16), NORMAL["weight"].astype(np.float32)
    bias = NORMAL["bias"].astype(ml_dtypes.bfloat16)
    assert_public_right(x, weight, bias, NORMAL["dy"], 1e-5, "sample", WORKING["float32"])


def test_plain_float64_is_not_right_at_an_offset() -> None:
    """The twin: the criterion can fail, and does for the formula evaluated in float64 on an offset of 1e8."""
    x = EXTREMES["offset"]["x"]
    d = x - x.mean(axis=1, keepdims=True)
    y = d / np.sqrt((d * d).mean(axis=1, keepdims=True) + 1e-5)
    right, scale = exact.forward(x, None, None, 1e-5, "channel"), Scales(x, None, 1e-5, "channel").y(None)
    with pytest.raises(AssertionError):
        assert_right(y, right, scale, WORKING["float64"])


def test_float32_is_seen_as_a_part_of_the_bound() -> None:
    """The twin: a reference that computed in float32 would not be negligible."""
    case = Case(x=NORMAL["x"].astype(np.float32))
    expected = expect(case.x)["y"]
    rounded = Expected(expected.value.astype(np.float32), 0.0, expected.bound, expected.dtype)
    assert part_of_bound(rounded, exact.forward(case.x, None, None, case.eps, "channel")) > NEGLIGIBLE


@pytest.mark.parametrize(("semantics", "affine_shape"), FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_double_vjp_is_the_derivative_of_vjp(dtype: str, semantics: str, affine_shape: str) -> None:
    """sum(cx·dx) + … is the derivative of sum(dy·y) along (cx, …), so its gradients are derivatives of dx and dweight."""

    @quick(max_examples=12)
    @given(finite_cases(dtype, semantics, affine_shape, 64))
    def check(case: Case) -> None:
        along = directions(case)
        options = {"eps": case.eps, "semantics": semantics}
        arguments = (case.x, case.weight, case.bias)
        on_dy, on_x, on_weight = ln2d_ref.double_vjp(*along.values(), case.dy, *arguments, **options)
        tangent = ln2d_ref.jvp(along["x"], *arguments, tweight=along["weight"], tbias=along["bias"], **options)
        of_x, of_weight = derivative_of_vjp(case, along)
        scales = Scales(case.x, case.weight, case.eps, semantics)
        working = 2 * WORKING[dtype]
        assert_right(on_dy, exact.numbers(tangent), scales.tangent(*along.values()), working)
        assert_right(on_x, exact.numbers(of_x), scales.second(along["x"], along["weight"], case.dy), working)
        if of_weight is not None:
            assert_right(on_weight, exact.numbers(of_weight), scales.second_weight(along["x"], case.dy, case.weight), working)

    check()


def derivative_of_vjp(case: Case, along: dict[str, Array | None]) -> tuple[Array, Array | None]:
    """Derivatives of dx and dweight along a direction, by evaluating their formulas on dual numbers."""
    inputs = Inputs(case.x, case.eps, case.semantics, dy=case.dy, weight=case.weight, cx=along["x"], cweight=along["weight"])
    if case.x.size == 0:
        return np.zeros(case.x.shape), None if case.weight is None else np.zeros(case.weight.shape)
    number = inputs.number
    weight = None if case.weight is None else Dual(number("weight"), number("cweight"))
    dy = Dual(number("dy"), number("dy") * 0.0)
    s = statistics(Dual(number("x"), number("cx")), inputs.eps, inputs.axes)
    of_x = _float64(input_gradient(s, dy, weight, inputs.axes).tangent)
    if case.weight is None:
        return of_x, None
    return of_x, _float64(weight_gradient(s, dy, inputs.affine("weight")).tangent).reshape(case.weight.shape)


BAD = [np.nan, np.inf, -np.inf]
DTYPE_IDS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}


def group_of(index: tuple[int, ...], semantics: str) -> Array:
    """Mask of the group that an index is in."""
    mask = np.zeros(SHAPE, bool)
    mask[(index[0], slice(None), *index[2:]) if semantics == "channel" else index[0]] = True
    return mask


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("dtype", DTYPE_IDS)
def test_nonfinite_x_makes_its_group_nan_and_no_other(dtype: str, bad: float, semantics: str) -> None:
    """The group's mean is not a number; no other group sees it, bit for bit."""
    clean, weight, bias, dy = (NORMAL[name].astype(DTYPE_IDS[dtype]) for name in ("x", "weight", "bias", "dy"))
    x = clean.copy()
    x[1, 3, 0, 0] = bad
    group = group_of((1, 3, 0, 0), semantics)
    for actual, untouched in (
        (ln2d_ref.forward(x, weight, bias, semantics=semantics), ln2d_ref.forward(clean, weight, bias, semantics=semantics)),
        (ln2d_ref.vjp(dy, x, weight, bias, semantics=semantics).x, ln2d_ref.vjp(dy, clean, weight, bias, semantics=semantics).x),
    ):
        assert np.array_equal(np.isnan(actual), group)
        assert np.array_equal(actual[~group], untouched[~group])


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("bad", BAD)
def test_nonfinite_x_makes_the_weights_gradients_nan_that_it_is_summed_into(bad: float, semantics: str) -> None:
    """Every channel of its pixel or sample has a term dy·NaN; dbias = Σ dy does not look at x."""
    x = NORMAL["x"].copy()
    x[1, 3, 0, 0] = bad
    gradients = ln2d_ref.vjp(NORMAL["dy"], x, NORMAL["weight"], NORMAL["bias"], semantics=semantics)
    assert gradients.weight is not None
    assert np.isnan(gradients.weight).all()
    assert np.array_equal(gradients.bias, ln2d_ref.vjp(NORMAL["dy"], NORMAL["x"], bias=NORMAL["bias"], semantics=semantics).bias)


@pytest.mark.parametrize("bad", BAD)
def test_nonfinite_dy_spoils_its_group_and_its_channel(bad: float) -> None:
    """dx is a mean over the group, dweight and dbias are sums over the channel; a NaN stands for any non-finite value."""
    dy = NORMAL["dy"].copy()
    dy[1, 3, 0, 0] = bad
    dx, dweight, dbias = ln2d_ref.vjp(dy, NORMAL["x"], NORMAL["weight"], NORMAL["bias"])
    channel = np.arange(5) == 3
    assert np.array_equal(np.isnan(dx), group_of((1, 3, 0, 0), "channel"))
    assert np.array_equal(np.isnan(dweight), channel)
    assert np.array_equal(np.isnan(dbias), channel)


@pytest.mark.parametrize("bad", BAD)
def test_nonfinite_weight_spoils_its_channel_of_y_and_all_of_dx(bad: float) -> None:
    """y = x̂·weight + bias is elementwise; dx is a mean over the channels of dy·weight."""
    weight = NORMAL["weight"].copy()
    weight[3] = bad
    y, clean = (ln2d_ref.forward(NORMAL["x"], w, NORMAL["bias"]) for w in (weight, NORMAL["weight"]))
    others = np.arange(5) != 3
    assert np.isnan(y[:, 3]).all()
    assert np.array_equal(y[:, others], clean[:, others])
    dx, dweight, _ = ln2d_ref.vjp(NORMAL["dy"], NORMAL["x"], weight)
    assert np.isnan(dx).all()
    assert np.array_equal(dweight, ln2d_ref.vjp(NORMAL["dy"], NORMAL["x"], NORMAL["weight"]).weight)


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("dtype", DTYPE_IDS)
def test_infinite_bias_gives_that_infinity(dtype: str, semantics: str) -> None:
    """A finite number plus an infinity is that infinity; a NaN stays one."""
    x, bias = NORMAL["x"].astype(DTYPE_IDS[dtype]), np.array([np.inf, -np.inf, np.nan, 0, 1], DTYPE_IDS[dtype])
    y = ln2d_ref.forward(x, None, bias, semantics=semantics)
    assert (y[:, 0] == np.inf).all()
    assert (y[:, 1] == -np.inf).all()
    assert np.isnan(y[:, 2]).all()
    assert np.isfinite(y[:, 3:]).all()


def test_nan_group_stays_nan_under_an_infinite_bias() -> None:
    """NaN + infinity is NaN."""
    x = NORMAL["x"].copy()
    x[0, 0, 0, 0] = np.nan
    y = ln2d_ref.forward(x, None, np.full(5, np.inf))
    assert np.array_equal(np.isnan(y), group_of((0, 0, 0, 0), "channel"))
    assert (y[~np.isnan(y)] == np.inf).all()


@pytest.mark.parametrize(("semantics", "parameter"), [("channel", (3,)), ("sample", (3,)), ("sample", "element")])
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0), (0, 3, 0, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_empty_input_gives_empty_results_and_zero_parameter_gradients(
    dtype: str, shape: tuple[int, ...], semantics: str, parameter: Any
) -> None:
    """A sum over nothing is 0, in the parameter's own shape."""
    affine = shape[1:] if parameter == "element" else parameter
    x, weight = np.zeros(shape, dtype), np.ones(affine, dtype)
    assert ln2d_ref.forward(x, weight, weight, semantics=semantics).shape == shape
    assert ln2d_ref.jvp(x, x, weight, weight, tweight=weight, tbias=weight, semantics=semantics).shape == shape
    dx, dweight, dbias = ln2d_ref.vjp(x, x, weight, weight, semantics=semantics)
    assert dx.shape == shape
    assert np.array_equal(dweight, np.zeros(affine))
    assert np.array_equal(dbias, np.zeros(affine))
    on_dy, on_x, on_weight = ln2d_ref.double_vjp(x, weight, weight, x, x, weight, weight, semantics=semantics)
    assert on_dy.shape == on_x.shape == shape
    assert np.array_equal(on_weight, np.zeros(affine))


@pytest.mark.parametrize(("shape", "semantics"), [((2, 1, 3, 2), "channel"), ((3, 1, 1, 1), "sample")])
@pytest.mark.parametrize("magnitude", [0.0, 1e-45, 1.0, 1e38])
@pytest.mark.parametrize("dtype", DTYPE_IDS)
def test_single_value_gives_bias_and_zero_gradients(dtype: str, magnitude: float, shape: tuple[int, ...], semantics: str) -> None:
    """x - mean is exactly 0, so nothing depends on x; dbias is the sum of dy all the same."""
    largest = DTYPES[dtype].largest
    x, dy = (np.clip(normal(*shape, seed=seed) * magnitude, -largest, largest).astype(DTYPE_IDS[dtype]) for seed in (0, 1))
    weight, bias = np.array([-1.5], DTYPE_IDS[dtype]), np.array([0.3], DTYPE_IDS[dtype])
    assert np.array_equal(ln2d_ref.forward(x, weight, bias, semantics=semantics), np.full(shape, float(bias[0])))
    dx, dweight, dbias = ln2d_ref.vjp(dy, x, weight, bias, semantics=semantics)
    assert not dx.any()
    assert np.array_equal(dweight, [0.0])
    assert_right(dbias, np.array([mp.fsum(exact.numbers(dy).ravel())]), Scales.total(np.abs(exact.numbers(dy)), bias), 2.0**-50)


CALLS: dict[str, Callable[..., Any]] = {
    "forward": lambda x, weight, bias, dy, **options: ln2d_ref.forward(x, weight, bias, **options),
    "vjp": lambda x, weight, bias, dy, **options: ln2d_ref.vjp(dy, x, weight, bias, **options),
    "jvp": lambda x, weight, bias, dy, **options: ln2d_ref.jvp(dy, x, weight, bias, tweight=weight, tbias=bias, **options),
    "double_vjp": lambda x, weight, bias, dy, **options: ln2d_ref.double_vjp(dy, weight, bias, dy, x, weight, bias, **options),
}


def results(returned: Any) -> Iterator[Array]:
    """The arrays that a call returned."""
    for array in returned if isinstance(returned, tuple) else (returned,):
        if array is not None:
            yield array


@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1, 1), (1, 5, 1, 1), (0, 5, 1, 1)])
@pytest.mark.parametrize("affine", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("call", CALLS)
def test_results_are_float64_arrays_of_their_own(call: str, affine: tuple[bool, bool], shape: tuple[int, ...]) -> None:
    """A caller may write into a result: it shares no memory with an argument or another result, and no argument was changed."""
    arguments = {"x": normal(*shape), "dy": normal(*shape, seed=1)}
    arguments |= {name: normal(shape[1], seed=2) if there else None for name, there in zip(("weight", "bias"), affine, strict=True)}
    before = {name: None if array is None else array.copy() for name, array in arguments.items()}
    for array in arguments.values():
        if array is not None:
            array.setflags(write=False)
    returned = list(results(CALLS[call](**arguments)))
    for position, array in enumerate(returned):
        assert array.dtype == np.float64
        assert array.flags.writeable
        others = [*returned[:position], *(a for a in arguments.values() if a is not None)]
        assert not any(np.shares_memory(array, other) for other in others)
    assert all(array is None or np.array_equal(array, before[name]) for name, array in arguments.items())


@pytest.mark.parametrize("call", CALLS)
def test_values_count_and_not_strides(call: str) -> None:
    """A transposed, stepped and reversed view gives the bits of its dense copy."""
    base = normal(5, 4, 10, 6)
    view = base.transpose(2, 0, 3, 1)[::-2, :, 1::2, ::-1]
    weight = normal(10)[::-2]
    assert not view.flags.c_contiguous
    strided = results(CALLS[call](view, weight, weight, view))
    dense = results(CALLS[call](view.copy(), weight.copy(), weight.copy(), view.copy()))
    assert all(np.array_equal(a, b) for a, b in zip(strided, dense, strict=True))


ELEMENT = np.ones(SHAPE[1:])
WRONG: dict[str, tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = {
    "rank 3": ({"x": NORMAL["x"][0]}, ValueError, ("x", "(5, 2, 1)", "(N, C, H, W)")),
    "rank 5": ({"x": NORMAL["x"][None]}, ValueError, ("x", "(1, 2, 5, 2, 1)", "(N, C, H, W)")),
    "no channels": ({"x": np.ones((2, 0, 2, 1)), "weight": None}, ValueError, ("x", "(2, 0, 2, 1)", "C >= 1")),
    "short weight": ({"weight": np.ones(4)}, ValueError, ("weight", "(4,)", "(5,)")),
    "long bias": ({"bias": np.ones(6)}, ValueError, ("bias", "(6,)", "(5,)")),
    "one weight": ({"weight": np.ones(1)}, ValueError, ("weight", "(1,)", "(5,)")),
    "scalar weight": ({"weight": np.float64(1)}, ValueError, ("weight", "()", "(5,)")),
    "element weight in channel semantics": ({"weight": ELEMENT}, ValueError, ("weight", "(5, 2, 1)", "(5,)")),
    "wrong element weight": (
        {"weight": np.ones((5, 1, 2)), "semantics": "sample"},
        ValueError,
        ("weight", "(5, 1, 2)", "(5,) or (5, 2, 1)"),
    ),
    "integer x": ({"x": np.ones(SHAPE, np.int64)}, TypeError, ("x", "int64", "float16, bfloat16, float32, float64")),
    "boolean weight": ({"weight": np.ones(5, bool)}, TypeError, ("weight", "bool", "float32")),
    "complex bias": ({"bias": np.ones(5, complex)}, TypeError, ("bias", "complex128", "float32")),
    "no x": ({"x": None}, TypeError, ("x", "float32")),
    "negative eps": ({"eps": -1e-5}, ValueError, ("eps", "-1e-05", ">= 0")),
    "NaN eps": ({"eps": float("nan")}, ValueError, ("eps", "nan", ">= 0")),
    "infinite eps": ({"eps": float("inf")}, ValueError, ("eps", "inf", "finite")),
    "textual eps": ({"eps": "1e-5"}, ValueError, ("eps", "'1e-5'", "number")),
    "integer eps too large for a float": ({"eps": 10**400}, ValueError, ("eps", "finite")),
    "unknown semantics": ({"semantics": "batch"}, ValueError, ("semantics", "'batch'", "'channel', 'sample'")),
    "no semantics": ({"semantics": None}, ValueError, ("semantics", "None", "'channel', 'sample'")),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("call", CALLS)
def test_wrong_argument_is_named_with_its_value_and_what_is_allowed(call: str, wrong: str) -> None:
    """An oracle that broadcasts or guesses would bless what it should refuse."""
    changed, error, parts = WRONG[wrong]
    with pytest.raises(error) as raised:
        CALLS[call](**({name: NORMAL[name] for name in ("x", "weight", "bias", "dy")} | changed))
    assert all(part in str(raised.value) for part in parts)


@pytest.mark.parametrize("call", ["vjp", "jvp", "double_vjp"])
@pytest.mark.parametrize(
    ("dy", "error", "part"),
    [
        (normal(2, 5, 1, 2), ValueError, "(2, 5, 1, 2)"),
        (normal(1, 5, 2, 1), ValueError, "(1, 5, 2, 1)"),
        (normal(5), ValueError, "(5,)"),
        (np.ones(SHAPE, np.int32), TypeError, "int32"),
        (None, TypeError, "dtype"),
    ],
    ids=["transposed", "broadcastable", "flat", "integer", "missing"],
)
def test_wrong_direction_is_named_with_what_is_allowed(call: str, dy: Any, error: type[Exception], part: str) -> None:
    """dy, tx and cx have the shape of x, which is not broadcast to, and a floating dtype."""
    with pytest.raises(error) as raised:
        CALLS[call](NORMAL["x"], NORMAL["weight"], NORMAL["bias"], dy)
    assert part in str(raised.value)
    assert str(raised.value).startswith(("dy has", "tx has", "cx has"))


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_direction_of_an_absent_parameter_is_refused(name: str) -> None:
    """It would otherwise be ignored, or a parameter made up."""
    x, along = NORMAL["x"], np.ones(5)
    with pytest.raises(ValueError, match=f"t{name} is given, but {name} is None"):
        ln2d_ref.jvp(x, x, **{f"t{name}": along})
    cotangents = (along, None) if name == "weight" else (None, along)
    with pytest.raises(ValueError, match=f"c{name} is given, but {name} is None"):
        ln2d_ref.double_vjp(x, *cotangents, x, x)


@pytest.mark.parametrize("name", ["x", "weight", "bias", "dy"])
@pytest.mark.parametrize("call", ["jvp", "double_vjp"])
def test_nonfinite_argument_of_a_second_derivative_is_refused(call: str, name: str) -> None:
    """No rule decides it."""
    arguments = {key: NORMAL[key].copy() for key in ("x", "weight", "bias", "dy")}
    arguments[name].reshape(-1)[0] = np.nan
    with pytest.raises(ValueError, match="holds a NaN or infinity, but must be finite"):
        CALLS[call](**arguments)
