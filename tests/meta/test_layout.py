"""Layouts say where in a storage an array lies: by hand for every preset, by torch, and there and back for any of them."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ln2d_ref.dtypes import DTYPES
from ln2d_ref.implementations.torch_placed import to_numpy, to_torch
from ln2d_ref.layout import GUARD, Layout, Storage, place
from strategies import layouts

SHAPE = (2, 3, 4, 5)
CHANNELS_LAST = Layout(order=(0, 2, 3, 1))
PRESETS = {
    "contiguous": (Layout(), (60, 20, 5, 1), 0, 120),
    "channels_last": (CHANNELS_LAST, (60, 1, 15, 3), 0, 120),
    "sliced": (Layout(offset=3), (60, 20, 5, 1), 3, 120),
    "transposed": (Layout(order=(0, 1, 3, 2)), (60, 20, 1, 4), 0, 120),
    "permuted": (Layout(order=(3, 2, 1, 0)), (1, 2, 6, 24), 0, 120),
    "stepped along W": (Layout(steps=(1, 1, 1, 2)), (120, 40, 10, 2), 0, 239),
    "stepped along C": (Layout(steps=(1, 3, 1, 1)), (180, 60, 5, 1), 0, 320),
    "expanded": (Layout(expanded=(0, 1, 2, 3)), (0, 0, 0, 0), 0, 1),
    "expanded along W": (Layout(expanded=(3,)), (12, 4, 1, 0), 0, 24),
    "expanded along N": (Layout(expanded=(0,)), (0, 20, 5, 1), 0, 60),
    "mixed": (Layout(order=(3, 2, 1, 0), steps=(1, 3, 1, 1), offset=5), (1, 6, 18, 72), 5, 356),
}
quick = settings(deadline=None, database=None, derandomize=True, max_examples=200)


def constant_along(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The array's first entry along these axes, repeated."""
    first = array[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(array.ndim))]
    return np.ascontiguousarray(np.broadcast_to(first, array.shape))


def numbered(layout: Layout, shape: tuple[int, ...] = SHAPE, dtype: np.dtype = DTYPES["float32"].numpy) -> np.ndarray:
    """An array whose elements differ, as far as the layout allows."""
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    return constant_along(array, layout.expanded) if array.size else array


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def elements(storage: Storage) -> set[int]:
    """Places of the buffer that hold an element, one index at a time."""
    return {
        storage.offset + sum(k * stride for k, stride in zip(index, storage.strides, strict=True)) for index in np.ndindex(storage.shape)
    }


def faults(storage: Storage, array: np.ndarray) -> list[str]:
    """What is wrong with a storage that should hold the array, among poison."""
    found = []
    if not np.array_equal(bits(storage.view()), bits(array)):
        found.append("the view differs from the array")
    gaps = storage.gaps()
    if set(np.flatnonzero(~gaps)) != elements(storage):
        found.append("gaps are not where no element is")
    if not np.isnan(storage.buffer[gaps]).all():
        found.append("a gap holds a number")
    if not gaps[-GUARD:].all() or not gaps[: storage.offset].all():
        found.append("an element lies outside offset and guard")
    return found


@st.composite
def arrangements(draw: st.DrawFn) -> tuple[np.ndarray, Layout]:
    """An array of 1, 3 or 4 axes, with empty ones among them, and a layout that it can have."""
    ndim = draw(st.sampled_from((1, 3, 4)))
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=ndim, max_size=ndim)))
    return numbered(layout := draw(layouts(ndim)), shape, draw(st.sampled_from([row.numpy for row in DTYPES.values()]))), layout


@pytest.mark.parametrize("preset", PRESETS)
def test_strides_offset_and_span_are_those_counted_by_hand(preset: str) -> None:
    """The table was counted by hand on a 2×3×4×5 array: the fastest axis has stride `step`, each next one spans the one before."""
    layout, strides, offset, span = PRESETS[preset]
    assert (layout.strides(SHAPE), layout.offset, layout.span(SHAPE)) == (strides, offset, span)
    storage = place(numbered(layout), layout)
    assert (storage.strides, storage.offset, storage.buffer.size) == (strides, offset, offset + span + GUARD)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_hold_the_array_among_poison(preset: str) -> None:
    """An element lies at offset + Σ index·stride and nowhere else."""
    layout = PRESETS[preset][0]
    assert faults(place(numbered(layout), layout), numbered(layout)) == []


@quick
@given(arrangements())
def test_any_layout_gives_the_array_back(arrangement: tuple[np.ndarray, Layout]) -> None:
    """place writes through the same strides that view reads through, and no two elements of a dense axis share a place."""
    array, layout = arrangement
    assert faults(place(array, layout), array) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda storage: Storage(storage.buffer, storage.shape, storage.strides, storage.offset + 1), "the view differs"),
        (lambda storage: Storage(np.nan_to_num(storage.buffer), storage.shape, storage.strides, storage.offset), "a gap holds"),
        (lambda storage: Storage(storage.buffer[:-1], storage.shape, storage.strides, storage.offset), "outside offset and guard"),
    ],
    ids=["shifted", "unpoisoned", "cut short"],
)
def test_a_wrong_storage_is_seen(spoil, fault: str) -> None:
    """Twin of the two above: each of their checks can fail."""
    layout = PRESETS["mixed"][0]
    assert fault in "; ".join(faults(spoil(place(numbered(layout), layout)), numbered(layout)))


@quick
@given(arrangements())
def test_torch_reads_the_same_array_through_the_same_strides(arrangement: tuple[np.ndarray, Layout]) -> None:
    """torch.as_strided takes strides and offset in elements, as Layout gives them."""
    array, layout = arrangement
    storage = place(array, layout)
    tensor = torch.as_strided(to_torch(storage.buffer), storage.shape, storage.strides, storage.offset)
    assert np.array_equal(bits(to_numpy(tensor)), bits(array))


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_knows_contiguous_and_channels_last(dtype: str) -> None:
    """Torch's own predicates decide which kernel runs, so they must see what the layout's name says, and only that."""

    def tensor(layout: Layout) -> torch.Tensor:
        storage = place(numbered(layout, dtype=DTYPES[dtype].numpy), layout)
        return torch.as_strided(to_torch(storage.buffer), storage.shape, storage.strides, storage.offset)

    dense, last = tensor(Layout()), tensor(CHANNELS_LAST)
    assert dense.is_contiguous()
    assert not dense.is_contiguous(memory_format=torch.channels_last)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    for preset in ("transposed", "permuted", "stepped along W", "expanded along W", "mixed"):
        strided = tensor(PRESETS[preset][0])
        assert not strided.is_contiguous(), preset
        assert not strided.is_contiguous(memory_format=torch.channels_last), preset


def test_a_side_of_one_gets_the_stride_that_the_rule_gives() -> None:
    """Frameworks choose strides of size-1 axes as they like; a kernel that trusts them is wrong, so the rule stays the rule."""
    assert CHANNELS_LAST.strides((2, 1, 1, 3)) == (3, 1, 3, 1)
    assert Layout().strides((2, 1, 1, 3)) == (3, 3, 3, 1)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
@pytest.mark.parametrize("preset", PRESETS)
def test_an_empty_array_takes_no_place(preset: str, shape: tuple[int, ...]) -> None:
    """No elements span nothing: all of the buffer is poison."""
    layout = PRESETS[preset][0]
    storage = place(np.empty(shape, np.float32), layout)
    assert layout.span(shape) == 0
    assert storage.view().shape == shape
    assert storage.buffer.size == layout.offset + GUARD
    assert np.isnan(storage.buffer).all()


@pytest.mark.parametrize("axis", range(4))
def test_expanding_an_axis_along_which_the_array_varies_is_refused(axis: int) -> None:
    """Stride 0 can hold one value only, so any other would be lost without a word."""
    varying = numbered(Layout())
    with pytest.raises(ValueError, match=f"expands axis {axis}, but the array is not constant along it"):
        place(varying, Layout(expanded=(axis,)))
    constant = constant_along(varying, (axis,))
    assert np.array_equal(place(constant, Layout(expanded=(axis,))).view(), constant)


def test_constant_means_the_same_bits() -> None:
    """-0.0 == 0.0, yet 1/x tells them apart; and a NaN is constant although NaN != NaN."""
    with pytest.raises(ValueError, match="not constant"):
        place(np.array([0.0, -0.0]), Layout(expanded=(0,)))
    assert np.isnan(place(np.full(3, np.nan, ml_dtypes.bfloat16), Layout(expanded=(0,))).view()).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": (0, 1, 1, 3)}, "order is .* must be a permutation"),
        ({"order": (1, 2, 3, 4)}, "order is .* must be a permutation"),
        ({"steps": (1, 0, 1, 1)}, "steps are .* must be >= 1"),
        ({"offset": -1}, "offset is -1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(arguments: dict, message: str) -> None:
    """A layout that could put two elements in one place, or one before the storage, is an error here and not a false alarm later."""
    with pytest.raises(ValueError, match=message):
        Layout(**arguments)


@pytest.mark.parametrize("layout", [CHANNELS_LAST, Layout(steps=(1, 1, 1, 2)), Layout(expanded=(3,))], ids=str)
def test_another_number_of_axes_is_refused(layout: Layout) -> None:
    """A layout of four axes says nothing about an array of one."""
    with pytest.raises(ValueError, match=r"the array has 1 axes|the array has 1 axis"):
        place(np.zeros(3, np.float32), layout)


def test_contiguous_means_dense_and_first_in_the_storage() -> None:
    """Only then may a kernel that ignores strides be right."""
    assert {preset: layout.contiguous for preset, (layout, *_) in PRESETS.items()} == {preset: preset == "contiguous" for preset in PRESETS}
    assert Layout(order=(0, 1, 2, 3), steps=(1, 1, 1, 1)).contiguous


def test_layouts_have_short_names() -> None:
    """Messages say them."""
    assert [str(layout) for layout, *_ in PRESETS.values()] == [
        "contiguous",
        "channels_last",
        "offset 3",
        "order 0132",
        "order 3210",
        "steps 1,1,1,2",
        "steps 1,3,1,1",
        "expanded 0,1,2,3",
        "expanded 3",
        "expanded 0",
        "order 3210 steps 1,3,1,1 offset 5",
    ]
