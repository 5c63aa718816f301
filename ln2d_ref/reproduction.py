"""A violation on disk: the case file, and a script that shows the violation with nothing but the framework and the implementation."""

from __future__ import annotations

import base64
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from .case import ARGUMENTS, Case
from .dtypes import dtype_of
from .implementations.implementation import Implementation
from .layout import place
from .violation import Violation

__all__ = ["folder_of", "write", "written_case"]

_TEMPLATE = '''\
"""{headline}

{message}
"""

import base64
{imports}
import torch

{load}

def argument(dtype, shape, strides, offset, storage):
    data = bytearray(base64.b64decode(storage))
    return torch.frombuffer(data, dtype=dtype).to("{device}").as_strided(shape, strides, offset)


arguments = {{
{arguments}
}}
torch.set_num_threads({threads})
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
{verdict}'''

_VALUE_VERDICT = """\
got, expected, bound = results[{quantity!r}][{index}].double().item(), {expected!r}, {bound!r}
print("{quantity}[{at}] =", got, "  expected", expected, "+-", bound)
"""

_STATE_VERDICT = """\
again = call()
for name, value in again.items():
    if isinstance(value, torch.Tensor):
        print("the same call again gives the same", name, ":", torch.equal(value.nan_to_num(), results[name].nan_to_num()))
"""


_DERIVED = frozenset({"independence", "modes", "bad_arguments", "batch_invariance", "extreme_range"})
"""Laws that make another call from the case: `check` shows what they found, and a script of the case's own call would not."""


def folder_of(root: Path, violation: Violation) -> Path:
    """The one folder for this implementation, law and quantity."""
    parts = (violation.implementation, violation.law, violation.quantity)
    return root / ".".join(re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-") for part in parts)


def written_case(root: Path, violation: Violation) -> Case | None:
    """The case that lies in the violation's folder, or None where there is none that can be read."""
    try:
        return Case.load(folder_of(root, violation) / "case.json")
    except (OSError, ValueError):
        return None


def write(violation: Violation, implementation: Implementation, root: Path, *, kept: Case | None = None) -> Path:
    """Write case.json and repro.py, both or neither, unless `kept`, a case that lies there, is as small; the folder's path.

    repro.py is left out where the case's own call does not show the violation. Sets `violation.reproduce`.
    """
    folder = folder_of(root, violation)
    violation.reproduce = f"python {os.path.relpath(folder / 'repro.py')}"
    scripted = implementation.framework == "torch" and violation.law not in _DERIVED
    if implementation.source is None or not scripted:
        named = f", laws=({violation.law!r},)" if violation.law in _DERIVED else ""
        violation.reproduce = f"ln2d_ref.check(implementation, ln2d_ref.Case.load({os.path.relpath(folder / 'case.json')!r}){named})"
    else:
        violation.reproduce += "      (needs only torch and the implementation)"
    if kept is not None and kept.x.size <= violation.case.x.size:
        return folder
    root.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=root, prefix=".writing-"))
    violation.case.save(fresh / "case.json")
    (fresh / "message.txt").write_text(f"{violation}\n", encoding="utf-8")
    if scripted:
        (fresh / "repro.py").write_text(script(violation, implementation), encoding="utf-8")
    if folder.exists():
        os.replace(folder, fresh.with_suffix(".old"))
    os.replace(fresh, folder)
    shutil.rmtree(fresh.with_suffix(".old"), ignore_errors=True)
    return folder


def script(violation: Violation, implementation: Implementation) -> str:
    """The text of repro.py."""
    case = violation.case
    lines = []
    for name in ARGUMENTS:
        array = getattr(case, name)
        if array is not None:
            storage = place(array, case.laid_out(name))
            data = base64.b64encode(storage.buffer.view(np.uint8).tobytes()).decode("ascii")
            where = f"torch.{dtype_of(array).name}, {storage.shape}, {storage.strides}, {storage.offset}"
            lines.append(f'    "{name}": argument({where}, "{data}"),  # {_readable(array)}')
    verdict = _STATE_VERDICT if violation.law == "history" else ""
    if violation.worst is not None and violation.expected is not None:
        value, bound = violation.expected
        verdict = _VALUE_VERDICT.format(
            quantity=violation.quantity, index=violation.worst, at=", ".join(map(str, violation.worst)), expected=value, bound=bound
        ) + (verdict or "raise SystemExit(not abs(got - expected) <= bound)\n")
    imports, load = _loading(implementation)
    return _TEMPLATE.format(
        headline=violation.headline.replace("\\", "\\\\"),
        message=str(violation).partition("\n")[2].replace("\\", "\\\\"),
        imports=imports,
        load=load,
        device=case.device,
        arguments="\n".join(lines),
        threads=case.threads,
        requires_grad=repr(case.requires_grad),
        eps=case.eps,
        verdict=verdict,
    )


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
