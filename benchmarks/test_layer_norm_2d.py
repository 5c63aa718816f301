"""Forward and backward of each implementation at the shapes that people run, beside a yardstick and a copy."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from ln2d_ref import Implementation, Violation

from .alternation import Alternation, Clock, affordable
from .judging import judged
from .ratios import LEAST_PAIRS, LONGEST_WAIT
from .report import Report, lasting
from .settings import Setting
from .workloads import Contenders, Workload

_QUICK_SECONDS = 8.0
"""Seconds that `--quick` gives one comparison: 18 of an implementation of `channel` take less than three minutes."""


def test_time(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    report: Report,
    implementation: Implementation,
    yardstick: Implementation,
    setting: Setting,
) -> None:
    """No slower than the baseline, where --regress says so; and right, in any case."""
    if setting.device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    if implementation.framework != "torch":
        pytest.skip(f"only torch implementations are timed, and {implementation.name} is on {implementation.framework}")
    for each in (implementation, yardstick):
        if setting.dtype not in each.dtypes:
            pytest.skip(f"{each.name} is declared for {', '.join(each.dtypes)}")
    name = f"{implementation.name}-{setting}" + ("" if request.config.getoption("--against") is None else f"-against-{yardstick.name}")
    contenders = Contenders(implementation, yardstick, setting)

    def alternated(seed: int) -> Alternation:
        return Alternation(contenders.placed if setting.device == "cpu" else contenders.placed(), seed=seed)

    alternation = alternated(0)
    clock: Clock = request.node.get_closest_marker("benchmark").kwargs["timer"]
    rounds, continued = LEAST_PAIRS, 9
    if request.config.getoption("--quick"):
        rounds, continued = affordable(alternation, _QUICK_SECONDS)

    def a_round() -> None:
        alternation.round()
        clock.now += alternation.times["implementation"][-1]

    benchmark.pedantic(a_round, rounds=max(1, rounds - alternation.rounds))
    verdict, wrong = _judged(contenders.work, setting)
    if wrong:
        pytest.fail(verdict, pytrace=False)
    if not benchmark.enabled:  # --benchmark-disable runs one round, which says nothing of time
        return
    comparison = lasting(
        alternation.comparison(rounds, continued=continued),
        lambda: alternated(1).comparison(rounds, continued=continued),
        lambda found: report.told(name, setting.device, found) is not None,
    )
    rate = setting.floor / alternation.median("implementation") / 1e9
    copy_rate = 2 * setting.size / alternation.median("copy") / 1e9
    ratio = comparison.ratio
    benchmark.extra_info.update(
        implementation=implementation.name,
        yardstick=yardstick.name,
        setting=str(setting),
        direction=setting.direction,
        device=setting.device,
        dtype=setting.dtype,
        layout=setting.layout,
        shape=list(setting.shape),
        size_bytes=setting.size,
        floor_bytes=setting.floor,
        gb_per_s=round(rate, 3),
        copy_gb_per_s=round(copy_rate, 3),
        of_copy=round(rate / copy_rate, 4),
        ratio=[round(value, 4) for value in (ratio.median, ratio.low, ratio.high)],
        pairs=ratio.pairs,
        control=round(comparison.control.median, 4),
        threads_waited=round(comparison.waiting, 3),
        verdict=comparison.verdict,
        judged=verdict,
    )
    line = (
        f"{name:<72} {ratio} {comparison.verdict:<12} A/A {comparison.control.median:.3f}  "
        + (f"threads waited {comparison.waiting:.0%}  " if comparison.waiting > LONGEST_WAIT else "")
        + f"{rate:6.2f} GB/s, {rate / copy_rate:.2f} of a copy  {verdict}"
    )
    slower = report.add(name, setting.device, comparison, line)
    if slower is not None:
        pytest.fail(f"{name}: {slower}", pytrace=False)


def _judged(work: Workload, setting: Setting) -> tuple[str, bool]:
    """What the judge says of what was timed, and whether that is a violation: one whose traceback would say it twice."""
    try:
        return judged(work, setting), False
    except Violation as violation:
        return str(violation), True
