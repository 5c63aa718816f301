"""A Case is plain data: there and back bit for bit, frozen, short to print, and loud about a file that is not one."""

from __future__ import annotations

import ast
import base64
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import ln2d_ref
from ln2d_ref import Case
from ln2d_ref import case as case_module
from ln2d_ref.dtypes import DTYPES
from ln2d_ref.implementations import module_steps
from ln2d_ref.layout import Layout
from strategies import cases

CHANNELS_LAST = Layout(order=(0, 2, 3, 1))
quick = settings(deadline=None, database=None, derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck))


def any_bits(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    """Random bit patterns, with the corners among them: -0.0, infinities, and NaNs of several payloads, signalling ones too."""
    row = DTYPES[dtype]
    unsigned = np.dtype(f"u{row.numpy.itemsize}")
    count = int(np.prod(shape))
    patterns = np.frombuffer(np.random.Generator(np.random.PCG64(seed)).bytes(count * unsigned.itemsize), unsigned).copy()
    infinity = int(np.array(np.inf, row.numpy).view(unsigned))
    sign = 1 << (8 * unsigned.itemsize - 1)
    corners = [sign, infinity, infinity | sign, infinity + 1, infinity + 5, infinity | sign | 3, 2 * sign - 1, 1]
    patterns[: len(corners)] = corners[:count]
    return patterns.view(row.numpy).reshape(shape)


def a_case(dtype: str = "float32", **changed: Any) -> Case:
    """A case that uses every field."""
    arguments = {
        "x": any_bits(dtype, 2, 3, 2, 4),
        "weight": any_bits(dtype, 3, seed=1),
        "bias": any_bits(dtype, 3, seed=2),
        "dy": any_bits(dtype, 2, 3, 2, 4, seed=3),
        "eps": 1e-7 / 3,
        "layouts": {"x": CHANNELS_LAST, "weight": Layout(steps=(2,), offset=3), "dy": Layout(order=(3, 2, 1, 0))},
        "requires_grad": ("x", "bias"),
        "threads": 2,
        "regime": "offset",
    }
    return Case(**{**arguments, **changed})


def differences(a: Case, b: Case) -> list[str]:
    """Names of the fields in which two cases differ, arrays by their bits."""
    names = [name for name in vars(a) if name not in case_module.ARGUMENTS and getattr(a, name) != getattr(b, name)]
    for name in case_module.ARGUMENTS:
        one, other = getattr(a, name), getattr(b, name)
        if (one is None) != (other is None) or (
            one is not None and (one.dtype, one.shape, one.tobytes()) != (other.dtype, other.shape, other.tobytes())
        ):
            names.append(name)
    return names


def reloaded(case: Case, folder: Path) -> Case:
    case.save(folder / "case.json")
    return Case.load(folder / "case.json")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_file_holds_every_bit(dtype: str, tmp_path: Path) -> None:
    """Arrays are stored as the base64 of their bytes: no decimal is ever rounded, no NaN loses its payload, no zero its sign."""
    case = a_case(dtype)
    with np.errstate(invalid="ignore"):  # ml_dtypes reports a signalling NaN
        assert np.isnan(case.x).sum() >= 4
    assert differences(case, reloaded(case, tmp_path)) == []


@quick
@given(cases(max_elements=256))
def test_any_case_comes_back(tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    """What the strategies draw is what is written when it fails."""
    assert differences(case, reloaded(case, tmp_path_factory.getbasetemp())) == []
    assert differences(case, Case.from_dict(json.loads(json.dumps(case.to_dict())))) == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_its_text_is_an_expression_that_makes_it_again(dtype: str) -> None:
    """A reproducing script holds str(case) and needs no file."""
    case = a_case(dtype)
    assert differences(case, eval(str(case), {"Case": Case})) == []
    sparse = Case(any_bits(dtype, 1, 2, 1, 1))
    assert differences(sparse, eval(str(sparse), {"Case": Case})) == []


def test_differences_are_seen() -> None:
    """Twin of the three above: one bit, one sign of zero, one field are each a difference."""
    case = a_case("float16")
    flipped = case.x.view("u2").copy()
    flipped[1, 1, 1, 1] ^= 1
    assert differences(case, replace(case, x=flipped.view(np.float16))) == ["x"]
    assert differences(Case(np.zeros((1, 2, 1, 1))), Case(-np.zeros((1, 2, 1, 1)))) == ["x"]
    assert differences(case, replace(case, bias=None, requires_grad=("x",))) == ["requires_grad", "bias"]
    assert differences(case, replace(case, eps=1e-7)) == ["eps"]
    assert differences(case, case.densely()) == ["layouts"]


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)])
def test_an_empty_case_comes_back(shape: tuple[int, ...], tmp_path: Path) -> None:
    """The base64 of nothing is nothing, and the shape says how it is empty."""
    case = Case(np.empty(shape, np.float32), weight=np.ones(2, np.float32))
    back = reloaded(case, tmp_path)
    assert back.x.shape == shape
    assert differences(case, back) == []


def test_a_strided_array_is_taken_by_value() -> None:
    """Memory order of the given array says nothing: layouts do."""
    array = any_bits("float32", 3, 2, 4, 2).transpose(1, 0, 3, 2)[:, :, ::-1]
    case = Case(array)
    assert np.array_equal(case.x.view("u4"), np.ascontiguousarray(array).view("u4"))
    assert differences(case, Case.from_dict(case.to_dict())) == []


def test_the_short_form_is_short_and_holds_no_values() -> None:
    """It is printed in failures and lists; an array in it would bury them."""
    big = Case(
        np.full((64, 32, 16, 16), 0.123456, np.float32),
        weight=np.full(32, 0.123456, np.float32),
        bias=np.full(32, 0.123456, np.float32),
        layouts=dict.fromkeys(("x", "dy"), Layout((3, 2, 1, 0), (1, 3, 1, 1), 64)),
        semantics="sample",
        regime="near_constant",
    )
    assert len(repr(big)) < 200
    assert "0.123" not in repr(big)
    assert "float32[64,32,16,16] order 3210 steps 1,3,1,1 offset 64" in repr(big)
    assert repr(a_case("bfloat16", layouts={"x": CHANNELS_LAST})) == (
        "Case(bfloat16[2,3,2,4] channels_last, weight=bfloat16[3], bias=bfloat16[3], eps=3.33333e-08, channel, offset)"
    )


Change = Callable[[dict[str, Any]], Any]


def _with(**changed: Any) -> Change:
    return lambda data: {**data, **changed}


def _without(name: str) -> Change:
    return lambda data: {key: value for key, value in data.items() if key != name}


def _with_x(**changed: Any) -> Change:
    return lambda data: {**data, "arrays": {**data["arrays"], "x": {**data["arrays"]["x"], **changed}}}


def _encoded(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


BROKEN: dict[str, tuple[Change, str]] = {
    "a list": (lambda data: [data], "format"),
    "a number": (lambda data: 3, "format"),
    "another format": (_with(format="onnx.model"), "format"),
    "no format": (_without("format"), "format"),
    "an unknown version": (_with(version=2), "version is 2"),
    "no version": (_without("version"), "version is None"),
    "a missing field": (_without("eps"), "fields are .* must be .*eps"),
    "a field too many": (_with(comment="hello"), "fields are .*comment"),
    "no x": (lambda data: {**data, "arrays": {}}, "x"),
    "an unknown argument": (lambda data: {**data, "arrays": {**data["arrays"], "gamma": data["arrays"]["x"]}}, "gamma"),
    "an invalid dtype": (_with_x(dtype="int32"), "x has dtype 'int32'"),
    "an object dtype": (_with_x(dtype="O"), "x has dtype 'O'"),
    "a truncated array": (_with_x(data=_encoded(np.zeros(47, np.float32))), "x is truncated: 188 bytes, but 192"),
    "an oversized array": (_with_x(data=_encoded(np.zeros(49, np.float32))), "x is oversized: 196 bytes, but 192"),
    "not base64": (_with_x(data="!" * 256), "base64"),
    "a negative side": (_with_x(shape=[2, 3, -2, -4]), "dimension|negative"),
    "a side past 64 bits": (_with_x(shape=[10**30, 1, 1, 1]), "truncated"),
    "arrays that are no mapping": (_with(arrays=[1, 2]), "items"),
    "an array without its data": (lambda data: {**data, "arrays": {"x": {"dtype": "float32", "shape": [1, 2, 1, 1]}}}, "data"),
    "an unknown part of a layout": (_with(layouts={"x": {"pitch": 3}}), "pitch"),
    "a negative offset": (_with(layouts={"x": {"offset": -3}}), "offset is -3"),
    "a layout of nothing": (_with(layouts={"gamma": {"offset": 3}}), "gamma"),
    "eps in words": (_with(eps="small"), "eps is 'small'"),
    "a negative eps": (_with(eps=-1.0), "eps is -1.0"),
    "an unknown semantics": (_with(semantics="pixel"), "semantics is 'pixel'"),
}


def refusal(path: Path) -> str:
    """Text of the ValueError that loading raises."""
    with pytest.raises(ValueError, match="case file") as caught:
        Case.load(path)
    return str(caught.value)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """Files are edited, cut off and mixed up: each fault is a ValueError that names the file and the fault, never another case."""
    change, message = BROKEN[name]
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(change(a_case().to_dict())))
    with pytest.raises(ValueError, match=message) as caught:
        Case.load(path)
    assert str(path) in str(caught.value)


def test_an_unbroken_file_is_not_refused(tmp_path: Path) -> None:
    """Twin of the one above: the same way of writing, without a change, loads."""
    path = tmp_path / "whole.json"
    path.write_text(json.dumps(a_case().to_dict()))
    assert differences(Case.load(path), a_case()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"not JSON", b"{", b"\x89PNG\r\n", b"\xff\xfe\x00", pickle.dumps([1, 2])],
    ids=["empty", "text", "a brace", "a picture", "no text", "a pickle"],
)
def test_what_is_not_json_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    """The file is named, and the text says that it is no case file."""
    path = tmp_path / "other.json"
    path.write_bytes(content)
    assert f"case file {path} is truncated or not a case file" in refusal(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(share: float, tmp_path: Path) -> None:
    """A disc that was full leaves the beginning of a file, which is never valid JSON."""
    path = tmp_path / "cut.json"
    a_case().save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert f"case file {path} is truncated" in refusal(path)


def test_an_oversized_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong path must not fill the memory."""
    path = tmp_path / "big.json"
    a_case().save(path)
    monkeypatch.setattr(case_module, "LARGEST_FILE", path.stat().st_size)
    assert differences(Case.load(path), a_case()) == []
    monkeypatch.setattr(case_module, "LARGEST_FILE", path.stat().st_size - 1)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    assert f"case file {path} is oversized" in refusal(path)


class Planted:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_loading_runs_no_pickle(tmp_path: Path) -> None:
    """A case file comes from strangers; unpickling would run what they wrote. The twin shows that this one would have run."""
    harm, path = tmp_path / "harm", tmp_path / "case.json"
    path.write_bytes(pickle.dumps(Planted(harm)))
    refusal(path)
    assert not harm.exists()
    pickle.loads(path.read_bytes())
    assert harm.exists()


def test_nothing_in_ln2d_ref_imports_pickle() -> None:
    """So that no other path reads one either; but for the law `module`, which asks whether what is judged can be pickled."""
    names = set()
    for path in set(Path(ln2d_ref.__file__).parent.rglob("*.py")) - {Path(module_steps.__file__)}:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module or "")
    assert "numpy" in names
    assert not names & {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


def test_arrays_are_copied_and_read_only() -> None:
    """A case is what was judged: neither the caller nor an implementation may change it afterwards."""
    given_arrays = {name: np.ones((1, 3, 1, 2) if name in ("x", "dy") else 3, np.float32) for name in case_module.ARGUMENTS}
    case = Case(**given_arrays)
    for name, array in given_arrays.items():
        array[...] = 7.0
        assert (getattr(case, name) == 1.0).all()
        with pytest.raises(ValueError, match="read-only"):
            getattr(case, name)[...] = 7.0


def test_a_read_only_view_is_copied_too() -> None:
    """Its owner can still write to what lies under it, as with np.broadcast_to."""
    owner = np.ones((1, 3, 1, 1), np.float32)
    view = np.broadcast_to(owner, (1, 3, 1, 2))
    case = Case(view)
    owner[...] = 7.0
    assert (case.x == 1.0).all()


def test_fields_cannot_be_reassigned() -> None:
    """Frozen, for the same reason."""
    case = a_case()
    with pytest.raises(AttributeError, match="cannot assign"):
        case.eps = 1.0  # type: ignore[misc]


X = np.ones((2, 3, 2, 4), np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": np.ones((2, 3), np.float32)}, ValueError, r"x has shape \(2, 3\)"),
        ({"x": np.ones((2, 0, 2, 4), np.float32)}, ValueError, r"x has shape \(2, 0, 2, 4\)"),
        ({"weight": np.ones(4, np.float32)}, ValueError, r"weight has shape \(4,\)"),
        ({"weight": np.ones((3, 2, 4), np.float32)}, ValueError, r"weight has shape \(3, 2, 4\)"),
        ({"bias": np.ones((3, 1), np.float32)}, ValueError, r"bias has shape \(3, 1\)"),
        ({"bias": np.ones((3, 4, 2), np.float32), "semantics": "sample"}, ValueError, r"bias has shape \(3, 4, 2\)"),
        ({"dy": np.ones((2, 3, 4, 2), np.float32)}, ValueError, r"dy has shape \(2, 3, 4, 2\)"),
        ({"weight": np.ones(3, np.float64)}, TypeError, "weight has dtype float64"),
        ({"dy": X.astype(np.float16)}, TypeError, "dy has dtype float16"),
        ({"eps": -1e-5}, ValueError, "eps is -1e-05"),
        ({"eps": float("nan")}, ValueError, "eps is nan"),
        ({"semantics": "pixel"}, ValueError, "semantics is 'pixel'"),
        ({"requires_grad": ("x", "dy")}, ValueError, "requires_grad names 'dy'"),
        ({"layouts": {"y": CHANNELS_LAST}}, ValueError, "layouts names 'y'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """A case that no implementation can be right on must not reach one."""
    with pytest.raises(error, match=message):
        Case(**{"x": X, **arguments})


@pytest.mark.parametrize("name", ["x", "weight", "dy"])
def test_an_integer_array_is_refused_by_name(name: str) -> None:
    """Of four arrays, the message says which."""
    arguments = {"x": X, "weight": np.ones(3, np.float32), "dy": X}
    with pytest.raises(TypeError, match=rf"\b{name}\b.*dtype.*int64"):
        Case(**{**arguments, name: arguments[name].astype(np.int64)})


@pytest.mark.parametrize("name", ["y", "wieght", "gamma"])
def test_a_misspelled_name_in_requires_grad_is_refused(name: str) -> None:
    """Dropped in silence, it would leave a gradient unjudged."""
    with pytest.raises(ValueError, match=f"requires_grad names {name!r}"):
        Case(X, requires_grad=("x", name))


def test_absent_arguments_require_no_gradient() -> None:
    """So that the default, all three, fits every case."""
    assert Case(X).requires_grad == ("x",)
    assert Case(X, bias=np.ones(3, np.float32)).quantities == ("y", "dx", "dbias")
