"""Examining case after case: what is new, what is known, what came back, and the smallest case for what was found."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import event, target
from hypothesis.errors import Flaky

from ln2d_ref import Case, Implementation, Violation
from ln2d_ref.check import compare, violations
from ln2d_ref.crashes import Running
from ln2d_ref.implementations import executor_for
from ln2d_ref.laws import Law, Trial
from ln2d_ref.ledger import LEDGER, KnownFault, crashing
from ln2d_ref.reproduction import write, written_case

from .explanations import explaining, hint, key

__all__ = ["Examiner", "Report", "Unrepeatable"]

_EVERY = 4

_PLAIN = 3.0
"""Times the bound that a smaller case must be wrong by too, where the first one was: 1.1 times leaves a reader in doubt."""


class Unrepeatable(BaseException):
    """Carries a violation that did not come back past Hypothesis, which would call it flaky, to the caller."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.headline)
        self.violation = violation


@dataclass(frozen=True)
class Report:
    """What a search found.

    violation      the smallest case found for the first new violation, or None
    cases          number of cases judged, up to the first failure where there is one
    worst          largest error/bound by (quantity, dtype), where nothing was violated
    known          how often each ledger entry was met, by its name
    observations   what is worth telling and breaks no law, with counts
    """

    violation: Violation | None
    cases: int
    worst: dict[tuple[str, str], float]
    known: dict[str, int]
    observations: dict[str, int]

    def __str__(self) -> str:
        worst = max(self.worst.values(), default=0.0)
        lines = [str(self.violation) if self.violation else f"no violation in {self.cases} cases, worst error at {worst:.2f} of the bound"]
        lines += [f"known: {name} ({count} times)" for name, count in self.known.items()]
        lines += [f"observed: {name} ({count} times)" for name, count in self.observations.items()]
        return "\n".join(lines)


@dataclass(repr=False)
class Examiner:
    """Judges one case after another; remembers the first new violation's law and quantity, and the smallest case for it.

    Stateful laws, which run the implementation several times more, are judged on every case where they are alone; beside others on one in
    four and on the first with elements, since an implementation may keep what it meets first; and once one is found broken, on each.

    `folder` is where what is found is written, and meanwhile the case that is being run, which is left there where it ends the process.
    `limit` is the number of cases after which it has seen enough, if it found nothing.
    """

    implementation: Implementation
    laws: tuple[Law, ...]
    folder: Path | None = None
    ledger: tuple[KnownFault, ...] = LEDGER
    limit: int | None = None
    cases: int = 0
    met: bool = False
    found: Violation | None = None
    least: float = 0.0
    worst: dict[tuple[str, str], float] = field(default_factory=dict)
    known: Counter[str] = field(default_factory=Counter)
    observations: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Executors hold no state of a case, so one serves all."""
        self.executor = executor_for(self.implementation)
        self.stateless = tuple(law for law in self.laws if not law.stateful)
        names = "+".join(law.name for law in self.laws)
        self.running = None if self.folder is None else Running(self.folder, self.implementation, names)

    def __repr__(self) -> str:
        """Short, whatever has been seen."""
        return f"Examiner({self.implementation.name}, {self.cases} cases)"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Hypothesis goes through a dataclass's fields, warns where that gets long, and takes the warning for a flaky test."""
        printer.text(repr(self))

    def examine(self, case: Case) -> None:
        """Judge a case; raise the Violation that it shows, if new, or Unrepeatable if it does not come back."""
        crash = crashing(self.implementation, case, self.ledger)
        if crash is not None:
            self.known[crash.name] += 1
            return
        if self.found is not None and self.implementation.framework == "compile" and self._signature_moved(case):
            return  # a smaller case of another signature runs another graph
        if self.found is None:
            self.cases += 1
        self._note(case)
        laws = self._laws_for(case)
        violation = self._first_new(case, laws)
        if violation is None:
            return
        if self._shown(violation.case, violation, laws) is None:
            violation = _unrepeated(violation)
            self._record(violation)
            raise Unrepeatable(violation)
        self._record(violation)
        raise violation

    def _note(self, case: Case) -> None:
        """Keep what is about to be run."""
        if self.running is not None:
            self.running.note(case)

    def _signature_moved(self, case: Case) -> bool:
        return self.found is not None and self.implementation.signature(case) != self.implementation.signature(self.found.case)

    def close(self) -> None:
        """No more cases come: none has ended the process."""
        if self.running is not None:
            self.running.close()

    @property
    def enough(self) -> bool:
        """Whether no more cases are wanted."""
        return self.limit is not None and self.found is None and self.cases >= self.limit

    def verdict(self, error: BaseException | None = None) -> Violation | None:
        """The violation to report after a search ended, with this error or none."""
        if isinstance(error, Unrepeatable):
            return error.violation
        if isinstance(error, Flaky) and self.found is not None and self._shown(self.found.case, self.found, self.laws) is None:
            return self._kept(_unrepeated(self.found))
        return self.found

    def report(self, violation: Violation | None) -> Report:
        """What has been seen so far."""
        return Report(violation, self.cases, dict(self.worst), dict(self.known), dict(self.observations))

    def _laws_for(self, case: Case) -> tuple[Law, ...]:
        """What the case is judged by; the same for the same case once something is found, as Hypothesis wants."""
        if self.found is not None:
            return self.stateless if any(law.name == self.found.law for law in self.stateless) else self.laws
        first, self.met = case.x.size > 0 and not self.met, self.met or case.x.size > 0
        return self.laws if first or not self.stateless or _one_in(_EVERY, case) else self.stateless

    def _first_new(self, case: Case, laws: tuple[Law, ...]) -> Violation | None:
        trial = Trial(self.executor, self.implementation, case)
        violated = set()
        new = None
        for violation in violations(trial, laws):
            violated.add(violation.quantity)
            entry = explaining(violation, self.implementation, self.laws, self.ledger)
            if entry is not None:
                self.known[entry.name] += 1
            elif self.found is None or (key(violation) == key(self.found) and violation.ratio >= self.least):
                new = violation
                break
        if new is None:
            self._observe(trial, violated)
        return new

    def _observe(self, trial: Trial, violated: set[str]) -> None:
        if trial.outcome.raised is not None and trial.excusable():
            self.observations[f"refused a shape with {trial.outcome.raised.type}"] += 1
        self.observations.update(trial.observed)
        judged: dict[str, float] = {}
        undecided: list[str] = []
        if "expected" in trial.__dict__:
            judged |= trial.worst
            undecided += [name for name in trial.worst if trial.expected[name].undecided]
        if "derived" in trial.__dict__:
            judged |= trial.derived.worst
            undecided += trial.derived.undecided
            self.observations.update(trial.derived.refused)
        for quantity, worst in judged.items():
            if quantity not in violated and worst <= 1.0:
                key = (quantity, trial.case.dtype)
                self.worst[key] = max(worst, self.worst.get(key, 0.0))
                target(worst, label=f"error/bound of {quantity}")
        self.observations.update(f"{quantity} undecided in some elements" for quantity in undecided)
        event(f"layout {'contiguous' if trial.case.contiguous else 'strided'}")

    def _shown(self, case: Case, violation: Violation, laws: tuple[Law, ...]) -> Violation | None:
        """The same law broken in the same quantity by a case, or None."""
        self._note(case)
        trial = Trial(self.executor, self.implementation, case)
        return next((other for other in violations(trial, laws) if key(other) == key(violation)), None)

    def _record(self, violation: Violation) -> None:
        if self.found is None:
            self.least = _PLAIN if violation.ratio >= _PLAIN else 0.0
            violation = self._smallest(violation)
        elif violation.case.x.size > self.found.case.x.size:
            return
        self.found = self._kept(violation)

    def _smallest(self, violation: Violation) -> Violation:
        """This, or what a case as small, that an earlier run left for this law and quantity, still shows."""
        case = None if self.folder is None else written_case(self.folder, violation)
        if case is None or case.device != violation.case.device or case.x.size > violation.case.x.size:
            return violation
        shown = self._shown(case, violation, self.laws)
        return violation if shown is None or shown.ratio < self.least else shown

    def _kept(self, violation: Violation) -> Violation:
        violation.cases = self.cases
        violation.hint = hint(violation, self.implementation, self.executor, self.laws, self.ledger)
        compare(violation, self.executor, self.implementation)
        if self.folder is None:
            law = next((law for law in self.laws if law.name == violation.law), None)
            named = f", laws=({law.name!r},)" if law is not None and (law.aside or law.opt_in) else ""
            violation.reproduce = f"ln2d_ref.check(implementation, report.violation.case{named}) raises it"
        else:
            write(violation, self.implementation, self.folder)
        return violation


def _one_in(count: int, case: Case) -> bool:
    """Chosen by what the case is: by its number, every fourth would be one of the simple ones that Hypothesis puts between the others."""
    settings = f"{case.x.shape} {case.dtype} {case.eps} {case.regime} {case.requires_grad}".encode()
    return zlib.crc32(case.x.reshape(-1)[:64].tobytes(), zlib.crc32(settings)) % count == 0


def _unrepeated(violation: Violation) -> Violation:
    """The same finding as one of `history`: a wrong answer that the same case does not always give."""
    if violation.law == "history":
        return violation
    return Violation(
        "history",
        violation.quantity,
        f"{violation.headline}; not when run again",
        case=violation.case,
        implementation=violation.implementation,
        ratio=violation.ratio,
        extent=violation.extent,
        worst=violation.worst,
        expected=violation.expected,
        way=violation.way,
    )
