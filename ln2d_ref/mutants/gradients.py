"""Backward passes with a term missing, scaled or handed back wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, Gradients, bias_gradient, input_gradient, sum_rows, weight_gradient
from .plant import plant

__all__ = ["planted"]

_NEARLY = 1.0001


def _weighted(
    *, own: float = 1.0, mean: float = 1.0, projection: float = 1.0, where: Callable[[Call], bool] = lambda call: True
) -> Callable[[Tensor, Tensor, Tensor, Call], Tensor]:
    """dx = rstd (own·g - mean·mean(g) - projection·x̂ mean(g x̂)), in calls where(call); the right one in others."""

    def part(g: Tensor, xhat: Tensor, rstd: Tensor, call: Call) -> Tensor:
        if not where(call):
            return input_gradient(g, xhat, rstd, call)
        averages = mean * g.mean(call.axes, keepdim=True) + projection * xhat * (g * xhat).mean(call.axes, keepdim=True)
        return rstd * (own * g - averages)

    return part


def _without_rstd(g: Tensor, xhat: Tensor, rstd: Tensor, call: Call) -> Tensor:
    return input_gradient(g, xhat, rstd / rstd, call)


def _no_bias(call: Call) -> bool:
    return call.bias is None


def _only_weight_learns(call: Call) -> bool:
    return call.needs == (False, True, False)


def _dweight_for_weight_alone(dy: Tensor, xhat: Tensor, call: Call) -> Tensor:
    return sum_rows(dy, call.weight) if _only_weight_learns(call) else weight_gradient(dy, xhat, call)


def _dweight_averaged(dy: Tensor, xhat: Tensor, call: Call) -> Tensor:
    return weight_gradient(dy, xhat, call) / max(dy.shape[2] * dy.shape[3], 1)


def _dx_for_dweight(gradients: Gradients, call: Call) -> Gradients:
    dx, dweight, dbias = gradients
    return dx, (dweight if dx is None or dweight is None else sum_rows(dx, call.weight).to(dweight.dtype)), dbias


def _swapped(gradients: Gradients, call: Call) -> Gradients:
    dx, dweight, dbias = gradients
    return (dx, dweight, dbias) if dweight is None or dbias is None else (dx, dbias.to(dweight), dweight.to(dbias))


def _of_x() -> Iterator[Mutant]:
    for name, fault, part in (
        ("dx_without_mean", "dx lacks the term mean(g).", _weighted(mean=0)),
        ("dx_without_projection", "dx lacks the term x̂·mean(g x̂).", _weighted(projection=0)),
        ("dx_without_rstd", "dx lacks the factor rstd.", _without_rstd),
        ("dx_own_term_off", "The term g of dx is multiplied by 1.0001.", _weighted(own=_NEARLY)),
        ("dx_mean_off", "The term mean(g) of dx is multiplied by 1.0001.", _weighted(mean=_NEARLY)),
        ("dx_projection_off", "The term x̂·mean(g x̂) of dx is multiplied by 1.0001.", _weighted(projection=_NEARLY)),
        ("dx_without_bias", "dx lacks the term mean(g) where there is no bias.", _weighted(mean=0, where=_no_bias)),
    ):
        yield from plant(f"gradients/{name}", fault, "backward arithmetic", semantics=SEMANTICS, input_gradient=part)


def _of_parameters() -> Iterator[Mutant]:
    for name, fault, parts in (
        ("dx_ignores_weight", "dx is computed from dy in place of dy·weight.", {"cotangent": lambda dy, weight, call: dy}),
        (
            "dweight_without_xhat",
            "dweight lacks the factor x̂.",
            {"weight_gradient": lambda dy, xhat, call: sum_rows(dy, call.weight)},
        ),
        ("dweight_off", "dweight is multiplied by 1.0001.", {"weight_gradient": lambda *of: _NEARLY * weight_gradient(*of)}),
        ("dweight_averaged", "dweight is averaged over pixels.", {"weight_gradient": _dweight_averaged}),
        (
            "dweight_alone",
            "dweight lacks the factor x̂ where only the weight requires grad.",
            {"weight_gradient": _dweight_for_weight_alone},
        ),
        (
            "dweight_none",
            "The gradient of the weight is None.",
            {"hand_back": lambda gradients, call: (gradients[0], None, gradients[2])},
        ),
        ("dweight_is_dx", "dx, summed over rows, is returned in dweight's place.", {"hand_back": _dx_for_dweight}),
        ("dweight_dbias_swapped", "dweight and dbias change places.", {"hand_back": _swapped}),
        ("dbias_off", "dbias is multiplied by 1.0001.", {"bias_gradient": lambda *of: _NEARLY * bias_gradient(*of)}),
        ("dbias_zero", "dbias is never written and stays 0.", {"bias_gradient": lambda dy, call: torch.zeros_like(call.bias)}),
    ):
        yield from plant(f"gradients/{name}", fault, "backward arithmetic", semantics=SEMANTICS, **parts)


def _cut() -> Iterator[Mutant]:
    for name, fault, deliver in (
        ("detached", "The result is cut off from the graph.", lambda y, x: y.detach()),
        (
            "detached_if_contiguous",
            "The result is cut off from the graph where x is contiguous.",
            lambda y, x: y.detach() if x.is_contiguous() else y,
        ),
    ):
        yield from plant(f"gradients/{name}", fault, "gradient cut", deliver=deliver)


def planted() -> Iterator[Mutant]:
    """Yield the mutants whose backward pass is wrong or missing."""
    yield from _of_x()
    yield from _of_parameters()
    yield from _cut()
