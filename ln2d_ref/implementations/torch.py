"""Executor of PyTorch implementations: eager, compiled, or kernels behind torch's autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Barrier, Thread
from typing import Any

import numpy as np
import torch

from ..case import Case
from ..directions import directions, members
from ..layout import Storage
from ..outcome import Outcome, Raised, Result
from .implementation import Implementation
from .module import module_size
from .module_steps import STEPS, Subject, Told
from .torch_placed import Argument, Placed, guarded, is_floating, same_bits, to_numpy, to_torch
from .torch_queued import QUEUED, NotCaptured
from .torch_state import MODES, watched
from .transforms import WAYS

__all__ = ["TorchExecutor", "result_of"]

_FLOATING = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


@dataclass
class _Run:
    """What happens while an implementation runs: results as they come, the stage that it is in, and what ended it."""

    stage: str = "forward"
    results: dict[str, Result] = field(default_factory=dict)
    raised: Raised | None = None
    disturbed: tuple[str, ...] = ()


class TorchExecutor:
    """Runs an implementation on torch tensors; gradients by torch.autograd.grad."""

    ways: tuple[str, ...] = tuple(WAYS)
    modes: tuple[str, ...] = tuple(filter(None, MODES))
    offers: frozenset[str] = frozenset({"attempt", "graph", "threads"})

    def __init__(self, implementation: Implementation) -> None:
        self.implementation = implementation
        self.refused: set[str] = set()
        self.steps: tuple[str, ...] = () if implementation.module_class is None else tuple(STEPS)

    @property
    def simpler(self) -> TorchExecutor | None:
        """Nothing lies between."""
        return None

    def place(self, case: Case) -> Placed:
        """Tensors over fresh storages on the case's device."""
        return Placed.of(case)

    def overwrite(self, placed: Placed, case: Case) -> None:
        """Write through the storage, past autograd and the version counter."""
        placed.overwrite(case)

    def function(self, case: Case) -> Callable[..., Any]:
        """What is called for this case; of a module class, a module that was built for it, also where the call is a wrong one."""
        fn: Any = self.implementation.fn
        return fn if self.implementation.module_class is None else fn.built_for(case.x.shape)

    def told(self, stage: str, error: Exception) -> Raised:
        """An exception as plain data."""
        return Raised(stage, type(error).__name__, str(error))

    def run(self, placed: Placed) -> Outcome:
        """One forward and one backward."""
        returned: dict[str, Any] = {}
        with self._running(placed.case.threads) as run:
            y = self._called(placed)
            returned["y"] = y
            run.results["y"] = result_of(y)
            run.stage = "backward"
            gradients = _gradients(y, placed)
            returned |= gradients
            run.results |= _results(gradients)
        changed, spilled = placed.changes()
        shared, rewritten = placed.shared(returned.get("y")), placed.rewritten()
        arrays = {name: run.results[name].array for name in returned}
        placed.keep((name, returned[name], array) for name, array in arrays.items() if array is not None)
        return Outcome(run.results, run.raised, changed, spilled, shared, run.disturbed, rewritten)

    def derive(self, case: Case, way: str) -> Outcome:
        """One of `transforms.WAYS`; None stands for no path, and what it means is the laws' to say."""
        if "forward" in way:  # torch makes no dual tensor over elements that share memory
            case = replace(case, layouts={name: layout for name, layout in case.layouts.items() if not layout.expanded})
        given = {name: argument.tensor for name, argument in self.place(case).arguments.items()}
        along, then = ({name: _on(array, case) for name, array in directions(case, which).items()} for which in (0, 1))
        batch = {}
        if way.startswith("vmap"):
            too = "parameters" in way
            both, names = members(case, parameters=too), case.arrays if too else ("x", "dy")
            batch = {name: torch.stack([_on(member.arrays[name], case) for member in both]) for name in names}
        with self._running(case.threads) as run:
            run.stage = way
            run.results |= _results(WAYS[way](self.implementation.fn, given, case.eps, along, then, batch))
        return Outcome(run.results, run.raised, disturbed=run.disturbed)

    def module(self, case: Case, step: str) -> Outcome:
        """One of `module_steps.STEPS`, on fresh modules."""
        given = {name: argument.tensor.detach() for name, argument in self.place(case).arguments.items()}
        x, dy = given.pop("x"), given.pop("dy")
        size = module_size(case.x.shape, self.implementation.affine_shape)
        subject = Subject(self.implementation.module_class, size, x, dy, given, case.eps, case.requires_grad)
        told = Told({})
        with self._running(case.threads) as run:
            run.stage = step
            told = STEPS[step](subject)
            run.results |= _results(told.results)
        return Outcome(run.results, run.raised, told.changed, shared=told.shared)

    def attempt(
        self, placed: Placed, given: Mapping[str, np.ndarray], *, mode: str = "", devices: Mapping[str, str] | None = None
    ) -> Outcome:
        """One call in a mode with other arrays in the place of some arguments; differentiated outside the mode where there is none."""
        case, devices = placed.case, devices or {}
        others = {
            name: Argument.over(guarded(array), devices.get(name, case.device), is_floating(array) and name in case.requires_grad)
            for name, array in given.items()
        }
        others |= {
            name: Argument.over(placed.arguments[name].storage, device, False) for name, device in devices.items() if name not in others
        }
        attempted = Placed(case, placed.arguments | others)
        with self._running(case.threads) as run:
            with MODES[mode](case.device):
                y = self._called(attempted)
            run.results["y"] = result_of(y)
            run.stage = "backward"
            if not mode:
                run.results |= _results(_gradients(y, attempted, cast=True))
        changed, spilled = attempted.changes()
        return Outcome(run.results, run.raised, changed, spilled, disturbed=run.disturbed)

    def queued(self, device: str) -> tuple[str, ...]:
        """On a GPU, `torch_queued.QUEUED`, but for what was refused once: a capture that fails leaves traces."""
        return tuple(way for way in QUEUED if way not in self.refused) if device == "cuda" else ()

    def queue(self, case: Case, way: str) -> Outcome:
        """One call and backward, on fresh storages that held other values."""
        placed = self.place(case.varied())

        def call() -> dict[str, Any]:
            y = self._called(placed)
            return {"y": y, **_gradients(y, placed)}

        with self._running(case.threads) as run:
            run.stage = way
            run.results |= _results(QUEUED[way](placed, case, call))
        if run.raised is not None and run.raised.type == NotCaptured.__name__:
            self.refused.add(way)
        return Outcome(run.results, run.raised, disturbed=run.disturbed)

    def again(self, placed: Placed) -> tuple[Outcome, Outcome]:
        """One call, differentiated twice over the same graph: the first gradients, as they came, and the second."""
        first: dict[str, Result] = {}
        rewritten: tuple[str, ...] = ()
        with self._running(placed.case.threads) as run:
            y = self._called(placed)
            run.stage = "backward"
            gradients = _gradients(y, placed, retain=True)
            first |= _results(gradients)
            run.results |= _results(_gradients(y, placed, retain=True))
            rewritten = tuple(name for name, was in first.items() if not _same_result(was, result_of(gradients[name])))
        return Outcome(first), Outcome(run.results, run.raised, rewritten=rewritten)

    def rewrite(self, placed: Placed, name: str, array: np.ndarray) -> Outcome:
        """Call, overwrite one argument in place so that autograd can tell, differentiate, and put the old values back."""
        argument = placed.arguments[name]
        other = np.array(argument.before)
        Storage(other, argument.storage.shape, argument.storage.strides, argument.storage.offset).view()[...] = array
        with self._running(placed.case.threads) as run:
            y = self._called(placed)
            with torch.no_grad():
                argument.memory.copy_(to_torch(other))
                torch.autograd.graph.increment_version(argument.tensor)  # it is no view of the memory
            run.stage = "backward"
            run.results |= _results(_gradients(y, placed))
        placed.overwrite(placed.case)
        return Outcome(run.results, run.raised)

    def together(self, cases: Sequence[Case]) -> list[Outcome]:
        """One call and backward for each case, each in a thread of its own, all at once."""
        runs, barrier = [_Run() for _ in cases], Barrier(len(cases))

        def one(run: _Run, placed: Placed) -> None:
            barrier.wait()
            with self._told(run):
                y = self._called(placed)
                run.results["y"] = result_of(y)
                run.stage = "backward"
                run.results |= _results(_gradients(y, placed))

        running = [Thread(target=one, args=(run, self.place(case))) for run, case in zip(runs, cases, strict=True)]
        with watched(cases[0].threads):
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
        return [Outcome(run.results, run.raised) for run in runs]

    def _called(self, placed: Placed) -> Any:
        return self.function(placed.case)(*placed.call, placed.case.eps)

    @contextmanager
    def _running(self, threads: int) -> Iterator[_Run]:
        """A run with so many threads, ended by what the implementation raises, with torch's global state watched."""
        run = _Run()
        with watched(threads) as disturbed, self._told(run):
            yield run
        run.disturbed = tuple(disturbed)

    @contextmanager
    def _told(self, run: _Run) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            run.raised = self.told(run.stage, error)


def _on(array: np.ndarray, case: Case) -> torch.Tensor:
    return to_torch(np.array(array)).to(case.device)


def result_of(value: Any) -> Result:
    """A returned value as plain data; a tensor's array where its dtype is one of ours."""
    if not isinstance(value, torch.Tensor):
        return Result(type(value).__name__)
    dtype = str(value.dtype).removeprefix("torch.")
    array = to_numpy(value) if value.dtype in _FLOATING and value.device.type != "meta" else None
    return Result("Tensor", array, dtype, value.device.type)


def _results(values: Mapping[str, Any]) -> dict[str, Result]:
    return {name: result_of(value) for name, value in values.items()}


def _same_result(a: Result, b: Result) -> bool:
    return a.array is None or b.array is None or same_bits(a.array, b.array)


def _gradients(y: Any, placed: Placed, *, retain: bool = False, cast: bool = False) -> dict[str, Any]:
    """Gradients by quantity, for dy or, with `cast`, for dy in y's dtype; none where y cannot be differentiated with it."""
    dy, names = placed.tensor("dy"), placed.case.requires_grad
    if not isinstance(y, torch.Tensor) or dy is None or not names:
        return {}
    if cast and y.is_floating_point():
        dy = dy.to(y.dtype)
    if not (y.requires_grad and y.shape == dy.shape and y.dtype == dy.dtype and y.device == dy.device):
        return {}
    arguments = [placed.arguments[name].tensor for name in names]
    gradients = torch.autograd.grad(y, arguments, dy, retain_graph=retain, allow_unused=True)
    return {f"d{name}": gradient for name, gradient in zip(names, gradients, strict=True)}
