"""What comes after the statistics: the last step of the forward pass, and the gradient of x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .exact import Array
from .sums import Sums

__all__ = ["InputGradient", "LastStep", "Normalised", "centred", "folded", "normalised", "normalised_by_folding", "plain"]
__all__ += ["premultiplied", "scaled_by_count", "uncentred"]


@dataclass(frozen=True)
class Normalised:
    """Groups and what was found of them: x and xhat of shape (groups, n), mean and rstd of shape (groups, 1)."""

    x: Array
    mean: Array
    rstd: Array
    xhat: Array


# Weight and bias of shape (1, n), or None.
LastStep = Callable[[Normalised, Array | None, Array | None], Array]
InputGradient = Callable[[Array, Normalised, Sums], Array]
_MultiplyAdd = Callable[[Array, Array, Array], Array]


def normalised(x: Array, mean: Array, rstd: Array) -> Array:
    """x̂ = (x - mean) rstd."""
    return (x - mean) * rstd


def normalised_by_folding(x: Array, mean: Array, rstd: Array) -> Array:
    """x̂ = x rstd - mean rstd, for n > 1 (at n = 1 it would not be zero where the products round apart)."""
    return x * rstd - mean * rstd if x.shape[1] > 1 else normalised(x, mean, rstd)


def plain(groups: Normalised, weight: Array | None, bias: Array | None) -> Array:
    """y = x̂ w + b."""
    y = groups.xhat if weight is None else groups.xhat * weight
    return y if bias is None else y + bias


def premultiplied(groups: Normalised, weight: Array | None, bias: Array | None) -> Array:
    """y = (x - mean) (rstd w) + b, where n > 1 (at n = 1 an overflow of rstd w would make NaN of 0)."""
    if groups.x.shape[1] == 1:
        return plain(groups, weight, bias)
    scale = _scale(groups, weight)
    y = (groups.x - groups.mean) * scale
    return _where_precise(y if bias is None else y + bias, scale, groups, weight, bias)


def folded(multiply_add: _MultiplyAdd) -> LastStep:
    """y = x scale + shift with scale = rstd w, shift = b - mean scale, where n > 1.

    `multiply_add(a, b, c)` is a b + c, rounded once or twice.
    """

    def step(groups: Normalised, weight: Array | None, bias: Array | None) -> Array:
        if groups.x.shape[1] == 1:
            return plain(groups, weight, bias)
        scale = _scale(groups, weight)
        shift = multiply_add(-groups.mean, scale, np.zeros_like(scale) if bias is None else bias)
        return _where_precise(multiply_add(groups.x, scale, shift), scale, groups, weight, bias)

    return step


def centred(g: Array, groups: Normalised, sums: Sums) -> Array:
    """dx = rstd (g - mean(g) - x̂ mean(g x̂))."""
    return groups.rstd * (g - sums.mean(g) - groups.xhat * sums.mean(g * groups.xhat))


def scaled_by_count(g: Array, groups: Normalised, sums: Sums) -> Array:
    """dx = (n g - Σ g - x̂ Σ g x̂) (rstd / n), as in PyTorch's CUDA kernel (layer_norm_kernel.cu, layer_norm_grad_input_kernel)."""
    n = g.dtype.type(g.shape[1])
    return (n * g - sums.total(g) - groups.xhat * sums.total(g * groups.xhat)) * (groups.rstd / n)


def uncentred(g: Array, groups: Normalised, sums: Sums) -> Array:
    """dx = rstd g + b x + c, with b = (mean Σ g - Σ g x) rstd³ / n and c = -b mean - rstd Σ g / n.

    As in PyTorch's CPU kernel (layer_norm_kernel.cpp, layer_norm_backward_frame). Both the sums and b x + c cancel where |mean|
    is large beside the spread.
    """
    n = g.dtype.type(g.shape[1])
    rstd, mean = groups.rstd, groups.mean
    total = sums.total(g)
    b = (total * mean - sums.total(g * groups.x)) * rstd * rstd * rstd / n
    c = -b * mean - total * rstd / n
    return rstd * g + b * groups.x + c


def _scale(groups: Normalised, weight: Array | None) -> Array:
    """Factor rstd w that the folded forms multiply by."""
    return groups.rstd if weight is None else groups.rstd * weight


def _where_precise(y: Array, scale: Array, groups: Normalised, weight: Array | None, bias: Array | None) -> Array:
    """y, but the plain form where rstd w underflows: there x̂ w need not, and x rstd w is off by far more than its rounding."""
    precise = np.abs(scale) >= np.finfo(scale.dtype).tiny
    if weight is not None:
        precise |= weight == 0
    return np.where(precise, y, plain(groups, weight, bias))
