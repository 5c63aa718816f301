"""Each kind of number is as good as it says: against mpmath at 60 digits, and for bounded numbers against perturbed arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ln2d_ref.dtypes import DTYPES
from ln2d_ref.numbers import Bounded, DoubleDouble, Dual, Rounding, Wide
from ln2d_ref.numbers.bounded import LONGEST_CHAIN, chain_length
from ln2d_ref.numbers.double_double import two_product, two_sum
from ln2d_ref.numbers.operations import folded, mean_square, rsqrt
from tests.meta.exact import mp, numbers

Array = np.ndarray

GOOD = 2.0**-100
"""What a double-double operation may lose: 4 bits of the 104 that it has."""

quick = partial(settings, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, (1 << 32) - 1)
rows = {"axis": (0,), "keepdims": True}


def exactly(number: Any) -> Array:
    """What a number stands for, in mpmath."""
    if isinstance(number, Wide):
        return exactly(number.significand) * np.vectorize(lambda k: mp.mpf(2) ** int(k), otypes=[object])(number.exponent)
    if isinstance(number, DoubleDouble):
        return numbers(number.hi) + numbers(np.broadcast_to(number.lo, number.shape))
    return numbers(number)


def assert_good(actual: Any, right: Array, scale: Array | None = None, good: float = GOOD) -> None:
    """|actual - right| <= good·scale, elementwise; the scale is |right| where none is given."""
    error, scale = np.abs(exactly(actual) - right), np.abs(right) if scale is None else scale
    assert error.shape == right.shape
    assert (error <= good * scale).all()


def double_doubles(rng: np.random.Generator, count: int, octaves: int) -> DoubleDouble:
    """Random ones of both signs, their magnitudes spread over octaves; some are neighbours of others, negated."""
    high = rng.uniform(1, 2, count) * np.exp2(rng.integers(-octaves, octaves + 1, count)) * rng.choice([-1.0, 1.0], count)
    near = rng.random(count) < 0.3
    high = np.where(near, -np.roll(high, 1) * (1 + rng.integers(-2, 3, count) * 2.0**-52), high)
    return DoubleDouble(high, np.abs(high) * rng.uniform(-1, 1, count) * 2.0**-54)


# DoubleDouble


@quick(max_examples=60)
@given(seeds, st.sampled_from([0, 1, 10, 60, 300]))
def test_double_double_operation_is_good_to_100_bits(seed: int, octaves: int) -> None:
    """Cancellation of the leading parts included: the accurate addition is relative to the result, not to the addends."""
    rng = np.random.default_rng(seed)
    a, b = double_doubles(rng, 32, octaves), double_doubles(rng, 32, octaves)
    b = DoubleDouble(np.where(np.arange(32) % 3 == 0, -a.hi, b.hi), np.where(np.arange(32) % 3 == 0, a.lo / 3, b.lo))
    left, right = exactly(a), exactly(b)
    assert_good(a + b, left + right)
    assert_good(a - b, left - right)
    assert_good(a * b, left * right)
    assert_good(-a, -left)
    assert_good(a + 0.1, left + mp.mpf(0.1))
    assert_good(0.1 - a, mp.mpf(0.1) - left)
    assert_good(a * b.hi, left * numbers(b.hi))
    for divisor in (3.0, 7.0, 1e5, 0.1):
        assert_good(a / divisor, left / mp.mpf(divisor))


@quick(max_examples=40)
@given(seeds, st.sampled_from([0, 40, 400]))
def test_double_double_rsqrt_is_good_to_100_bits(seed: int, octaves: int) -> None:
    """One Newton step doubles the 53 bits that it starts from."""
    value = double_doubles(np.random.default_rng(seed), 32, octaves)
    value = DoubleDouble(np.abs(value.hi), value.lo)
    assert_good(value.rsqrt(0.0), 1 / numbers([mp.sqrt(v) for v in exactly(value)]))
    assert_good(value.rsqrt(1e-5), 1 / numbers([mp.sqrt(v + mp.mpf(1e-5)) for v in exactly(value)]))


@quick(max_examples=60)
@given(seeds, st.integers(1, 200), st.sampled_from([0, 30, 100]))
def test_double_double_sum_is_good_to_100_bits_of_its_magnitudes(seed: int, count: int, octaves: int) -> None:
    """However much of it cancels."""
    terms = double_doubles(np.random.default_rng(seed), count, octaves)
    total, magnitudes = mp.fsum(exactly(terms)), mp.fsum(np.abs(exactly(terms)))
    assert_good(terms.sum(**rows), numbers([total]), numbers([magnitudes]))
    assert_good(terms.mean(**rows), numbers([total / count]), numbers([magnitudes / count]))


@pytest.mark.parametrize("huge", [1e16, 1e20, 1e28])
def test_double_double_sum_survives_cancellation_of_all_that_is_large(huge: float) -> None:
    """1/3 is left of [huge, 1/3, -huge], to as many bits as the sum of magnitudes leaves."""
    terms = [huge, 1 / 3, -huge] * 5
    total = DoubleDouble(np.array(terms)).sum(**rows)
    assert_good(total, numbers([5 * mp.mpf(1 / 3)]), numbers([10 * mp.mpf(huge)]))


@pytest.mark.parametrize("huge", [1e16, 1e20, 1e28])
def test_plain_float64_sum_is_not_good(huge: float) -> None:
    """The twin: the criterion for sums can fail."""
    total = np.array([huge, 1 / 3, -huge] * 5).sum(keepdims=True)
    with pytest.raises(AssertionError):
        assert_good(total, numbers([5 * mp.mpf(1 / 3)]), numbers([10 * mp.mpf(huge)]))


@pytest.mark.parametrize("operation", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: b / 7])
def test_plain_float64_operation_is_not_good(operation: Callable[[Any, Any], Any]) -> None:
    """The twin: the criterion for single operations can fail."""
    a, b = np.array([1 / 3]), np.array([1e-3])
    with pytest.raises(AssertionError):
        assert_good(operation(a, b), operation(numbers(a), numbers(b)))


@pytest.mark.parametrize("shape_axes", [((2, 3, 4, 5), (1,)), ((2, 3, 4, 5), (1, 2, 3)), ((2, 3, 4, 5), (0, 2, 3)), ((2, 0, 1, 1), (1,))])
@pytest.mark.parametrize("kind", [DoubleDouble, Wide])
def test_sum_and_mean_have_the_shape_of_numpys(kind: Any, shape_axes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """An axis summed in another's place would be seen by the values too: they are powers of two, so that sums are exact."""
    shape, axes = shape_axes
    array = np.exp2(np.arange(np.prod(shape)) % 40.0).reshape(shape)
    for keepdims in (True, False):
        total = kind(array).sum(axes, keepdims)
        assert total.shape == array.sum(axis=axes, keepdims=keepdims).shape
        assert_good(total, numbers(array.sum(axis=axes, keepdims=keepdims)), good=0.0)
        if array.size:
            mean = kind(array).mean(axes, keepdims)
            count = int(np.prod([shape[axis] for axis in axes]))
            assert_good(mean, numbers(array.sum(axis=axes, keepdims=keepdims)) / count)


@quick(max_examples=60)
@given(seeds, st.sampled_from([0, 20, 400]))
def test_error_free_transformations_are_free_of_error(seed: int, octaves: int) -> None:
    """a + b = s + e and a·b = p + e exactly (Knuth; Dekker)."""
    rng = np.random.default_rng(seed)
    a, b = double_doubles(rng, 32, octaves).hi, double_doubles(rng, 32, octaves).hi
    for transformation, right in ((two_sum, numbers(a) + numbers(b)), (two_product, numbers(a) * numbers(b))):
        rounded, error = transformation(a, b)
        assert (np.abs(numbers(rounded) + numbers(error) - right) <= np.abs(right) * 2.0**-190).all()


@pytest.mark.parametrize("value", [2.0**1020 / 3, 2.0**1020, 1.99 * 2.0**1020, 2.0**1000 / 7, 2.0**990 * 1.1])
def test_double_double_near_the_largest_number_is_good(value: float) -> None:
    """Splitting such a factor by 2²⁷ + 1 would overflow, and infinity - infinity is NaN."""
    a = DoubleDouble(np.array([value]))
    right = exactly(a)
    assert_good(a * 0.75, right * mp.mpf(0.75))
    assert_good(a * DoubleDouble(np.array([2.0**-1000 / 3])), right * mp.mpf(2.0**-1000 / 3))
    assert_good(a / 3.0, right / 3)
    assert_good(a + a, right * 2)
    assert_good(a - a * 0.5, right / 2)
    assert_good(a.rsqrt(0.0), 1 / numbers([mp.sqrt(v) for v in right]))
    assert_good(DoubleDouble(np.array([value] * 3)).mean((0,)), right)


# Wide


def wides(rng: np.random.Generator, count: int, decades: int) -> Wide:
    """Random ones of both signs, with exponents far outside float64's range."""
    return Wide(double_doubles(rng, count, 3), rng.integers(-decades, decades + 1, count) * 3)


@quick(max_examples=60)
@given(seeds, st.sampled_from([0, 5, 30, 700]))
def test_wide_operation_is_good_to_100_bits_at_any_exponent(seed: int, decades: int) -> None:
    """It is a double-double operation on significands near 1."""
    rng = np.random.default_rng(seed)
    a, b = wides(rng, 24, decades), wides(rng, 24, decades)
    left, right = exactly(a), exactly(b)
    assert_good(a + b, left + right)
    assert_good(a - b, left - right)
    assert_good(a * b, left * right)
    assert_good(-a * a, -left * left)
    total, magnitudes = mp.fsum(left), mp.fsum(np.abs(left))
    assert_good(a.sum(**rows), numbers([total]), numbers([magnitudes]))
    assert_good(a.mean(**rows), numbers([total / 24]), numbers([magnitudes / 24]))
    assert_good((a * a).rsqrt(0.0), 1 / np.abs(left), good=2 * GOOD)
    assert_good((a * a).rsqrt(1e-5), 1 / numbers([mp.sqrt(v * v + mp.mpf(1e-5)) for v in left]), good=2 * GOOD)


@pytest.mark.parametrize("value", [1e300, 1e-300, 5e-324, 1.7e308, 1.0])
def test_wide_goes_beyond_float64s_range_and_comes_back(value: float) -> None:
    """value⁴·(1/√value²)³ = value."""
    wide = Wide(np.array([value]))
    square = wide * wide
    assert_good(square, numbers([mp.mpf(value) ** 2]))
    assert_good(square * square, numbers([mp.mpf(value) ** 4]))
    root = square.rsqrt(0.0)
    assert_good(root, 1 / numbers([value]))
    assert_good(square * square * root * root * root, numbers([value]), good=8 * GOOD)
    assert (square * root).double_double().hi == value


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_wide_rsqrt_of_1e_minus_600_is_good(eps: float) -> None:
    """Its square root alone is in float64's range; eps, where there is one, hides it."""
    tiny = Wide(np.array([1e-300])) * 1e-300
    assert_good(tiny.rsqrt(eps), 1 / numbers([mp.sqrt(mp.mpf(1e-300) ** 2 + mp.mpf(eps))]))


def test_wide_sum_of_widely_different_exponents_is_good() -> None:
    """What is small beside the largest is lost, and nothing else."""
    terms = [1e300, 1e-300, 3.0, -5e-324, 1e284, 1e270]
    total = Wide(np.array(terms)).sum(**rows)
    assert_good(total, numbers([mp.fsum(terms)]))
    assert_good(Wide(np.array([1e-300, 3e-324])) + Wide(np.array([1e-310, 0.0])), numbers([mp.mpf(1e-300) + mp.mpf(1e-310), 3e-324]))


def test_wide_zero_is_neutral_in_sums_and_absorbs_in_products() -> None:
    """A zero has an exponent below every other, which must not leak into a result."""
    zero, value = Wide(np.zeros(3)), Wide(np.array([1e300, -1e-300, 0.0]))
    assert_good(zero + value, exactly(value), good=0.0)
    assert_good(value - zero, exactly(value), good=0.0)
    assert_good(zero * value * value, numbers(np.zeros(3)), good=0.0)
    assert_good(zero.sum(**rows), numbers([0.0]), good=0.0)
    assert_good(value - value, numbers(np.zeros(3)), good=0.0)
    assert_good((value - value) + 1e-300, numbers(np.full(3, 1e-300)), good=0.0)
    assert_good(zero.rsqrt(1e-12), numbers(np.full(3, 1.0)) / mp.sqrt(mp.mpf(1e-12)))


def test_wide_becomes_infinite_or_zero_only_where_float64_ends() -> None:
    """double_double is the nearest one."""
    huge, tiny = Wide(np.array([1e300])), Wide(np.array([-1e-300]))
    assert (huge * huge).double_double().hi == np.inf
    assert (tiny * huge * huge * huge).double_double().hi == -np.inf
    assert (tiny * tiny).double_double().hi == 0
    assert (Wide(np.array([5e-324]))).double_double().hi == 5e-324
    assert (Wide(np.array([np.finfo(np.float64).max]))).double_double().hi == np.finfo(np.float64).max


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_double_double_alone_is_not_good_at_wide_exponents() -> None:
    """The twin: what `Wide` is for."""
    value = DoubleDouble(np.array([1e300]))
    right = numbers([mp.mpf(1e300) ** 2])
    square = value * value
    assert not np.isfinite(square.hi).any()
    with pytest.raises(AssertionError):
        assert_good(DoubleDouble(np.nan_to_num(square.hi), np.zeros(1)), right)


# Dual

KINDS = {"float64": (lambda array: array, 2.0**-46), "DoubleDouble": (DoubleDouble, 2.0**-96), "Wide": (Wide, 2.0**-96)}
FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "rsqrt": (lambda a, b: rsqrt(a * a, 1e-3), lambda a, b: [1 / mp.sqrt(u * u + mp.mpf(1e-3)) for u in a]),
    "product": (lambda a, b: a * b, lambda a, b: [u * v for u, v in zip(a, b, strict=True)]),
    "cube less square": (lambda a, b: a * a * a - b * b, lambda a, b: [u**3 - v * v for u, v in zip(a, b, strict=True)]),
    "sum of a product": (lambda a, b: (a * b).sum(axis=(0,), keepdims=True), lambda a, b: [mp.fdot(a, b)]),
    "mean times b": (lambda a, b: a.mean(axis=(0,), keepdims=True) * b, lambda a, b: [mp.fsum(a) / len(a) * v for v in b]),
    "variance": (
        lambda a, b: mean_square(a - a.mean(axis=(0,), keepdims=True), a.mean(axis=(0,), keepdims=True), (0,)),
        lambda a, b: [mp.fsum([u * u for u in a]) / len(a) - (mp.fsum(a) / len(a)) ** 2],
    ),
    "twice the negative of b reshaped": (lambda a, b: -b.reshape(2, 2).reshape(4) * 2.0, lambda a, b: [-2 * v for v in b]),
}
LINE = {name: np.random.default_rng(seed).uniform(0.5, 2, 4) for seed, name in enumerate(("a", "b", "along a", "along b"))}


def on_line(function: Callable[..., Any], order: int) -> Array:
    """Derivative of that order of a function of (a, b) along (along a, along b), numerically in mpmath at 60 digits."""
    a, b, da, db = (numbers(LINE[name]) for name in ("a", "b", "along a", "along b"))
    count = len(function(a, b))
    return numbers([mp.diff(lambda t, k=k: function(list(a + t * da), list(b + t * db))[k], 0, order) for k in range(count)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_dual_is_the_derivative(function: str, kind: str) -> None:
    """As mpmath differentiates the same function numerically."""
    number, good = KINDS[kind]
    ours, theirs = FUNCTIONS[function]
    a, b, da, db = (number(LINE[name]) for name in ("a", "b", "along a", "along b"))
    result = ours(Dual(a, da), Dual(b, db))
    assert_good(result.primal, numbers(theirs(list(exactly(a)), list(exactly(b)))), good=good)
    assert_good(result.tangent, on_line(theirs, 1), numbers(np.full(result.shape, 8.0)), good=good)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_dual_of_dual_is_the_second_derivative(function: str, kind: str) -> None:
    """The coefficient of ε₁·ε₂ is the second derivative where both directions are the same."""
    number, good = KINDS[kind]
    ours, theirs = FUNCTIONS[function]

    def twice(value: str) -> Dual:
        along = number(LINE[f"along {value}"])
        return Dual(Dual(number(LINE[value]), along), Dual(along, number(np.zeros(4))))

    second = ours(twice("a"), twice("b")).tangent.tangent
    assert_good(second, on_line(theirs, 2), numbers(np.full(second.shape, 64.0)), good=good)


def test_difference_quotient_is_not_good_enough_to_be_the_derivative() -> None:
    """The twin: the criterion can fail."""
    a, b, da, db = (LINE[name] for name in ("a", "b", "along a", "along b"))
    step = 1e-6
    quotient = ((a + step * da) * (b + step * db) - a * b) / step
    with pytest.raises(AssertionError):
        assert_good(quotient, on_line(FUNCTIONS["product"][1], 1), numbers(np.full(4, 8.0)), good=KINDS["float64"][1])


def test_dual_mixes_with_constants() -> None:
    """A constant has the tangent 0; an array on the left does not swallow the dual number."""
    a = Dual(np.array([3.0]), np.array([5.0]))
    for value, tangent, result in (
        (5.0, 5.0, a + 2.0),
        (5.0, 5.0, np.array([2.0]) + a),
        (1.0, 5.0, a - np.array([2.0])),
        (-1.0, -5.0, np.array([2.0]) - a),
        (6.0, 10.0, np.array([2.0]) * a),
        (6.0, 10.0, a * 2.0),
    ):
        assert isinstance(result, Dual)
        assert (result.primal, result.tangent) == (value, tangent)


# Bounded

UNIT = DTYPES["float32"].roundoff
ROUNDING = Rounding.of(DTYPES["float32"])
WITHIN = 1 - 2.0**-20
"""Of the largest perturbation: the float64 arithmetic of these tests rounds too."""


class Perturbed:
    """Arithmetic that goes wrong by as much as the standard model allows: each result times 1 + δ, |δ| at most a unit."""

    def __init__(self, seed: int, unit: float = UNIT) -> None:
        self.rng, self.unit = np.random.default_rng(seed), unit * WITHIN
        self.always_up = seed % 2 == 0  # so that the errors of a chain add up

    def wrong(self, shape: tuple[int, ...]) -> Array:
        """Numbers in [-1, 1], mostly its ends."""
        if self.always_up:
            return np.ones(shape)
        return self.rng.choice([-1.0, 1.0], shape) * np.where(self.rng.random(shape) < 0.9, 1.0, self.rng.random(shape))

    def rounded(self, value: Array, units: float = 1.0) -> Array:
        return value * (1 + units * self.unit * self.wrong(np.shape(value)))

    def sample(self, number: Bounded) -> Array:
        """A value within a bounded number's error."""
        value = leading(number)
        return value + WITHIN * self.wrong(value.shape) * number.error

    def chain(self, terms: Array) -> Any:
        """Sum of the terms, one after another in a random order."""
        total, *others = self.rng.permutation(terms)
        for term in others:
            total = self.rounded(total + term)
        return total

    def tree(self, terms: Array) -> Any:
        """Sum of the terms by halving."""
        if len(terms) == 1:
            return terms[0]
        half = len(terms) // 2
        return self.rounded(self.tree(terms[:half]) + self.tree(terms[half:]))

    def running(self, terms: Array) -> tuple[Any, Any]:
        """Welford's mean and variance."""
        mean, squares = terms[0], np.float64(0)
        for count, term in enumerate(terms[1:], 2):
            before = self.rounded(term - mean)
            mean = self.rounded(mean + self.rounded(before / count))
            squares = self.rounded(squares + self.rounded(before * self.rounded(term - mean)))
        return mean, self.rounded(squares / len(terms))

    def root(self, value: Array, eps: float) -> Array:
        """1/sqrt(value + rounded eps), off by 2 units in the last place of a float: at most 4 roundoffs."""
        return self.rounded(1 / np.sqrt(self.rounded(np.maximum(value, 0) + self.rounded(np.float64(eps)))), 4.0)


def contains(number: Bounded, values: Any) -> bool:
    """Whether the values are within a bounded number's error."""
    return bool((np.abs(values - leading(number)) <= number.error).all())


def leading(number: Bounded) -> Array:
    """The value in float64."""
    return number.value.hi if isinstance(number.value, DoubleDouble) else number.value


def bounded(rng: np.random.Generator, count: int, offset: float, kind: Callable[[Array], Any] = np.asarray) -> Bounded:
    """Random values with errors of up to 8 units each."""
    value = offset + rng.standard_normal(count)
    return Bounded(kind(value), 8 * UNIT * rng.random(count) * np.abs(value), ROUNDING)


def given_to(rng: np.random.Generator, count: int, offset: float) -> tuple[Bounded, Array]:
    """An exact input."""
    values = offset + rng.standard_normal(count)
    return Bounded.given(values, ROUNDING, flushable=True), values


@quick(max_examples=80)
@given(seeds, st.sampled_from([0.0, 3.0, -100.0]), st.sampled_from([np.asarray, DoubleDouble]))
def test_bounded_operation_contains_every_perturbed_one(seed: int, offset: float, kind: Callable[[Array], Any]) -> None:
    """|fl(a∘b) - a∘b| <= propagated error + own rounding, for operands anywhere within their errors."""
    rng, wrong = np.random.default_rng(seed), Perturbed(seed)
    a, b = bounded(rng, 16, offset, kind), bounded(rng, 16, 1.0, kind)
    left, right = wrong.sample(a), wrong.sample(b)
    assert contains(a + b, wrong.rounded(left + right))
    assert contains(a - b, wrong.rounded(left - right))
    assert contains(a * b, wrong.rounded(left * right))
    assert contains(-a, -left)
    assert contains(a * 2.0, left * 2)
    assert contains(a * -0.5, left * -0.5)
    assert contains(a.reshape(4, 4), left.reshape(4, 4))
    factor = rng.standard_normal(16)
    distributed = wrong.rounded(wrong.rounded(left * factor) + wrong.rounded(right * factor))
    assert contains((a + b) * Bounded.given(kind(factor), ROUNDING, flushable=False), distributed)


@quick(max_examples=80)
@given(seeds, st.sampled_from([0.0, 3.0, 1e6]), st.sampled_from([2.0**-8, 2.0**-24, 2.0**-26]))
def test_bounded_errors_are_what_the_rules_say(seed: int, offset: float, unit: float) -> None:
    """To 2⁻²⁰, also where an error is given back by |value| + error - |value|; the rules in extended precision."""
    rng, rounding = np.random.default_rng(seed), Rounding(unit, 1e-30, 1e-36)
    extended = np.longdouble if np.finfo(np.longdouble).nmant > 60 else pytest.skip("longdouble is float64 here")
    a, b, c = (Bounded(offset + rng.standard_normal(16), unit * rng.random(16), rounding) for _ in range(3))
    (va, ea), (vb, eb), (vc, ec) = ((number.value.astype(extended), number.error.astype(extended)) for number in (a, b, c))

    def product(va: Array, ea: Array, vb: Array, eb: Array) -> Array:
        cross = abs(va) * eb + (abs(vb) + eb) * ea
        return cross + unit * (abs(va * vb) + cross) + rounding.flush

    def total(va: Array, ea: Array, vb: Array, eb: Array) -> Array:
        return ea + eb + unit * (abs(va) + ea + abs(vb) + eb)

    def agree(number: Bounded, error: Array) -> bool:
        return bool((abs(number.error - error) <= 2.0**-20 * error).all())

    eab, ebc = product(va, ea, vb, eb), product(vb, eb, vc, ec)
    assert agree(a * b, eab)
    assert agree(a + b, total(va, ea, vb, eb))
    assert agree(a * b - b * c, total(va * vb, eab, vb * vc, ebc))
    assert agree((a * b) * c, product(va * vb, eab, vc, ec))
    summed = rounding.sum(16) * (abs(va * vb) + eab).sum() + eab.sum()
    assert agree((a * b).sum(**rows), summed)
    assert agree((a * b).mean(**rows), summed / 16 + (rounding.mean(16) - rounding.sum(16)) * (abs(va * vb) + eab).sum() / 16)


@quick(max_examples=80)
@given(seeds, st.integers(1, 70), st.sampled_from([0.0, 1.0, -1000.0]))
def test_bounded_sum_and_mean_contain_every_order(seed: int, count: int, offset: float) -> None:
    """In a chain, by halving and running; the quotient as a product with a rounded 1/n, too."""
    rng, wrong = np.random.default_rng(seed), Perturbed(seed)
    number = bounded(rng, count, offset)
    terms = wrong.sample(number)
    total, mean = number.sum(**rows), number.mean(**rows)
    inverse = wrong.rounded(np.float64(1 / count)) if count > 1 else 1.0
    for actual in (wrong.chain(terms), wrong.tree(terms)):
        assert contains(total, actual)
        assert contains(mean, actual if count == 1 else wrong.rounded(actual * inverse))
        assert contains(mean, actual if count == 1 else wrong.rounded(actual / count))
    assert contains(mean, wrong.running(terms)[0])


@quick(max_examples=80)
@given(seeds, st.integers(2, 70), st.sampled_from([0.0, 1.0, -1000.0, 1e6]))
def test_bounded_variance_contains_two_passes_and_welford(seed: int, count: int, offset: float) -> None:
    """mean(d²) with a mean that is off, and a running variance; at an offset of 10⁶ units of spread either may lose all digits."""
    rng, wrong = np.random.default_rng(seed), Perturbed(seed)
    number, x = given_to(rng, count, offset)
    mean = number.mean(axis=(0,))
    variance = mean_square(number - mean, mean, (0,))
    computed = wrong.rounded(wrong.chain(x) / count)
    d = wrong.rounded(x - computed)
    assert contains(variance, wrong.rounded(wrong.chain(wrong.rounded(d * d)) / count))
    assert contains(variance, wrong.running(x)[1])


def test_bounded_variance_contains_none_at_all() -> None:
    """Welford's in float32 finds 0 here, and is honest."""
    x = np.array([40000.00390625, 40000.0078125])
    number = Bounded.given(x, ROUNDING, flushable=True)
    mean = number.mean(axis=(0,))
    variance = mean_square(number - mean, mean, (0,))
    assert contains(variance, 0.0)
    assert contains(variance.rsqrt(1e-6), 1 / np.sqrt(1e-6))


@quick(max_examples=80)
@given(seeds, st.sampled_from([1.0, 1e-5, 1e-12]), st.sampled_from([2.0**-20, 0.1, 1.0, 3.0]))
def test_bounded_rsqrt_contains_every_perturbed_one(seed: int, eps: float, error: float) -> None:
    """With an error of the operand that may be larger than the operand; the operand is never negative."""
    rng, wrong = np.random.default_rng(seed), Perturbed(seed)
    value = rng.uniform(0, 2, 16) * 10.0 ** rng.integers(-14, 2, 16)
    number = Bounded(value, error * value, ROUNDING)
    assert contains(number.rsqrt(eps), wrong.root(wrong.sample(number), eps))


@quick(max_examples=60)
@given(seeds, st.sampled_from([2, 3, 17, 64]), st.sampled_from([0.0, 1.0, 1000.0]), st.sampled_from([1e-5, 1.0]))
def test_bounded_formula_contains_folded_scale_and_shift(seed: int, count: int, offset: float, eps: float) -> None:
    """The hook: x·scale + shift rounds |mean|·scale, which x - mean does not show."""
    rng, wrong = np.random.default_rng(seed), Perturbed(seed)
    number, x = given_to(rng, count, offset)
    mean = number.mean(axis=(0,))
    d = number - mean
    root = mean_square(d, mean, (0,)).rsqrt(eps)
    computed, variance = wrong.running(x)
    scale = wrong.root(np.array(variance), eps)
    shift = wrong.rounded(-computed * scale)
    assert contains(folded(d, mean) * root, wrong.rounded(wrong.rounded(x * scale) + shift))
    assert contains(d * root, wrong.rounded(wrong.rounded(x - computed) * scale))


@pytest.mark.parametrize("units", [1.0, 16.0])
def test_larger_perturbations_are_not_contained(units: float) -> None:
    """The twin: an arithmetic with 16 times the roundoff is caught by every operation, one with the roundoff by none."""
    rng = np.random.default_rng(0)
    number, _ = given_to(rng, 64, 1.0)
    wrong = Perturbed(0, units * UNIT)
    x = number.value
    inside = [
        contains(number + number, wrong.rounded(x + x)),
        contains(number * number, wrong.rounded(x * x)),
        contains((number * number).sum(**rows), wrong.chain(wrong.rounded(x * x))),
        contains((number * number).rsqrt(1e-5), wrong.root(wrong.rounded(x * x), 1e-5)),
    ]
    assert inside == [units == 1.0] * 4


def test_hook_changes_no_value_and_leaves_other_numbers_alone() -> None:
    """folded charges for a form; it computes nothing."""
    x, mean = np.array([1.0, 3.0]), np.array([2.0])
    assert folded(x, mean) is x
    number = Bounded(x, np.zeros(2), ROUNDING)
    charged = folded(number, Bounded(mean, np.full(1, 0.5), ROUNDING))
    assert charged.value is x
    assert np.array_equal(charged.error, np.full(2, UNIT * 2.5 + ROUNDING.flush))
    dual = folded(Dual(number, number), Dual(Bounded(mean, np.zeros(1), ROUNDING), number))
    assert np.array_equal(dual.tangent.value, number.value)
    assert (dual.tangent.error >= number.error).all()
    assert (dual.primal.error > 0).all()


def test_flushed_subnormal_is_contained() -> None:
    """An input, a product and a variance below the smallest normal number may all be 0."""
    tiny = np.array([DTYPES["float32"].smallest_normal / 2, 2.0**-149, 0.0])
    number = Bounded.given(tiny, ROUNDING, flushable=True)
    assert np.array_equal(number.error, tiny)
    assert contains(number, 0.0)
    small = Bounded.given(np.full(3, 2.0**-70), ROUNDING, flushable=True)
    assert contains(small * small, 0.0)
    assert contains(mean_square(small, small.mean(axis=(0,)), (0,)), 0.0)


def test_subnormal_that_may_not_be_flushed_is_exact() -> None:
    """A float16 input is exact in float32 arithmetic."""
    number = Bounded.given(np.array([2.0**-130]), ROUNDING, flushable=False)
    assert not contains(number, 0.0)
    assert number.error == 0.0


def test_error_of_a_group_of_one_is_none() -> None:
    """Nothing is added to a single term, so its sum and its mean are itself."""
    number = Bounded.given(np.array([0.1]), ROUNDING, flushable=True)
    assert number.sum(**rows).error == 0
    assert number.mean(**rows).error == 0


def test_error_that_is_neither_an_array_nor_zero_is_refused() -> None:
    """Its sum over an axis would be counted once."""
    with pytest.raises(ValueError, match="must be an array"):
        Bounded(np.ones(3), 0.5, ROUNDING).sum((0,))


@pytest.mark.parametrize(("count", "length"), [(0, 0), (1, 0), (2, 1), (100, 99), (LONGEST_CHAIN, LONGEST_CHAIN - 1)])
def test_chain_is_as_long_as_the_sum_up_to_the_longest(count: int, length: int) -> None:
    """A rigorous bound needs the chain."""
    assert chain_length(count) == length


def test_chain_grows_with_the_root_of_longer_sums() -> None:
    """Blocked sums: λ√n, and never less than for a shorter sum."""
    lengths = [chain_length(count) for count in (LONGEST_CHAIN, LONGEST_CHAIN + 1, 10**5, 10**6, 4 * 10**6)]
    assert lengths == sorted(lengths)
    assert lengths[-1] == 2 * lengths[-2] == 16000
