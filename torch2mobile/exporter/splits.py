"""Slices that cut an axis into equal pieces, as one Split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir


def join(graph: ir.Graph) -> None:
    """Slices that cut one axis of known size into equal pieces without a gap, as one Split."""
    by_axis: dict[tuple[ir.Value, int], dict[tuple[int, int], ir.Node]] = {}
    for node in graph:
        cut = _cut(node)
        if cut is not None:
            value, axis, piece = cut
            by_axis.setdefault((value, axis), {}).setdefault(piece, node)
    for (value, axis), pieces in by_axis.items():
        ends = sorted(pieces)
        size = value.shape[axis] if value.shape is not None else 0
        edges = [start for start, _ in ends] + [size]
        if len(ends) < 2 or edges[0] != 0 or [stop for _, stop in ends] != edges[1:]:
            continue
        # NNAPI takes no others.
        if len({stop - start for start, stop in ends}) > 1:
            continue
        _put_split(graph, value, axis, [(pieces[piece], piece) for piece in ends])


def _cut(node: ir.Node) -> tuple[ir.Value, int, tuple[int, int]] | None:
    """Of a Slice along one axis of known size, by steps of 1: its input, axis, start and end."""
    if node.op_type != "Slice" or node.domain or node.inputs[0] is None:
        return None
    value = node.inputs[0]
    numbers = [ir.convenience.get_const_tensor(given) for given in node.inputs[1:] if given]
    if value.shape is None or len(numbers) < 3 or any(n is None or n.size != 1 for n in numbers):
        return None
    start, stop, axis, *step = (int(n.numpy().item()) for n in numbers if n is not None)
    axis += len(value.shape) if axis < 0 else 0
    size = value.shape[axis]
    if not isinstance(size, int) or step not in ([], [1]):
        return None
    start, stop, _ = slice(start, stop).indices(size)
    return (value, axis, (start, stop)) if start < stop else None


def _put_split(
    graph: ir.Graph, value: ir.Value, axis: int, pieces: Sequence[tuple[ir.Node, tuple[int, int]]]
) -> None:
    sizes = np.array([stop - start for _, (start, stop) in pieces], np.int64)
    first = min((node for node, _ in pieces), key=list(graph).index)
    name = f"{first.outputs[0].name}_sizes"
    operand = ir.Value(name=name, const_value=ir.tensor(sizes, name=name))
    graph.register_initializer(operand)
    split = ir.node("Split", [value, operand], {"axis": axis}, num_outputs=len(pieces))
    split.name = f"{first.name}_split"
    graph.insert_before(first, split)
    for (node, _), made in zip(pieces, split.outputs, strict=True):
        old = node.outputs[0]
        ir.convenience.replace_all_uses_with(old, made, replace_graph_outputs=True)
        name_, shape, kind = old.name, old.shape, old.type
        graph.remove(node, safe=True)
        made.name, made.shape, made.type = name_, shape, kind
