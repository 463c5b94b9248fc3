import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from torch2mobile import onnx_types
from torch2mobile.errors import ModelFileError, UsageError
from torch2mobile.onnx_types import ValueType
from torch2mobile.validators.coverage import graph

F = TensorProto.FLOAT


def _two_convs(batch: int | str = "N") -> onnx.ModelProto:
    node = helper.make_node
    return helper.make_model(
        helper.make_graph(
            [
                node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3]),
                node("Constant", [], ["axes"], value_ints=[2, 3]),
                node("ReduceMean", ["a", "axes"], ["y"]),
            ],
            "g",
            [helper.make_tensor_value_info("x", F, [batch, 3, 8, 8])],
            [helper.make_tensor_value_info("y", F, None)],
            [onnx.numpy_helper.from_array(np.zeros((16, 3, 3, 3), np.float32), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )


def test_types_constants_and_ranks_are_there() -> None:
    found = graph.read(_two_convs())
    conv, _, mean = found.nodes
    assert conv.input_type(0) == ValueType("tensor(float)", ("N", 3, 8, 8))
    assert conv.output_type(0).dims == ("N", 16, 6, 6)
    assert conv.is_constant(1)
    assert not conv.is_constant(0)
    assert mean.constant(1).tolist() == [2, 3]
    assert mean.output_type(0).dims == ("N", 16, 1, 1)
    assert not mean.has_input(2)
    assert mean.input_type(2) is onnx_types.UNKNOWN


def test_weights_are_left_out_and_still_have_a_size() -> None:
    proto = _two_convs()
    big = onnx.numpy_helper.from_array(np.zeros((400, 3, 3, 3), np.float32), "w")
    proto.graph.initializer[0].CopyFrom(big)
    found = graph.read(proto)
    assert found.nodes[0].constant(1) is None
    assert found.nodes[0].is_constant(1)
    assert found.nodes[0].output_type(0).dims == ("N", 400, 6, 6)
    assert len(found.proto.SerializeToString()) < 2000
    assert proto.graph.initializer[0].raw_data  # the caller's model keeps its own


def test_an_initializer_that_an_input_overrides_is_no_constant() -> None:
    proto = _two_convs()
    proto.graph.input.append(helper.make_tensor_value_info("w", F, [16, 3, 3, 3]))
    assert not graph.read(proto).nodes[0].is_constant(1)


def test_a_fixed_size_reaches_every_value_and_leaves_the_model_alone() -> None:
    proto = onnx.shape_inference.infer_shapes(_two_convs())
    before = proto.SerializeToString()
    found = graph.read(proto, {"N": 5})
    assert found.nodes[0].output_type(0).dims == (5, 16, 6, 6)
    assert found.nodes[0].input_type(0).static
    assert proto.SerializeToString() == before


def test_a_computed_size_follows_a_fixed_one() -> None:
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    proto = helper.make_model(
        helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("x", F, ["N", 2])],
            [helper.make_tensor_value_info("y", F, ["2*N", 2])],
        )
    )
    assert graph.read(proto, {"N": 3}).nodes[0].output_type(0).dims == (6, 2)


def test_an_unknown_symbol_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="--fix-dim M") as caught:
        graph.read(_two_convs(), {"M": 1})
    assert "N" in caught.value.remedy
    with pytest.raises(UsageError) as caught:
        graph.read(_two_convs(2), {"N": 1})
    assert "all its sizes are fixed" in caught.value.remedy


def test_a_model_that_is_not_sound_is_a_clear_error() -> None:
    """It has two outputs, and onnx itself gives up over one that has not."""
    node = helper.make_node("CausalConvWithState", ["x", "w"], ["z"])
    values = [helper.make_tensor_value_info(name, F, [1, 2, 4]) for name in "xw"]
    out = [helper.make_tensor_value_info("z", F, None)]
    body = helper.make_graph([node], "g", values, out)
    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", 27)])
    with pytest.raises(ModelFileError, match="not as ONNX defines a model"):
        graph.read(proto)


def test_functions_of_the_model_are_inlined() -> None:
    body = [helper.make_node("Mul", ["a", "a"], ["b"]), helper.make_node("Relu", ["b"], ["c"])]
    function = helper.make_function(
        "local", "Square", ["a"], ["c"], body, [helper.make_opsetid("", 20)]
    )
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Square", ["x"], ["y"], domain="local")],
            "g",
            [helper.make_tensor_value_info("x", F, [2])],
            [helper.make_tensor_value_info("y", F, None)],
        ),
        functions=[function],
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("local", 1)],
    )
    found = graph.read(proto)
    assert [node.op for node in found.nodes] == ["Mul", "Relu"]
    assert found.nodes[1].input_type(0) == ValueType("tensor(float)", (2,))


def test_subgraphs_see_what_is_outside() -> None:
    branch = helper.make_graph(
        [helper.make_node("Mul", ["x", "k"], ["o"])],
        "branch",
        [],
        [helper.make_tensor_value_info("o", F, None)],
    )
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
            "g",
            [
                helper.make_tensor_value_info("c", TensorProto.BOOL, []),
                helper.make_tensor_value_info("x", F, [2]),
            ],
            [helper.make_tensor_value_info("y", F, None)],
            [onnx.numpy_helper.from_array(np.float32(2), "k")],
        )
    )
    found = graph.read(proto)
    assert [node.op for node in found.nodes] == ["If"]
    assert [node.op for node in found.subgraph_nodes] == ["Mul", "Mul"]
    inner = found.subgraph_nodes[0]
    assert inner.is_constant(1)
    assert inner.output_type(0).text == "tensor(float)"


def test_types_of_onnx_runtimes_own_operators_come_from_its_schemas() -> None:
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("BiasGelu", ["x", "b"], ["h"], domain="com.microsoft"),
                helper.make_node("Relu", ["h"], ["y"]),
            ],
            "g",
            [helper.make_tensor_value_info(name, F, [4]) for name in "xb"],
            [helper.make_tensor_value_info("y", F, None)],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)],
    )
    assert graph.read(proto).nodes[1].input_type(0).text == "tensor(float)"


@pytest.mark.parametrize(
    "text",
    ["tensor(float16)", "seq(tensor(int64))", "optional(seq(tensor(float)))", "tensor(int4)"],
)
def test_a_type_survives_the_way_to_a_proto_and_back(text: str) -> None:
    assert onnx_types.type_of(onnx_types.type_proto(ValueType(text))).text == text
