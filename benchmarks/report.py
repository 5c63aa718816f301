"""What a session of benchmarks found: lines for the summary, and ratios held against the baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

from . import baseline
from .baseline import LEAST_SESSIONS, expected_at_most, middle
from .machine import machine
from .ratios import LONGEST_WAIT, Comparison, Ratio

__all__ = ["REPORT", "Report", "lasting", "regression", "told_from"]

_UNDECIDED = ("inconclusive", "too few pairs")
"""Verdicts of comparisons that are not put into a baseline, and held against one only where they are beyond doubt."""

_DOUBT = 2.0
"""How many times as high an undecided ratio must lie to be told: a control that is off by some per cent does not double one."""

_TRIED_AGAIN, _PAUSE = 2, 3.0
"""How often what looks like a regression is measured again, and after how many seconds."""


@dataclass
class Report:
    """Results of a session, beside the baseline that was there before."""

    known: baseline.Baseline
    regress: float | None = None
    ratios: dict[str, dict[str, Ratio]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    passed_by: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    told_from: list[float] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    goals: list[str] = field(default_factory=list)

    def told(self, name: str, device: str, comparison: Comparison) -> str | None:
        """What is to be said where --regress is given and this is a regression."""
        return None if self.regress is None else regression(comparison, self._before(name, device), self.regress)

    def _before(self, name: str, device: str) -> Sequence[Ratio]:
        return self.known.get(machine(device), {}).get(name, ())

    def add(self, name: str, device: str, comparison: Comparison, line: str) -> str | None:
        """Keep a result; what is to be said where it is a regression, which is not kept for the baseline."""
        self.lines.append(line)
        where = machine(device)
        before, slower = self._before(name, device), self.told(name, device, comparison)
        if self.regress is not None and len(before) < LEAST_SESSIONS:
            self.passed_by.append(name)
        elif self.regress is not None:
            if comparison.verdict not in _UNDECIDED:
                self.told_from.append(told_from(comparison.ratio, before, self.regress))
            elif slower is None:
                self.undecided.append(name)
        if slower is None and comparison.verdict not in _UNDECIDED:
            self.ratios.setdefault(where, {})[name] = comparison.ratio
        else:
            self.left_out.append(name)
        return slower

    def finished(self, path: Path, *, record: bool, afresh: bool = False) -> list[str]:
        """Record the ratios where that is asked for, in place of earlier sessions' or beside them; what there is to say of the baseline."""
        notes = []
        if self.told_from:
            notes.append(
                f"--regress {self.regress:g}: {len(self.told_from)} ratios held against {path.name}; as sessions differ, a slowdown is "
                f"told from {median(self.told_from):.0%} on in half of them, from {max(self.told_from):.0%} on in all"
            )
        if self.undecided:
            notes.append(f"not held against it, as inconclusive or of too few pairs: {_named(self.undecided)}")
        if self.passed_by:
            notes.append(
                f"{path.name} has fewer than {LEAST_SESSIONS} sessions on this machine of {_named(self.passed_by)}: passed; each run with "
                "--record adds a session"
            )
        if record:
            known = self.known
            for where, ratios in self.ratios.items():
                known = baseline.recorded(known, where, ratios, afresh=afresh)
                notes.append(f"{path}: {len(ratios)} ratios recorded for {where}")
            if self.left_out:
                notes.append(f"not recorded, as undecided or a regression: {_named(self.left_out)}")
            if self.ratios:
                baseline.write(path, known)
        return notes


def _named(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


REPORT: pytest.StashKey[Report] = pytest.StashKey()


def regression(comparison: Comparison, before: Sequence[Ratio], percent: float) -> str | None:
    """What is to be said where a ratio lies wholly more than `percent` above what the sessions let one more be, else None.

    One that is undecided must lie twice as high: what is so slow that it disturbs the control, or leaves no time for a hundred pairs, is
    told all the same. Where other threads waited nothing is told, since a long call is hit more often.
    """
    if len(before) < LEAST_SESSIONS or comparison.waiting > LONGEST_WAIT:
        return None
    ratio, most = comparison.ratio, expected_at_most(before)
    doubt = _DOUBT if comparison.verdict in _UNDECIDED else 1.0
    if not ratio.beyond(most * doubt, percent):
        return None
    return (
        f"{ratio} times the yardstick, but {middle(before):.3f} in the baseline, whose {len(before)} sessions let one more lie up to "
        f"{most:.3f}: {ratio.median / middle(before) - 1:.1%} more (--regress {percent:g})"
    )


def lasting(comparison: Comparison, again: Callable[[], Comparison], told: Callable[[Comparison], bool]) -> Comparison:
    """The lowest of the comparison and up to two more, made after some seconds each, for as long as it is told as a regression.

    A neighbour on a shared machine who takes the cache doubles some ratios, and leaves the control as it is; for seconds.
    """
    for _ in range(_TRIED_AGAIN):
        if not told(comparison):
            break
        time.sleep(_PAUSE)
        comparison = min(comparison, again(), key=lambda each: each.ratio.low)
    return comparison


def told_from(ratio: Ratio, before: Sequence[Ratio], percent: float) -> float:
    """The slowdown from which on a ratio with such an interval fails, as a part of 1."""
    return expected_at_most(before) / middle(before) * (1.0 + percent / 100.0) * (ratio.median / ratio.low) - 1.0
