"""One test for each law: Hypothesis draws cases within the implementation's contract, and the law is judged on each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from strategies.search import law_cases

DATA = st.data()


def examine(examiner, data) -> None:
    case, _ = data.draw(law_cases(examiner.implementation, examiner.laws[0].name))
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
    """The same call gives the same again and beside others, and gradients belong to the values at the time of the call."""
    examine(examiner, data)


@given(data=DATA)
def test_independence(implementation, examiner, data):
    """No group's values reach another group, and no bias's another channel, even where they overflow."""
    examine(examiner, data)


@given(data=DATA)
def test_modes(implementation, examiner, data):
    """no_grad, inference_mode, autocast and float32 parameters beside half inputs leave y right."""
    examine(examiner, data)


@given(data=DATA)
def test_bad_arguments(implementation, examiner, data):
    """What is no call of a LayerNorm2d raises an exception that says so."""
    examine(examiner, data)


@given(data=DATA)
def test_batch_invariance(implementation, examiner, data):
    """Opt-in: a sample has the same bits alone and in any batch."""
    examine(examiner, data)


@given(data=DATA)
def test_extreme_range(implementation, examiner, data):
    """Opt-in: y and the parameters' gradients are right also where squares overflow."""
    examine(examiner, data)
