"""Imports run one way, and `import ln2d_ref` costs NumPy and ml_dtypes only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import strategies

ROOT = Path(__file__).parents[2]
PACKAGES = ("ln2d_ref", "strategies", "tests", "benchmarks")
MAY_IMPORT = {
    "ln2d_ref": (),
    "strategies": ("ln2d_ref",),
    "tests": ("ln2d_ref", "strategies", "tests", "benchmarks"),
    "benchmarks": ("ln2d_ref", "strategies", "benchmarks"),
}
"""Which of our packages each of them may import by name; within itself, ln2d_ref and strategies import relatively."""

FRAMEWORKS = {"torch", "torchvision", "triton", "jax", "flax", "tensorflow", "onnx", "onnxruntime", "onnxscript", "cupy", "timm"}
TEST_TOOLS = {"hypothesis", "pytest", "mpmath", "pytest_benchmark"}

ORDER = (
    "memory",
    "semantics",
    "dtypes",
    "numbers",
    "formulas",
    "expectation",
    "inputs",
    "nonfinite",
    "contract",
    "bounds",
    "higher",
    "reference",
    "layout",
    "case",
    "directions",
    "signature",
    "outcome",
    "violation",
    "implementations",
    "reproduction",
    "crashes",
    "laws",
    "check",
    "ledger",
    "mutants",
    "__init__",
)
"""Files and packages of ln2d_ref: each imports only what stands above it, or lies in the same package."""


def imported(source: str, place: tuple[str, ...]) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """Every import in a source, as (relative, dotted name from the root); `place` is its package and file, ("ln2d_ref", "case")."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((False, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = place[: len(place) - node.level] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            if node.level and not node.module:
                yield from ((True, (*module, alias.name)) for alias in node.names)
            else:
                yield bool(node.level), module


def wrong_imports(source: str, place: tuple[str, ...]) -> list[str]:
    """What is wrong with the imports of a file at this place."""
    package, found = place[0], []
    for relative, name in imported(source, place):
        dotted = ".".join(name)
        if not relative and name[0] in PACKAGES and name[0] not in MAY_IMPORT[package]:
            found.append(f"{package} imports {dotted} by name")
        if relative and (len(name) < 2 or name[0] != package):
            found.append(f"{'.'.join(place)} imports past its package")
            continue
        if package == "ln2d_ref" and relative:
            here, there = place[1], name[1]
            if there not in ORDER:
                found.append(f"{dotted} has no place in ORDER")
            elif here != there and ORDER.index(there) > ORDER.index(here):
                found.append(f"{here} imports {there}, which stands below it")
        if package in ("ln2d_ref", "strategies") and name[0] in FRAMEWORKS and place[1] not in ("implementations", "mutants"):
            found.append(f"{'.'.join(place)} imports the framework {dotted}")
        if package == "ln2d_ref" and name[0] in TEST_TOOLS:
            found.append(f"{'.'.join(place)} imports the test tool {dotted}")
    return found


def place_of(path: Path, root: Path = ROOT) -> tuple[str, ...]:
    """("ln2d_ref", "laws", "law") for ln2d_ref/laws/law.py."""
    return path.relative_to(root).with_suffix("").parts


def files(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    script = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_importing_ln2d_ref_loads_numpy_and_ml_dtypes_and_no_framework() -> None:
    """A user of JAX need not have torch, and a definition of right and wrong needs no test runner."""
    before, after = modules_after("pass"), modules_after("import ln2d_ref")
    assert {"ln2d_ref", "numpy", "ml_dtypes"} <= after
    assert not after & (FRAMEWORKS | TEST_TOOLS)
    added = {name for name in after - before if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert added == {"ln2d_ref", "numpy", "ml_dtypes"}


def test_a_loaded_framework_would_be_seen() -> None:
    """Twin of the one above: an implementation on torch does load it, and strategies load Hypothesis."""
    assert "torch" in modules_after("import ln2d_ref; ln2d_ref.load('torch/permute')")
    assert "hypothesis" in modules_after("import strategies")


def test_numpy_implementations_run_without_a_framework() -> None:
    """Frameworks are imported only when used."""
    statement = "import numpy, ln2d_ref; ln2d_ref.check('numpy/reference', ln2d_ref.Case(numpy.ones((1, 2, 1, 1)), weight=numpy.ones(2)))"
    assert not modules_after(statement) & FRAMEWORKS


@pytest.mark.parametrize("path", files("ln2d_ref", "strategies", "tests", "benchmarks"), ids=lambda path: "/".join(place_of(path)))
def test_imports_run_one_way(path: Path) -> None:
    """tests, benchmarks → strategies → ln2d_ref, and inside ln2d_ref down the list: what decides is never decided by its users."""
    assert wrong_imports(path.read_text(encoding="utf-8"), place_of(path)) == []


@pytest.mark.parametrize("package", ["ln2d_ref", "strategies"])
def test_a_file_is_there_for_each_import_to_judge(package: str) -> None:
    """So that the test above does not pass on an empty folder; and ORDER names what exists, all of it, once."""
    assert len(files(package)) >= 8
    if package == "ln2d_ref":
        python = {place_of(path)[1] for path in files(package)}
        assert sorted(ORDER) == sorted(python)


WRONG = {
    "ln2d_ref importing strategies": (
        "ln2d_ref/laws/new.py",
        "from strategies import cases",
        "ln2d_ref imports strategies by name",
    ),
    "ln2d_ref importing tests": ("ln2d_ref/new.py", "import tests.meta.exact", "ln2d_ref imports tests.meta.exact by name"),
    "ln2d_ref importing benchmarks": ("ln2d_ref/case.py", "import benchmarks", "ln2d_ref imports benchmarks by name"),
    "ln2d_ref importing itself by name": ("ln2d_ref/case.py", "import ln2d_ref.layout", "ln2d_ref imports ln2d_ref.layout by name"),
    "strategies importing tests": ("strategies/new.py", "from tests import conftest", "strategies imports tests by name"),
    "strategies importing benchmarks": ("strategies/new.py", "import benchmarks", "strategies imports benchmarks by name"),
    "strategies importing itself by name": ("strategies/new.py", "from strategies.draws import x", "strategies.draws by name"),
    "strategies past its package": ("strategies/new.py", "from .. import ln2d_ref", "imports past its package"),
    "upwards": ("ln2d_ref/case.py", "from .violation import Violation", "case imports violation, which stands below it"),
    "upwards by its package": ("ln2d_ref/layout.py", "from . import check", "layout imports check, which stands below it"),
    "upwards from a package": ("ln2d_ref/implementations/new.py", "from ..laws import LAWS", "implementations imports laws"),
    "upwards from deeper": (
        "ln2d_ref/implementations/honest/new.py",
        "from ...check import check",
        "implementations imports check",
    ),
    "upwards in a function": ("ln2d_ref/case.py", "def f():\n    from .laws import LAWS", "case imports laws"),
    "upwards for types only": (
        "ln2d_ref/case.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .laws import Law",
        "case imports laws",
    ),
    "the package's own root": ("ln2d_ref/laws/new.py", "from .. import Case", "Case has no place in ORDER"),
    "an unlisted file": ("ln2d_ref/case.py", "from .helpers import anything", "ln2d_ref.helpers has no place in ORDER"),
    "torch in a law": ("ln2d_ref/laws/new.py", "import torch", "ln2d_ref.laws.new imports the framework torch"),
    "torch in a function": ("ln2d_ref/check.py", "def f():\n    import torch.nn", "imports the framework torch.nn"),
    "torch in strategies": ("strategies/new.py", "from torch.nn import functional", "imports the framework torch.nn"),
    "hypothesis in ln2d_ref": ("ln2d_ref/mutants/new.py", "from hypothesis import given", "imports the test tool hypothesis"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_import_is_seen(name: str, tmp_path: Path) -> None:
    """Twin of the one above: a planted import fails it, among right ones."""
    where, source, fault = WRONG[name]
    path = tmp_path / where
    path.parent.mkdir(parents=True)
    path.write_text(f"from __future__ import annotations\nimport numpy as np\n{source}\n", encoding="utf-8")
    found = wrong_imports(path.read_text(encoding="utf-8"), place_of(path, tmp_path))
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("ln2d_ref/case.py", "from .layout import Layout"),
        ("ln2d_ref/laws/new.py", "from ..case import Case\nfrom .law import Law\nfrom . import trial"),
        ("ln2d_ref/implementations/new.py", "import torch\nfrom .. import reference"),
        ("ln2d_ref/reproduction.py", 'SCRIPT = "import torch"'),
        ("strategies/new.py", "import hypothesis\nfrom ln2d_ref.case import Case\nfrom .draws import choices"),
        ("tests/meta/new.py", "import torch\nimport strategies\nfrom ln2d_ref.laws import LAWS\nfrom tests.meta import exact"),
    ],
)
def test_a_right_import_is_let_through(where: str, source: str) -> None:
    """The other twin: the checker does not refuse everything."""
    assert wrong_imports(source, Path(where).with_suffix("").parts) == []


def graph(package: str) -> dict[str, set[str]]:
    """For each file of a package, the files of it that it imports when it is loaded."""
    places = {".".join(place_of(path)): path for path in files(package)}
    return {
        name: {found for _, dotted in imported(path.read_text(encoding="utf-8"), place_of(path)) if (found := _file(dotted, places))}
        - {name}
        for name, path in places.items()
    }


def _file(dotted: tuple[str, ...], places: dict[str, Path]) -> str:
    name = ".".join(dotted)
    return name if name in places else f"{name}.__init__" if f"{name}.__init__" in places else ""


@pytest.mark.parametrize("package", ["ln2d_ref", "strategies"])
def test_no_file_imports_itself_through_others(package: str) -> None:
    """Within a package of ln2d_ref too, files can be read in one order."""
    edges = graph(package)
    assert sum(map(len, edges.values())) >= len(edges)
    tuple(TopologicalSorter(edges).static_order())


def test_a_circle_of_imports_is_seen() -> None:
    """Twin of the one above."""
    edges = graph("strategies")
    edges["strategies.draws"].add("strategies.cases")
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(edges).static_order())


def test_strategies_is_ours() -> None:
    """It is a common name: pytest's `pythonpath` puts the repository first, and another package of that name stays out."""
    assert Path(strategies.__file__).is_relative_to(ROOT)
