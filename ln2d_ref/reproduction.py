"""A violation on disk: the case file, and a script that shows the violation with nothing but the framework and the implementation."""

from __future__ import annotations

import base64
import inspect
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .case import Case
from .directions import directions, members
from .dtypes import dtype_of
from .implementations.implementation import Implementation
from .layout import Layout, place
from .violation import Violation

__all__ = ["checking", "folder_name", "folder_of", "how_to_reproduce", "write", "written_case"]

_TEMPLATE = '''\
"""{headline}

{message}
"""

import base64
import sys
{imports}
import torch

sys.path.append({root!r})  # where ln2d_ref is, should the implementation ask for it
{load}

def argument(dtype, shape, strides, offset, storage):
    data = bytearray(base64.b64decode(storage))
    return torch.frombuffer(data, dtype=dtype).to("{device}").as_strided(shape, strides, offset)


arguments = {{
{arguments}
}}
torch.set_num_threads({threads})
{body}{verdict}'''

_CALL = """\
requires_grad = {requires_grad}
for name in requires_grad:
    arguments[name].requires_grad_()
before = {{name: tensor.detach().clone() for name, tensor in arguments.items()}}


def call():
    y = fn(arguments["x"], arguments.get("weight"), arguments.get("bias"), {eps!r})
    results = {{"y": y}}
    if requires_grad and isinstance(y, torch.Tensor) and y.requires_grad:
        gradients = torch.autograd.grad(y, [arguments[name] for name in requires_grad], arguments["dy"], allow_unused=True)
        results |= {{"d" + name: gradient for name, gradient in zip(requires_grad, gradients)}}
    return results


print({headline!r})
results = call()
for name, value in results.items():
    tensor = isinstance(value, torch.Tensor)
    print(name, "is", f"{{value.dtype}}{{list(value.shape)}} on {{value.device}}" if tensor else type(value).__name__)
for name, tensor in arguments.items():
    if not torch.equal(tensor.detach().nan_to_num(), before[name].nan_to_num()):
        print(name, "was changed by the call")
"""

_WAY = """\
from typing import Any


{source}

first_direction = {{
{first}
}}
second_direction = {{
{second}
}}
batch = {{
{batch}
}}
print({headline!r})
results = {way}(fn, arguments, {eps!r}, first_direction, second_direction, batch)
for name, value in results.items():
    print(name, "is", f"{{value.dtype}}{{list(value.shape)}}" if isinstance(value, torch.Tensor) else type(value).__name__)
"""

_VALUE_VERDICT = """\
got, expected, bound = {got}, {expected!r}, {bound!r}
print("{quantity}[{at}] =", got, "  expected", expected, "+-", bound)
"""

_STATE_VERDICT = """\
again = call()
for name, value in again.items():
    if isinstance(value, torch.Tensor):
        print("the same call again gives the same", name, ":", torch.equal(value.nan_to_num(), results[name].nan_to_num()))
"""


_DERIVED = frozenset({"independence", "modes", "bad_arguments", "module", "batch_invariance", "extreme_range"})
"""Laws that make another call from the case: `check` shows what they found, and a script of the case's own call would not."""


def folder_of(root: Path, violation: Violation) -> Path:
    """The one folder for this implementation (in one semantics), law and quantity."""
    parts = (violation.implementation, violation.case.semantics, violation.law, violation.quantity)
    return root / folder_name(*parts)


def folder_name(*parts: str) -> str:
    """A name that every file system takes."""
    return ".".join(re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-") for part in parts)


def written_case(root: Path, violation: Violation) -> Case | None:
    """The case that lies in the violation's folder, or None where there is none that can be read."""
    try:
        return Case.load(folder_of(root, violation) / "case.json")
    except (OSError, ValueError):
        return None


def write(violation: Violation, implementation: Implementation, root: Path) -> Path:
    """Write case.json, message.txt and, where a script shows it, repro.py, all or none, over whatever lies there; the folder's path.

    Sets `violation.reproduce`.
    """
    folder = folder_of(root, violation)
    violation.reproduce = how_to_reproduce(violation, implementation, root)
    root.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=root, prefix=".writing-"))
    violation.case.save(fresh / "case.json")
    (fresh / "message.txt").write_text(f"{violation}\n", encoding="utf-8")
    if _scripted(violation, implementation):
        (fresh / "repro.py").write_text(script(violation, implementation), encoding="utf-8")
    if folder.exists():
        os.replace(folder, fresh.with_suffix(".old"))
    os.replace(fresh, folder)
    shutil.rmtree(fresh.with_suffix(".old"), ignore_errors=True)
    return folder


def _scripted(violation: Violation, implementation: Implementation) -> bool:
    return implementation.framework != "numpy" and violation.law not in _DERIVED


def how_to_reproduce(violation: Violation, implementation: Implementation, root: Path) -> str:
    """The line of a message that names the script, or the case file where there is no script."""
    folder = folder_of(root, violation)
    if implementation.source is None:
        named = f", laws=({violation.law!r},)" if violation.law in _DERIVED else ""
        return f"ln2d_ref.check(implementation, ln2d_ref.Case.load({os.path.relpath(folder / 'case.json')!r}){named})"
    if not _scripted(violation, implementation):
        return checking(implementation.source, folder / "case.json", violation.law)
    alone = "" if "ln2d_ref" in _loading(implementation)[1] else "      (needs only torch and the implementation)"
    return f"python {os.path.relpath(folder / 'repro.py')}{alone}"


def checking(source: str, path: Path, law: str) -> str:
    """A command that judges a case file by a law."""
    return f'python -c "from ln2d_ref import Case, check; check({source!r}, Case.load({os.path.relpath(path)!r}), laws={law!r})"'


def script(violation: Violation, implementation: Implementation) -> str:
    """The text of repro.py."""
    case = violation.case
    verdict = _STATE_VERDICT if violation.law == "history" else ""
    if violation.worst is not None and violation.expected is not None:
        value, bound = violation.expected
        got = f"results[{violation.quantity!r}][{violation.worst}].double().item()"
        if violation.way is not None:  # a gradient without path is 0
            got = f"0.0 if results[{violation.quantity!r}] is None else {got}"
        at = ", ".join(map(str, violation.worst))
        verdict = _VALUE_VERDICT.format(quantity=violation.quantity, got=got, at=at, expected=value, bound=bound) + (
            verdict or "raise SystemExit(not abs(got - expected) <= bound)\n"
        )
    imports, load = _loading(implementation)
    if implementation.framework == "compile":
        signature = implementation.signature(case)
        load += "" if signature.channels is None else f"fn = fn.at({signature.channels}, {case.eps!r})  # the module\n"
        load += f"fn = torch.compile(fn, fullgraph=True, dynamic={signature.dynamic})\n"
    headline = violation.headline.replace("\\", "\\\\")
    return _TEMPLATE.format(
        headline=headline,
        message=str(violation).partition("\n")[2].replace("\\", "\\\\"),
        imports=imports,
        root=str(Path(__file__).parents[1]),
        load=load,
        device=case.device,
        arguments=_arguments({name: (array, _layout(violation, name)) for name, array in case.arrays.items()}),
        threads=case.threads,
        body=_body(violation, headline),
        verdict=verdict,
    )


def _body(violation: Violation, headline: str) -> str:
    """What is called: the implementation and its backward, or the way of differentiating or batching, quoted."""
    case = violation.case
    if violation.way is None:
        return _CALL.format(headline=headline, requires_grad=repr(case.requires_grad), eps=case.eps)
    from .implementations.transforms import WAYS

    first, second = ({name: (array, Layout()) for name, array in directions(case, which).items()} for which in (0, 1))
    both = members(case, parameters="parameters" in violation.way)
    names = [name for name in case.arrays if "parameters" in violation.way or name in ("x", "dy")]
    batch = {name: (np.stack([member.arrays[name] for member in both]), Layout()) for name in names}
    return _WAY.format(
        source=inspect.getsource(WAYS[violation.way]),
        first=_arguments(first),
        second=_arguments(second),
        batch=_arguments(batch) if violation.way.startswith("vmap") else "",
        headline=headline,
        way=WAYS[violation.way].__name__,
        eps=case.eps,
    )


def _layout(violation: Violation, name: str) -> Layout:
    """The argument's layout; contiguous where torch would make no dual tensor of it."""
    layout = violation.case.laid_out(name)
    return Layout() if layout.expanded and "forward" in (violation.way or "") else layout


def _arguments(given: Mapping[str, tuple[np.ndarray, Layout]]) -> str:
    """Lines of a dictionary of tensors, each over its own storage in its layout."""
    lines = []
    for name, (array, layout) in given.items():
        storage = place(array, layout)
        data = base64.b64encode(storage.buffer.view(np.uint8).tobytes()).decode("ascii")
        where = f"torch.{dtype_of(array).name}, {storage.shape}, {storage.strides}, {storage.offset}"
        lines.append(f'    "{name}": argument({where}, "{data}"),  # {_readable(array)}')
    return "\n".join(lines)


def _readable(array: np.ndarray) -> str:
    values = array.astype(np.float64)
    return np.array2string(values, max_line_width=10**6).replace("\n", "") if array.size <= 64 else f"{array.size} values"


def _loading(implementation: Implementation) -> tuple[str, str]:
    """Import lines and a definition of fn for where the implementation came from."""
    source = implementation.source
    if source is None:
        return "", "fn = ...  # put your implementation here\n"
    place, _, attribute = source.rpartition(":")
    own = f"from ln2d_ref import load\n\nfn = load({source!r}).fn\n"
    if not place.endswith(".py") or implementation.affine != ("both", "weight", "bias", "none"):
        return "", own
    lines = (
        f'spec = importlib.util.spec_from_file_location("implementation", {place!r})',
        "module = importlib.util.module_from_spec(spec)",
        "spec.loader.exec_module(module)",
        f"fn = module.{attribute}",
        'fn = getattr(fn, "fn", fn)',
    )
    return "import importlib.util\n", "\n".join(lines) + "\n"
