"""The same seed gives the same answer in another process, whatever else is imported there.

Hypothesis collects the constants of every imported local module and mixes them into its integers and floats, so that a seed alone does
not fix what it draws. strategies/draws.py draws where no constant lies; a plain strategy beside it shows what that prevents.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

CONSTANTS = "\n".join(f"INTEGER_{k} = {k * 37 + 1000}\nFLOAT_{k} = {k}.375" for k in range(300)) + "\n"
"""A local module full of numbers that a shape, a seed or a value could be."""

SCRIPT = """
import hashlib, json, sys

if sys.argv[1]:
    sys.path.insert(0, sys.argv[1])
    import full_of_constants

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import strategies
from ln2d_ref import Implementation


def drawn(strategy, count):
    values = []

    @hypothesis.seed(int(sys.argv[2]))
    @settings(
        database=None, deadline=None, max_examples=count, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def collect(value):
        values.append(value)

    collect()
    return values


def biased(x, weight, bias, eps):
    y = torch.nn.functional.layer_norm(x.movedim(1, -1), x.shape[1:2], weight, bias, eps).movedim(-1, 1)
    return y + (0.5 if x.shape[1] > 2 and bias is not None else 0.0)


def found(report):
    violation = report.violation
    worst = sorted((*key, value.hex()) for key, value in report.worst.items())
    return {
        "violation": violation and [str(violation), str(violation.case), violation.ratio.hex()],
        "cases": report.cases,
        "worst": worst,
        "observations": sorted(report.observations.items()),
    }


wrong = Implementation(biased, name="biased", dtypes="float32")
seed = int(sys.argv[2])
violation = strategies.find_violation(wrong, seed=seed, max_examples=40)
print(json.dumps({
    "cases": [hashlib.sha256(str(case).encode()).hexdigest() for case in drawn(strategies.cases(max_elements=512), 80)],
    "shapes": drawn(strategies.shapes("sample"), 100),
    "epsilons": drawn(strategies.epsilons(), 100),
    "layouts": [str(layout) for layout in drawn(strategies.layouts(4), 100)],
    "right": found(strategies.judge("numpy/reference", seed=seed, max_examples=40)),
    "wrong": found(strategies.judge(wrong, seed=seed, max_examples=40)),
    "find_violation": [str(violation), str(violation.case)],
    "plain integers": drawn(st.integers(0, 10**6), 400),
    "plain floats": drawn(st.floats(0, 1000), 400),
}))
"""


def answers(folder: str, seed: int, hash_seed: str) -> dict[str, Any]:
    """What a fresh process answers, with the module in `folder` imported first where one is named."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Answers of three processes: seed 7; seed 7 beside a module of constants, under another hash seed; seed 8."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "full_of_constants.py").write_text(CONSTANTS, encoding="utf-8")
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(answers, ("", str(folder), ""), (7, 7, 8), ("1", "2", "1")))


OURS = ("cases", "shapes", "epsilons", "layouts", "right", "wrong", "find_violation")


@pytest.mark.parametrize("what", OURS)
def test_the_same_seed_gives_the_same_in_another_process(processes: list[dict[str, Any]], what: str) -> None:
    """Every draw is an integer where no constant of any module lies, and nothing depends on time or on hashes."""
    alone, beside_constants, _ = processes
    assert alone[what] == beside_constants[what]


@pytest.mark.parametrize("what", ["plain integers", "plain floats"])
def test_a_plain_strategy_gives_something_else_there(processes: list[dict[str, Any]], what: str) -> None:
    """Twin: one draw in twenty is a constant that Hypothesis found, so 400 of them are not all the same in both processes."""
    alone, beside_constants, _ = processes
    assert alone[what] != beside_constants[what]


@pytest.mark.parametrize("what", OURS)
def test_another_seed_gives_something_else(processes: list[dict[str, Any]], what: str) -> None:
    """Twin: equality above is not that of a constant answer. A shrunk violation is left out: its smallest case may well be the same."""
    alone, _, other = processes
    if what in ("wrong", "find_violation"):
        assert alone[what] is not None
    else:
        assert alone[what] != other[what]


def test_the_answers_say_something(processes: list[dict[str, Any]]) -> None:
    """Two empty reports would be equal too: the right one was judged to the end, and the wrong one was found wrong."""
    alone = processes[0]
    assert alone["right"]["violation"] is None
    assert alone["right"]["cases"] >= 30
    assert len(alone["right"]["worst"]) >= 8
    assert "biased" in alone["wrong"]["violation"][0]
    assert len(set(alone["cases"])) >= 30


def test_judge_and_find_violation_agree(processes: list[dict[str, Any]]) -> None:
    """They are the same search."""
    alone = processes[0]
    assert alone["find_violation"] == alone["wrong"]["violation"][:2]
