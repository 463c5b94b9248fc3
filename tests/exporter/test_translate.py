"""The written file: its opset, its names and dims, and that it is still the module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from rows import slow_but
from torch import nn
from torch.export import Dim as TorchDim

from torch2mobile.errors import ExitCode, TranslateError
from torch2mobile.exporter import interface_names, translate
from torch2mobile.exporter.translate import OpsetError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

Export = Callable[..., Any]


class ConvRelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(image))


# `2 * Dim("N")` is a TypeError: torch takes that N for sympy's function.
N, H = TorchDim("n", min=1, max=8), TorchDim("H", min=2, max=64)


@pytest.fixture(scope="module")
def conv(export: Export) -> Any:
    shapes = ({0: N, 2: H},)
    return export(ConvRelu().train(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=shapes)


# --- opset ------------------------------------------------------------------------------------


LEAST_IR = {13: 7, 17: 8, 18: 8, 20: 9, 21: 10, 23: 11}


@pytest.mark.parametrize("opset", slow_but([17, 18, 20, 21, 23], 17, 23))
def test_opset_is_honoured(conv: Any, tmp_path: Path, opset: int) -> None:
    model = translate.translation(conv.capture, tmp_path / "m.onnx", opset=opset).model
    written = replace(conv, model=model)
    assert model.opset == opset
    assert [(o.domain, o.version) for o in written.proto.opset_import] == [("", opset)]
    # Older runtimes refuse a newer IR version than they know, whatever is in the file.
    assert written.proto.ir_version == LEAST_IR[opset]
    assert {place.code for name in values(written) for place in model.origins[name]} == {
        "return torch.relu(self.conv(image))"
    }
    written.check()


def values(written: Any) -> list[str]:
    return [name for node in written.proto.graph.node for name in node.output]


def test_an_opset_that_cannot_be_had_is_refused(conv: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"what stood there")
    with pytest.raises(
        OpsetError, match=r"opset 13 was asked for, but .* wrote opset 18"
    ) as caught:
        translate.translation(conv.capture, path, opset=13)
    assert "newer opset" in caught.value.remedy
    assert caught.value.exit_code is ExitCode.STAGE
    assert path.read_bytes() == b"what stood there"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("opset", [-1, 0, 6, onnx.defs.onnx_opset_version() + 1, 999])
def test_an_opset_that_does_not_exist_is_the_users_mistake(opset: int, tmp_path: Path) -> None:
    with pytest.raises(OpsetError, match=rf"--opset {opset}: .* knows opsets 7 to") as caught:
        translate.check_opset(opset)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("opset", [None, 7, onnx.defs.onnx_opset_version()])
def test_an_opset_that_exists_may_be_asked_for(opset: int | None) -> None:
    translate.check_opset(opset)


# --- the file ---------------------------------------------------------------------------------


def test_names_dims_and_weights_are_the_users(conv: Any) -> None:
    assert conv.dims("input") == {"image": ["n", 3, "H", 8]}
    assert conv.dims("output") == {"output": ["n", 4, "H", 8]}
    assert conv.weights == {"conv.weight", "conv.bias"}
    assert conv.model.outputs[0].dims == ("n", 4, "H", 8)
    assert conv.model.outputs[0].dtype == "float32"
    assert conv.loaded.module.training
    conv.check()
    for batch, height in ((1, 8), (5, 2), (8, 63)):
        conv.check(torch.randn(batch, 3, height, 8))


def test_the_same_capture_gives_the_same_bytes(conv: Any, tmp_path: Path) -> None:
    again = translate.translation(conv.capture, tmp_path / "m.onnx").model
    assert again.path.read_bytes() == conv.model.path.read_bytes()


def test_weights_stay_inside_unless_asked(conv: Any, tmp_path: Path) -> None:
    assert [path.name for path in conv.model.path.parent.iterdir()] == ["model.onnx"]
    model = translate.translation(conv.capture, tmp_path / "m.onnx", external_data=True).model
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    bare = onnx.load(model.path, load_external_data=False)
    (entry,) = {
        e.value for w in bare.graph.initializer for e in w.external_data if e.key == "location"
    }
    assert entry == "m.onnx.data"
    replace(conv, model=model).check()


def test_large_weights_go_outside_by_themselves(
    conv: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translate, "PROTOBUF_LIMIT", 2**24 + 400)
    model = translate.translation(conv.capture, tmp_path / "m.onnx").model
    assert (tmp_path / "m.onnx.data").exists()
    replace(conv, model=model).check()


def test_multiples_of_symbols(export: Export) -> None:
    class Shuffled(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            return torch.cat([x, x], 1), y.reshape(-1, 2, y.shape[1]), x.shape[1] + y[0]

    h = TorchDim("h", min=1, max=9)
    exported = export(
        Shuffled(), (torch.rand(3, 8), torch.rand(6, 5)),
        dynamic_shapes=({0: N, 1: 4 * h}, {0: 2 * N, 1: TorchDim("W", min=2)}),
    )  # fmt: skip
    assert exported.dims("input") == {"x": ["n", "4*h"], "y": ["2*n", "W"]}
    outputs = exported.dims("output")
    assert outputs["output_0"] == ["n", "8*h"]
    assert outputs["output_1"] == ["n", 2, "W"]
    assert outputs["output_2"] == ["W"]
    exported.check()
    exported.check(torch.rand(1, 12), torch.rand(2, 9))


class Outputs(nn.Module):
    """Outputs that are inputs, weights, constants, each other, or nothing that ONNX has."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3))
        self.register_buffer("table", torch.arange(4))

    def forward(self, x: torch.Tensor, unused: torch.Tensor, gate: Any = None) -> Any:
        twice = 2 * x
        return {
            "x_again": x,
            "twice": twice,
            "same": twice,
            "weight": self.weight,
            "weight_again": self.weight,
            "table": self.table,
            "fixed": torch.tensor([1.0, 2.0]),
            "none": None,
            "x_last": x,
        }


def test_outputs_of_every_kind_keep_their_names_and_values(export: Export) -> None:
    exported = export(Outputs(), (torch.rand(2, 3), torch.rand(5)))
    assert list(exported.dims("input")) == ["x", "unused"]
    assert list(exported.dims("output")) == [
        "x_again", "twice", "same", "weight", "weight_again", "table", "fixed", "x_last",
    ]  # fmt: skip
    exported.check()


def test_one_value_as_two_outputs_becomes_two() -> None:
    """Today's torch.onnx does so itself."""
    x = ir.Value(name="x")
    relu = ir.Node("", "Relu", [x])
    (y,) = relu.outputs
    graph = ir.Graph([x], [y, y, x], nodes=[relu])
    interface_names._separate_outputs(graph)
    assert [output.producer().op_type for output in graph.outputs] == [
        "Relu",
        "Identity",
        "Identity",
    ]
    assert len({id(output) for output in graph.outputs}) == 3


class Clashing(nn.Module):
    """Weights, inputs and outputs named like what the exporter calls its own values."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("linear", "relu", "weight", "weight_value", "mul_value", "val_0"):
            self.register_parameter(name, nn.Parameter(torch.rand(3, 3)))

    def forward(self, weight: torch.Tensor, add: torch.Tensor) -> Any:
        y = torch.relu(torch.nn.functional.linear(weight, self.linear)) + self.relu
        z = y * self.weight + self.weight_value + add * self.val_0
        return {"mul": z + self.mul_value, "linear": z, "relu": y, "weight": z - 1, "add_1": z * 2}


def test_names_that_clash_are_the_users_and_the_file_is_valid(export: Export) -> None:
    exported = export(Clashing(), (torch.rand(3, 3), torch.rand(3, 3)))
    assert list(exported.dims("input")) == ["weight", "add"]
    assert list(exported.dims("output")) == ["mul", "linear", "relu", "weight_out", "add_1"]
    graph = exported.proto.graph
    names = [*(i.name for i in graph.input), *(w.name for w in graph.initializer)]
    names += [name for node in graph.node for name in node.output]
    assert max(Counter(names).values()) == 1
    assert {"weight_value", "mul_value", "val_0"} <= exported.weights
    exported.check()


class Dtypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.of_half = nn.Linear(3, 2).half()
        self.of_double = nn.Linear(3, 2).double()
        self.embedding = nn.Embedding(9, 2)

    def forward(self, h: Any, d: Any, i: Any, j: Any, b: Any, f: Any) -> Any:
        return {
            "half": self.of_half(h),
            "double": self.of_double(d),
            "ids": i + 1,
            "embedded": self.embedding(i),
            "small": torch.cat([j, j]),
            "byte": b[1:],
            "flag": ~f,
        }


def test_dtypes_are_the_modules(export: Export) -> None:
    example = (
        torch.rand(2, 3).half(),
        torch.rand(2, 3).double(),
        torch.tensor([1, 8]),
        torch.tensor([-3, 7], dtype=torch.int32),
        torch.tensor([0, 255], dtype=torch.uint8),
        torch.tensor([True, False]),
    )
    exported = export(Dtypes(), example)
    assert {spec.name: spec.dtype for spec in exported.model.outputs} == {
        "half": "float16",
        "double": "float64",
        "ids": "int64",
        "embedded": "float32",
        "small": "int32",
        "byte": "uint8",
        "flag": "bool",
    }
    exported.check()


class Tiny(nn.Module):
    """Constants that are almost 0 and 1, and float16 computed in float32."""

    def forward(self, x: torch.Tensor) -> Any:
        return 1 / (x + 1e-12), x * 1.000001, x.half().amax(0), (x.half() - 1).cumsum(1)


def test_constants_and_the_last_cast_stay(export: Export) -> None:
    exported = export(Tiny(), (torch.eye(2, 3),))
    outputs = dict(exported.check(torch.zeros(2, 3)))
    assert outputs["output_0"].max() < 1.1e12
    assert [array.dtype.name for array in outputs.values()][2:] == ["float16"] * 2
    found = dict(exported.check(torch.ones(2, 3)))
    assert found["output_1"].max() > 1


def test_bfloat16_stays_inside(export: Export, tmp_path: Path) -> None:
    class Brain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2).bfloat16()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.bfloat16()).float()

    exported = export(Brain(), (torch.rand(2, 3),))
    types = {w.name: w.data_type for w in exported.proto.graph.initializer}
    assert types["linear.weight"] == onnx.TensorProto.BFLOAT16
    with pytest.raises(TranslateError, match="input is bfloat16"):
        export(Brain().linear, (torch.rand(2, 3).bfloat16(),), path=tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


# --- what cannot be written -------------------------------------------------------------------


def test_an_exporter_that_loses_an_output_is_caught(conv: Any, tmp_path: Path) -> None:
    more = replace(conv.capture, outputs=("output", "lost"))
    with pytest.raises(TranslateError, match="1 inputs and 1 outputs for a module with 1 and 2"):
        translate.translation(more, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_no_fault_of_the_model(conv: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        translate.translation(conv.capture, tmp_path / "gone" / "m.onnx")


# --- a TorchScript trace ----------------------------------------------------------------------


class Part(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 2:
            x = torch.relu(x)
        for i in range(x.size(0)):
            x = x + i
        return x


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(3))
        self.part = torch.jit.script(Part())

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return {"y_out": y, "sum": self.part(x) * self.scale, "y": y + 1}


@pytest.fixture(scope="module")
def scripted(export: Export) -> Any:
    shapes = ({0: N}, None)
    return export(Scripted(), (torch.randn(3, 3), torch.rand(2)), dynamic_shapes=shapes)


def test_a_trace_is_written_under_the_same_rules(scripted: Any) -> None:
    assert scripted.capture.strategy == "torchscript"
    assert list(scripted.dims("input")) == ["x", "y"]
    assert scripted.dims("input")["x"][0] == "n"
    assert list(scripted.dims("output")) == ["y_out", "sum", "y_out2"]
    assert scripted.weights >= {"scale"}
    assert [path.name for path in scripted.model.path.parent.iterdir()] == ["model.onnx"]
    scripted.check()
    scripted.check(torch.randn(7, 3), torch.rand(2))


def test_a_traces_values_lead_back_to_the_nearest_forward(scripted: Any) -> None:
    places = {place for name in values(scripted) for place in scripted.model.origins[name]}
    assert {place.modules for place in places} == {("",), ("part",)}
    assert {(Path(place.file).name, place.code) for place in places} == {
        ("test_translate.py", "def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:")
    }


@pytest.mark.parametrize("opset", [13, 17])
def test_a_trace_honours_the_opset(scripted: Any, tmp_path: Path, opset: int) -> None:
    model = translate.translation(scripted.capture, tmp_path / "m.onnx", opset=opset).model
    written = replace(scripted, model=model)
    assert [(o.domain, o.version) for o in written.proto.opset_import] == [("", opset)]
    # Older runtimes refuse a newer IR version than they know, whatever is in the file.
    assert written.proto.ir_version == LEAST_IR[opset]
    written.check()


def test_a_trace_in_an_opset_that_its_exporter_lacks(
    scripted: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OpsetError, match="opset 24 was asked for, but a TorchScript trace"):
        translate.translation(scripted.capture, tmp_path / "m.onnx", opset=24)
    assert list(tmp_path.iterdir()) == []
    # torch's C++ prints the graph on standard output, which belongs to the report.
    assert capfd.readouterr().out == ""
