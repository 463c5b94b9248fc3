"""Whether ONNX Runtime would take a model for one at all: its nodes, names and shapes.

What ``onnx.checker`` asks of a whole file is more, and the runtime loads files that it refuses, so
that the questions are the runtime's own: its schemas for the nodes, ONNX's inference for shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch2mobile.onnx_graph import Scope
from torch2mobile.onnx_types import type_proto
from torch2mobile.validators.coverage.graph import Model, Node
from torch2mobile.validators.coverage.kernels import Schema

if TYPE_CHECKING:
    import onnx


def of_names(model: Model) -> Iterator[tuple[Node | None, str]]:
    """Values that are read and come from nowhere, or that come from two places."""
    makers: dict[tuple[int, str], Node] = {}
    for node in model.every_node:
        for name in dict.fromkeys(node.proto.input):
            if name and not node.scope.defines(name):
                yield node, f"{node.op} reads {name!r}, which is no input, weight or node's output"
        for name in filter(None, node.proto.output):
            if (id(node.scope), name) in makers or name in node.scope.given:
                yield node, f"{node.op} gives {name!r}, which is there already"
            makers[id(node.scope), name] = node
    for value in model.proto.graph.output:
        if not model.main.defines(value.name):
            yield None, f"the output {value.name!r} is given by nothing"


def of_node(node: Node, schema: Schema) -> str:
    """What the operator's schema says against a node's attributes and the number of its arguments.

    Empty if nothing.
    """
    import onnx

    given = {attribute.name: attribute for attribute in node.proto.attribute}
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in given:
            return f"{node.op} needs the attribute {name}"
    for name, found in given.items():
        known = schema.attributes.get(name)
        if known is None and not name.startswith("__"):
            return f"{node.op} has no attribute {name}"
        kind = onnx.AttributeProto.AttributeType.Name(found.type)
        if known is not None and found.type and known.kind not in ("", kind):
            return f"{node.op}: the attribute {name} is {kind}, not {known.kind}"
    for side, least, most in (
        ("input", *schema.input_range),
        ("output", *schema.output_range),
    ):
        count = len(getattr(node.proto, side))
        if not least <= count <= most:
            wanted = f"at least {least}" if count < least else f"at most {most}"
            return f"{node.op} has {count} {side}s, and needs {wanted}"
    return ""


def of_shapes(node: Node) -> str:
    """What ONNX's inference says against the shapes that a node is given; empty if nothing.

    Nodes with subgraphs are left out: those nodes are looked at themselves.
    """
    import onnx

    proto = node.proto
    inner = any(a.HasField("g") or a.graphs for a in proto.attribute)
    names = [name for name in proto.input if name]
    types = {name: node.scope.type(name) for name in names}
    if inner or not names or not all(kind.text for kind in types.values()):
        return ""
    try:
        schema = onnx.defs.get_schema(proto.op_type, node.opset, node.domain)
    except onnx.defs.SchemaError:
        return ""
    try:
        onnx.shape_inference.infer_node_outputs(
            schema,
            proto,
            {name: type_proto(kind) for name, kind in types.items()},
            _values(node.scope, names),
            opset_imports=[onnx.helper.make_opsetid(node.domain, node.opset)],
            ir_version=onnx.IR_VERSION,
        )
    except onnx.shape_inference.InferenceError as error:
        text = str(error).strip().splitlines()
        reason = text[-1].rpartition("] ")[2] if text else "its shapes do not fit"
        return f"{node.op}: {reason}"
    return ""


def _values(scope: Scope, names: list[str]) -> dict[str, onnx.TensorProto]:
    """The small constants among these, which shapes may depend on."""
    import onnx

    found: dict[str, Any] = {name: scope.constant(name) for name in names}
    return {
        name: onnx.numpy_helper.from_array(values, name)
        for name, values in found.items()
        if values is not None
    }
