"""Getting hold of an implementation: by registered name, `package.module:attribute`, `path/to/file.py:attribute`, or an object."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from .implementation import Implementation
from .registered import REGISTERED

__all__ = ["as_implementation", "load"]

_SIZED = "{} object is an nn.Module, whose sizes are fixed; give its class, or a function of it"


def load(name: str, *, semantics: str | None = None, device: str | None = None, builds_on: str | Sequence[str] = ()) -> Implementation:
    """The implementation of this name.

    `name` is a registered one, `package.module:attribute` or `path/to/file.py:attribute`; the attribute is a callable
    `fn(x, weight, bias, eps)`, an Implementation, or an nn.Module class. `semantics`, `device` and `builds_on` as in `as_implementation`.
    Raises ValueError for an unknown name (listing the known ones), ImportError for a file or module that does not import (a registered
    one too, where Triton, or a compiler, is not there),
    AttributeError for a missing attribute, TypeError for one that is none of these.
    """
    if name in REGISTERED:
        where, declared = REGISTERED[name]
        module, _, attribute = where.partition(":")
        found = importlib.import_module(f".{module}", __package__)
        here = {"devices": found.DEVICES} if hasattr(found, "DEVICES") else {}  # where kernels run depends on the machine
        implementation = Implementation(getattr(found, attribute), name=name, source=name, **{**here, **declared})
        return _adapted(implementation, semantics, device, builds_on)
    place, colon, attribute = name.rpartition(":")
    folders = [part for part in (name, place) if "/" in part and not part.endswith(".py")]
    if any(Path(folder).is_dir() for folder in folders):
        raise ValueError(f"implementation is {name!r}, a folder, but must be path/to/file.py:attribute")
    if not colon or not place:
        missing = " without an attribute" if name.endswith(".py") else ""
        raise ValueError(
            f"implementation is {name!r}{missing}, but must be one of {', '.join(REGISTERED)}, or package.module:attribute, "
            "or path/to/file.py:attribute"
        )
    module_ = _from_file(place) if place.endswith(".py") else _from_module(place)
    value: Any = module_
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise AttributeError(f"{place} has no attribute {attribute!r}; it has {_public(module_)}")
        value = getattr(value, part)
    source = f"{Path(place).resolve()}:{attribute}" if place.endswith(".py") else name
    try:
        return as_implementation(value, semantics=semantics, device=device, builds_on=builds_on, name=name, source=source)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def as_implementation(
    value: Any,
    *,
    semantics: str | None = None,
    device: str | None = None,
    builds_on: str | Sequence[str] = (),
    name: str = "",
    source: str | None = None,
) -> Implementation:
    """An Implementation from an Implementation, a registered name, an nn.Module class, or a bare callable.

    `semantics=None` means the implementation's own ("channel" for a bare callable or module), an empty `builds_on` too. Raises ValueError
    where `semantics` contradicts a declared one, `device` is one that it excludes or `builds_on` names no built-in one of its semantics,
    TypeError for anything else.
    """
    if isinstance(value, str):
        return load(value, semantics=semantics, device=device, builds_on=builds_on)
    torch = sys.modules.get("torch")
    if isinstance(value, Implementation):
        if name and not value.named:  # two of one function are told apart by where they stand
            value = replace(value, name=name)
        if isinstance(value.fn, type):
            value = _of_class(value)
        elif torch is not None and isinstance(value.fn, torch.nn.Module) and next(value.fn.parameters(), None) is not None:
            raise TypeError(_SIZED.format(type(value.fn).__name__))
        return _adapted(replace(value, source=value.source or source), semantics, device, builds_on)
    declared: dict[str, Any] = {"semantics": semantics or "channel", "builds_on": builds_on}
    if device is not None:
        declared["devices"] = (device,)
    if torch is not None and isinstance(value, torch.nn.Module):
        raise TypeError(_SIZED.format(type(value).__name__))
    if isinstance(value, type):
        return _of_class(Implementation(value, name=name or value.__name__, source=source, **declared))
    if not callable(value):
        raise TypeError(
            f"{value!r} is not callable; it must be a callable fn(x, weight, bias, eps), an nn.Module class or an Implementation"
        )
    return Implementation(value, name=name, source=source, **declared)


def _of_class(declared: Implementation) -> Implementation:
    """The Implementation of an nn.Module class, which may take less of the affine than is declared."""
    cls, torch = declared.fn, sys.modules.get("torch")
    if torch is None or not issubclass(cls, torch.nn.Module):  # type: ignore[arg-type]  # a class
        raise TypeError(
            f"{cls.__name__} is a class, but must be a callable fn(x, weight, bias, eps), an nn.Module class or an Implementation"
        )
    if declared.framework == "compile" and declared.affine_shape == "element":
        raise ValueError(
            "framework is 'compile' and affine_shape 'element', but must be another for a class: with parameters of shape (C, H, W) it is "
            "built for one shape"
        )
    from .module import from_module

    fn, found = from_module(cls, declared.affine_shape)  # type: ignore[arg-type]  # a class
    affine = tuple(each for each in declared.affine if each in found["affine"])
    return replace(declared, fn=fn, affine=affine or declared.affine)


def _adapted(implementation: Implementation, semantics: str | None, device: str | None, builds_on: str | Sequence[str]) -> Implementation:
    if semantics is not None and semantics != implementation.semantics:
        raise ValueError(f"semantics is {semantics!r}, but {implementation.name} is declared {implementation.semantics!r}")
    if builds_on:
        implementation = replace(implementation, builds_on=builds_on)  # type: ignore[arg-type]  # one name too
    if device is None:
        return implementation
    builtin = implementation.name in REGISTERED and implementation.framework in ("torch", "compile")
    if device not in implementation.devices and not builtin:
        raise ValueError(f"device is {device!r}, but {implementation.name} is declared for {', '.join(implementation.devices)}")
    return replace(implementation, devices=(device,))


@cache
def _from_file(path: str) -> ModuleType:
    file = Path(path)
    if not file.is_file():
        raise ImportError(f"{path} does not exist")
    name = f"_ln2d_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    return _executed(path, lambda: spec.loader.exec_module(module), module)  # type: ignore[union-attr]  # checked above


def _from_module(name: str) -> ModuleType:
    modules: list[ModuleType] = []
    _executed(name, lambda: modules.append(importlib.import_module(name)), None)
    return modules[0]


def _executed(place: str, action: Callable[[], Any], result: Any) -> Any:
    try:
        action()
    except Exception as error:
        raise ImportError(f"{place} does not import: {type(error).__name__}: {error}") from error
    return result


def _public(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if not name.startswith("_") and not isinstance(value, ModuleType)]
    return ", ".join(names) or "nothing public"
