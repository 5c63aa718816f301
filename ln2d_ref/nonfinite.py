"""Which results must be NaN or infinite, given which arguments are."""

from __future__ import annotations

import numpy as np

from .expectation import BOUNDED, NAN, NONFINITE
from .inputs import Inputs, either

__all__ = ["bias_infinity", "gradient_rules", "y_rule"]

Array = np.ndarray


def y_rule(inputs: Inputs) -> Array | None:
    """NaN in groups with a non-finite x and where bias is NaN; non-finite where weight is."""
    if not inputs.nonfinite.keys() & {"x", "weight", "bias"}:
        return None
    rule = np.zeros(inputs.x_shape, np.uint8)
    rule[np.broadcast_to(inputs.bad("weight"), inputs.x_shape)] = NONFINITE
    if "bias" in inputs.nonfinite:
        rule[np.broadcast_to(np.isnan(inputs.arrays["bias"]), inputs.x_shape) & (rule == BOUNDED)] = NAN
    rule[np.broadcast_to(inputs.bad_group("x"), inputs.x_shape)] = NAN
    return rule


def bias_infinity(inputs: Inputs) -> Array | None:
    """Where an infinite bias alone decides y."""
    if "bias" not in inputs.nonfinite:
        return None
    rule = y_rule(inputs)
    return np.broadcast_to(np.isinf(inputs.arrays["bias"]), inputs.x_shape) & (rule == BOUNDED)


def gradient_rules(inputs: Inputs) -> dict[str, Array | None]:
    """dx: NaN in groups with a non-finite x, non-finite where a weight or dy of the group is; dweight and dbias: where a term is."""
    rules: dict[str, Array | None] = {"dx": None, "dweight": None, "dbias": None}
    if inputs.nonfinite.keys() & {"x", "weight", "dy"}:
        rule = np.zeros(inputs.x_shape, np.uint8)
        rule[np.broadcast_to(inputs.bad_group("weight", "dy"), inputs.x_shape)] = NONFINITE
        rule[np.broadcast_to(inputs.bad_group("x"), inputs.x_shape)] = NAN
        rules["dx"] = rule
    for name, argument, terms in (
        ("dweight", "weight", either(inputs.bad("dy"), inputs.bad_group("x"))),
        ("dbias", "bias", inputs.bad("dy")),
    ):
        if argument in inputs.given and terms is not False:
            everywhere = np.broadcast_to(terms, inputs.x_shape).any(axis=inputs.affine(argument), keepdims=True)
            rules[name] = np.where(everywhere, NONFINITE, BOUNDED)
    return rules
