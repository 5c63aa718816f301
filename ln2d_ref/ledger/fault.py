"""One fault of one released implementation, and which violations it explains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..case import Case
from ..violation import Violation

__all__ = ["KnownFault"]

_CASES = Path(__file__).parents[1] / "known_cases"


@dataclass(frozen=True)
class KnownFault:
    """One fault of one released implementation.

    implementation   name of the implementation that shows it
    package, since   the package whose fault it is, and the first release that is known to have it
    until            the first release without it, or None
    laws, quantities, dtypes, devices
    when             predicate over the case
    ceiling          largest error/bound that is put down to it; infinite where the result is wrong in kind
    reason           one sentence
    pinned           name of a case file in ln2d_ref/known_cases
    crashes          whether it ends the process: such a case is counted and not run
    erratic          whether a call as good as the one that shows it may not, as where memory is not written or a rounding decides
    """

    name: str
    implementation: str
    package: str
    since: str
    laws: tuple[str, ...]
    quantities: tuple[str, ...]
    dtypes: tuple[str, ...]
    when: Callable[[Case], bool]
    ceiling: float
    reason: str
    pinned: str
    devices: tuple[str, ...] = ("cpu",)
    until: str | None = None
    crashes: bool = False
    erratic: bool = False

    def matches(self, violation: Violation) -> bool:
        """Whether this entry explains the violation, where the implementation has the fault."""
        return (
            violation.law in self.laws
            and violation.quantity in self.quantities
            and violation.ratio <= self.ceiling
            and self.covers(violation.case)
        )

    def covers(self, case: Case) -> bool:
        """Whether the implementation, as installed, has the fault on a case like this one."""
        return case.dtype in self.dtypes and case.device in self.devices and self.current() and self.when(case)

    def current(self) -> bool:
        """Whether the installed release is one that has the fault."""
        installed = _installed(self.package)
        return installed is not None and _release(self.since) <= installed and (self.until is None or installed < _release(self.until))

    def pinned_case(self) -> Case:
        """The smallest case that shows it."""
        return Case.load(_CASES / self.pinned)


@cache
def _installed(package: str) -> tuple[int, ...] | None:
    """Release of an installed package, or None; reading its metadata costs as much as judging a case."""
    try:
        return _release(version(package))
    except PackageNotFoundError:
        return None


def _release(text: str) -> tuple[int, ...]:
    numbers = text.partition("+")[0].split(".")
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in numbers[:3])
