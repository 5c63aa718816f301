"""The pure parts of the benchmarks: statistics, the baseline's file, options; and one benchmark run through, untimed."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import weakref
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import alternation, baseline, kernels, planted, plot, workloads
from benchmarks import report as report_module
from benchmarks.alternation import Alternation, Clock, affordable, on_cpu
from benchmarks.machine import machine
from benchmarks.placement import other_memory
from benchmarks.ratios import Comparison, Ratio, compare, ratio_of
from benchmarks.report import Report, lasting, regression, told_from
from benchmarks.settings import QUICK, SHAPES, Setting, settings
from ln2d_ref import Implementation, load
from ln2d_ref.implementations import as_implementation
from ln2d_ref.memory import keep_freed_memory

ROOT = Path(__file__).parents[2]


def noisy(ratio: float, *, seed: int, count: int = 100) -> tuple[list[float], list[float], list[float]]:
    """Times with noise that a pair shares, of 70 %, and noise of its own, of 3 %."""
    rng = np.random.default_rng(seed)
    shared = np.exp(0.7 * rng.standard_normal(count))
    times = [shared * np.exp(0.03 * rng.standard_normal(count)) for _ in range(3)]
    return list(ratio * times[0]), list(times[1]), list(times[2])


def sessions(*medians: float) -> list[Ratio]:
    """A baseline's."""
    return [Ratio(float(value), 0.99 * value, 1.01 * value, 100) for value in medians]


def test_ten_percent_are_found_in_shared_noise_and_nothing_in_none():
    """The interval of a median of pairs is narrow where noise is shared, however large that is."""
    before = sessions(0.995, 1.0, 1.005, 1.0, 1.0)
    for seed in range(20):
        assert regression(compare(*noisy(1.1, seed=seed)), before, 5.0) is not None
        assert regression(compare(*noisy(1.0, seed=seed)), before, 5.0) is None


def test_interval_covers_the_truth_as_often_as_it_says():
    """99 % intervals, 200 of them; with neighbours that share noise, so that pairs resampled one by one would be too sure."""
    missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        noise = np.convolve(0.05 * rng.standard_normal(404), np.ones(5) / 5, "valid")
        found = ratio_of(list(np.exp(noise)), [1.0] * noise.size)
        missed += not found.low <= 1.0 <= found.high
    assert missed <= 10


def test_same_times_give_the_same_interval():
    """So that a result file can be checked."""
    times = noisy(1.3, seed=3)
    assert compare(*times) == compare(*times)


def test_a_control_that_is_off_makes_a_result_inconclusive():
    """An implementation twice as slow is not called slower where the yardstick differs from itself."""
    slow, yardstick, control = noisy(2.0, seed=1)
    assert compare(slow, yardstick, control).verdict == "slower"
    off = compare(slow, yardstick, [1.03 * time for time in control])
    assert off.verdict == "inconclusive"
    assert regression(off, sessions(1.0, 1.0, 1.0), 5.0) is None
    assert planted.outcome(off, sessions(1.0, 1.0, 1.0), 5.0) == "inconclusive"


@pytest.mark.parametrize(
    ("ratio", "count", "verdict"),
    [
        (0.8, 100, "faster"),
        (1.25, 100, "slower"),
        (1.0, 100, "no different"),
        (1.02, 999, "no different"),
        (1.03, 100, "unclear"),
        (2.0, 99, "too few pairs"),
    ],
)
def test_verdicts(ratio, count, verdict):
    """In one word or two."""
    assert compare(*noisy(ratio, seed=0, count=count)).verdict == verdict


def test_threads_that_wait_make_a_result_inconclusive():
    """The control cannot show that a long call is stopped more often than a short one."""
    assert compare(*noisy(2.0, seed=1), waiting=0.04).verdict == "slower"
    assert compare(*noisy(2.0, seed=1), waiting=0.06).verdict == "inconclusive"


def test_an_interval_that_reaches_below_is_no_regression():
    """--regress fails where the whole interval lies beyond it, and not where the median does."""
    comparison = Comparison(Ratio(1.2, 1.04, 1.3, 100), Ratio(1.0, 0.99, 1.01, 100))
    assert regression(comparison, sessions(1.0, 1.0, 1.0), 5.0) is None
    assert "20.0% more" in str(regression(comparison, sessions(1.0, 1.0, 1.0), 3.0))


def test_one_session_or_two_are_nothing_to_be_held_against():
    """How far sessions lie apart is not known from them."""
    comparison = compare(*noisy(1.5, seed=0))
    assert [regression(comparison, sessions(*[1.0] * count), 5.0) is None for count in range(5)] == [True, True, True, False, False]


def test_sessions_that_lie_apart_allow_one_more_to_lie_as_far():
    """Unchanged code with many temporaries differed by 20 % between processes: what stood in the first of them failed the next."""
    comparison = compare(*noisy(1.1, seed=0))
    assert regression(comparison, sessions(0.99, 1.0, 1.01, 1.0, 1.0), 5.0) is not None
    assert regression(comparison, sessions(0.9, 1.0, 1.1, 0.95, 1.05), 5.0) is None


def test_one_session_in_a_hundred_lies_above_what_is_expected():
    """Of normal log-ratios, for each number of sessions that is kept."""
    rng = np.random.default_rng(0)
    for count in range(2, baseline.MOST_SESSIONS + 1):
        logs = 0.05 * rng.standard_normal((4000, count + 1))
        above = sum(np.exp(row[0]) > baseline.expected_at_most(sessions(*np.exp(row[1:]))) for row in logs)
        assert 20 <= above <= 60, (count, above)
    with pytest.raises(ValueError, match="1 sessions are given, but must be 2 to 10"):
        baseline.expected_at_most(sessions(1.0))


@pytest.mark.parametrize(
    ("numerator", "denominator", "fault"),
    [([1.0], [1.0, 2.0], "do not make pairs"), ([], [], "do not make pairs"), ([0.0], [1.0], "positive"), ([1.0], [np.nan], "positive")],
)
def test_what_is_no_pair_of_times_is_refused(numerator, denominator, fault):
    """A clock that went backwards must not become a ratio."""
    with pytest.raises(ValueError, match=fault):
        ratio_of(numerator, denominator)


def test_baseline_comes_back_as_it_was_written(tmp_path):
    """And other machines' ratios stay."""
    path = tmp_path / "baseline.json"
    assert baseline.read(path) == {}
    first = baseline.recorded({}, "one", {"a": Ratio(1.0, 0.9, 1.1, 100)})
    both = baseline.recorded(baseline.recorded(first, "two", {"a": Ratio(2.0, 1.9, 2.1, 300)}), "one", {"b": Ratio(3.0, 2.9, 3.1, 100)})
    baseline.write(path, both)
    assert baseline.read(path) == both
    assert both["one"].keys() == {"a", "b"}


def test_the_newest_sessions_are_kept():
    """Ten of them."""
    known: baseline.Baseline = {}
    for count in range(12):
        known = baseline.recorded(known, "one", {"a": Ratio(1.0 + count, 1.0, 99.0, 100)})
    assert [ratio.median for ratio in known["one"]["a"]] == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]


GOOD = {"median": 1.0, "low": 0.9, "high": 1.1, "pairs": 100}
WHOLE = {"format": baseline.FORMAT, "version": baseline.VERSION, "machines": {"m": {"b": [GOOD]}}}
BAD = {
    "not json": ("{", "is not a baseline"),
    "another format": (json.dumps([]), "its format is not"),
    "another version": (json.dumps(WHOLE | {"version": 9}), "has version 9"),
    "no machines": (json.dumps(WHOLE | {"machines": 1}), "no ratios by machine"),
    "no list": (json.dumps(WHOLE | {"machines": {"m": {"b": GOOD}}}), "must be a list of 1 to 10 sessions"),
    "no session": (json.dumps(WHOLE | {"machines": {"m": {"b": []}}}), "must be a list of 1 to 10 sessions"),
    "a missing field": (json.dumps(WHOLE | {"machines": {"m": {"b": [{"median": 1.0}]}}}), "must have median, low, high and pairs"),
    "a negative ratio": (json.dumps(WHOLE | {"machines": {"m": {"b": [GOOD | {"low": -1.0}]}}}), "must be positive"),
    "a string": (json.dumps(WHOLE | {"machines": {"m": {"b": [GOOD | {"high": "2"}]}}}), "must be positive"),
    "limits the wrong way round": (json.dumps(WHOLE | {"machines": {"m": {"b": [GOOD | {"low": 1.05}]}}}), "low <= median <= high"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_baseline_is_told_by_its_name_and_fault(name, tmp_path):
    """Not a KeyError, and never taken for an empty one."""
    text, fault = BAD[name]
    path = tmp_path / "baseline.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=fault) as error:
        baseline.read(path)
    assert str(path) in str(error.value)


def test_the_baseline_that_is_kept_can_be_read():
    """benchmarks/baseline.json."""
    assert baseline.read(baseline.PATH)


def test_rounds_time_each_call_once_in_orders_that_are_drawn(monkeypatch):
    """The same seed draws the same orders, and every order comes up; on a machine that never stops this thread."""
    monkeypatch.setattr(alternation, "_account", lambda: (0.0, 0))
    orders: list[str] = []

    def named(name: str):
        def timed() -> float:
            orders.append(name)
            return 1.0

        return timed

    for _ in range(2):
        Alternation({name: named(name) for name in ("implementation", "yardstick", "control")}, seed=1).comparison(100)
    rounds = ["".join(word[0] for word in orders[k : k + 3]) for k in range(0, len(orders), 3)]
    assert len(rounds) == 200
    assert rounds[:100] == rounds[100:]
    assert len(set(rounds)) == 6
    assert all(sorted(each) == ["c", "i", "y"] for each in rounds)


def test_what_is_not_clear_goes_on():
    """A control that is off is given more rounds, but not for ever."""
    rounds = Alternation({"implementation": lambda: 1.0, "yardstick": lambda: 1.0, "control": lambda: 1.1}, seed=0)
    assert rounds.comparison(10, continued=3).ratio.pairs == 40


@pytest.mark.parametrize(("each", "rounds", "continued"), [(0.5, 16, 0), (0.1, 80, 0), (0.06, 100, 0), (0.03, 100, 1), (60.0, 1, 0)])
def test_quick_is_done_in_time_whatever_is_timed(each, rounds, continued, monkeypatch):
    """A kernel in an interpreter took minutes; fewer pairs than a ratio needs are told as such."""
    passed = [0.0]
    monkeypatch.setattr(alternation.time, "perf_counter", lambda: passed[0])

    def slow() -> float:
        passed[0] += each
        return each

    assert affordable(Alternation({"implementation": slow}, seed=0), 8.0) == (rounds, continued)


def test_what_is_emulated_on_a_cpu_is_not_timed_there():
    """Nor need it be there: the suite's own cost is asked of what runs as it is."""
    code, output = run("--quick", "--collect-only", "-q")
    assert code == 0, output
    assert "test_time[triton/fused-odd-b1-float32-contiguous-forward-cuda]" in output
    assert "test_time[torch/permute-odd-b1-float32-contiguous-forward-cpu]" in output
    assert not [line for line in output.splitlines() if "test_time[" in line and ("triton" in line or "cuda/" in line) and "-cpu]" in line]


def test_what_is_the_users_own_is_timed_wherever_it_stands(tmp_path):
    """Also in a folder that is called triton; a kernel of ours that is emulated says that its time says nothing."""
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton/mine.py").write_text("def fn(x, weight, bias, eps):\n    return x\n", encoding="utf-8")
    code, output = run("--implementation", "triton/mine.py:fn", "--quick", "--collect-only", "-q", cwd=tmp_path)
    assert code == 0, output
    assert "-cpu]" in output
    code, output = run("--implementation", "cuda/fused", "--device", "cpu", "--quick", "--collect-only", "-q")
    assert code != 0
    assert "interpreted or emulated on a CPU" in output


def test_too_few_pairs_are_no_baseline():
    """One round of a slow call would stand there as its ratio."""
    report = Report({})
    for count in (99, 100):
        slow, yardstick, control = ([2.0] * count, [1.0] * count, [1.0] * count)
        report.add(f"{count}", "cpu", compare(slow, yardstick, control), "")
    assert [list(ratios) for ratios in report.ratios.values()] == [["100"]]
    assert report.left_out == ["99"]


def test_a_regression_is_not_recorded_by_the_run_that_tells_it(tmp_path):
    """It would be part of what is allowed the next time; what one says of the others is said with names."""
    path = tmp_path / "baseline.json"
    known = {machine("cpu"): {name: sessions(1.0, 0.99, 1.01, 1.0, 1.0) for name in ("same", "slower")} | {"new": sessions(1.0)}}
    report = Report(known, 5.0)
    assert report.add("same", "cpu", compare(*noisy(1.0, seed=0)), "") is None
    assert "50.0% more" in str(report.add("slower", "cpu", Comparison(Ratio(1.5, 1.49, 1.51, 100), Ratio(1.0, 0.99, 1.01, 100)), ""))
    assert report.add("new", "cpu", compare(*noisy(1.5, seed=0)), "") is None
    said = "\n".join(report.finished(path, record=True))
    assert "2 ratios held against" in said
    assert "fewer than 3 sessions on this machine of new: passed" in said
    assert "not recorded, as undecided or a regression: slower" in said
    found = baseline.read(path)[machine("cpu")]
    assert {name: len(each) for name, each in found.items()} == {"same": 6, "slower": 5, "new": 2}


def test_a_baseline_is_begun_afresh_where_a_change_was_meant(tmp_path):
    """Sessions of other code would allow what lies between the two."""
    path = tmp_path / "baseline.json"
    where = machine("cpu")
    report = Report({where: {"a": sessions(1.0, 1.0, 1.0), "b": sessions(2.0)}})
    report.add("a", "cpu", compare(*noisy(0.6, seed=0)), "")
    report.finished(path, record=True, afresh=True)
    found = baseline.read(path)[where]
    assert [round(each.median, 1) for each in found["a"]] == [0.6]
    assert [each.median for each in found["b"]] == [2.0]


def test_what_is_beyond_doubt_is_told_though_it_is_undecided():
    """A kernel that sleeps for half a second has a few pairs, or disturbs the control; a wait of other threads may be all that there is."""
    before, off, few = sessions(1.0, 1.0, 1.0), Ratio(1.07, 1.0, 1.1, 100), Ratio(1.0, 0.9, 1.1, 5)
    for ratio, control, told in (
        (Ratio(400.0, 300.0, 500.0, 5), few, True),
        (Ratio(50.0, 45.0, 60.0, 100), off, True),
        (Ratio(1.8, 1.7, 1.9, 100), off, False),
    ):
        assert (regression(Comparison(ratio, control), before, 5.0) is not None) == told
        assert regression(Comparison(ratio, control, waiting=0.5), before, 5.0) is None


class Scaled(torch.nn.Module):
    """Computes x·weight + bias; what is asked for is how it is called."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.bias = (torch.nn.Parameter(torch.ones(channels)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the shape of x."""
        return x * self.weight[:, None, None] + self.bias[:, None, None]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_module_is_timed_as_it_is_called(direction, dtype, monkeypatch):
    """Its parameters are those that are given, and gradients reach them; through functional_call it read 1.8 where 1.0 was true."""
    monkeypatch.setattr(torch.func, "functional_call", None)
    setting = Setting("odd", 1, dtype, "contiguous", direction)
    module, plain = (
        as_implementation(Scaled, semantics="channel"),
        Implementation(lambda x, w, b, eps: x * w[:, None, None] + b[:, None, None]),
    )
    sets = workloads.arguments(setting)
    works = [workloads.workload(each, setting, sets) for each in (module, plain)]
    for work in works:
        work.timed()
    assert works[0].results.keys() == works[1].results.keys()
    assert works[0].given.keys() == works[1].given.keys()
    for name, value in works[0].results.items():
        assert torch.equal(value, works[1].results[name])
        assert value.dtype == getattr(torch, dtype)


@pytest.mark.parametrize(("ratios", "counts"), [((1.0, 9.0), 1), ((2.0, 1.0, 9.0), 2), ((3.0, 2.5, 2.0, 9.0), 3), ((2.0, 3.0, 1.1), 3)])
def test_what_does_not_last_is_no_regression(ratios, counts, monkeypatch):
    """A neighbour took the cache for some seconds, and unchanged code read 1.113 for 0.547; what is slower is slower in three."""
    monkeypatch.setattr(report_module, "_PAUSE", 0.0)
    control = Ratio(1.0, 0.99, 1.01, 100)
    left = [Comparison(Ratio(each, 0.99 * each, 1.01 * each, 100), control) for each in ratios]
    found = lasting(left.pop(0), lambda: left.pop(0), lambda each: each.ratio.low > 1.05)
    assert found.ratio.median == min(ratios[:counts])
    assert len(left) == len(ratios) - counts


def test_what_is_told_from_is_where_it_is_told():
    """One per cent less passes, one per cent more fails."""
    before = sessions(1.0, 0.98, 1.02)
    for half in (1.01, 1.1):
        known = told_from(Ratio(1.0, 1.0 / half, half, 100), before, 5.0)
        for off, fails in ((0.99, False), (1.01, True)):
            at = (1.0 + known) * off
            found = Comparison(Ratio(at, at / half, at * half, 100), Ratio(1.0, 0.99, 1.01, 100))
            assert (regression(found, before, 5.0) is not None) == fails


def test_a_benchmark_that_is_slower_than_before_fails(tmp_path):
    """From the command line, against sessions that say a tenth, which is beyond doubt on a busy machine too."""
    path, name = tmp_path / "baseline.json", "torch/permute-odd-b1-float32-contiguous-forward-cpu"
    where = run("--collect-only", "--quick")[1].partition("benchmarks on: ")[2].partition("\n")[0]
    baseline.write(path, {where: {name: sessions(0.1, 0.1, 0.1)}})
    code, output = run("--quick", "--baseline", str(path), "--regress", "5", "-k", "permute-odd-b1-float32-contiguous-forward-cpu")
    assert code == 1, output
    assert "times the yardstick, but 0.100 in the baseline, whose 3 sessions let one more lie up to 0.100" in output


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("affine_shape", ["element", "channel"])
def test_the_control_has_memory_of_its_own(affine_shape, direction):
    """As the implementation has: what two calls of a round share is in a cache for the second."""
    weights: list[int] = []

    class Spied(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight, bias):
            weights.append(weight.data_ptr())
            ctx.of = weight
            return x.clone()

        @staticmethod
        def backward(ctx, dy):
            weights.append(ctx.of.data_ptr())
            return dy, torch.zeros_like(ctx.of), torch.zeros_like(ctx.of)

    def fn(x, weight, bias, eps):
        return Spied.apply(x, weight, bias)

    spied = Implementation(fn, semantics="sample", affine_shape=affine_shape)
    setting = Setting("sample_odd", 2, "float32", "contiguous", direction)
    contenders = workloads.Contenders(spied, spied, setting)
    timed = contenders.placed()
    del weights[:]
    for name in ("implementation", "yardstick", "control"):
        timed[name]()
    assert len(set(weights)) == 3
    assert contenders.work.results["y" if direction == "forward" else "dx"].shape == setting.shape


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_contenders_of_a_placement_share_x_and_free_what_they_had(direction):
    """x and dy of each placement, which all contenders of it share, and nothing stays but the values."""
    alive: dict[int, weakref.ref] = {}
    addresses: list[int] = []

    def fn(x, weight, bias, eps):
        addresses.append(x.data_ptr())
        alive[x.data_ptr()] = weakref.ref(x)
        return x * weight[:, None, None]

    implementation = Implementation(fn, affine=("weight",))
    contenders = workloads.Contenders(implementation, implementation, Setting("odd", 1, "float32", "contiguous", direction))
    for _ in range(4):
        del addresses[:]
        alive.clear()
        timed = contenders.placed()
        for name in timed:
            timed[name]()
        assert set(timed) == {"implementation", "yardstick", "control", "copy"}
        assert len(set(addresses)) == 1
        before = list(alive.values())
        timed = {}
        contenders.placed()
        assert not any(each() is not None for each in before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="concerns glibc's malloc")
def test_other_memory_has_other_pages():
    """What was freed is given back to the system, which has it cleared: 400 kB that were used a moment ago are asked for again."""
    rng = np.random.default_rng(0)
    keep_freed_memory()

    def faults(*, moved: bool) -> int:
        used = [torch.ones(100_000) for _ in range(8)]
        del used
        padding = other_memory(rng) if moved else None
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        again = [torch.ones(100_000) for _ in range(8)]
        asked = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        del again, padding
        return asked

    kept = min(faults(moved=False) for _ in range(5))
    assert faults(moved=True) > max(500, 2 * kept)


def test_comparison_knows_that_memory_was_moved(monkeypatch):
    """Its interval is that of what was measured on the same memory, the control's too; the same times without moving give a narrow one."""
    rng = np.random.default_rng(1)
    drawn = {
        name: np.exp(np.repeat(0.1 * rng.standard_normal(20), alternation.PLACED_FOR)).tolist() for name in ("implementation", "control")
    }
    left = {name: iter(values) for name, values in drawn.items()} | {"yardstick": repeat(1.0)}
    monkeypatch.setattr(alternation, "_account", lambda: (0.0, 0))
    found = Alternation(lambda: {name: partial(next, times) for name, times in left.items()}, seed=0).comparison(100, continued=0)
    for name, ratio in (("implementation", found.ratio), ("control", found.control)):
        assert ratio == ratio_of(drawn[name], [1.0] * 100, placed_for=alternation.PLACED_FOR)
        assert ratio != ratio_of(drawn[name], [1.0] * 100)


def test_quick_charges_a_placement_to_the_rounds_that_use_it(monkeypatch):
    """A fifth of it to each."""
    passed = [0.0]
    monkeypatch.setattr(alternation.time, "perf_counter", lambda: passed[0])

    def slow() -> float:
        passed[0] += 0.1
        return 0.1

    def placed():
        passed[0] += 0.5
        return {"implementation": slow}

    assert affordable(Alternation(placed, seed=0), 8.0) == (40, 0)


def test_a_disturbed_round_is_done_again_whole(monkeypatch):
    """In the same order; a time of the disturbed one is not kept, whichever call it was that was hit."""
    slices = iter([0, 1, 1, 1])
    monkeypatch.setattr(alternation, "_account", lambda: (0.0, 0))
    monkeypatch.setattr(alternation, "now", lambda: 0.0)
    calls: list[str] = []

    def named(name: str):
        return lambda: calls.append(name) or float(len(calls))

    rounds = Alternation({name: named(name) for name in ("implementation", "yardstick", "control")}, seed=1)
    monkeypatch.setattr(alternation, "_account", lambda: (0.0, next(slices)))
    rounds.round()
    assert calls[:3] == calls[3:]
    assert sorted(times[0] for times in rounds.times.values()) == [4.0, 5.0, 6.0]


def test_short_calls_are_timed_in_blocks_and_told_one_by_one():
    """A block lasts long enough to be timed; what is told is the time of one call."""
    calls: list[int] = []
    assert 0 < on_cpu(lambda: calls.append(1))() < 1e-4
    assert len(calls) > 20


def test_clock_stands_still():
    """Until told that time has passed: pytest-benchmark then reports that time."""
    clock = Clock()
    assert clock() == clock() == 0.0
    clock.now += 2.0
    assert clock() == 2.0


def test_settings_are_those_that_are_named():
    """Each shape in every dtype, layout and direction; quick ones among them."""
    every = {semantics: list(settings(semantics, quick=False, devices=("cpu",))) for semantics in ("channel", "sample")}
    assert {setting.name for found in every.values() for setting in found} == set(SHAPES)
    assert len(every["channel"]) == 11 * 2 * 3 * 2 * 2
    quick = [setting for semantics in every for setting in settings(semantics, quick=True, devices=("cpu",))]
    assert len(quick) == 2 * len(QUICK)
    assert set(quick) <= {setting for found in every.values() for setting in found}


def test_floor_is_what_must_be_moved():
    """Forward reads x and writes y; backward reads x and dy and writes dx."""
    forward = Setting("odd", 1, "float16", "contiguous", "forward")
    assert (forward.size, forward.floor) == (97 * 17 * 31 * 2, 2 * 97 * 17 * 31 * 2)
    assert Setting("odd", 1, "float16", "contiguous", "backward").floor == 3 * forward.size


def run(*arguments: str, cwd: Path = ROOT) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", f"{ROOT}/benchmarks/test_layer_norm_2d.py", "-p", "no:cacheprovider", *arguments]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # no worker of pytest-xdist
    alone["OMP_NUM_THREADS"] = "1"
    result = subprocess.run(command, cwd=cwd, env=alone, capture_output=True, text=True, timeout=120, check=False)
    return result.returncode, result.stdout + result.stderr


def test_memory_is_other_every_few_rounds():
    """And what was placed before is free by then."""
    held: list[int] = []
    alive: list[int] = []

    class Memory:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def placed():
        held.append(len(alive))
        memory = Memory()
        return {name: lambda memory=memory: 1.0 for name in ("implementation", "yardstick", "control")}

    found = Alternation(placed, seed=0).comparison(35, continued=0)
    assert found.ratio.pairs == 35
    assert held == [0] * 7


def test_an_interval_knows_what_memory_is_worth():
    """Times that are the same for as long as memory is, and differ between: pairs alone would be far too sure."""
    missed = dict.fromkeys((None, 10), 0)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        times = list(np.exp(np.repeat(0.1 * rng.standard_normal(20), 10) + 0.01 * rng.standard_normal(200)))
        for placed_for in missed:
            found = ratio_of(times, [1.0] * 200, placed_for=placed_for)
            missed[placed_for] += not found.low <= 1.0 <= found.high
    assert missed[10] <= 5
    assert missed[None] > 2 * missed[10]


def test_a_wrong_implementation_is_not_timed_to_its_credit(tmp_path):
    """A kernel that leaves out the mean is fast, and fails."""
    path = tmp_path / "mine.py"
    path.write_text(
        "def fast(x, weight, bias, eps):\n"
        "    rms = (x * x).mean(1, keepdim=True).add(eps).rsqrt()\n"
        "    return x * rms * weight[:, None, None] + bias[:, None, None]\n",
        encoding="utf-8",
    )
    code, output = run("--implementation", f"{path}:fast", "--quick", "--benchmark-disable", "-k", "odd and float32 and forward")
    assert code == 1
    assert "times the bound" in output


def test_wrong_options_get_one_clear_line(tmp_path):
    """As in conformance."""
    path = tmp_path / "baseline.json"
    path.write_text("{}", encoding="utf-8")
    for arguments, fault in (
        (("--implementation", "nobody"), "implementation is 'nobody', but must be one of torch/permute"),
        (("--baseline", str(path)), "is not a baseline: its format"),
        (("--regress", "-3"), "invalid percentage value: '-3'"),
        (("--record", "--baseline", str(tmp_path / "none" / "b.json")), "is no folder"),
        (("-n", "2"), "-n (pytest-xdist) is given"),
    ):
        code, output = run("--quick", *arguments)
        assert code == 4, output
        assert fault in output


def test_a_result_that_holds_no_kernel_is_not_drawn(tmp_path):
    """With what to do instead."""
    path = tmp_path / "result.json"
    for text, fault in (("{", "is not a result"), ("{}", "no list of benchmarks"), ('{"benchmarks": []}', "--benchmark-json")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=fault):
            plot.read(path)


def a_row(*times: float, sides=(128, 56, 56), semantics="channel", direction="forward", judged="error at 0.90 of the bound") -> kernels.Row:
    setting = kernels.Sized(semantics, 1, "float32", "contiguous", direction, "cuda", sides, semantics)
    return kernels.Row(setting, dict(zip(("triton/fused", "cuda/fused", "compile", "eager"), times, strict=True)), {"triton/fused": judged})


def test_kernels_are_measured_and_judged_wherever_they_run():
    """On the CPU, with torch's own in the place of the fused ones: a wrong result is told beside its time."""
    right, wrong = load("torch/composed_float32"), replace(load("torch/permute"), fn=lambda x, weight, bias, eps: x * 1)
    setting = kernels.Sized("channel", 1, "float32", "contiguous", "forward", "cpu", (8, 16, 16))
    contestants = {"triton/fused": right, "cuda/fused": wrong, "eager": load("torch/permute")}
    row = kernels.row_of(setting, contestants, workloads.arguments(setting), rounds=3)
    assert set(row.over_copy) == {"triton/fused", "cuda/fused", "eager"}
    assert all(time > 0 for time in row.over_copy.values())
    assert row.judged["triton/fused"].startswith("error at ")
    assert row.judged["cuda/fused"].startswith("WRONG: y[")
    assert kernels.table([row]).splitlines()[-1].startswith("| channel 1x8x16x16 | float32 | forward | ")


def test_aims_are_met_by_the_faster_kernel_and_missed_by_the_worst_row():
    """Each aim can fail, and says where."""
    met = [a_row(1.05, 3.0, 1.5, 2.5), a_row(1.9, 2.0, 9.0, 9.0, sides=kernels.ODD), a_row(0.5, 0.5, 1, 4.0, semantics="sample")]
    assert {line.partition(": met in ")[0]: line.partition("; ")[0][-11:] for line in kernels.judge_aims([met[0], met[2]])} == {
        "- channel: forward at most 1.10 copies": "1 of 1 rows",
        "- channel, C > 64: 1.2 times faster than torch.compile": "1 of 1 rows",
        "- channel: 1.8 times faster than permute, F.layer_norm, contiguous": "1 of 1 rows",
        "- sample, N <= 16: 8 times faster than nn.LayerNorm": "1 of 1 rows",
    }
    assert "odd sizes: half the bandwidth of C = 128 or better: met in 1 of 1" in "\n".join(kernels.judge_aims(met))
    missed = [a_row(1.2, 3.0, 1.3, 2.0), a_row(2.6, 2.7, 9.0, 9.0, sides=kernels.ODD), a_row(1, 1, 1, 4.0, semantics="sample")]
    lines = kernels.judge_aims([*missed, a_row(1.9, 1.8, 3.0, 4.0, direction="backward")])
    assert len(lines) == 6
    assert not any("met in 2 of 2" in line or "met in 1 of 1" in line for line in lines), lines
    assert "met in 0 of 1 rows; farthest, by a factor of 1.09: 1x128x56x56 float32 forward" in lines[0]
    assert "met in 0 of 1 rows; farthest, by a factor of 1.08: 1x97x17x31 float32 forward" in lines[-1]


def test_without_a_gpu_kernels_say_so():
    """Nothing else is done."""
    if torch.cuda.is_available():
        pytest.skip("says what is said without a GPU")
    done = subprocess.run([sys.executable, "-m", "benchmarks.kernels"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (1, "torch finds no CUDA device: there is nothing to measure\n")
