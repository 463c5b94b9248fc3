"""Faults of types, sizes and the file's interface."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

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
    with_tensor,
)


def cast_narrow(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A value kept in a narrower type on its way: float16, or int32 for an int64."""
    whole = node.op_type == "Cast" and attribute(node, "to") == TensorProto.INT64
    back = graph.elem_type(node.output[0])
    if back and (whole or graph.is_float(node.output[0])):
        small, name = (TensorProto.INT8, "int8") if whole else (TensorProto.FLOAT16, "float16")
        yield fixed(Change(f"output kept in {name}", narrowed(node, small, back)))


def shape_baked(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A size read from the data, fixed at the example's."""
    if node.op_type == "Shape":
        dims = graph.dims(node.input[0]) or ()
        dims = dims[attribute(node, "start", 0) : attribute(node, "end")]
        sizes = [graph.size(dim) for dim in dims]
        if any(isinstance(dim, str) for dim in dims) and None not in sizes:
            name = fresh(node, "sizes")
            plain = helper.make_node("Identity", [name], node.output, name=node.name)
            what = f"sizes fixed to {sizes}"
            yield fixed(Change(what, [plain], {name: np.array(sizes, np.int64)}))
        return
    given, dims = graph.constant(node.input[1]), graph.dims(node.output[0]) or ()
    if given is None or len(dims) != given.size or -1 not in given.tolist():
        return
    place = given.tolist().index(-1)
    size = graph.size(dims[place])
    if isinstance(dims[place], str) and size is not None:
        baked = given.copy()
        baked[place] = size
        yield fixed(with_tensor(node, 1, baked, f"size {place} fixed to {size}"))


def outputs_swapped(graph: Graph) -> Iterator[Maker]:
    """The values of two outputs under each other's name."""
    names = [info.name for info in graph.model.graph.output]
    made = [name for name in names if name in graph.producers]
    for first, second in itertools.combinations(made, 2):
        names_ = {first: second, second: first}
        yield fixed(Change(f"outputs {first} and {second} exchanged", renamed=names_))


def dim_frozen(graph: Graph) -> Iterator[Maker]:
    """A dynamic dimension declared with the example's size."""
    labels = [
        dim.dim_param.rpartition("*")[2]
        for info in graph.model.graph.input
        for dim in info.type.tensor_type.shape.dim
        if dim.dim_param
    ]
    for symbol in dict.fromkeys(labels):
        size = graph.sizes.get(symbol, 2)
        yield fixed(Change(f"dimension {symbol} fixed to {size}", frozen={symbol: size}))
