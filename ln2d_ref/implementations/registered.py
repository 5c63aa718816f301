"""The built-in implementations: where each is, and what is declared about it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["REGISTERED"]

REGISTERED: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "torch/permute": ("eager:permute", {}),
        "torch/composed": ("eager:composed", {"arithmetic": "input"}),
        "torch/composed_float32": ("eager:composed_float32", {}),
        "torch/layer_norm_chw": ("eager:layer_norm_chw", {"semantics": "sample", "affine_shape": "element"}),
        "torch/group_norm": ("eager:group_norm", {"semantics": "sample"}),
        "torch/unpermuted": ("eager:unpermuted", {"semantics": "sample"}),
        "triton/fused": ("kernels.triton_fused:channel", {}),
        "triton/fused_sample": ("kernels.triton_fused:sample", {"semantics": "sample"}),
        "triton/fused_sample_chw": ("kernels.triton_fused:sample", {"semantics": "sample", "affine_shape": "element"}),
        "cuda/fused": ("kernels.cuda_fused:channel", {}),
        "cuda/fused_sample": ("kernels.cuda_fused:sample", {"semantics": "sample"}),
        "cuda/fused_sample_chw": ("kernels.cuda_fused:sample", {"semantics": "sample", "affine_shape": "element"}),
        "compile/permute": ("eager:permute", {"framework": "compile"}),
        "compile/composed": ("eager:composed", {"framework": "compile", "arithmetic": "input"}),
        "compile/layer_norm_chw": ("eager:layer_norm_chw", {"framework": "compile", "semantics": "sample", "affine_shape": "element"}),
        "compile/group_norm": ("eager:group_norm", {"framework": "compile", "semantics": "sample"}),
        "numpy/reference": ("numpy:reference", {"framework": "numpy"}),
        "numpy/reference_sample": ("numpy:reference_sample", {"framework": "numpy", "semantics": "sample"}),
    }
)
"""Built-in implementations: where each is, and what is declared about it."""
