"""Faults of elementwise functions: an activation for its neighbour, bounds, order of operands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from torch2mobile.onnx_graph import attribute
from torch2mobile.validators.parity.faults.graph_changes import (
    Change,
    Graph,
    Maker,
    fixed,
    fresh,
    input_at,
    swapped,
    with_attributes,
    with_inputs,
    with_op,
    with_tensor,
)

_THIRD: dict[str, Any] = {"alpha": 1 / 6, "beta": 0.5}


def relu_slope(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """Relu for LeakyRelu and back; PRelu for Relu."""
    if node.op_type == "Relu":
        yield fixed(Change("Relu for LeakyRelu(0.01)", [with_op(node, "LeakyRelu", alpha=0.01)]))
        return
    plain = helper.make_node("Relu", node.input[:1], node.output, name=node.name)
    yield fixed(Change(f"{node.op_type} for Relu", [plain]))
    if node.op_type == "LeakyRelu":
        slope = 0.1 if attribute(node, "alpha", 0.01) < 0.05 else 0.01
        yield fixed(Change(f"slope to {slope}", [with_attributes(node, alpha=slope)]))


def gelu_form(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Gelu's exact form for the tanh approximation and back, also where Gelu is written out."""
    if node.op_type == "Gelu":
        other = "none" if attribute(node, "approximate", "none") == "tanh" else "tanh"
        yield fixed(
            Change(f"Gelu approximate to {other}", [with_attributes(node, approximate=other)])
        )
    elif node.op_type == "Erf" and graph.is_float(node.input[0]):
        # Of u = x / sqrt(2): sqrt(2 / pi) * (x + 0.044715 * x^3), as in torch.nn.GELU.
        linear, cubic = np.float32(2 / math.sqrt(math.pi)), np.float32(2 * 0.044715)
        (u,), names = node.input, [fresh(node, word) for word in "abcde"]
        nodes = [
            helper.make_node("Mul", [u, u], names[:1]),
            helper.make_node("Mul", [names[0], fresh(node, "cubic")], names[1:2]),
            helper.make_node("Mul", [names[1], u], names[2:3]),
            helper.make_node("Add", [names[2], u], names[3:4]),
            helper.make_node("Mul", [names[3], fresh(node, "linear")], names[4:]),
            helper.make_node("Tanh", names[4:], node.output, name=node.name),
        ]
        tensors = {fresh(node, "linear"): linear, fresh(node, "cubic"): cubic}
        arrays = {name: np.asarray(value) for name, value in tensors.items()}
        yield fixed(Change("Erf for the tanh of Gelu's approximation", nodes, arrays))


def swish_form(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """HardSwish for Swish and back, also where they are written as a product."""
    if node.op_type in {"HardSwish", "Swish"}:
        to = "Swish" if node.op_type == "HardSwish" else "HardSwish"
        gate = "Sigmoid" if to == "Swish" else "HardSigmoid"
        whole = with_inputs(with_op(node, "Mul"), {1: node.input[0]})
        yield fixed(_gated(whole, 1, gate, f"{node.op_type} for {to}"))
        return
    for index in (0, 1):
        producer = graph.producers.get(node.input[index])
        if producer is not None and producer.input[:1] == [node.input[1 - index]]:
            to = {"Sigmoid": "HardSigmoid", "HardSigmoid": "Sigmoid"}.get(producer.op_type, "")
            if to:
                what = f"x * {producer.op_type}(x) for x * {to}(x)"
                yield fixed(_gated(node, index, to, what))


def _gated(node: NodeProto, index: int, gate: str, what: str) -> Change:
    """The product with one factor replaced by a gate on the other."""
    name, attributes = fresh(node, "gate"), _THIRD if gate == "HardSigmoid" else {}
    inner = helper.make_node(gate, [node.input[1 - index]], [name], **attributes)
    return Change(what, [inner, with_inputs(node, {index: name})])


def sigmoid_form(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """Sigmoid for HardSigmoid and back; HardSigmoid's slope of PyTorch for that of ONNX."""
    if node.op_type == "Sigmoid":
        yield fixed(Change("Sigmoid for HardSigmoid", [with_op(node, "HardSigmoid", **_THIRD)]))
        return
    yield fixed(Change("HardSigmoid for Sigmoid", [with_op(node, "Sigmoid")]))
    slope = 1 / 6 if abs(attribute(node, "alpha", 0.2) - 0.2) < 1e-3 else 0.2
    yield fixed(Change(f"slope to {slope:.3g}", [with_attributes(node, alpha=slope)]))


def smooth_form(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """Elu, Selu, Celu, Softplus, Softsign, Mish, Tanh, LogSoftmax for a neighbour."""
    other = {
        "Elu": "Selu",
        "Selu": "Elu",
        "Celu": "Relu",
        "Softplus": "Relu",
        "Softsign": "Tanh",
        "Mish": "HardSwish",
        "Tanh": "Softsign",
        "LogSoftmax": "Softmax",
    }[node.op_type]
    axis = {"axis": attribute(node, "axis", -1)} if other == "Softmax" else {}
    yield fixed(Change(f"{node.op_type} for {other}", [with_op(node, other, **axis)]))


def clip_bounds(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A bound of Clip lost, or of a Min or Max with a constant."""
    if node.op_type == "Clip":
        for index, name in ((1, "lower"), (2, "upper")):
            if input_at(node, index):
                yield fixed(
                    Change(f"Clip without its {name} bound", [with_inputs(node, {index: ""})])
                )
        return
    for index, name in enumerate(node.input):
        if graph.is_constant(name) and len(node.input) == 2:
            kept = helper.make_node(
                "Identity", [node.input[1 - index]], node.output, name=node.name
            )
            yield fixed(Change(f"{node.op_type} without its constant", [kept]))


def operand_order(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Two inputs of an operator that does not commute, swapped."""
    first, second = (1, 2) if node.op_type == "Where" else (0, 1)
    if node.op_type == "MatMul":
        dims = [graph.dims(name) for name in node.input]
        alike = dims[0] is not None and dims[0] == dims[1] and None not in dims[0]
        if not alike or dims[0] is None or dims[0][-1] != dims[0][-2:][0]:
            return
    if node.input[first] != node.input[second]:
        what = f"inputs {first} and {second} of {node.op_type} swapped"
        yield fixed(Change(what, [swapped(node, first, second)]))


def comparison_strictness(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """Less for LessOrEqual, Greater for GreaterOrEqual, and back."""
    name = node.op_type
    other = name.removesuffix("OrEqual") if name.endswith("OrEqual") else f"{name}OrEqual"
    yield fixed(Change(f"{name} for {other}", [with_op(node, other)]))


def rounding_mode(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Half to even for half up; down for up or towards zero; nearest_mode of Resize."""
    if node.op_type == "Resize":
        if attribute(node, "mode", "nearest") == "nearest":
            mode = attribute(node, "nearest_mode", "round_prefer_floor")
            other = "round_prefer_ceil" if mode == "floor" else "floor"
            change = Change(
                f"nearest_mode {mode} to {other}", [with_attributes(node, nearest_mode=other)]
            )
            yield fixed(change)
    elif node.op_type == "Round" and graph.is_float(node.input[0]):
        raised, half = fresh(node, "raised"), fresh(node, "half")
        nodes = [
            helper.make_node("Add", [node.input[0], half], [raised]),
            helper.make_node("Floor", [raised], node.output, name=node.name),
        ]
        yield fixed(Change("half to even for half up", nodes, {half: np.asarray(np.float32(0.5))}))
    elif node.op_type in {"Floor", "Ceil"}:
        other = {"Floor": "Ceil", "Ceil": "Floor"}[node.op_type]
        yield fixed(Change(f"{node.op_type} for {other}", [with_op(node, other)]))
        whole = fresh(node, "whole")
        nodes = [
            helper.make_node("Cast", [node.input[0]], [whole], to=TensorProto.INT64),
            helper.make_node("Cast", [whole], node.output, name=node.name, to=TensorProto.FLOAT),
        ]
        if graph.is_float(node.input[0]):
            yield fixed(Change(f"{node.op_type} for towards zero", nodes))


def integer_division(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Rounded towards zero for rounded down, or the sign of the remainder."""
    if node.op_type == "Mod":
        if graph.is_whole(node.input[0]):
            other = 1 - attribute(node, "fmod", 0)
            yield fixed(Change(f"Mod fmod to {other}", [with_attributes(node, fmod=other)]))
    elif graph.is_whole(node.input[0]) or graph.is_whole(node.output[0]):
        rest, whole = fresh(node, "rest"), fresh(node, "whole")
        nodes = [
            helper.make_node("Mod", node.input, [rest]),
            helper.make_node("Sub", [node.input[0], rest], [whole]),
            helper.make_node("Div", [whole, node.input[1]], node.output, name=node.name),
        ]
        yield fixed(Change("integer Div rounded down for towards zero", nodes))


def scale_lost(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A Mul or Div by one constant number, left out: attention without its scale."""
    for index in (1,) if node.op_type == "Div" else (0, 1):
        name, kept = node.input[index], node.input[1 - index]
        if graph.is_constant(name) and graph.dims(name) in ((), (1,)) and graph.is_float(kept):
            plain = helper.make_node("Identity", [kept], node.output, name=node.name)
            yield fixed(Change(f"{node.op_type} by a constant left out", [plain]))


def epsilon(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Another framework's epsilon: 1e-3 for 1e-5, also where it is a constant that is added."""
    if node.op_type != "Add":
        usual = attribute(node, "epsilon", 1e-5)
        other = 1e-5 if usual > 5e-4 else 1e-3
        yield fixed(Change(f"epsilon to {other}", [with_attributes(node, epsilon=other)]))
        return
    roots = {"Sqrt", "Rsqrt", "Pow", "Reciprocal", "Div"}
    if not any(user.op_type in roots for user in graph.uses.get(node.output[0], [])):
        return
    for index, name in enumerate(node.input):
        if graph.is_constant(name) and graph.dims(name) in ((), (1,)) and graph.is_float(name):
            yield partial(_other_epsilon, graph, node, index)


def _other_epsilon(
    graph: Graph, node: NodeProto, index: int, _: np.random.Generator
) -> Change | None:
    value = graph.constant(node.input[index])
    if value is None or not 0 < float(value.reshape(())) <= 1e-2:
        return None
    other = 1e-5 if float(value.reshape(())) > 5e-4 else 1e-3
    array = np.full(value.shape, other, value.dtype)
    return with_tensor(node, index, array, f"epsilon to {other}")
