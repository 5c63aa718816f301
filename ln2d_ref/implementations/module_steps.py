"""What users do with an nn.Module beside calling it: each step as one function, which does it and tells what came of it.

A step takes a Subject, a class with one call of it, and gives a Told. Results are named y, and where a step differentiates dx, dweight and
dbias; tensors that the module holds have their names in its state_dict. laws/module.py says what each must be.
"""

from __future__ import annotations

import copy
import io
import logging
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import torch

from .torch_placed import to_numpy

__all__ = ["STEPS", "Subject", "Told"]

_SHORT = MappingProxyType({torch.float16: "half", torch.bfloat16: "bfloat16", torch.float32: "float", torch.float64: "double"})


@dataclass(frozen=True)
class Told:
    """Tensors by name, what was changed that should not be, and which parameters lie in the storage of another module's."""

    results: Mapping[str, Any]
    changed: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """An nn.Module class, what it is built with, and one call of it: x and dy, the parameters' values, eps, and what requires grad."""

    cls: Any
    size: int | tuple[int, ...]
    x: torch.Tensor
    dy: torch.Tensor
    values: Mapping[str, torch.Tensor]
    eps: float
    requires_grad: tuple[str, ...]

    def built(self) -> Any:
        """A module as its class makes it."""
        return self.cls(self.size, eps=self.eps)

    def filled(self, module: Any = None) -> Any:
        """This module, or one of x's dtype on x's device, with the parameters' values in it."""
        module = self.built().to(device=self.x.device, dtype=self.x.dtype) if module is None else module
        _write(module, self.values)
        return module

    def others(self) -> dict[str, torch.Tensor]:
        """Values for the parameters, each unlike that in its place."""
        return {name: torch.where(value == 7, 5, 7).to(value.dtype) for name, value in self.values.items()}

    def called(self, call: Callable[..., Any]) -> dict[str, Any]:
        """What a call gives, without gradients."""
        return {"y": call(self.x.detach())}

    def differentiated(self, call: Callable[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What a call gives, and its gradients with respect to x and to these parameters, as far as it can be differentiated."""
        x = self.x.detach().requires_grad_("x" in self.requires_grad)
        y, leaves = call(x), {name: x if name == "x" else parameters[name] for name in self.requires_grad}
        leaves = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}  # a class may freeze its parameters
        if not (leaves and isinstance(y, torch.Tensor) and y.requires_grad and y.shape == self.dy.shape and y.dtype == self.dy.dtype):
            return {"y": y}
        gradients = torch.autograd.grad(y, tuple(leaves.values()), self.dy, allow_unused=True)
        return {"y": y} | {f"d{name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}


def _write(module: Any, values: Mapping[str, torch.Tensor]) -> None:
    """Write values into a module's parameters, in place, as an optimizer does."""
    with torch.no_grad():
        for name, value in values.items():
            module.get_parameter(name).copy_(value)


def _snapshot(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, bytes]:
    return {name: to_numpy(tensor).tobytes() for name, tensor in tensors}


def _everything(module: Any) -> dict[str, bytes]:
    return _snapshot((*module.named_parameters(), *module.named_buffers()))


def _unlike(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> tuple[str, ...]:
    """Names of what is no longer as it was."""
    return tuple(name for name in before if now.get(name) != before[name])


def to(subject: Subject) -> Told:
    """Made, moved to x's dtype by to(), filled and called: y, its gradients and the parameters."""
    module = subject.filled()
    parameters = dict(module.named_parameters())
    return Told(subject.differentiated(module, parameters) | parameters)


def cast(subject: Subject) -> Told:
    """The same by half(), bfloat16() or double(), and for float32 by double() and float(): y and the parameters."""
    module = subject.built().to(device=subject.x.device)
    module = module.double() if subject.x.dtype == torch.float32 else module
    module = subject.filled(getattr(module, _SHORT[subject.x.dtype])())
    return Told(subject.called(module) | dict(module.named_parameters()))


def state_dict(subject: Subject) -> Told:
    """What state_dict() of a filled module holds."""
    return Told(subject.filled().state_dict())


def load_state_dict(subject: Subject) -> Told:
    """A module of other values takes a state_dict that has these: y."""
    module = subject.filled()
    state = {name: torch.clone(value) if isinstance(value, torch.Tensor) else value for name, value in module.state_dict().items()}
    _write(module, subject.others())
    subject.called(module)  # what it keeps of a call must not outlive its parameters
    module.load_state_dict(state | {name: value.detach() for name, value in subject.values.items()})
    return Told(subject.called(module))


def deepcopy(subject: Subject) -> Told:
    """A copy, made after a call, whose original is then overwritten: y and its gradients."""
    module = subject.filled()
    subject.differentiated(module, dict(module.named_parameters()))
    return _apart(subject, module, copy.deepcopy(module))


def pickled(subject: Subject) -> Told:
    """What pickle makes of a module, which is then overwritten: y and its gradients.

    NotImplementedError where the class cannot be found by its name, as one defined in a function.
    """
    cls = subject.cls
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is not cls:
        raise NotImplementedError(f"pickle finds classes by name, and {cls.__module__}.{cls.__qualname__} is not this one")
    module = subject.filled()
    return _apart(subject, module, pickle.loads(pickle.dumps(module)))


def _apart(subject: Subject, module: Any, other: Any) -> Told:
    """What another module gives once the first is overwritten, and the parameters that they share."""
    mine, its = dict(module.named_parameters()), dict(other.named_parameters())
    pointers = {name: (mine[name].untyped_storage().data_ptr(), its[name].untyped_storage().data_ptr()) for name in mine if name in its}
    shared = tuple(name for name, (one, another) in pointers.items() if one == another)
    _write(module, subject.others())
    return Told(subject.differentiated(other, its), shared=shared)


def in_evaluation(subject: Subject) -> Told:
    """After eval(): y."""
    return Told(subject.called(subject.filled().eval()))


def in_training(subject: Subject) -> Told:
    """After eval(), a call, and train(): y."""
    module = subject.filled().eval()
    subject.called(module)
    return Told(subject.called(module.train()))


def meta(subject: Subject) -> Told:
    """Made on the meta device, given memory by to_empty and values by load_state_dict: y, and the parameters as they were made.

    NotImplementedError where a tensor that it needs is in no state_dict, and so has no value then.
    """
    state = subject.filled().state_dict()
    with torch.device("meta"):
        module = subject.built()
    unsaved = [name for name, _ in module.named_buffers() if name not in state]
    if unsaved:
        raise NotImplementedError(f"{', '.join(unsaved)} is in no state_dict")
    made = dict(module.named_parameters())
    module = module.to(subject.x.dtype).to_empty(device=subject.x.device)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.fill_(float("nan"))
    module.load_state_dict(state)
    results = subject.called(module)
    if isinstance(results["y"], torch.Tensor) and results["y"].is_meta:
        raise NotImplementedError("a tensor that is neither parameter nor buffer stayed on the meta device")
    return Told(results | made)


def functional_call(subject: Subject) -> Told:
    """A module of other values, in evaluation and called before, is called with these parameters: y and its gradients."""
    module = subject.filled()
    _write(module, subject.others())
    module.eval()
    subject.called(module)
    before = _snapshot(module.named_parameters())
    values = {name: value.detach().clone().requires_grad_() for name, value in subject.values.items()}
    results = subject.differentiated(lambda x: torch.func.functional_call(module, values, (x,)), values)
    return Told(results, _unlike(before, _snapshot(module.named_parameters())))


def represented(subject: Subject) -> Told:
    """After repr() and extra_repr(): y, and which of parameters, buffers, training flag and random state are not as they were."""
    module = subject.filled()
    before, training, random = _everything(module), module.training, torch.random.get_rng_state()
    repr(module)
    module.extra_repr()
    changed = _unlike(before, _everything(module))
    changed += ("training flag",) * (module.training != training)
    changed += ("random state",) * (not torch.equal(torch.random.get_rng_state(), random))
    return Told(subject.called(module), changed)


def exported(subject: Subject) -> Told:
    """Traced by torch.export.export with another x: y of the exported program."""
    module = subject.filled()
    program = torch.export.export(module, (1 - subject.x.detach(),))
    return Told(subject.called(program.module()))


def onnx(subject: Subject) -> Told:
    """Traced by torch.onnx.export in float32, on the CPU and in evaluation, and run by onnxruntime: y."""
    import onnxruntime

    values = tuple((name, tuple(value.shape), tuple(value.flatten().tolist())) for name, value in subject.values.items())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = _onnx_model(subject.cls, subject.size, tuple(subject.x.shape), values, subject.eps)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    (y,) = session.run(None, {name: subject.x.detach().cpu().numpy()})
    return Told({"y": torch.from_numpy(y).to(subject.x.device)})


@lru_cache(maxsize=64)
def _onnx_model(cls: Any, size: Any, shape: tuple[int, ...], values: tuple[tuple[str, Any, Any], ...], eps: float) -> bytes:
    """The file that an export writes; kept, as it takes two seconds, and a search for a smaller case asks for the same again."""
    x = torch.zeros(shape)
    parameters = {name: torch.tensor(value).reshape(like) for name, like, value in values}
    module = Subject(cls, size, x, x, parameters, eps, ()).filled().eval()
    with _quiet():
        program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
    model = io.BytesIO()
    program.save(model)
    return model.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's log, which warns of packages that a norm has no use for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


STEPS: Mapping[str, Callable[[Subject], Told]] = MappingProxyType(
    {
        "to": to,
        "cast": cast,
        "state_dict": state_dict,
        "load_state_dict": load_state_dict,
        "deepcopy": deepcopy,
        "pickle": pickled,
        "eval": in_evaluation,
        "train": in_training,
        "functional_call": functional_call,
        "repr": represented,
        "meta": meta,
        "export": exported,
        "onnx": onnx,
    }
)
"""Steps by name; the first is an ordinary call, and the last two cost the most."""
