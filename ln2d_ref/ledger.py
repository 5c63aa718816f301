"""Known faults of released implementations: counted and reported, never hidden, and no reason for a run to be red.

A violation that matches an entry is known. Each entry has a ceiling on error/bound and a predicate over the case, so that a second
fault in the same quantity is still found, and a pinned case, which must go on failing: else the entry is stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .case import Case
from .violation import Violation

__all__ = ["LEDGER", "KnownFault", "known_fault", "stale"]

_CASES = Path(__file__).parent / "known_cases"


@dataclass(frozen=True)
class KnownFault:
    """One fault of one released implementation.

    implementation   names of the implementations that show it
    package, since   the package whose fault it is, and the first release that is known to have it
    until            the first release without it, or None
    law, quantities, dtypes
    when             predicate over the case
    ceiling          largest error/bound that is put down to it; infinite where the result is wrong in kind
    reason           one sentence
    pinned           name of a case file in ln2d_ref/known_cases
    """

    name: str
    implementation: tuple[str, ...]
    package: str
    since: str
    law: str
    quantities: tuple[str, ...]
    dtypes: tuple[str, ...]
    when: Callable[[Case], bool]
    ceiling: float
    reason: str
    pinned: str
    until: str | None = None

    def matches(self, violation: Violation) -> bool:
        """Whether this entry explains the violation."""
        return (
            violation.implementation in self.implementation
            and violation.law == self.law
            and violation.quantity in self.quantities
            and violation.case.dtype in self.dtypes
            and violation.ratio <= self.ceiling
            and self.current()
            and self.when(violation.case)
        )

    def current(self) -> bool:
        """Whether the installed release is one that has the fault."""
        try:
            installed = _release(version(self.package))
        except PackageNotFoundError:
            return False
        return _release(self.since) <= installed and (self.until is None or installed < _release(self.until))

    def pinned_case(self) -> Case:
        """The smallest case that shows it."""
        return Case.load(_CASES / self.pinned)


LEDGER: tuple[KnownFault, ...] = ()


def known_fault(violation: Violation, ledger: tuple[KnownFault, ...] = LEDGER) -> KnownFault | None:
    """The entry that explains a violation, or None."""
    return next((entry for entry in ledger if entry.matches(violation)), None)


def stale(shown: Callable[[str, Case], Iterator[Violation]], ledger: tuple[KnownFault, ...] = LEDGER) -> list[KnownFault]:
    """Entries for the installed release whose pinned case no longer fails.

    `shown(name, case)` gives the violations of the implementation of that name.
    """
    return [
        entry
        for entry in ledger
        if entry.current()
        and not all(
            any(entry.matches(violation) for violation in shown(name, entry.pinned_case())) for name in entry.implementation
        )
    ]


def _release(text: str) -> tuple[int, ...]:
    numbers = text.partition("+")[0].split(".")
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in numbers[:3])
