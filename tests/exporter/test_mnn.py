"""MNN: files that do not load, what stops the converter, and a weight changed in the file."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import torch2mobile
from torch2mobile.environments import Worker
from torch2mobile.errors import ConversionError, ModelFileError
from torch2mobile.exporter.loading.grammar import parse_input
from torch2mobile.exporter.targets import mnn, variant_of
from torch2mobile.exporter.targets.mnn import MnnTarget
from torch2mobile.pipeline.candidates import candidate, runner_of
from torch2mobile.pipeline.conversion import convert
from torch2mobile.records import ArtifactEntry, InputSpec, Job, OnnxModel, OutputSpec, Status

TARGET = MnnTarget()
EXACT, HALF = TARGET.variants
WAIT = 60.0
installed = pytest.mark.skipif(bool(TARGET.missing()), reason=f"{TARGET.missing()}")
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(8, 16)).astype(np.float32)
BIAS = RNG.normal(size=(8,)).astype(np.float32)


def spec(text: str) -> InputSpec:
    found = parse_input(text)
    assert isinstance(found, InputSpec)
    return found


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    """A layer over a batch that varies, and the index of the greatest of what it gives."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1),
            helper.make_node("ArgMax", ["y"], ["i"], axis=1, keepdims=0),
        ],
        "g",
        [info("x", TensorProto.FLOAT, ["N", 16])],
        [info("y", TensorProto.FLOAT, ["N", 8]), info("i", TensorProto.INT64, ["N"])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    path = tmp_path / "model.onnx"
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    outputs = (OutputSpec("y", "float32", ("N", 8)), OutputSpec("i", "int64", ("N",)))
    return OnnxModel(path, 18, (spec("x:float32[N=1..8,16]"),), outputs, {})


@installed
@pytest.mark.parametrize("variant", TARGET.variants, ids=lambda variant: variant.label)
def test_a_weight_changed_in_the_file_changes_the_answer(
    model: OnnxModel, tmp_path: Path, variant: Any
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with Worker() as tools:
        path = convert(Job(model, variant, None, out), tools, WAIT).files[0]
        first = path.read_bytes()
        convert(Job(model, variant, None, out), tools, WAIT)
    assert path.read_bytes() == first
    assert variant_of(path) == variant
    x = RNG.normal(size=(3, 16)).astype(np.float32)

    def run() -> dict[str, np.ndarray]:
        found = candidate(path, ArtifactEntry(variant), model.inputs, model.outputs, WAIT)
        with found.process:
            assert found.runner.outputs() == model.outputs
            return dict(found.runner.run({"x": x}))

    answers = run()
    wanted = x @ WEIGHT.T + BIAS
    np.testing.assert_allclose(answers["y"], wanted, atol=1e-5 if variant == EXACT else 2e-2)
    assert answers["i"].dtype == np.int64
    if variant == EXACT:
        np.testing.assert_array_equal(answers["i"], wanted.argmax(1))
        assert first.count(BIAS.tobytes()) == 1
        path.write_bytes(first.replace(BIAS.tobytes(), (BIAS + 1).tobytes()))
        np.testing.assert_allclose(run()["y"], wanted + 1, atol=1e-5)


@installed
@pytest.mark.parametrize("content", [b"", b"no model"])
def test_a_file_that_does_not_load(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.mnn"
    path.write_bytes(content)
    with (
        runner_of(path, EXACT, WAIT) as runner,
        pytest.raises(ModelFileError, match=r"MNN cannot load model\.mnn"),
    ):
        runner.load()


def test_a_converter_that_writes_nothing_and_says_that_it_did(
    model: OnnxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying = types.SimpleNamespace(mnnconvert=lambda _: True)
    monkeypatch.setattr(mnn.importlib, "import_module", lambda _: lying)
    with pytest.raises(ConversionError, match="wrote nothing"):
        TARGET.convert(Job(model, EXACT, None, tmp_path))


def own_model(nodes: list[Any], weights: list[Any], folder: Path) -> OnnxModel:
    """A file of one input, x, and one output, y, whose sizes it does not tell."""
    info = helper.make_tensor_value_info
    given, found = info("x", TensorProto.FLOAT, ["N", 4]), info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [given], [found], weights)
    opset = [helper.make_opsetid("", 18)]
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return OnnxModel(path, 18, (spec("x:float32[N=1..8,4]"),), (), {})


@installed
def test_where_it_stops_is_named(tmp_path: Path) -> None:
    size = numpy_helper.from_array(np.array([2, 2, 2]), "s")
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["cut"]),
        helper.make_node("Abs", ["cut"], ["y"]),
    ]
    model = own_model(nodes, [size], tmp_path)
    (tmp_path / "out").mkdir()
    with Worker() as tools:
        path = convert(Job(model, EXACT, None, tmp_path / "out"), tools, WAIT).files[0]
    with runner_of(path, EXACT, WAIT) as runner:
        ((_, right),) = runner.run({"x": np.ones((2, 4), np.float32)})
        assert right.shape == (2, 2, 2)
        with pytest.raises(ConversionError) as caught:
            runner.run({"x": np.ones((3, 4), np.float32)})
    assert caught.value.message == (
        "MNN stops at cut, whose size it cannot make out: Reshape error: 12 -> 8"
    )


@installed
def test_what_the_converter_lacks_is_named(tmp_path: Path) -> None:
    model = own_model([helper.make_node("DFT", ["x"], ["y"])], [], tmp_path)
    with Worker() as tools, pytest.raises(ConversionError, match="MNN has no DFT") as caught:
        convert(Job(model, EXACT, None, tmp_path), tools, WAIT)
    assert caught.value.remedy.startswith("Write it with other operators")


@installed
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_arrive(kind: str, tmp_path: Path) -> None:
    import torch

    layer = getattr(torch.nn, kind)(3, 4, batch_first=True, bidirectional=True).eval()
    found = torch2mobile.export(
        layer, (torch.rand(1, 5, 3),), simplify=False, targets="mnn", out=tmp_path / "out"
    )
    assert found.report.status is Status.PASSED
    assert [c.target for c in found.report.checks if c.name == "parity"] == ["onnx", "mnn"]
