"""Why a mutant can be the same function as the file: what is known of the place of its fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.onnx_graph import attribute
from torch2mobile.validators.parity.faults.graph_changes import Graph
from torch2mobile.validators.parity.mutating.ranges import Range

if TYPE_CHECKING:
    import onnx

    from torch2mobile.interfaces import Outputs
    from torch2mobile.validators.parity.faults.catalogue import Mutation


def proof(graph: Graph, mutation: Mutation, ranges: Mapping[str, Range]) -> str:
    """What about the graph makes a fault the same function; empty where nothing is known.

    ``ranges`` are the ends between which its values stay, see :mod:`.ranges`.
    """
    node = graph.producers.get(mutation.output)
    if node is None:
        return ""
    if not any(name in graph.outputs or graph.uses.get(name) for name in node.output):
        return f"nothing reads {mutation.output}"
    if mutation.kind == "relu_slope":
        least = ranges.get(node.input[0], (-np.inf, np.inf))[0]
        return "no declared input takes its data below 0" if least >= 0 else ""
    known = _REASONS.get(mutation.kind)
    return known(graph, node) if known is not None else ""


def exposed(model: onnx.ModelProto, *only: str) -> onnx.ModelProto:
    """A copy of a model that gives every value of its graph, or only these."""
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.output[:]
    names = list(only) or [name for node in copied.graph.node for name in node.output if name]
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
