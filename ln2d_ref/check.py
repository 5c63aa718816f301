"""check(implementation, case): every law that applies, on one case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .case import Case
from .implementations import Executor, Implementation, as_implementation, executor_for
from .laws import LAWS, Law, Trial, select
from .violation import Violation

__all__ = ["check", "compare", "violations"]


def check(implementation: Any, case: Case, *, laws: str | Sequence[str] | None = None) -> None:
    """Raise the first Violation that the implementation shows on the case; return None where it shows none.

    `implementation` is anything that `load` or `as_implementation` takes. `laws` names those to judge; None means all that are of this
    case: neither opt-in nor of calls made wrong. Raises ValueError where the case's semantics is not the implementation's, or a law is
    unknown; TypeError for a case that is none.
    """
    if not isinstance(case, Case):
        raise TypeError(f"case is {case!r}, but must be a Case; Case.load(path) reads one")
    judged = as_implementation(implementation, semantics=case.semantics)
    executor = executor_for(judged)
    named = (laws,) if isinstance(laws, str) else laws
    selected = tuple(law for law in select(None if named is None else tuple(named)) if named is not None or not law.aside)
    for violation in violations(Trial(executor, judged, case), selected):
        compare(violation, executor, judged)
        raise violation


def violations(trial: Trial, laws: tuple[Law, ...]) -> Iterator[Violation]:
    """Every violation that a trial shows, in judging order; after a broken `result`, only what can still be said."""
    for law in laws:
        if law.applies(trial.case):
            yield from law.violations(trial)


def compare(violation: Violation, executor: Executor, implementation: Implementation) -> None:
    """Let a compiled implementation's violation say whether aot_eager, the same graph run op by op, breaks the same law."""
    if executor.simpler is None:
        return
    again = violations(Trial(executor.simpler, implementation, violation.case), (LAWS[violation.law],))
    if any(other.quantity == violation.quantity for other in again):
        violation.compiled = "aot_eager is wrong too: the function or its decomposition, not the generated code"
    else:
        violation.compiled = "aot_eager is right: the code that inductor generates"
