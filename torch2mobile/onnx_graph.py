"""The one view of an ONNX graph: who makes and who uses a value, its type, constant and scope.

Over the messages of the file itself, since checks look at files that are not sound, and faults and
pieces are written as messages. onnx is imported once a constant's values are asked for.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch2mobile.onnx_types import UNKNOWN, ValueType, element, tensor_type, type_of

if TYPE_CHECKING:
    import numpy as np
    import onnx

# Where a node stands: its index, after the index and attribute of each node it is inside of.
Address = tuple[int | str, ...]


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value, text as ``str``; the default where the node has none of the name."""
    import onnx

    for item in node.attribute:
        if item.name == name:
            value = onnx.helper.get_attribute_value(item)
            return value.decode(errors="replace") if isinstance(value, bytes) else value
    return default


def subgraphs(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The branches and bodies of a node, with the attribute that each stands in."""
    for item in node.attribute:
        if item.HasField("g"):
            yield item.name, item.g
        for graph in item.graphs:
            yield item.name, graph


def walk(
    body: onnx.GraphProto | onnx.FunctionProto, at: Address = ()
) -> Iterator[tuple[Address, onnx.NodeProto]]:
    """All nodes, each before those of its subgraphs, with their addresses."""
    for number, node in enumerate(body.node):
        yield (*at, number), node
        for name, graph in subgraphs(node):
            yield from walk(graph, (*at, number, name))


def every_graph(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and all subgraphs of its nodes."""
    yield graph
    for node in graph.node:
        for _, inner in subgraphs(node):
            yield from every_graph(inner)


def reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads from its own scope, its subgraphs included, each once."""
    found = [name for name in node.input if name]
    for _, graph in subgraphs(node):
        own = {value.name for value in (*graph.input, *graph.initializer)}
        for inner in graph.node:
            found += [name for name in reads(inner) if name not in own]
            own.update(inner.output)
        found += [value.name for value in graph.output if value.name not in own]
    return list(dict.fromkeys(found))


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the initializers that nothing reads."""
    read = {name for _, node in walk(graph) for name in node.input}
    read |= {value.name for inner in every_graph(graph) for value in inner.output}
    for number in reversed(range(len(graph.initializer))):
        if graph.initializer[number].name not in read:
            del graph.initializer[number]


class Scope:
    """A graph or subgraph: the types, constants and makers of the values that can be seen there.

    ``weights`` has tensors whose bytes are not in the model; constants of more than ``most``
    elements are not read.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        outer: Scope | None = None,
        weights: Mapping[str, np.ndarray] | None = None,
        most: int | None = None,
    ) -> None:
        self.graph, self.outer = graph, outer
        self.weights = weights or {}
        self.most: int | None = outer.most if outer is not None else most
        overridable = {value.name for value in graph.input}
        self.given = overridable | {tensor.name for tensor in graph.initializer}
        self.given |= {sparse.values.name for sparse in graph.sparse_initializer}
        self.constants: dict[str, Any] = {
            tensor.name: tensor for tensor in graph.initializer if tensor.name not in overridable
        }
        self.constants |= {sparse.values.name: None for sparse in graph.sparse_initializer}
        self.producers: dict[str, onnx.NodeProto] = {}
        for node in graph.node:
            self.producers |= {name: node for name in node.output if name}
            if node.op_type == "Constant" and not node.domain and node.output:
                self.constants[node.output[0]] = constant_value(node)

    @cached_property
    def types(self) -> dict[str, ValueType]:
        """The types of the values of this very graph, as far as they are known."""
        graph = self.graph
        found = {v.name: type_of(v.type) for v in (*graph.input, *graph.value_info, *graph.output)}
        found |= {tensor.name: tensor_type(tensor) for tensor in graph.initializer}
        for name, value in self.constants.items():
            if name not in found and hasattr(value, "data_type"):
                found[name] = tensor_type(value)
        for sparse in graph.sparse_initializer:
            kind = f"sparse_tensor({element(sparse.values.data_type)})"
            found[sparse.values.name] = ValueType(kind, tuple(sparse.dims))
        return found

    @cached_property
    def uses(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read a value, once for each of their inputs; those of subgraphs too."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for _, node in walk(self.graph):
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def _outwards(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    def defines(self, name: str) -> bool:
        """Whether a value comes from somewhere: an input, a weight or a node, here or further out.

        In which order nodes stand does not matter: ONNX Runtime sorts them.
        """
        return any(name in scope.given or name in scope.producers for scope in self._outwards())

    def type(self, name: str) -> ValueType:
        """The type of a value here or further out; UNKNOWN where there is none."""
        return next((s.types[name] for s in self._outwards() if name in s.types), UNKNOWN)

    def is_constant(self, name: str) -> bool:
        """Whether a value is an initializer that no input overrides, or a Constant's output."""
        for scope in self._outwards():
            if name in scope.constants or name in scope.types:
                return name in scope.constants
        return False

    def constant(self, name: str) -> np.ndarray | None:
        """The values of a constant; None for what is none, lies elsewhere, or is too large."""
        if name in self.weights:
            return self.weights[name]
        found = (s.constants[name] for s in self._outwards() if name in s.constants)
        return array_of(next(found, None), self.most)


class Graph(Scope):
    """A model's graph with all its subgraphs, for sound models: no name is given twice in them."""

    def __init__(
        self, model: onnx.ModelProto, weights: Mapping[str, np.ndarray] | None = None
    ) -> None:
        super().__init__(model.graph, weights=weights)
        self.model = model
        self.opset = max((o.version for o in model.opset_import if not o.domain), default=0)
        self.nodes = list(walk(model.graph))
        self.outputs = {value.name for value in model.graph.output}
        inner = [Scope(graph) for graph in every_graph(model.graph) if graph is not model.graph]
        if inner:
            self.producers = dict(ChainMap(self.producers, *(each.producers for each in inner)))
            self.constants = dict(ChainMap(self.constants, *(each.constants for each in inner)))

    @cached_property
    def types(self) -> dict[str, ValueType]:
        """The types of all values, inferred where the file has few."""
        import onnx

        if len(self.graph.value_info) >= len(self.graph.node) // 2:
            return super().types
        inferred = onnx.shape_inference.infer_shapes(self.model, data_prop=True)
        return super().types | Scope(inferred.graph).types

    def dims(self, name: str) -> tuple[int | str | None, ...] | None:
        """A value's dimensions: numbers, symbols, or None for what is not known."""
        return self.type(name).dims


def constant_value(node: onnx.NodeProto) -> Any:
    """The tensor, number, text or list that a Constant gives; None for what it does not have."""
    import onnx

    for item in node.attribute:
        if item.name == "value":
            return item.t
        if item.name.startswith("value_"):
            return onnx.helper.get_attribute_value(item)
    return None


def array_of(value: Any, most: int | None = None) -> np.ndarray | None:
    """A tensor's, or a Constant's, values; None where they lie elsewhere or are more than asked."""
    import numpy as np
    import onnx

    if not isinstance(value, onnx.TensorProto):
        return None if value is None else np.asarray(value)
    return None if stripped(value, most) else onnx.numpy_helper.to_array(value)


def stripped(tensor: onnx.TensorProto, most: int | None) -> bool:
    """Whether the values lie in another file, or are more than ``most``."""
    import onnx

    count = 1
    for dim in tensor.dims:
        count *= dim
    far = tensor.data_location == onnx.TensorProto.EXTERNAL
    return far or (most is not None and count > most)
