"""python -m benchmarks.planted: does --regress find a slowdown of 10 % that was planted, and leave unchanged code alone?

Each run measures as the benchmarks do, and is held against a baseline as --regress holds it. The planted code does
the work of 22 samples where the unchanged code does that of 20: 10 % more of the same, which noise slows down as it does the rest.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from ln2d_ref import load

from .alternation import Alternation, on_cpu
from .machine import machine
from .ratios import LEAST_PAIRS, Comparison, Ratio
from .report import regression

__all__ = ["main", "measured", "outcome"]

_SHAPE = (22, 64, 16, 8)
_UNCHANGED = 20


def main() -> None:
    """Print how many runs found the planted slowdown, and how many failed without one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planted", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20, help="of each kind (default 20)")
    parser.add_argument("--pairs", type=int, default=LEAST_PAIRS, help=f"a run (default and least {LEAST_PAIRS})")
    parser.add_argument("--regress", type=float, default=5.0, metavar="PERCENT", help="as of the benchmarks (default 5)")
    options = parser.parse_args()
    if options.pairs < LEAST_PAIRS or options.runs < 1:
        parser.error(f"--pairs must be at least {LEAST_PAIRS}, and --runs at least 1")
    unchanged, slower = _calls()
    print(machine())
    baseline = measured(unchanged, unchanged, options.pairs, seed=0).ratio
    print(f"baseline {baseline}, {options.pairs} pairs a run, --regress {options.regress:g}")
    for name, call in (("planted 10 %", slower), ("A/A", unchanged)):
        found: Counter[str] = Counter()
        for run in range(options.runs):
            comparison = measured(call, unchanged, options.pairs, seed=1 + run)
            word = outcome(comparison, baseline, options.regress)
            found[word] += 1
            print(f"  {name:<13} {comparison.ratio}  A/A {comparison.control.median:.3f}  {word}", flush=True)
        print(f"{name}: {found['fails']} of {options.runs} fail, {found['passes']} pass, {found['inconclusive']} inconclusive", flush=True)


def outcome(comparison: Comparison, baseline: Ratio, percent: float) -> str:
    """What a run of the benchmarks would come to."""
    if comparison.verdict == "inconclusive":
        return "inconclusive"
    return "passes" if regression(comparison, baseline, percent) is None else "fails"


def measured(call: Callable[[], Any], yardstick: Callable[[], Any], pairs: int, *, seed: int) -> Comparison:
    """A comparison as the benchmarks make it: an inconclusive one goes on."""
    calls = {"implementation": on_cpu(call), "yardstick": on_cpu(yardstick)}
    alternation = Alternation({**calls, "control": calls["yardstick"]}, seed=seed)
    return alternation.comparison(pairs)


def _calls() -> tuple[Callable[[], Any], Callable[[], Any]]:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=generator) for size in (_SHAPE, _SHAPE[1:2], _SHAPE[1:2]))
    fewer = x[:_UNCHANGED]
    fn = load("torch/permute").fn

    def unchanged() -> None:
        fn(fewer, weight, bias, 1e-6)

    def slower() -> None:
        fn(x, weight, bias, 1e-6)

    return unchanged, slower


if __name__ == "__main__":
    main()
