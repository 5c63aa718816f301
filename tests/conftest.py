"""Options, Hypothesis profiles, and what pytest prints of a violation."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Flaky

from ln2d_ref import Implementation, Violation
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
EXAMINED: pytest.StashKey[list[Examiner]] = pytest.StashKey()
KNOWN: pytest.StashKey[Counter[str]] = pytest.StashKey()
ROTATION: pytest.StashKey[int] = pytest.StashKey()
INTERRUPTED: pytest.StashKey[list[Violation]] = pytest.StashKey()
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


def pytest_configure(config: pytest.Config) -> None:
    config.stash[KNOWN] = Counter()
    config.stash[EXAMINED] = []
    config.stash[INTERRUPTED] = []
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


@pytest.fixture(scope="session")
def rotation(request: pytest.FixtureRequest) -> int:
    """Which compile signatures a run judges: fixed by --hypothesis-seed or a derandomized profile, else others each time."""
    seed = request.config.getoption("--hypothesis-seed")
    if seed is None:
        return 0 if hypothesis.settings.default.derandomize else random.SystemRandom().getrandbits(16)
    return int(seed) if seed.isdecimal() else zlib.crc32(seed.encode())


@pytest.fixture
def known(request: pytest.FixtureRequest) -> Counter[str]:
    """Ledger entries that were met, for the summary."""
    return request.config.stash[KNOWN]


@pytest.fixture
def examiner(request: pytest.FixtureRequest, implementation, rotation) -> Examiner:
    """Judges one implementation by one law, and writes what it finds."""
    reason = unavailable(implementation)
    if reason is not None:
        pytest.skip(reason)
    if not _says_something(request.node):
        pytest.skip(f"{implementation.name} is no nn.Module class")
    if implementation.framework == "compile":
        request.config.stash[ROTATION] = rotation
    law = _law_of(request.node)
    found = Examiner(implementation, select((law,)), FOLDER, limit=_limit(implementation, law))
    request.node.stash[EXAMINER] = found
    return found


_SHARES = {"triton": 16, "cuda": 8}
"""Kernels that are interpreted or emulated on the CPU, up to 100 times as slow, are judged on one in so many of a profile's cases."""


def _limit(implementation, law: str) -> int | None:
    """Number of cases for a law, or None for all of the profile's."""
    if law == "module":  # of structure and not of values, and each case in float32 is exported
        return min(CASES_ASIDE, hypothesis.settings.default.max_examples)
    share = _SHARES.get(implementation.name.partition("/")[0])
    return max(1, hypothesis.settings.default.max_examples // share) if share and implementation.devices == ("cpu",) else None


EXAMINER: pytest.StashKey[Examiner] = pytest.StashKey()


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
        if examiner is not None and examiner.found is not None:
            pyfuncitem.config.stash[INTERRUPTED].append(examiner.found)
        raise
    finally:
        examiner = pyfuncitem.stash.get(EXAMINER, None)
        if examiner is not None:
            pyfuncitem.config.stash[KNOWN].update(examiner.known)
            pyfuncitem.config.stash[EXAMINED].append(examiner)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """A violation's message is all that is printed of it."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, Violation) and "implementation" in item.fixturenames:
        report.longrepr = str(call.excinfo.value)
        report.sections = []
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for violation in config.stash[INTERRUPTED]:
        terminalreporter.section("found before the interruption, and not yet at its smallest")
        terminalreporter.line(str(violation))
    if config.stash[EXAMINED]:
        terminalreporter.section("judged")
    for implementation in config.stash[JUDGED]:
        if mine := [examiner for examiner in config.stash[EXAMINED] if examiner.implementation is implementation]:
            terminalreporter.line(_covered(implementation, mine))
    if ROTATION in config.stash:
        terminalreporter.line(f"compile signatures: --hypothesis-seed={config.stash[ROTATION]} draws the same again")
    known = config.stash[KNOWN]
    if known:
        terminalreporter.section("known faults (docs/findings.md)")
        for name, count in sorted(known.items()):
            terminalreporter.line(f"{name}: met {count} times")


def _covered(implementation: Implementation, examiners: list[Examiner]) -> str:
    """What a pass covered: cases, and what was declared or assumed."""
    worst = max((ratio for examiner in examiners for ratio in examiner.worst.values()), default=0.0)
    shape = "(C, H, W)" if implementation.affine_shape == "element" else "(C,)"
    arithmetic = "at least float32" if implementation.arithmetic == "float32" else "the dtype of x"
    return (
        f"{implementation.name}: {sum(examiner.cases for examiner in examiners)} cases, worst error at {worst:.2f} of the bound; "
        f"{implementation.semantics}, affine {'/'.join(implementation.affine)} of {shape}, {'/'.join(implementation.dtypes)}, "
        f"computed in {arithmetic}, {'/'.join(implementation.devices)}"
    )
