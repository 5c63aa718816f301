"""benchmarks/baseline.json: the ratios that were measured before, by machine and benchmark."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .ratios import Ratio

__all__ = ["PATH", "Baseline", "read", "recorded", "write"]

PATH = Path(__file__).with_name("baseline.json")
FORMAT, VERSION = "ln2d_ref.baseline", 1

Baseline = Mapping[str, Mapping[str, Ratio]]
"""For each machine, and on it for each benchmark, its ratio."""


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
        name: {benchmark: _ratio(path, name, benchmark, fields) for benchmark, fields in ratios.items()}
        for name, ratios in machines.items()
    }


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


def recorded(baseline: Baseline, machine: str, ratios: Mapping[str, Ratio]) -> Baseline:
    """The baseline with these ratios of a machine in place of earlier ones."""
    return {**baseline, machine: {**baseline.get(machine, {}), **ratios}}


def write(path: Path, baseline: Baseline) -> None:
    """Write it, sorted, so that a difference can be read; in one step, so that an interrupted run leaves the old file."""
    rounded = {
        machine: {
            benchmark: {name: value if name == "pairs" else round(value, 4) for name, value in asdict(ratio).items()}
            for benchmark, ratio in sorted(ratios.items())
        }
        for machine, ratios in sorted(baseline.items())
    }
    content = {"format": FORMAT, "version": VERSION, "machines": rounded}
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
