"""What the suite itself costs, and whether its goals are met; printed, and not a reason to fail."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ln2d_ref import load
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.implementations import REGISTERED
from ln2d_ref.laws import LAWS
from ln2d_ref.mutants import mutants
from strategies import find_violation

from .alternation import now
from .report import Report
from .suite import JUDGED, against_bare_loop, judge, reference_cost

pytestmark = pytest.mark.benchmark(group="suite")
_GOAL, _CLAIM, _GENERATION, _REFERENCE = 1 / 0.6, 2.0, 0.35, 3.0
_MAIN = "torch/permute"
_LARGE = 1_000_000


@pytest.fixture
def quick(request: pytest.FixtureRequest) -> bool:
    """Whether to be done soon."""
    return bool(request.config.getoption("--quick"))


def _met(value: float, limit: float) -> str:
    return "met" if value <= limit else "missed"


@pytest.mark.parametrize("name", [name for name in REGISTERED if name != "torch/unpermuted"])
def test_judging_beside_the_bare_loop(benchmark: BenchmarkFixture, report: Report, quick: bool, name: str) -> None:
    """Generation and judging of `result`, `value` and `gradients` cost little more than what no judge can leave out."""
    if quick and not name.startswith(("torch/", "numpy/")):
        pytest.skip("--quick leaves out what is compiled or emulated")
    main = name == _MAIN
    cases, rounds = ((200, 3) if main else (100, 2)) if quick else (200, 7)  # fewer cases are told by what starting a search costs
    found = benchmark.pedantic(lambda: against_bare_loop(load(name), cases=cases, rounds=rounds))
    benchmark.extra_info.update(
        cases_per_s=round(found.per_second, 2),
        over_bare_loop=round(found.ratio.median, 3),
        judging_over_bare_loop=round(found.judging.median, 3),
        generation=round(found.generation, 3),
    )
    if benchmark.enabled:
        report.goals.append(
            f"{name:<26} {found.per_second:6.1f} cases/s, {found.ratio} times the bare loop (claim {_CLAIM:g}: "
            f"{_met(found.ratio.median, _CLAIM)}, goal {_GOAL:.2f}: {_met(found.ratio.median, _GOAL)}); judging alone "
            f"{found.judging.median:.2f}; generation {found.generation:.0%} (goal {_GENERATION:.0%}: {_met(found.generation, _GENERATION)})"
        )


@pytest.mark.parametrize("law", LAWS)
def test_cases_per_second_by_law(benchmark: BenchmarkFixture, report: Report, quick: bool, law: str) -> None:
    """On the cases that the law says something about."""
    found = benchmark.pedantic(lambda: judge(load(_MAIN), cases=25 if quick else 200, seed=0, laws=(law,)))
    rate = len(found.cases) / found.seconds
    benchmark.extra_info.update(cases_per_s=round(rate, 2), generation=round(found.generation, 3))
    if benchmark.enabled:
        report.goals.append(f"law {law:<22} {rate:6.1f} cases/s, generation {found.generation:.0%}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_cases_per_second_by_dtype(benchmark: BenchmarkFixture, report: Report, quick: bool, dtype: str) -> None:
    """Float64 is judged in double-double."""
    implementation = replace(load(_MAIN), dtypes=(dtype,))
    found = benchmark.pedantic(lambda: judge(implementation, cases=25 if quick else 200, seed=0, laws=JUDGED))
    rate = len(found.cases) / found.seconds
    benchmark.extra_info.update(cases_per_s=round(rate, 2), generation=round(found.generation, 3))
    if benchmark.enabled:
        report.goals.append(f"dtype {dtype:<20} {rate:6.1f} cases/s, generation {found.generation:.0%}")


def test_cases_to_kill_mutants(benchmark: BenchmarkFixture, report: Report, quick: bool) -> None:
    """A sample, evenly spread over all mutants."""
    every, most = mutants(), 60 if quick else 2000
    sample = every[:: max(1, len(every) // (5 if quick else 40))]

    def killed() -> dict[str, int | None]:
        found = {each.name: find_violation(each.implementation, max_examples=most, seed=0) for each in sample}
        return {name: None if violation is None else violation.cases for name, violation in found.items()}

    counts = benchmark.pedantic(killed)
    benchmark.extra_info.update(cases_to_kill=counts)
    if benchmark.enabled:
        report.goals.append("cases to kill: " + ", ".join(f"{name} {count or f'> {most}'}" for name, count in counts.items()))


@pytest.mark.parametrize("power", range(3, 9))
def test_reference_beside_torch_float64(benchmark: BenchmarkFixture, report: Report, quick: bool, power: int) -> None:
    """The reference with its bounds against torch's forward and backward in float64, as C·H·W grows."""
    elements = 10**power
    if quick and elements > _LARGE:
        pytest.skip("--quick goes to 10^6 elements")
    needed, there = 100 * elements, _free_memory()
    if needed > there:
        pytest.skip(f"needs about {needed / 1e9:.0f} GB of memory, and {there / 1e9:.0f} GB are free")
    rounds = 11 if elements <= _LARGE else 3
    found = benchmark.pedantic(lambda: reference_cost(elements, rounds=rounds))
    benchmark.extra_info.update(
        over_torch_float64=round(found.ratio.median, 3),
        ns_per_element=round(found.nanoseconds_per_element, 2),
        bytes_per_element=round(found.bytes_per_element, 1),
    )
    if benchmark.enabled:
        goal = f" (goal {_REFERENCE:g}: {_met(found.ratio.median, _REFERENCE)})" if elements >= _LARGE else ""
        report.goals.append(
            f"reference, 10^{power} elements   {found.ratio} times torch float64 forward + backward{goal}; "
            f"{found.nanoseconds_per_element:.0f} ns and {found.bytes_per_element:.0f} bytes an element"
        )


def test_cost_as_cases_grow(benchmark: BenchmarkFixture, report: Report, quick: bool) -> None:
    """A search's cost by case must not grow with the number of cases."""
    counts = (25, 50, 100) if quick else (50, 200, 800, 3200)

    def grown() -> dict[int, float]:
        found = {}
        for count in counts:
            start = now()
            cases = len(judge(load(_MAIN), cases=count, seed=0, laws=JUDGED).cases)
            found[count] = (now() - start) / cases * 1e3
        return found

    costs = benchmark.pedantic(grown)
    benchmark.extra_info.update(ms_per_case={str(count): round(cost, 2) for count, cost in costs.items()})
    if benchmark.enabled:
        report.goals.append("cost by case: " + ", ".join(f"{cost:.1f} ms in {count}" for count, cost in costs.items()))


def _free_memory() -> int:
    """Bytes of memory that are free; without /proc, as if 4 GB were."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as information:
            return next(int(line.split()[1]) * 1024 for line in information if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 4 << 30
