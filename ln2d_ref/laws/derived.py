"""Higher derivatives, forward mode and vmap of one implementation on one case: what came of each way, and what may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np

from ..case import Case
from ..directions import directions, members
from ..expectation import BOUNDED, Expected
from ..higher import expect_derivatives
from ..implementations.executor import Executor
from ..implementations.implementation import Implementation
from ..outcome import Outcome, Result

__all__ = ["Derived"]


@dataclass(frozen=True)
class _Way:
    """What a way of differentiating or batching returns, by the name of the expectation that each quantity is held against.

    `once` are single results; `each` has one for each argument that requires grad: "dd" stands for ddx, ddweight and ddbias.
    """

    once: Mapping[str, str]
    each: Mapping[str, str]


_WAYS: Mapping[str, _Way] = MappingProxyType(
    {
        "double backward": _Way({"ddy": "Dy"}, {"dd": "D"}),
        "third order": _Way({"dddy": "DDy"}, {"ddd": "DD"}),
        "forward mode": _Way({"primal": "y", "tangent": "Dy"}, {}),
        "forward over reverse": _Way({}, {"td": "D"}),
        "nested forward": _Way({"ttangent": "DDy"}, {}),
        "vmap": _Way({"vmap_y": "vmap y"}, {}),
        "vmap over vjp": _Way({}, {"vmap_d": "vmap d"}),
        "vmap over parameters too": _Way({"vmap_y": "vmap all y"}, {}),
        "vmap over parameters and vjp": _Way({}, {"vmap_d": "vmap all d"}),
    }
)


class Derived:
    """Lazy: each way is run once, each expectation computed once. `first` gives the expectation of y and its gradients for a case."""

    def __init__(
        self, executor: Executor, implementation: Implementation, case: Case, first: Callable[[Case], Mapping[str, Expected]]
    ) -> None:
        self.executor = executor
        self.implementation = implementation
        self.case = case
        self.first = first

    @cached_property
    def outcomes(self) -> dict[str, Outcome]:
        """What each way that the framework offers gave."""
        skipped = () if {"weight", "bias"} & self.case.arrays.keys() else ("vmap over parameters too", "vmap over parameters and vjp")
        return {way: self.executor.derive(self.case, way) for way in self.executor.ways if way not in skipped}

    @cached_property
    def refused(self) -> tuple[str, ...]:
        """Which ways raised, and what."""
        return tuple(f"{way} refused with {o.raised.type}" for way, o in self.outcomes.items() if o.raised is not None)

    @cached_property
    def _sources(self) -> dict[str, Expected]:
        """Expectations by the names that the ways use."""
        case = self.case
        if case.dy is None:
            raise LookupError("a case always has a dy")
        sources = expect_derivatives(
            case.x,
            case.weight,
            case.bias,
            case.dy,
            directions(case, 0),
            directions(case, 1),
            eps=case.eps,
            semantics=case.semantics,
            arithmetic=self.implementation.arithmetic,
        )
        first = self.first(case)
        sources |= first
        for name, parameters in (("vmap ", False), ("vmap all ", True)):
            each = [first, self.first(members(case, parameters=parameters)[1])]
            sources |= {name + quantity: _stacked([expected[quantity] for expected in each]) for quantity in each[0]}
        return sources

    @cached_property
    def expected(self) -> dict[tuple[str, str], Expected]:
        """What may come, by way and quantity."""
        found: dict[tuple[str, str], Expected] = {}
        for way, outcome in self.outcomes.items():
            if outcome.raised is None:
                single, each = _WAYS[way].once.items(), _WAYS[way].each.items()
                sources = dict(single) | {prefix + name: source + name for prefix, source in each for name in self.case.requires_grad}
                found |= {(way, quantity): self._sources[source] for quantity, source in sources.items()}
        return found

    def result(self, way: str, quantity: str) -> Result:
        """What came; a result that is None where there was none."""
        return self.outcomes[way].results.get(quantity, Result("NoneType"))

    def actual(self, way: str, quantity: str) -> np.ndarray:
        """What came, as an array: 0 where autograd found no path."""
        array, expected = self.result(way, quantity).array, self.expected[way, quantity]
        return np.zeros(expected.value.shape) if array is None else array

    def is_tensor(self, way: str, quantity: str) -> bool:
        """Whether it came in the shape and dtype that it should have, or stands for 0 where a gradient or tangent may be absent."""
        result, expected = self.result(way, quantity), self.expected[way, quantity]
        if result.type == "NoneType":
            return quantity not in ("primal", "vmap_y")
        return result.array is not None and result.array.shape == expected.value.shape and result.dtype == expected.dtype.name

    @cached_property
    def ratios(self) -> dict[tuple[str, str], np.ndarray]:
        """error/bound of each element of each quantity that is a tensor as it should be, by way and quantity."""
        return {key: expected.ratios(self.actual(*key)) for key, expected in self.expected.items() if self.is_tensor(*key)}

    @cached_property
    def worst(self) -> dict[str, float]:
        """Largest ratio of each quantity, over the ways that give it."""
        worst: dict[str, float] = {}
        for (_, quantity), values in self.ratios.items():
            worst[quantity] = max(worst.get(quantity, 0.0), float(values.max(initial=0.0)))
        return worst

    @cached_property
    def undecided(self) -> tuple[str, ...]:
        """Quantities for which anything passes in some elements."""
        return tuple(dict.fromkeys(quantity for (_, quantity), expected in self.expected.items() if expected.undecided))


def _stacked(each: list[Expected]) -> Expected:
    """Expectation of results with a leading axis."""
    shape = each[0].value.shape
    rules = None
    if any(expected.rule is not None for expected in each):
        rules = np.stack([np.full(shape, BOUNDED) if expected.rule is None else expected.rule for expected in each])
    return Expected(
        np.stack([expected.value for expected in each]),
        np.stack([np.broadcast_to(expected.low, shape) for expected in each]),
        np.stack([expected.bound for expected in each]),
        each[0].dtype,
        rules,
    )
