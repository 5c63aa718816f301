"""LayerNorm2d and its derivatives in mpmath at 60 digits: what the reference is proven against. The two share no code.

Everything follows from one statement of the forward, `_normalised`, by differentiating it mechanically: tangents by jets
(value + slope·ε), gradients by a tape that is run backwards, second-order gradients by running the tape on jets. No derivative is
written down. The forward is written unlike the reference's too: with u = x - x₀ for the group's first value x₀,

    d = u - mean u,  var = mean u² - (mean u)²

which is the same by invariance under a shift. A constant group has d = 0 exactly, and elsewhere the subtraction loses at most a
factor n, since (mean u)² = (x₀ - mean x)² <= n·var.

Arguments are arrays or nested lists of any kind of number (float, ml_dtypes, mpf); results are NumPy arrays of mpf.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np

__all__ = ["DIGITS", "double_vjp", "forward", "jvp", "mp", "normalised", "numbers", "second_derivatives", "vjp"]

DIGITS = 60

mp = mpmath.MPContext()
"""A context of our own: nobody else's precision is touched."""
mp.dps = DIGITS

Array = np.ndarray
ZERO = mp.mpf(0)


class Jet:
    """value + slope·ε with ε² = 0."""

    __slots__ = ("slope", "value")

    def __init__(self, value: Any, slope: Any = ZERO) -> None:
        self.value = value
        self.slope = slope

    def __add__(self, other: Jet) -> Jet:
        return Jet(self.value + other.value, self.slope + other.slope)

    def __sub__(self, other: Jet) -> Jet:
        return Jet(self.value - other.value, self.slope - other.slope)

    def __neg__(self) -> Jet:
        return Jet(-self.value, -self.slope)

    def __mul__(self, other: Any) -> Jet:
        if isinstance(other, Jet):
            return Jet(self.value * other.value, self.slope * other.value + self.value * other.slope)
        return Jet(self.value * other, self.slope * other)

    def power(self, exponent: Any) -> Jet:
        return Jet(_power(self.value, exponent), _power(self.value, exponent - 1) * exponent * self.slope)


class Tape:
    """Nodes in the order in which they were made."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def node(self, number: Any) -> Node:
        return Node(self, number, ())

    def backward(self, ends: list[tuple[Node, Any]]) -> None:
        """Sets each node's `adjoint`: the gradient of the sum of seed·node over the given (node, seed); None where 0."""
        for end, seed in ends:
            end.receive(seed)
        for node in reversed(self.nodes):
            if node.adjoint is not None:
                for parent, partial in node.edges:
                    parent.receive(node.adjoint if partial is None else node.adjoint * partial)


class Node:
    """A number, mpf or Jet, and the nodes that it was made of with its partial derivative in each (None for 1)."""

    __slots__ = ("adjoint", "edges", "number", "tape")

    def __init__(self, tape: Tape, number: Any, edges: tuple[tuple[Node, Any], ...]) -> None:
        self.tape, self.number, self.edges, self.adjoint = tape, number, edges, None
        tape.nodes.append(self)

    def receive(self, adjoint: Any) -> None:
        self.adjoint = adjoint if self.adjoint is None else self.adjoint + adjoint

    def __add__(self, other: Node) -> Node:
        return Node(self.tape, self.number + other.number, ((self, None), (other, None)))

    def __sub__(self, other: Node) -> Node:
        return Node(self.tape, self.number - other.number, ((self, None), (other, mp.mpf(-1))))

    def __mul__(self, other: Any) -> Node:
        if isinstance(other, Node):
            return Node(self.tape, self.number * other.number, ((self, other.number), (other, self.number)))
        return Node(self.tape, self.number * other, ((self, other),))

    def power(self, exponent: Any) -> Node:
        value = _power(self.number, exponent)
        return Node(self.tape, value, ((self, _power(self.number, exponent - 1) * exponent),))


def _power(number: Any, exponent: Any) -> Any:
    return number.power(exponent) if isinstance(number, (Jet, Node)) else number**exponent


def _mean(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Node):
        total = Node(first.tape, _sum([node.number for node in values]), tuple((node, None) for node in values))
    else:
        total = _sum(values)
    return total * (mp.mpf(1) / len(values))


def _sum(values: list[Any]) -> Any:
    if isinstance(values[0], Jet):
        return Jet(_sum([jet.value for jet in values]), _sum([jet.slope for jet in values]))
    return mp.fsum(values)


def _normalised(group: list[Any], eps: Any) -> tuple[list[Any], Any]:
    """x̂ and 1/sqrt(var + eps) of one group, by the definition, on mpf, jets or nodes; eps is of the same kind."""
    u = [value - group[0] for value in group]
    mean = _mean(u)
    variance = _mean([value * value for value in u]) - mean * mean
    root = _power(variance + eps, mp.mpf(-0.5))
    return [(value - mean) * root for value in u], root


def numbers(array: Any) -> Array:
    """The array's values as mpf, exactly."""
    array = np.asarray(array) if isinstance(array, np.ndarray) else np.array(array, dtype=object)
    result = np.empty(array.shape, dtype=object)
    for index in np.ndindex(array.shape):
        value = array[index]
        result[index] = value if isinstance(value, mp.mpf) else mp.mpf(value if isinstance(value, int) else float(value))
    return result


def _groups(shape: tuple[int, ...], semantics: str) -> Iterator[list[tuple[int, ...]]]:
    """The indices of each group: the pixel's channels, or all of the sample."""
    n, c, h, w = shape
    if semantics == "channel":
        for i, j, k in np.ndindex(n, h, w):
            yield [(i, channel, j, k) for channel in range(c)]
    elif c * h * w:
        for i in range(n):
            yield [(i, *rest) for rest in np.ndindex(c, h, w)]


def _place(index: tuple[int, ...], parameter: Array) -> tuple[int, ...]:
    """Where x at an index finds its weight or bias."""
    return index[1:2] if parameter.ndim == 1 else index[1:]


def _mapped(function: Any, *arrays: Array | None) -> Array | None:
    """function of each element of the arrays; None where the first is None."""
    if arrays[0] is None:
        return None
    result = np.empty(arrays[0].shape, dtype=object)
    for index in np.ndindex(result.shape):
        result[index] = function(*(array[index] for array in arrays if array is not None))
    return result


def _output(x: Array, weight: Array | None, bias: Array | None, eps: Any, semantics: str) -> Array:
    """y of arrays of mpf, jets or nodes."""
    y = np.empty(x.shape, dtype=object)
    for group in _groups(x.shape, semantics):
        x_hat, _ = _normalised([x[index] for index in group], eps)
        for index, value in zip(group, x_hat, strict=True):
            if weight is not None:
                value = value * weight[_place(index, weight)]
            y[index] = value if bias is None else value + bias[_place(index, bias)]
    return y


def normalised(x: Any, eps: float, semantics: str) -> tuple[Array, Array]:
    """x̂ and, for each element, its group's 1/sqrt(var + eps)."""
    x = numbers(x)
    x_hat, roots = np.empty(x.shape, dtype=object), np.empty(x.shape, dtype=object)
    for group in _groups(x.shape, semantics):
        values, root = _normalised([x[index] for index in group], mp.mpf(eps))
        for index, value in zip(group, values, strict=True):
            x_hat[index], roots[index] = value, root
    return x_hat, roots


def forward(x: Any, weight: Any, bias: Any, eps: float, semantics: str) -> Array:
    """y."""
    x, weight, bias = (None if array is None else numbers(array) for array in (x, weight, bias))
    return _output(x, weight, bias, mp.mpf(eps), semantics)


def jvp(tx: Any, x: Any, weight: Any, bias: Any, tweight: Any, tbias: Any, eps: float, semantics: str) -> Array:
    """Tangent of y along (tx, tweight, tbias); a tangent may be None for 0."""
    jets = [_jets(array, slope) for array, slope in ((x, tx), (weight, tweight), (bias, tbias))]
    return _mapped(lambda jet: jet.slope, _output(*jets, Jet(mp.mpf(eps)), semantics))


def vjp(dy: Any, x: Any, weight: Any, bias: Any, eps: float, semantics: str) -> tuple[Array, Array | None, Array | None]:
    """Gradients of sum(dy·y) in x, weight and bias; None for a parameter that is None."""
    given = [None if array is None else numbers(array) for array in (x, weight, bias)]
    return _gradients(numbers(dy), given, mp.mpf(eps), semantics, ZERO)


def double_vjp(
    cx: Any, cweight: Any, cbias: Any, dy: Any, x: Any, weight: Any, bias: Any, eps: float, semantics: str
) -> tuple[Array, Array, Array | None]:
    """Gradients of sum(cx·dx) + sum(cweight·dweight) + sum(cbias·dbias) in dy, x and weight.

    That sum is the derivative of sum(dy·y) along (cx, cweight, cbias). Its gradient in dy is the derivative of y, and its gradients
    in x and weight are the derivatives of dx and dweight, since second derivatives commute.
    """
    given = [_jets(array, slope) for array, slope in ((x, cx), (weight, cweight), (bias, cbias))]
    gradients = _gradients(_jets(dy, None), given, Jet(mp.mpf(eps)), semantics, Jet(ZERO))
    on_x, on_weight, _ = (_mapped(lambda jet: jet.slope, array) for array in gradients)
    return jvp(cx, x, weight, bias, cweight, cbias, eps, semantics), on_x, on_weight


def second_derivatives(
    along: dict[str, Any], then: dict[str, Any], dy: Any, x: Any, weight: Any, bias: Any, eps: float, semantics: str
) -> dict[str, Array | None]:
    """Derivatives along `then` of the derivatives along `along` of y and of its gradients in x and weight: jets of jets.

    The directions are given by argument; one that is absent is 0.
    """

    def nested(array: Any, first: Any, second: Any) -> Array | None:
        if array is None:
            return None
        zeros = np.zeros(np.shape(array))
        parts = [numbers(zeros if part is None else part) for part in (array, first, second)]
        return _mapped(lambda value, slope, other: Jet(Jet(value, slope), Jet(other)), *parts)

    named = {"x": x, "weight": weight, "bias": bias}
    given = [nested(array, along.get(name), then.get(name)) for name, array in named.items()]
    zero = Jet(Jet(ZERO), Jet(ZERO))
    constant_eps = Jet(Jet(mp.mpf(eps)), Jet(ZERO))
    y = _output(*given, constant_eps, semantics)
    on_x, on_weight, _ = _gradients(nested(dy, None, None), given, constant_eps, semantics, zero)
    return {name: _mapped(lambda jet: jet.slope.slope, array) for name, array in (("y", y), ("x", on_x), ("weight", on_weight))}


def _jets(array: Any, slope: Any) -> Array | None:
    if array is None:
        return None
    return _mapped(Jet, numbers(array)) if slope is None else _mapped(Jet, numbers(array), numbers(slope))


def _gradients(dy: Array, given: list[Array | None], eps: Any, semantics: str, zero: Any) -> tuple[Array, Array | None, Array | None]:
    tape = Tape()
    leaves = [_mapped(tape.node, array) for array in given]
    y = _output(*leaves, tape.node(eps), semantics)
    tape.backward([(y[index], dy[index]) for index in np.ndindex(y.shape)])
    x, weight, bias = (_mapped(lambda leaf: zero if leaf.adjoint is None else leaf.adjoint, array) for array in leaves)
    return x, weight, bias
