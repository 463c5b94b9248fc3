"""Faults that show on unusual values or sizes alone: NaN, rare rows, large integers, one size."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from onnx import NodeProto, TensorProto, helper

from torch2mobile.onnx_graph import attribute
from torch2mobile.validators.parity.faults.graph_changes import (
    Change,
    Graph,
    Maker,
    fixed,
    fresh,
    narrowed,
    with_attributes,
    with_inputs,
    with_tensor,
)


def nan_ignored(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """NaN kept where it was replaced; the other number where Max or Min pass NaN on."""
    if node.op_type == "Where":
        maker = graph.producers.get(node.input[0])
        if maker is not None and maker.op_type == "IsNaN" and maker.input[0] == node.input[2]:
            plain = helper.make_node("Identity", node.input[2:], node.output, name=node.name)
            yield fixed(Change("NaN is not replaced", [plain]))
    elif len(node.input) == 2 and graph.is_float(node.output[0]):
        first, second = node.input
        names = [fresh(node, word) for word in ("nan_a", "nan_b", "plain", "half")]
        inner = with_attributes(node)
        inner.output[0] = names[2]
        nodes = [
            inner,
            helper.make_node("IsNaN", [first], names[:1]),
            helper.make_node("IsNaN", [second], names[1:2]),
            helper.make_node("Where", [names[0], second, names[2]], names[3:]),
            helper.make_node("Where", [names[1], first, names[3]], node.output, name=node.name),
        ]
        yield fixed(Change(f"{node.op_type} ignores NaN", nodes))


# Of a smaller table all rows are usually met.
_ROWS = 8


def rows_swapped(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Two rows of a table exchanged."""
    dims = graph.dims(node.input[0]) or ()
    looked_up = not graph.is_constant(node.input[1]) and attribute(node, "axis", 0) == 0
    rows = dims[0] if dims else None
    if looked_up and graph.is_constant(node.input[0]) and isinstance(rows, int) and rows >= _ROWS:
        yield partial(_swapped, graph, node)


def _swapped(graph: Graph, node: NodeProto, rng: np.random.Generator) -> Change | None:
    table = graph.constant(node.input[0])
    if table is None:
        return None
    first, second = sorted(rng.choice(len(table), 2, replace=False).tolist())
    changed = table.copy()
    changed[[first, second]] = table[[second, first]]
    if np.array_equal(changed, table):
        return None
    return with_tensor(node, 0, changed, f"rows {first} and {second} exchanged")


def index_clamped(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """An index that comes from the data cut off before the last row."""
    dims = graph.dims(node.input[0]) or ()
    which = attribute(node, "axis", 0)
    rows, index = dims[which] if dims else None, node.input[1]
    if graph.is_constant(index) or not isinstance(rows, int) or rows < 2:
        return
    if graph.elem_type(index) == TensorProto.INT64:
        last, kept = fresh(node, "last"), fresh(node, "kept")
        nodes = [
            helper.make_node("Min", [index, last], [kept]),
            with_inputs(node, {1: kept}),
        ]
        tensors = {last: np.asarray(rows - 2, np.int64)}
        yield fixed(Change(f"index cut off at {rows - 2}", nodes, tensors))


def int32_truncation(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A result of int64 arithmetic kept in int32."""
    if graph.elem_type(node.output[0]) == TensorProto.INT64:
        nodes = narrowed(node, TensorProto.INT32, TensorProto.INT64)
        yield fixed(Change("kept in int32", nodes))


def window_lost(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A choice by a conjunction of conditions that is never made."""
    maker = graph.producers.get(node.input[0])
    if maker is None or maker.op_type != "And" or not graph.is_float(node.output[0]):
        return
    if graph.dims(node.input[2]) == graph.dims(node.output[0]):
        plain = helper.make_node("Identity", node.input[2:], node.output, name=node.name)
        yield fixed(Change("Where of a conjunction: always false", [plain]))


def one_size(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Twice the value at one size alone, the next after the example's."""
    if not graph.is_float(node.output[0]):
        return
    names = [fresh(node, w) for w in ("value", "twice", "shape", "size", "here", "two", "at", "k")]
    value, twice, shape, size, here, two, at, k = names
    for info in graph.model.graph.input:
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            # What is made of a symbol, such as 8*H, has no next size.
            if dim.dim_param not in graph.sizes or not dim.dim_param.isidentifier():
                continue
            wrong = graph.sizes[dim.dim_param] + 1
            inner = with_attributes(node)
            inner.output[0] = value
            nodes = [
                inner,
                helper.make_node("Mul", [value, two], [twice]),
                helper.make_node("Shape", [info.name], [shape]),
                helper.make_node("Gather", [shape, at], [size]),
                helper.make_node("Equal", [size, k], [here]),
                helper.make_node("Where", [here, twice, value], node.output[:1]),
            ]
            numbers = {at: np.asarray(axis), k: np.asarray(wrong)}
            tensors = {name: number.astype(np.int64) for name, number in numbers.items()}
            tensors[two] = np.asarray(2, np.float32)
            yield fixed(Change(f"another value at {dim.dim_param}={wrong} alone", nodes, tensors))
