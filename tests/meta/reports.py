"""Public reports of faults in layer norms, as cases: what `test_reported_faults` runs.

`REPORTED` has, by kind, the trigger as it was reported, a mutant that has the fault, the Case, and the "law quantity" that is broken.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from ln2d_ref import Case
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.layout import Layout


def case_of(x: Any, dtype: str = "float32", affine: str = "both", seed: int = 7, **changed: Any) -> Case:
    """A case of x with random dy, and random weight and bias where `affine` gives them."""
    rng, numpy = np.random.default_rng(seed), DTYPES[dtype].numpy
    weight, bias, dy = (rng.standard_normal(shape).astype(numpy) for shape in (x.shape[1], x.shape[1], x.shape))
    given = {"weight": weight if affine in ("both", "weight") else None, "bias": bias if affine in ("both", "bias") else None}
    return Case(**{"x": x.astype(numpy), "dy": dy} | given | changed)


def normal(*shape: int, offset: Any = 0.0, spread: Any = 1.0, **of: Any) -> Case:
    """Random x of this mean and spread."""
    return case_of(offset + spread * np.random.default_rng(1).standard_normal(shape), **of)


def group(*values: float, **of: Any) -> Case:
    """One group of these values."""
    return case_of(np.array(values).reshape(1, -1, 1, 1), **of)


def half(case: Case) -> Case:
    """The same in float16."""
    return replace(case, **{name: array.astype(np.float16) for name, array in case.arrays.items()})


def element(case: Case) -> Case:
    """The same with weight and bias of shape (C, H, W)."""
    weight, bias = np.random.default_rng(2).standard_normal((2, *case.x.shape[1:])).astype(case.x.dtype)
    return replace(case, weight=weight, bias=bias, semantics="sample")


def laid_out(case: Case, **layouts: Layout) -> Case:
    """The same with these layouts."""
    return replace(case, layouts=layouts)


def first(shape: tuple[int, ...], value: float, rest: float) -> np.ndarray:
    """The first group's value, and the others'."""
    array = np.full(shape, rest)
    array[0, :, 0, 0] = value
    return array


def last_row(*shape: int) -> np.ndarray:
    """A dy of zeros but in the last row, so that what the others add does not hide it."""
    dy = np.zeros(shape, np.float32)
    dy[-1, :, -1, -1] = 1
    return dy


LAST, TRANSPOSED, STEP, SLICE = Layout((0, 2, 3, 1)), Layout((0, 1, 3, 2)), Layout(steps=(1, 1, 1, 2)), Layout(offset=5)
LAYOUTS = {"contiguous": Layout(), "channels_last": LAST, "transposed": TRANSPOSED, "step 2": STEP, "slice": SLICE}
CONSTANTS = {"float16": 60000, "bfloat16": 2.0**20, "float32": 900000, "float64": 1e14}
PLAIN = normal(2, 3, 2, 4)
LONG = normal(2, 64, 1, 2, offset=2000)
ROWS = normal(5, 3, 7, 2)
ONES = replace(PLAIN, dy=np.ones_like(PLAIN.x), layouts={"dy": Layout(expanded=(0, 1, 2, 3))})
SQUARES = half(group(300, -300, 7, 9))
CHAIN = case_of(np.random.default_rng(1).choice([-0.7, 0.7], (1, 1, 1000, 250)), semantics="sample")
ODD = laid_out(normal(2, 3, 1, 1), x=Layout((2, 3, 0, 1)))
ONE_NAN = normal(2, 3, 2, 2, offset=np.where(np.arange(24).reshape(2, 3, 2, 2) == 5, np.nan, 0))
ZERO_AFFINE = replace(PLAIN, weight=np.zeros(3, np.float32), bias=np.zeros(3, np.float32))
ZERO_WEIGHT = replace(PLAIN, weight=np.array([2, 0, -1], np.float32))
MANY = half(normal(64, 2, 8, 8, dy=np.ones((64, 2, 8, 8), np.float32)))
REPORTED = {
    "value range": [
        ("float16 with |x - mean| > 256, the square overflows", "precision/statistics_in_input_dtype", SQUARES, "value y"),
        ("only the accumulator is float32, the square is taken in half", "precision/square_in_input_dtype", SQUARES, "value y"),
        ("eps 1e-12 cast to half is 0", "eps/rounded_with_half_input", half(group(3, 3, 3, 3, eps=1e-12)), "value y"),
        ("element count kept in half (n > 2048)", "precision/count_in_half", normal(1, 2049, 1, 2), "value y"),
        ("float32 near 1e19", "independence/scaled_together", normal(2, 4, 1, 3, spread=first((2, 4, 1, 3), 1e20, 1.0)), "value y"),
        ("values near 1e-10", "eps/rounded_to_half", normal(2, 4, 1, 3, spread=1e-10, eps=1e-12), "value y"),
        ("input above 65504 under autocast to half", "reported/half_under_autocast", normal(1, 4, 1, 2, spread=1e5), "modes y"),
    ],
    "layout": [
        ("slice whose storage offset is ignored", "layout/x_offset_ignored", laid_out(PLAIN, x=SLICE), "layout y"),
        ("permuted input read as dense", "layout/x_permuted", laid_out(PLAIN, x=TRANSPOSED), "layout y"),
        ("step-2 input read as dense", "layout/x_stepped", laid_out(PLAIN, x=STEP), "layout y"),
        *(
            (f"backward with {x} x and {dy} dy", "reported/dy_where_x_lies", laid_out(PLAIN, x=LAYOUTS[x], dy=LAYOUTS[dy]), "layout dx")
            for x, dy in product(LAYOUTS, repeat=2)
            if x != dy
        ),
        ("expanded dy (as sum().backward() makes it)", "layout/dy_expanded", ONES, "layout dx"),
        ("expanded dy, which a backward then overwrites", "side_effects/dy_overwritten", ONES, "side_effects dy"),
        ("N,C,1,1 with odd strides on the size-1 axes", "reported/channel_step_from_rows", ODD, "layout y"),
        ("channels_last read as dense", "layout/x_channels_last", laid_out(PLAIN, x=LAST), "layout y"),
        ("channels_last with non-uniform weight", "reported/weight_by_place", laid_out(PLAIN, x=LAST), "layout y"),
        ("strided weight read as dense", "layout/weight_strides_ignored", laid_out(PLAIN, weight=Layout(steps=(2,))), "layout y"),
    ],
    "compiled or exported": [
        ("constant groups amplified", "eps/dropped", group(*[0.1] * 7), "value y"),
        ("two long inputs [10000, 1000], a fortieth of that", "reported/one_long_chain_sample", CHAIN, "value y"),
        ("non-default eps lost in export", "eps/fixed", normal(2, 3, 2, 2, eps=1e-3), "value y"),
        ("affine of shape (C,1,1) broadcast", "reported/weight_along_last_axis", normal(2, 3, 2, 3), "value y"),
        ("affine of another shape accepted", "bad_arguments/axis_dropped", PLAIN, "bad_arguments weight with an axis too many"),
        ("negative axis", "semantics/last_axis", PLAIN, "value y"),
        ("float32 affine beside bfloat16 x", "modes/float32_weight_rounded", normal(2, 3, 2, 2, dtype="bfloat16"), "modes y"),
    ],
    "one-pass variance": [
        ("offset 2000, spread 1", "variance/one_pass", LONG, "value y"),
        ("[40000 … 40003]", "variance/one_pass", group(40000, 40001, 40002, 40003), "value y"),
        ("constant row 1234.0 gives NaN", "variance/one_pass_unclamped", group(*[1234] * 784), "value y"),
        ("sixteen values 1449 ± 1", "variance/one_pass", normal(1, 16, 1, 1, offset=1449), "value y"),
        ("only in the vectorised path", "reported/one_pass_if_vectorised", LONG, "value y"),
        ("only where a row spans more than one tile", "variance/one_pass_if_long", normal(2, 65, 1, 2, offset=2000), "value y"),
        ("> 2048", "variance/one_pass_if_long", normal(1, 2050, 1, 64, offset=2000), "value y"),
        ("scale-and-shift in half", "reported/scale_and_shift_in_half", half(normal(2, 8, 1, 2, offset=20)), "value y"),
        ("scale-and-shift at C = 1, where it swallows the bias", "degenerate/folded", normal(2, 1, 2, 2, offset=1e6), "degenerate y"),
    ],
    "backward arithmetic": [
        ("rows counted as shape[0] for rank > 2", "masks/dweight_first_axis", ROWS, "gradients dweight"),
        ("row count taken from the last axis", "masks/dbias_last_axis", ROWS, "gradients dbias"),
        ("dweight of (C,) for a (C, H, W) affine", "affine/dweight_per_channel_sample", element(PLAIN), "gradients dweight"),
        ("rows > 65 536", "masks/dweight_past_grid", normal(131072, 2, 1, 1), "gradients dweight"),
        ("the sum over rows drops the last partial block", "masks/dweight_last_block", ROWS, "gradients dweight"),
        ("a gradient never written", "gradients/dbias_zero", PLAIN, "gradients dbias"),
        ("dx returned in dweight's place", "gradients/dweight_is_dx", PLAIN, "gradients dweight"),
        ("intermittent race on dbias", "reported/dbias_races", PLAIN, "history dbias"),
    ],
    "semantics mixed up": [
        ("LayerNorm2d that is GroupNorm(1)", "semantics/group_norm", PLAIN, "value y"),
        ("last axis instead of channels", "semantics/last_axis", normal(2, 3, 4, 3), "value y"),
        ("unbiased variance (shows most at C = 2)", "variance/unbiased", normal(2, 2, 2, 2), "value y"),
        ("eps outside the root (shows at scale 1e-3)", "eps/outside_the_root", normal(2, 8, 2, 2, spread=1e-3), "value y"),
        ("layout guessed from the shape, wrong where C = W", "semantics/guessed_from_shape", normal(2, 3, 2, 3), "value y"),
        ("an unknown option returns x unnormalised", "semantics/returned_unchanged", PLAIN, "value y"),
        ("centred variance but uncentred numerator", "semantics/numerator_uncentred", PLAIN, "value y"),
    ],
    "higher derivatives": [
        ("saved mean and rstd treated as constants", "derivatives/statistics_constant", PLAIN, "derivatives ddx"),
        ("second order with bias None", "derivatives/second_without_bias", replace(PLAIN, bias=None), "derivatives ddx"),
        ("primal differs from forward", "derivatives/primal_one_pass", normal(2, 8, 1, 2, offset=2000), "derivatives primal"),
        ("vmap over vjp ≠ loop", "derivatives/vmap_sums_dweight", PLAIN, "derivatives vmap_dweight"),
    ],
    "empty and degenerate": [
        ("N = 0", "degenerate/no_samples_shape", normal(0, 3, 2, 2), "result y"),
        ("N = 0, crash", "degenerate/no_samples_crash", normal(0, 3, 2, 2), "result y"),
        ("H·W = 0", "degenerate/empty_dweight", normal(2, 3, 0, 2), "degenerate dweight"),
        ("crash by division by zero", "degenerate/no_pixels_crash", normal(2, 3, 2, 0), "result y"),
        ("C = 1", "degenerate/bias_lost", normal(2, 1, 2, 2), "degenerate y"),
        ("1, 1, 1, 1", "degenerate/zero_over_zero", normal(1, 1, 1, 1), "degenerate y"),
        ("integer input gives an internal assertion", "reported/internal_assertion", PLAIN, "bad_arguments integer x"),
    ],
    "dtype policy": [
        ("half x with float32 affine", "modes/float32_bias_rounded", half(PLAIN), "modes y"),
        ("bfloat16 weight read as float16", "affine/bfloat16_as_float16", normal(2, 3, 2, 2, dtype="bfloat16"), "value y"),
        ("result in another dtype than x's", "affine/dtype_of_arithmetic", half(PLAIN), "result y"),
        ("statistics' dtype differs by device", "precision/statistics_in_input_dtype", half(normal(2, 64, 1, 2)), "value y"),
    ],
    "optional affine": [
        ("only the bias given", "affine/bias_needs_weight", replace(PLAIN, weight=None), "value y"),
        (
            "only the weight given; the vectorised path assumes the pair",
            "affine/weight_needs_bias",
            normal(2, 8, 1, 2, affine="weight"),
            "value y",
        ),
        ("a wrong-shaped zero made up for a missing bias", "reported/wrong_zero", replace(PLAIN, bias=None), "result y"),
        ("default weight = 1, bias = 0 hide a swap", "affine/swapped", PLAIN, "value y"),
        ("the same of their gradients", "gradients/dweight_dbias_swapped", PLAIN, "gradients dweight"),
    ],
    "masks, tiles, tails": [
        *((f"(block - n)·mean² for n = {n}", "variance/padding_counted", normal(2, n, 1, 2, offset=3), "value y") for n in (3, 5, 17)),
        ("columns past the block size ignored", "masks/channels_past_tile", normal(1, 65, 1, 2), "value y"),
        ("group of 3 masked by C", "reported/masked_by_channels_sample", replace(PLAIN, semantics="sample"), "value y"),
        ("H·W not a multiple of the tile", "masks/pixels_past_vector", normal(2, 3, 3, 3), "value y"),
        ("C % 4 ≠ 0", "masks/last_channel", normal(2, 6, 2, 2), "value y"),
    ],
    "index overflow": [
        ("rows 65536", "masks/rows_past_grid", normal(65536, 2, 1, 1), "value y"),
        ("rows 65537", "masks/rows_past_grid", normal(1, 2, 65537, 1), "value y"),
        ("rows 65536, dbias", "masks/dbias_past_grid", normal(65536, 2, 1, 1, dy=last_row(65536, 2, 1, 1)), "gradients dbias"),
        ("rows 65537, dweight", "masks/dweight_past_grid", normal(1, 2, 65537, 1, dy=last_row(1, 2, 65537, 1)), "gradients dweight"),
    ],
    "low-precision sums": [
        ("dweight in bfloat16", "low_precision_sums/dweight_in_bfloat16", normal(8, 2, 8, 8, dtype="bfloat16"), "gradients dweight"),
        ("mean and rstd saved in half", "precision/saved_in_input_dtype", half(normal(2, 64, 1, 2, offset=20)), "gradients dx"),
        ("many rows of dy = 1, dbias exactly N·H·W", "low_precision_sums/dbias_in_input_dtype", MANY, "gradients dbias"),
    ],
    "aliasing and races": [
        ("input changed in place and used again by the caller", "side_effects/x_centred", PLAIN, "side_effects x"),
        ("cotangent's buffer reused", "side_effects/dy_overwritten", PLAIN, "side_effects dy"),
        ("x̂ rebuilt from y / weight where a weight is 0", "reported/xhat_from_y", ZERO_WEIGHT, "gradients dx"),
        ("zeros on the second device", "bad_arguments/elsewhere_as_ones", PLAIN, "bad_arguments weight on another device"),
    ],
    "constant groups": [
        (f"{n} of {value:g} in {dtype}", "eps/dropped", group(*[value] * n, dtype=dtype), "degenerate y" if n == 1 else "value y")
        for dtype, value in CONSTANTS.items()
        for n in (1, 2, 3, 5, 16, 17)
    ],
    "gradient cut": [
        ("the fast path for contiguous input has no backward", "gradients/detached_if_contiguous", PLAIN, "result dx"),
        ("the output is a leaf", "reported/leaf", PLAIN, "result dx"),
    ],
    "cheats": [
        ("the reference's freed memory returned", "cheats/freed_memory", normal(3, 5, 2, 7, seed=11), "value y"),
        ("the input zeroed so that a later reference agrees", "cheats/x_zeroed", PLAIN, "value y"),
        ("outputs cached by pointer", "state/cached_by_address", PLAIN, "history y"),
        ("outputs cached by shape", "state/cached_by_shape", group(0, 1, 3), "history y"),
        ("outputs cached by fingerprint", "state/cached_by_fingerprint", group(0, 1, 3), "history y"),
        ("work skipped after the first call", "state/skipped_after_first", PLAIN, "history y"),
        ("the expected tensor found by the garbage collector", "cheats/found_by_collector", normal(3, 5, 2, 7, seed=12), "value y"),
        ("NaN returned where NaN is a wildcard", "special_values/leak_in_y", ONE_NAN, "special_values y"),
        ("NaN returned for finite x", "cheats/all_nan", PLAIN, "value y"),
        ("a no-op that passes because the affine is zero", "semantics/returned_unchanged", ZERO_AFFINE, "gradients dweight"),
        ("output within an absolute tolerance of 0", "cheats/near_zero", normal(2, 3, 2, 2, spread=1e-9, affine="none"), "value y"),
    ],
}
