"""A `Recipe` says how each step is done; `layer_norm(recipe, semantics)` is the LayerNorm2d on torch tensors that does it so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import torch

from ...semantics import affine_axes, group_size, on_axes
from ..arguments import check_tensors
from .exact import Array
from .moments import Statistics, two_pass
from .roots import Root, reciprocal_root
from .steps import InputGradient, LastStep, Normalised, centred, normalised, plain
from .sums import Sum, Sums, sequential

__all__ = ["Recipe", "arithmetic_dtype", "layer_norm"]


@dataclass(frozen=True)
class Recipe:
    """How one implementation does each step. The defaults: chains from the left, two passes, y = x̂ w + b.

    `sums` serve the means, `parameter_sum` dweight and dbias; `least` is the arithmetic's least dtype; `number` makes each array
    that comes in the kind of array to compute with.
    """

    sums: Sums = field(default_factory=lambda: Sums(sequential))
    parameter_sum: Sum = sequential
    statistics: Statistics = two_pass
    root: Root = reciprocal_root
    normalise: Callable[[Array, Array, Array], Array] = normalised
    last_step: LastStep = plain
    input_gradient: InputGradient = centred
    least: torch.dtype = torch.float32
    number: Callable[[Array], Array] = np.asarray


def layer_norm(recipe: Recipe, semantics: str) -> Callable[..., Any]:
    """LayerNorm2d `fn(x, weight, bias, eps) -> y` done by the recipe. Raises TypeError or ValueError for arguments that do not fit.

    y and the gradients have the shapes and dtypes of what they belong to; all is computed in `arithmetic_dtype` and rounded once.
    """

    def honest_layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        check_tensors(x, weight, bias, eps, semantics)
        return _LayerNorm.apply(x, weight, bias, eps, semantics, recipe)

    return honest_layer_norm


def arithmetic_dtype(least: torch.dtype, *tensors: Any) -> torch.dtype:
    """Dtype to compute in: the widest of `least` and the tensors' own (None for an absent one)."""
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors if tensor is not None), least)


class _LayerNorm(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed: see pyproject.toml
    """The recipe as a function that autograd knows, once differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, eps: float, semantics: str, recipe: Recipe) -> Any:
        ctx.semantics, ctx.recipe = semantics, recipe
        ctx.dtype = arithmetic_dtype(recipe.least, x, weight, bias)
        ctx.like = [None if tensor is None else (tensor.shape, tensor.dtype) for tensor in (x, weight, bias)]
        if x.numel() == 0:
            ctx.save_for_backward(x, weight, None, None)
            return x.new_empty(x.shape)
        layout = _Layout(x.shape, semantics, ctx.dtype, recipe)
        with np.errstate(all="ignore"):  # NaN, infinity and overflow are answers here
            rows = layout.rows(x)
            mean, var = recipe.statistics(rows, recipe.sums)
            rstd = recipe.root(var + eps)
            groups = Normalised(rows, mean, rstd, recipe.normalise(rows, mean, rstd))
            y = recipe.last_step(groups, layout.parameter(weight), layout.parameter(bias))
        ctx.save_for_backward(x, weight, _tensor(mean), _tensor(rstd))
        return _tensor(layout.images(y)).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Any) -> Any:
        x, weight, mean, rstd = ctx.saved_tensors
        recipe, needed = ctx.recipe, ctx.needs_input_grad[:3]
        if x.numel() == 0:
            zeros = (torch.zeros(like[0], dtype=like[1]) if need else None for like, need in zip(ctx.like, needed, strict=True))
            return *zeros, None, None, None
        layout = _Layout(x.shape, ctx.semantics, ctx.dtype, recipe)
        gradients: list[Array | None] = [None, None, None]
        with np.errstate(all="ignore"):
            rows, dy, mean, rstd = layout.rows(x), layout.rows(dy), recipe.number(mean.numpy()), recipe.number(rstd.numpy())
            groups = Normalised(rows, mean, rstd, recipe.normalise(rows, mean, rstd))
            if needed[0]:
                g = dy if weight is None else dy * layout.parameter(weight)
                gradients[0] = layout.images(recipe.input_gradient(g, groups, recipe.sums))
            if needed[1]:
                gradients[1] = layout.over_parameter(dy * groups.xhat, weight.shape)
            if needed[2]:
                gradients[2] = layout.over_parameter(dy, ctx.like[2][0])
        results = (None if g is None else _tensor(g).to(like[1]) for g, like in zip(gradients, ctx.like, strict=True))
        return *results, None, None, None


@dataclass(frozen=True)
class _Layout:
    """Between tensors (N, C, H, W) and arrays (groups, n) in the arithmetic dtype."""

    shape: torch.Size
    semantics: str
    dtype: torch.dtype
    recipe: Recipe

    def rows(self, tensor: Any) -> Array:
        """A tensor of x's shape as (groups, n)."""
        array = tensor.detach().to(self.dtype).numpy()
        if self.semantics == "channel":
            array = np.moveaxis(array, 1, -1)
        return self.recipe.number(np.ascontiguousarray(array).reshape(-1, group_size(tuple(self.shape), self.semantics)))

    def images(self, rows: Array) -> Array:
        """(groups, n) as (N, C, H, W)."""
        count, channels, height, width = self.shape
        if self.semantics == "channel":
            return np.moveaxis(rows.reshape(count, height, width, channels), -1, 1)
        return rows.reshape(count, channels, height, width)

    def parameter(self, tensor: Any) -> Array | None:
        """A weight or bias as (1, n)."""
        if tensor is None:
            return None
        array = on_axes(tensor.detach().to(self.dtype).numpy())[0]
        spread = array if self.semantics == "channel" else np.broadcast_to(array, self.shape[1:])
        return self.recipe.number(np.ascontiguousarray(spread).reshape(1, -1))

    def over_parameter(self, rows: Array, shape: torch.Size) -> Array:
        """Sum, for each element of a parameter of this shape, of the (groups, n) terms that belong to it."""
        summed = affine_axes(tuple(shape))
        terms = np.moveaxis(self.images(rows), summed, range(-len(summed), 0))
        return self.recipe.parameter_sum(np.ascontiguousarray(terms).reshape(shape.numel(), -1)).reshape(shape)


def _tensor(array: Array) -> Any:
    """A fresh contiguous tensor of the array's values."""
    return torch.from_numpy(np.array(array, order="C", subok=False))
