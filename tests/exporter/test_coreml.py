"""Core ML: packages that do not load, and faults put into the model's files."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np
import pytest
import torch

import torch2mobile
from torch2mobile.environments import Worker
from torch2mobile.errors import MissingToolError, ModelFileError
from torch2mobile.exporter.targets import coreml, mil, mlpackage, variant_of
from torch2mobile.exporter.targets.coreml import CoremlTarget
from torch2mobile.pipeline.candidates import candidate
from torch2mobile.pipeline.conversion import convert, convert_check, find_variants, program_file
from torch2mobile.records import (
    Artifact,
    ArtifactEntry,
    Job,
    OnnxModel,
    Status,
)

TARGET = CoremlTarget()
EXACT, HALF = TARGET.variants
WAIT = 120.0
installed = pytest.mark.skipif(bool(TARGET.missing()), reason=f"{TARGET.missing()}")


class Net(torch.nn.Module):
    """With a weight of its own in the weight file, and an attribute in the program."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(16, 32)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        y = torch.nn.functional.leaky_relu(self.layer(x), 0.25) * mask
        return {"y": y, "any": mask.any(1), "place": y.argmax(1)}


@pytest.fixture(scope="module")
def made(export: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    n = torch.export.Dim("n", min=1, max=8)
    args = torch.rand(2, 16), torch.ones(2, 32, dtype=torch.bool)
    return export(Net().eval(), args, dynamic_shapes=({0: n}, {0: n}))


@pytest.fixture
def artifact(made: Any, tmp_path: Path) -> Artifact:
    out = tmp_path / "out"
    out.mkdir()
    shapes = {"x": (2, 16), "mask": (2, 32)}
    with Worker() as tools:
        job = Job(made.model, EXACT, program_file(made.capture, tmp_path), out, shapes)
        artifact = convert(job, tools, WAIT)
    assert convert_check(artifact).summary.startswith("model.mlpackage, ")
    # A word of MIL's own.
    assert set(artifact.names) == {"any"}
    return artifact


@installed
@pytest.mark.slow
def test_a_fault_in_the_file_changes_the_answer(made: Any, artifact: Artifact) -> None:
    path = artifact.files[0]
    package = mlpackage.package_of(path)
    assert mlpackage.model_in(package) == path
    assert variant_of(path) == EXACT
    x, mask = torch.randn(3, 16), torch.rand(3, 32) > 0.5
    wanted = {name: value.detach() for name, value in made.loaded.module(x, mask).items()}

    def run() -> dict[str, np.ndarray]:
        found = candidate(
            path,
            ArtifactEntry(EXACT, {}, artifact.names),
            made.model.inputs,
            made.model.outputs,
            WAIT,
        )
        with found.process:
            return dict(found.runner.run({"x": x.numpy(), "mask": mask.numpy()}))

    right = run()
    for name, value in wanted.items():
        torch.testing.assert_close(torch.from_numpy(right[name]), value)
    weights = package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    raw = weights.read_bytes()
    bias = made.loaded.module.layer.bias.detach()
    assert raw.count(bias.numpy().tobytes()) == 1
    weights.write_bytes(raw.replace(bias.numpy().tobytes(), (bias + 1).numpy().tobytes()))
    assert np.abs(run()["y"] - right["y"]).max() > 0.1
    weights.write_bytes(raw)

    program = path.read_bytes()
    slope = np.float32(0.25).tobytes()
    assert program.count(slope) == 1
    path.write_bytes(program.replace(slope, np.float32(0.5).tobytes()))
    assert np.abs(run()["y"] - right["y"]).max() > 0.01


@installed
@pytest.mark.slow
def test_what_the_evaluator_lacks_is_named_and_not_judged(artifact: Artifact) -> None:
    path = artifact.files[0]
    spec = mlpackage.read_model(path)
    block = spec.mlProgram.functions["main"].block_specializations["CoreML5"]
    (layer,) = [op for op in block.operations if op.type == "leaky_relu"]
    shown = mil.MilRunner(path).layers()
    assert tuple(
        one.kind for one in shown if one.outputs[0] in {layer.outputs[0].name, shown[2].name}
    )[::-1] == ("leaky_relu", "linear")
    layer.type = "made_up"
    path.write_bytes(spec.SerializeToString())
    with pytest.raises(MissingToolError, match="the program has made_up, which is not evaluated"):
        mil.MilRunner(path)
    layer.type = "relu"
    path.write_bytes(spec.SerializeToString())
    with pytest.raises(MissingToolError, match="relu with alpha"):
        mil.MilRunner(path)


@installed
@pytest.mark.slow
def test_a_package_that_is_not_whole(artifact: Artifact) -> None:
    path = artifact.files[0]
    weights = path.with_name("weights") / "weight.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(ModelFileError, match=r"weight\.bin does not hold the weights"):
        mil.MilRunner(path)
    shutil.rmtree(weights.parent)
    with pytest.raises(ModelFileError, match=r"weight\.bin does not hold the weights"):
        mil.MilRunner(path)
    path.write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=r"Core ML cannot load model\.mlmodel"):
        mil.MilRunner(path)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"model\.mlmodel is no ML Program"):
        mil.MilRunner(path)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer"])
def test_samples(name: str, tmp_path: Path) -> None:
    from torch2mobile.pipeline.export import export_request
    from torch2mobile.records import ParityOptions, Request, Tolerance

    half = {f"@{HALF.label}": Tolerance(atol=0.05)}
    parity = ParityOptions(probes=2, tolerances=half)
    labels = EXACT.label, HALF.label
    asked = Request(f"sample:{name}", targets=labels, simplify=False, parity=parity)
    result = export_request(asked, out=tmp_path / "bundle")
    assert result.report.status is Status.PASSED
    for check in result.report.checks:
        if check.name == "parity" and check.target in labels:
            assert TARGET.environment.stand_in in check.notes
    assert {c.target for c in result.report.checks if c.name == "parity"} == {"onnx", *labels}

    weights = tmp_path / "bundle/model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    raw = np.fromfile(weights, dtype=np.float32)
    raw[-8:] += 10
    raw.tofile(weights)
    checks = torch2mobile.verify(tmp_path / "bundle").report.checks
    golden = {check.target: check.status for check in checks if check.name == "golden"}
    assert golden == {
        "onnx": Status.PASSED, EXACT.label: Status.FAILED, HALF.label: Status.PASSED,
    }  # fmt: skip
    (changed,) = [check for check in checks if check.name == "integrity"]
    assert changed.status is Status.FAILED


def test_what_coremltools_misreads_is_written_otherwise() -> None:
    """It pads booleans as numbers, and asks for a stride that PyTorch leaves out."""

    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.nn.functional.pad(x[0, 0] > 0, (1, 0), value=True)
        return torch.ops.aten.max_pool2d(x, [2, 2]), ~mask

    class Pooled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return forward(x)

    x = torch.randn(1, 2, 6, 6)
    program = torch.export.export(Pooled(), (x,)).run_decompositions({})
    coreml._keep_booleans(program)
    coreml._tell_more(program)
    nodes = list(program.graph.nodes)
    (pool,) = [node for node in nodes if "max_pool" in str(node.target)]
    assert pool.args[1:] == ([2, 2], [2, 2])
    (padded,) = [node for node in nodes if "pad" in str(node.target)]
    (user,) = padded.users
    assert user.target is torch.ops.aten.ne.Scalar
    program.graph_module.recompile()
    for found, wanted in zip(program.graph_module(x), forward(x), strict=True):
        torch.testing.assert_close(found, wanted)


class Passing(torch.nn.Module):
    """Gives what it is given, and one value twice, which a loop reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        doubled = x * 2
        padded = torch.nn.functional.pad(x > 0, (0, 1))
        return padded, x, doubled, x, doubled, self.gru(doubled)[0]


@installed
@pytest.mark.slow
def test_an_output_that_is_an_input_or_another_output(
    export: Callable[..., Any], tmp_path: Path
) -> None:
    made = export(Passing(), (torch.randn(2, 1, 4),))
    out = tmp_path / "out"
    out.mkdir()
    job = Job(made.model, EXACT, program_file(made.capture, tmp_path), out, {"x": (2, 1, 4)})
    with Worker() as tools:
        artifact = convert(job, tools, WAIT)
    assert artifact.names == {}
    runner = mil.MilRunner(artifact.files[0])
    assert [spec.name for spec in runner.inputs()] == ["x"]
    x = torch.randn(2, 1, 4)
    found = runner.run({"x": x.numpy()})
    assert [name for name, _ in found] == [spec.name for spec in made.model.outputs]
    for (_, array), wanted in zip(found, made.loaded.module(x), strict=True):
        torch.testing.assert_close(torch.from_numpy(array), wanted.detach().float())


def feature(name: str, number: int = 65568, kind: str = "multiArrayType") -> Any:
    array = Namespace(dataType=number, shape=[2], shapeRange=Namespace(sizeRanges=[]))
    return Namespace(name=name, type=Namespace(multiArrayType=array, WhichOneof=lambda _: kind))


def test_a_program_without_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*"hgfedcba"]
    block = Namespace(operations=[], outputs=["h", "lost"])
    function = Namespace(
        opset="1", block_specializations={"1": block}, inputs=[feature(name) for name in names]
    )
    description = Namespace(input=function.inputs, output=[feature("h"), feature("lost")])
    model = Namespace(mlProgram=Namespace(functions={"main": function}), description=description)
    monkeypatch.setattr(mil, "read_model", lambda _: model)
    with pytest.raises(ModelFileError, match="no operation of the program makes lost"):
        mil.MilRunner(Path("m"))
    del block.outputs[1], description.output[1]
    runner = mil.MilRunner(Path("m"))
    assert [layer.name for layer in runner.layers()] == names
    ((_, array),) = runner.run({name: np.ones(2) for name in names})
    np.testing.assert_array_equal(array, np.ones(2, np.float32))
    description.input[0] = feature("photo", 0, "imageType")
    with pytest.raises(ModelFileError, match=r"photo is no array .* but imageType"):
        mil.MilRunner(Path("m"))


def test_a_value_has_its_new_name_inside_a_loop_too() -> None:
    def block(op: str, read: str, made: str, *blocks: Any) -> Any:
        inputs = {"x": Namespace(arguments=[Namespace(name=read)])}
        one = Namespace(type=op, inputs=inputs, outputs=[Namespace(name=made)], blocks=blocks)
        return Namespace(inputs=[], operations=[one], outputs=[read, made])

    inner = block("exp", "a", "b")
    outer = block("while_loop", "a", "c", inner)
    function = Namespace(
        opset="1", inputs=[Namespace(name="a")], block_specializations={"1": outer}
    )
    spec = Namespace(mlProgram=Namespace(functions={"main": function}))
    assert not mlpackage.rename(spec, "a", "b")
    assert mlpackage.rename(spec, "a", "x")
    assert (inner.outputs, outer.outputs) == (["x", "b"], ["x", "c"])
    assert inner.operations[0].inputs["x"].arguments[0].name == "x"
    assert function.inputs[0].name == "x"


@pytest.mark.parametrize(
    ("mark", "size", "place"),
    [
        (0, 8, 24), (0xDEADBEEF, 2**62, 24), (0xDEADBEEF, 2**64 - 1, 24), (0xDEADBEEF, 4, 24),
        (0xDEADBEEF, 8, 28), (0xDEADBEEF, 8, 2**64 - 1),
    ],
)  # fmt: skip
def test_a_weight_file_with_a_damaged_header(
    mark: int, size: int, place: int, tmp_path: Path
) -> None:
    told = Namespace(fileName="@model_path/w.bin", offset=0)
    path = tmp_path / "w.bin"
    path.write_bytes(struct.pack("<IIQQ", 0xDEADBEEF, 1, 8, 24) + b"abcdefgh")
    assert mil._blob(tmp_path, told, 8) == b"abcdefgh"
    path.write_bytes(struct.pack("<IIQQ", mark, 1, size, place) + b"abcdefgh")
    with pytest.raises(ModelFileError, match=r"w\.bin does not hold the weights") as error:
        mil._blob(tmp_path, told, 8)
    assert error.value.remedy == "Keep the .mlpackage whole."


def test_the_name_is_a_target_as_well_as_a_provider() -> None:
    assert find_variants(["coreml"]) == [EXACT]


def test_a_package_is_told_by_its_own_name() -> None:
    for variant in TARGET.variants:
        job = Job(OnnxModel(Path("m.onnx"), 20, (), (), {}), variant, None, Path("mnn-fp16.x"))
        package = job.path(".mlpackage")
        assert variant_of(package / mlpackage.MODEL) == variant
        assert mlpackage.model_name(package / mlpackage.MODEL) == package.name
