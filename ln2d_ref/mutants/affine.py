"""Weight and bias that are swapped, dropped, misread, or decide the result's dtype."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..semantics import SEMANTICS
from .mutant import Mutant
from .parts import Call, affine, read, weight_gradient
from .plant import plant

__all__ = ["planted"]


def _swapped(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    both = weight is not None and bias is not None
    return affine(xhat, bias, weight, call) if both else affine(xhat, weight, bias, call)


def _bias_needs_weight(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    return affine(xhat, weight, None if weight is None else bias, call)


def _weight_needs_bias(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    return affine(xhat, None if bias is None else weight, bias, call)


def _bias_scaled(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
    return affine(xhat if bias is None else xhat + bias, weight, None, call)


def _bfloat16_bits_as_float16(weight: Tensor, call: Call) -> Tensor:
    return read(weight.view(torch.float16) if weight.dtype == torch.bfloat16 else weight, call)


def _first_pixel(parameter: Tensor, call: Call) -> Tensor:
    return read(parameter[:, :1, :1].expand_as(parameter) if parameter.numel() else parameter, call)


def _pixels_transposed(parameter: Tensor, call: Call) -> Tensor:
    return read(parameter.transpose(1, 2).reshape(parameter.shape), call)


def _dweight_per_channel(dy: Tensor, xhat: Tensor, call: Call) -> Tensor:
    return weight_gradient(dy, xhat, call).sum((1, 2), keepdim=True).expand(call.weight.shape)


def _per_channel() -> Iterator[Mutant]:
    for name, fault, kind, parts in (
        ("swapped", "Weight and bias change places where both are given.", "optional affine", {"affine": _swapped}),
        (
            "bias_ignored",
            "The bias is ignored.",
            "optional affine",
            {"affine": lambda xhat, weight, bias, call: affine(xhat, weight, None, call)},
        ),
        (
            "weight_ignored",
            "The weight is ignored in the forward pass.",
            "optional affine",
            {"affine": lambda xhat, weight, bias, call: affine(xhat, None, bias, call)},
        ),
        (
            "weight_plus_one",
            "The weight is applied as 1 + weight.",
            "semantics mixed up",
            {"read_weight": lambda weight, call: 1 + read(weight, call)},
        ),
        ("bias_needs_weight", "The bias is dropped where there is no weight.", "optional affine", {"affine": _bias_needs_weight}),
        ("weight_needs_bias", "The weight is dropped where there is no bias.", "optional affine", {"affine": _weight_needs_bias}),
        (
            "bias_scaled",
            "The bias is added before the multiplication by the weight.",
            "semantics mixed up",
            {"affine": _bias_scaled},
        ),
        (
            "bfloat16_as_float16",
            "The bits of a bfloat16 weight are read as float16.",
            "dtype policy",
            {"read_weight": _bfloat16_bits_as_float16},
        ),
        ("dtype_of_arithmetic", "The result of 16-bit input is float32.", "dtype policy", {"finish": lambda y, call: y}),
    ):
        yield from plant(f"affine/{name}", fault, kind, semantics=SEMANTICS, **parts)


def _per_element() -> Iterator[Mutant]:
    for name, fault, kind, parts in (
        (
            "first_pixel",
            "A weight of shape (C, H, W) is read at its first pixel alone.",
            "optional affine",
            {"read_weight": _first_pixel},
        ),
        (
            "pixels_transposed",
            "A weight of shape (C, H, W) is read with H and W exchanged.",
            "layout",
            {"read_weight": _pixels_transposed},
        ),
        (
            "dweight_per_channel",
            "dweight of shape (C, H, W) is summed over pixels.",
            "backward arithmetic",
            {"weight_gradient": _dweight_per_channel},
        ),
    ):
        yield from plant(f"affine/{name}", fault, kind, semantics=("sample",), affine_shape="element", **parts)


def planted() -> Iterator[Mutant]:
    """Yield the mutants that apply weight or bias wrongly, or take their dtype for the result's."""
    yield from _per_channel()
    yield from _per_element()
