"""What moves elements and computes none, said in as few nodes as it takes.

A chain of Reshape, Squeeze, Unsqueeze, Flatten and Transpose is a splitting of the axes into
factors, a new order of these, and a grouping: at most Reshape, Transpose and Reshape. A Reshape to
a shape that the graph computes needs no such computation where the sizes are known by symbol, and
slices that cut an axis into equal pieces are one Split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from torch2mobile.exporter import splits
from torch2mobile.exporter.axis_factors import (
    ONE,
    Axes,
    Factor,
    Size,
    Step,
    leaves,
    product,
    regrouped,
    sizes_of,
    steps,
)

_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"}
# Slice is another operator before, and Split takes its sizes as an input since.
_OPSET = 13


def merge(model: ir.Model) -> bool:
    """Say the main graph's views by fewer nodes, in place; whether there was anything to say.

    What they give stays what it was.
    """
    graph = model.graph
    if model.opset_imports.get("", 0) < _OPSET:
        return False
    before = list(graph)
    splits.join(graph)
    taken: set[ir.Node] = set()
    for node in list(graph):
        if node.op_type in _VIEWS and node not in taken:
            for chain in _chains(node):
                taken.update(chain)
                _replace(graph, chain)
    common.RemoveUnusedNodesPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    return list(graph) != before


def _only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, if that is all that does and it moves elements."""
    uses = value.uses()
    if value.is_graph_output() or len(uses) != 1:
        return None
    ((user, index),) = uses
    inside = user.graph is not None and user.graph is getattr(value.producer(), "graph", None)
    return user if inside and index == 0 and user.op_type in _VIEWS and not user.domain else None


def _chains(node: ir.Node) -> Iterator[list[ir.Node]]:
    """The chain that starts here, cut where a reshape fits no factors."""
    chain: list[ir.Node] = []
    following: ir.Node | None = node
    while following is not None:
        chain.append(following)
        if len(chain) > 1 and _moved(chain) is None:
            yield chain[:-1]
            chain = [following]
        following = _only_user(following.outputs[0])
    yield chain


def _moved(chain: Sequence[ir.Node]) -> tuple[Axes, Axes] | None:
    """The axes of a chain's input and of its output, by common factors."""
    sizes = sizes_of(chain[0].inputs[0])
    if sizes is None:
        return None
    first: Axes = [[Factor(size)] if size != ONE else [] for size in sizes]
    axes: Axes | None = [list(axis) for axis in first]
    for node in chain:
        shape = sizes_of(node.outputs[0])
        if axes is None or shape is None:
            return None
        axes = (
            [axes[place] for place in _permutation(node, len(axes))]
            if node.op_type == "Transpose"
            else regrouped(axes, shape)
        )
    return (leaves(first), leaves(axes)) if axes is not None else None


def _permutation(node: ir.Node, rank: int) -> list[int]:
    attribute = node.attributes.get("perm")
    return list(attribute.as_ints()) if attribute is not None else list(range(rank))[::-1]


def _replace(graph: ir.Graph, chain: Sequence[ir.Node]) -> None:
    """A chain by a shorter one, or by one whose shapes are numbers, if there is any."""
    moved = _moved(chain)
    start, end = chain[0].inputs[0], chain[-1].outputs[0]
    if moved is None or start is None:
        return
    given = [node.inputs[1] for node in chain if node.op_type == "Reshape"]
    fixed = all(shape is not None and shape.producer() is None for shape in given)
    for way in steps(*moved):
        if len(way) > len(chain) - fixed:
            continue
        nodes = _nodes(start, moved[0], way, chain[-1])
        if nodes is not None:
            _put(graph, chain, nodes, start, end)
            return


def _nodes(
    start: ir.Value, axes: Axes, steps: Sequence[Step], last: ir.Node
) -> list[ir.Node] | None:
    """New nodes for these steps; None where a shape cannot be written as numbers."""
    made: list[ir.Node] = []
    value = start
    for order, wanted in steps:
        if order is not None:
            node = ir.node("Transpose", [value], {"perm": order})
            axes = [axes[n] for n in order]
        else:
            shape = _written(axes, wanted)
            if shape is not None:
                name = f"shape_{'_'.join(map(str, shape))}".replace("-", "m")
                operand = ir.Value(
                    name=name, const_value=ir.tensor(np.array(shape, np.int64), name=name)
                )
            elif len(made) == len(steps) - 1 and last.op_type == "Reshape":
                operand = last.inputs[1]  # type: ignore[assignment]
            else:
                return None
            node = ir.node("Reshape", [value, operand])
            axes = wanted
        value = node.outputs[0]
        value.type = start.type
        value.shape = ir.Shape([_dim(product(axis)) for axis in axes])
        made.append(node)
    return made


def _dim(size: Size) -> int | str:
    if not size.symbols:
        return size.number
    return "*".join([str(size.number)] * (size.number != 1) + list(size.symbols))


def _written(axes: Axes, wanted: Axes) -> list[int] | None:
    """A Reshape's operand: numbers, 0 for what stays in its place, -1 for one that is left."""
    before, after = [product(a) for a in axes], [product(a) for a in wanted]
    shape = [
        size.number if not size.symbols else 0 if before[n : n + 1] == [size] else -1
        for n, size in enumerate(after)
    ]
    return shape if shape.count(-1) <= 1 else None


def _put(
    graph: ir.Graph,
    chain: Sequence[ir.Node],
    nodes: Sequence[ir.Node],
    start: ir.Value,
    end: ir.Value,
) -> None:
    """New nodes in a chain's place; the value at its end keeps its name."""
    if not nodes:
        if end.is_graph_output():
            return
        ir.convenience.replace_all_uses_with(end, start)
        graph.remove(chain[::-1], safe=True)
        return
    for number, node in enumerate(nodes):
        node.name = f"{chain[-1].name or end.name}_view{number}"
        node.outputs[0].name = f"{end.name}_view{number}"
        for n, operand in enumerate(node.inputs):
            if operand is not None and operand.const_value is not None and operand.graph is None:
                if operand.name not in graph.initializers:
                    if operand.producer() is None and not operand.is_graph_input():
                        graph.register_initializer(operand)
                else:
                    node.replace_input_with(n, graph.initializers[str(operand.name)])
    made = nodes[-1].outputs[0]
    graph.insert_before(chain[-1], nodes)
    ir.convenience.replace_all_uses_with(end, made, replace_graph_outputs=True)
    name, shape, kind = end.name, end.shape, end.type
    graph.remove(chain[::-1], safe=True)
    made.name, made.shape, made.type = name, shape, kind
