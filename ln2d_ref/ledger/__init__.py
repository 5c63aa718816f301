"""Known faults of released implementations: counted and reported, never hidden, and no reason for a run to be red.

A violation that matches an entry is known. Each entry has a ceiling on error/bound and a predicate over the case, so that a second
fault in the same quantity is still found, and a pinned case, which must go on failing: else the entry is stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..case import Case
from ..implementations import Implementation
from ..violation import Violation
from .entries import LEDGER
from .fault import KnownFault

__all__ = ["LEDGER", "KnownFault", "crashing", "known_fault", "known_faults", "resembling", "stale"]


def crashing(implementation: Implementation, case: Case, ledger: tuple[KnownFault, ...] = LEDGER) -> KnownFault | None:
    """The entry by which running this case would end the process, or None."""
    return next((entry for entry in _of(implementation, ledger) if entry.crashes and entry.covers(case)), None)


def known_fault(violation: Violation, implementation: Implementation, ledger: tuple[KnownFault, ...] = LEDGER) -> KnownFault | None:
    """The first of `known_faults`, or None."""
    return next(known_faults(violation, implementation, ledger), None)


def known_faults(violation: Violation, implementation: Implementation, ledger: tuple[KnownFault, ...] = LEDGER) -> Iterator[KnownFault]:
    """The entries, of the implementation or of what it builds on, that explain a violation."""
    return (entry for entry in _of(implementation, ledger) if entry.matches(violation))


def resembling(violation: Violation, implementation: Implementation, ledger: tuple[KnownFault, ...] = LEDGER) -> list[KnownFault]:
    """Entries of other implementations that look like a violation: same semantics, law, quantity, dtype and kind of case."""
    others = (entry for entry in ledger if entry.implementation not in implementation.lineage and entry.matches(violation))
    return [entry for entry in others if entry.pinned_case().semantics == violation.case.semantics]


def _of(implementation: Implementation, ledger: tuple[KnownFault, ...]) -> Iterator[KnownFault]:
    """Entries of the implementation, and of what it builds on."""
    return (entry for entry in ledger if entry.implementation in implementation.lineage)


def stale(shown: Callable[[str, Case], Iterator[Violation]], ledger: tuple[KnownFault, ...] = LEDGER) -> list[KnownFault]:
    """Entries for the installed release whose pinned case no longer fails; one that crashes is not run, and not judged.

    `shown(name, case)` gives the violations of the implementation of that name.
    """
    return [
        entry
        for entry in ledger
        if entry.current()
        and not entry.crashes
        and not any(entry.matches(violation) for violation in shown(entry.implementation, entry.pinned_case()))
    ]
