"""Options of the benchmarks, and what pytest prints of them. `pytest benchmarks` runs them; nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ln2d_ref import Implementation
from ln2d_ref.implementations import REGISTERED, load
from ln2d_ref.semantics import SEMANTICS

from . import baseline
from .alternation import Clock
from .machine import machine
from .ratios import LARGEST_CONTROL, LEAST_PAIRS
from .report import REPORT, Report
from .settings import settings

_NOT_TIMED = {"torch/unpermuted": "it raises with an affine"}
_EMULATED = ("triton/", "cuda/")
"""Interpreted or emulated on a CPU, where their time says nothing."""
_HERE = Path(__file__).parent
_TIMED: pytest.StashKey[tuple[Implementation, ...]] = pytest.StashKey()
_AGAINST: pytest.StashKey[Implementation | None] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Each option is described by its help."""
    group = parser.getgroup("ln2d_ref")
    with suppress(ValueError):  # tests/conftest.py has the first four as well, where both paths are given
        group.addoption("--implementation", help="a registered name, package.module:attribute or path/to/file.py:attribute")
    with suppress(ValueError):
        group.addoption("--semantics", choices=SEMANTICS, help="of a bare function or module: channel (default) or sample")
    with suppress(ValueError):
        group.addoption("--device", choices=("cpu", "cuda"), help="where tensors are placed")
    with suppress(ValueError):
        group.addoption(
            "--builds-on", action="append", default=[], metavar="NAME", help="built-in implementation whose kernel it calls; repeatable"
        )
    group.addoption("--quick", action="store_true", help="benchmarks: a few shapes, in three minutes on two cores")
    group.addoption(
        "--against", metavar="NAME", help="benchmarks: the yardstick, named as in --implementation; F.layer_norm if none is named"
    )
    group.addoption(
        "--regress",
        type=percentage,
        metavar="PERCENT",
        help="benchmarks: fail where a ratio's whole interval lies more than PERCENT above where the baseline's sessions put it",
    )
    group.addoption("--record", action="store_true", help="benchmarks: add this session's ratios to the baseline, for this machine")
    group.addoption(
        "--record-afresh", action="store_true", help="benchmarks: put them in place of earlier sessions', as after a change that was meant"
    )
    group.addoption("--baseline", type=Path, default=baseline.PATH, metavar="PATH", help="benchmarks: file of the baseline")


def percentage(text: str) -> float:
    """A positive number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError("must be a positive number")
    return value


def pytest_configure(config: pytest.Config) -> None:
    """Read the baseline and load what is timed, so that a wrong option is told before anything is run."""
    if config.getoption("numprocesses", None) and not config.getoption("--benchmark-disable"):
        raise pytest.UsageError("-n (pytest-xdist) is given, but what is timed needs the machine for itself: leave it out")
    option = config.getoption
    try:
        known = baseline.read(option("--baseline"))
        config.stash[_TIMED] = tuple(
            _implementations(option("--implementation"), option("--semantics"), option("--device"), option("--builds-on"))
        )
        config.stash[_AGAINST] = None if option("--against") is None else load(option("--against"))
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        raise pytest.UsageError(str(error)) from None
    path = option("--baseline")
    if (option("--record") or option("--record-afresh")) and not path.parent.is_dir():
        raise pytest.UsageError(f"--baseline is {path}, but {path.parent} is no folder")
    config.stash[REPORT] = Report(known, option("--regress"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One benchmark for each implementation and setting; the quick ones first, so that an interrupted run has them."""
    if "setting" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    names = ("cpu", "cuda") if option("--device") is None else (option("--device"),)
    found = []
    for implementation in metafunc.config.stash[_TIMED]:
        builtin = implementation.name in REGISTERED
        emulated = builtin and implementation.name.startswith(_EMULATED)
        devices = tuple(name for name in names if (builtin or name in implementation.devices) and not (emulated and name == "cpu"))
        for setting in settings(implementation.semantics, quick=option("--quick"), devices=devices):
            found.append(pytest.param(implementation, setting, id=f"{implementation.name}-{setting}"))
    if not found:
        raise pytest.UsageError(f"{option('--implementation')} is interpreted or emulated on a CPU, where its time says nothing")
    metafunc.parametrize(("implementation", "setting"), found)


def _implementations(name: str | None, semantics: str | None, device: str | None, builds_on: list[str]) -> Iterator[Implementation]:
    if name is not None:
        yield load(name, semantics=semantics, device=device, builds_on=builds_on)
        return
    for each in REGISTERED:
        implementation = load(each)
        if implementation.framework == "torch" and each not in _NOT_TIMED and semantics in (None, implementation.semantics):
            yield implementation


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each kernel's benchmark has a timer of its own, and stands beside the others of its setting in pytest-benchmark's tables.

    Where an implementation is named, what the suite itself costs is not asked.
    """
    if config.getoption("--implementation") is not None:
        suite = [item for item in items if item.path == _HERE / "test_suite.py"]
        config.hook.pytest_deselected(items=suite)
        items[:] = [item for item in items if item not in suite]
    for item in items:
        if item.path.is_relative_to(_HERE) and "setting" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(timer=Clock(), group=str(item.callspec.params["setting"])))  # type: ignore[attr-defined]


@pytest.fixture
def yardstick(request: pytest.FixtureRequest, implementation: Implementation) -> Implementation:
    """What the implementation is compared with."""
    found = request.config.stash[_AGAINST]
    if found is None:
        return load("torch/permute" if implementation.semantics == "channel" else "torch/layer_norm_chw")
    if found.semantics != implementation.semantics:
        pytest.skip(f"--against {found.name} is declared {found.semantics!r}")
    return found


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Where results are put for the summary and the baseline."""
    return request.config.stash[REPORT]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The ratios in words, and the goals of the suite itself."""
    report = config.stash[REPORT]
    if report.lines:
        terminalreporter.section(f"time over the yardstick's: median of {LEAST_PAIRS} alternated pairs or more, and its 99 % interval")
        for line in report.lines:
            terminalreporter.line(line)
        terminalreporter.line(
            f"A/A: the yardstick over itself; off by more than {LARGEST_CONTROL:.0%}, or where other threads of this process waited "
            "for a processor (OMP_NUM_THREADS=1 has none), a result is inconclusive"
        )
    if report.goals:
        terminalreporter.section("the suite itself")
        for line in report.goals:
            terminalreporter.line(line)
    afresh = config.getoption("--record-afresh")
    for note in report.finished(config.getoption("--baseline"), record=afresh or config.getoption("--record"), afresh=afresh):
        terminalreporter.line(note)


def pytest_report_header(config: pytest.Config) -> str:
    """What the ratios depend on."""
    return f"benchmarks on: {machine()}"
