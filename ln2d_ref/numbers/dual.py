"""Dual numbers a + a'ε with ε² = 0: any formula evaluated on them gives its value and its directional derivative.

Both parts may be any other kind of number, dual ones too: duals over bounded numbers bound a derivative, duals over duals give
second derivatives. Griewank & Walther, "Evaluating Derivatives" (2008), §13.
"""

from __future__ import annotations

from typing import Any

from .operations import folded, mean_square, rsqrt, shifted, zero_like

__all__ = ["Dual"]


class Dual:
    """primal + tangent·ε."""

    __slots__ = ("primal", "tangent")
    __array_ufunc__ = None

    def __init__(self, primal: Any, tangent: Any) -> None:
        self.primal = primal
        self.tangent = tangent

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        shape: tuple[int, ...] = self.primal.shape
        return shape

    def __add__(self, other: Any) -> Dual:
        other = _promote(other)
        return Dual(self.primal + other.primal, self.tangent + other.tangent)

    __radd__ = __add__

    def __neg__(self) -> Dual:
        return Dual(-self.primal, -self.tangent)

    def __sub__(self, other: Any) -> Dual:
        other = _promote(other)
        return Dual(self.primal - other.primal, self.tangent - other.tangent)

    def __rsub__(self, other: Any) -> Dual:
        return _promote(other) - self

    def __mul__(self, other: Any) -> Dual:
        if isinstance(other, float):
            return Dual(self.primal * other, self.tangent * other)
        other = _promote(other)
        return Dual(self.primal * other.primal, self.primal * other.tangent + self.tangent * other.primal)

    __rmul__ = __mul__

    def reshape(self, *shape: Any) -> Dual:
        """The same numbers in another shape."""
        return Dual(self.primal.reshape(*shape), self.tangent.reshape(*shape))

    def sum(self, axis: tuple[int, ...], keepdims: bool = True) -> Dual:
        """Sum over the axes."""
        return Dual(self.primal.sum(axis=axis, keepdims=keepdims), self.tangent.sum(axis=axis, keepdims=keepdims))

    def mean(self, axis: tuple[int, ...], keepdims: bool = True) -> Dual:
        """Mean over the axes."""
        return Dual(self.primal.mean(axis=axis, keepdims=keepdims), self.tangent.mean(axis=axis, keepdims=keepdims))

    def rsqrt(self, eps: Any) -> Dual:
        """r = 1/sqrt(self + eps), and its derivative -r³/2."""
        root = rsqrt(self.primal, eps)
        return Dual(root, root * root * root * self.tangent * -0.5)

    def folded(self, mean: Any) -> Dual:
        """Charge of `x·scale + shift`, on both parts: the tangent is tx·scale - tmean·scale + …."""
        return Dual(folded(self.primal, mean.primal), folded(self.tangent, mean.tangent))

    def shifted(self, bias: Any) -> Dual:
        """Charge of a rounded shift, on both parts."""
        bias = _promote(bias)
        return Dual(shifted(self.primal, bias.primal), shifted(self.tangent, bias.tangent))

    def mean_square(self, mean: Any, axis: tuple[int, ...]) -> Dual:
        """mean(d²), and its derivative 2·mean(d·d').

        With 2·mean(d·mean'), exactly 0, for 2·mean(d·x'), as autograd of a variance has it: where d is off, that is not 0.
        """
        centred = (self.primal * self.tangent).mean(axis=axis, keepdims=True)
        uncentred = (self.primal * mean.tangent).mean(axis=axis, keepdims=True)
        return Dual(mean_square(self.primal, mean.primal, axis), (centred + uncentred) * 2.0)


def _promote(value: Any) -> Dual:
    return value if isinstance(value, Dual) else Dual(value, zero_like(value))
