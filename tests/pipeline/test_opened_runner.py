"""ONNX Runtime's files show their inside, in a copy that the same runtime runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from torch2mobile.exporter.bundle import load_bundle, read_case
from torch2mobile.pipeline.candidates import kind_of, runner_of


@pytest.mark.parametrize("name", ["model.onnx", "model.ort"])
def test_all_values_and_the_outputs_of_the_file(pair: Any, name: str) -> None:
    bundle = load_bundle(pair.path)
    feeds, _ = read_case(bundle.file(bundle.manifest.golden[0].file))
    path = bundle.file(name)
    with runner_of(path, kind_of(path), 60.0) as runner:
        outputs = dict(runner.run(feeds))
        layers = runner.layers()
        names = [name for layer in layers for name in layer.outputs]
        shown = runner.values(feeds, names)
    assert {layer.name for layer in layers if layer.kind == "Input"} == set(feeds)
    assert len(layers) > len(feeds)
    for name, value in {**feeds, **outputs}.items():
        np.testing.assert_allclose(shown[name], value, rtol=1e-5)
    made = {name: place for place, layer in enumerate(layers) for name in layer.outputs}
    assert all(made[name] < place for place, each in enumerate(layers) for name in each.inputs)


def test_weights_beside_the_file_and_branches_are_in_the_copy(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    inner = [
        helper.make_graph([helper.make_node(kind, ["y"], [kind])], kind, [], [info(kind, 1, [3])])
        for kind in ("Neg", "Abs")
    ]
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["y"], name="scaled"),
        helper.make_node("If", ["c"], ["z"], then_branch=inner[0], else_branch=inner[1]),
        helper.make_node("Exp", ["x"], ["unread"]),
    ]
    weight = onnx.numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")
    given = [info("x", TensorProto.FLOAT, [3]), info("c", TensorProto.BOOL, [])]
    graph = helper.make_graph(nodes, "g", given, [info("z", 1, [3])], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    x = np.ones(3, np.float32)
    with runner_of(path, kind_of(path), 60.0) as runner:
        layers = {layer.name: layer for layer in runner.layers()}
        shown = runner.values({"x": x, "c": np.array(True)}, ["y", "z"])
    assert list(layers) == ["x", "c", "scaled", "z"]
    assert layers["z"].inputs == ("c", "y")
    np.testing.assert_array_equal(shown["y"], [1, 2, 3])
    np.testing.assert_array_equal(shown["z"], [-1, -2, -3])
