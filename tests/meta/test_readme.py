"""README's snippet runs, its numbers and options are real."""

from __future__ import annotations

import re
from pathlib import Path

from ln2d_ref import Case, Violation, check
from ln2d_ref.laws import LAWS

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_python_snippet_finds_the_one_pass_variance(capsys):
    """What a reader pastes first must show a violation."""
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(compile(snippet, "README.md", "exec"), {})
    assert re.match(r"\w+\[.*\] = .* times the bound\)\n  implementation  one_pass", capsys.readouterr().out)


def test_failure_shown_is_the_real_one():
    """The message is printed by the pinned case of the finding that it shows."""
    case = Case.load(Path(__file__).parents[2] / "ln2d_ref/known_cases/torch_group_norm_one_pass_variance_for_channels_last.json")
    try:
        check("torch/group_norm", case)
    except Violation as violation:
        shown = "\n".join(f"    {line}" for line in str(violation).splitlines())
        assert shown in README
    else:
        raise AssertionError("the pinned case shows no violation")


def test_every_law_is_listed():
    """A law that README does not name is not known to its users."""
    assert all(f"`{law}`" in README for law in LAWS)


def test_options_exist(pytestconfig):
    """Each --option that README names is one of pytest's, or of the benchmarks'."""
    benchmarks = (Path(__file__).parents[2] / "benchmarks/conftest.py").read_text(encoding="utf-8")
    for option in set(re.findall(r"--[a-z][a-z-]+", README)):
        name = option[2:].replace("-", "_")
        assert name in vars(pytestconfig.option) or f'"{option}"' in benchmarks, option
