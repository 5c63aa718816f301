"""What torch can do with a LayerNorm2d beyond y and its gradients: each way of differentiating or batching it, as one function.

A way takes fn, the arguments and dy by name, eps, two directions (tensors by argument; the others are held fast) and a batch (tensors
with a leading axis, by argument), and returns its results by quantity; None stands for a gradient that autograd finds no path to. It
uses nothing but torch, so that a reproducing script can quote it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

__all__ = ["WAYS"]


def double_backward(fn: Any, given: Any, eps: float, along: Any, then: Any, batch: Any) -> Any:
    """Gradients of sum(gradient·direction) with respect to dy and the arguments.

    By backward and not by grad, which goes round the error that torch's once_differentiable has laid, and finds no path.
    """
    leaves = {name: tensor.detach().requires_grad_(name == "dy" or name in along) for name, tensor in given.items()}
    y = fn(leaves["x"], leaves.get("weight"), leaves.get("bias"), eps)
    first = torch.autograd.grad(y, [leaves[name] for name in along], leaves["dy"], create_graph=True, allow_unused=True)
    kept = [(end, along[name]) for name, end in zip(along, first, strict=True) if end is not None and end.requires_grad]
    if kept:  # else the gradients are constants for autograd
        torch.autograd.backward(*zip(*kept, strict=True))
    return {"ddy": leaves["dy"].grad, **{"dd" + name: leaves[name].grad for name in along}}


def third_order(fn: Any, given: Any, eps: float, along: Any, then: Any, batch: Any) -> Any:
    """Gradients of sum(second·direction), where second are those of sum(gradient·direction), with respect to dy and the arguments.

    The first direction requires grad, without which torch's once_differentiable would return constants where it should raise.
    """
    along = {name: direction.requires_grad_() for name, direction in along.items()}
    leaves = {name: tensor.detach().requires_grad_(name == "dy" or name in along) for name, tensor in given.items()}
    y = fn(leaves["x"], leaves.get("weight"), leaves.get("bias"), eps)
    ends = torch.autograd.grad(y, [leaves[name] for name in along], leaves["dy"], create_graph=True, allow_unused=True)
    for direction, last in ((along, False), (then, True)):
        kept = [(end, direction[name]) for name, end in zip(along, ends, strict=True) if end is not None and end.requires_grad]
        for leaf in leaves.values():
            leaf.grad = None
        if kept:  # else they are constants for autograd
            torch.autograd.backward(*zip(*kept, strict=True), create_graph=not last)
        ends = [leaves[name].grad for name in along]
    return {"dddy": leaves["dy"].grad, **{"ddd" + name: leaves[name].grad for name in along}}


def forward_mode(fn: Any, given: Any, eps: float, along: Any, then: Any, batch: Any) -> Any:
    """y and its derivative along the first direction, by dual tensors."""
    with torch.autograd.forward_ad.dual_level():
        make_dual = torch.autograd.forward_ad.make_dual
        at = {name: make_dual(tensor.detach(), along[name]) if name in along else tensor.detach() for name, tensor in given.items()}
        y = fn(at["x"], at.get("weight"), at.get("bias"), eps)
        primal, tangent = torch.autograd.forward_ad.unpack_dual(y)
        return {"primal": primal, "tangent": tangent}


def forward_over_reverse(fn: Any, given: Any, eps: float, along: Any, then: Any, batch: Any) -> Any:
    """Derivatives of the gradients along the first direction: torch.func.jvp of torch.func.vjp."""

    def gradients(*values: Any) -> Any:
        def call(*values: Any) -> Any:
            at = {**given, **dict(zip(along, values, strict=True))}
            return fn(at["x"], at.get("weight"), at.get("bias"), eps)

        return torch.func.vjp(call, *values)[1](given["dy"])

    given = {name: tensor.detach() for name, tensor in given.items()}
    tangents = torch.func.jvp(gradients, tuple(given[name] for name in along), tuple(along.values()))[1]
    return dict(zip(["td" + name for name in along], tangents, strict=True))


def nested_forward(fn: Any, given: Any, eps: float, along: Any, then: Any, batch: Any) -> Any:
    """The derivative of y along the first direction, and of that along the second: torch.func.jvp of torch.func.jvp.

    Refused for an autograd.Function: torch 2.13 then gives 0, which says nothing about the Function (docs/findings.md).
    """

    def call(*values: Any) -> Any:
        at = {**given, **dict(zip(along, values, strict=True))}
        return fn(at["x"], at.get("weight"), at.get("bias"), eps)

    def tangent(*values: Any) -> Any:
        return torch.func.jvp(call, values, tuple(along.values()))[1]

    pending = [call(*(given[name].detach().requires_grad_() for name in along)).grad_fn]
    while pending:
        node = pending.pop()
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            raise NotImplementedError("torch.func.jvp of torch.func.jvp gives 0 through an autograd.Function, whatever its jvp is")
        pending += [following for following, _ in getattr(node, "next_functions", ()) if following is not None]
    given = {name: tensor.detach() for name, tensor in given.items()}
    return {"ttangent": torch.func.jvp(tangent, tuple(given[name] for name in along), tuple(then.values()))[1]}


def vmap(fn: Any, given: Any, eps: float, along: Any, then: Any, batch: Any) -> Any:
    """y for each member of the batch, by torch.func.vmap."""

    def call(members: Any) -> Any:
        at = {**given, **members}
        return fn(at["x"], at.get("weight"), at.get("bias"), eps)

    given = {name: tensor.detach() for name, tensor in given.items()}
    return {"vmap_y": torch.func.vmap(call)({name: value for name, value in batch.items() if name != "dy"})}


def vmap_over_vjp(fn: Any, given: Any, eps: float, along: Any, then: Any, batch: Any) -> Any:
    """The gradients for each member of the batch: torch.func.vmap over torch.func.vjp."""

    def gradients(members: Any) -> Any:
        at = {**given, **members}

        def call(*values: Any) -> Any:
            here = {**at, **dict(zip(along, values, strict=True))}
            return fn(here["x"], here.get("weight"), here.get("bias"), eps)

        return torch.func.vjp(call, *(at[name] for name in along))[1](at["dy"])

    given = {name: tensor.detach() for name, tensor in given.items()}
    return dict(zip(["vmap_d" + name for name in along], torch.func.vmap(gradients)(batch), strict=True))


WAYS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "double backward": double_backward,
        "third order": third_order,
        "forward mode": forward_mode,
        "forward over reverse": forward_over_reverse,
        "nested forward": nested_forward,
        "vmap": vmap,
        "vmap over vjp": vmap_over_vjp,
        "vmap over parameters too": vmap,
        "vmap over parameters and vjp": vmap_over_vjp,
    }
)
"""Ways by name; where the parameters are named, the batch holds them too, else x and dy only."""
