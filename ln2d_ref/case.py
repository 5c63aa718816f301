"""One input as plain data: arrays verbatim, and how they are laid out and differentiated; to and from a file."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .dtypes import DTYPES, dtype_of
from .layout import CONTIGUOUS, Layout
from .semantics import check_arguments, group_size

__all__ = ["ARGUMENTS", "Case", "summary"]

ARGUMENTS = ("x", "weight", "bias", "dy")
FORMAT, VERSION = "ln2d_ref.case", 1
LARGEST_FILE = 1 << 30
_FIELDS = {"format", "version", "arrays", "layouts", "eps", "semantics", "requires_grad", "device", "threads", "regime"}


@dataclass(frozen=True, eq=False)
class Case:
    """One call and its backward.

    x, dy           (N, C, H, W), dtype float16, bfloat16 (ml_dtypes), float32 or float64; dy is the gradient that arrives at y
    weight, bias    (C,), or in sample semantics (C, H, W), or None
    eps, semantics  as in `reference.forward`
    layouts         Layout of each argument; contiguous where not named
    requires_grad   which of "x", "weight", "bias" are differentiated
    device          "cpu" or "cuda"
    threads         number of threads that the framework may use
    regime          what kind of values these are, for messages

    Arrays are copied and made read-only. Raises TypeError or ValueError, naming the argument, where these do not fit together.
    """

    x: np.ndarray
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    dy: np.ndarray | None = None
    eps: float = 1e-5
    semantics: str = "channel"
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    requires_grad: tuple[str, ...] = ("x", "weight", "bias")
    device: str = "cpu"
    threads: int = 1
    regime: str = ""

    def __post_init__(self) -> None:
        """Check and freeze the arguments."""
        if self.dy is None:
            object.__setattr__(self, "dy", np.ones_like(self.x))
        for name, array in self.arrays.items():
            try:
                dtype = dtype_of(array)
            except TypeError as error:
                raise TypeError(f"{name}: {error}") from None
            if dtype is not dtype_of(self.x):
                raise TypeError(f"{name} has dtype {dtype.name}, but must have that of x, {dtype_of(self.x).name}")
            if array.flags.writeable or not array.flags.owndata:  # the owner of a read-only view may still write
                array = np.array(array)
                array.setflags(write=False)
                object.__setattr__(self, name, array)
        shapes = {name: None if array is None else array.shape for name, array in (("weight", self.weight), ("bias", self.bias))}
        check_arguments(self.x.shape, shapes, self.eps, self.semantics)
        if self.dy is not None and self.dy.shape != self.x.shape:
            raise ValueError(f"dy has shape {self.dy.shape}, but must have that of x, {self.x.shape}")
        for what, names, allowed in (
            ("requires_grad", self.requires_grad, ("x", "weight", "bias")),
            ("layouts", self.layouts, ARGUMENTS),
        ):
            for name in names:
                if name not in allowed:
                    raise ValueError(f"{what} names {name!r}, but may name {', '.join(allowed)}")
        object.__setattr__(self, "requires_grad", tuple(name for name in self.requires_grad if getattr(self, name) is not None))
        object.__setattr__(self, "layouts", {name: layout for name, layout in self.layouts.items() if not layout.contiguous})

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are given, by argument."""
        return {name: array for name in ARGUMENTS if (array := getattr(self, name)) is not None}

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return dtype_of(self.x).name

    @property
    def group_size(self) -> int:
        """Number of values normalised together."""
        return group_size(self.x.shape, self.semantics)

    @property
    def contiguous(self) -> bool:
        """Whether every argument is laid out densely."""
        return not self.layouts

    @cached_property
    def finite(self) -> bool:
        """Whether no argument holds a NaN or infinity."""
        return all(bool(np.isfinite(array).all()) for array in self.arrays.values())

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what a call and its backward return: y, and dx, dweight, dbias for what requires grad."""
        return ("y", *(f"d{name}" for name in ("x", "weight", "bias") if name in self.requires_grad))

    def laid_out(self, name: str) -> Layout:
        """Layout of an argument."""
        return self.layouts.get(name, CONTIGUOUS)

    def densely(self) -> Case:
        """The same values, every argument contiguous."""
        return replace(self, layouts={})

    def varied(self) -> Case:
        """Other values, all else the same: x negated, dy too and halved, or dweight would not change, weight and bias reversed."""
        flipped: dict[str, Any] = {
            n: np.ascontiguousarray(a[::-1]) for n, a in (("weight", self.weight), ("bias", self.bias)) if a is not None
        }
        return replace(self, x=-self.x, dy=None if self.dy is None else self.dy * self.dy.dtype.type(-0.5), **flipped)

    def __repr__(self) -> str:
        """A short form: shapes, layouts and settings, no values."""
        return f"Case({summary(self)}, {self.semantics}{', ' + self.regime if self.regime else ''})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What Hypothesis and a debugger print: short too."""
        printer.text(repr(self))

    def __str__(self) -> str:
        """A Python expression that makes this case again."""
        return f"Case.from_dict({self.to_dict()!r})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data: numbers, strings, lists and dictionaries; arrays as base64 of their little-endian bytes, or of one element's."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "arrays": {name: _encoded(array) for name, array in self.arrays.items()},
            "layouts": {
                name: {key: value if key == "offset" else list(value) for key, value in vars(layout).items()}
                for name, layout in self.layouts.items()
            },
            "eps": self.eps,
            "semantics": self.semantics,
            "requires_grad": list(self.requires_grad),
            "device": self.device,
            "threads": self.threads,
            "regime": self.regime,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Case:
        """Inverse of `to_dict`. ValueError for another format or version, or for data that is cut off or too long."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ValueError(f"format is not {FORMAT!r}: this is not a case")
        if data.get("version") != VERSION:
            raise ValueError(f"version is {data.get('version')!r}, but this release reads version {VERSION}")
        if data.keys() != _FIELDS:
            raise ValueError(f"fields are {sorted(data)}, but must be {sorted(_FIELDS)}")
        arrays: dict[str, Any] = {name: _decoded(name, array) for name, array in data["arrays"].items()}
        return cls(
            **arrays,
            layouts={name: Layout(**layout) for name, layout in data["layouts"].items()},
            requires_grad=tuple(data["requires_grad"]),
            **{name: data[name] for name in ("eps", "semantics", "device", "threads", "regime")},
        )

    def save(self, path: str | Path) -> None:
        """Write to a JSON file."""
        Path(path).write_text(json.dumps(self.to_dict()) + "\n", encoding="ascii")

    @classmethod
    def load(cls, path: str | Path) -> Case:
        """Read a file that `save` wrote. ValueError, naming the file, where it is truncated, oversized or of an unknown version."""
        path = Path(path)
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"case file {path} is oversized: {path.stat().st_size} bytes, at most {LARGEST_FILE} are read")
        try:
            data = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"case file {path} is truncated or not a case file: {error}") from None
        try:
            return cls.from_dict(data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"case file {path}: {error}") from None


def summary(case: Case) -> str:
    """Shapes, layouts and eps as in a call: `float16[2,4,1,7] channels_last, weight=float16[4], bias=None, eps=1e-06`."""

    def described(name: str) -> str:
        array = getattr(case, name)
        if array is None:
            return "None"
        layout = case.laid_out(name)
        where = "" if layout.contiguous else f" {layout}"
        return f"{dtype_of(array).name}[{','.join(map(str, array.shape))}]{where}"

    parts = [described("x"), f"weight={described('weight')}", f"bias={described('bias')}", f"eps={case.eps:g}"]
    if "dy" in case.layouts:
        parts.append(f"dy={case.layouts['dy']}")
    return ", ".join(parts)


def _encoded(array: np.ndarray) -> dict[str, Any]:
    bits = np.ascontiguousarray(array).view(f"<u{array.dtype.itemsize}")
    constant = bits.size > 1 and bool((bits == bits.flat[0]).all())
    data = base64.b64encode((bits.flat[:1] if constant else bits).tobytes()).decode("ascii")
    encoded = {"dtype": dtype_of(array).name, "shape": list(array.shape), "data": data}
    return encoded | {"constant": True} if constant else encoded


def _decoded(name: str, encoded: Mapping[str, Any]) -> np.ndarray:
    if encoded["dtype"] not in DTYPES:
        raise ValueError(f"{name} has dtype {encoded['dtype']!r}, but must have one of {', '.join(DTYPES)}")
    dtype = DTYPES[encoded["dtype"]].numpy
    data = base64.b64decode(encoded["data"], validate=True)
    constant = encoded.get("constant", False)
    size = (1 if constant else math.prod(encoded["shape"])) * dtype.itemsize
    if len(data) != size:
        fault = "truncated" if len(data) < size else "oversized"
        raise ValueError(f"{name} is {fault}: {len(data)} bytes, but {size} for {encoded['dtype']}{encoded['shape']}")
    values = np.frombuffer(data, dtype=f"<u{dtype.itemsize}").view(dtype)
    return np.full(encoded["shape"], values[0], dtype) if constant else values.reshape(encoded["shape"])
