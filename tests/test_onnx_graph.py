"""The one view of an ONNX graph: makers, uses, constants, types and scopes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from torch2mobile import onnx_graph
from torch2mobile.onnx_graph import Graph, Scope, attribute, drop_unread, reads, walk

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL


@pytest.fixture
def model() -> onnx.ModelProto:
    """``y = If(c) { Relu(x) + w } else { own = 2; x * own }``, and a Constant that two read."""
    then = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["kept"]),
            helper.make_node("Add", ["kept", "w"], ["then"], "add"),
        ],
        "then",
        [],
        [helper.make_tensor_value_info("then", FLOAT, ["N"])],
    )
    other = helper.make_graph(
        [helper.make_node("Mul", ["x", "own"], ["else"])],
        "else",
        [],
        [helper.make_tensor_value_info("else", FLOAT, ["N"])],
        [numpy_helper.from_array(np.float32(2), "own")],
    )
    nodes = [
        helper.make_node("Constant", [], ["two"], value_floats=[2.0, 3.0]),
        helper.make_node("If", ["c"], ["y"], "if", then_branch=then, else_branch=other),
        helper.make_node("Mul", ["y", "two"], ["z"]),
        helper.make_node("Add", ["two", "two"], ["four"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*each) for each in (("c", BOOL, []), ("x", FLOAT, ["N"]))],
        [helper.make_tensor_value_info("z", FLOAT, None)],
        [numpy_helper.from_array(np.ones(1, "f4"), name) for name in ("w", "lost")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_makers_and_uses(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    assert graph.producers["z"].op_type == "Mul"
    assert graph.producers["then"].name == "add"  # also in a branch
    assert [node.op_type for node in graph.uses["two"]] == ["Mul", "Add", "Add"]
    assert [node.op_type for node in graph.uses["x"]] == ["Mul", "Relu"]
    assert "z" not in graph.uses
    assert graph.outputs == {"z"}


def test_addresses_lead_to_their_nodes(model: onnx.ModelProto) -> None:
    found = {address: node.op_type for address, node in walk(model.graph)}
    assert found[(1,)] == "If"
    assert found[1, "then_branch", 1] == "Add"
    assert found[1, "else_branch", 0] == "Mul"


def test_what_a_node_reads_from_outside(model: onnx.ModelProto) -> None:
    assert reads(model.graph.node[1]) == ["c", "x", "w"]


def test_constants(model: onnx.ModelProto) -> None:
    graph = Graph(model, {"w": np.zeros(1, "f4")})
    assert [graph.is_constant(name) for name in ("w", "two", "own", "x", "z")] == [
        *(True, True, True, False, False)
    ]
    assert graph.constant("w") == 0  # as was given
    assert graph.constant("two").tolist() == [2, 3]  # type: ignore[union-attr]
    assert graph.constant("z") is None
    assert Scope(model.graph, most=0).constant("lost") is None


def test_a_branch_sees_outwards_and_nobody_sees_into_it(model: onnx.ModelProto) -> None:
    main = Scope(model.graph)
    branch = Scope(dict(onnx_graph.subgraphs(model.graph.node[1]))["then_branch"], main)
    assert branch.type("x").dims == ("N",)
    assert branch.is_constant("w")
    assert branch.defines("kept")
    assert not main.defines("kept")
    assert not branch.defines("nowhere")


def test_types_are_inferred_where_the_file_has_none(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    assert graph.type("y").text == "tensor(float)"
    assert graph.type("y").code == FLOAT
    assert graph.type("nowhere").code == 0
    assert graph.dims("w") == (1,)


def test_unread_initializers_go(model: onnx.ModelProto) -> None:
    drop_unread(model.graph)
    assert [tensor.name for tensor in model.graph.initializer] == ["w"]


def test_attributes_as_python_values() -> None:
    node = helper.make_node("DepthToSpace", ["x"], ["y"], mode="CRD", blocksize=2)
    assert attribute(node, "mode") == "CRD"
    assert attribute(node, "blocksize") == 2
    assert attribute(node, "none", 7) == 7
