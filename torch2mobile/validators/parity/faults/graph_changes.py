"""An ONNX graph as the kinds of mutation see it, and a small change to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from torch2mobile import onnx_graph
from torch2mobile.onnx_graph import Address, drop_unread, subgraphs

Size = int | str | None

_LINEAR = re.compile(r"(?:(\d+)\*)?([A-Za-z_]\w*)(?: ([+-]) (\d+))?")


@dataclass(frozen=True)
class Change:
    """One fault as a kind finds it: nodes in place of one node, and the tensors that they need."""

    what: str
    nodes: Sequence[onnx.NodeProto] = ()
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    frozen: Mapping[str, int] = field(default_factory=dict)


# Makes the change, or None where it would change nothing. Weights are read only then.
Maker = Callable[[np.random.Generator], Change | None]


def fixed(change: Change) -> Maker:
    """A change that needs no drawing and no weights."""
    return lambda _: change


@dataclass(frozen=True)
class Patch:
    """A change and the place of the node that it is about; no address for the whole graph."""

    address: Address
    change: Change


class Graph(onnx_graph.Graph):
    """A model's graph with the sizes that its symbols have at the example."""

    def __init__(
        self,
        model: onnx.ModelProto,
        sizes: Mapping[str, int] | None = None,
        weights: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__(model, weights)
        self.sizes = dict(sizes or {})

    def elem_type(self, name: str) -> int:
        """ONNX's number for a value's dtype, 0 where it is not known."""
        return self.type(name).code

    def is_float(self, name: str) -> bool:
        """Whether a value is known to be a float32."""
        return self.type(name).text == "tensor(float)"

    def is_whole(self, name: str) -> bool:
        """Whether a value is known to be an integer."""
        return self.type(name).text in {"tensor(int64)", "tensor(int32)"}

    def size(self, label: Size) -> int | None:
        """A dimension's size at the example: of a number, or of ``H``, ``8*h``, ``L + 1``."""
        if not isinstance(label, str):
            return label
        match = _LINEAR.fullmatch(label)
        if match is None or match[2] not in self.sizes:
            return None
        more = int(match[4] or 0) * (-1 if match[3] == "-" else 1)
        return int(match[1] or 1) * self.sizes[match[2]] + more


def apply(model: onnx.ModelProto, patch: Patch) -> None:
    """Put a change into a model, in place.

    Inferred shapes go, as they may not hold any more, and so do constants that nothing reads.
    """
    change = patch.change
    del model.graph.value_info[:]
    if patch.address:
        graph, index = _place(model.graph, patch.address)
        nodes = [_copy(node) for node in change.nodes]
        graph.node[index].CopyFrom(nodes[0])
        for offset, node in enumerate(nodes[1:], start=1):
            graph.node.insert(index + offset, node)
    for name, array in change.tensors.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    drop_unread(model.graph)
    if change.renamed:
        _rename(model.graph, change.renamed)
    for info in (*model.graph.input, *model.graph.output) if change.frozen else ():
        for dim in info.type.tensor_type.shape.dim:
            size = frozen_size(dim.dim_param, change.frozen)
            if size is not None:
                dim.Clear()
                dim.dim_value = size


def frozen_size(label: str, sizes: Mapping[str, int]) -> int | None:
    """The size of ``H`` or ``8*h`` where its symbol is fixed."""
    factor, _, symbol = label.rpartition("*")
    fits = symbol in sizes and (not factor or factor.isdigit())
    return int(factor or 1) * sizes[symbol] if fits else None


def symbol_sizes(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The size of each symbol of the model's inputs at these feeds."""
    found: dict[str, int] = {}
    for info in model.graph.input:
        array = feeds.get(info.name)
        dims = info.type.tensor_type.shape.dim
        for dim, size in zip(dims, () if array is None else array.shape, strict=False):
            factor, _, symbol = dim.dim_param.rpartition("*")
            if symbol and (not factor or factor.isdigit()):
                found.setdefault(symbol, size // int(factor or 1))
    return found


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


def _place(graph: onnx.GraphProto, address: Address) -> tuple[onnx.GraphProto, int]:
    *path, last = address
    for index, name in zip(path[::2], path[1::2], strict=True):
        attributes = {item.name: item for item in graph.node[int(index)].attribute}
        graph = attributes[str(name)].g
    return graph, int(last)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give values other names; the graph's outputs stay what they are called, of the other type."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for _, inner in subgraphs(node):
            _rename(inner, names)
    types = {info.name: info.type.SerializeToString() for info in graph.output}
    for info in graph.output:
        if names.get(info.name) in types:
            info.type.ParseFromString(types[names[info.name]])


# --- what kinds are made of -------------------------------------------------------------------


def with_attributes(node: onnx.NodeProto, **values: Any) -> onnx.NodeProto:
    """The node with these attributes set; None takes one away."""
    changed = _copy(node)
    kept = [item for item in node.attribute if item.name not in values]
    given = [helper.make_attribute(k, v) for k, v in values.items() if v is not None]
    del changed.attribute[:]
    changed.attribute.extend([*kept, *given])
    return changed


def narrowed(node: onnx.NodeProto, small: int, back: int) -> list[onnx.NodeProto]:
    """A node whose first output is cast to a narrower type, and back."""
    narrow, wide = fresh(node, "narrow"), fresh(node, "wide")
    inner = with_attributes(node)
    inner.output[0] = wide
    return [
        inner,
        helper.make_node("Cast", [wide], [narrow], to=small),
        helper.make_node("Cast", [narrow], node.output[:1], to=back),
    ]


def with_op(node: onnx.NodeProto, op_type: str, **attributes: Any) -> onnx.NodeProto:
    """A node of another operator with the same inputs and outputs."""
    made = helper.make_node(op_type, node.input, node.output, name=node.name, **attributes)
    if op_type == node.op_type:
        made.domain = node.domain
    return made


def with_inputs(node: onnx.NodeProto, inputs: Mapping[int, str]) -> onnx.NodeProto:
    """The node with other values at these inputs."""
    changed = _copy(node)
    names = list(node.input)
    names += [""] * (max(inputs) + 1 - len(names))
    for index, name in inputs.items():
        names[index] = name
    while names and not names[-1]:
        names.pop()
    changed.input[:] = names
    return changed


def with_tensor(node: onnx.NodeProto, index: int, array: np.ndarray, what: str) -> Change:
    """A change of one constant input; other readers of that constant keep theirs."""
    name = fresh(node, f"input{index}")
    return Change(what, [with_inputs(node, {index: name})], {name: np.asarray(array, order="C")})


def swapped(node: onnx.NodeProto, first: int, second: int) -> onnx.NodeProto:
    """The node with two of its inputs exchanged."""
    return with_inputs(node, {first: node.input[second], second: node.input[first]})


def fresh(node: onnx.NodeProto, word: str) -> str:
    """A name for a value that only this node's mutant has."""
    return f"{node.output[0]}_mutant_{word}"


def input_at(node: onnx.NodeProto, index: int) -> str:
    """The name of an input, empty where it is left out."""
    return node.input[index] if index < len(node.input) else ""
