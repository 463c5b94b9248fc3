"""ONNX to ONNX Runtime: would the installed runtime load each node? Without loading the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from torch2mobile.onnx_types import type_proto
from torch2mobile.validators.coverage import graph, kernels, validity
from torch2mobile.validators.coverage.graph import Model, Node
from torch2mobile.validators.coverage.kernels import Kernel, Schema, Types

if TYPE_CHECKING:
    import onnx


class Outcome(str, Enum):
    """What ONNX Runtime does with a node."""

    KERNEL = "a kernel runs it"
    FUNCTION = "it runs as the operators that its definition is made of"
    CASTS = "it runs in float32, between casts"
    NO_OPERATOR = "the runtime has no such operator"
    DEPRECATED = "the operator was removed"
    BAD_TYPE = "the operator does not allow the type"
    NO_KERNEL = "the operator has no kernel on the CPU"
    BAD_ATTRIBUTE = "the kernel does not take an attribute's value"
    NO_TYPE_KERNEL = "the operator has no kernel for the type"
    INVALID = "the node is not as the operator is defined"
    UNKNOWN = "a type that decides is not known"

    @property
    def supported(self) -> bool | None:
        """Whether a model with such a node loads; None where that cannot be told."""
        if self is Outcome.UNKNOWN:
            return None
        return self in (Outcome.KERNEL, Outcome.FUNCTION, Outcome.CASTS)


@dataclass(frozen=True)
class Verdict:
    """The outcome for one node, and why: the type, the version, what there is instead."""

    node: Node
    outcome: Outcome
    reason: str = ""


def verdicts(model: Model) -> list[Verdict]:
    """One verdict for every node, those of subgraphs included."""
    return [judge(node) for node in model.every_node]


def judge(node: Node, depth: int = 0) -> Verdict:
    """What the installed ONNX Runtime does with one node."""
    name = node.proto.op_type
    schema = kernels.schema(node.domain, name, node.opset)
    refused = _refused_by_schema(node, schema, depth)
    if refused is not None or schema is None:
        return refused or Verdict(node, Outcome.NO_OPERATOR, _missing(node))
    if name == "Constant" and not node.domain:
        # It becomes an initializer: no kernel is needed, whatever its type.
        return Verdict(node, Outcome.KERNEL)
    inputs, outputs = _types(node, "input"), _types(node, "output")
    found = [k for k in kernels.kernels(node.domain, name) if k.implements(schema.since)]
    kind = _refusal(found, schema, inputs, outputs)
    if found and kind is None:
        return _of_attributes(node)
    body = _body(node) if depth < _DEEPEST else None
    if body is not None:
        return _of_body(node, body, depth)
    return _without_kernel(node, schema, found, kind)


_DEEPEST = 8
"""How deep functions may consist of functions; none in ONNX is deeper than four."""


def _refused_by_schema(node: Node, schema: Schema | None, depth: int) -> Verdict | None:
    """What the operator itself says against the node, before there is any question of kernels."""
    if schema is None:
        return Verdict(node, Outcome.NO_OPERATOR, _missing(node))
    if schema.deprecated:
        return Verdict(node, Outcome.DEPRECATED, f"{node.op} is gone since opset {schema.since}")
    # What a definition consists of is as it is defined.
    wrong = "" if depth else validity.of_node(node, schema)
    if wrong:
        return Verdict(node, Outcome.INVALID, wrong)
    wrong = kernels.forbidden_type(schema, _types(node, "input"), _types(node, "output"))
    if wrong:
        return Verdict(node, Outcome.BAD_TYPE, f"{node.op}: {wrong}")
    wrong = "" if depth else validity.of_shapes(node)
    return Verdict(node, Outcome.INVALID, wrong) if wrong else None


def _without_kernel(
    node: Node, schema: Schema, found: Sequence[Kernel], refused: str | None
) -> Verdict:
    """A node that no kernel takes as it is, and that consists of no others."""
    inputs, outputs = _types(node, "input"), _types(node, "output")
    if not found:
        reason = f"{node.op}({schema.since}) has no kernel on the CPU"
        return Verdict(node, Outcome.NO_KERNEL, reason)
    if not refused:
        return Verdict(node, Outcome.UNKNOWN, f"{node.op}: the type of an input is not known")
    if _runs_in_float32(found, schema, inputs, outputs):
        return Verdict(node, Outcome.CASTS, f"{node.op} has no kernel for float16")
    return Verdict(node, Outcome.NO_TYPE_KERNEL, _no_type(node, found, refused, schema))


def _of_attributes(node: Node) -> Verdict:
    """What a kernel that fits says when it is made: these few look at their attributes."""
    name = node.proto.op_type
    if name in ("RNN", "GRU", "LSTM") and node.attributes.get("layout", 0) != 0:
        return Verdict(node, Outcome.BAD_ATTRIBUTE, f"{name} runs with layout=0 only")
    if name == "StringNormalizer":
        return Verdict(node, Outcome.UNKNOWN, f"{name}: its locale must be there on the device")
    return Verdict(node, Outcome.KERNEL)


def _missing(node: Node) -> str:
    name = node.proto.op_type
    known = kernels.versions(node.domain, name)
    if known and node.opset:
        return f"{node.op} came with opset {known[0]}, and the model is of opset {node.opset}"
    if known:
        return f"{node.op}: the model does not import the operators of {node.domain or 'ai.onnx'}"
    if node.domain in kernels.domains():
        return f"there is no operator {node.op}"
    return f"{node.op}: the runtime has no operators of the domain {node.domain}"


def _types(node: Node, side: str) -> list[str | None]:
    """The types there are; an output's that is not known is the runtime's to infer, so left out."""
    names = getattr(node.proto, side)
    types = [node.scope.type(name).text if name else None for name in names]
    return [kind or None for kind in types] if side == "output" else types


def _refusal(found: Sequence[Kernel], schema: Schema, inputs: Types, outputs: Types) -> str | None:
    """None if a kernel takes the types; "" if one may; else the type that none takes."""
    refused = [kernels.refused_type(kernel, schema, inputs, outputs) for kernel in found]
    if None in refused:
        return None
    return "" if "" in refused else next(iter(refused), None)


def _runs_in_float32(
    found: Sequence[Kernel], schema: Schema, inputs: Types, outputs: Types
) -> bool:
    """Whether the runtime may put casts around the node: it does for inputs that are float16."""
    half = "tensor(float16)"
    if half not in inputs:
        return False
    single = ["tensor(float)" if kind == half else kind for kind in inputs]
    results = ["tensor(float)" if kind == half else kind for kind in outputs]
    return _refusal(found, schema, single, results) is None


def _no_type(node: Node, found: Sequence[Kernel], refused: str, schema: Schema) -> str:
    constraint = next(
        (c for k in found for c, types in k.types.items() if refused not in types), ""
    )
    there = kernels.types_of(found, constraint)
    shown = ", ".join(there[:8]) + (" and others" if len(there) > 8 else "")
    return f"{node.op}({schema.since}) has no kernel for {refused}; it has them for {shown}"


def _body(node: Node) -> onnx.ModelProto | None:
    """A model of the node alone, replaced by its definition; None where ONNX defines it by none."""
    import onnx.inliner

    try:
        schema = onnx.defs.get_schema(node.proto.op_type, node.opset, node.domain)
    except onnx.defs.SchemaError:
        return None
    definition = _definition(schema, node)
    if definition is None:
        return None
    whole = _alone(node)
    call = whole.graph.node[0]
    given = {attribute.name for attribute in call.attribute}
    for name in definition.attribute:
        if name not in given and schema.attributes[name].default_value.name:
            call.attribute.append(schema.attributes[name].default_value)
    # As a function of a domain of its own, it is no longer the operator that it defines.
    call.domain = definition.domain = "definition"
    definition.name = call.op_type
    # onnx gives a definition for this opset only if its operators are still the same in it.
    known = {entry.domain: entry.version for entry in whole.opset_import}
    for entry in definition.opset_import:
        entry.version = known.setdefault(entry.domain, entry.version)
    del whole.opset_import[:]
    for domain, version in {**known, "definition": 1}.items():
        whole.opset_import.add(domain=domain, version=version)
    whole.functions.append(definition)
    whole = onnx.inliner.inline_local_functions(whole)
    return onnx.shape_inference.infer_shapes(whole, data_prop=True)


def _definition(schema: Any, node: Node) -> onnx.FunctionProto | None:
    """The function that ONNX defines an operator by, for its attributes, types and opset."""
    import onnx

    def newest(versions: Sequence[int]) -> int | None:
        return max((version for version in versions if version <= node.opset), default=None)

    if schema.has_function:
        version = newest(schema.function_opset_versions)
        text = None if version is None else schema.get_function_with_opset_version(version)
        if text and _changed_since(onnx.FunctionProto.FromString(text), version, node.opset):
            return None
    elif schema.has_context_dependent_function:
        version = newest(schema.context_dependent_function_opset_versions)
        types = [type_proto(node.scope.type(name)).SerializeToString() for name in node.proto.input]
        text = None
        # For types that are not known, onnx ends the process.
        if version is not None and all(
            node.scope.type(name).text for name in node.proto.input if name
        ):
            text = schema.get_context_dependent_function_with_opset_version(
                version, node.proto.SerializeToString(), types
            )
    else:
        text = None
    return onnx.FunctionProto.FromString(text) if text else None


def _changed_since(definition: onnx.FunctionProto, version: int | None, opset: int) -> bool:
    """Whether an operator of a definition is another by now: the runtime then does without it."""
    return any(
        kernels.schema(part.domain, part.op_type, opset)
        != kernels.schema(part.domain, part.op_type, version or opset)
        for part in definition.node
    )


def _alone(node: Node) -> onnx.ModelProto:
    import onnx

    body = onnx.GraphProto(name="alone")
    body.node.append(node.proto)
    for name in dict.fromkeys(name for name in node.proto.input if name):
        body.input.append(_value(node, name))
    body.output.extend(_value(node, name) for name in node.proto.output if name)
    model = onnx.ModelProto(graph=body, ir_version=onnx.IR_VERSION)
    model.opset_import.add(domain=node.domain, version=node.opset)
    return model


def _value(node: Node, name: str) -> onnx.ValueInfoProto:
    import onnx

    return onnx.ValueInfoProto(name=name, type=type_proto(node.scope.type(name)))


def _of_body(node: Node, body: onnx.ModelProto, depth: int) -> Verdict:
    """A node that has no kernel of its own runs if all that it consists of does."""
    inner = [judge(part, depth + 1) for part in graph.of_inferred(body).every_node]
    for bad in (False, None):
        for verdict in inner:
            if verdict.outcome.supported is bad:
                outcome = verdict.outcome if bad is None else Outcome.NO_TYPE_KERNEL
                reason = f"{node.op} runs as other operators, of which {verdict.reason}"
                return Verdict(node, outcome, reason)
    return Verdict(node, Outcome.FUNCTION, f"{node.op} runs as other operators")
