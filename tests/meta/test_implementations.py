"""Getting hold of an implementation: every way that works, and what each mistake says."""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ln2d_ref import Case, Implementation, load
from ln2d_ref import check as check_all
from ln2d_ref.implementations import REGISTERED, as_implementation, executor_for, unavailable


def check(implementation: object, case: Case) -> None:
    """By the laws on y and first gradients: PyTorch's higher derivatives have faults, which the ledger knows and `check` does not."""
    check_all(implementation, case, laws=("result", "value", "gradients", "layout", "side_effects", "history"))


SOURCE = """
    import torch
    from torch.nn.functional import layer_norm

    from ln2d_ref import Implementation


    def right(x, weight, bias, eps):
        return layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), weight, bias, eps).permute(0, 3, 1, 2)


    class Both(torch.nn.Module):
        def __init__(self, channels, eps):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(channels))
            self.bias = torch.nn.Parameter(torch.zeros(channels))
            self.eps = eps

        def forward(self, x):
            return right(x, self.weight, self.bias, self.eps)


    class Weight(torch.nn.Module):
        def __init__(self, channels, eps):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(channels))
            self.eps = eps

        def forward(self, x):
            return right(x, self.weight, None, self.eps)


    class Bare(torch.nn.Module):
        def __init__(self, channels, eps):
            super().__init__()
            self.eps = eps

        def forward(self, x):
            return right(x, None, None, self.eps)


    class GammaBeta(torch.nn.Module):
        def __init__(self, channels, eps):
            super().__init__()
            self.gamma = torch.nn.Parameter(torch.ones(channels))
            self.beta = torch.nn.Parameter(torch.zeros(channels))


    class Unbuildable(torch.nn.Module):
        def __init__(self, shape):
            super().__init__()


    class Plain:
        def __call__(self, x, weight, bias, eps):
            return right(x, weight, bias, eps)


    class Holder:
        inner = staticmethod(right)


    declared = Implementation(right, name="mine", dtypes=("float32",), eps=1e-3)
    sampled = Implementation(right, name="sampled", semantics="sample")
    unnamed = Implementation(right)
    coarse = Implementation(right, arithmetic="input")
    whole = Implementation(torch.nn.LayerNorm, semantics="sample", affine_shape="element")
    graph = Implementation(torch.nn.LayerNorm, semantics="sample", affine_shape="element", framework="compile")
    instance = Both(4, 1e-5)
    called = Plain()
    number = 3
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a file that holds one of everything."""
    path = tmp_path_factory.mktemp("user") / "my_norms.py"
    path.write_text(textwrap.dedent(SOURCE), encoding="utf-8")
    return str(path)


def a_case(affine: str = "both", semantics: str = "channel", shape: str = "channel", eps: float = 1e-5) -> Case:
    """A small case of normal data that every right implementation passes."""
    rng = np.random.Generator(np.random.PCG64(5))
    parameter = (3, 2, 4) if shape == "element" else (3,)
    weight, bias = (rng.standard_normal(parameter).astype(np.float32) for _ in range(2))
    return Case(
        rng.standard_normal((2, 3, 2, 4)).astype(np.float32),
        weight if affine in ("both", "weight") else None,
        bias if affine in ("both", "bias") else None,
        rng.standard_normal((2, 3, 2, 4)).astype(np.float32),
        eps=eps,
        semantics=semantics,
    )


@pytest.mark.parametrize("name", REGISTERED)
def test_every_registered_name_loads_and_runs(name: str) -> None:
    """What is listed to the user must be there; unpermuted is there to show that PyTorch refuses it."""
    if name.startswith("triton/"):
        pytest.importorskip("triton", reason="Triton is not installed")
    implementation = load(name)
    assert implementation.name == name
    assert implementation.source == name
    assert implementation.framework == {"triton": "torch", "cuda": "torch"}.get(place := name.partition("/")[0], place)
    if (reason := unavailable(implementation)) is not None:
        pytest.skip(reason)
    affine = "none" if name == "torch/unpermuted" else "both"
    case = a_case(affine, implementation.semantics, implementation.affine_shape)
    check(implementation, replace(case, device=implementation.devices[0]))


def test_a_function_in_a_file_loads(file: str) -> None:
    """A bare function gets the fullest contract, and a source that finds it again from any folder."""
    implementation = load(f"{file}:right")
    assert implementation.name == f"{file}:right"
    assert implementation.source == f"{Path(file).resolve()}:right"
    assert (implementation.semantics, implementation.framework) == ("channel", "torch")
    check(implementation, a_case())
    assert load(f"{file}:Holder.inner").fn is load(f"{file}:right").fn


def test_a_relative_path_loads_and_remembers_the_whole_one(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reproducing script runs elsewhere."""
    monkeypatch.chdir(Path(file).parent)
    assert load("my_norms.py:right").source == f"{Path(file).resolve()}:right"


def test_a_function_in_a_module_loads() -> None:
    """package.module:attribute, and any callable will do."""
    implementation = load("ln2d_ref.implementations.eager:permute")
    assert implementation.source == "ln2d_ref.implementations.eager:permute"
    check(implementation, a_case())


def test_a_callable_object_loads(file: str) -> None:
    """fn need not be a function."""
    check(load(f"{file}:called"), a_case())


@pytest.mark.parametrize(("cls", "affine"), [("Both", "both"), ("Weight", "weight"), ("Bare", "none")])
def test_a_module_class_is_judged_with_the_parameters_that_it_has(file: str, cls: str, affine: str) -> None:
    """Its weight and bias are replaced by the case's, so that the gradients are judged too."""
    implementation = load(f"{file}:{cls}")
    assert implementation.affine == (affine,)
    case = a_case(affine)
    executor = executor_for(implementation)
    outcome = executor.run(executor.place(case))
    assert outcome.raised is None
    assert set(outcome.results) == set(case.quantities)
    check(implementation, case)


def test_a_module_class_gets_the_eps_and_channels_of_the_case(file: str) -> None:
    """Built once with the wrong ones, it would be judged for a fault of ours."""
    implementation = load(f"{file}:Both")
    x, ones, zeros = torch.zeros(1, 5, 1, 1), torch.ones(5), torch.zeros(5)
    x[0, 0] = 1.0
    near, far = implementation.fn(x, ones, zeros, 1e-5), implementation.fn(x, ones, zeros, 1.0)
    assert near.abs().max() > 1.9 > 0.9 > far.abs().max()


def test_a_module_class_with_other_parameters_is_refused(file: str) -> None:
    """gamma would keep its initial value, and every case with a weight would be a false alarm."""
    with pytest.raises(TypeError, match="GammaBeta has parameters beta, gamma, but may have weight and bias only"):
        load(f"{file}:GammaBeta")


def test_a_module_class_that_cannot_be_built_is_refused(file: str) -> None:
    """The text says how it was called and what it raised."""
    with pytest.raises(TypeError, match=r"Unbuildable\(4, eps=1e-05\) raises TypeError: .*eps"):
        load(f"{file}:Unbuildable")


def test_a_module_object_is_refused(file: str) -> None:
    """It has one number of channels; its class has all."""
    with pytest.raises(TypeError, match=r"Both object is an nn.Module.*give its class"):
        load(f"{file}:instance")
    with pytest.raises(TypeError, match=r"LayerNorm object is an nn.Module"):
        as_implementation(torch.nn.LayerNorm(4))


def test_a_declared_module_object_is_refused() -> None:
    """Its sizes are fixed as well."""
    with pytest.raises(TypeError, match=r"LayerNorm object is an nn\.Module, whose sizes are fixed"):
        as_implementation(Implementation(torch.nn.LayerNorm(3)))


def test_a_class_that_is_no_module_is_refused(file: str) -> None:
    """Calling it would build an object, not normalise."""
    with pytest.raises(TypeError, match="Plain is a class, but must be a callable"):
        load(f"{file}:Plain")


def test_a_declared_implementation_keeps_what_it_declares(file: str) -> None:
    """Loading adds the source and changes nothing else."""
    assert as_implementation(Implementation(max, name="max"), name="other").name == "max"
    implementation = load(f"{file}:declared")
    assert (implementation.name, implementation.dtypes, implementation.eps) == ("mine", ("float32",), 1e-3)
    assert implementation.source == f"{Path(file).resolve()}:declared"
    check(implementation, a_case(eps=1e-3))


def test_a_declared_implementation_without_a_name_has_that_of_its_place(file: str) -> None:
    """Two of one function would write to one folder."""
    assert [load(f"{file}:{each}").name for each in ("unnamed", "coarse")] == [f"{file}:unnamed", f"{file}:coarse"]


def test_a_module_class_of_whole_samples_is_built_for_each_shape(file: str) -> None:
    """nn.LayerNorm((C, H, W)) itself; a graph of it would be one of a single shape."""
    implementation = load(f"{file}:whole")
    check(implementation, a_case(semantics="sample", shape="element"))
    check_all(implementation, a_case(semantics="sample", shape="element"), laws="module")
    assert implementation.affine == ("both",)
    with pytest.raises(ValueError, match=r"a class: with parameters of shape \(C, H, W\)"):
        load(f"{file}:graph")


def test_an_implementation_is_an_implementation() -> None:
    """as_implementation takes what load gives, names, and bare callables alike."""
    implementation = load("torch/group_norm")
    assert as_implementation(implementation) == implementation
    assert as_implementation("torch/group_norm") == implementation
    assert as_implementation(implementation.fn, semantics="sample").semantics == "sample"


@pytest.mark.parametrize("name", ["torch/permutation", "permute", "", ":right", "torch"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    """The one who mistypes sees what there is to type."""
    with pytest.raises(ValueError, match=re.escape(f"implementation is {name!r}")) as caught:
        load(name)
    assert all(known in str(caught.value) for known in (*REGISTERED, "package.module:attribute", "path/to/file.py:attribute"))


def test_a_folder_is_named(tmp_path: Path) -> None:
    """With an attribute or without."""
    for name in (str(tmp_path), f"{tmp_path}:right"):
        with pytest.raises(ValueError, match=re.escape(f"implementation is {name!r}, a folder, but must be path/to/file.py:attribute")):
            load(name)


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """The path is the likeliest mistake."""
    with pytest.raises(ImportError, match=re.escape(f"{tmp_path}/nothing.py does not exist")):
        load(f"{tmp_path}/nothing.py:right")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ImportError, match=re.escape(f"{tmp_path}/folder.py does not exist")):
        load(f"{tmp_path}/folder.py:right")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def right(x, weight bias):", "SyntaxError: invalid syntax"),
        ("import a_kernel_library_of_mine", "ModuleNotFoundError: No module named 'a_kernel_library_of_mine'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_file_that_does_not_import_is_named_with_its_error(source: str, error: str, tmp_path: Path) -> None:
    """It is the user's file: the text has to say which, and what is wrong in it."""
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(ImportError, match=re.escape(f"{path} does not import: {error}")) as caught:
        load(f"{path}:right")
    assert caught.value.__cause__ is not None


def test_a_module_that_does_not_import_is_named_with_its_error() -> None:
    """As for a file."""
    with pytest.raises(ImportError, match=r"nowhere.norms does not import: ModuleNotFoundError: No module named 'nowhere'"):
        load("nowhere.norms:right")


@pytest.mark.parametrize("attribute", ["wrong", "right.inner", "Holder.outer"])
def test_a_missing_attribute_is_named_with_those_that_exist(file: str, attribute: str) -> None:
    """The likeliest mistake after the path."""
    with pytest.raises(AttributeError, match=re.escape(f"{file} has no attribute {attribute!r}; it has ")) as caught:
        load(f"{file}:{attribute}")
    assert "right" in str(caught.value)


def test_an_attribute_that_cannot_be_called_is_refused(file: str) -> None:
    """The text says what it is, and what it should be."""
    with pytest.raises(TypeError, match=r"number: 3 is not callable; it must be a callable fn\(x, weight, bias, eps\)"):
        load(f"{file}:number")
    with pytest.raises(TypeError, match="None is not callable"):
        as_implementation(None)


@pytest.mark.parametrize(("declared", "asked"), [("torch/permute", "sample"), ("torch/group_norm", "channel")])
def test_a_semantics_that_contradicts_is_refused(declared: str, asked: str) -> None:
    """Judged by the other semantics, a right implementation is wrong everywhere."""
    assert load(declared, semantics=load(declared).semantics) == load(declared)
    with pytest.raises(ValueError, match=f"semantics is '{asked}', but {declared} is declared"):
        load(declared, semantics=asked)


def test_a_semantics_that_contradicts_a_declared_attribute_is_refused(file: str) -> None:
    """The same for an Implementation in a file; a bare function takes either."""
    with pytest.raises(ValueError, match="semantics is 'channel', but sampled is declared 'sample'"):
        load(f"{file}:sampled", semantics="channel")
    assert load(f"{file}:right", semantics="sample").semantics == "sample"
    assert load(f"{file}:Both", semantics="sample").semantics == "sample"


@pytest.mark.parametrize("attribute", ["right", "Both", "declared"])
def test_a_semantics_that_does_not_exist_is_refused(file: str, attribute: str) -> None:
    """It is named."""
    with pytest.raises(ValueError, match="semantics is 'pixel'"):
        load(f"{file}:{attribute}", semantics="pixel")


def test_a_device_that_a_declared_implementation_excludes_is_refused(file: str) -> None:
    """A bare function goes where it is sent; a declaration holds."""
    assert load(f"{file}:right", device="cuda").devices == ("cuda",)
    assert load("torch/permute", device="cuda").devices == ("cuda",)
    with pytest.raises(ValueError, match="device is 'cuda', but mine is declared for cpu"):
        load(f"{file}:declared", device="cuda")
    with pytest.raises(ValueError, match="device is 'cuda', but numpy/reference is declared for cpu"):
        load("numpy/reference", device="cuda")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"semantics": "pixel"}, "semantics is 'pixel', but must be one of 'channel', 'sample'"),
        ({"affine_shape": "element"}, "affine_shape is 'element', but must be 'channel' in channel semantics"),
        ({"eps": "1e-6"}, "eps is '1e-6', but must be None or a finite number >= 0"),
        ({"deterministic": "no"}, "deterministic is 'no', but must be True or False"),
        ({"affine_shape": "row", "semantics": "sample"}, "affine_shape is 'row', but must be 'channel' or 'element'"),
        ({"affine": ()}, r"affine is \(\), but must be one or more of 'both'"),
        ({"affine": "all"}, r"affine is \('all',\), but must be one or more of 'both'"),
        ({"dtypes": ("float32", "int8")}, "dtypes is .*'int8'.*, but must be one or more of 'float16'"),
        (
            {"builds_on": "torch/group_norm"},
            r"builds_on is \('torch/group_norm',\), but in channel semantics must be one or more of 'torch/permute', ",
        ),
        ({"devices": "tpu"}, r"devices is \('tpu',\), but must be one or more of 'cpu', 'cuda'"),
        ({"arithmetic": "float8"}, "arithmetic is 'float8', but must be 'float32' or 'input'"),
        ({"framework": "tensorflow"}, "framework is 'tensorflow', but must be 'torch' or "),
        ({"eps": -1.0}, "eps is -1.0, but must be None or a finite number >= 0"),
        ({"eps": float("nan")}, "eps is nan, but must be None or a finite number >= 0"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(declared: dict, message: str) -> None:
    """Accepted, it would turn up later as a false alarm or as a case that nobody judges."""
    with pytest.raises(ValueError, match=message):
        Implementation(lambda x, weight, bias, eps: x, **declared)


def test_what_cannot_be_called_is_no_implementation() -> None:
    """TypeError at once, with the signature."""
    with pytest.raises(TypeError, match=r"fn is 3, but must be callable as fn\(x, weight, bias, eps\)"):
        Implementation(3)  # type: ignore[arg-type]


def test_one_name_is_as_good_as_a_tuple_of_one() -> None:
    """Declarations are written by hand."""
    implementation = Implementation(lambda x, weight, bias, eps: x, dtypes="float32", affine="both", devices="cuda")
    assert (implementation.dtypes, implementation.affine, implementation.devices) == (("float32",), ("both",), ("cuda",))
