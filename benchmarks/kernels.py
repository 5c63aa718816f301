"""`python -m benchmarks.kernels [--rounds 50] [--out FILE]`: the fused kernels on a GPU, beside a copy and what there was before.

Each cell is a time over that of `y.copy_(x)`, the median of rounds in which all of a row take their turn: by CUDA events, on buffers that
are rotated past the second-level cache, x of at least four times its size. Every result of a fused kernel is judged too. The last lines
say which aims are met.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ln2d_ref import Implementation, Violation, load
from ln2d_ref.dtypes import DTYPES

from .alternation import Alternation
from .judging import judged
from .machine import machine
from .settings import DIRECTIONS, DTYPE_NAMES, Setting
from .workloads import Arguments, arguments, copying, workload

__all__ = ["AIMS", "Row", "Sized", "judge_aims", "row_of", "table"]

CHANNELS, ODD, SAMPLES = (64, 128, 256, 512, 1024), (97, 17, 31), (1, 16)
_CACHES = 4
"""Times the second-level cache that x has at least."""

_FUSED = ("triton/fused", "cuda/fused")


@dataclass(frozen=True)
class Sized(Setting):
    """A setting by size instead of name."""

    sides: tuple[int, int, int] = (1, 1, 1)
    of: str = "channel"

    @property
    def semantics(self) -> str:
        """Which implementations it is for."""
        return self.of

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return (self.batch, *self.sides)


@dataclass(frozen=True)
class Row:
    """One size, dtype and direction: each contestant's time over the copy's, and how the fused ones were judged."""

    setting: Sized
    over_copy: Mapping[str, float]
    judged: Mapping[str, str]


AIMS: Mapping[str, Callable[[Row], float | None]] = {
    "channel: forward at most 1.10 copies": lambda row: _worst(row, "channel", "forward", lambda t, over: t / 1.10),
    "channel: backward at most 1.75 copies": lambda row: _worst(row, "channel", "backward", lambda t, over: t / 1.75),
    "channel, C > 64: 1.2 times faster than torch.compile": lambda row: (
        _worst(row, "channel", None, lambda t, over: 1.2 * t / over["compile"]) if row.setting.shape[1] > 64 else None
    ),
    "channel: 1.8 times faster than permute, F.layer_norm, contiguous": lambda row: _worst(
        row, "channel", None, lambda t, over: 1.8 * t / over["eager"]
    ),
    "sample, N <= 16: 8 times faster than nn.LayerNorm": lambda row: _worst(row, "sample", None, lambda t, over: 8 * t / over["eager"]),
}
"""Each aim with how far a row is from it, at most 1 where it is met; None where it says nothing of the row."""


def _worst(row: Row, semantics: str, direction: str | None, distance: Callable[[float, Mapping[str, float]], float]) -> float | None:
    """Of the fused kernels the one nearest to the aim: a user takes the faster. Odd sizes have an aim of their own."""
    times = [time for name, time in row.over_copy.items() if name.startswith(_FUSED)]
    setting = row.setting
    if setting.semantics != semantics or direction not in (None, setting.direction) or setting.sides == ODD or not times:
        return None
    return distance(min(times), row.over_copy)


def _odd(rows: Sequence[Row], row: Row) -> float | None:
    """An odd size's best time over a copy's, by half of that of 128 channels in the same dtype and direction."""
    setting = row.setting
    even = [
        other
        for other in rows
        if other.setting.sides[0] == 128 and (other.setting.dtype, other.setting.direction) == (setting.dtype, setting.direction)
    ]
    if setting.sides != ODD or not even:
        return None
    own, theirs = (min(time for name, time in each.over_copy.items() if name.startswith(_FUSED)) for each in (row, even[0]))
    return own / theirs / 2


def contestants(semantics: str) -> dict[str, Implementation]:
    """The fused kernels, the recipe through torch.compile, and the recipe as it is; what is not installed is left out."""
    recipe = load("torch/permute" if semantics == "channel" else "torch/layer_norm_chw")
    fn = recipe.fn

    def eager(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        return fn(x, weight, bias, eps).contiguous()

    found = {}
    for name in _FUSED if semantics == "channel" else [f"{name}_sample_chw" for name in _FUSED]:
        try:
            found[name] = load(name)
        except ImportError as error:
            print(f"{name}: {error}", file=sys.stderr)
    return found | {"compile": replace(recipe, fn=torch.compile(eager, fullgraph=True, dynamic=False)), "eager": replace(recipe, fn=eager)}


def row_of(setting: Sized, implementations: Mapping[str, Implementation], sets: list[Arguments], *, rounds: int) -> Row:
    """Time every implementation and the copy in turn."""
    works = {name: workload(implementation, setting, sets) for name, implementation in implementations.items()}
    alternation = Alternation({name: work.timed for name, work in works.items()} | {"copy": copying(setting, sets)}, seed=0)
    for _ in range(rounds):
        alternation.round()
    copied = np.array(alternation.times["copy"])
    over_copy = {name: float(np.median(np.array(alternation.times[name]) / copied)) for name in works}
    return Row(setting, over_copy, {name: _verdict(work, setting) for name, work in works.items() if name.startswith(_FUSED)})


def _verdict(work: Any, setting: Sized) -> str:
    try:
        return judged(work, setting)
    except Violation as violation:
        return f"WRONG: {violation.headline}"


def _settings(device: str) -> Iterator[Sized]:
    """All sizes, each large enough, forward."""
    cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    for dtype in DTYPE_NAMES:
        least = _CACHES * cache / DTYPES[dtype].numpy.itemsize
        for sides in (*((channels, 56, 56) for channels in CHANNELS), ODD):
            yield Sized("channel", math.ceil(least / math.prod(sides)), dtype, "contiguous", "forward", device, sides)
        for samples in SAMPLES:
            side = 8 * math.ceil(math.sqrt(least / samples / 64) / 8)
            yield Sized("sample", samples, dtype, "contiguous", "forward", device, (64, side, side), "sample")


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each row."""
    names = list(dict.fromkeys(name.removesuffix("_sample_chw") for row in rows for name in row.over_copy))
    lines = [f"| size | dtype | direction | {' | '.join(names)} | judged |", "|---" * (len(names) + 4) + "|"]
    for row in rows:
        times = {name.removesuffix("_sample_chw"): time for name, time in row.over_copy.items()}
        cells = [f"{times[name]:.2f}" if name in times else "" for name in names]
        size = f"{row.setting.semantics} {'x'.join(map(str, row.setting.shape))}"
        lines.append(f"| {size} | {row.setting.dtype} | {row.setting.direction} | {' | '.join(cells)} | {'; '.join(row.judged.values())} |")
    return "\n".join(lines)


def judge_aims(rows: Sequence[Row]) -> list[str]:
    """A line for each aim: in how many rows it is met, and the row that is farthest from it."""
    lines = []
    across: dict[str, Callable[[Row], float | None]] = {"odd sizes: half the bandwidth of C = 128 or better": partial(_odd, rows)}
    for aim, distance in {**AIMS, **across}.items():
        told = [(far, row) for row in rows if (far := distance(row)) is not None]
        if told:
            met, (far, row) = sum(far <= 1 for far, _ in told), max(told, key=lambda pair: pair[0])
            where = f"{'x'.join(map(str, row.setting.shape))} {row.setting.dtype} {row.setting.direction}"
            lines.append(f"- {aim}: met in {met} of {len(told)} rows; farthest, by a factor of {far:.2f}: {where}")
    return lines


def main() -> int:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--out", type=Path, help="file to write; by default it is printed")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch finds no CUDA device: there is nothing to measure", file=sys.stderr)
        return 1
    rows: list[Row] = []
    for forward in _settings("cuda"):
        torch._dynamo.reset()  # it gives a code object up after eight compilations
        sets = arguments(forward)
        for setting in (replace(forward, direction=direction) for direction in DIRECTIONS):
            try:
                rows.append(row_of(setting, contestants(setting.semantics), sets, rounds=options.rounds))
            except Exception as error:  # of a compiler, or for want of memory: the other rows count all the same
                print(f"{setting.shape} {setting.dtype} {setting.direction}: {type(error).__name__}: {error}", file=sys.stderr)
        del sets
        torch.cuda.empty_cache()
        if options.out is not None:
            options.out.write_text(_told(rows, options.rounds), encoding="utf-8")
    if options.out is None:
        print(_told(rows, options.rounds))
    return 0


def _told(rows: Sequence[Row], rounds: int) -> str:
    return "\n".join([f"{machine('cuda')}, {rounds} rounds", "", table(rows), "", *judge_aims(rows), ""])


if __name__ == "__main__":
    sys.exit(main())
