"""Exact changes of an ONNX graph that a phone's accelerator takes better than what torch writes.

Each is a remedy of a rule of ``check``. The user's file is never touched; parity judges the
result like any other, so that a rewrite can cost an export, and never its truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from torch2mobile import onnx_graph
from torch2mobile.exporter import provenance
from torch2mobile.onnx_files import own_files, save
from torch2mobile.onnx_graph import attribute, drop_unread, every_graph
from torch2mobile.records import OnnxModel


@dataclass(frozen=True)
class Rewrite:
    """One change: its name, what it does, and the function that makes it, giving how often."""

    name: str
    does: str
    apply: Callable[[_Graph], int] = field(repr=False)


class _Graph(onnx_graph.Graph):
    """A model's graph, and the changes of it."""

    def readers(self, name: str) -> int:
        """How many inputs of nodes this value is, and whether it is an output."""
        return len(self.uses.get(name, ())) + (name in self.outputs)

    def replace_weight(self, node: onnx.NodeProto, index: int, values: np.ndarray) -> None:
        """Give a node's input other values, under a name of its own."""
        name = f"{node.input[index]}_rewritten"
        while self.defines(name) or name in self.constants:
            name += "_again"
        self.graph.initializer.append(numpy_helper.from_array(values, name))
        self.constants[name] = self.graph.initializer[-1]
        node.input[index] = name

    def put(self, old: onnx.NodeProto, *new: onnx.NodeProto) -> None:
        """New nodes in the place of an old one."""
        place = list(self.graph.node).index(old)
        self.graph.node.remove(old)
        for offset, node in enumerate(new):
            self.graph.node.insert(place + offset, node)


# --- T2M401: a mean over all positions is what the accelerators call global average pooling -----


def _pool(graph: _Graph) -> int:
    done = 0
    for node in list(graph.graph.node):
        if node.op_type == "ReduceMean" and _is_spatial_mean(graph, node):
            pooled = node.output[0]
            flat = not attribute(node, "keepdims", 1)
            inner = f"{pooled}_pooled" if flat else pooled
            new = [helper.make_node("GlobalAveragePool", [node.input[0]], [inner], node.name)]
            if flat:
                new.append(helper.make_node("Flatten", [inner], [pooled], f"{node.name}_flat"))
            graph.put(node, *new)
            done += 1
    return done


def _is_spatial_mean(graph: _Graph, node: onnx.NodeProto) -> bool:
    """Whether it is over all of an image's positions, and over nothing else."""
    dims = graph.dims(node.input[0])
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1:
        found = graph.constant(node.input[1])
        axes = None if found is None else found.tolist()
    if dims is None or axes is None or len(dims) != 4:
        return False
    floating = graph.type(node.input[0]).text in {"tensor(float)", "tensor(float16)"}
    return floating and sorted(axis % 4 for axis in axes) == [2, 3]


# --- T2M402: DepthToSpace with the channels of the convolution before it in the other order -----


def _depth_first(graph: _Graph) -> int:
    done = 0
    for node in list(graph.graph.node):
        if node.op_type != "DepthToSpace" or attribute(node, "mode", "DCR") != "CRD":
            continue
        found = _conv_before(graph, node.input[0])
        if found is None:
            continue
        conv, constants = found
        block = int(attribute(node, "blocksize"))
        channels = graph.constants[conv.input[1]].dims[0]
        # CRD reads channel c * block^2 + k where DCR reads k * C + c.
        order = np.arange(channels).reshape(-1, block * block).T.reshape(-1)
        for index in range(1, len(conv.input)):
            weight = numpy_helper.to_array(graph.constants[conv.input[index]])
            graph.replace_weight(conv, index, np.ascontiguousarray(weight[order]))
        for reader, index, values in constants:
            graph.replace_weight(reader, index, np.take(values, order, axis=-3))
        next(a for a in node.attribute if a.name == "mode").s = b"DCR"
        done += 1
    return done


# Element by element: the order of the channels does not matter to them.
_UNARY = {"Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSwish", "Elu", "Softplus", "Neg"}
_BINARY = {"Add", "Sub", "Mul", "Div"}

_Constants = list[tuple[onnx.NodeProto, int, np.ndarray]]


def _conv_before(graph: _Graph, name: str) -> tuple[onnx.NodeProto, _Constants] | None:
    """The convolution whose channels can be reordered, and constants to reorder with them."""
    constants: _Constants = []
    while True:
        node = graph.producers.get(name)
        if node is None or graph.readers(name) != 1:
            return None
        if node.op_type == "Conv":
            inputs = [n for n in node.input[1:] if n]
            weights = {tensor.name for tensor in graph.graph.initializer}
            whole = attribute(node, "group", 1) == 1 and all(n in weights for n in inputs)
            return (node, constants) if whole else None
        if node.op_type in _UNARY:
            name = node.input[0]
            continue
        side = _other_side(graph, node)
        if side is None:
            return None
        name = node.input[1 - side]
        values = graph.constant(node.input[side])
        if values is not None and values.ndim >= 3 and values.shape[-3] != 1:
            constants.append((node, side, values))


def _other_side(graph: _Graph, node: onnx.NodeProto) -> int | None:
    """Which input of an elementwise operator is constant, or the same for all channels."""
    if node.op_type not in _BINARY:
        return None
    for side in (0, 1):
        dims = graph.dims(node.input[side])
        same = dims is not None and (len(dims) < 3 or dims[-3] == 1)
        if same or graph.constant(node.input[side]) is not None:
            return side
    return None


# --- T2M160: what is computed in float64 between float32 and float32 ----------------------------


def _single(graph: _Graph) -> int:
    interface = (*graph.graph.input, *graph.graph.output)
    if any(value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE for value in interface):
        return 0
    done = 0
    for inner in every_graph(graph.graph):
        for tensor in _tensors(inner):
            if tensor.data_type == onnx.TensorProto.DOUBLE:
                values = numpy_helper.to_array(tensor).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
                done += 1
        for node in inner.node:
            for found in node.attribute:
                is_dtype = found.name in {"to", "dtype", "output_dtype"}
                if is_dtype and found.i == onnx.TensorProto.DOUBLE:
                    found.i = onnx.TensorProto.FLOAT
                    done += 1
        doubles = [
            value
            for value in inner.value_info
            if value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
        ]
        for value in doubles:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return done


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for found in node.attribute:
            if found.HasField("t"):
                yield found.t


REWRITES: dict[str, tuple[Rewrite, ...]] = {
    "T2M160": (
        Rewrite(
            "float64-to-float32",
            "compute in float32 what lies between float32 inputs and outputs",
            _single,
        ),
    ),
    "T2M401": (
        Rewrite(
            "mean-to-global-pool",
            "write a mean over height and width as GlobalAveragePool",
            _pool,
        ),
    ),
    "T2M402": (
        Rewrite(
            "depth-to-space-order",
            "reorder the convolution before a DepthToSpace from CRD to DCR",
            _depth_first,
        ),
    ),
}
"""By the code of the rule whose remedy they are."""


def rewrite(model: OnnxModel, codes: tuple[str, ...]) -> tuple[OnnxModel, Mapping[str, int]]:
    """Apply the rewrites of these codes to a model's file; how often each found its place.

    Codes of other rules change nothing. Origins follow the values; a file that nothing applies to
    is left as it is.
    """
    before = onnx.load(model.path)
    after = onnx.ModelProto()
    after.CopyFrom(before)
    counts: dict[str, int] = {}
    for code in dict.fromkeys(codes):
        for one in REWRITES.get(code, ()):
            graph = _Graph(after)
            counts[one.name] = one.apply(graph)
            drop_unread(after.graph)
    if not any(counts.values()):
        return model, counts
    save(after, model.path, external=len(own_files(model.path)) > 1)
    return replace(model, origins=provenance.carry(before, after, model.origins)), counts
