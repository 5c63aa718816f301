"""One test for each law: Hypothesis draws cases within the implementation's contract, and the law is judged on each."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.search import law_cases
from strategies.signatures import rounds_for

DATA = st.data()


def examine(examiner, data, rotation) -> None:
    rounds = rounds_for(settings.default.max_examples)
    case = data.draw(law_cases(examiner.implementation, examiner.laws[0].name, rotation=rotation, rounds=rounds))
    if not examiner.enough:  # asked after drawing: Hypothesis wants the same draws whatever has been seen
        examiner.examine(case)


@given(data=DATA)
def test_result(implementation, examiner, rotation, data):
    """A valid call returns one tensor of x's shape, dtype and device, and each gradient has its argument's."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_value(implementation, examiner, rotation, data):
    """y lies within its bound."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_gradients(implementation, examiner, rotation, data):
    """dx, dweight and dbias lie within their bounds, for every subset that requires grad."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_special_values(implementation, examiner, rotation, data):
    """NaN and infinity stay in their group, and fill it."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_degenerate(implementation, examiner, rotation, data):
    """Empty tensors and one-element groups give what the mathematics says, exactly."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_layout(implementation, examiner, rotation, data):
    """Values do not depend on strides or offsets, and memory around the elements is neither read nor written."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_side_effects(implementation, examiner, rotation, data):
    """Arguments, memory of earlier results and global state stay as they were."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_history(implementation, examiner, rotation, data):
    """The same call gives the same again and beside others, and gradients belong to the values at the time of the call."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_independence(implementation, examiner, rotation, data):
    """No group's values reach another group, and no bias's another channel, even where they overflow."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_modes(implementation, examiner, rotation, data):
    """no_grad, inference_mode, autocast and float32 parameters beside half inputs leave y right; so do another stream and a CUDA graph."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_derivatives(implementation, examiner, rotation, data):
    """Higher derivatives, forward mode and vmap are right, or refused with an exception."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_bad_arguments(implementation, examiner, rotation, data):
    """What is no call of a LayerNorm2d raises an exception that says so."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_module(implementation, examiner, rotation, data):
    """An nn.Module class keeps its promises: state_dict, copies, casts, modes, functional_call, meta, repr, exports."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_batch_invariance(implementation, examiner, rotation, data):
    """Opt-in: a sample has the same bits alone and in any batch."""
    examine(examiner, data, rotation)


@given(data=DATA)
def test_extreme_range(implementation, examiner, rotation, data):
    """Opt-in: y and the parameters' gradients are right also where squares overflow."""
    examine(examiner, data, rotation)
