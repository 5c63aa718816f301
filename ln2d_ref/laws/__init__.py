"""The laws, by name, in the order in which they are judged: `result` first, so that the first failure is the cause."""

from collections.abc import Mapping
from types import MappingProxyType

from .bad_arguments import BAD_ARGUMENTS
from .derivatives import DERIVATIVES
from .extreme_range import EXTREME_RANGE
from .history import HISTORY
from .independence import BATCH_INVARIANCE, INDEPENDENCE
from .law import Law
from .modes import MODES
from .module import MODULE
from .result import RESULT
from .side_effects import SIDE_EFFECTS
from .trial import Trial
from .values import DEGENERATE, GRADIENTS, LAYOUT, SPECIAL_VALUES, VALUE

__all__ = ["LAWS", "Law", "Trial", "select"]

LAWS: Mapping[str, Law] = MappingProxyType(
    {
        law.name: law
        for law in (
            RESULT,
            VALUE,
            GRADIENTS,
            SPECIAL_VALUES,
            DEGENERATE,
            LAYOUT,
            SIDE_EFFECTS,
            HISTORY,
            INDEPENDENCE,
            MODES,
            DERIVATIVES,
            BAD_ARGUMENTS,
            MODULE,
            BATCH_INVARIANCE,
            EXTREME_RANGE,
        )
    }
)


def select(names: tuple[str, ...] | None = None) -> tuple[Law, ...]:
    """The laws of these names, in judging order; None means all that are not opt-in. ValueError for an unknown name."""
    for name in names or ():
        if name not in LAWS:
            raise ValueError(f"law is {name!r}, but must be one of {', '.join(LAWS)}")
    return tuple(law for law in LAWS.values() if (not law.opt_in if names is None else law.name in names))
