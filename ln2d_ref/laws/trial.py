"""One implementation on one case: what it did and what it may do, each computed once and shared by the laws."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..bounds import expect
from ..case import Case
from ..expectation import Expected
from ..implementations.executor import Executor
from ..implementations.implementation import Implementation
from ..outcome import Outcome
from ..violation import Violation, wrong_value
from .derived import Derived

__all__ = ["Trial"]

_REFUSALS = frozenset({"ValueError", "RuntimeError", "TypeError", "NotImplementedError"})


class Trial:
    """Lazy: laws that never ask for an expectation cost none. `observed` gathers what is worth telling and breaks no law."""

    def __init__(self, executor: Executor, implementation: Implementation, case: Case) -> None:
        self.executor = executor
        self.implementation = implementation
        self.case = case
        self.observed: list[str] = []

    @cached_property
    def placed(self) -> Any:
        """The case on the framework's tensors."""
        return self.executor.place(self.case)

    @cached_property
    def outcome(self) -> Outcome:
        """The first run."""
        return self.executor.run(self.placed)

    @cached_property
    def expected(self) -> Mapping[str, Expected]:
        """What each quantity may be."""
        return expectation(self.implementation, self.case)

    @cached_property
    def ratios(self) -> dict[str, np.ndarray]:
        """error/bound of each element of each quantity that came back in the right shape."""
        return ratios(self.outcome, self.expected, self.case)

    @cached_property
    def worst(self) -> dict[str, float]:
        """Largest ratio of each of these quantities."""
        return {quantity: float(values.max(initial=0.0)) for quantity, values in self.ratios.items()}

    @cached_property
    def dense(self) -> Trial:
        """A trial of the same values with every argument contiguous, in fresh storages."""
        return Trial(self.executor, self.implementation, self.case.densely())

    @cached_property
    def repeated(self) -> Trial:
        """A trial of the same case in fresh storages."""
        return Trial(self.executor, self.implementation, self.case)

    @cached_property
    def derived(self) -> Derived:
        """Higher derivatives and the like."""
        return Derived(self.executor, self.implementation, self.case, partial(expectation, self.implementation))

    def excusable(self) -> bool:
        """Whether it raised a refusal of H·W = 0 or of a single value in all, which is allowed; a slip such as a division by 0 is none."""
        shape, raised = self.case.x.shape, self.outcome.raised
        return raised is not None and raised.type in _REFUSALS and (shape[2] * shape[3] == 0 or self.case.x.size == 1)

    def violation(self, law: str, quantity: str, headline: str, **details: Any) -> Violation:
        """A violation by this implementation on this case."""
        return Violation(law, quantity, headline, case=self.case, implementation=self.implementation.name, **details)

    def wrong(self, law: str, quantity: str) -> Violation:
        """The violation that this quantity's ratios show."""
        values = self.ratios[quantity]
        single = self.case.group_size == 1 and self.case.x.size > 0 and quantity != "dbias"
        headline, details = wrong_value(quantity, self.expected[quantity], array_of(self.outcome, quantity), values, group_of_one=single)
        return self.violation(law, quantity, headline, **details)


def expectation(implementation: Implementation, case: Case) -> Mapping[str, Expected]:
    """What an implementation's results on a case may be."""
    return expect(
        case.x,
        case.weight,
        case.bias,
        case.dy if case.requires_grad else None,
        eps=case.eps,
        semantics=case.semantics,
        arithmetic=implementation.arithmetic,
    )


def ratios(outcome: Outcome, expected: Mapping[str, Expected], case: Case) -> dict[str, np.ndarray]:
    """error/bound of each quantity that came back in the shape that is expected."""
    found = {}
    for quantity in case.quantities:
        result = outcome.results.get(quantity)
        if result is not None and result.array is not None and result.array.shape == expected[quantity].value.shape:
            found[quantity] = expected[quantity].ratios(result.array)
    return found


def array_of(outcome: Outcome, quantity: str) -> np.ndarray:
    """The array of a result. LookupError where it did not come back."""
    array = outcome.results[quantity].array
    if array is None:
        raise LookupError(f"{quantity} did not come back")
    return array
