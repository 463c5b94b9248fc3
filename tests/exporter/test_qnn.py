"""QNN: operators that the NPU has not, and faults put into the model's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from torch2mobile.environments import Worker
from torch2mobile.errors import ConversionError, ModelFileError, ProbeRefusedError
from torch2mobile.exporter.loading.grammar import parse_input
from torch2mobile.exporter.targets import variant_of
from torch2mobile.exporter.targets.ort import ONNX
from torch2mobile.exporter.targets.qnn import QnnTarget
from torch2mobile.pipeline.candidates import candidate, interface, runner_of
from torch2mobile.pipeline.conversion import convert
from torch2mobile.records import ArtifactEntry, InputSpec, Job, OnnxModel, OutputSpec, Status

TARGET = QnnTarget()
(QNN,) = TARGET.variants
WAIT = 60.0
installed = pytest.mark.skipif(bool(TARGET.missing()), reason=f"{TARGET.missing()}")
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(8, 16)).astype(np.float32)
BIAS = RNG.normal(size=(8,)).astype(np.float32)


def spec(text: str) -> InputSpec:
    found = parse_input(text)
    assert isinstance(found, InputSpec)
    return found


def written(folder: Path, activation: str, **attributes: Any) -> OnnxModel:
    """A layer over a batch that varies, and an activation."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1),
            helper.make_node(activation, ["h"], ["y"], name="last", **attributes),
        ],
        "g",
        [info("x", TensorProto.FLOAT, ["N", 16])],
        [info("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    path = folder / "model.onnx"
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    outputs = (OutputSpec("y", "float32", ("N", 8)),)
    return OnnxModel(path, 18, (spec("x:float32[N=1..8,16]"),), outputs, {})


@installed
@pytest.mark.slow
def test_a_fault_in_the_file_changes_the_answer(tmp_path: Path) -> None:
    model = written(tmp_path, "LeakyRelu", alpha=0.25)
    out = tmp_path / "out"
    out.mkdir()
    with Worker() as tools:
        made = convert(Job(model, QNN, None, out, {"x": (3, 16)}), tools, WAIT)
    path = made.files[0]
    assert path.name == "model.qnn.onnx"
    assert (variant_of(path), variant_of(model.path)) == (QNN, ONNX)
    entry = ArtifactEntry(QNN, {}, {}, made.shapes)
    x = RNG.normal(size=(3, 16)).astype(np.float32)
    linear = x @ WEIGHT.T + BIAS
    wanted = np.where(linear < 0, linear / 4, linear)

    def run() -> np.ndarray:
        found = candidate(path, entry, model.inputs, model.outputs, WAIT)
        with found.process:
            assert interface(found, model.inputs, model.outputs).status is Status.PASSED
            with pytest.raises(ProbeRefusedError, match="x to 3x16"):
                found.runner.run({"x": x[:1]})
            ((_, answer),) = found.runner.run({"x": x})
        return answer

    right = run()
    # It computes in float16, as the phone does: near, and not equal.
    np.testing.assert_allclose(right, wanted, atol=0.03)
    assert np.abs(right - wanted).max() > 1e-5
    raw = path.read_bytes()
    assert raw.count(BIAS.tobytes()) == 1
    path.write_bytes(raw.replace(BIAS.tobytes(), (BIAS + 1).tobytes()))
    assert np.abs(run() - right).max() > 0.2
    changed = onnx.load_from_string(raw)
    changed.graph.node[1].attribute[0].f = 0.75
    onnx.save(changed, path)
    assert np.abs(run() - right).max() > 0.2
    path.write_bytes(raw[:100])
    with (
        runner_of(path, QNN, WAIT) as runner,
        pytest.raises(ModelFileError, match=r"cannot load model\.qnn\.onnx"),
    ):
        runner.load()


@installed
@pytest.mark.slow
def test_an_operator_that_the_npu_has_not_is_named(tmp_path: Path) -> None:
    model = written(tmp_path, "Shrink", lambd=0.5)
    (tmp_path / "out").mkdir()
    job = Job(model, QNN, None, tmp_path / "out", {"x": (3, 16)})
    with Worker() as tools, pytest.raises(ConversionError, match=r"does not take Shrink \(last\)"):
        convert(job, tools, WAIT)
