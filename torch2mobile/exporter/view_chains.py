"""What moves elements and computes none, said in as few nodes as it takes.

A chain of Reshape, Squeeze, Unsqueeze, Flatten and Transpose is a splitting of the axes into
factors, a new order of these, and a grouping: at most Reshape, Transpose and Reshape. A Reshape to
a shape that the graph computes needs no such computation where the sizes are known by symbol, and
slices that cut an axis into equal pieces are one Split.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from torch2mobile.exporter import splits

_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"}
_PRODUCT = re.compile(r"\w+(\*\w+)*")
# Slice is another operator before, and Split takes its sizes as an input since.
_OPSET = 13


@dataclass(frozen=True)
class Size:
    """A size as a product: a number times symbols, such as ``4*N``."""

    number: int
    symbols: tuple[str, ...] = ()

    def over(self, other: Size) -> Size | None:
        """This size divided by another; None where that is no product."""
        left = Counter(self.symbols)
        left.subtract(other.symbols)
        if self.number % other.number or any(count < 0 for count in left.values()):
            return None
        return Size(self.number // other.number, tuple(sorted(left.elements())))


ONE = Size(1)


@dataclass(eq=False)
class _Factor:
    """A part of an axis; a reshape that needs a finer one gives it parts."""

    size: Size
    parts: list[_Factor] = field(default_factory=list)


_Axes = list[list[_Factor]]
# The order of a Transpose, or None and the axes of a Reshape.
_Step = tuple[list[int] | None, _Axes]


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


def _size(dim: int | ir.SymbolicDim) -> Size | None:
    """None for a size without a name, and for none at all."""
    if isinstance(dim, int):
        return Size(dim) if dim > 0 else None
    text = (dim.value or "").replace(" ", "")
    if not _PRODUCT.fullmatch(text):
        return Size(1, (text,)) if text else None
    words = text.split("*")
    number = math.prod(int(word) for word in words if word.isdigit())
    return Size(number, tuple(sorted(word for word in words if not word.isdigit())))


def _sizes(value: ir.Value | None) -> list[Size] | None:
    if value is None or value.shape is None:
        return None
    found = [_size(dim) for dim in value.shape]
    return None if None in found else [size for size in found if size is not None]


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


def _moved(chain: Sequence[ir.Node]) -> tuple[_Axes, _Axes] | None:
    """The axes of a chain's input and of its output, by common factors."""
    sizes = _sizes(chain[0].inputs[0])
    if sizes is None:
        return None
    first: _Axes = [[_Factor(size)] if size != ONE else [] for size in sizes]
    axes: _Axes | None = [list(axis) for axis in first]
    for node in chain:
        shape = _sizes(node.outputs[0])
        if axes is None or shape is None:
            return None
        axes = (
            [axes[place] for place in _permutation(node, len(axes))]
            if node.op_type == "Transpose"
            else _regrouped(axes, shape)
        )
    return (_leaves(first), _leaves(axes)) if axes is not None else None


def _permutation(node: ir.Node, rank: int) -> list[int]:
    attribute = node.attributes.get("perm")
    return list(attribute.as_ints()) if attribute is not None else list(range(rank))[::-1]


def _leaves(axes: _Axes) -> _Axes:
    def whole(factors: Sequence[_Factor]) -> Iterator[_Factor]:
        for factor in factors:
            yield from whole(factor.parts) if factor.parts else [factor]

    return [list(whole(axis)) for axis in axes]


def _regrouped(axes: _Axes, shape: Sequence[Size]) -> _Axes | None:
    """The same factors in the same order under other axes; None where they do not fit."""
    queue = deque(itertools.chain.from_iterable(_leaves(axes)))
    found: _Axes = []
    for size in shape:
        axis: list[_Factor] = []
        needed = size
        while needed != ONE:
            if not queue:
                return None
            factor = queue.popleft()
            rest = needed.over(factor.size)
            if rest is None:
                more = factor.size.over(needed)
                if more is None:
                    return None
                factor.parts = [_Factor(needed), _Factor(more)]
                queue.appendleft(factor.parts[1])
                factor, rest = factor.parts[0], ONE
            axis.append(factor)
            needed = rest
        found.append(axis)
    return found if not queue else None


def _product(axis: Sequence[_Factor]) -> Size:
    number = math.prod(factor.size.number for factor in axis)
    return Size(number, tuple(sorted(s for factor in axis for s in factor.size.symbols)))


def _ordered(pieces: _Axes, goal: _Axes) -> list[int] | None:
    """The order in which the pieces give the goal's factors; those of size 1 stand in between."""
    by_first = {axis[0]: n for n, axis in enumerate(pieces) if axis}
    flat = [factor for axis in goal for factor in axis]
    order: list[int] = []
    while flat:
        place = by_first.get(flat[0])
        if place is None or flat[: len(pieces[place])] != pieces[place]:
            return None
        order.append(place)
        del flat[: len(pieces[place])]
    return order


def _steps(first: _Axes, last: _Axes) -> Iterator[list[_Step]]:
    """Ways from the first axes to the last, the shortest first: shapes and permutations."""
    ones = [n for n, axis in enumerate(first) if not axis]
    order = _ordered(first, last)
    back = _ordered(last, first)
    whole = [factor for axis in first for factor in axis]
    if whole == [factor for axis in last for factor in axis]:
        same = [_product(a) for a in first] == [_product(a) for a in last]
        yield [] if same else [(None, last)]
        return
    if order is not None and len(first) == len(last):
        named, spare = iter(order), iter(ones)
        pure = [next(named if axis else spare, -1) for axis in last]
        if sorted(pure) == list(range(len(first))) and [first[n] for n in pure] == last:
            yield [(pure, [])]
    if order is not None:
        yield [([*order, *ones], []), (None, last)]
    if back is not None:
        places = [*back, *(n for n, axis in enumerate(last) if not axis)]
        turned = [places.index(n) for n in range(len(last))]
        yield [(None, [last[n] for n in places]), (turned, [])]
    place = {factor: n for n, factor in enumerate(whole)}
    groups: _Axes = []
    for factor in (factor for axis in last for factor in axis):
        if groups and place[factor] == place[groups[-1][-1]] + 1:
            groups[-1].append(factor)
        else:
            groups.append([factor])
    middle = sorted(groups, key=lambda axis: place[axis[0]])
    yield [(None, middle), ([middle.index(axis) for axis in groups], []), (None, last)]


def _replace(graph: ir.Graph, chain: Sequence[ir.Node]) -> None:
    """A chain by a shorter one, or by one whose shapes are numbers, if there is any."""
    moved = _moved(chain)
    start, end = chain[0].inputs[0], chain[-1].outputs[0]
    if moved is None or start is None:
        return
    given = [node.inputs[1] for node in chain if node.op_type == "Reshape"]
    fixed = all(shape is not None and shape.producer() is None for shape in given)
    for steps in _steps(*moved):
        if len(steps) > len(chain) - fixed:
            continue
        nodes = _nodes(start, moved[0], steps, chain[-1])
        if nodes is not None:
            _put(graph, chain, nodes, start, end)
            return


def _nodes(
    start: ir.Value, axes: _Axes, steps: Sequence[_Step], last: ir.Node
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
        value.shape = ir.Shape([_dim(_product(axis)) for axis in axes])
        made.append(node)
    return made


def _dim(size: Size) -> int | str:
    if not size.symbols:
        return size.number
    return "*".join([str(size.number)] * (size.number != 1) + list(size.symbols))


def _written(axes: _Axes, wanted: _Axes) -> list[int] | None:
    """A Reshape's operand: numbers, 0 for what stays in its place, -1 for one that is left."""
    before, after = [_product(a) for a in axes], [_product(a) for a in wanted]
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
