"""Searching for a violation: judge, find_violation, and the cases that a law is judged on, which the conformance tests draw too."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, configuration, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from ln2d_ref import Case, Implementation, Violation
from ln2d_ref.implementations import as_implementation
from ln2d_ref.laws import Law, select

from .cases import cases
from .examiner import Examiner, Report, Unrepeatable
from .signatures import rounds_for, signatures
from .values import FINITE_REGIMES

__all__ = ["CASES_ASIDE", "find_violation", "judge", "law_cases", "search"]

_LAW_CASES: dict[str, dict[str, Any]] = {
    "value": {"regimes": FINITE_REGIMES, "shape_kinds": ("small", "medium", "tile", "rows")},
    "gradients": {"regimes": FINITE_REGIMES, "shape_kinds": ("small", "medium", "tile", "rows")},
    "special_values": {"regimes": ("nonfinite",), "shape_kinds": ("small", "medium", "tile", "single")},
    "degenerate": {"regimes": FINITE_REGIMES, "shape_kinds": ("single", "empty")},
    "layout": {"allow_contiguous": False},
    "derivatives": {"regimes": FINITE_REGIMES, "shape_kinds": ("small", "medium"), "max_elements": 64},
    "independence": {"regimes": FINITE_REGIMES, "shape_kinds": ("small", "medium", "tile")},
    "bad_arguments": {"regimes": ("normal",), "shape_kinds": ("small",)},
    "module": {"regimes": ("normal",), "shape_kinds": ("small",), "allow_strided": False, "max_elements": 64},
    "batch_invariance": {"shape_kinds": ("small", "medium", "tile", "rows")},
    "extreme_range": {"regimes": FINITE_REGIMES, "shape_kinds": ("small", "medium")},
}
"""Arguments of `cases` for the laws that say something about some cases only."""

CASES_ASIDE = 25
"""Of a search for all laws, for those of calls outside the contract, which depend on values no more."""


def law_cases(
    implementation: Implementation, law: str | None = None, *, rotation: int = 0, rounds: int = 1, **arguments: Any
) -> st.SearchStrategy[Case]:
    """Cases within an implementation's contract, about which a law says something; None means any law.

    Cases of a compiled implementation lie in so many rounds of signatures, other ones for another rotation.
    """
    declared = {
        "semantics": implementation.semantics,
        "dtypes": implementation.dtypes,
        "affine": implementation.affine,
        "affine_shape": implementation.affine_shape,
        "eps": implementation.eps,
        "devices": implementation.devices,
    }
    within = signatures(implementation, law, seed=rotation, rounds=rounds) if implementation.framework == "compile" else ()
    return _kept(tuple({**declared, **_LAW_CASES.get(law or "", {}), **arguments, "within": within}.items()))


@lru_cache(maxsize=64)
def _kept(arguments: tuple[tuple[str, Any], ...]) -> st.SearchStrategy[Case]:
    """`cases`, kept since Hypothesis examines each new strategy at length."""
    return cases(**dict(arguments))


def judge(
    implementation: Any,
    *,
    semantics: str | None = None,
    max_examples: int = 1000,
    seed: int | None = None,
    laws: str | Sequence[str] | None = None,
) -> Report:
    """Search for a violation; the report of what was found. It writes no file.

    implementation   a callable fn(x, weight, bias, eps), an Implementation, an nn.Module class, or a name that `load` takes
    semantics        None for the implementation's own; ValueError where it contradicts that
    max_examples     number of cases
    seed             the same seed gives the same answer, in another process too; None for a fresh one
    laws             name or names of the laws to judge; None for all that are not opt-in; ValueError for an unknown name
    """
    judged = as_implementation(implementation, semantics=semantics)
    selected = select(None if laws is None else (laws,) if isinstance(laws, str) else tuple(laws))
    if max_examples < 1:
        raise ValueError(f"max_examples is {max_examples!r}, but must be at least 1")
    aside = tuple(law for law in selected if law.aside)
    report = search(judged, tuple(law for law in selected if not law.aside) or aside, max_examples, seed)
    if report.violation is not None or len(aside) in (0, len(selected)):
        return report
    for law in (law for law in aside if law.concerns(judged)):
        if report.violation is not None:
            break
        later = search(judged, (law,), min(max_examples, CASES_ASIDE), seed)
        report = replace(
            report,
            violation=later.violation,
            known=dict(Counter(report.known) + Counter(later.known)),
            observations=dict(Counter(report.observations) + Counter(later.observations)),
        )
    return report


def search(implementation: Implementation, laws: tuple[Law, ...], max_examples: int, seed: int | None, *, shrink: bool = True) -> Report:
    """`judge` after its arguments are checked; without `shrink` the first violation is reported as it was found."""
    # No target phase: measured, it spends half of the cases on variations of one, and rare sizes are then found half as often.
    examiner = Examiner(implementation, laws)
    law = laws[0].name if len(laws) == 1 else None
    rotation = random.SystemRandom().getrandbits(32) if seed is None else seed
    drawn = law_cases(implementation, law, rotation=rotation, rounds=rounds_for(max_examples))

    @settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @hypothesis.given(drawn)
    def run(case: Case) -> None:
        examiner.examine(case)

    if seed is not None:
        run = hypothesis.seed(seed)(run)
    violation = None
    try:
        with _nothing_written():
            run()
    except (Violation, Unrepeatable, Flaky) as error:
        violation = examiner.verdict(error)
    return examiner.report(violation)


@contextmanager
def _nothing_written() -> Iterator[None]:
    """Hypothesis's folder where none can be, so that its cache of source files' constants stays in memory."""
    before = configuration.storage_directory(intent_to_write=False).home_directory
    configuration.set_hypothesis_home_dir(Path(os.devnull, "hypothesis"))
    try:
        yield
    finally:
        configuration.set_hypothesis_home_dir(before)


def find_violation(
    implementation: Any,
    *,
    semantics: str | None = None,
    max_examples: int = 1000,
    seed: int | None = None,
    laws: str | Sequence[str] | None = None,
) -> Violation | None:
    """The smallest case found on which an implementation is wrong, as a Violation, or None; arguments as in `judge`."""
    return judge(implementation, semantics=semantics, max_examples=max_examples, seed=seed, laws=laws).violation
