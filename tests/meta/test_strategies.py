"""The strategies are valid (they draw what they document), they reach (what must be drawn is drawn), and they shrink to what they say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import product
from random import Random
from typing import Any, TypeVar

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ln2d_ref import Case, reference
from ln2d_ref.bounds import expect
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.implementations.implementation import AFFINE_COMBINATIONS
from ln2d_ref.layout import Layout, place
from ln2d_ref.semantics import SEMANTICS, group_axes, group_size, on_axes
from strategies import FINITE_REGIMES, REGIMES, SHAPE_KINDS, cases, epsilons, layouts, shapes
from strategies.draws import Draws
from strategies.draws import drawn as made
from strategies.parameters import BIASES, GRADIENTS, WEIGHTS, cancelling_bias
from strategies.values import Setting, fill, rounded

T = TypeVar("T")

UNDECIDED_Y, UNDECIDED_GRADIENTS = 0.01, 0.08
"""Largest share of finite cases in which a quantity has an undecided element: 0 and 0.032 (float64, all of them huge) were measured."""

_FEW = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
quick = partial(settings, derandomize=True, **_FEW)


def drawn(strategy: st.SearchStrategy[T], count: int, seed: int = 0) -> list[T]:
    """What a search of this many examples sees."""
    values: list[T] = []

    @hypothesis.seed(seed)
    @settings(max_examples=count, phases=[Phase.generate], **_FEW)
    @given(strategy)
    def collect(value: T) -> None:
        values.append(value)

    collect()
    return values


def smallest(strategy: st.SearchStrategy[T], condition: Callable[[T], bool] = lambda _: True) -> T:
    """What a strategy shrinks to, from the first example that meets the condition."""
    return find(strategy, condition, settings=settings(max_examples=2000, **_FEW), random=Random(0))


@cache
def pool(dtype: str) -> tuple[Case, ...]:
    """Cases of one dtype by default arguments."""
    return tuple(drawn(cases(dtypes=dtype), 400))


def drawn_by_many(strategy: st.SearchStrategy[T], searches: int = 24, each: int = 60) -> tuple[T, ...]:
    """What many short searches see: Hypothesis varies what it has drawn, so that one long search repeats itself more."""
    return tuple(value for seed in range(searches) for value in drawn(strategy, each, seed))


_CHEAP = {"shape_kinds": "single", "semantics": "sample", "regimes": "normal", "dtypes": "float32", "eps": 1e-5}
"""Arguments for what does not depend on shapes and values."""


@cache
def affine_pool() -> tuple[Case, ...]:
    """Contiguous cases."""
    return drawn_by_many(cases(**_CHEAP, allow_strided=False))


@cache
def strided_pool() -> tuple[Case, ...]:
    """Strided ones with both parameters."""
    return drawn_by_many(cases(**_CHEAP, affine="both", allow_contiguous=False))


@cache
def small_pool() -> tuple[Case, ...]:
    """Small finite cases of one dtype, all else by default."""
    return tuple(drawn(cases(shape_kinds="small", regimes=FINITE_REGIMES, dtypes="float32"), 400))


def every_pool() -> tuple[Case, ...]:
    return tuple(case for dtype in DTYPES for case in pool(dtype))


def layout_class(layout: Layout) -> str:
    """The one way in which a layout is strided, or "mixed"."""
    ways = {
        "sliced": layout.offset > 0,
        "stepped": any(step > 1 for step in layout.steps),
        "expanded": bool(layout.expanded),
        "channels_last": layout.order == (0, 2, 3, 1),
        "transposed": layout.order == (0, 1, 3, 2),
        "permuted": layout.order not in ((), (0, 1, 2, 3), (0, 2, 3, 1), (0, 1, 3, 2)),
    }
    names = [name for name, is_so in ways.items() if is_so]
    return "contiguous" if not names else names[0] if len(names) == 1 else "mixed"


LAYOUT_CLASSES = ("contiguous", "channels_last", "sliced", "transposed", "stepped", "expanded")


# Validity: shapes ---------------------------------------------------------------------------------------------------------------


def is_near_power_of_two(size: int) -> bool:
    return any((size + off) & (size + off - 1) == 0 and size + off > 1 for off in (-1, 0, 1))


def fits_kind(kind: str, shape: tuple[int, ...], semantics: str) -> bool:
    """Whether a shape is of the kind, as SHAPE_KINDS documents it."""
    n, c, h, w = shape
    size = group_size(shape, semantics)
    groups = math.prod(shape) // size if size else 0
    match kind:
        case "small":
            return all(1 <= side <= 4 for side in shape)
        case "medium":
            return 1 <= c <= 64 and all(1 <= side <= 20 for side in (n, h, w))
        case "tile":
            return is_near_power_of_two(size) and (
                3 <= size <= 8193 or (semantics == "sample" and groups == 1 and abs(size - (1 << 17)) <= 1)
            )
        case "rows":
            return 2 <= size <= 6 and 1 <= groups <= 65_537
        case "single":
            return size == 1 and groups >= 1
        case _:
            return c >= 1 and 0 in (n, h, w)


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("kind", SHAPE_KINDS)
def test_shapes_are_of_the_kind_that_was_asked_for(kind: str, semantics: str) -> None:
    """SHAPE_KINDS says what each name means; a law that asks for a kind relies on it."""
    wrong = {shape for shape in drawn(shapes(semantics, kinds=kind), 300) if not fits_kind(kind, shape, semantics)}
    assert wrong == set()


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("max_elements", [64, 1 << 10, 1 << 13, 1 << 15])
def test_shapes_keep_to_their_size(max_elements: int, semantics: str) -> None:
    """At most max_elements, but for a rare one of `rows`, with 65,537 groups of 2 or 3, or of `tile`, with one of 131,073."""
    rare = {"rows": 3 * 65_537, "tile": (1 << 17) + 1 if semantics == "sample" else 0}
    for kind in SHAPE_KINDS:
        limit = max(max_elements, rare.get(kind, 0) if max_elements >= 2048 else 0)
        beyond = {shape for shape in drawn(shapes(semantics, kinds=kind, max_elements=max_elements), 150) if math.prod(shape) > limit}
        assert beyond == set(), kind


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_shapes_beyond_the_kinds_are_seen(semantics: str) -> None:
    """Twin of the two above: every kind refuses the shapes of another."""
    others = {"small": (2, 9, 2, 2), "medium": (1, 65, 1, 1), "tile": (1, 11, 1, 1), "rows": (1, 7, 1, 1), "empty": (1, 2, 1, 1)}
    assert not any(fits_kind(kind, shape, semantics) for kind, shape in others.items())
    assert not fits_kind("single", (1, 2, 1, 1), semantics)


# Validity: eps, layouts, draws --------------------------------------------------------------------------------------------------


@quick(max_examples=200)
@given(st.data(), st.floats(1e-12, 1.0), st.floats(1e-12, 1.0))
def test_epsilons_lie_between_their_bounds(data: st.DataObject, one: float, other: float) -> None:
    """The ends belong to it, and equal ends leave one value."""
    low, high = sorted((one, other))
    eps = data.draw(epsilons(min_value=low, max_value=high))
    assert isinstance(eps, float)
    assert low <= eps <= high


def test_epsilons_are_the_common_ones_and_all_magnitudes() -> None:
    """Half of them by name, for implementations that special-case one; half log-uniform, for those that round it."""
    values = Counter(drawn(epsilons(), 500))
    assert {1e-5, 1e-6, 1e-3, 1e-12, 1.0} <= values.keys()
    assert {math.floor(math.log10(eps)) for eps in values} >= set(range(-12, 0))


@pytest.mark.parametrize("ndim", [1, 3, 4])
def test_layouts_fit_an_array_of_that_many_axes(ndim: int) -> None:
    """place() accepts each of them for a constant array, and no two elements of a dense axis share a place."""
    for layout in drawn(layouts(ndim), 200):
        storage = place(np.ones((2, 3, 4, 5)[:ndim], np.float32), layout)
        distinct = math.prod(size for axis, size in enumerate(storage.shape) if axis not in layout.expanded)
        assert np.count_nonzero(~storage.gaps()) == distinct


@pytest.mark.parametrize("ndim", [1, 3, 4])
def test_layouts_obey_their_switches(ndim: int) -> None:
    """`layout` judges strided cases only; an array that is not constant cannot be expanded."""
    assert not any(layout.contiguous for layout in drawn(layouts(ndim, allow_contiguous=False), 200))
    assert not any(layout.expanded for layout in drawn(layouts(ndim, allow_expanded=False), 200))
    freely = drawn(layouts(ndim), 200)
    assert any(layout.contiguous for layout in freely)
    assert any(layout.expanded for layout in freely)


def shares(pick: Callable[[Draws], T]) -> Counter[T]:
    """How often each value comes, in 20 strings of 100 picks: one value alone would be drawn once, since Hypothesis repeats no example."""
    return Counter(value for values in drawn(made(500, lambda draws: [pick(draws) for _ in range(100)]), 20) for value in values)


def test_picks_reach_both_ends_evenly() -> None:
    """Hypothesis's own integers prefer small ones and constants; among these letters it prefers nothing."""
    values = shares(lambda draws: draws.integer(-3, 6))
    assert set(values) == set(range(-3, 7))
    del values[-3]  # the simplest is what Hypothesis tries first, and falls back to
    assert max(values.values()) <= 3 * min(values.values())
    wide = sorted(shares(lambda draws: draws.integer(0, (1 << 32) - 1)).elements())
    assert wide[0] < 1 << 28 < 15 << 28 < wide[-1]
    assert 1 << 30 < wide[len(wide) // 2] < 3 << 30
    assert set(shares(lambda draws: draws.integer(5, 5))) == {5}


@pytest.mark.parametrize("count", [1, 2, 17, 64, 65, 256, 257, 1001])
def test_every_value_has_its_digits_and_none_has_twice_its_share(count: int) -> None:
    """Over all digits there are, so that what a pick never gives cannot be a matter of chance; the seed's four digits are 32 bits."""
    length = 1 if count <= 64 or count == 256 else 2
    letters = [chr(0xF0000 + digit) for digit in range(256)]
    values = Counter(Draws("".join(each)).integer(0, count - 1) for each in product(letters, repeat=length))
    assert set(values) == set(range(count))
    assert max(values.values()) <= 1.25 * min(values.values())


def test_choices_and_weights_hold() -> None:
    """Each option as often as its weight says, within the noise of 2000 picks."""
    assert set(shares(lambda draws: draws.choice("abc"))) == {"a", "b", "c"}
    values = shares(lambda draws: draws.weighted(((8, "often"), (2, "seldom"))))
    assert 6 * values["seldom"] > values["often"] > 2 * values["seldom"]
    happened = shares(lambda draws: draws.chance(4))
    assert 5 * happened[True] > happened[False] > 2 * happened[True]


def test_a_part_keeps_its_place_whatever_is_picked_from_it() -> None:
    """So that shrinking one part moves no other; digits that were never drawn are an error, and no 0."""
    draws = drawn(made(6, lambda draws: draws), 3)[-1]
    start = draws.part(4)
    after = draws.integer(0, 255)
    again = Draws(draws._letters)
    assert again.part(4).integer(0, 255) == start.integer(0, 255)
    assert again.integer(0, 255) == after
    with pytest.raises(IndexError, match="only 6 digits"):
        again.integer(0, 1000)
    with pytest.raises(IndexError, match="only 6 digits"):
        again.part(1)


# Validity: cases ----------------------------------------------------------------------------------------------------------------


def faults(case: Case) -> list[str]:
    """What is wrong with a case that default arguments drew."""
    found = []
    if case.semantics not in SEMANTICS or case.dtype not in DTYPES or case.device != "cpu" or case.threads not in (1, 2):
        found.append("an unknown setting")
    if not 1e-12 <= case.eps <= 1.0:
        found.append("eps out of bounds")
    if case.regime not in (*REGIMES, "small"):
        found.append("an unknown regime")
    if not case.finite and case.regime != "nonfinite":
        found.append("not finite")
    if any(name not in case.arrays for name in (*case.requires_grad, *case.layouts)):
        found.append("an absent argument is named")
    for name, layout in case.layouts.items():
        try:
            place(case.arrays[name], layout)
        except ValueError as error:
            found.append(f"{name}: {error}")
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_cases_are_what_they_are_documented_to_be(dtype: str) -> None:
    """Known settings, eps within bounds, finite but for one regime, layouts that the arrays can have."""
    assert {fault for case in pool(dtype) for fault in faults(case)} == set()
    assert {case.dtype for case in pool(dtype)} == {dtype}


def test_expanded_arguments_are_constant() -> None:
    """Stride 0 holds one value; the twin is an array that varies, which place() refuses."""
    assert sum(bool(layout.expanded) for case in strided_pool() for layout in case.layouts.values()) >= 50
    assert {fault for case in (*strided_pool(), *small_pool()) for fault in faults(case)} == set()
    varying = Case(np.arange(2.0).reshape(1, 2, 1, 1), layouts={"x": Layout(expanded=(1,))}, regime="normal")
    assert "not constant" in faults(varying)[0]


def test_a_wrong_case_is_seen() -> None:
    """Twin of the two above: each of those faults is found where it is planted."""
    x = np.ones((1, 2, 1, 1), np.float32)
    nonfinite = Case(x * np.inf, regime="normal")
    absent = Case(x, layouts={"weight": Layout(offset=1)}, regime="normal")
    assert faults(Case(x, regime="normal")) == []
    assert faults(Case(x, regime="odd")) == ["an unknown regime"]
    assert faults(Case(x, eps=2.0, regime="normal")) == ["eps out of bounds"]
    assert faults(Case(x, threads=3, regime="normal")) == ["an unknown setting"]
    assert faults(nonfinite) == ["not finite"]
    with pytest.raises(KeyError):
        faults(absent)


@pytest.mark.parametrize(
    ("arguments", "holds"),
    [
        ({"semantics": "sample"}, lambda case: case.semantics == "sample"),
        ({"dtypes": ("float16", "float64")}, lambda case: case.dtype in ("float16", "float64")),
        ({"affine": "weight"}, lambda case: case.weight is not None and case.bias is None),
        ({"affine": ("none", "bias")}, lambda case: case.weight is None),
        (
            {"affine_shape": "element"},
            lambda case: case.weight is None or case.weight.ndim == (1 if case.semantics == "channel" else 3),
        ),
        ({"eps": 1e-3}, lambda case: case.eps == 1e-3),
        ({"devices": "cuda"}, lambda case: case.device == "cuda"),
        ({"shape_kinds": "single"}, lambda case: case.group_size == 1),
        ({"shape_kinds": "empty"}, lambda case: case.x.size == 0),
        ({"regimes": FINITE_REGIMES}, lambda case: case.finite),
        ({"regimes": "offset"}, lambda case: case.regime in ("offset", "small")),
        ({"allow_strided": False}, lambda case: case.contiguous),
        ({"allow_contiguous": False}, lambda case: not case.contiguous),
        ({"max_elements": 64, "shape_kinds": ("small", "medium", "tile")}, lambda case: case.x.size <= 256),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "-",
)
def test_cases_obey_their_arguments(arguments: dict[str, Any], holds: Callable[[Case], bool]) -> None:
    """A declared contract is drawn within; the twin is that default arguments also draw outside it."""
    narrow = {"max_elements": 256, "dtypes": "float32", "shape_kinds": ("small", "medium", "single", "empty")}
    assert all(map(holds, drawn(cases(**{**narrow, **arguments}), 120)))
    if "devices" not in arguments and "max_elements" not in arguments and "affine_shape" not in arguments:
        assert not all(map(holds, pool("bfloat16")))


def test_without_eps_no_group_is_constant() -> None:
    """0/0 is no question to ask; such a case gets another eps, and the others keep 0."""
    found = drawn(cases(eps=0.0, max_elements=256, shape_kinds=("small", "medium", "single", "empty")), 250)
    for case in found:
        if case.eps == 0.0 and case.finite:
            x = case.x.astype(np.float64)
            assert x.size
            assert (np.ptp(x, axis=group_axes(case.semantics)) > 0).all()
    assert {case.eps for case in found} == {0.0, 1e-5}


def test_without_eps_infinite_values_are_drawn_too() -> None:
    """A group of one infinity has no spread, inf - inf, and asking for it must not warn."""
    found = drawn(cases(eps=0.0, regimes="nonfinite", shape_kinds="single", dtypes="float32"), 60)
    assert any(np.isinf(case.x).any() for case in found)


def test_without_eps_a_bias_is_finite() -> None:
    """One that cancels y is computed with the eps that the case has, which is not 0 where a group is constant."""
    found = drawn(cases(eps=0.0, regimes=("constant", "two_valued"), affine="both", max_elements=64), 300)
    assert all(np.isfinite(case.bias.astype(np.float64)).all() for case in found)


def undecided(found: Sequence[Case]) -> Counter[str]:
    """In how many of the finite cases some element of a quantity is undecided, and under "cases" how many there are."""
    count: Counter[str] = Counter()
    for case in found:
        if case.finite and case.x.size:
            expected = expect(case.x, case.weight, case.bias, case.dy, eps=case.eps, semantics=case.semantics)
            count["cases"] += 1
            count.update(quantity for quantity, each in expected.items() if each.undecided)
    return count


@pytest.mark.parametrize("dtype", DTYPES)
def test_finite_cases_are_in_contract(dtype: str) -> None:
    """A case that leaves its result undecided judges nothing: y is decided in all of them, gradients in all but a few huge ones."""
    count = undecided(pool(dtype))
    assert count["cases"] >= 300
    assert count["y"] <= UNDECIDED_Y * count["cases"]
    assert max(count[quantity] for quantity in ("dx", "dweight", "dbias")) <= UNDECIDED_GRADIENTS * count["cases"]


def test_cases_out_of_contract_are_seen() -> None:
    """Twin of the one above: nearly equal values without eps, and values whose square overflows."""
    close = np.array([40000.00390625, 40000.0078125], np.float32).reshape(1, 2, 1, 1)
    huge = np.array([3e38, -3e38], np.float32).reshape(1, 2, 1, 1)
    assert undecided([Case(close, eps=0.0), Case(huge), Case(close)])["y"] == 2


# Validity: values ---------------------------------------------------------------------------------------------------------------


def filled(regime: str, setting: Setting, seed: int = 1) -> np.ndarray:
    return fill(regime, np.random.Generator(np.random.SFC64(seed)), setting)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fill_has_its_shape_and_dtype_and_is_finite(dtype: str, regime: str) -> None:
    """Whatever the strength and the shape, empty ones among them; only `nonfinite` holds a NaN or infinity, and always one."""
    shapes_ = [(2, 3, 4, 5), (1, 1, 1, 1), (0, 3, 1, 1), (2, 3, 0, 4), (1, 1, 1, 1025), (3, 1025, 1, 1)]
    for shape, semantics, strength, eps in product(shapes_, SEMANTICS, (0.0, 0.5, 1.0), (1e-12, 1.0)):
        x = filled(regime, Setting(shape, DTYPES[dtype], semantics, eps, strength))
        assert (x.shape, x.dtype) == (shape, DTYPES[dtype].numpy)
        assert np.isfinite(x).all() == (regime != "nonfinite" or x.size == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_regimes_are_what_they_are_named_for(semantics: str, dtype: str) -> None:
    """Each name says what is numerically hard about it."""
    row, axes = DTYPES[dtype], group_axes(semantics)

    def of(regime: str, strength: float = 0.5, eps: float = 1e-2) -> np.ndarray:
        return filled(regime, Setting((4, 16, 4, 4), row, semantics, eps, strength)).astype(np.float64)

    def spread(x: np.ndarray) -> np.ndarray:
        return x.std(axis=axes)

    offset = of("offset")
    assert (np.abs(offset.mean(axis=axes)) > 100 * spread(offset)).all()
    near = of("near_constant", 0.0)
    assert (spread(near) ** 2 < 100 * 1e-2).all()
    assert (spread(near) ** 2 > 1e-2 / 100).all()
    assert (np.ptp(of("constant"), axis=axes) == 0).all()
    assert np.unique(of("constant")).size > 1
    assert np.unique(of("two_valued", 0.0)).size == 2
    outlier = np.sort(np.abs(np.moveaxis(of("outlier", 1.0), axes, range(len(axes))).reshape(group_size((4, 16, 4, 4), semantics), -1)), 0)
    assert (outlier[-1] > 100 * outlier[-2]).all()
    scales = spread(of("mixed_scale"))
    assert scales.max() > 100 * scales.min()
    assert (np.diff(of("ramp", 0.0).reshape(-1)) >= 0).all()
    one_hot = of("one_hot")
    assert (one_hot.sum(axis=axes) == 1).all()
    assert set(np.unique(one_hot)) == {0.0, 1.0}
    assert (np.abs(of("tiny")) < 0.2 * np.sqrt(1e-2)).all()
    assert (np.abs(of("subnormal")) < row.smallest_normal).all()
    assert (of("subnormal") != 0).any()
    huge = np.abs(of("huge", 1.0)).max()
    assert Setting((4, 16, 4, 4), row, semantics, 1e-2, 1.0).ceiling / 64 < huge <= Setting((4, 16, 4, 4), row, semantics, 1.0, 1.0).ceiling
    integers_ = of("integers")
    assert (integers_ == np.rint(integers_)).all()
    tails = np.abs(of("heavy_tailed", 0.0))
    assert tails.max() > 8 * np.median(tails)
    assert 0.5 < spread(of("normal")).mean() < 1.5


def test_rounded_keeps_finite_values_finite_and_special_ones_special() -> None:
    """Rounding to infinity would turn a value regime into a special one."""
    values = np.array([1e300, -1e300, 65519.9, 65520.0, np.inf, -np.inf, np.nan, 0.0])
    half = rounded(values, DTYPES["float16"])
    assert half[:4].tolist() == [65504.0, -65504.0, 65504.0, 65504.0]
    assert half[4:6].tolist() == [np.inf, -np.inf]
    assert np.isnan(half[6])


@pytest.mark.parametrize(("kind", "regimes"), [("weight", WEIGHTS), ("bias", BIASES), ("dy", GRADIENTS)])
@pytest.mark.parametrize("shape", [(3,), (3, 2, 4), (2, 3, 2, 4), (0, 3, 2, 4)])
def test_parameters_have_their_shape_and_are_finite(kind: str, regimes: Any, shape: tuple[int, ...]) -> None:
    """Only `nonfinite` holds a NaN or infinity, and one only."""
    for name, values in regimes.items():
        if name == "last_pixel" and len(shape) < 4:
            continue  # of dy alone
        array = values(np.random.Generator(np.random.SFC64(2)), shape)
        assert array.shape == shape, (kind, name)
        assert np.count_nonzero(~np.isfinite(array)) == (name == "nonfinite" and array.size > 0), (kind, name)


@pytest.mark.parametrize(("semantics", "parameter"), [("channel", (16,)), ("sample", (16,)), ("sample", (16, 1, 2))])
def test_a_cancelling_bias_leaves_nothing_of_the_first_pixel(semantics: str, parameter: tuple[int, ...]) -> None:
    """bias = -weight·x̂ there, so that y = 0 but for rounding; elsewhere it is as large as ever."""
    rng = np.random.Generator(np.random.SFC64(3))
    x, weight = rng.standard_normal((2, 16, 1, 2)), rng.standard_normal(parameter)
    y = reference.forward(x, weight, cancelling_bias(x, weight, 1e-5, semantics, parameter), semantics=semantics)
    first = y[0] if len(parameter) == 3 else y[0, :, 0, 0]
    assert np.abs(first).max() < 2.0**-40
    assert np.abs(y[1]).max() > 0.1


# Reach --------------------------------------------------------------------------------------------------------------------------


def test_offset_values_meet_strided_x() -> None:
    """A kernel may be right on each and wrong on both."""
    assert any(case.regime == "offset" and "x" in case.layouts for case in every_pool())


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_past_65535_meet_a_bias(dtype: str) -> None:
    """A CUDA grid's y dimension ends there, in every dtype; the dtype with double-double costs must not be left out."""
    found = drawn_by_many(cases(dtypes=dtype, shape_kinds="rows", allow_strided=False, regimes=("normal", "offset")), 6, 40)
    assert any(case.x.size // case.group_size > 65_535 and case.bias is not None for case in found)


def test_of_many_rows_the_last_alone_has_a_dy() -> None:
    """A sum over 65,537 rows that loses the last ones moves by less than rounding may, unless dy lies there."""
    found = drawn_by_many(cases(dtypes="float32", shape_kinds="rows", regimes="normal", allow_strided=False), 6, 40)
    many = [case for case in found if case.x.size // case.group_size > 65_535]
    last = [case for case in many if not case.dy.reshape(case.dy.shape[0], case.dy.shape[1], -1)[..., :-1].any() or not case.dy[:-1].any()]
    assert len(many) > len(last) >= len(many) / 4


@pytest.mark.parametrize("pairing", list(product(LAYOUT_CLASSES, LAYOUT_CLASSES)), ids=" x, dy ".join)
def test_each_layout_of_x_meets_each_layout_of_dy(pairing: tuple[str, str]) -> None:
    """A backward reads both, each through its own strides."""
    found = affine_pool() if pairing == ("contiguous", "contiguous") else strided_pool()
    assert pairing in {(layout_class(case.laid_out("x")), layout_class(case.laid_out("dy"))) for case in found}


@pytest.mark.parametrize("parameter", ["weight", "bias"])
@pytest.mark.parametrize("layout", ["sliced", "stepped", "expanded"])
def test_parameters_are_strided_too(parameter: str, layout: str) -> None:
    """A slice of a larger parameter is an everyday weight."""
    assert layout in {layout_class(case.laid_out(parameter)) for case in strided_pool() if parameter in case.layouts}


_GIVEN = {"both": ("weight", "bias"), "weight": ("weight",), "bias": ("bias",), "none": ()}
_SUBSETS = [
    (affine, subset)
    for affine, given_ in _GIVEN.items()
    for subset in [
        tuple(name for name, is_in in zip(("x", *given_), mask, strict=True) if is_in)
        for mask in product((True, False), repeat=1 + len(given_))
    ]
    if subset != ("x", "bias") or affine == "bias"
]
"""Each combination of parameters with each set of arguments to differentiate; x and bias without a given weight says nothing new."""


def affine_of(case: Case) -> str:
    return next(name for name, given_ in _GIVEN.items() if set(given_) == case.arrays.keys() - {"x", "dy"})


@pytest.mark.parametrize(("affine", "subset"), _SUBSETS, ids=lambda value: value if isinstance(value, str) else "+".join(value) or "-")
def test_each_combination_of_parameters_meets_each_set_of_gradients(affine: str, subset: tuple[str, ...]) -> None:
    """A backward has a branch for each, and the commonest mistake is in the one that nobody takes."""
    assert set(_GIVEN) == set(AFFINE_COMBINATIONS)
    assert (affine, subset) in {(affine_of(case), case.requires_grad) for case in affine_pool()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_dtype_meets_every_regime(dtype: str) -> None:
    """Constant groups among them: rounding the mean is a different mistake in each dtype."""
    assert {case.regime for case in pool(dtype)} >= set(REGIMES) | {"small"}


def test_degenerate_shapes_are_among_all_others() -> None:
    """A kernel that divides by a size of 0, or by n - 1, is found without asking for `degenerate`."""
    assert any(case.x.size == 0 for case in every_pool())
    assert {case.semantics for case in every_pool() if case.x.size and case.group_size == 1} == set(SEMANTICS)


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_every_degenerate_shape_is_drawn(semantics: str) -> None:
    """N = 0, H = 0, W = 0, several one-element groups, and one value in all."""
    found = [case.x.shape for case in _degenerate_pool() if case.semantics == semantics]
    assert {axis for shape in found for axis in range(4) if shape[axis] == 0} == {0, 2, 3}
    assert any(group_size(shape, semantics) == 1 and math.prod(shape) > 1 for shape in found)
    assert (1, 1, 1, 1) in found


@cache
def _degenerate_pool() -> tuple[Case, ...]:
    return tuple(drawn(cases(shape_kinds=("single", "empty"), dtypes="float32"), 400))


@pytest.mark.parametrize("power", [64, 1024, 4096])
@pytest.mark.parametrize("off", [-1, 0, 1])
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_channels_lie_around_every_tile_size(semantics: str, off: int, power: int) -> None:
    """A kernel masks the last tile of a row: one less, one more and none are three different masks."""
    assert power + off in _tile_channels(semantics)


def test_a_group_is_longer_than_any_block() -> None:
    """A kernel merges the statistics of several blocks there, and a chain over one is longer than 4096; `channel` has no such C."""
    far = [shape for shape in drawn(shapes("sample", kinds="tile"), 300) if math.prod(shape) > 8200]
    assert {math.prod(shape) - (1 << 17) for shape in far} == {-1, 0, 1}
    assert {shape[0] for shape in far} == {1}
    assert max(math.prod(shape) for shape in drawn(shapes("channel", kinds="tile"), 300)) <= 8200


@cache
def _tile_channels(semantics: str) -> frozenset[int]:
    return frozenset(shape[1] for shape in drawn(shapes(semantics, kinds="tile"), 3000))


def test_one_and_two_threads_are_drawn() -> None:
    """A backward that forks sums in another order, and may race."""
    assert {case.threads for case in every_pool()} == {1, 2}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bias_cancels_nearly_all_of_y(dtype: str) -> None:
    """Where |y| is far below |bias|, rounding into the result's dtype hides nothing of the arithmetic's own error."""
    found = drawn(cases(dtypes=dtype, affine="both", regimes=("normal", "offset"), shape_kinds="medium", allow_strided=False), 60)
    assert any(map(_cancels, found))


def _cancels(case: Case) -> bool:
    """Whether all of the first pixel's y is below the bias by its dtype's precision."""
    y = reference.forward(case.x, case.weight, case.bias, eps=case.eps, semantics=case.semantics)[0, :, 0, 0]
    bias = np.abs(case.bias.astype(np.float64))
    return case.x.shape[1] > 1 and bool((bias > 0).any() and (np.abs(y) <= 4 * DTYPES[case.dtype].roundoff * bias.max()).all())


def test_an_ordinary_bias_cancels_nothing() -> None:
    """Twin of the one above."""
    rng = np.random.Generator(np.random.SFC64(3))
    x, weight, bias = (rng.standard_normal(shape) for shape in ((2, 16, 1, 2), (16,), (16,)))
    assert not _cancels(Case(x, weight, bias))


@pytest.mark.parametrize("argument", ["x", "weight", "dy"])
def test_nan_and_both_infinities_are_drawn(argument: str) -> None:
    """Each takes its own path through a comparison or a clamp."""
    values = np.concatenate([case.arrays[argument].reshape(-1) for case in _nonfinite_pool() if argument in case.arrays])
    assert np.isnan(values).any()
    assert {np.inf, -np.inf} <= set(values[np.isinf(values)].tolist())


@cache
def _nonfinite_pool() -> tuple[Case, ...]:
    return tuple(drawn(cases(regimes="nonfinite", shape_kinds=("small", "medium"), dtypes="float32", max_elements=256), 300))


def test_finite_regimes_reach_no_special_value() -> None:
    """Twin of the ones above: a membership test that always holds would hold here too."""
    assert all(case.finite for case in small_pool())
    assert "nonfinite" not in FINITE_REGIMES
    assert not any("x" in case.layouts for case in drawn(cases(allow_strided=False, max_elements=64), 50))


def test_a_weight_and_a_bias_act_on_some_channel_alone() -> None:
    """Zeros in the weight are drawn, and negative ones, so that a kernel cannot divide by it or take its logarithm."""
    weights = np.concatenate([on_axes(case.weight).reshape(-1) for case in small_pool() if case.weight is not None])
    assert (weights == 0).any()
    assert (weights < 0).any()
    assert (np.abs(weights) > 100).any()


# Minimal examples ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_shapes_shrink_to_two_values(semantics: str) -> None:
    """One group of two values is the smallest in which anything is normalised."""
    assert smallest(shapes(semantics)) == (1, 2, 1, 1)


@pytest.mark.parametrize(("kind", "shape"), [("single", (1, 1, 1, 1)), ("empty", (0, 1, 1, 1)), ("small", (1, 2, 1, 1))])
def test_each_kind_of_shape_shrinks_to_its_smallest(kind: str, shape: tuple[int, ...]) -> None:
    """As found in a report."""
    assert smallest(shapes("channel", kinds=kind)) == shape


def test_epsilons_shrink_to_the_default() -> None:
    """1e-5 is what a reader expects; where it is out of bounds, the next common one."""
    assert smallest(epsilons()) == 1e-5
    assert smallest(epsilons(max_value=3e-6)) == 1e-6


@pytest.mark.parametrize("ndim", [1, 3, 4])
def test_layouts_shrink_to_contiguous(ndim: int) -> None:
    """Else to channels_last, or for fewer axes to an offset of 1."""
    assert smallest(layouts(ndim)) == Layout()
    strided = Layout(order=(0, 2, 3, 1)) if ndim == 4 else Layout(offset=1)
    assert smallest(layouts(ndim, allow_contiguous=False)) == strided


def test_picks_shrink_to_their_first() -> None:
    """Towards `low`, and the first option."""
    assert smallest(made(1, lambda draws: draws.integer(-7, 20))) == -7
    assert smallest(made(1, lambda draws: draws.integer(-7, 20)), lambda value: value > 4) == 5
    assert smallest(made(2, lambda draws: draws.integer(-7, 100)), lambda value: value > 40) == 41
    assert smallest(made(1, lambda draws: draws.choice(("first", "second")))) == "first"
    assert smallest(made(1, lambda draws: draws.weighted(((1, "first"), (5, "second"))))) == "first"
    assert smallest(made(1, lambda draws: draws.chance(3))) is False


def is_readable(case: Case) -> bool:
    """Small in every way: few elements, small integers, the common eps, one thread, and every gradient that there is."""
    whole = tuple(name for name in ("x", "weight", "bias") if name in case.arrays)
    return (
        case.x.size <= 32
        and case.regime == "small"
        and all((array == np.rint(array.astype(np.float64))).all() for array in case.arrays.values())
        and case.eps == 1e-5
        and (case.threads, case.device, case.requires_grad) == (1, "cpu", whole)
        and bool((np.abs(case.x.astype(np.float64)) <= 16).all())
    )


def test_cases_shrink_to_one_group_of_two() -> None:
    """The documented minimum: a small contiguous case."""
    case = smallest(cases(), lambda case: case.x.size >= 2)
    assert (case.dtype, case.semantics, case.x.shape, case.contiguous) == ("float16", "channel", (1, 2, 1, 1), True)
    assert is_readable(case)


@pytest.mark.parametrize(
    "condition",
    [
        lambda case: case.dtype == "bfloat16",
        lambda case: case.semantics == "sample",
        lambda case: "x" in case.layouts,
        lambda case: case.bias is None,
        lambda case: case.finite and case.x.size > 0 and case.x.shape[1] > 2 and np.ptp(case.x.astype(np.float64)) > 0,
    ],
    ids=["bfloat16", "sample", "strided x", "no bias", "three channels that differ"],
)
def test_cases_shrink_to_few_elements(condition: Callable[[Case], bool]) -> None:
    """Whatever makes a case fail, the rest of it becomes small; a bulk case must not be a dead end."""
    case = smallest(cases(), condition)
    assert condition(case)
    assert is_readable(case), repr(case)


# Bad arguments ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        (lambda: shapes("pixel"), ("semantics is 'pixel'", "'channel', 'sample'")),
        (lambda: shapes(kinds="tiny"), ("kinds is 'tiny'", "'small', 'medium'")),
        (lambda: shapes(kinds=()), ("kinds is ()", "'small', 'medium'")),
        (lambda: shapes(max_elements=63), ("max_elements is 63", "at least 64")),
        (lambda: epsilons(min_value=0.0), ("min_value is 0.0", "0 < min_value")),
        (lambda: epsilons(min_value=1e-3, max_value=1e-4), ("max_value 0.0001", "min_value <= max_value")),
        (lambda: epsilons(max_value=float("inf")), ("max_value inf", "min_value <= max_value")),
        (lambda: epsilons(max_value=float("nan")), ("max_value nan", "min_value <= max_value")),
        (lambda: layouts(2), ("ndim is 2", "1, 3 or 4")),
        (lambda: cases(semantics="pixel"), ("semantics is 'pixel'", "'channel', 'sample'")),
        (lambda: cases(dtypes=("float32", "int8")), ("dtypes is ('float32', 'int8')", "'float16', 'bfloat16'")),
        (lambda: cases(affine="all"), ("affine is 'all'", "'both', 'weight', 'bias', 'none'")),
        (lambda: cases(affine_shape="row"), ("affine_shape is 'row'", "'channel', 'element'")),
        (lambda: cases(devices="tpu"), ("devices is 'tpu'", "'cpu', 'cuda'")),
        (lambda: cases(shape_kinds="tiny"), ("kinds is 'tiny'", "'small', 'medium'")),
        (lambda: cases(regimes=("normal", "odd")), ("regimes is ('normal', 'odd')", "'normal', 'offset'")),
        (lambda: cases(allow_contiguous=False, allow_strided=False), ("allow_contiguous and allow_strided are both False",)),
        (lambda: cases(max_elements=8, dtypes="float32"), ("max_elements is 8", "at least 64")),
        (lambda: cases(max_elements=8, dtypes="float64"), ("max_elements is 8", "at least 64")),
        (lambda: cases(eps=-1.0), ("eps is -1.0",)),
        (lambda: cases(eps=float("nan")), ("eps is nan",)),
        (lambda: cases(eps="1e-5"), ("eps is '1e-5'", "None or a finite number")),
    ],
)
def test_a_bad_argument_is_named_with_what_is_legal(strategy: Callable[[], st.SearchStrategy[Any]], parts: tuple[str, ...]) -> None:
    """Hypothesis's own convention: InvalidArgument with the argument, its value and the legal set."""
    with pytest.raises(InvalidArgument) as caught:
        find(strategy(), lambda _: True, settings=settings(max_examples=1, **_FEW))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
