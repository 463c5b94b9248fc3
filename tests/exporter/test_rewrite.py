"""Rewrites of ONNX graphs: exact where they apply, and nothing where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

import torch2mobile
from torch2mobile.exporter import rewrite
from torch2mobile.exporter.control_flow import CODES
from torch2mobile.exporter.rewrite import REWRITES
from torch2mobile.onnx_graph import attribute
from torch2mobile.pipeline import rewriting
from torch2mobile.records import OnnxModel, Origin, ParityOptions, Status
from torch2mobile.validators.coverage.rules import RULES

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(12, 3, 3, 3)).astype(np.float32)
BIAS = RNG.normal(size=12).astype(np.float32)
CONV = helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1])
SHUFFLE = helper.make_node("DepthToSpace", ["d"], ["y"], "shuffle", blocksize=2, mode="CRD")


def model_of(*nodes: onnx.NodeProto, rank: int = 4, **weights: np.ndarray) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    made = [numpy_helper.from_array(a, name) for name, a in weights.items()]
    graph = helper.make_graph(list(nodes), "g", [x], [y], made)
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def apply(model: onnx.ModelProto, code: str, folder: Path) -> tuple[onnx.ModelProto, int]:
    """The rewritten model, equal to the old one in ONNX Runtime, and how often it was changed."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    origin = Origin(("body",), "net.py", 3, "y = f(x)")
    origins = {name: (origin,) for node in model.graph.node for name in node.output}
    before = path.read_bytes()
    wrapped = OnnxModel(path, 18, (), (), origins)
    result, counts = rewrite.rewrite(wrapped, (code,))
    (count,) = counts.values()
    if not count:
        assert path.read_bytes() == before
        assert result == wrapped
    after = onnx.load(path)
    onnx.checker.check_model(after, full_check=True)
    assert all(result.origins.get(name) for node in after.graph.node for name in node.output)
    for shape in ((2, 3, 4, 6), (1, 3, 2, 2)):
        feeds = {"x": RNG.normal(size=shape).astype(np.float32)}
        np.testing.assert_allclose(run(after, feeds), run(model, feeds), rtol=1e-5, atol=1e-6)
    return after, count


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    result: np.ndarray = session.run(None, feeds)[0]
    return result


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def mean(keepdims: int, axes: str = "a") -> onnx.NodeProto:
    return helper.make_node("ReduceMean", ["x", axes], ["y"], "mean", keepdims=keepdims)


def test_a_mean_over_space_becomes_a_pool(tmp_path: Path) -> None:
    axes = np.array([2, 3])
    assert operators(apply(model_of(mean(1), a=axes), "T2M401", tmp_path)[0]) == [
        "GlobalAveragePool"
    ]
    negative = model_of(mean(0), rank=2, a=np.array([-1, -2]))
    after, count = apply(negative, "T2M401", tmp_path)
    assert (operators(after), count) == (["GlobalAveragePool", "Flatten"], 1)
    assert not after.graph.initializer


@pytest.mark.parametrize("axes", [[1], [3], [1, 2, 3], [0, 2]])
def test_another_mean_stays(axes: list[int], tmp_path: Path) -> None:
    after, count = apply(model_of(mean(1), a=np.array(axes)), "T2M401", tmp_path)
    assert (operators(after), count) == (["ReduceMean"], 0)


BETWEEN: dict[str, list[Any]] = {
    "nothing": [helper.make_node("Identity", ["c"], ["unused"])],
    "relu": [helper.make_node("Relu", ["c"], ["d"])],
    "scale a channel": [helper.make_node("Mul", ["c", "s"], ["d"])],
    "scale all": [helper.make_node("Mul", ["k", "c"], ["d"])],
    "add an input": [
        helper.make_node("ReduceSum", ["x", "one"], ["m"]),
        helper.make_node("Add", ["c", "m"], ["r"]),
        helper.make_node("Clip", ["r", "", "k"], ["d"]),
    ],
}


@pytest.mark.parametrize("name", BETWEEN)
def test_depth_to_space_in_the_other_order(name: str, tmp_path: Path) -> None:
    weights = {
        "w": WEIGHT,
        "b": BIAS,
        "s": RNG.normal(size=(12, 1, 1)).astype(np.float32),
        "k": np.array(0.5, np.float32),
        "one": np.array([1]),
    }
    conv = CONV
    between = BETWEEN[name]
    if name == "nothing":
        conv = helper.make_node("Conv", ["x", "w", "b"], ["d"], "conv", pads=[1, 1, 1, 1])
        between = []
    after, count = apply(model_of(conv, *between, SHUFFLE, **weights), "T2M402", tmp_path)
    assert count == 1
    shuffle = next(node for node in after.graph.node if node.op_type == "DepthToSpace")
    assert attribute(shuffle, "mode") == "DCR"
    assert "Gather" not in operators(after)


def test_a_convolution_whose_weight_is_used_twice(tmp_path: Path) -> None:
    twice = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "one", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "w", "b"], ["d"], "two", pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["c"], ["s"], blocksize=2, mode="CRD"),
        helper.make_node("DepthToSpace", ["d"], ["t"], blocksize=2, mode="CRD"),
        helper.make_node("Add", ["s", "t"], ["y"]),
    ]
    after, count = apply(model_of(*twice, w=WEIGHT, b=BIAS), "T2M402", tmp_path)
    names = [tensor.name for tensor in after.graph.initializer]
    assert count == 2
    assert len(set(names)) == len(names)


def test_codes_are_resolved_before_they_are_looked_up() -> None:
    assert rewriting.check_codes(("t2m160", "float64", "T2M402")) == ("T2M160", "T2M402")
    assert rewriting.check_codes(()) == ()


def test_what_would_not_be_the_same_stays(tmp_path: Path) -> None:
    grouped = helper.make_node("Conv", ["x", "w", "b"], ["d"], pads=[1, 1, 1, 1], group=3)
    thin = {"w": WEIGHT[:, :1].copy(), "b": BIAS}
    assert apply(model_of(grouped, SHUFFLE, **thin), "T2M402", tmp_path)[1] == 0
    softmax = helper.make_node("Softmax", ["c"], ["d"], axis=1)
    plain = {"w": WEIGHT, "b": BIAS}
    assert apply(model_of(CONV, softmax, SHUFFLE, **plain), "T2M402", tmp_path)[1] == 0
    read_twice = [
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("DepthToSpace", ["d"], ["z"], blocksize=2, mode="CRD"),
        helper.make_node("ReduceMax", ["c"], ["m"]),
        helper.make_node("Add", ["z", "m"], ["y"]),
    ]
    assert apply(model_of(CONV, *read_twice, **plain), "T2M402", tmp_path)[1] == 0
    dcr = helper.make_node("DepthToSpace", ["d"], ["y"], blocksize=2, mode="DCR")
    relu = helper.make_node("Relu", ["c"], ["d"])
    assert apply(model_of(CONV, relu, dcr, **plain), "T2M402", tmp_path)[1] == 0


def test_float64_between_float32(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["l"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["l", "k"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    after, count = apply(model_of(*nodes, k=np.array([1.5])), "T2M160", tmp_path)
    assert count == 2
    assert after.graph.initializer[0].data_type == TensorProto.FLOAT
    assert {a.i for n in after.graph.node for a in n.attribute} == {TensorProto.FLOAT}


def test_float64_outputs_stay(tmp_path: Path) -> None:
    model = model_of(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    assert apply(model, "T2M160", tmp_path)[1] == 0


def test_every_rewrite_is_told_by_its_rule() -> None:
    told = {code for code, rule in RULES.items() if rule.rewrite}
    assert told == {*REWRITES, *CODES}
    names = [one.name for group in REWRITES.values() for one in group]
    names += [name for name, _ in CODES.values()]
    assert len(set(names)) == len(names)


class Upsampler(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = F.pixel_shuffle(torch.relu(self.conv(x)) + x[:, :1], 2)
        return y, y.mean((2, 3))


def export(out: Path, *codes: str) -> Any:
    torch.manual_seed(0)
    return torch2mobile.export(
        Upsampler().eval(),
        inputs=["x:float32[N=1..2,3,H=4..8,W=4..8]"],
        out=out,
        targets=(),
        rewrites=codes,
        simplify=False,
        parity=ParityOptions(probes=2),
    )


@pytest.mark.slow
def test_an_export_with_rewrites_names_them_and_passes_parity(tmp_path: Path) -> None:
    result = export(tmp_path / "bundle", "T2M401", "T2M402", "T2M160")
    assert result.passed, str(result)
    check = next(check for check in result.report.checks if check.name == "rewrite")
    assert check.summary == (
        "mean-to-global-pool (1), depth-to-space-order (1); nothing for float64-to-float32"
    )
    assert result.report.request.rewrites == ("T2M401", "T2M402", "T2M160")
    kinds = operators(onnx.load(result.bundle.file("model.onnx")))
    assert "GlobalAveragePool" in kinds
    assert "ReduceMean" not in kinds


@pytest.mark.slow
def test_a_rewrite_that_is_wrong_is_caught_by_parity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(graph: Any) -> int:
        node = next(n for n in graph.graph.node if n.op_type == "DepthToSpace")
        next(a for a in node.attribute if a.name == "mode").s = b"DCR"
        return 1

    broken = rewrite.Rewrite("broken", "forget the convolution", wrong)
    monkeypatch.setitem(REWRITES, "T2M402", (broken,))
    result = export(tmp_path / "bundle", "T2M402")
    assert result.exit_code == 1
    statuses = {check.name: check.status for check in result.report.checks}
    assert statuses["rewrite"] is Status.PASSED
    assert statuses["parity"] is Status.FAILED
    assert result.bundle is None
