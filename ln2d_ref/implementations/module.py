"""An nn.Module class as an implementation: built for the sizes of x, and given its weight and bias at each call."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from threading import get_ident
from typing import Any

import torch

__all__ = ["from_module", "module_size"]

_COMBINATION = {
    frozenset({"weight", "bias"}): "both",
    frozenset({"weight"}): "weight",
    frozenset({"bias"}): "bias",
    frozenset(): "none",
}


def module_size(shape: tuple[int, ...], affine_shape: str) -> int | tuple[int, ...]:
    """What a module class is given to be built for x of this shape: C, or (C, H, W) where its parameters have that shape."""
    return tuple(shape[1:]) if affine_shape == "element" else shape[1]


def from_module(cls: type[torch.nn.Module], affine_shape: str = "channel") -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function fn(x, weight, bias, eps) that a module class computes, and what it shows of itself.

    It is built as cls(C, eps=eps), or cls((C, H, W), eps=eps) where `affine_shape` is "element". Its parameters must be called weight and
    bias, or be absent; they are replaced by the arguments through torch.func.functional_call, so that gradients reach them;
    fn.module_class is the class, fn.at(size, eps) the same function of one module, and fn.built_for(shape) that of modules for x of this
    shape, whatever it is called with.
    TypeError for one that cannot be built or has other parameters.
    """
    size = module_size((1, 4, 1, 1), affine_shape)
    try:
        example = cls(size, eps=1e-5)
    except Exception as error:
        raise TypeError(f"{cls.__name__}({size}, eps=1e-05) raises {type(error).__name__}: {error}") from None
    names = frozenset(name for name, _ in example.named_parameters())
    if names not in _COMBINATION:
        raise TypeError(f"{cls.__name__} has parameters {', '.join(sorted(names))}, but may have weight and bias only")

    def at(size: int | tuple[int, ...], eps: float) -> Callable[..., Any]:
        module = cls(size, eps=eps)
        shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}

        def call_of(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float) -> Any:
            given = {name: value for name, value in (("weight", weight), ("bias", bias)) if value is not None}
            for name, value in given.items():  # functional_call would take what load_state_dict refuses
                if tuple(value.shape) != shapes[name]:
                    raise ValueError(f"{name} has shape {tuple(value.shape)}, but must have {shapes[name]} for x of shape {tuple(x.shape)}")
            return torch.func.functional_call(module, given, (x,))

        return call_of

    @lru_cache(maxsize=64)
    def kept(size: int | tuple[int, ...], eps: float, thread: int) -> Callable[..., Any]:
        return at(size, eps)  # one for each thread: functional_call exchanges its parameters for the time of a call

    def call(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float) -> Any:
        return built_for(tuple(x.shape))(x, weight, bias, eps)

    def built_for(shape: tuple[int, ...]) -> Callable[..., Any]:
        size = module_size(shape, affine_shape)
        return lambda x, weight, bias, eps: kept(size, eps, get_ident())(x, weight, bias, eps)

    call.__name__ = cls.__name__
    call.__dict__ |= {"module_class": cls, "at": at, "built_for": built_for}
    return call, {"affine": (_COMBINATION[names],)}
