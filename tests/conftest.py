"""Options, Hypothesis profiles, and what pytest prints of a violation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Flaky

from ln2d_ref import Violation
from ln2d_ref.implementations import REGISTERED, load
from ln2d_ref.laws import LAWS, select
from ln2d_ref.semantics import SEMANTICS
from strategies.search import Examiner, Unrepeatable

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

KNOWN: pytest.StashKey[Counter[str]] = pytest.StashKey()
INTERRUPTED: pytest.StashKey[list[Violation]] = pytest.StashKey()
_RUN_BY_DEFAULT = tuple(name for name in REGISTERED)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ln2d_ref")
    group.addoption("--implementation", help="a registered name, package.module:attribute or path/to/file.py:attribute")
    group.addoption("--semantics", choices=SEMANTICS, help="of a bare function or module: channel (default) or sample")
    group.addoption("--device", choices=("cpu", "cuda"), help="where tensors are placed")
    group.addoption("--law", action="append", help="judge this law only (may be repeated)")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[KNOWN] = Counter()
    config.stash[INTERRUPTED] = []
    if config.getoption("--law"):
        try:
            select(tuple(config.getoption("--law")))
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each law and implementation."""
    if "implementation" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    name, semantics, device = option("--implementation"), option("--semantics"), option("--device")
    try:
        if name is not None:
            judged = [load(name, semantics=semantics, device=device)]
        else:
            judged = [load(each, device=device if each.startswith("torch/") else None) for each in _RUN_BY_DEFAULT]
            judged = [each for each in judged if semantics in (None, each.semantics)]
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        raise pytest.UsageError(str(error)) from None
    metafunc.parametrize("implementation", judged, ids=[each.name for each in judged])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the conformance tests of laws that were not asked for: by --law, or without it of opt-in ones.

    Each implementation's examples are kept under a key of their own.
    """
    for item in items:
        if "implementation" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.parametrize("implementation", []))  # Hypothesis looks for it; another's example is not shrunk
    wanted = config.getoption("--law") or tuple(law.name for law in select())
    kept = [item for item in items if _law_of(item) in (None, *wanted)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _law_of(item: pytest.Item) -> str | None:
    """The law that a conformance test judges; None for any other test."""
    function = getattr(item, "originalname", "")
    return function.removeprefix("test_") if "implementation" in getattr(item, "fixturenames", ()) and function[5:] in LAWS else None


@pytest.fixture
def examiner(request: pytest.FixtureRequest, implementation) -> Examiner:
    """Judges one implementation by one law, and writes what it finds."""
    if "cuda" in implementation.devices and implementation.framework == "torch":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("--device cuda, but torch finds no CUDA device")
    found = Examiner(implementation, select((_law_of(request.node),)), FOLDER)
    request.node.stash[EXAMINER] = found
    return found


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """A violation's message is all that is printed of it."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, Violation) and EXAMINER in item.stash:
        report.longrepr = str(call.excinfo.value)
        report.sections = []
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for violation in config.stash[INTERRUPTED]:
        terminalreporter.section("found before the interruption, and not yet at its smallest")
        terminalreporter.line(str(violation))
    known = config.stash[KNOWN]
    if known:
        terminalreporter.section("known faults (docs/findings.md)")
        for name, count in sorted(known.items()):
            terminalreporter.line(f"{name}: met {count} times")
