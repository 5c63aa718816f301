"""What a session of benchmarks found: lines for the summary, and ratios held against the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

from . import baseline
from .baseline import LEAST_SESSIONS, expected_at_most
from .machine import machine
from .ratios import Comparison, Ratio

__all__ = ["REPORT", "Report", "regression"]

_UNDECIDED = ("inconclusive", "too few pairs")
"""Verdicts of comparisons that are neither held against a baseline nor put into one."""


@dataclass
class Report:
    """Results of a session, beside the baseline that was there before."""

    known: baseline.Baseline
    ratios: dict[str, dict[str, Ratio]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    goals: list[str] = field(default_factory=list)

    def add(self, name: str, device: str, comparison: Comparison, line: str) -> Sequence[Ratio]:
        """Keep a result; the baseline's ratios for it on this machine."""
        self.lines.append(line)
        where = machine(device)
        if comparison.verdict not in _UNDECIDED:
            self.ratios.setdefault(where, {})[name] = comparison.ratio
        before = self.known.get(where, {}).get(name, ())
        if len(before) < LEAST_SESSIONS:
            self.missing.add(where)
        return before

    def finished(self, path: Path, *, record: bool, regress: float | None) -> list[str]:
        """Record the ratios where that is asked for; what there is to say of the baseline."""
        notes = []
        if regress is not None and not record:
            for where in sorted(self.missing):
                notes.append(
                    f"{path.name} has fewer than {LEAST_SESSIONS} sessions of some of these on {where}: they pass; "
                    "each run with --record adds one, and it takes 5 to tell 10 %"
                )
        if record and self.ratios:
            known = self.known
            for where, ratios in self.ratios.items():
                known = baseline.recorded(known, where, ratios)
                notes.append(f"{path}: {len(ratios)} ratios recorded for {where}")
            baseline.write(path, known)
        return notes


REPORT: pytest.StashKey[Report] = pytest.StashKey()


def regression(comparison: Comparison, before: Sequence[Ratio], percent: float) -> str | None:
    """What is to be said where a conclusive ratio lies wholly more than `percent` above where the baseline's sessions put it, else None."""
    if len(before) < LEAST_SESSIONS or comparison.verdict in _UNDECIDED:
        return None
    ratio, most = comparison.ratio, expected_at_most(before)
    if not ratio.beyond(most, percent):
        return None
    centre = median(each.median for each in before)
    return (
        f"{ratio} times the yardstick, but {centre:.3f} in the baseline, whose {len(before)} sessions let one more lie up to {most:.3f}: "
        f"{ratio.median / centre - 1:.1%} more (--regress {percent:g})"
    )
