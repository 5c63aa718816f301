"""One test for each law: Hypothesis draws cases within the implementation's contract, and the law is judged on each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from strategies.search import law_cases

DATA = st.data()


def examine(examiner, data) -> None:
    case, _ = data.draw(law_cases(examiner.implementation, examiner.laws[0].name))
    if not examiner.enough:  # asked after drawing: Hypothesis wants the same draws whatever has been seen
        examiner.examine(case)


@given(data=DATA)
def test_result(implementation, examiner, data):
    """A valid call returns one tensor of x's shape, dtype and device, and each gradient has its argument's."""
    examine(examiner, data)


@given(data=DATA)
def test_value(implementation, examiner, data):
    """y lies within its bound."""
    examine(examiner, data)


@given(data=DATA)
def test_gradients(implementation, examiner, data):
    """dx, dweight and dbias lie within their bounds, for every subset that requires grad."""
    examine(examiner, data)


@given(data=DATA)
def test_special_values(implementation, examiner, data):
    """NaN and infinity stay in their group, and fill it."""
    examine(examiner, data)


@given(data=DATA)
def test_degenerate(implementation, examiner, data):
    """Empty tensors and one-element groups give what the mathematics says, exactly."""
    examine(examiner, data)


@given(data=DATA)
def test_layout(implementation, examiner, data):
    """Values do not depend on strides or offsets, and memory around the elements is neither read nor written."""
    examine(examiner, data)


@given(data=DATA)
def test_side_effects(implementation, examiner, data):
    """Arguments, memory of earlier results and global state stay as they were."""
    examine(examiner, data)


@given(data=DATA)
def test_history(implementation, examiner, data):
    """The same call gives the same again, and an overwritten argument's new values count."""
    examine(examiner, data)


@given(data=DATA)
def test_derivatives(implementation, examiner, data):
    """Higher derivatives, forward mode and vmap are right, or refused with an exception."""
    examine(examiner, data)
