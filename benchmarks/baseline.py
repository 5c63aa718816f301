"""benchmarks/baseline.json: the ratios of earlier sessions, by machine and benchmark, and what a new one may be.

Sessions differ by more than a session's interval says: a process keeps its pages, and a shared machine its neighbours. Unchanged code that
makes many temporaries was measured 20 % apart. How far sessions lie apart is known from several of them, and from nothing else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from .ratios import Ratio

__all__ = ["LEAST_SESSIONS", "MOST_SESSIONS", "PATH", "Baseline", "expected_at_most", "middle", "read", "recorded", "write"]

PATH = Path(__file__).with_name("baseline.json")
FORMAT, VERSION = "ln2d_ref.baseline", 2

LEAST_SESSIONS, MOST_SESSIONS = 3, 10
"""From how many on a ratio is held against them, and how many are kept, the newest."""

_STUDENT = (31.82, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821)
"""Student's t, of which 99 % lies below, for 1 to 9 degrees of freedom."""

Baseline = Mapping[str, Mapping[str, Sequence[Ratio]]]
"""For each machine, and on it for each benchmark, its ratio in each session, the newest last."""


def read(path: Path) -> Baseline:
    """The baseline in a file; empty where there is no file. ValueError, naming the file, where it is not one of these."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a baseline: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a baseline: its format is not {FORMAT!r}")
    if content.get("version") != VERSION:
        raise ValueError(f"{path} has version {content.get('version')!r}, but must have {VERSION}")
    machines = content.get("machines")
    if not isinstance(machines, dict) or not all(isinstance(ratios, dict) for ratios in machines.values()):
        raise ValueError(f"{path} has no ratios by machine under 'machines'")
    return {
        name: {benchmark: _sessions(path, name, benchmark, entry) for benchmark, entry in ratios.items()}
        for name, ratios in machines.items()
    }


def expected_at_most(sessions: Sequence[Ratio]) -> float:
    """What another session's ratio of unchanged code lies below with a probability of 99 %: the prediction limit of normal log-ratios.

    exp(mean + t·s·sqrt(1 + 1/k)) of k sessions (Hahn & Meeker 1991, §4.8). ValueError for fewer than two, or more than are kept.
    """
    count = len(sessions)
    if not 2 <= count <= MOST_SESSIONS:
        raise ValueError(f"{count} sessions are given, but must be 2 to {MOST_SESSIONS}")
    spread = stdev(math.log(ratio.median) for ratio in sessions)
    return middle(sessions) * math.exp(_STUDENT[count - 2] * spread * math.sqrt(1.0 + 1.0 / count))


def middle(sessions: Sequence[Ratio]) -> float:
    """The geometric mean of the sessions' ratios."""
    return math.exp(fmean(math.log(ratio.median) for ratio in sessions))


def _sessions(path: Path, machine: str, benchmark: str, entry: Any) -> list[Ratio]:
    if not isinstance(entry, list) or not 1 <= len(entry) <= MOST_SESSIONS:
        raise ValueError(f"{path}: {benchmark!r} on {machine!r} is {entry!r}, but must be a list of 1 to {MOST_SESSIONS} sessions' ratios")
    return [_ratio(path, machine, benchmark, fields) for fields in entry]


def _ratio(path: Path, machine: str, benchmark: str, fields: Any) -> Ratio:
    where = f"{path}: {benchmark!r} on {machine!r}"
    if not isinstance(fields, dict) or fields.keys() != {"median", "low", "high", "pairs"}:
        raise ValueError(f"{where} is {fields!r}, but must have median, low, high and pairs")
    numbers = [fields[name] for name in ("low", "median", "high")]
    if not all(isinstance(number, (int, float)) and math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError(f"{where} is {fields!r}, but its ratios must be positive numbers")
    if numbers != sorted(numbers) or not isinstance(fields["pairs"], int):
        raise ValueError(f"{where} is {fields!r}, but low <= median <= high must hold, and pairs be an integer")
    return Ratio(**fields)


def recorded(baseline: Baseline, machine: str, ratios: Mapping[str, Ratio], *, afresh: bool = False) -> Baseline:
    """The baseline with a session's ratios on a machine put to the earlier ones of the same code; `afresh`, in place of them."""
    before = baseline.get(machine, {})
    earlier: Mapping[str, Sequence[Ratio]] = {} if afresh else before
    added = {benchmark: [*earlier.get(benchmark, ()), ratio][-MOST_SESSIONS:] for benchmark, ratio in ratios.items()}
    return {**baseline, machine: {**before, **added}}


def write(path: Path, baseline: Baseline) -> None:
    """Write it, sorted, so that a difference can be read; in one step, so that an interrupted run leaves the old file."""
    rounded = {
        machine: {benchmark: [_rounded(ratio) for ratio in sessions] for benchmark, sessions in sorted(ratios.items())}
        for machine, ratios in sorted(baseline.items())
    }
    content = {"format": FORMAT, "version": VERSION, "machines": rounded}
    draft = path.with_suffix(".new")
    draft.write_text(_on_few_lines(json.dumps(content, indent=1)) + "\n", encoding="utf-8")
    draft.replace(path)


def _rounded(ratio: Ratio) -> dict[str, float]:
    return {name: value if name == "pairs" else round(value, 4) for name, value in asdict(ratio).items()}


def _on_few_lines(text: str) -> str:
    """A session's ratio on one line, so that a difference shows sessions."""
    return re.sub(r"\{\s+(\"median\"[^{}]*?)\s+\}", lambda found: "{" + re.sub(r"\s+", " ", found[1]) + "}", text)
