"""Compile signatures: a rotating choice of them that covers each dtype, affine combination and layout class, and cases within one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from ln2d_ref import Case, Implementation
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.layout import Layout
from ln2d_ref.signature import LONGEST_SUM, STATIC_SHAPES, Signature

from .draws import Draws
from .epsilons import COMMON
from .layouts import LAYOUT_DIGITS, pick_layout

__all__ = ["ROUNDS", "pick_layouts_within", "pick_shape_within", "rounds_for", "signatures"]

ROUNDS = 64
"""Of four signatures each: together every combination of dtype, affine combination, layout class and kind of sizes."""

_LAYOUTS = {
    "contiguous": (Layout(),),
    "channels_last": (Layout((0, 2, 3, 1)),),
    "permuted": tuple(Layout(order) for order in ((0, 1, 3, 2), (1, 0, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (0, 2, 1, 3), (0, 3, 2, 1))),
    "strided": (
        *(Layout((), tuple(step if axis == at else 1 for axis in range(4))) for at in range(4) for step in (2, 3)),
        *(Layout((), (), 0, axes) for axes in ((0, 1, 2, 3), (3,), (0,), (2, 3))),
        *(Layout(order, (1, 1, 2, 1)) for order in ((0, 2, 3, 1), (3, 2, 1, 0))),
    ),
}
_SIZES = {
    "channel": {
        "many": ((5, 7, 3, 11),),
        "one": ((1, 7, 3, 11), (5, 7, 1, 11), (5, 7, 3, 1), (5, 7, 1, 1), (1, 7, 1, 11), (1, 7, 1, 1)),
        "group": ((5, 4099, 1, 1), (1, 4099, 1, 3), (1, 4099, 3, 1)),
        "rows": ((4099, 5, 1, 1), (1, 5, 1, 4099), (1, 5, 67, 71), (67, 2, 3, 71)),
        "single": ((5, 1, 3, 7), (5, 1, 1, 1), (1, 1, 3, 7)),
    },
    "sample": {
        "many": ((5, 7, 3, 11),),
        "one": ((1, 7, 3, 11), (5, 1, 3, 11), (5, 7, 1, 11), (5, 7, 3, 1), (5, 7, 1, 1), (1, 7, 1, 1), (5, 1, 1, 7)),
        "group": ((2, 67, 1, 71), (1, 67, 71, 1), (5, 4099, 1, 1), (1, 3, 67, 71), (2, 1, 1, 4099)),
        "rows": ((4099, 3, 1, 1), (4099, 1, 1, 3), (67, 3, 1, 71)),
        "single": ((5, 1, 1, 1), (1, 1, 1, 1)),
    },
}
_EMPTY = ((0, 5, 3, 7), (5, 3, 0, 7), (5, 3, 7, 0))
_GRADIENTS = (*(("x", "weight", "bias"),) * 6, ("x",), ("weight",), ("bias",), ("weight", "bias"), ("x", "weight"), ())
_WIDE = (13, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096)
_LONG = ((4096, (4097, 4099, 4608, 5003, 6145, 8191, 8192, 8193)), (64, (65, 66, 67, 72, 80, 96)))
_LONG_FROM = 64


def rounds_for(max_examples: int) -> int:
    """How many rounds a search of so many cases has: 1 up to about 600, all in 20,000."""
    return min(ROUNDS, max(1, max_examples * ROUNDS // 20_000))


@lru_cache(maxsize=256)
def signatures(implementation: Implementation, law: str | None = None, *, seed: int = 0, rounds: int = 1) -> tuple[Signature, ...]:
    """Signatures within an implementation's contract, about which a law says something; other ones for another seed.

    Each round has one for each dtype, and in these each affine combination, each layout class and each kind of sizes (many, one,
    group, rows: some side 1, or a long sum); one of one-element groups, one without elements, and two static ones.
    """
    every = [each for number in _order(seed)[:rounds] for each in _round(implementation, number, np.random.default_rng((seed, number)))]
    return tuple(dict.fromkeys(each for each in every if law not in _SAYS or _SAYS[law](each))) or (every[0],)


_SAYS: dict[str, Callable[[Signature], bool]] = {
    "value": lambda signature: not signature.degenerate,
    "gradients": lambda signature: not signature.degenerate,
    "special_values": lambda signature: 0 not in signature.sides,
    "degenerate": lambda signature: signature.degenerate,
    "layout": lambda signature: bool(signature.layouts) and 0 not in signature.sides,
}
"""Of which signatures the laws that say something about some cases only do so."""


def _order(seed: int) -> list[int]:
    return [int(number) for number in np.random.default_rng(seed).permutation(ROUNDS)]


_T = TypeVar("_T")


def _one(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(rng.integers(len(options)))]


def _turned(options: tuple[_T, ...], by: int) -> tuple[_T, ...]:
    return options[by:] + options[:by]


def _round(implementation: Implementation, number: int, rng: np.random.Generator) -> list[Signature]:
    by_affine, by_layout, by_sizes = number % 4, number // 4 % 4, number // 16
    kinds, sizes = tuple(_LAYOUTS), _SIZES[implementation.semantics]
    static = rng.permutation(len(STATIC_SHAPES))
    shapes = [*(_one(rng, sizes[kind]) for kind in _turned(("many", "one", "group", "rows"), by_sizes))]
    shapes += [_one(rng, sizes["single"]), _one(rng, _EMPTY), STATIC_SHAPES[static[0]], STATIC_SHAPES[static[1]]]
    dtypes, affine = implementation.dtypes, implementation.affine
    return [
        _signature(
            implementation,
            rng,
            shape,
            dtype=dtypes[(i + (i >= 4) * number) % len(dtypes)],
            affine=affine[(i + by_affine) % len(affine)],
            layout=_one(rng, _LAYOUTS[kinds[(i + by_layout) % 4]]),
        )
        for i, shape in enumerate(shapes)
    ]


def _signature(
    implementation: Implementation, rng: np.random.Generator, shape: tuple[int, ...], *, dtype: str, affine: str, layout: Layout
) -> Signature:
    """Signature of a case of this shape, the rest of which is drawn."""
    parameter = shape[1:] if implementation.affine_shape == "element" else shape[1:2]
    arrays: dict[str, Any] = {name: np.zeros(parameter, DTYPES[dtype].numpy) for name in ("weight", "bias") if affine in ("both", name)}
    laid_out = {"x": layout}
    if rng.integers(6) == 5:
        laid_out |= {name: Layout((), (*(1,) * (len(parameter) - 1), 2)) for name in arrays}
    eps = _one(rng, COMMON) if rng.integers(2) else float(10.0 ** rng.uniform(-12, 0))
    case = Case(
        np.zeros(shape, DTYPES[dtype].numpy),
        **arrays,
        eps=eps if implementation.eps is None else implementation.eps,
        semantics=implementation.semantics,
        layouts=laid_out,
        requires_grad=_one(rng, _GRADIENTS),
        device=_one(rng, implementation.devices),
        threads=_one(rng, (1, 1, 2)),
    )
    return implementation.signature(case)


def pick_shape_within(draws: Draws, signature: Signature, max_elements: int) -> tuple[int, ...]:
    """A shape of a signature, first 2 wherever a size is free.

    Small sides, one of them wide in every third shape; where a sum is long, the sides that make it so stay near the exemplar's.
    """
    if not signature.dynamic:
        return signature.sides
    exemplar = signature.exemplar()
    if exemplar is None:
        raise ValueError(f"signature has no exemplar: {signature}")
    sides, sizes_of = list(signature.sides), exemplar.x.shape
    free = [axis for axis in range(4) if sides[axis] == 2 and (axis != 1 or signature.channels is None)]
    sides[1] = sides[1] if signature.channels is None else signature.channels
    long = any(sizes_of[axis] > _LONG_FROM for axis in free)
    for axis in free:
        options = next((sizes for least, sizes in _LONG if sizes_of[axis] > least), (2, 3) if long else (2, 3, 4, 5, 7, 8))
        sides[axis] = draws.choice(options)
    if draws.chance(3) and free and not long:
        at = draws.choice(tuple(free))
        others = math.prod(max(1, sides[axis]) for axis in range(4) if axis != at)
        summed = math.prod(max(1, sides[axis]) for axis in range(4) if axis != at and {axis, at} != {0, 1})  # nothing sums over N and C
        sides[at] = draws.choice((8, *(wide for wide in _WIDE if wide * summed <= LONGEST_SUM and wide * others <= max_elements)))
    return tuple(sides)


def pick_layouts_within(draws: Draws, signature: Signature) -> dict[str, Layout]:
    """Layouts of a signature: offsets, and dy's own."""
    picked = dict(signature.layouts)
    picked["x"] = replace(picked.get("x", Layout()), offset=draws.choice((0, 0, 1, 3, 8, 64)))
    picked["dy"] = pick_layout(draws.part(LAYOUT_DIGITS), 4)
    return picked
