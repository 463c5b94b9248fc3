"""From what the user typed to a module and its example, and all that can be wrong with it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim as TorchDim

from torch2mobile.errors import ExitCode, InputError, ModelFileError, SourceError
from torch2mobile.exporter.loading import source
from torch2mobile.records import Dim, LoadedModel, Request, Values
from torch2mobile.sample_models import SAMPLES

Write = Callable[[str, str], Path]

NET = """
import torch
from torch import nn

INPUTS = ("x:float32[N=1..8,3]",)
VALUES = ("x=uniform(0,1)",)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x)

class Outer:
    class Inner(Net):
        pass

model = Net()

def build():
    return Net()

def example_inputs():
    return (torch.full((2, 3), 0.5),)
"""
EXAMPLE_ONLY = NET.replace("INPUTS", "IGNORED")


def load(text: str, **options: Any) -> LoadedModel:
    return source.load(Request(source=text, **options), SAMPLES)


@pytest.fixture(autouse=True)
def imports_restored(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Modules of one test are not those of the next; and loading leaves sys.path as it was."""
    before, modules = list(sys.path), set(sys.modules)
    yield
    assert sys.path == before
    for name in set(sys.modules) - modules:
        if not (getattr(sys.modules[name], "__file__", "") or "").startswith(sys.prefix):
            del sys.modules[name]


# --- the forms --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("net.py:Net", "Net"),
        ("net.py:Outer.Inner", "Inner"),
        ("net.py:model", "net"),
        ("net.py:build", "net"),
        ("pkg.deep.net:Net", "Net"),
        ("pkg.deep.net:build", "net"),
        ("pkg/deep/net.py:build", "net"),
    ],
)
def test_forms(project: Write, text: str, name: str) -> None:
    project("net.py", NET)
    project("pkg/__init__.py", "")
    project("pkg/deep/__init__.py", "")
    project("pkg/deep/net.py", NET)
    loaded = load(text)
    assert loaded.name == name
    assert loaded.module(torch.zeros(1, 3)).shape == (1, 2)
    (spec,) = loaded.specs
    assert spec.dims == (Dim(symbol="N", least=1, greatest=8), Dim(size=3))
    assert spec.values == Values("uniform", 0, 1)
    assert torch.equal(loaded.tensors[0], torch.full((2, 3), 0.5))


def test_absolute_path_of_a_file(project: Write) -> None:
    assert load(f"{project('some where/net.py', NET)}:Net").name == "Net"


def test_an_instance_is_the_users_own(project: Write) -> None:
    project("net.py", NET)
    loaded = load("net.py:model")
    assert loaded.module is sys.modules["torch2mobile_source_net"].model


def test_sample() -> None:
    loaded = load("sample:super_resolution")
    assert loaded.name == "super_resolution"
    assert [spec.name for spec in loaded.specs] == ["image"]


def test_a_file_imports_its_neighbours_also_late(project: Write) -> None:
    project(
        "sub/main.py",
        "from early import INPUTS\ndef build():\n    from late import Net\n    return Net()",
    )
    project("sub/early.py", "INPUTS = 'x:float32[2]'")
    project("sub/late.py", "from torch.nn import ReLU as Net")
    assert isinstance(load("sub/main.py:build").module, nn.ReLU)


def test_a_factory_is_seeded_and_leaves_the_callers_random_state(project: Write) -> None:
    project("net.py", NET)
    before = torch.get_rng_state()
    first, second = load("net.py:build"), load("net.py:build")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.module.linear.weight, second.module.linear.weight)


# --- saved programs ---------------------------------------------------------------------------


class Sized(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.sum() + y[:, ::2]


def save_program(path: Path) -> None:
    n, w = TorchDim("n", min=1, max=8), TorchDim("w", min=2, max=9)
    shapes = ({0: n}, {0: n, 1: 2 * w})
    example = (torch.rand(3, 5), torch.rand(3, 8))
    torch.export.save(torch.export.export(Sized(), example, dynamic_shapes=shapes), path)


def test_saved_program_keeps_its_dims_and_example(tmp_path: Path) -> None:
    save_program(tmp_path / "sized.pt2")
    loaded = load(str(tmp_path / "sized.pt2"), values=("x=uniform(0,1)",))
    assert loaded.name == "sized"
    assert loaded.program is not None
    x, y = loaded.specs
    assert (x.name, y.name) == ("x", "y")
    assert x.values == Values("uniform", 0, 1)
    assert x.dims[0].symbol == y.dims[0].symbol is not None
    assert (x.dims[0].least, x.dims[0].greatest) == (1, 8)
    assert x.dims[1] == Dim(size=5)
    assert (y.dims[1].factor, y.dims[1].least, y.dims[1].greatest) == (2, 2, 9)
    assert y.dims[1].at({str(y.dims[1].symbol): 4}) == 8
    assert [tuple(tensor.shape) for tensor in loaded.tensors] == [(3, 5), (3, 8)]
    out = loaded.flat.call(torch.ones(2, 5), torch.ones(2, 4))
    assert torch.equal(out, torch.full((2, 2), 11.0))


def test_saved_program_with_data(tmp_path: Path) -> None:
    save_program(tmp_path / "sized.pt2")
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    np.savez(good, x=np.ones((2, 5), "f4"), y=np.ones((2, 6), "f4"))
    np.savez(bad, x=np.ones((2, 5), "f4"), y=np.ones((2, 7), "f4"))
    assert load(str(tmp_path / "sized.pt2"), data=(str(good),)).data[0]["y"].shape == (2, 6)
    with pytest.raises(InputError, match="input 'y', dimension 1: expected a multiple of 2"):
        load(str(tmp_path / "sized.pt2"), data=(str(bad),))


def test_saved_program_refuses_what_is_fixed_in_it(tmp_path: Path) -> None:
    save_program(tmp_path / "sized.pt2")
    for options in ({"weights": "w.pt"}, {"inputs": ("x:float32[2]",)}):
        with pytest.raises(SourceError, match="captured already"):
            load(str(tmp_path / "sized.pt2"), **options)


@pytest.mark.parametrize("content", [b"", b"no program", b"PK\x03\x04 truncated"])
def test_corrupt_program(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.pt2").write_bytes(content)
    with pytest.raises(SourceError, match="no ExportedProgram"):
        load(str(tmp_path / "m.pt2"))


# --- what cannot be found or loaded -----------------------------------------------------------

BROKEN = """
import sys, torch
from torch import nn
INPUTS = 7
number = 5
def raises():
    raise RuntimeError("boom")
def leaves():
    sys.exit(3)
def number_of(): return 5
def with_parameters(size): return nn.ReLU()
def __getattr__(name): raise ZeroDivisionError(name)
"""


HELD = """
from torch import nn
raise RuntimeError("only read, not run")
WIDTH = 3
class Net(nn.Module): ...
class _Base(nn.Module): ...
def make(width=3, *, bias=True): ...
def layer(width): ...
def other(*, bias): ...
model = make()
"""


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("sample:super_resolutoin", "no sample 'super_resolutoin'", "super_resolution"),
        ("sample:", "no sample ''", "detector"),
        ("nothing", "names no model", "package.module:attr"),
        ("net.py", "'net.py' names no model: it holds", "Name one of them, for example net.py:"),
        ("net.py:", "'net.py' names no model: it holds", "for example net.py:"),
        ("held.py", "it holds Net, make, model", "for example held.py:Net."),
        ("many.py", "it holds f0, f1, f2, f3, f4, f5, f6, f7 and 2 more", "many.py:f0."),
        ("syntax.py", "'syntax.py' names no model", "path/to/file.py:attr"),
        ("gone.py", "no file gone.py", "path/to/file.py:attr"),
        (":Net", "names no model", "package.module:attr"),
        ("gone.py:Net", "no file gone.py", "path/to/file.py:attr"),
        ("gone.pt2", "no file gone.pt2", "model.pt2"),
        ("no.such:Net", "no module 'no.such'", "package.module:attr"),
        ("pkg.gone:Net", "no module 'pkg.gone'", "package.module:attr"),
        ("pkg.net.gone:Net", "no module 'pkg.net.gone'", "package.module:attr"),
        ("..:Net", "no module '..'", "package.module:attr"),
        ("./net:Net", "no module './net'", "path/to/file.py:attr"),
        ("net.py:Nett", "no attribute 'Nett'", "Did you mean Net"),
        ("net.py:Net.x.y", "no attribute 'x'", "There is"),
        ("pkg:net2", "no attribute 'net2'", "net"),
        ("broken.py:other", "no attribute 'other'", "number"),
        ("broken.py:number", "no torch.nn.Module, but of type int", "function that returns one"),
        ("broken.py:raises", "raised RuntimeError: boom", "function without parameters"),
        ("broken.py:leaves", "raised SystemExit: 3", "function without parameters"),
        ("broken.py:with_parameters", "missing 1 required", "function without parameters"),
        ("broken.py:number_of", "but something of type int", "Return the Module"),
        ("net.py:torch", "no torch.nn.Module, but of type module", "function that returns one"),
        ("raising.py:Net", "raised ValueError: at import at raising.py:2: raise Val", "on its own"),
        ("leaving.py:Net", "raised SystemExit: 4 at leaving.py:1", "on its own"),
        ("syntax.py:Net", "raised SyntaxError", "on its own"),
        ("missing.py:Net", "No module named 'not_installed_here'", "on its own"),
        ("bad.inner:Net", "raised KeyError: 'x' at bad/__init__.py:1", "on its own"),
        ("worse.inner:Net", "No module named 'not_installed_here'", "on its own"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded(project: Write, text: str, message: str, remedy: str) -> None:
    project("net.py", NET)
    project("pkg/__init__.py", "from pkg import net")
    project("pkg/net.py", NET)
    project("broken.py", BROKEN)
    project("held.py", HELD)
    project("many.py", "".join(f"def f{n}(): ...\n" for n in range(10)))
    project("raising.py", "import torch\nraise ValueError('at import')")
    project("leaving.py", "raise SystemExit(4)")
    project("syntax.py", "x = 1\ny = = 2\n")
    project("missing.py", "import not_installed_here")
    project("bad/__init__.py", "{}['x']")
    project("worse/__init__.py", "import not_installed_here")
    with pytest.raises(SourceError) as caught:
        load(text)
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("raising.py:Net", ("raising.py", 2, "raise ValueError('at import')")),
        ("syntax.py:Net", ("syntax.py", 2, "y = = 2")),
        ("deep.py:build", ("helper.py", 1, "def go(): 1 / 0")),
    ],
)
def test_the_users_line_is_named(project: Write, text: str, place: tuple[str, int, str]) -> None:
    project("raising.py", "import torch\nraise ValueError('at import')")
    project("syntax.py", "x = 1\ny = = 2\n")
    project("deep.py", "import helper\ndef build(): return helper.go()")
    project("helper.py", "def go(): 1 / 0")
    with pytest.raises(SourceError) as caught:
        load(text)
    (found,) = caught.value.locations
    assert (found.file, found.line, found.code) == place


def test_a_failed_import_leaves_no_module_behind(project: Write) -> None:
    path = project("net.py", NET)
    load("net.py:Net")
    before = sys.modules["torch2mobile_source_net"]
    path.write_text("raise ValueError")
    with pytest.raises(SourceError):
        load("net.py:Net")
    assert sys.modules["torch2mobile_source_net"] is before
    project("other.py", "raise ValueError")
    with pytest.raises(SourceError):
        load("other.py:Net")
    assert "torch2mobile_source_other" not in sys.modules


# --- the example ------------------------------------------------------------------------------


def test_input_beats_everything(project: Write) -> None:
    project("net.py", NET)
    loaded = load("net.py:Net", inputs=("x:float32[4,3]",), values=("x=7..7",))
    assert loaded.specs[0].dims == (Dim(size=4), Dim(size=3))
    assert torch.equal(loaded.tensors[0], torch.full((4, 3), 7.0))


def test_input_without_values_does_not_take_the_sources(project: Write) -> None:
    project("net.py", NET)
    assert load("net.py:Net", inputs=("x:float32[4,3]",)).specs[0].values is None


def test_drawn_examples_depend_on_the_seed_alone(project: Write) -> None:
    from torch2mobile.records import ParityOptions

    project("net.py", NET)
    drawn = [
        load("net.py:Net", inputs=("x:float32[4,3]",), parity=ParityOptions(seed=seed)).tensors[0]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("text", [NET, EXAMPLE_ONLY])
def test_data_beats_the_sources_example(project: Write, tmp_path: Path, text: str) -> None:
    project("net.py", text)
    np.savez(tmp_path / "a.npz", x=np.full((4, 3), 2, "f4"), more=np.ones(1))
    loaded = load("net.py:Net", data=("a.npz",))
    assert torch.equal(loaded.tensors[0], torch.full((4, 3), 2.0))
    assert loaded.data[0]["x"].shape == (4, 3)


def test_values_hold_for_an_example_without_specs(project: Write) -> None:
    project("net.py", EXAMPLE_ONLY)
    assert load("net.py:Net").specs[0].values == Values("uniform", 0, 1)
    loaded = load("net.py:Net", values=("x=0..9",))
    assert loaded.specs[0].values == Values("range", 0, 9)


def test_given_values_replace_the_sources(project: Write) -> None:
    project("net.py", NET)
    assert load("net.py:Net", values=("x=0..9",)).specs[0].values == Values("range", 0, 9)


CALLS = """
from torch import nn, ones
class Net(nn.Module):
    def forward(self, a, b=None, *, c=1.0):
        return a
net = Net()
def example_inputs(): return {}
"""


@pytest.mark.parametrize(
    ("example", "paths", "notes"),
    [
        ("ones(2)", ["a"], 0),
        ("(ones(2), ones(2))", ["a", "b"], 0),
        ("dict(b=ones(2), a=ones(2))", ["b", "a"], 0),
        ("((ones(2),), dict(c=ones(2)))", ["a", "c"], 0),
        ("({'k': ones(2)}, {'j': ones(2)})", ["a.k", "b.j"], 0),
        ("(ones(2), None)", ["a"], 1),
        ("dict(a=ones(2), c=2.5)", ["a"], 1),
    ],
)
def test_forms_of_example_inputs(
    project: Write, example: str, paths: list[str], notes: int
) -> None:
    project("net.py", CALLS.format(example))
    loaded = load("net.py:net")
    assert [".".join(map(str, spec.path)) for spec in loaded.specs] == paths
    assert len(loaded.notes) == notes
    assert all("it is fixed in the file" in note for note in loaded.notes)


def test_specs_and_example_meet_by_position_where_names_differ(project: Write) -> None:
    project("net.py", CALLS.format("(ones(3), 2.5, )") + "INPUTS = 'image:float32[N]'\n")
    (spec,) = load("net.py:net").specs
    assert (spec.name, spec.path) == ("image", ("a",))


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("imgae", "no parameter imgae: the input is given as image, .* did you mean image"),
        ("maks", "no parameter maks: the input is given as image, .* did you mean mask"),
        ("photo", ""),
        ("image", ""),
    ],
)
def test_a_name_that_is_nearly_a_parameters_is_told(project: Write, name: str, note: str) -> None:
    text = NET.replace("forward(self, x)", "forward(self, image, mask=None)").replace(
        "(x)", "(image)"
    )
    project("net.py", text)
    notes = load("net.py:Net", inputs=(f"{name}:float32[N,3]",)).notes
    assert [bool(re.search(note, each)) for each in notes] == [True] * bool(note)


def test_constants_of_the_example_are_kept_beside_specs(project: Write) -> None:
    text = CALLS.format("dict(a=ones(3), c=2.5)") + "INPUTS = 'a:float32[N]'\n"
    project("net.py", text)
    loaded = load("net.py:net")
    assert loaded.notes == ("the input c is 2.5, no tensor: it is fixed in the file",)


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        ("def example_inputs(): raise OSError('gone')", SourceError, "raised OSError: gone"),
        ("def example_inputs(size): return 1", SourceError, "raised TypeError"),
        ("INPUTS = 7", SourceError, "INPUTS beside net.py:net is 7"),
        ("INPUTS = ('x:float32[2]', 5)", SourceError, "INPUTS beside net.py:net is ("),
        ("INPUTS = 'x:float33[2]'", InputError, "unknown dtype 'float33'"),
        ("INPUTS = 'x:float32[2]'\nVALUES = 'y=0..1'", InputError, "unknown input 'y'"),
        (
            "INPUTS = 'input:int8[2]'\nexample_inputs = 5",
            InputError,
            "no tensor for the input input",
        ),
        ("INPUTS = 'x:float32[2]'\nexample_inputs = {}", InputError, "required argument: 'input'"),
        ("", InputError, "nothing says how to call net.py:net"),
    ],
)
def test_what_is_wrong_beside_the_module(
    project: Write, extra: str, error: type[Exception], message: str
) -> None:
    project("net.py", f"from torch import nn\nnet = nn.ReLU()\n{extra}\n")
    with pytest.raises(error) as caught:
        load("net.py:net")
    assert message in caught.value.message


def test_an_example_that_is_not_as_declared_is_refused(project: Write) -> None:
    project("net.py", NET.replace("(2, 3)", "(9, 3)"))
    with pytest.raises(InputError, match=r"input 'x', dimension 0: expected N with N in 1..8"):
        load("net.py:Net")


# --- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.ones((2, 3), "f4")}, "no array for the input 'x'"),
        ({"x": np.ones((2, 3), "f8")}, "float64"),
        ({"x": np.ones((2, 3, 1), "f4")}, "3"),
        ({"x": np.array(["a"])}, "<U1"),
    ],
)
@pytest.mark.parametrize("text", [NET, EXAMPLE_ONLY])
def test_data_that_does_not_fit(
    project: Write, tmp_path: Path, text: str, arrays: dict[str, Any], message: str
) -> None:
    project("net.py", text)
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(InputError) as caught:
        load("net.py:Net", data=("d.npz",))
    assert message in caught.value.message


def test_every_case_of_the_data_is_checked(project: Write, tmp_path: Path) -> None:
    project("net.py", NET)
    np.savez(tmp_path / "a.npz", x=np.ones((2, 3), "f4"))
    np.savez(tmp_path / "b.npz", x=np.ones((2, 4), "f4"))
    with pytest.raises(InputError, match="dimension 1: expected 3, got 4"):
        load("net.py:Net", data=("a.npz", "b.npz"))


def test_the_file_that_does_not_fit_is_named(project: Write, tmp_path: Path) -> None:
    project("net.py", NET)
    for name, size in (("a.npz", 3), ("b.npz", 4)):
        np.savez(tmp_path / name, x=np.ones((2, size), "f4"))
    with pytest.raises(InputError, match=r"^b\.npz: input 'x', dimension 1: expected 3, got 4"):
        load("net.py:Net", data=(str(tmp_path / "a.npz"), str(tmp_path / "b.npz")))


def test_data_alone_says_how_to_call(project: Write, tmp_path: Path) -> None:
    project("net.py", "from torch import nn\nnet = nn.ReLU()")
    np.savez(tmp_path / "d.npz", input=np.ones((2, 3), "f4"))
    loaded = load("net.py:net", data=("d.npz",), values=("input=0..1",))
    assert loaded.specs[0].dims == (Dim(size=2), Dim(size=3))
    assert loaded.specs[0].values == Values("range", 0, 1)
    np.savez(tmp_path / "text.npz", input=np.array(["a"]))
    with pytest.raises(InputError, match="dtype <U1 cannot be exported"):
        load("net.py:net", data=("text.npz",))


def test_missing_data_file(project: Write) -> None:
    project("net.py", NET)
    with pytest.raises(ModelFileError, match=r"no file gone\.npz"):
        load("net.py:Net", data=("gone.npz",))


# --- from Python ------------------------------------------------------------------------------


def test_data_from_python_is_checked_too() -> None:
    case = {"x": np.ones(3, "f4")}
    with pytest.raises(InputError, match="no array for the input 'input'"):
        source.from_call("n", nn.ReLU(), (torch.ones(3),), {}, data=(case,))


def test_data_from_python_may_have_other_sizes_where_they_are_dynamic() -> None:
    case = {"input": np.ones(5, "f4")}
    call: dict[str, Any] = {"dynamic_shapes": ({0: TorchDim("n", max=9)},), "data": (case,)}
    loaded = source.from_call("n", nn.ReLU(), (torch.ones(3),), {}, **call)
    assert loaded.tensors[0].shape == (3,)
    with pytest.raises(InputError, match="expected 3, got 5"):
        source.from_call("n", nn.ReLU(), (torch.ones(3),), {}, data=(case,))


def test_a_dtype_without_an_onnx_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"torch\.complex64 cannot be exported"):
        source.from_call("n", nn.Identity(), (torch.ones(3, dtype=torch.complex64),), {})


def test_an_example_without_values_is_refused() -> None:
    with pytest.raises(InputError, match="the example is on the meta device"):
        source.from_call("n", nn.Linear(3, 2), (torch.ones(1, 3, device="meta"),), {})


# --- several models in one file, folders of data, other devices -------------------------------

BY_NAME = """INPUTS = {"model": "x:float32[N,3]", "build": ("x:float32[2,3]",)}
DATA = {"Own": "own.npz"}"""
SEVERAL = NET.replace('INPUTS = ("x:float32[N=1..8,3]",)', BY_NAME)
SEVERAL = SEVERAL.replace('VALUES = ("x=uniform(0,1)",)', 'VALUES = {"model": "x=0..1"}')
SEVERAL += """
class Own(Net):
    INPUTS = ("x:float32[N=1..4,3]",)
"""


def test_what_is_beside_a_model_is_of_an_attribute(project: Write) -> None:
    path = project("several.py", SEVERAL)
    np.savez(path.parent / "own.npz", x=np.ones((3, 3), np.float32))
    model, built, own, other = (load(f"{path}:{name}") for name in ("model", "build", "Own", "Net"))
    assert (model.specs[0].dims[0], built.specs[0].dims[0]) == (Dim(symbol="N"), Dim(size=2))
    assert (model.specs[0].values, built.specs[0].values) == (Values("range", 0, 1), None)
    assert own.specs[0].dims[0] == Dim(symbol="N", least=1, greatest=4)
    assert torch.equal(own.tensors[0], torch.ones(3, 3))
    assert other.specs[0].dims[0] == Dim(size=2)  # of example_inputs


def test_a_folder_of_data(project: Write, tmp_path: Path) -> None:
    path = project("folder.py", NET)
    folder = tmp_path / "real"
    folder.mkdir()
    with pytest.raises(ModelFileError, match="holds neither"):
        load(f"{path}:Net", data=(str(folder),))
    for number in (1, 2):
        np.savez(folder / f"{number}.npz", x=np.full((number, 3), number, np.float32))
    np.save(folder / "x.npy", np.zeros((4, 3), np.float32))
    found = load(f"{path}:Net", data=(str(folder),))
    assert [case["x"].shape[0] for case in found.data] == [1, 2, 4]
    np.savez(folder / "odd.npz", z=np.zeros((1, 3), np.float32))
    with pytest.raises(InputError, match=r"^odd\.npz has no array for the input 'x'"):
        load(f"{path}:Net", data=(str(folder),))
    (folder / "odd.npz").unlink()
    np.save(folder / "y.npy", np.zeros(4, np.float32))
    with pytest.raises(InputError, match=r"the file y\.npy fits no input"):
        load(f"{path}:Net", data=(str(folder),))
    (folder / "y.npy").write_bytes(b"no array")
    with pytest.raises(ModelFileError, match=r"y\.npy cannot be read as \.npy"):
        load(f"{path}:Net", data=(str(folder),))


def test_what_has_no_values_is_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to("meta").eval()
    with pytest.raises(InputError, match=r"0\.weight is on the meta device, and has no values"):
        source.from_specs("m", module, ["x:float32[N,3]"], (), Request(source=""), ())
    assert next(module.parameters()).device.type == "meta"
