"""`python -m benchmarks.kill_table [--seeds N] [--only PATTERN] [--out docs/kill-table.md]`: which check catches which mutant.

For each mutant the law that caught it and the number of cases up to the first failure, by seed; beside it, what the rivals catch. The
honest implementations stand in the second table: no check may catch those.
"""

from __future__ import annotations

import argparse
import re
import statistics
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from ln2d_ref import Implementation
from ln2d_ref.implementations.honest import disputed, honest
from ln2d_ref.laws import select
from ln2d_ref.mutants import mutants
from ln2d_ref.semantics import SEMANTICS
from strategies.search import search

from .rivals import RIVALS

MOST = 2000


@dataclass(frozen=True)
class Row:
    """One implementation: the law and the number of cases (None where it passed) for each seed, and each rival's finding or None."""

    name: str
    fault: str
    kind: str
    killed: tuple[tuple[str, int] | None, ...]
    rivals: dict[str, str | None]

    def laws(self) -> str:
        """Laws that caught it, the commonest first."""
        return ", ".join(law for law, _ in Counter(kill[0] for kill in self.killed if kill).most_common())

    def cases(self) -> str:
        """Number of cases by seed."""
        return " ".join("-" if kill is None else str(kill[1]) for kill in self.killed)


def judged(job: tuple[str, str, tuple[int, ...], int]) -> Row:
    """The row of one implementation, in a process of its own: a mutant may leave torch's state changed."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    name, semantics, seeds, most = job
    implementation, fault, kind = _named(name, semantics)
    killed = tuple(_first_failure(name, semantics, seed, most) for seed in seeds)
    return Row(name, fault, kind, killed, {rival: _finding(implementation, rival) for rival in RIVALS})


def _named(name: str, semantics: str) -> tuple[Implementation, str, str]:
    """An implementation built afresh, so that no state is left of an earlier run, with its fault and kind."""
    if name.startswith("honest/"):
        return (honest(semantics) | disputed(semantics))[name], "", semantics
    mutant = next(mutant for mutant in mutants(semantics) if mutant.name == name)
    return mutant.implementation, mutant.fault, mutant.kind


def _first_failure(name: str, semantics: str, seed: int, most: int) -> tuple[str, int] | None:
    violation = search(_named(name, semantics)[0], select(None), most, seed, shrink=False).violation
    return None if violation is None or violation.cases is None else (violation.law, violation.cases)


def _finding(implementation: Implementation, rival: str) -> str | None:
    try:
        RIVALS[rival](implementation)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return None


def rows(jobs: Sequence[tuple[str, str, tuple[int, ...], int]], processes: int) -> Iterator[Row]:
    """Rows in the order of the jobs."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", __name__])
    with context.Pool(processes, maxtasksperchild=1) as pool:
        yield from pool.imap(judged, jobs)


def table(found: Sequence[Row], right: Sequence[Row], seeds: int) -> str:
    """The document."""
    counts = [MOST if kill is None else kill[1] for row in found for kill in row.killed]
    killed = sum(kill is not None for row in found for kill in row.killed)
    lines = [
        "# Kill table",
        "",
        f"Made by `python -m benchmarks.kill_table --seeds {seeds}`. {len(found)} mutants, {seeds} seeds, at most {MOST} cases: "
        f"{killed} of {len(counts)} searches found the fault; median {statistics.median(counts):g} cases, "
        f"largest {max(counts)}. Cases are those up to the first failure, for each seed.",
        "",
        "The other columns are existing checks, reimplemented in `benchmarks/rivals.py` with their shapes, values and tolerances: "
        + "; ".join(f"{rival} catches {sum(row.rivals[rival] is not None for row in found)}" for rival in RIVALS)
        + f"; this suite catches {sum(all(row.killed) for row in found)} on every seed.",
        "",
        f"| mutant | fault | law | cases | {' | '.join(RIVALS)} |",
        f"|---|---|---|---|{'---|' * len(RIVALS)}",
    ]
    for row in found:
        marks = " | ".join("x" if row.rivals[rival] else "" for rival in RIVALS)
        lines.append(f"| {row.name} | {row.fault} | {row.laws()} | {row.cases()} | {marks} |")
    lines += ["", "## Honest implementations", "", f"| implementation | cases | {' | '.join(RIVALS)} |", f"|---|---|{'---|' * len(RIVALS)}"]
    for row in right:
        marks = " | ".join(row.rivals[rival] or "" for rival in RIVALS)
        lines.append(f"| {row.name} ({row.kind}) | {row.cases()} | {marks} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--only", default="", help="regular expression that a name must match")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="file to write; by default it is printed")
    options = parser.parse_args()
    seeds, wanted = tuple(range(options.seeds)), re.compile(options.only)
    faulty = [(mutant.name, mutant.implementation.semantics, seeds, MOST) for mutant in mutants() if wanted.search(mutant.name)]
    right = [
        (name, semantics, seeds[:1], 200)
        for semantics in SEMANTICS
        for name in honest(semantics) | disputed(semantics)
        if wanted.search(name) or not options.only
    ]
    found = list(rows(faulty + right, options.processes))
    text = table(found[: len(faulty)], found[len(faulty) :], options.seeds)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
