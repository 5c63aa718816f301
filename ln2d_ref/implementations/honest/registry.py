"""The honest implementations by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from ..implementation import Implementation
from .composed import composed
from .differentiable import centred, composed_var_mean, counted, node, second_order_by_hand
from .exact import Array, fused_multiply_add
from .flushing import flushing
from .layer_norm import Recipe, layer_norm
from .moments import chan, welford
from .roots import reciprocal_root_off_by_two_ulp
from .steps import folded, normalised_by_folding, premultiplied, scaled_by_count, uncentred
from .sums import Sum, Sums, backwards, blocked, compensated, pairwise, sequential, shuffled

__all__ = ["disputed", "honest"]

_Maker = Callable[[str], Callable[..., Any]]


def _all_by(add: Sum, **other: Any) -> Recipe:
    """Recipe in which every sum is formed by `add`."""
    return Recipe(sums=Sums(add), parameter_sum=add, **other)


def _multiply_add(a: Array, b: Array, c: Array) -> Array:
    """fl(fl(a b) + c)."""
    return a * b + c


_RECIPES = {
    "sequential": Recipe(),
    "backwards": _all_by(backwards),
    "reciprocal_count": Recipe(sums=Sums(sequential, reciprocal=True)),
    "pairwise": _all_by(pairwise),
    "compensated": _all_by(compensated),
    "shuffled": Recipe(parameter_sum=shuffled),
    "chan_16": _all_by(blocked(16), statistics=chan(16)),
    "chan_7": _all_by(blocked(7), statistics=chan(7)),
    "welford": Recipe(statistics=welford(by_reciprocal=False)),
    "welford_reciprocal": Recipe(statistics=welford(by_reciprocal=True)),
    "float64": Recipe(least=torch.float64),
    "folded": Recipe(last_step=folded(_multiply_add)),
    "folded_fused": Recipe(last_step=folded(fused_multiply_add)),
    "premultiplied": Recipe(last_step=premultiplied),
    "root_two_ulp_above": Recipe(root=reciprocal_root_off_by_two_ulp(1)),
    "root_two_ulp_below": Recipe(root=reciprocal_root_off_by_two_ulp(-1)),
    "flushing": Recipe(number=flushing),
    "scaled_backward": Recipe(input_gradient=scaled_by_count),
}
_DISPUTED_RECIPES = {
    "uncentred_backward": Recipe(input_gradient=uncentred),
    "folded_backward": Recipe(normalise=normalised_by_folding, last_step=folded(_multiply_add)),
}
_NONDETERMINISTIC = frozenset({"shuffled"})

_HONEST: Mapping[str, _Maker] = MappingProxyType(
    {name: partial(layer_norm, recipe) for name, recipe in _RECIPES.items()}
    | {
        "composed_division": lambda semantics: composed(by_division=True, semantics=semantics),
        "composed_rsqrt": lambda semantics: composed(by_division=False, semantics=semantics),
        "composed_var_mean": lambda semantics: composed_var_mean(torch.float32, premultiplied=False, semantics=semantics),
        "composed_premultiplied": lambda semantics: composed_var_mean(torch.float32, premultiplied=True, semantics=semantics),
        "composed_float64": lambda semantics: composed_var_mean(torch.float64, premultiplied=False, semantics=semantics),
        "node_centred": partial(node, centred),
        "node_scaled_by_count": partial(node, counted),
        "node_by_hand": second_order_by_hand,
    }
)
_DISPUTED: Mapping[str, _Maker] = MappingProxyType({name: partial(layer_norm, recipe) for name, recipe in _DISPUTED_RECIPES.items()})


def honest(semantics: str, *, affine_shape: str = "channel") -> dict[str, Implementation]:
    """Implementations, by name, that no bound may ever exclude: right, and computed in the arithmetic dtype throughout."""
    return _implementations(_HONEST, semantics, affine_shape)


def disputed(semantics: str, *, affine_shape: str = "channel") -> dict[str, Implementation]:
    """Implementations, by name, of forms in use of which it is open whether the bounds should cover them."""
    return _implementations(_DISPUTED, semantics, affine_shape)


def _implementations(makers: Mapping[str, _Maker], semantics: str, affine_shape: str) -> dict[str, Implementation]:
    return {
        f"honest/{name}": Implementation(
            make(semantics),
            name=f"honest/{name}",
            semantics=semantics,
            affine_shape=affine_shape,
            deterministic=name not in _NONDETERMINISTIC,
        )
        for name, make in sorted(makers.items())
    }
