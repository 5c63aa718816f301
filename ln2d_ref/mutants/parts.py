"""The parts of a right LayerNorm2d: one small function for each step of forward and backward.

Arithmetic is float32, or float64 for float64 input; the variance takes two passes; each result is rounded once, into its own dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..semantics import affine_axes

__all__ = [
    "Call",
    "Gradients",
    "affine",
    "arithmetic",
    "bias_gradient",
    "cotangent",
    "deliver",
    "finish",
    "hand_back",
    "input_gradient",
    "normalise",
    "population_variance",
    "read",
    "reciprocal_root",
    "saved",
    "statistics",
    "sum_rows",
    "weight_gradient",
]

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True, eq=False)
class Call:
    """What was asked for: the caller's own tensors, and facts that follow from them. Every part takes it last.

    axes        the axes that are normalised together
    arithmetic  the dtype to compute in
    needs       whether x, weight and bias require grad
    """

    x: Tensor
    weight: Any  # a Tensor or None, as is bias
    bias: Any
    eps: float
    axes: tuple[int, ...]
    arithmetic: torch.dtype
    needs: tuple[bool, ...]

    @property
    def n(self) -> int:
        """Number of values normalised together."""
        return math.prod(self.x.shape[axis] for axis in self.axes)


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """Dtype to compute in for input of this dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def read(tensor: Tensor, call: Call) -> Tensor:
    """One of the caller's tensors in the arithmetic dtype."""
    return tensor.to(call.arithmetic)


def population_variance(x: Tensor, mean: Tensor, call: Call) -> Tensor:
    """var = mean((x - mean)²)."""
    return (x - mean).square().mean(call.axes, keepdim=True)


def reciprocal_root(variance: Tensor, call: Call) -> Tensor:
    """Rstd = 1/sqrt(var + eps)."""
    return (variance + call.eps).rsqrt()


def statistics(
    x: Tensor,
    call: Call,
    *,
    variance: Callable[[Tensor, Tensor, Call], Tensor] = population_variance,
    root: Callable[[Tensor, Call], Tensor] = reciprocal_root,
) -> tuple[Tensor, Tensor]:
    """Mean and rstd of each group, with length 1 along the group's axes."""
    mean = x.mean(call.axes, keepdim=True)
    return mean, root(variance(x, mean, call), call)


def normalise(x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """x̂ = (x - mean)·rstd."""
    return (x - mean) * rstd


def affine(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    """y = x̂·weight + bias, whichever are given; both broadcast against x̂."""
    y = xhat if weight is None else xhat * weight
    return y if bias is None else y + bias


def finish(y: Tensor, call: Call) -> Tensor:
    """The result y in x's dtype."""
    return y.to(call.x.dtype)


def saved(x: Tensor, mean: Tensor, rstd: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """The x̂ and rstd that the backward pass uses."""
    return normalise(x, mean, rstd), rstd


def cotangent(dy: Tensor, weight: Tensor | None, call: Call) -> Tensor:
    """g = dy·weight."""
    return dy if weight is None else dy * weight


def input_gradient(g: Tensor, xhat: Tensor, rstd: Tensor, call: Call) -> Tensor:
    """dx = rstd (g - mean(g) - x̂ mean(g x̂))."""
    return rstd * (g - g.mean(call.axes, keepdim=True) - xhat * (g * xhat).mean(call.axes, keepdim=True))


def sum_rows(terms: Tensor, parameter: Tensor) -> Tensor:
    """Sum of terms of x's shape over the axes that the parameter lacks."""
    return terms.sum(affine_axes(parameter.shape))


def weight_gradient(dy: Tensor, xhat: Tensor, call: Call) -> Tensor:
    """Dweight = Σ dy·x̂."""
    return sum_rows(dy * xhat, call.weight)


def bias_gradient(dy: Tensor, call: Call) -> Tensor:
    """Dbias = Σ dy."""
    return sum_rows(dy, call.bias)


def hand_back(gradients: Gradients, call: Call) -> Gradients:
    """The gradients of x, weight and bias; None where none is needed."""
    return gradients


def deliver(y: Tensor, x: Tensor) -> object:
    """What the caller gets; outside autograd's view of the function."""
    return y
