"""python -m benchmarks.planted: does --regress find a slowdown of 10 % that was planted, and leave unchanged code alone?

Each run is a process of its own, as a user's is, measures as the benchmarks do, and is held against a baseline of earlier ones as --regress
holds it. The planted code does the work of 22 samples where the unchanged code does that of 20: 10 % more of the same, which noise slows
down as it does the rest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ln2d_ref import load

from .alternation import Alternation, Timed, on_cpu
from .baseline import LEAST_SESSIONS, MOST_SESSIONS
from .machine import machine
from .placement import other_memory
from .ratios import LEAST_PAIRS, Comparison, Ratio
from .report import regression

__all__ = ["main", "measured", "outcome"]

_SHAPE = (22, 64, 16, 8)
_SAMPLES = {"planted 10 %": 22, "A/A": 20}


def main() -> None:
    """Print how many runs found the planted slowdown, and how many failed without one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planted", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20, help="of each kind (default 20)")
    parser.add_argument("--sessions", type=int, default=5, help="of the baseline (default 5)")
    parser.add_argument("--pairs", type=int, default=LEAST_PAIRS, help=f"a run (default and least {LEAST_PAIRS})")
    parser.add_argument("--regress", type=float, default=5.0, metavar="PERCENT", help="as of the benchmarks (default 5)")
    parser.add_argument("--once", choices=_SAMPLES, help="measure in this process, and print the comparison as JSON")
    options = parser.parse_args()
    if options.pairs < LEAST_PAIRS or options.runs < 1 or not LEAST_SESSIONS <= options.sessions <= MOST_SESSIONS:
        parser.error(f"--pairs must be at least {LEAST_PAIRS}, --runs at least 1, --sessions {LEAST_SESSIONS} to {MOST_SESSIONS}")
    if options.once:
        print(json.dumps(asdict(measured(_SAMPLES[options.once], options.pairs))))
        return
    print(machine())
    baseline = [_measured_apart("A/A", options.pairs).ratio for _ in range(options.sessions)]
    print(f"baseline {', '.join(map(str, baseline))}; {options.pairs} pairs a run, --regress {options.regress:g}", flush=True)
    for kind in _SAMPLES:
        found: Counter[str] = Counter()
        for _ in range(options.runs):
            comparison = _measured_apart(kind, options.pairs)
            word = outcome(comparison, baseline, options.regress)
            found[word] += 1
            print(f"  {kind:<13} {comparison.ratio}  A/A {comparison.control.median:.3f}  {word}", flush=True)
        print(f"{kind}: {found['fails']} of {options.runs} fail, {found['passes']} pass, {found['inconclusive']} inconclusive", flush=True)


def outcome(comparison: Comparison, baseline: Sequence[Ratio], percent: float) -> str:
    """What a run of the benchmarks would come to."""
    if comparison.verdict == "inconclusive":
        return "inconclusive"
    return "passes" if regression(comparison, baseline, percent) is None else "fails"


def measured(samples: int, pairs: int) -> Comparison:
    """A comparison as the benchmarks make it: on other memory every few rounds, and an inconclusive one goes on."""
    rng = np.random.default_rng()
    fn = load("torch/permute").fn
    held: list[Any] = []

    def placed() -> Mapping[str, Timed]:
        held[:] = []
        held[:] = other_memory(rng)
        x = torch.randn(_SHAPE)

        def call(count: int) -> Callable[[], Any]:
            weight, bias = (torch.randn(_SHAPE[1]) for _ in range(2))
            return lambda: fn(x[:count], weight, bias, 1e-6)

        own = {"implementation": samples, "yardstick": _SAMPLES["A/A"], "control": _SAMPLES["A/A"]}
        return {name: on_cpu(call(count)) for name, count in own.items()}

    return Alternation(placed, seed=int(rng.integers(1 << 32))).comparison(pairs)


def _measured_apart(kind: str, pairs: int) -> Comparison:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.planted", "--once", kind, "--pairs", str(pairs)]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return Comparison(Ratio(**found["ratio"]), Ratio(**found["control"]), found["waiting"])


if __name__ == "__main__":
    main()
