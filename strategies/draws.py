"""Many picks from one draw, which depends on the seed alone.

Hypothesis spends as long on a draw as an implementation on a small case, whatever it draws. So a strategy here draws one string of
letters, and picks by them: each letter is a digit between 0 and 255, and Hypothesis shrinks a string letter by letter, towards the first
one. Parts have places of their own in it, so that one is shrunk and the others stay.

Hypothesis also mixes constants that it finds in imported local modules into its strings and numbers, so that the same seed gives other
draws once another module is imported. No module holds a string of these letters, which are for private use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import TypeVar

from hypothesis import strategies as st

__all__ = ["Draws", "digits", "drawn", "unrepeating"]

T = TypeVar("T")
_FIRST = 0xF0000
_BASE = 256
_LETTERS = st.characters(min_codepoint=_FIRST, max_codepoint=_FIRST + _BASE - 1)


class Draws:
    """Picks, each from the next digit or digits; all digits 0 pick the first of everything."""

    def __init__(self, letters: str) -> None:
        self._letters = letters
        self._at = 0

    def _digit(self) -> int:
        if self._at == len(self._letters):
            raise IndexError(f"only {self._at} digits were drawn")
        self._at += 1
        return ord(self._letters[self._at - 1]) - _FIRST

    def integer(self, low: int, high: int) -> int:
        """Uniform in [low, high], all but exactly: a digit decides where it stands for four values or more each, else several."""
        count = high - low + 1
        value, scale = self._digit(), _BASE
        while scale < 4 * count and scale != count:
            value, scale = value * _BASE + self._digit(), scale * _BASE
        return low + value * count // scale

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, uniformly; first the first."""
        return options[self.integer(0, len(options) - 1)]

    def weighted(self, options: Sequence[tuple[int, T]]) -> T:
        """One of the options, with integer weights; first the first."""
        left = self.integer(0, sum(weight for weight, _ in options) - 1)
        for weight, option in options:
            if left < weight:
                return option
            left -= weight
        raise AssertionError("unreachable: the weights have been summed")

    def chance(self, one_in: int) -> bool:
        """True once in `one_in`; first False."""
        return self.integer(0, one_in - 1) == one_in - 1

    def part(self, count: int) -> Draws:
        """The next `count` digits, to be used in part or in whole."""
        self._at += count
        if self._at > len(self._letters):
            raise IndexError(f"only {len(self._letters)} digits were drawn")
        return Draws(self._letters[self._at - count : self._at])


@lru_cache(maxsize=512)
def _letters(count: int) -> st.SearchStrategy[str]:
    """Kept, since Hypothesis examines each new strategy at length."""
    return st.text(_LETTERS, min_size=count, max_size=count)


def digits(draw: st.DrawFn, count: int) -> Draws:
    """So many digits, in one draw: what is made of them is no draw of its own to Hypothesis, which would cost as much again."""
    return Draws(draw(_letters(count)))


def drawn(count: int, make: Callable[[Draws], T]) -> st.SearchStrategy[T]:
    """What is made with so many digits."""
    return _letters(count).map(lambda letters: make(Draws(letters)))


def unrepeating(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """The same values, each drawn afresh.

    After each example Hypothesis tries up to five that copy one of its draws over another of the same kind. That finds equal elements
    in collections, but here it puts a seed in the place of a shape, and 400 cases hold 144 shapes instead of 347. It leaves collections
    of unique elements alone, and so a value is drawn as one of one element.
    """
    return st.lists(strategy, min_size=1, max_size=1, unique_by=id).map(itemgetter(0))
