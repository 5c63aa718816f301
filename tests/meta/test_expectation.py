"""Expected.ratios, by hand: what is inside, at and outside a bound, and what holds where no number can be asked for."""

from __future__ import annotations

import numpy as np
import pytest

from ln2d_ref import bounds, dtypes
from ln2d_ref.bounds import expect
from ln2d_ref.expectation import BOUNDED, FREE, NAN, NONFINITE, Expected

INF, NOT = float("inf"), float("nan")


def expected(value: float, bound: float, *, dtype: str = "float32", low: float = 0.0, rule: np.uint8 | None = None) -> Expected:
    """An expectation of one element."""
    rules = None if rule is None else np.array([rule])
    return Expected(np.array([value]), low, np.array([bound]), dtypes.DTYPES[dtype], rules)


def ratio(expectation: Expected, actual: float) -> float:
    """error/bound where that element came back as `actual`, in the result's dtype."""
    with np.errstate(over="ignore"):
        returned = np.array([actual]).astype(expectation.dtype.numpy)
    return float(expectation.ratios(returned)[0])


@pytest.mark.parametrize(
    ("actual", "share"),
    [(1.0, 0.0), (1.25, 0.5), (0.75, 0.5), (1.5, 1.0), (0.5, 1.0), (2.0, 2.0), (-1.0, 4.0)],
)
def test_the_ratio_is_error_over_bound(actual: float, share: float) -> None:
    """All these numbers are powers of two or sums of them, so that the division is exact."""
    assert ratio(expected(1.0, 0.5), actual) == share


def test_at_the_bound_is_right_and_one_bit_further_is_wrong() -> None:
    """The bound is the largest error of an honest implementation, so it is itself allowed."""
    assert ratio(expected(1.0, 0.5), 1.5) == 1.0
    assert ratio(expected(1.0, 0.5), float(np.nextafter(np.float32(1.5), np.float32(2)))) > 1.0


def test_a_bound_of_zero_asks_for_the_value_itself() -> None:
    """0/0 must not become NaN: an exact result has ratio 0, any other one infinity."""
    assert ratio(expected(1.0, 0.0), 1.0) == 0.0
    assert ratio(expected(1.0, 0.0), 1.0 + 2.0**-23) == INF
    assert ratio(expected(0.0, 0.0), -0.0) == 0.0


def test_the_low_part_of_the_value_counts() -> None:
    """A float64 result is judged against double-double: half a unit in the last place is resolved."""
    assert ratio(expected(1.0, 2.0**-53, dtype="float64", low=2.0**-54), 1.0) == 0.5
    assert ratio(expected(1.0, 2.0**-53, dtype="float64", low=-(2.0**-53)), 1.0 + 2.0**-52) == 3.0


@pytest.mark.parametrize("actual", [NOT, INF, -INF])
@pytest.mark.parametrize("bound", [0.0, 0.5, 1e30])
def test_a_nonfinite_result_is_wrong_where_a_number_is_expected(bound: float, actual: float) -> None:
    """NaN compares false with every bound, which must not let it through."""
    assert ratio(expected(1.0, bound), actual) == INF


@pytest.mark.parametrize("dtype", dtypes.DTYPES)
def test_a_signalling_nan_is_a_nan(dtype: str) -> None:
    """Memory that nobody wrote may hold one; converting it raises a floating-point flag, which must end in a verdict, not a warning."""
    row = dtypes.DTYPES[dtype]
    bits = np.array([np.inf], row.numpy).view(f"u{row.numpy.itemsize}") + np.uint8(1)
    signalling = bits.astype(f"u{row.numpy.itemsize}").view(row.numpy)
    assert expected(1.0, 0.5, dtype=dtype).ratios(signalling).tolist() == [INF]
    assert expected(1.0, 0.5, dtype=dtype, rule=NAN).ratios(signalling).tolist() == [0.0]


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (NAN, (NOT,), (0.0, 1.0, INF, -INF)),
        (NONFINITE, (NOT, INF, -INF), (0.0, 1.0, 65504.0)),
        (FREE, (NOT, INF, -INF, 0.0, 1.0, -65504.0), ()),
        (BOUNDED, (1.0, 1.5), (NOT, INF, -INF, 2.0)),
    ],
    ids=["NAN", "NONFINITE", "FREE", "BOUNDED"],
)
def test_rules_say_which_class_is_right(rule: np.uint8, right: tuple[float, ...], wrong: tuple[float, ...]) -> None:
    """Where special values decide, the class of the result is all that mathematics fixes."""
    expectation = expected(1.0, 0.5, dtype="float16", rule=rule)
    assert all(ratio(expectation, actual) <= 1.0 for actual in right)
    assert all(ratio(expectation, actual) > 1.0 for actual in wrong)


def test_a_rule_holds_for_its_own_element_only() -> None:
    """One NaN pixel must not excuse its neighbours."""
    rules = np.array([NAN, BOUNDED, FREE, NONFINITE])
    expectation = Expected(np.ones(4), 0.0, np.full(4, 0.5), dtypes.DTYPES["float32"], rules)
    assert expectation.ratios(np.full(4, NOT, np.float32)).tolist() == [0.0, INF, 0.0, 0.0]
    assert expectation.ratios(np.ones(4, np.float32)).tolist() == [INF, 0.0, 0.0, INF]


def test_near_the_overflow_threshold_infinity_and_the_largest_numbers_are_right() -> None:
    """Round-to-nearest takes float16 from 65520 on to infinity, and an honest result may lie on either side of it."""
    expectation = expected(65519.9, 16.0, dtype="float16")
    assert ratio(expectation, INF) <= 1.0
    assert ratio(expectation, 65504.0) <= 1.0
    assert ratio(expectation, -INF) == INF
    assert ratio(expectation, NOT) == INF
    assert ratio(expectation, 65472.0) > 1.0
    assert ratio(expected(-65519.9, 16.0, dtype="float16"), -INF) <= 1.0
    assert ratio(expected(-65519.9, 16.0, dtype="float16"), INF) == INF


@pytest.mark.parametrize(("bound", "right"), [(16.0, True), (15.99, False)])
def test_infinity_is_right_from_the_threshold_on(bound: float, right: bool) -> None:
    """65504 + 16 is the threshold itself, which round-half-even takes to infinity; just below it no honest result overflows."""
    assert dtypes.DTYPES["float16"].overflow_threshold == 65520.0
    assert (ratio(expected(65504.0, bound, dtype="float16"), INF) <= 1.0) is right


@pytest.mark.parametrize("dtype", dtypes.DTYPES)
def test_far_beyond_the_threshold_only_infinity_is_right(dtype: str) -> None:
    """No finite number of the dtype is within the bound; float64 has no value beyond its own largest."""
    row = dtypes.DTYPES[dtype]
    beyond = expected(min(2.0 * row.largest, float(np.finfo(np.float64).max)), row.largest * 2.0**-60, dtype=dtype)
    assert ratio(beyond, INF) == 0.0
    assert ratio(beyond, -INF) == INF
    assert ratio(beyond, row.largest / 2) > 1.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_infinite_bias_asks_for_that_infinity(sign: float) -> None:
    """finite + infinity is that infinity, of that sign."""
    expectation = expected(sign * INF, 0.5)
    assert ratio(expectation, sign * INF) == 0.0
    assert all(ratio(expectation, wrong) > 1.0 for wrong in (-sign * INF, NOT, 1.0, sign * 3e38))


def test_an_infinite_bound_lets_every_number_pass() -> None:
    """A group that its own condition number leaves undecided accuses nobody."""
    assert ratio(expected(1.0, INF), 1e30) == 0.0
    assert ratio(expected(1.0, INF), -65504.0) == 0.0


def test_ratios_keep_the_shape_and_leave_the_arguments_alone() -> None:
    """The index of the worst ratio is the index of the worst element, and an outcome is judged more than once."""
    value, bound = np.arange(6.0).reshape(1, 2, 3, 1), np.full((1, 2, 3, 1), 0.5)
    expectation = Expected(value, 0.0, bound, dtypes.DTYPES["float32"])
    actual = value.astype(np.float32)
    actual[0, 1, 2, 0] += 1.0
    before = [array.copy() for array in (value, bound, actual)]
    ratios = expectation.ratios(actual)
    assert ratios.shape == value.shape
    assert np.unravel_index(int(ratios.argmax()), ratios.shape) == (0, 1, 2, 0)
    assert all(np.array_equal(a, b) for a, b in zip((value, bound, actual), before, strict=True))


def test_nothing_gives_no_ratio() -> None:
    """An empty result has no element that could be wrong."""
    empty = np.zeros((0, 2, 1, 1))
    assert Expected(empty, 0.0, empty, dtypes.DTYPES["float16"]).ratios(empty.astype(np.float16)).shape == (0, 2, 1, 1)


def test_undecided_counts_the_elements_for_which_anything_passes() -> None:
    """Free elements, and those with an infinite bound that no rule decides: a NaN that must be NaN is decided."""
    bound = np.array([INF, 1.0, INF, 1.0, INF, INF])
    rules = np.array([BOUNDED, BOUNDED, FREE, FREE, NAN, NONFINITE])
    row = dtypes.DTYPES["float32"]
    assert Expected(np.ones(6), 0.0, bound, row, rules).undecided == 3
    assert Expected(np.ones(6), 0.0, bound, row).undecided == 4
    assert Expected(np.ones(6), 0.0, np.ones(6), row).undecided == 0


def test_a_group_whose_variance_rounding_may_erase_is_undecided_without_eps() -> None:
    """With eps = 0 an honest Welford may find variance 0 here and divide by it; with eps = 1e-6 the same group is decided."""
    x = np.array([40000.00390625, 40000.0078125], np.float32).reshape(1, 2, 1, 1)
    undecided = expect(x, eps=0.0)["y"]
    assert undecided.undecided == 2
    assert all(undecided.ratios(np.full(x.shape, actual, np.float32)).max() <= 1.0 for actual in (NOT, INF, -INF, 7.0))
    assert expect(x, eps=1e-6)["y"].undecided == 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("shape", "block"), [((5, 7, 3, 4), 100), ((2, 3, 5, 5), 12), ((3, 200, 1, 2), 400), ((1, 2, 1, 31), 7), ((2, 2, 1, 900), 800)]
)
def test_a_large_input_gives_the_same_in_blocks(shape, block, dtype, monkeypatch):
    """Blocks of two pixels or more, and of samples: y and dx bit for bit; the sums in another order of float64."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    whole = bounds.expect(x, weight, bias, dy)
    monkeypatch.setattr(bounds, "_NARROWEST", 1)
    monkeypatch.setattr(bounds, "_BLOCK", block)
    blocks = bounds.expect(x, weight, bias, dy)
    assert list(blocks) == list(whole)
    for name in ("y", "dx"):
        assert np.array_equal(blocks[name].value, whole[name].value)
        assert np.array_equal(blocks[name].bound, whole[name].bound)
    for name in ("dweight", "dbias"):
        assert np.max(np.abs(blocks[name].value - whole[name].value) / whole[name].bound) < 1e-6
        assert np.max(np.abs(blocks[name].bound / whole[name].bound - 1.0)) < 2.0**-20, "what bounds in float64 are good to"
    assert all(blocks[name].dtype is whole[name].dtype and blocks[name].rule is None for name in whole)


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 2, 4, 4)], ids=["first block", "last block"])
@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("semantics", ["channel", "sample"])
def test_dbias_is_undecided_where_the_sum_over_all_of_dy_could_overflow(semantics, blocks, place, monkeypatch):
    """M·max|dy| just within largest/2⁴, and just beyond it, M being all elements, in whichever block the largest lies."""
    shape = (2, 3, 5, 5)
    x, dy = np.random.default_rng(0).standard_normal(shape).astype(np.float32), np.zeros(shape, np.float32)
    if blocks:
        monkeypatch.setattr(bounds, "_NARROWEST", 1)
        monkeypatch.setattr(bounds, "_BLOCK", 12)
    limit = float(np.finfo(np.float32).max) / 16 / dy.size
    for factor, undecided in ((0.999, 0), (1.001, 3)):
        dy[place] = limit * factor
        assert bounds.expect(x, None, np.ones(3, np.float32), dy, semantics=semantics)["dbias"].undecided == undecided
