"""An ONNX model as the checks look at it: every node with the types and constants around it.

Weights are left out: their type and size is all that counts, and shape inference would copy them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch2mobile import onnx_files
from torch2mobile.errors import UsageError
from torch2mobile.onnx_graph import Scope, stripped, subgraphs
from torch2mobile.onnx_types import UNKNOWN, ValueType
from torch2mobile.validators.coverage import kernels

if TYPE_CHECKING:
    import numpy as np
    import onnx

SMALL = 4096
"""Elements up to which a constant's values are kept, for the axes, pads and sizes among them."""
_LONG = 1 << 20
_WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Node:
    """One node, where it stands, and the opset of its domain (0 where the model imports none)."""

    proto: Any
    scope: Scope
    opset: int

    @property
    def op(self) -> str:
        """``Conv``, or ``com.microsoft.Gelu`` where the domain is not ONNX's own."""
        return f"{self.domain}.{self.proto.op_type}" if self.domain else str(self.proto.op_type)

    @property
    def domain(self) -> str:
        """The domain, where ONNX's own is the empty text."""
        return "" if self.proto.domain == "ai.onnx" else str(self.proto.domain)

    @property
    def label(self) -> str:
        """The node's name, or that of its first output where it has none."""
        return str(self.proto.name or next((name for name in self.proto.output if name), ""))

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The attributes' values by name; text is decoded."""
        import onnx

        found = {}
        for attribute in self.proto.attribute:
            value = onnx.helper.get_attribute_value(attribute)
            found[attribute.name] = value.decode() if isinstance(value, bytes) else value
        return found

    def has_input(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.proto.input) and bool(self.proto.input[index])

    def input_type(self, index: int) -> ValueType:
        """The type of an input; UNKNOWN where it is left out."""
        return self.scope.type(self.proto.input[index]) if self.has_input(index) else UNKNOWN

    def output_type(self, index: int) -> ValueType:
        """The type of an output; UNKNOWN where it is left out."""
        given = index < len(self.proto.output) and self.proto.output[index]
        return self.scope.type(self.proto.output[index]) if given else UNKNOWN

    def constant(self, index: int) -> np.ndarray | None:
        """The values of an input that is a small constant."""
        return self.scope.constant(self.proto.input[index]) if self.has_input(index) else None

    def is_constant(self, index: int) -> bool:
        """Whether an input is given and constant."""
        return self.has_input(index) and self.scope.is_constant(self.proto.input[index])


@dataclass(frozen=True)
class Model:
    """A model made ready to be looked at: functions inlined, shapes inferred, weights left out."""

    proto: onnx.ModelProto
    opsets: Mapping[str, int]
    main: Scope
    nodes: tuple[Node, ...]
    subgraph_nodes: tuple[Node, ...] = field(default=())

    @property
    def every_node(self) -> tuple[Node, ...]:
        """The nodes of the graph itself, then those of its subgraphs."""
        return (*self.nodes, *self.subgraph_nodes)


def read(model: onnx.ModelProto, fixed: Mapping[str, int] | None = None) -> Model:
    """A model with the shapes inferred, after these symbols were given these sizes.

    Raises UsageError for a symbol that no input has, ModelFileError where the model is not sound
    enough for its shapes to be inferred.
    """
    import onnx.inliner

    light = _without_weights(model)
    with onnx_files.understood("the model"):
        if light.functions:
            light = onnx.inliner.inline_local_functions(light)
        if fixed:
            fix(light, fixed)
        light = onnx.shape_inference.infer_shapes(light, data_prop=not _has_long(light))
    return of_inferred(light)


def _has_long(model: onnx.ModelProto) -> bool:
    """Whether an input has an axis so long that onnx would follow its elements one by one."""
    return any(
        dim.dim_value > _LONG
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
        for dim in value.type.tensor_type.shape.dim
    )


def of_inferred(model: onnx.ModelProto) -> Model:
    """The view of a model whose shapes are there already."""
    opsets: dict[str, int] = {}
    for entry in model.opset_import:
        opsets["" if entry.domain == "ai.onnx" else entry.domain] = entry.version
    main = Scope(model.graph, most=SMALL)
    inner: list[Node] = []
    nodes = tuple(_walk(main, opsets, inner))
    return Model(model, opsets, main, nodes, tuple(inner))


def _walk(scope: Scope, opsets: Mapping[str, int], inner: list[Node]) -> Iterator[Node]:
    """The nodes of one graph; those of its subgraphs go to ``inner``."""
    for proto in scope.graph.node:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        node = Node(proto, scope, opsets.get(domain, 0))
        _complete_types(node)
        for _, graph in subgraphs(proto):
            inner.extend(list(_walk(Scope(graph, scope), opsets, inner)))
        yield node


def _complete_types(node: Node) -> None:
    """Types of outputs that ONNX's inference does not know: of ONNX Runtime's own operators."""
    unknown = [name for name in node.proto.output if name and not node.scope.type(name).text]
    if not unknown:
        return
    schema = kernels.schema(node.domain, node.proto.op_type, node.opset)
    if schema is None:
        return
    given = [node.input_type(index).text for index in range(len(node.proto.input))]
    for index, name in enumerate(node.proto.output):
        if name in unknown:
            text = kernels.output_type(schema, index, given)
            if text:
                node.scope.types[name] = ValueType(text)


def no_such_symbol(name: str, known: Iterable[str]) -> UsageError:
    """A size was given to a symbol that no input has."""
    listed = ", ".join(known) or "none: all its sizes are fixed"
    return UsageError(
        f"--fix-dim {name}: no input has a dimension of that name",
        f"The model's dimensions are {listed}.",
    )


def symbols(model: onnx.ModelProto) -> dict[str, None]:
    """The symbols of the inputs' dimensions, in order."""
    return {
        dim.dim_param: None
        for value in model.graph.input
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    }


def refuse_unknown(model: onnx.ModelProto, fixed: Mapping[str, int]) -> None:
    """UsageError for a symbol that no input has."""
    known = symbols(model)
    for name in fixed:
        if name not in known:
            raise no_such_symbol(name, known)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model in which large initializers have a type and a size, but no values."""
    import onnx

    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph, source = light.graph, model.graph
    graph.name = source.name
    for name in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(graph, name).extend(getattr(source, name))
    for tensor in source.initializer:
        if stripped(tensor, SMALL):
            graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        else:
            graph.initializer.append(tensor)
    return light


def fix(model: onnx.ModelProto, fixed: Mapping[str, int]) -> None:
    """Give symbols their sizes wherever they stand; what is computed of them is inferred anew.

    Raises UsageError for a symbol that no input has.
    """
    refuse_unknown(model, fixed)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in fixed:
                dim.dim_value = fixed[dim.dim_param]
            elif set(_WORD.findall(dim.dim_param)) & set(fixed):
                dim.ClearField("dim_param")
