"""What is read of an .onnx file, and what is told of one that no reader can make out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import torch2mobile
from torch2mobile import onnx_files, onnx_schema
from torch2mobile.errors import ModelFileError
from torch2mobile.records import Status


def written(model: Any, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


class TestReadModel:
    @pytest.mark.parametrize(
        ("raw", "message"),
        [
            (b"", "is empty"),
            (damage.dense().SerializeToString()[:80], "no ONNX file, or is truncated"),
            (b"not a model at all", "no ONNX file"),
            (b"\n", "no"),
        ],
        ids=["empty", "truncated", "text", "no graph"],
    )
    def test_what_is_no_model_is_refused(self, tmp_path: Path, raw: bytes, message: str) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(raw)
        with pytest.raises(ModelFileError, match=message):
            onnx_files.read_model(path)

    def test_what_cannot_be_read_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match="there is no file"):
            onnx_files.read_model(tmp_path / "missing")
        with pytest.raises(ModelFileError, match=r"cannot read .*too long"):
            onnx_files.read_model(tmp_path / ("a" * 5000))

    def test_a_graph_without_outputs_is_refused(self, tmp_path: Path) -> None:
        model = damage.dense()
        del model.graph.output[:]
        with pytest.raises(ModelFileError, match="no graph with outputs"):
            onnx_files.read_model(written(model, tmp_path))

    @pytest.mark.parametrize("made", damage.MODELS.values(), ids=damage.MODELS)
    def test_an_outline_of_small_weights_is_the_model(
        self, made: Callable[[], Any], tmp_path: Path
    ) -> None:
        assert onnx_files.outline(written(made(), tmp_path)) == made()

    @pytest.mark.parametrize("raw", [True, False], ids=["raw_data", "float_data"])
    def test_an_outline_has_all_but_large_values(self, tmp_path: Path, *, raw: bool) -> None:
        model, values = damage.dense(), np.ones((40, 30), np.float32)
        kept = numpy_helper.from_array(np.ones(2, np.float32), "kept")
        large = numpy_helper.from_array(values, "large")
        if not raw:
            large = helper.make_tensor("large", TensorProto.FLOAT, values.shape, values.ravel())
        model.graph.initializer.extend([large, kept])
        path = written(model, tmp_path)
        (tensor,) = (each for each in model.graph.initializer if each.name == "large")
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        assert onnx_files.outline(path) == model

    def test_an_outline_keeps_long_names_and_notes(self, tmp_path: Path) -> None:
        model = damage.dense()
        texts = helper.make_tensor("text" * 999, TensorProto.STRING, [2], ["a", "b" * 9999])
        texts.doc_string = "note" * 999
        model.graph.initializer.append(texts)
        assert onnx_files.outline(written(model, tmp_path)) == model

    def test_an_outline_merges_a_graph_in_two_parts(self, tmp_path: Path) -> None:
        model = damage.dense()
        nodes = [*model.graph.node]
        rest = onnx.ModelProto(graph=onnx.GraphProto(node=nodes))
        del model.graph.node[:]
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString() + rest.SerializeToString())
        assert [*onnx_files.outline(path).graph.node] == nodes

    def test_text_that_is_none_has_no_outline(self, tmp_path: Path) -> None:
        path = written(damage.dense(), tmp_path)
        (name, *_) = (node.name or node.op_type for node in damage.dense().graph.node)
        path.write_bytes(path.read_bytes().replace(name.encode(), b"\xff" * len(name)))
        with pytest.raises(ModelFileError, match=r"no UTF-8"):
            onnx_files.outline(path)

    def test_no_part_of_a_file_has_an_outline(self, tmp_path: Path) -> None:
        model = damage.dense()
        model.graph.initializer.append(numpy_helper.from_array(np.ones(999), "large"))
        path = written(model, tmp_path)
        whole = path.read_bytes()
        for size in range(0, len(whole) - 1, 97):
            path.write_bytes(whole[:size])
            with pytest.raises(ModelFileError, match=r"empty|truncated|no graph"):
                onnx_files.outline(path)

    @pytest.mark.parametrize("made", damage.MODELS.values(), ids=damage.MODELS)
    def test_a_sound_model_is_read(self, made: Callable[[], Any], tmp_path: Path) -> None:
        found: Any = onnx_files.read_model(written(made(), tmp_path))
        assert found == made()
        assert onnx_schema.problems(found, tmp_path) == []


def _weight(model: Any) -> Any:
    return model.graph.initializer[0]


def _constant(model: Any) -> Any:
    return model.graph.node[0].attribute[0].t


def _elsewhere(tensor: Any, location: str, **more: Any) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))


def _repeat(model: Any) -> None:
    model.graph.node[0].attribute.append(model.graph.node[0].attribute[0])


def _typed(model: Any) -> None:
    _weight(model).ClearField("raw_data")
    _weight(model).float_data.extend([1.0, 2.0])


BROKEN: dict[str, tuple[Callable[[Any], object], str]] = {
    "short raw data": (
        lambda m: setattr(_weight(m), "raw_data", bytes(5)),
        "has 5 bytes of values, and its type and size need 128",
    ),
    "short typed data": (_typed, "has not the values that its size needs: 32"),
    "no values": (lambda m: _weight(m).ClearField("raw_data"), "has not the values"),
    "a negative dimension": (lambda m: _weight(m).dims.append(-1), "has a dimension of -1"),
    "dtype 999": (
        lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", 999),
        "the value 'x' is of the element type 999, which there is not",
    ),
    "a weight of dtype 999": (
        lambda m: setattr(_weight(m), "data_type", 999),
        "the weight 'w' is of the element type 999",
    ),
    "opset 2^60": (
        lambda m: setattr(m.opset_import[0], "version", 2**60),
        f"opset {2**60} of ai.onnx is no version",
    ),
    "an attribute twice": (_repeat, "the attribute value is there twice"),
    "a Constant without an output": (
        lambda m: m.graph.node[0].ClearField("output"),
        "Constant has 0 outputs",
    ),
    "an attribute without a type": (
        lambda m: m.graph.node[0].attribute[0].ClearField("type"),
        "is of no type that there is",
    ),
    "a missing file": (
        lambda m: _elsewhere(_constant(m), "gone.data"),
        "Constant: the attribute value has its values in 'gone.data', and there is no such file",
    ),
    "out of the folder": (
        lambda m: _elsewhere(_constant(m), "../../etc/passwd"),
        "leads out of the model's folder",
    ),
    "an absolute path": (
        lambda m: _elsewhere(_constant(m), "/etc/passwd"),
        "leads out of the model's folder",
    ),
    "the folder itself": (lambda m: _elsewhere(_weight(m), "."), "there is no such file"),
    "beyond the end": (
        lambda m: _elsewhere(_weight(m), "model.onnx", offset=10**6),
        "has its values at 1,000,000 to 1,000,128 in 'model.onnx' of",
    ),
    "a length that does not fit": (
        lambda m: _elsewhere(_weight(m), "model.onnx", length=4),
        "has 4 bytes of values",
    ),
    "no number": (
        lambda m: _elsewhere(_weight(m), "model.onnx", offset="-1"),
        "at a place that is no number",
    ),
    "no name": (
        lambda m: setattr(_weight(m), "data_location", TensorProto.EXTERNAL),
        "does not say in which",
    ),
}


@pytest.mark.parametrize(("damaged", "message"), BROKEN.values(), ids=BROKEN)
def test_what_onnx_does_not_allow_is_named(
    damaged: Callable[[Any], object], message: str, tmp_path: Path
) -> None:
    model = damage.dense()
    damaged(model)
    (found,) = onnx_schema.problems(onnx_files.read_model(written(model, tmp_path)), tmp_path)
    assert message in found.text


def test_a_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    raw = damage.dense().SerializeToString().replace(b"matmul", b"mat\xff\xfel")
    (tmp_path / "model.onnx").write_bytes(raw)
    with pytest.raises(ModelFileError, match=r"is damaged: name .* is no UTF-8"):
        onnx_files.read_model(tmp_path / "model.onnx")


def test_what_is_in_branches_and_functions_is_looked_at(tmp_path: Path) -> None:
    inner = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32(1)))
    _elsewhere(inner.attribute[0].t, "gone")
    branching, functional = damage.branching(), damage.functional()
    branching.graph.node[2].attribute[0].g.node.append(inner)
    functional.functions[0].node.append(inner)
    for model in (branching, functional):
        (found,) = onnx_schema.problems(model, tmp_path)
        assert (found.node, found.op) == ("c", "Constant")


def test_small_external_tensors_are_taken_in(tmp_path: Path) -> None:
    model = damage.external(tmp_path)
    assert onnx_schema.problems(model, tmp_path) == []
    onnx_schema.load_small(model, tmp_path, 31)
    assert model == damage.external(tmp_path)
    onnx_schema.load_small(model, tmp_path, 32)
    assert model == damage.dense()


def test_what_onnx_raises_is_about_the_model_and_what_we_raise_is_not() -> None:
    wrong = helper.make_node("Relu", ["nowhere"], ["y"])
    model = onnx.ModelProto(graph=onnx.GraphProto(node=[wrong]), ir_version=10)
    refused = pytest.raises(ModelFileError, match="the model is not as ONNX defines a model")
    with refused, onnx_files.understood("the model"):
        onnx.shape_inference.infer_shapes(model, strict_mode=True)
    with pytest.raises(ModelFileError, match="999"), onnx_files.understood("the model"):
        TensorProto.DataType.Name(999)
    with pytest.raises(ZeroDivisionError), onnx_files.understood("the model"):
        _ = 1 / 0


def nested(depth: int, last: str) -> onnx.ModelProto:
    """Functions that each call the one below twice, the deepest one ``last``."""
    functions, below = [], ("", last)
    for level in range(depth):
        nodes = [
            helper.make_node(below[1], ["x"], ["t"], domain=below[0]),
            helper.make_node(below[1], ["t"], ["y"], domain=below[0]),
        ]
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", f"F{level}", ["x"], ["y"], nodes, opsets))
        below = ("own", f"F{level}")
    node = helper.make_node(below[1], ["x"], ["y"], domain="own")
    info = [helper.make_tensor_value_info(name, 1, [3]) for name in ("x", "y")]
    graph = helper.make_graph([node], "graph", info[:1], info[1:])
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (nested(10, "Relu"), ""),
        (nested(20, "Relu"), "are 1,048,576 nodes: at most 200,000 are looked at"),
        (nested(3000, "Relu"), r"are some 2\^3000 nodes"),
    ],
)
def test_functions_are_counted_before_they_are_written_out(
    model: onnx.ModelProto, text: str, tmp_path: Path
) -> None:
    found = onnx_schema.problems(model, tmp_path)
    assert bool(found) == bool(text)
    assert all(re.search(text, problem.text) for problem in found)


def test_a_function_that_calls_itself_is_named(tmp_path: Path) -> None:
    model = nested(2, "Relu")
    model.functions[0].node[0].op_type, model.functions[0].node[0].domain = "F1", "own"
    (found,) = onnx_schema.problems(model, tmp_path)
    assert re.fullmatch("the function F[01] calls itself", found.text)


def test_check_ends_soon_on_functions_in_functions(tmp_path: Path) -> None:
    onnx.save(nested(60, "Relu"), tmp_path / "deep.onnx")
    report = torch2mobile.check(tmp_path / "deep.onnx").report
    assert report.status is Status.FAILED
    assert "2^60 nodes" in str(report.checks)
