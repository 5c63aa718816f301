"""The shapes that people run, by name, and the settings that each is run in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

from ln2d_ref.dtypes import DTYPES

__all__ = ["QUICK", "SHAPES", "Setting", "settings"]

SHAPES: Mapping[str, tuple[str, tuple[int, int, int], tuple[int, ...]]] = MappingProxyType(
    {
        "convnext_t_stage1": ("channel", (96, 56, 56), (1, 32)),
        "convnext_t_stage2": ("channel", (192, 28, 28), (1, 32)),
        "convnext_t_stage3": ("channel", (384, 14, 14), (1, 32)),
        "convnext_t_stage4": ("channel", (768, 7, 7), (1, 32)),
        "convnext_b_stage1": ("channel", (128, 56, 56), (1, 32)),
        "convnext_b_stage2": ("channel", (256, 28, 28), (1, 32)),
        "convnext_b_stage3": ("channel", (512, 14, 14), (1, 32)),
        "convnext_b_stage4": ("channel", (1024, 7, 7), (1, 32)),
        "sam_neck": ("channel", (256, 64, 64), (1, 32)),
        "nafnet": ("channel", (32, 256, 256), (1, 32)),
        "odd": ("channel", (97, 17, 31), (1, 32)),
        "sample_small": ("sample", (64, 32, 32), (2,)),
        "sample_odd": ("sample", (97, 17, 31), (2,)),
    }
)
"""Name: semantics, (C, H, W), batch sizes. ConvNeXt-T and -B (Liu et al. 2022) at 224², the neck of SAM (Kirillov et al. 2023) at
1024², NAFNet (Chen et al. 2022) at 256²; sizes that divide nothing; few large groups."""

DTYPE_NAMES = ("float32", "bfloat16", "float16")
LAYOUTS = ("contiguous", "channels_last")
DIRECTIONS = ("forward", "backward")

QUICK = (
    ("convnext_t_stage3", 1, "float32", "contiguous"),
    ("convnext_t_stage3", 1, "float32", "channels_last"),
    ("convnext_t_stage1", 1, "float32", "contiguous"),
    ("convnext_t_stage4", 32, "float32", "contiguous"),
    ("sam_neck", 1, "float32", "contiguous"),
    ("odd", 1, "float32", "contiguous"),
    ("odd", 1, "bfloat16", "channels_last"),
    ("odd", 1, "float16", "contiguous"),
    ("sample_small", 2, "float32", "contiguous"),
)
"""What `--quick` runs of them, forward and backward."""


@dataclass(frozen=True)
class Setting:
    """One benchmark of an implementation: shape and batch, dtype, layout of x and dy, direction, device."""

    name: str
    batch: int
    dtype: str
    layout: str
    direction: str
    device: str = "cpu"

    @property
    def semantics(self) -> str:
        """Which implementations it is for."""
        return SHAPES[self.name][0]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return (self.batch, *SHAPES[self.name][1])

    @property
    def size(self) -> int:
        """T, the bytes of x."""
        return math.prod(self.shape) * DTYPES[self.dtype].numpy.itemsize

    @property
    def floor(self) -> int:
        """Bytes that cannot but be moved: forward reads x and writes y, backward reads x and dy and writes dx."""
        return (2 if self.direction == "forward" else 3) * self.size

    def __str__(self) -> str:
        """As it stands in a test's id and in baseline.json."""
        return f"{self.name}-b{self.batch}-{self.dtype}-{self.layout}-{self.direction}-{self.device}"


def settings(semantics: str, *, quick: bool, devices: tuple[str, ...]) -> Iterator[Setting]:
    """The settings for implementations of one semantics."""
    chosen = QUICK if quick else tuple(product(SHAPES, (1, 2, 32), DTYPE_NAMES, LAYOUTS))
    for (name, batch, dtype, layout), direction, device in product(chosen, DIRECTIONS, devices):
        if SHAPES[name][0] == semantics and batch in SHAPES[name][2]:
            yield Setting(name, batch, dtype, layout, direction, device)
