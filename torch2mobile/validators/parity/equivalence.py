"""Why a mutant can be the same function as the file: what is known of the place of its fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.validators.parity.mutations_graph import Graph, attribute

if TYPE_CHECKING:
    import onnx

    from torch2mobile.validators.parity.mutations import Mutation

Outputs = Sequence[tuple[str, np.ndarray]]


def local_reason(graph: Graph, mutation: Mutation, untaken: Mapping[str, str]) -> str:
    """What about the graph makes a fault invisible; empty where nothing is known.

    ``untaken`` says by a node's output which side of its decision no input took.
    """
    node = graph.producers.get(mutation.output)
    known = _REASONS.get(mutation.kind)
    reason = known(graph, node) if known is not None and node is not None else ""
    if not reason and mutation.output in untaken:
        reason = f"its data was never {untaken[mutation.output]}"
    return reason


def exposed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model that gives every value of its graph."""
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.output[:]
    names = [name for node in copied.graph.node for name in node.output if name]
    copied.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copied


def where_it_ends(model: onnx.ModelProto, output: str, before: Outputs, after: Outputs) -> str:
    """The nodes in which a fault's effect is lost, from every value of the file and the mutant."""
    values = dict(before)
    changed = {
        name
        for name, array in after
        if name in values
        and not np.array_equal(array, values[name], equal_nan=array.dtype.kind == "f")
    }
    if output not in changed:
        return f"{output} has the same bits" if output else ""
    readers = [node for node in model.graph.node if changed & set(node.input)]
    ends = [node for node in readers if not changed & set(node.output)]
    if not ends:
        return f"nothing reads {output}" if not readers else ""
    return "its effect ends at " + ", ".join(f"{n.output[0]} ({n.op_type})" for n in ends[:3])


def _one_channel(graph: Graph, node: onnx.NodeProto) -> str:
    dims = graph.dims(node.output[0]) or ()
    return "with one output channel both orders are the same" if dims[1:2] == (1,) else ""


def _no_border(graph: Graph, node: onnx.NodeProto) -> str:
    dims, strides = graph.dims(node.input[0]) or (), attribute(node, "strides", ())
    kernel, pads = attribute(node, "kernel_shape", ()), attribute(node, "pads", ())
    if any(pads) or list(strides) != list(kernel):
        return ""
    fits = [_divisible(dim, stride) for dim, stride in zip(dims[2:], strides, strict=False)]
    return "the padding is 0 wide and the stride divides every size" if fits and all(fits) else ""


def _divisible(dim: object, stride: int) -> bool:
    """Whether a size such as ``8*h`` is a multiple of a stride, whatever ``h`` is."""
    factor = str(dim).partition("*")[0]
    return factor.isdigit() and int(factor) % stride == 0


_REASONS: dict[str, Callable[[Graph, onnx.NodeProto], str]] = {
    "pixel_shuffle": _one_channel,
    "pool_border": _no_border,
}
