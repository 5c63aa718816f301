"""The bare loop: the least that judging a case can cost. Arrays from NumPy, one forward and backward, the reference with its bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from ln2d_ref import Case, Implementation
from ln2d_ref.implementations.torch_placed import to_numpy, to_torch
from ln2d_ref.laws.trial import expectation
from ln2d_ref.ledger import crashing

__all__ = ["bare_loop"]


def bare_loop(implementation: Implementation, judged: Iterable[tuple[Case, Callable[[], object]]]) -> None:
    """Do for each case what no judge can leave out, and judge nothing: make its arrays, run on them, ask what they may give.

    Beside each case is a call that makes the same arrays with NumPy. No layouts, no guard gaps, no comparison, no Hypothesis.
    """
    for case, arrays in judged:
        arrays()
        if crashing(implementation, case) is None:
            _run(implementation, case)
        expectation(implementation, case)


def _run(implementation: Implementation, case: Case) -> None:
    if implementation.framework == "numpy":
        implementation.fn(case.x, case.weight, case.bias, case.eps)
        vjp = getattr(implementation.fn, "vjp", None)
        if vjp is not None:
            vjp(case.dy, case.x, case.weight, case.bias, case.eps)
        return
    if torch.get_num_threads() != case.threads:
        torch.set_num_threads(case.threads)
    tensors = {name: to_torch(array.copy()) for name, array in case.arrays.items()}
    leaves = [tensors[name].requires_grad_() for name in case.requires_grad]
    try:
        y = implementation.fn(tensors["x"], tensors.get("weight"), tensors.get("bias"), case.eps)
        to_numpy(y)
        if leaves and y.requires_grad:
            for gradient in torch.autograd.grad(y, leaves, tensors["dy"], allow_unused=True):
                if gradient is not None:
                    to_numpy(gradient)
    except (RuntimeError, ValueError):  # a refusal, which a judge takes down
        return
