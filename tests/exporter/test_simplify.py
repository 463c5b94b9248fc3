"""onnxsim in a worker: what it gives, and what is made of its own doubts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from torch2mobile.environments import Worker
from torch2mobile.errors import MissingToolError, ModelFileError
from torch2mobile.exporter.simplify import CANDIDATES, candidate

FUNCTION = "torch2mobile.exporter.simplify:candidate"
WAYS = list(CANDIDATES)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(preload=["onnx", "onnxsim"]) as worker:
        yield worker


@pytest.fixture
def foldable(tmp_path: Path) -> Path:
    """``x @ weight + (1 + 2)``, with an Identity on the way."""
    weight = np.arange(600, dtype="f4").reshape(20, 30)
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Add", ["one", "two"], ["three"]),
                helper.make_node("Identity", ["x"], ["same"]),
                helper.make_node("MatMul", ["same", "weight"], ["product"]),
                helper.make_node("Add", ["product", "three"], ["y"]),
            ],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 20])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 30])],
            [
                helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
                helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]),
                onnx.numpy_helper.from_array(weight, "weight"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(model, tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


def outputs(path: Path) -> Any:
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {"x": np.ones((3, 20), "f4")})[0]


@pytest.mark.parametrize("way", WAYS)
def test_it_folds_and_stays_the_same_function(worker: Worker, foldable: Path, way: str) -> None:
    target = foldable.with_name("out.onnx")
    counts = worker.call(FUNCTION, way, str(foldable), str(target), False, timeout=120)
    if way == "fusions, views":
        assert counts == {"before": 4, "after": 4, "same": True, "alike": True}
        return
    kept = onnx.load(target).graph
    assert counts == {"before": 4, "after": len(kept.node), "same": False, "alike": True}
    assert counts["after"] < 4
    assert kept.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    np.testing.assert_array_equal(outputs(target), outputs(foldable))
    assert sorted(path.name for path in foldable.parent.iterdir()) == ["in.onnx", "out.onnx"]


def test_external_data_in_and_out(worker: Worker, foldable: Path) -> None:
    onnx.save(onnx.load(foldable), foldable, save_as_external_data=True, location="in.onnx.data")
    assert (foldable.parent / "in.onnx.data").stat().st_size == 2400
    for external in (False, True):
        target = foldable.with_name(f"out{external}.onnx")
        worker.call(FUNCTION, WAYS[0], str(foldable), str(target), external, timeout=120)
        assert target.with_name(target.name + ".data").exists() is external
        np.testing.assert_array_equal(outputs(target), outputs(foldable))


def test_the_worker_has_no_torch(worker: Worker) -> None:
    with pytest.raises(MissingToolError, match="ModuleNotFoundError"):
        worker.call("importlib:import_module", "torch", timeout=60)


@pytest.mark.parametrize("content", [b"", b"no model at all"])
def test_what_cannot_be_read_comes_back_as_an_error(
    worker: Worker, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "in.onnx").write_bytes(content)
    given = (WAYS[0], str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx"), False)
    with pytest.raises(ModelFileError, match=r"in\.onnx is"):
        worker.call(FUNCTION, *given, timeout=60)
    assert not (tmp_path / "out.onnx").exists()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Put a function in the place of onnxsim's."""

    def put(simplify: Any) -> None:
        monkeypatch.setitem(sys.modules, "onnxsim", SimpleNamespace(simplify=simplify))

    return put


def test_onnxsims_own_doubt_is_an_error(fake: Callable[[Any], None], foldable: Path) -> None:
    target = foldable.with_name("out.onnx")
    fake(lambda model, **_: (model, False))
    with pytest.raises(ValueError, match="onnxsim's own check says"):
        candidate("onnxsim", str(foldable), str(target), False)
    assert not target.exists()
    fake(lambda model, **_: (model, True))
    counts = candidate("onnxsim", str(foldable), str(target), False)
    assert counts == {"before": 4, "after": 4, "same": True, "alike": True}


def test_another_interface_is_told(fake: Callable[[Any], None], foldable: Path) -> None:
    def renamed(model: onnx.ModelProto, **_: Any) -> Any:
        found = onnx.ModelProto()
        found.CopyFrom(model)
        found.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "M"
        return found, True

    fake(renamed)
    counts = candidate("onnxsim", str(foldable), str(foldable.with_name("out.onnx")), False)
    assert not counts["alike"]


def test_what_onnxsim_prints_is_dropped(
    fake: Callable[[Any], None], foldable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def chatty(model: Any, **_: Any) -> Any:
        sys.stdout.write("Simplifying...")
        return model, True

    fake(chatty)
    candidate("onnxsim", str(foldable), str(foldable.with_name("out.onnx")), False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("way", WAYS)
def test_small_constants_stay(worker: Worker, tmp_path: Path, way: str) -> None:
    """onnxscript's rules take 1e-12 for 0: ``1 / (x + 1e-12)`` is another function without it."""
    nodes = [
        helper.make_node("Add", ["x", "small"], ["sum"]),
        helper.make_node("Reciprocal", ["sum"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [onnx.numpy_helper.from_array(np.float32(1e-12), "small")],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "in.onnx")
    function = "torch2mobile.exporter.simplify:candidate"
    ends = [str(tmp_path / name) for name in ("in.onnx", "out.onnx")]
    counts = worker.call(function, way, *ends, False, timeout=120.0)
    assert counts["after"] == 2
