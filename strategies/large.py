"""Judging an implementation on a tensor that is too large for a Case: every element of y and dx, and the parameters' gradients."""

from __future__ import annotations

import numpy as np

from ln2d_ref import Case, Implementation, Violation
from ln2d_ref.check import violations
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.implementations.torch_large import FOLDS, LargeExecutor, tile_shape
from ln2d_ref.laws import Trial, select

__all__ = ["judge_large", "large_dtype"]

Shape = tuple[int, int, int, int]
_LAWS = ("result", "value", "gradients")


def judge_large(implementation: Implementation, shape: Shape, *, device: str = "cuda", seed: int = 0) -> list[Violation]:
    """Violations of `result`, `value` and `gradients` on tensors of this shape.

    They hold the groups of a small case again and again (`torch_large`): the host needs memory for that case alone, the device for at least
    five tensors of this shape, in `large_dtype`. `seed` draws values and places. Raises MemoryError where the device has too little,
    ValueError where a sample is too large for the host, or a group holds one value.
    """
    case = _case(implementation, shape, device, seed)
    if case.group_size == 1:
        raise ValueError(f"shape is {shape}, of which a group holds one value, but must be one of larger groups")
    found: list[Violation] = []
    for fold in FOLDS:
        trial = Trial(LargeExecutor(implementation, shape, fold, seed=seed), implementation, case)
        try:
            raised = trial.outcome.raised
        except RuntimeError as error:  # of torch, while the tensors were filled
            if type(error).__name__ != "OutOfMemoryError":
                raise
            raise MemoryError(f"{implementation.name} on {shape} in {case.dtype}: {error}") from None
        if raised is not None and raised.type == "OutOfMemoryError":
            raise MemoryError(f"{implementation.name} on {shape} in {case.dtype}: {raised.text}")
        found += violations(trial, select(_LAWS))
        if found:  # after an illegal access the device answers no more
            break
    for violation in found:
        violation.hint = f"the case's groups stand in tensors of shape {shape} again and again, and one of their copies is wrong"
        violation.reproduce = f"strategies.large.judge_large(implementation, {shape}, device={device!r}, seed={seed}) gives it"
    return found


def large_dtype(implementation: Implementation) -> str:
    """The narrowest dtype that it takes."""
    return min(implementation.dtypes, key=lambda name: DTYPES[name].numpy.itemsize)


def _case(implementation: Implementation, shape: Shape, device: str, seed: int) -> Case:
    """Normal values about 1, with all the parameters that the implementation takes."""
    dtype, tile = DTYPES[large_dtype(implementation)].numpy, tile_shape(shape, implementation.semantics)
    parameter = tile[1:] if implementation.affine_shape == "element" else tile[1:2]
    rng = np.random.Generator(np.random.PCG64(seed))
    x, dy, weight, bias = (rng.standard_normal(size) for size in (tile, tile, parameter, parameter))
    affine = "both" if "both" in implementation.affine else implementation.affine[0]
    given = {name: array.astype(dtype) for name, array in (("weight", weight), ("bias", bias)) if affine in ("both", name)}
    return Case(
        (x + 1).astype(dtype),
        dy=dy.astype(dtype),
        weight=given.get("weight"),
        bias=given.get("bias"),
        eps=1e-5 if implementation.eps is None else implementation.eps,
        semantics=implementation.semantics,
        device=device,
        requires_grad=("x", *given),
        regime="normal",
    )
