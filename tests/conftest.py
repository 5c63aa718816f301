"""Options, Hypothesis profiles, and what pytest prints of a violation."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Flaky

from ln2d_ref import Implementation, Violation
from ln2d_ref.crashes import crashes
from ln2d_ref.implementations import REGISTERED, load, unavailable
from ln2d_ref.laws import LAWS, select
from ln2d_ref.semantics import SEMANTICS
from strategies.examiner import Examiner, Unrepeatable
from strategies.search import CASES_ASIDE

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".ln2d"
_COMMON = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "report_multiple_bugs": False,
    "print_blob": False,
}
hypothesis.configuration.set_hypothesis_home_dir(ROOT / ".hypothesis")
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # climbing towards the bound pays in long runs only
hypothesis.settings.register_profile("dev", max_examples=100, phases=_PHASES, **_COMMON)
hypothesis.settings.register_profile("ci", max_examples=100, phases=_PHASES, derandomize=True, database=None, **_COMMON)
hypothesis.settings.register_profile("fuzz", max_examples=20_000, **_COMMON)
hypothesis.settings.load_profile("dev")

JUDGED: pytest.StashKey[list[Any]] = pytest.StashKey()
ROTATION: pytest.StashKey[int] = pytest.StashKey()
EXAMINER: pytest.StashKey[Examiner] = pytest.StashKey()
TOLD = "ln2d_ref"
"""Name of the property by which a test tells the summary what it did."""
_RUN_BY_DEFAULT = tuple(name for name in REGISTERED)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ln2d_ref")
    with suppress(ValueError):  # benchmarks/conftest.py has these four as well, where both paths are given
        group.addoption("--implementation", help="a registered name, package.module:attribute or path/to/file.py:attribute")
    with suppress(ValueError):
        group.addoption("--semantics", choices=SEMANTICS, help="of a bare function or module: channel (default) or sample")
    with suppress(ValueError):
        group.addoption("--device", choices=("cpu", "cuda"), help="where tensors are placed")
    with suppress(ValueError):
        group.addoption(
            "--builds-on", action="append", default=[], metavar="NAME", help="built-in implementation whose kernel it calls; repeatable"
        )
    group.addoption("--law", action="append", help="judge this law only (may be repeated)")


@pytest.hookimpl(trylast=True)  # Hypothesis loads --hypothesis-profile before
def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROTATION] = _rotation(config)
    if not _in_worker(config):
        config.pluginmanager.register(Summary(config), TOLD)
    try:
        select(tuple(config.getoption("--law") or ()))
        config.stash[JUDGED] = _judged(config)
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each law and implementation."""
    if "implementation" in metafunc.fixturenames:
        judged = metafunc.config.stash[JUDGED]
        metafunc.parametrize("implementation", judged, ids=lambda each: getattr(each, "name", None))


def _judged(config: pytest.Config) -> list[Any]:
    """The implementation that --implementation names, or all built-in ones."""
    name, semantics, device, builds_on = (config.getoption(f"--{each}") for each in ("implementation", "semantics", "device", "builds-on"))
    if name is not None:
        return [load(name, semantics=semantics, device=device, builds_on=builds_on)]
    if builds_on:
        raise ValueError(f"--builds-on is {', '.join(builds_on)}, but no --implementation is named")
    judged = [_of_all(each, device) for each in _RUN_BY_DEFAULT]
    return [each for each in judged if semantics is None or semantics == getattr(each, "semantics", semantics)]


def _of_all(name: str, device: str | None) -> Any:
    """A registered implementation, or where what it needs is not installed, a parameter that skips and says so."""
    try:
        return load(name, device=None if name.startswith("numpy/") else device)
    except ImportError as error:
        return pytest.param(None, id=name, marks=pytest.mark.skip(reason=f"{name}: {error}"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the conformance tests of laws that were not asked for: by --law, or without it of opt-in ones.

    With --law, test_large goes too, which judges by several. Each implementation's examples are kept under a key of their own.
    """
    for item in items:
        if "implementation" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.parametrize("implementation", []))  # Hypothesis looks for it; another's example is not shrunk
    asked = config.getoption("--law")
    wanted = asked or tuple(law.name for law in select())
    kept = [item for item in items if _law_of(item) in (None, *wanted) and (asked or _says_something(item))]
    if asked:
        kept = [item for item in kept if getattr(item, "originalname", "") != "test_large"]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _law_of(item: pytest.Item) -> str | None:
    """The law that a conformance test judges; None for any other test."""
    function = getattr(item, "originalname", "")
    return function.removeprefix("test_") if "implementation" in getattr(item, "fixturenames", ()) and function[5:] in LAWS else None


def _says_something(item: pytest.Item) -> bool:
    """Whether a conformance test's law is about such implementations; `module` is about nn.Module classes."""
    law = _law_of(item)
    implementation = item.callspec.params["implementation"] if law is not None else None
    return law is None or not isinstance(implementation, Implementation) or LAWS[law].concerns(implementation)


def _in_worker(config: pytest.Config) -> bool:
    """Whether this process is one of pytest-xdist's workers, which report to another."""
    return hasattr(config, "workerinput")


def _rotation(config: pytest.Config) -> int:
    """Which compile signatures a run judges: fixed by --hypothesis-seed or a derandomized profile, else others each time."""
    if _in_worker(config):  # all judge the controller's
        return config.workerinput["ln2d_rotation"]
    seed = config.getoption("--hypothesis-seed")
    if seed is None:
        return 0 if hypothesis.settings.default.derandomize else random.SystemRandom().getrandbits(16)
    return int(seed) if seed.isdecimal() else zlib.crc32(seed.encode())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist what the run has drawn."""
    node.workerinput["ln2d_rotation"] = node.config.stash[ROTATION]


@pytest.fixture
def rotation(request: pytest.FixtureRequest) -> int:
    """Which compile signatures this run judges."""
    return request.config.stash[ROTATION]


@pytest.fixture
def examiner(request: pytest.FixtureRequest, implementation, record_property) -> Iterator[Examiner]:
    """Judges one implementation by one law, and writes what it finds."""
    reason = unavailable(implementation)
    if reason is not None:
        pytest.skip(reason)
    if not _says_something(request.node):
        pytest.skip(f"{implementation.name} is no nn.Module class")
    law = _law_of(request.node)
    found = Examiner(implementation, select((law,)), FOLDER, limit=_limit(implementation, law))
    request.node.stash[EXAMINER] = found
    yield found
    found.close()
    record_property(TOLD, _told_by(found))


_SHARES = {"triton": 16, "cuda": 8}
"""Kernels that are interpreted or emulated on the CPU, up to 100 times as slow, are judged on one in so many of a profile's cases."""


def _limit(implementation, law: str) -> int | None:
    """Number of cases for a law, or None for all of the profile's."""
    if law == "module":  # of structure and not of values, and each case in float32 is exported
        return min(CASES_ASIDE, hypothesis.settings.default.max_examples)
    share = _SHARES.get(implementation.name.partition("/")[0]) if implementation.name in REGISTERED else None
    return max(1, hypothesis.settings.default.max_examples // share) if share and implementation.devices == ("cpu",) else None


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function):
    """Turn however a search ended into the violation that it found."""
    try:
        return (yield)
    except (Violation, Unrepeatable, Flaky) as error:
        examiner = pyfuncitem.stash.get(EXAMINER, None)
        violation = examiner.verdict(error) if examiner is not None else None
        if violation is None:
            raise
        raise violation from None
    except KeyboardInterrupt:
        examiner = pyfuncitem.stash.get(EXAMINER, None)
        summary = pyfuncitem.config.pluginmanager.get_plugin(TOLD)
        if examiner is not None and summary is not None:
            summary.interrupted(examiner)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """A violation's message is all that is printed of it."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, Violation) and "implementation" in item.fixturenames:
        report.longrepr = str(call.excinfo.value)
        report.sections = []
    return report


class Summary:
    """What the tests tell, gathered where it is printed: with pytest-xdist they run in other processes."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.told: list[dict[str, Any]] = []
        self.found: list[Violation] = []

    def pytest_sessionstart(self) -> None:
        """Tell what an earlier run left: this one may end as that did."""
        self._tell_crashes()

    def interrupted(self, examiner: Examiner) -> None:
        """Keep what a test had done and found when it was interrupted: no report comes of it."""
        self.told.append(_told_by(examiner))
        self.found += [examiner.found] if examiner.found is not None else []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test recorded."""
        if report.when == "teardown":
            self.told += [value for name, value in report.user_properties if name == TOLD]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """What was covered, how to draw it again, and which known faults were met."""
        for violation in self.found:
            terminalreporter.section("found before the interruption, and not yet at its smallest")
            terminalreporter.line(str(violation))
        self._tell_crashes()
        judged = [each for each in self.config.stash[JUDGED] if self._of(each)]
        if judged:
            terminalreporter.section("judged")
        for implementation in judged:
            terminalreporter.line(_covered(implementation, self._of(implementation)))
        if any(each.framework == "compile" for each in judged):
            terminalreporter.line(f"compile signatures: --hypothesis-seed={self.config.stash[ROTATION]} draws the same again")
        known = sum((Counter(told["known"]) for told in self.told), Counter())
        if known:
            terminalreporter.section("known faults (docs/findings.md)")
        for name, count in sorted(known.items()):
            terminalreporter.line(f"{name}: met {count} times")

    def _tell_crashes(self) -> None:
        names = {
            name for each in self.config.stash[JUDGED] for name in (getattr(each, "name", None), getattr(each, "source", None)) if name
        }
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None and (told := crashes(FOLDER, names)):
            terminal.section("was being judged when a process ended")
            terminal.line("\n".join(told))

    def _of(self, implementation: Any) -> list[dict[str, Any]]:
        """What the tests of an implementation told."""
        return [told for told in self.told if "cases" in told and told["implementation"] == getattr(implementation, "name", None)]


def _told_by(examiner: Examiner) -> dict[str, Any]:
    """Plain data, which goes from one process to another."""
    worst = float(max(examiner.worst.values(), default=0.0))
    found = examiner.found is not None
    return {
        "implementation": examiner.implementation.name,
        "cases": examiner.cases,
        "worst": worst,
        "found": found,
        "known": dict(examiner.known),
    }


def _covered(implementation: Implementation, told: list[dict[str, Any]]) -> str:
    """What a pass covered: cases, and what was declared or assumed."""
    shape = "(C, H, W)" if implementation.affine_shape == "element" else "(C,)"
    arithmetic = "at least float32" if implementation.arithmetic == "float32" else "the dtype of x"
    worst = max(each["worst"] for each in told)
    passed = "of what passed, " if any(each["found"] for each in told) else ""
    return (
        f"{implementation.name}: {sum(each['cases'] for each in told)} cases"
        + (f", {passed}worst error at {worst:.2f} of the bound; " if worst else "; ")
        + f"{implementation.semantics}, affine {'/'.join(implementation.affine)} of {shape}, {'/'.join(implementation.dtypes)}, "
        f"computed in {arithmetic}, {'/'.join(implementation.devices)}"
    )
